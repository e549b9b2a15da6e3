//! The operator's settings: the one place that knows Spin's variables.

use crate::{
    cache::{Cache, redis::Address},
    deadline, log,
    relay::{Relay, Token},
    store::{
        place::Place,
        postgres::address::{Address as Postgres, Tls},
    },
};
use otp_core::{
    CodeLength, CodeLife, Destinations, Guard, GuardSettings, LockTime, MaxAttempts, MaxFailures, MeterLimit,
    NumberTypes, Policy, Region, SendLimit, SendWindow,
};
use otp_request::{ApiKeys, Origins, TrustedProxies};
use otp_seal::{EventKeys, IndexKey, KeyRing};
use spin_sdk::{http::HeaderValue, variables};
use std::{cell::RefCell, fmt, rc::Rc, str::FromStr, time::Duration};

/// What the variables say, read and checked once an instance.
#[derive(Debug)]
pub(crate) struct Config {
    /// `profile`, `allow_remote_development`
    pub(crate) profile: Profile,
    /// `api_keys`; `None` where everybody may do everything.
    pub(crate) api_keys: Option<ApiKeys>,
    /// `cors_origins`: whose pages may call.
    pub(crate) cors_origins: Origins,
    /// `require_otp_id`: whether a check has to say which code it is for.
    pub(crate) require_otp_id: bool,
    /// `trusted_proxies`: who may say whose request it passes on.
    pub(crate) trusted_proxies: TrustedProxies,
    /// `otp_length`, `otp_ttl_seconds`, `max_verify_attempts`, `max_consecutive_failures`, `lock_seconds`,
    /// `rate_limit_requests`, `rate_limit_window_seconds`, `uniform_responses`
    pub(crate) policy: Policy,
    /// `client_rate_limit`, of an address.
    pub(crate) client_limit: Option<MeterLimit>,
    /// `key_rate_limit`, of the name of an API key.
    pub(crate) key_limit: Option<MeterLimit>,
    /// `global_rate_limit`, of everybody together.
    pub(crate) global_limit: Option<MeterLimit>,
    /// All limits, as the field `RateLimit-Policy` has them.
    pub(crate) rate_limit_policy: Option<HeaderValue>,
    /// `allowed_countries`, `blocked_prefixes`, `allowed_number_types`
    pub(crate) destinations: Destinations,
    /// `pumping_guard` and what goes with it; `None` if it is switched off.
    pub(crate) guard: Option<Guard>,
    /// `reveal_otp`: whether answers carry the code, or only its delivery does.
    pub(crate) reveal_otp: bool,
    /// `encryption_keys`
    pub(crate) encryption_keys: Rc<KeyRing>,
    /// `event_keys`: sign what goes to the relay.
    pub(crate) event_keys: EventKeys,
    /// `index_key`
    pub(crate) index_key: IndexKey,
    /// `default_region`: the country whose national numbers are taken.
    pub(crate) default_region: Option<Region>,
    /// `postgres_endpoint` and what goes with it, or Spin's SQLite file.
    pub(crate) database: Place,
    /// `redis_endpoint` and what goes with it.
    pub(crate) cache: Cache,
    /// `relay_url`, `relay_token`: who takes the events; without one they wait.
    pub(crate) relay: Option<Relay>,
    /// `outbox_retention_seconds`: how long an event may wait before it counts as dead.
    pub(crate) outbox_retention: Duration,
    /// What is good enough for development only, in words for the operator.
    pub(crate) warnings: Vec<&'static str>,
}

/// Who is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// This machine.
    Development {
        /// And everybody else, too.
        allow_remote: bool,
    },
    /// Everybody who has an API key.
    Production,
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

/// What the production profile lets one address and the API keys of one name ask for, as requests and seconds, unless it is
/// said otherwise: far more than the sign-ups of a product, and far less than a machine can send.
const CLIENT_LIMIT: Option<(u64, u64)> = Some((3_000, 60));
const KEY_LIMIT: Option<(u64, u64)> = Some((30_000, 60));

/// How long the variables may take to arrive: they may come from a provider across the network.
const DEADLINE: Duration = Duration::from_secs(2);

thread_local! {
    static CONFIG: RefCell<Option<Result<Rc<Config>, Unusable>>> = const { RefCell::new(None) };
}

/// The configuration, if this instance has one already.
pub(crate) fn known() -> Option<Rc<Config>> {
    CONFIG.with_borrow(|config| config.as_ref()?.as_ref().ok().map(Rc::clone))
}

/// The configuration of this instance, read by its first request. Warnings go to the log then.
///
/// Nothing is held across an `.await`: two requests that find the place empty at the same time both
/// fill it, which does no harm.
pub(crate) async fn of_instance() -> Result<Rc<Config>, Unusable> {
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
        let profile = reader.profile().await;
        let api_keys = reader.read("api_keys", |list| unless_empty(list, ApiKeys::from_str)).await.flatten();
        let cors_origins = reader.read("cors_origins", Origins::from_str).await.unwrap_or_default();
        let trusted_proxies =
            reader.read("trusted_proxies", TrustedProxies::from_str).await.unwrap_or_default();
        let reveal_otp = reader.read("reveal_otp", switch).await.unwrap_or_default();
        let guard = reader.guard().await;
        let policy = Policy {
            length: reader.number("otp_length", CodeLength::new).await,
            life: reader.number("otp_ttl_seconds", CodeLife::from_seconds).await,
            max_attempts: reader.number("max_verify_attempts", MaxAttempts::new).await,
            max_failures: reader.number("max_consecutive_failures", MaxFailures::new).await,
            lock: reader.number("lock_seconds", LockTime::from_seconds).await,
            sends: reader.send_limit().await,
            guarded: guard.is_some(),
            uniform: reader.uniform(reveal_otp).await,
        };
        let production = profile == Profile::Production;
        let require_otp_id = reader.read("require_otp_id", |value| unless_empty(value, switch)).await;
        let require_otp_id = require_otp_id.flatten().unwrap_or(production);
        let client_limit = reader.meter("client_rate_limit", CLIENT_LIMIT.filter(|_| production)).await;
        let key_limit = reader.meter("key_rate_limit", KEY_LIMIT.filter(|_| production)).await;
        if key_limit.is_some() && api_keys.is_none() && !production {
            reader.fault("key_rate_limit", "is set, but api_keys is empty");
        }
        if production {
            reader
                .is_said(
                    "global_rate_limit",
                    "requests/seconds that the bill can stand, or off for any number",
                )
                .await;
            reader
                .is_said(
                    "allowed_countries",
                    "the countries that codes are sent to, such as US,CA, or * for all",
                )
                .await;
        }
        let global_limit = reader.meter("global_rate_limit", None).await;
        let destinations = reader.destinations(profile).await;
        let default_region = reader.read("default_region", |code| unless_empty(code, str::parse)).await;
        let encryption_keys =
            reader.read("encryption_keys", |list| unless_empty(list, KeyRing::parse)).await.flatten();
        let index_key = reader.read("index_key", |key| unless_empty(key, IndexKey::parse)).await.flatten();
        let event_keys =
            reader.read("event_keys", |list| unless_empty(list, EventKeys::parse)).await.flatten();
        let database = reader.postgres().await.map_or(Place::File, |address| Place::Server(Rc::new(address)));
        // Where nobody shall be able to tell, nothing is noted of a number.
        let noted = policy.sends.filter(|_| !policy.uniform);
        let redis = reader.redis().await.map(Rc::new);
        let relay = reader.relay().await;
        let outbox_retention = reader.number("outbox_retention_seconds", retention).await;
        if production {
            reader.fit_for_production(
                encryption_keys.as_ref(),
                index_key.as_ref(),
                event_keys.as_ref(),
                api_keys.as_ref(),
                reveal_otp,
                policy.length,
            );
        }
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
        if event_keys.is_none() && relay.is_some() {
            warnings.push("event_keys is not set: events are signed with a public development key");
        }
        let encryption_keys = Rc::new(encryption_keys.unwrap_or_else(KeyRing::development));
        let cache = Cache::new(redis, Rc::clone(&encryption_keys));
        let rate_limit_policy = rate_limit_policy(
            noted,
            [("client", client_limit), ("key", key_limit), ("global", global_limit)],
        );
        Ok(Self {
            profile,
            api_keys,
            cors_origins,
            require_otp_id,
            trusted_proxies,
            client_limit,
            key_limit,
            global_limit,
            rate_limit_policy,
            destinations,
            guard,
            policy,
            reveal_otp,
            encryption_keys,
            event_keys: event_keys.unwrap_or_else(EventKeys::development),
            index_key: index_key.unwrap_or_else(IndexKey::development),
            default_region: default_region.flatten(),
            database,
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

    fn fault(&mut self, variable: &'static str, reason: impl Into<String>) {
        self.faults.push(Misconfiguration { variable, reason: reason.into() });
    }

    async fn profile(&mut self) -> Profile {
        let production = self.read("profile", |profile| match profile.trim() {
            "development" => Ok(false),
            "production" => Ok(true),
            _ => Err("must be development or production"),
        });
        let production = production.await.unwrap_or_default();
        let allow_remote = self.read("allow_remote_development", switch).await.unwrap_or_default();
        if production { Profile::Production } else { Profile::Development { allow_remote } }
    }

    /// What would be a hole where everybody can reach it.
    fn fit_for_production(
        &mut self,
        encryption_keys: Option<&KeyRing>,
        index_key: Option<&IndexKey>,
        event_keys: Option<&EventKeys>,
        api_keys: Option<&ApiKeys>,
        reveal_otp: bool,
        length: CodeLength,
    ) {
        /// ASVS 5.0, 6.5.4; NIST SP 800-63B-4, 3.1.3.2
        const LEAST_DIGITS: usize = 6;
        let own = "must be set to a key of your own in the production profile; make one with: openssl rand -base64 32";
        if is_sound(&self.faults, "encryption_keys")
            && encryption_keys.is_none_or(KeyRing::has_development_key)
        {
            self.fault("encryption_keys", own);
        }
        if is_sound(&self.faults, "index_key") && index_key.is_none_or(IndexKey::is_development) {
            self.fault("index_key", own);
        }
        if is_sound(&self.faults, "event_keys") && event_keys.is_none_or(EventKeys::has_development_key) {
            self.fault("event_keys", own);
        }
        if is_sound(&self.faults, "api_keys") && api_keys.is_none() {
            self.fault(
                "api_keys",
                "must be set in the production profile, or everybody could have codes sent",
            );
        }
        if reveal_otp {
            self.fault(
                "reveal_otp",
                "must be false in the production profile: only the delivery may carry the code",
            );
        }
        if length.digits() < LEAST_DIGITS {
            self.fault("otp_length", "must be at least 6 in the production profile");
        }
    }

    /// How often a number is sent a code.
    async fn send_limit(&mut self) -> Option<SendLimit> {
        let window = self.number("rate_limit_window_seconds", SendWindow::from_seconds).await;
        let limit = self.read("rate_limit_requests", |value| match whole_number(value)? {
            0 => Ok(None),
            requests => SendLimit::new(requests, window)
                .map(Some)
                .map_err(|error| format!("{error}, or 0 for no limit")),
        });
        limit.await.flatten()
    }

    /// A limit as `requests/seconds`, or `off` for none; where the variable is empty, the one that there is otherwise.
    async fn meter(&mut self, variable: &'static str, otherwise: Option<(u64, u64)>) -> Option<MeterLimit> {
        let limit = self.read(variable, |limit| match limit.trim() {
            "" => Ok(otherwise.and_then(|(requests, seconds)| format!("{requests}/{seconds}").parse().ok())),
            "off" => Ok(None),
            limit => MeterLimit::from_str(limit).map(Some),
        });
        limit.await.flatten()
    }

    /// A variable that the production profile wants said, whatever it is: what it stands for is the operator's risk.
    async fn is_said(&mut self, variable: &'static str, what: &str) {
        let said =
            self.read(variable, |value| Ok::<_, std::convert::Infallible>(!value.trim().is_empty())).await;
        if said == Some(false) {
            self.fault(variable, format!("must be set in the production profile: {what}"));
        }
    }

    async fn destinations(&mut self, profile: Profile) -> Destinations {
        let types = self.read("allowed_number_types", |list| unless_empty(list, NumberTypes::from_str)).await;
        let types = types.flatten().unwrap_or(match profile {
            Profile::Development { .. } => NumberTypes::ALL,
            Profile::Production => NumberTypes::mobiles(),
        });
        let allowed = self.read("allowed_countries", |list| match list.trim() {
            "*" => Ok(Destinations::default()),
            list => Destinations::default().allow(list),
        });
        let allowed = allowed.await;
        let allowed = allowed.unwrap_or_default();
        let destinations = self.read("blocked_prefixes", |list| allowed.block(list)).await;
        destinations.unwrap_or_default().of_types(types)
    }

    /// The guard against pumping, unless it is switched off.
    async fn guard(&mut self) -> Option<Guard> {
        let on = self.read("pumping_guard", switch).await.unwrap_or_default();
        let settings = GuardSettings {
            least: self.number("pumping_min_sends", Ok::<_, &str>).await,
            percent: self.number("pumping_min_percent", Ok::<_, &str>).await,
            window_seconds: self.number("pumping_window_seconds", Ok::<_, &str>).await,
            suspend_seconds: self.number("pumping_suspend_seconds", Ok::<_, &str>).await,
        };
        let guard = Guard::new(settings);
        // One that could not even be read is named already.
        if let Err((variable, error)) = &guard
            && self.unread.is_none()
            && is_sound(&self.faults, variable)
        {
            self.fault(variable, error.to_string());
        }
        guard.ok().filter(|_| on)
    }

    /// Whether nobody shall be able to tell a known number from an unknown one. A code in the answer would tell.
    async fn uniform(&mut self, reveal_otp: bool) -> bool {
        let uniform = self.read("uniform_responses", switch).await.unwrap_or_default();
        if uniform && reveal_otp {
            self.fault(
                "uniform_responses",
                "needs reveal_otp to be false: an answer with a code tells that there is one",
            );
        }
        uniform
    }

    /// Where Postgres is, if the database is one.
    async fn postgres(&mut self) -> Option<Postgres> {
        let text = |value: &str| Ok::<_, std::convert::Infallible>(value.trim().to_owned());
        let user = self.read("postgres_user", text).await?;
        let password = self.read("postgres_password", text).await?;
        let database = self.read("postgres_database", text).await?;
        let authority = self.read("postgres_ca", text).await?;
        let tls = self.read("postgres_tls", |value| unless_empty(value, Tls::from_str)).await?;
        let companions = [
            ("postgres_user", !user.is_empty()),
            ("postgres_password", !password.is_empty()),
            ("postgres_database", !database.is_empty()),
            ("postgres_ca", !authority.is_empty()),
            ("postgres_tls", tls.is_some()),
        ];
        if !authority.is_empty() && !authority.starts_with("-----BEGIN CERTIFICATE-----") {
            self.fault("postgres_ca", "must be a certificate in PEM form, and not the name of its file");
        }
        self.read("postgres_endpoint", |endpoint| {
            if let ("", Some((name, _))) = (endpoint.trim(), companions.iter().find(|(_, set)| *set)) {
                return Err(format!("is empty, but {name} is set"));
            }
            unless_empty(endpoint, |endpoint| {
                Postgres::new(endpoint, &user, &password, &database, tls.unwrap_or_default(), &authority)
            })
            .map_err(str::to_owned)
        })
        .await
        .flatten()
    }

    /// Where Redis is, if it is anywhere.
    async fn redis(&mut self) -> Option<Address> {
        let text = |value: &str| Ok::<_, std::convert::Infallible>(value.trim().to_owned());
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

/// Whether nothing was found wrong with the variable.
fn is_sound(faults: &[Misconfiguration], variable: &str) -> bool {
    faults.iter().all(|fault| fault.variable != variable)
}

/// All limits as one field (draft-ietf-httpapi-ratelimit-headers-11, section 4).
fn rate_limit_policy(
    sends: Option<SendLimit>,
    meters: [(&str, Option<MeterLimit>); 3],
) -> Option<HeaderValue> {
    let policy = |name: &str, requests, seconds| format!("\"{name}\";q={requests};w={seconds}");
    let sends = sends.map(|limit| policy("number", limit.requests(), limit.window_millis() / 1_000));
    let meters = meters.into_iter().filter_map(|(name, limit)| {
        limit.map(|limit| policy(name, limit.requests(), limit.window_seconds()))
    });
    let all: Vec<_> = sends.into_iter().chain(meters).collect();
    // Names and numbers are always a valid field.
    if all.is_empty() { None } else { HeaderValue::from_str(&all.join(", ")).ok() }
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
