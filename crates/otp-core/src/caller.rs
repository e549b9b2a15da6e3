//! Who asks, as far as the domain has to know.

use crate::{
    meter::Meter,
    otp_id::OtpId,
    recipient::{Delivery, Recipient},
    verify::Attempt,
};
use otp_seal::{Fingerprint, IndexKey};

/// Who asks.
#[derive(Debug, Default)]
pub struct Caller {
    /// The application that it belongs to. Those of different ones are strangers.
    pub application: String,
    /// What the request counts on.
    pub meters: Vec<Meter>,
    /// How its retry is known, if the caller wants to be able to retry.
    pub idempotency: Option<Idempotency>,
}

/// What a request with an Idempotency-Key is known by
/// (draft-ietf-httpapi-idempotency-key-header-07).
#[derive(Debug)]
pub struct Idempotency {
    /// Of the application, the route and the key.
    pub id: Fingerprint,
    /// Of what was asked for.
    pub request: Fingerprint,
}

impl Idempotency {
    /// How long an answer is kept for retries, in milliseconds: a day.
    pub const KEPT: i64 = 24 * 60 * 60 * 1_000;

    /// For `key`, sent by `application` to `route` to have a code for `recipient`; what goes by the recipient alone
    /// has no `delivery`. A body that is written otherwise and means the same is the same.
    pub fn new(
        index: &IndexKey,
        [application, route, key]: [&str; 3],
        recipient: &Recipient,
        delivery: Option<&Delivery>,
    ) -> Self {
        let channel = delivery.map_or("", |delivery| delivery.channel().as_str());
        let email = delivery.and_then(Delivery::email).map_or("", |email| email.as_str());
        Self {
            id: index.fingerprint("idempotency key", &[application, route, key]),
            request: index.fingerprint("request", &[recipient.as_str(), channel, email]),
        }
    }

    /// For `key`, sent by `application` to `route` to have a code checked.
    pub fn of_check(
        index: &IndexKey,
        [application, route, key]: [&str; 3],
        recipient: &Recipient,
        attempt: &Attempt,
    ) -> Self {
        let otp_id = attempt.otp_id.as_ref().map_or("", OtpId::as_str);
        Self {
            id: index.fingerprint("idempotency key", &[application, route, key]),
            request: index.fingerprint("check", &[recipient.as_str(), attempt.code.expose(), otp_id]),
        }
    }
}
