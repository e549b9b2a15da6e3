//! Who calls, and whether that is allowed.

use crate::{
    config::{Config, Profile},
    error::ApiError,
};
use otp_core::{Idempotency, Meter, MeterLimit, MobileNumber, Recipient};
use otp_request::{ClientAddress, IdempotencyKey, Scope};
use spin_sdk::http::HeaderMap;

/// What is known of a caller that may do what it asks for.
#[derive(Debug)]
pub(crate) struct KnownCaller {
    /// The name of its API key; empty where there are none.
    pub(crate) name: String,
    /// What its request counts on.
    meters: Vec<Meter>,
    /// How it wants to be able to retry.
    key: Option<IdempotencyKey>,
}

/// What a caller asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asks {
    /// To have a new code made and sent; it may retry with an Idempotency-Key.
    NewCode,
    /// To have a code sent again.
    SameCode,
    /// Whether a code is right.
    Check,
    /// To have a user erased.
    Erasure,
}

/// Refuses callers that the profile does not serve: in development, those on other machines and pages of other
/// sites in a browser on this one, for nothing else is in their way.
pub(crate) fn near(config: &Config, headers: &HeaderMap, authority: Option<&str>) -> Result<(), ApiError> {
    match config.profile {
        Profile::Development { allow_remote: false } => {
            Ok(otp_request::near(headers, authority, &config.cors_origins)?)
        }
        Profile::Development { allow_remote: true } | Profile::Production => Ok(()),
    }
}

impl KnownCaller {
    /// Checks the API key, where there are any, and its scope.
    pub(crate) fn of(headers: &HeaderMap, asks: Asks, config: &Config) -> Result<Self, ApiError> {
        let scope = match asks {
            Asks::NewCode | Asks::SameCode => Scope::Send,
            Asks::Check => Scope::Verify,
            Asks::Erasure => Scope::Admin,
        };
        let name = match &config.api_keys {
            Some(keys) => keys.authorise(headers, scope)?.to_owned(),
            None => String::new(),
        };
        let key = if asks == Asks::NewCode { IdempotencyKey::of(headers)? } else { None };
        let meters = meters(&name, headers, asks, config);
        Ok(Self { name, meters, key })
    }

    /// Its name, and itself as the domain sees it, asking `route` for a code for `number`.
    pub(crate) fn asking(
        self,
        config: &Config,
        route: &str,
        number: &MobileNumber,
        recipient: Option<&Recipient>,
    ) -> (String, otp_core::Caller) {
        let idempotency = self.key.map(|key| {
            Idempotency::new(&config.index_key, [&self.name, route, key.as_str()], number, recipient)
        });
        (self.name, otp_core::Caller { meters: self.meters, idempotency })
    }

    /// Its name, and itself as the domain sees it, with nothing to retry.
    pub(crate) fn plain(self) -> (String, otp_core::Caller) {
        (self.name, otp_core::Caller { meters: self.meters, idempotency: None })
    }
}

/// The limits of the caller's own, and the one of everybody together, which only counts what is sent: it is
/// there for what that costs.
fn meters(name: &str, headers: &HeaderMap, asks: Asks, config: &Config) -> Vec<Meter> {
    if asks == Asks::Erasure {
        return Vec::new();
    }
    let sends = asks != Asks::Check;
    // The limit is part of the key: when it is changed, everybody begins anew.
    let keyed = |whose: String, limit: &MeterLimit| {
        format!("{whose}:{}/{}", limit.requests(), limit.window_seconds())
    };
    let client = config.client_limit.map(|limit| {
        // Spin always tells where a request came from; if it ever does not, those are one client.
        let address = ClientAddress::of(headers, &config.trusted_proxies)
            .map_or_else(String::new, |address| address.to_string());
        let key = keyed(format!("client:{}", config.index_key.fingerprint("client", &[&address])), &limit);
        Meter { name: "client", key, limit }
    });
    let key =
        config.key_limit.map(|limit| Meter { name: "key", key: keyed(format!("key:{name}"), &limit), limit });
    let global = config.global_limit.filter(|_| sends);
    let global = global.map(|limit| Meter { name: "global", key: keyed("global".to_owned(), &limit), limit });
    client.into_iter().chain(key).chain(global).collect()
}
