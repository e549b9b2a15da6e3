//! Whether the process answers, and whether it can serve.

use crate::{
    answer::Answer,
    config::Config,
    dependencies::{Dependencies, Dependency},
    environment::Environment,
    error::ApiError,
    store::Store,
};
use otp_core::{Timestamp, ports::Clock};
use serde::Serialize;
use spin_sdk::http::StatusCode;
use std::cell::RefCell;

/// How long an instance repeats what it has found, in milliseconds: probes of several balancers shall
/// not become a load of their own.
const CACHED_FOR: i64 = 1_000;

#[derive(Serialize)]
struct Alive {
    status: &'static str,
}

#[derive(Serialize)]
struct Ready<'a> {
    status: &'static str,
    dependencies: Dependencies,
    warnings: &'a [&'static str],
}

thread_local! {
    static LAST: RefCell<Option<(Timestamp, Answer)>> = const { RefCell::new(None) };
}

/// `GET /healthz`: the process answers.
pub(crate) fn alive() -> Answer {
    Answer::json(StatusCode::OK, &Alive { status: "ok" })
}

/// What of a database's reason can be shown to everybody: the whole of it may name a host or a user.
fn why_not(reason: &str) -> Option<&'static str> {
    // SQLSTATE 25006 read_only_sql_transaction, 53100 disk_full; SQLite's own words.
    let has = |part: &str| reason.to_ascii_lowercase().contains(part);
    if has("25006") || has("readonly") {
        Some("it can be read, and not written")
    } else if has("53100") || has("database or disk is full") || has("database-full") {
        Some("its disk is full")
    } else {
        None
    }
}

/// `GET /readyz`: the configuration makes sense and every dependency does what is asked of it.
pub(crate) async fn ready(config: &Config) -> Result<Answer, ApiError> {
    let now = Environment.now();
    let fresh = |(at, answer): &(Timestamp, Answer)| {
        (0..CACHED_FOR).contains(&(now.unix_millis() - at.unix_millis())).then(|| answer.clone())
    };
    if let Some(answer) = LAST.with_borrow(|last| last.as_ref().and_then(fresh)) {
        return Ok(answer);
    }
    let store = Store::new(&config.database);
    let relay = async { Some(config.relay.as_ref()?.ping().await) };
    // At the same time, so that the slowest of them decides.
    let (pinged, cache, relay) = futures::join!(store.ping(), config.cache.probe(), relay);
    let cache = cache.map(|probed| Dependency::new(config.cache.kind(), probed.map_err(Some)));
    let relay = relay.map(|pinged| Dependency::new("relay", pinged.map_err(|_| None)));
    // Without its cache the service is slower, without the relay events wait; both are still right.
    let degraded = [&cache, &relay].into_iter().flatten().any(|dependency| !dependency.is_up());
    let database = pinged.as_ref().copied().map_err(|unavailable| why_not(&unavailable.0));
    let dependencies =
        Dependencies { database: Dependency::new(config.database.kind(), database), cache, relay };
    let answer = match pinged {
        Ok(()) => {
            let ready = Ready {
                status: if degraded { "degraded" } else { "ready" },
                dependencies,
                warnings: &config.warnings,
            };
            Answer::json(StatusCode::OK, &ready)
        }
        Err(unavailable) => ApiError::NotReady(unavailable, dependencies).into(),
    };
    LAST.set(Some((Environment.now(), answer.clone())));
    Ok(answer)
}
