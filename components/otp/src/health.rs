//! Whether the process answers, and whether it can serve.

use crate::{answer::Answer, environment::Environment, error::ApiError, instance, store::Store};
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

#[derive(Serialize)]
struct Dependencies {
    database: Dependency,
}

#[derive(Serialize)]
struct Dependency {
    kind: &'static str,
    status: &'static str,
}

thread_local! {
    static LAST: RefCell<Option<(Timestamp, Answer)>> = const { RefCell::new(None) };
}

/// `GET /healthz`: the process answers.
pub(crate) fn alive() -> Answer {
    Answer::json(StatusCode::OK, &Alive { status: "ok" })
}

/// `GET /readyz`: the configuration makes sense and every dependency can be asked.
pub(crate) async fn ready() -> Result<Answer, ApiError> {
    let config = instance::config().await?;
    let now = Environment.now();
    let fresh = |(at, answer): &(Timestamp, Answer)| {
        (0..CACHED_FOR).contains(&(now.unix_millis() - at.unix_millis())).then(|| answer.clone())
    };
    if let Some(answer) = LAST.with_borrow(|last| last.as_ref().and_then(fresh)) {
        return Ok(answer);
    }
    let store = Store;
    let answer = match store.ping().await {
        Ok(()) => Answer::json(
            StatusCode::OK,
            &Ready {
                status: "ready",
                dependencies: Dependencies {
                    database: Dependency { kind: store.kind(), status: "up" },
                },
                warnings: &config.warnings,
            },
        ),
        Err(unavailable) => ApiError::from(unavailable).into(),
    };
    LAST.set(Some((Environment.now(), answer.clone())));
    Ok(answer)
}
