//! The operator's settings: the one place that knows Spin's variables.

use crate::{
    cache::{Cache, redis::Address},
    deadline, log,
    relay::{Relay, Token},
};
use otp_core::{CodeLength, CodeLife, MaxAttempts, Policy, Region};
use otp_seal::{IndexKey, KeyRing};
use spin_sdk::variables;
use std::{cell::RefCell, fmt, rc::Rc, time::Duration};

/// What the variables say, read and checked once an instance.
#[derive(Debug)]
pub(crate) struct Config {
    /// `otp_length`, `otp_ttl_seconds`, `max_verify_attempts`
    pub(crate) policy: Policy,
    /// `reveal_otp`: whether answers carry the code, or only its delivery does.
    pub(crate) reveal_otp: bool,
    /// `encryption_keys`
    pub(crate) encryption_keys: KeyRing,
    /// `index_key`
    pub(crate) index_key: IndexKey,
    /// `default_region`: the country whose national numbers are taken.
    pub(crate) default_region: Option<Region>,
    /// `redis_endpoint` and what goes with it.
    pub(crate) cache: Cache,
    /// `relay_url`, `relay_token`: who takes the events; without one they wait.
    pub(crate) relay: Option<Relay>,
    /// `outbox_retention_seconds`: how long an event may wait before it counts as dead.
    pub(crate) outbox_retention: Duration,
    /// What is good enough for development only, in words for the operator.
    pub(crate) warnings: Vec<&'static str>,
}

/// A variable whose value makes no sense. It does not repeat the value, which may be a key.
#[derive(Debug, Clone)]
pub(crate) struct Misconfiguration {
    variable: &'static str,
    reason: String,
}

impl fmt::Display for Misconfiguration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.variable, self.reason)
    }
}

/// Why there is no configuration.
#[derive(Debug, Clone)]
pub(crate) enum Unusable {
    /// Values that make no sense: all of them.
    Misconfigured(Vec<Misconfiguration>),
    /// This variable could not be read just now.
    Unread(&'static str),
}

/// How long the variables may take to arrive: they may come from a provider across the network.
const DEADLINE: Duration = Duration::from_secs(2);

/// The configuration of this instance, read by its first request. Warnings go to the log then.
///
/// Nothing is held across an `.await`: two requests that find the place empty at the same time both
/// fill it, which does no harm.
pub(crate) async fn of_instance() -> Result<Rc<Config>, Unusable> {
    thread_local! {
        static CONFIG: RefCell<Option<Result<Rc<Config>, Unusable>>> = const { RefCell::new(None) };
    }
    if let Some(config) = CONFIG.with_borrow(Clone::clone) {
        return config;
    }
    let loaded = deadline::within(DEADLINE, Config::load()).await.unwrap_or(Err(Unusable::Unread("any")));
    let config = loaded.map(Rc::new);
    match &config {
        Ok(config) if config.warnings.is_empty() => {}
        Ok(config) => log::line(format_args!("warning: {}", config.warnings.join("; "))),
        Err(Unusable::Misconfigured(faults)) => {
            faults.iter().for_each(|fault| log::line(format_args!("misconfigured: {fault}")));
        }
        // Not kept: the next request may fare better.
        Err(Unusable::Unread(_)) => return config,
    }
    CONFIG.set(Some(config.clone()));
    config
}

impl Config {
    /// Reads all variables, and tells all that is wrong with them at once.
    async fn load() -> Result<Self, Unusable> {
        let mut reader = Reader::default();
        let policy = Policy {
            length: reader.number("otp_length", CodeLength::new).await,
            life: reader.number("otp_ttl_seconds", CodeLife::from_seconds).await,
            max_attempts: reader.number("max_verify_attempts", MaxAttempts::new).await,
        };
        let reveal_otp = reader.read("reveal_otp", switch).await.unwrap_or_default();
        let default_region = reader.read("default_region", |code| unless_empty(code, str::parse)).await;
        let encryption_keys =
            reader.read("encryption_keys", |list| unless_empty(list, KeyRing::parse)).await.flatten();
        let index_key = reader.read("index_key", |key| unless_empty(key, IndexKey::parse)).await.flatten();
        let cache = Cache::new(reader.redis().await.map(Rc::new));
        let relay = reader.relay().await;
        let outbox_retention = reader.number("outbox_retention_seconds", retention).await;
        if let Some(variable) = reader.unread {
            return Err(Unusable::Unread(variable));
        }
        if !reader.faults.is_empty() {
            return Err(Unusable::Misconfigured(reader.faults));
        }

        let mut warnings = Vec::new();
        if encryption_keys.is_none() {
            warnings.push("encryption_keys is not set: codes are sealed with a public development key");
        }
        if index_key.is_none() {
            warnings.push("index_key is not set: codes are checked with a public development key");
        }
        Ok(Self {
            policy,
            reveal_otp,
            encryption_keys: encryption_keys.unwrap_or_else(KeyRing::development),
            index_key: index_key.unwrap_or_else(IndexKey::development),
            default_region: default_region.flatten(),
            cache,
            relay,
            outbox_retention,
            warnings,
        })
    }
}

/// Reads variables and gathers what is wrong with them.
#[derive(Default)]
struct Reader {
    faults: Vec<Misconfiguration>,
    unread: Option<&'static str>,
}

impl Reader {
    /// The variable as `parse` understands it; `None` if it does not, which is then among the faults.
    async fn read<T, E: fmt::Display>(
        &mut self,
        variable: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let parsed = match variables::get(variable).await {
            Ok(value) => parse(&value).map_err(|error| error.to_string()),
            Err(variables::Error::Undefined(_)) => Err("is not declared in spin.toml".to_owned()),
            // What a provider says may hold a secret: some quote the line that they stumbled over.
            Err(_) => {
                self.unread = Some(variable);
                return None;
            }
        };
        parsed.map_err(|reason| self.faults.push(Misconfiguration { variable, reason })).ok()
    }

    /// Where Redis is, if it is anywhere.
    async fn redis(&mut self) -> Option<Address> {
        let text = |value: &str| Ok::<_, std::convert::Infallible>(value.to_owned());
        let username = self.read("redis_username", text).await?;
        let password = self.read("redis_password", text).await?;
        let database = self.read("redis_database", |value| unless_empty(value, whole_number)).await?;
        let companions = [
            ("redis_username", !username.is_empty()),
            ("redis_password", !password.is_empty()),
            ("redis_database", database.is_some()),
        ];
        let database = database.unwrap_or_default();
        self.read("redis_endpoint", |endpoint| {
            if let ("", Some((name, _))) = (endpoint, companions.iter().find(|(_, set)| *set)) {
                return Err(format!("is empty, but {name} is set"));
            }
            unless_empty(endpoint, |endpoint| Address::new(endpoint, &username, &password, database))
                .map_err(str::to_owned)
        })
        .await
        .flatten()
    }

    /// Where the relay is, if there is one.
    async fn relay(&mut self) -> Option<Relay> {
        let token = self.read("relay_token", |token| unless_empty(token, Token::new)).await?;
        let plaintext = self.read("allow_plaintext_relay", switch).await?;
        self.read("relay_url", |url| {
            if url.trim().is_empty() && token.is_some() {
                return Err("is empty, but relay_token is set");
            }
            unless_empty(url, |url| Relay::new(url, token, plaintext))
        })
        .await
        .flatten()
    }

    /// A whole number. What stands in for one that makes no sense is never used.
    async fn number<T: Default, E: fmt::Display>(
        &mut self,
        variable: &'static str,
        check: impl FnOnce(u64) -> Result<T, E>,
    ) -> T {
        let parse = |value: &str| check(whole_number(value)?).map_err(|error| error.to_string());
        self.read(variable, parse).await.unwrap_or_default()
    }
}

fn whole_number<T: std::str::FromStr>(value: &str) -> Result<T, &'static str> {
    let value = value.trim();
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| value.parse().ok()).flatten().ok_or("must be a whole number")
}

/// A minute to a year, in seconds.
fn retention(seconds: u64) -> Result<Duration, &'static str> {
    let sensible = (60..=31_536_000).contains(&seconds);
    sensible.then(|| Duration::from_secs(seconds)).ok_or("must be from 60 to 31536000")
}

fn switch(value: &str) -> Result<bool, &'static str> {
    match value.trim() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("must be true or false"),
    }
}

fn unless_empty<T, E>(value: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Result<Option<T>, E> {
    // A secret from a file often ends in a line feed.
    let value = value.trim();
    if value.is_empty() { Ok(None) } else { parse(value).map(Some) }
}
