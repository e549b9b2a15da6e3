//! What only the relay may call.

use crate::{
    answer::Answer,
    config::Config,
    environment::Environment,
    error::ApiError,
    outbox_entry::Waiting,
    publish::{self, Published},
    relay::Relay,
    store::Store,
};
use otp_core::{Refusal, ports::Clock};
use serde::Serialize;
use spin_sdk::http::{HeaderMap, StatusCode};

/// Most rows of a kind that one purge moves or removes, so that it does not hold up the requests.
const PURGE_AT_ONCE: usize = 1_000;

#[derive(Serialize)]
struct Flushed {
    /// Events that the relay has taken.
    published: usize,
    /// Events that it has refused.
    refused: usize,
    #[serde(flatten)]
    left: Waiting,
}

/// `POST /internal/outbox/flush`: pushes what waits.
pub(crate) async fn flush(config: &Config, headers: &HeaderMap) -> Result<Answer, ApiError> {
    let relay = authorised(config.relay.as_ref(), headers)?;
    let (Published { published, refused, .. }, left) =
        publish::flush(&config.database, relay).await.map_err(Refusal::from)?;
    Ok(Answer::json(StatusCode::OK, &Flushed { published, refused, left }))
}

/// `POST /internal/purge`: removes what has had its day.
pub(crate) async fn purge(config: &Config, headers: &HeaderMap) -> Result<Answer, ApiError> {
    authorised(config.relay.as_ref(), headers)?;
    let purged = Store::new(&config.database)
        .purge(Environment.now(), config.outbox_retention, PURGE_AT_ONCE)
        .await
        .map_err(Refusal::from)?;
    Ok(Answer::json(StatusCode::OK, &purged))
}

/// The relay, if the caller knows its token. Without one these paths do not exist.
fn authorised<'a>(relay: Option<&'a Relay>, headers: &HeaderMap) -> Result<&'a Relay, ApiError> {
    let (relay, token) = relay.and_then(|relay| Some((relay, relay.token()?))).ok_or(ApiError::NotFound)?;
    let authorization = headers.get("authorization").and_then(|value| value.to_str().ok());
    if token.is_in(authorization) { Ok(relay) } else { Err(ApiError::NotTheRelay) }
}
