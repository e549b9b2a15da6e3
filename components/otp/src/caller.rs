//! Who calls, and whether that is allowed.

use crate::{
    config::{Config, Profile},
    error::ApiError,
};
use otp_core::{Attempt, Delivery, Idempotency, Meter, MeterLimit, Recipient};
use otp_request::{ClientAddress, IdempotencyKey, Scope, Stranger, follows_a_link};
use spin_sdk::http::{HeaderMap, Method};

/// What is known of a caller that may do what it asks for.
#[derive(Debug)]
pub(crate) struct KnownCaller {
    /// Its application: the name of its API key.
    application: String,
    /// What its request counts on.
    meters: Vec<Meter>,
    /// How it wants to be able to retry.
    key: Option<IdempotencyKey>,
}

/// The application of everybody where there are no API keys.
const DEFAULT_APPLICATION: &str = "default";

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
pub(crate) fn near(
    config: &Config,
    method: &Method,
    headers: &HeaderMap,
    authority: Option<&str>,
) -> Result<(), ApiError> {
    match config.profile {
        Profile::Development { allow_remote: false } => {
            match otp_request::near(headers, authority, &config.cors_origins) {
                Err(Stranger::CrossSite) if follows_a_link(method, headers) => Ok(()),
                verdict => Ok(verdict?),
            }
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
        let application = match &config.api_keys {
            Some(keys) => keys.authorise(headers, scope)?.to_owned(),
            None => DEFAULT_APPLICATION.to_owned(),
        };
        let key = if asks == Asks::Erasure { None } else { IdempotencyKey::of(headers)? };
        let meters = meters(&application, headers, asks, config);
        Ok(Self { application, meters, key })
    }

    /// Itself as the domain sees it, asking `route` for a code for `recipient`.
    pub(crate) fn asking(
        self,
        config: &Config,
        route: &str,
        recipient: &Recipient,
        delivery: Option<&Delivery>,
    ) -> otp_core::Caller {
        let idempotency = self.key.as_ref().map(|key| {
            Idempotency::new(&config.index_key, [&self.application, route, key.as_str()], recipient, delivery)
        });
        otp_core::Caller { idempotency, ..self.plain() }
    }

    /// Itself as the domain sees it, having a code checked.
    pub(crate) fn checking(
        self,
        config: &Config,
        recipient: &Recipient,
        attempt: &Attempt,
    ) -> otp_core::Caller {
        let idempotency = self.key.as_ref().map(|key| {
            let named = [&self.application, "verify-otp", key.as_str()];
            Idempotency::of_check(&config.index_key, named, recipient, attempt)
        });
        otp_core::Caller { idempotency, ..self.plain() }
    }

    /// Itself as the domain sees it, with nothing to retry.
    pub(crate) fn plain(self) -> otp_core::Caller {
        otp_core::Caller { application: self.application, meters: self.meters, idempotency: None }
    }
}

/// The limits of the caller's own, and the one of everybody together, which only counts what is sent: it is
/// there for what that costs.
fn meters(application: &str, headers: &HeaderMap, asks: Asks, config: &Config) -> Vec<Meter> {
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
        let key = keyed(
            format!("client:{}", config.index_key.fingerprint("client", &[application, &address])),
            &limit,
        );
        Meter { name: "client", key, limit }
    });
    let key = config.key_limit.map(|limit| Meter {
        name: "key",
        key: keyed(format!("key:{application}"), &limit),
        limit,
    });
    let global = config.global_limit.filter(|_| sends);
    let global = global.map(|limit| Meter { name: "global", key: keyed("global".to_owned(), &limit), limit });
    client.into_iter().chain(key).chain(global).collect()
}
