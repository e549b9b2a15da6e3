//! The relay, over HTTP: it takes events and hands them to Kafka.

use crate::{deadline, endpoint::Endpoint};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use otp_events::{Answer, BATCH_CONTENT_TYPE};
use serde::{Deserialize, de::DeserializeOwned};
use spin_sdk::http::{self, EmptyBody, FullBody, Method, Request, StatusCode};
use std::time::Duration;
use subtle::ConstantTimeEq;

/// How long the relay may take to say that it is there.
const PING_DEADLINE: Duration = Duration::from_millis(250);

/// Longest answer that is read, in bytes: ids and reasons of a whole batch fit many times.
const MAX_ANSWER: usize = 1024 * 1024;

/// Where the relay is, and what it is told to be trusted. Not printable.
pub(crate) struct Relay {
    url: String,
    token: Option<Token>,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Relay")
    }
}

/// What component and relay both know.
pub(crate) struct Token(String);

impl Token {
    /// Long enough not to be guessed, and fit for a header.
    pub(crate) fn new(text: &str) -> Result<Self, &'static str> {
        let fit = text.len() >= 16 && text.bytes().all(|byte| (b'!'..=b'~').contains(&byte));
        fit.then(|| Self(text.to_owned()))
            .ok_or("must be at least 16 printable characters; make one with: openssl rand -hex 32")
    }

    /// Whether an `Authorization` field carries it (RFC 6750, section 2.1). Takes the same time whatever
    /// is wrong with it.
    pub(crate) fn is_in(&self, authorization: Option<&str>) -> bool {
        authorization
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .is_some_and(|(_, token)| token.trim().as_bytes().ct_eq(self.0.as_bytes()).into())
    }
}

/// Why a batch did not get through. It can be tried again: only what the relay says of a single event is
/// final. A status may come from anything that stands in between.
#[derive(Debug)]
pub(crate) struct Away(pub(crate) String);

impl Relay {
    /// From `http://host:port` or `https://host:port`.
    pub(crate) fn new(url: &str, token: Option<Token>, allow_plaintext: bool) -> Result<Self, &'static str> {
        const FORM: &str = "must be http://host:port or https://host:port, without a path";
        let url = url.strip_suffix('/').unwrap_or(url);
        let endpoint = Endpoint::parse(url).ok_or(FORM)?;
        match (endpoint.scheme, endpoint.is_loopback()) {
            ("http" | "https", true) => {}
            ("http" | "https", false) if token.is_none() => {
                return Err(
                    "names another machine, so relay_token must be set, to what the relay has as its RELAY_TOKEN",
                );
            }
            ("https", false) => {}
            ("http", false) if allow_plaintext => {}
            ("http", false) => {
                return Err(
                    "must be https://, or set allow_plaintext_relay to true where the network is trusted",
                );
            }
            _ => return Err(FORM),
        }
        Ok(Self { url: url.to_owned(), token })
    }

    /// The token that opens what only the relay may call; without one nothing does.
    pub(crate) fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    /// Whether it is there and ready to take events.
    pub(crate) async fn ping(&self) -> Result<(), String> {
        let request = Request::builder().method(Method::GET).uri(format!("{}/readyz", self.url));
        let request = request.body(EmptyBody::new()).map_err(|error| error.to_string())?;
        match deadline::within(PING_DEADLINE, http::send(request)).await {
            Some(Ok(response)) if response.status().is_success() => Ok(()),
            Some(Ok(response)) => Err(format!("answers {}", response.status())),
            Some(Err(error)) => Err(error.to_string()),
            None => Err("does not answer".to_owned()),
        }
    }

    /// Hands over a batch, a JSON array of events, and hears which of them are kept. The trace is that of the
    /// request after which it is done; where the host traces, it puts its own span in between.
    pub(crate) async fn publish(
        &self,
        batch: String,
        traceparent: Option<&str>,
        limit: Duration,
    ) -> Result<Answer, Away> {
        deadline::within(limit, self.post(batch, traceparent))
            .await
            .unwrap_or_else(|| Err(Away(format!("no answer within {} ms", limit.as_millis()))))
    }

    async fn post(&self, batch: String, traceparent: Option<&str>) -> Result<Answer, Away> {
        let away = |error: &dyn std::fmt::Display| Away(error.to_string());
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}/events", self.url))
            .header("content-type", BATCH_CONTENT_TYPE)
            .header("content-length", batch.len());
        if let Some(Token(token)) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(traceparent) = traceparent {
            request = request.header("traceparent", traceparent);
        }
        let request = request.body(FullBody::new(Bytes::from(batch))).map_err(|error| away(&error))?;
        let response = http::send(request).await.map_err(|error| away(&error))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => {
                return Err(away(&"it refuses the token: relay_token and its RELAY_TOKEN must be the same"));
            }
            other => {
                let problem: Option<Problem> = read(response).await.ok();
                return Err(match problem.as_ref().map(|problem| &*problem.code) {
                    Some(EVENT_KEYS_DIFFER) => away(
                        &"it does not know the key that events are signed with: event_keys and its RELAY_EVENT_KEYS \
                          must have that key in common",
                    ),
                    _ => away(&format_args!("it answers {other}")),
                });
            }
        }
        read(response).await
    }
}

/// The code of the problem that a relay answers where it can check none of the events.
const EVENT_KEYS_DIFFER: &str = "event_keys_differ";

/// What is read of a problem document.
#[derive(Deserialize)]
struct Problem {
    code: String,
}

/// Reads an answer.
async fn read<T: DeserializeOwned>(response: http::Response) -> Result<T, Away> {
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(|error| Away(error.to_string()))?;
    serde_json::from_slice(&body.to_bytes())
        .map_err(|_| Away("its answer is not the one of a relay".to_owned()))
}
