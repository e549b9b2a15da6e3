//! Refusals, as problem documents (RFC 9457).

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

/// Why a request is refused. Every kind says what to do next.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Problem {
    /// 400: no batch of events.
    NoBatch,
    /// 400: a query that cannot be read.
    InvalidQuery,
    /// 401: not the token.
    Unauthorized,
    /// 403: for this machine only.
    Forbidden,
    /// 403: no event of the batch is signed with a key that is known here.
    EventKeysDiffer,
    /// 404: no such path, or nothing known.
    NotFound,
    /// 408: it did not arrive whole.
    Incomplete,
    /// 413: more than a batch may have.
    TooLarge,
    /// 503: it can be tried again.
    Unavailable,
}

impl Problem {
    fn parts(self) -> (StatusCode, &'static str, &'static str, &'static str) {
        match self {
            Self::NoBatch => (
                StatusCode::BAD_REQUEST,
                "invalid_batch",
                "Not a batch of events",
                "Send a JSON array of CloudEvents as application/cloudevents-batch+json.",
            ),
            Self::InvalidQuery => (
                StatusCode::BAD_REQUEST,
                "invalid_query",
                "The query cannot be read",
                "The inbox takes to, a number or an address; limit, 0 to 10000 messages; and wait, 0 to 30 seconds.",
            ),
            Self::Unauthorized => (
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "Not authorised",
                "Send the field Authorization: Bearer, with the token that is set as RELAY_TOKEN.",
            ),
            Self::Forbidden => (
                StatusCode::FORBIDDEN,
                "forbidden",
                "Not from here",
                "Call it from this machine, by a loopback name, or with the token that is set as RELAY_TOKEN.",
            ),
            Self::EventKeysDiffer => (
                StatusCode::FORBIDDEN,
                "event_keys_differ",
                "No event has a signature that holds",
                "Give component and relay a key in common: event_keys and RELAY_EVENT_KEYS. Keep the events until \
                 then, and send them again.",
            ),
            Self::NotFound => (
                StatusCode::NOT_FOUND,
                "not_found",
                "Nothing is known by this path",
                "The relay has /events, /inbox, /deliveries/{otpId}, /healthz, /readyz and /metrics.",
            ),
            Self::Incomplete => (
                StatusCode::REQUEST_TIMEOUT,
                "incomplete",
                "The batch did not arrive whole",
                "Send it again.",
            ),
            Self::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "payload_too_large",
                "The batch is too large",
                "A batch has at most 500 events and 1 MiB.",
            ),
            Self::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "Events cannot be kept now",
                "Keep them and send them again in a moment.",
            ),
        }
    }

    pub(crate) fn status(self) -> StatusCode {
        self.parts().0
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, code, title, detail) = self.parts();
        let body = json!({
            "type": format!("urn:spin-otp:{code}"), "title": title, "status": status.as_u16(),
            "detail": detail, "code": code,
        });
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match self {
            Self::Unauthorized => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::Unavailable => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}
