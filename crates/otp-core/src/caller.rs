//! Who asks, as far as the domain has to know.

use crate::{meter::Meter, number::MobileNumber, recipient::Recipient};
use otp_seal::{Fingerprint, IndexKey};

/// Who asks.
#[derive(Debug, Default)]
pub struct Caller {
    /// What the request counts on.
    pub meters: Vec<Meter>,
    /// How its retry is known, if the caller wants to be able to retry.
    pub idempotency: Option<Idempotency>,
}

/// What a request with an Idempotency-Key is known by
/// (draft-ietf-httpapi-idempotency-key-header-07).
#[derive(Debug)]
pub struct Idempotency {
    /// Of the caller's name, the route and the key.
    pub id: Fingerprint,
    /// Of what was asked for.
    pub request: Fingerprint,
}

impl Idempotency {
    /// How long an answer is kept for retries, in milliseconds: a day.
    pub const KEPT: i64 = 24 * 60 * 60 * 1_000;

    /// For `key`, sent by `caller` to `route` to have a code for `number`; what goes by the number alone has no
    /// `recipient`. A body that is written otherwise and means the same is the same.
    pub fn new(
        index: &IndexKey,
        [caller, route, key]: [&str; 3],
        number: &MobileNumber,
        recipient: Option<&Recipient>,
    ) -> Self {
        let channel = recipient.map_or("", |recipient| recipient.channel().as_str());
        let email = recipient.and_then(Recipient::email).map_or("", |email| email.as_str());
        Self {
            id: index.fingerprint("idempotency key", &[caller, route, key]),
            request: index.fingerprint("request", &[number.as_str(), channel, email]),
        }
    }
}
