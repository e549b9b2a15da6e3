//! What is read from a request's body.

use crate::{deadline, error::ApiError};
use http_body_util::BodyExt;
use serde_json::{Map, Value};
use std::time::Duration;

/// Longest body that is read, in bytes. The largest sensible one has a tenth of it.
const MAX_BODY: usize = 4096;

/// What is read and thrown away of a longer one, in bytes. A client that is still sending when it is
/// refused and cut off may never see why.
const MAX_DISCARDED: usize = 1024 * 1024;

/// How long a client may take to send it.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// A request's body on its way in.
pub(crate) type Body = spin_sdk::wasip3::http_compat::IncomingBody<spin_sdk::wasip3::http::types::Request>;

/// A JSON object.
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    /// Reads the body as JSON, whatever its content type says.
    pub(crate) async fn read(body: Body) -> Result<Self, ApiError> {
        let bytes = deadline::within(BODY_DEADLINE, read(body)).await.unwrap_or_else(|| Err(incomplete()))?;
        // The parser's own message is not passed on: it may repeat what was sent.
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            _ => Err(ApiError::InvalidJson(
                "The body must be a JSON object such as {\"mobileNumber\":\"+14155550123\"}.".to_owned(),
            )),
        }
    }

    /// A field that may be left out, or be null.
    pub(crate) fn optional(&self, name: &'static str) -> Result<Option<&str>, ApiError> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(ApiError::InvalidJson(format!("{name} must be a JSON string, in quotes."))),
        }
    }

    /// A field that the call needs.
    pub(crate) fn required(&self, name: &'static str) -> Result<&str, ApiError> {
        self.optional(name)?.ok_or(ApiError::MissingField(name))
    }
}

async fn read(mut body: Body) -> Result<Vec<u8>, ApiError> {
    let mut bytes = Vec::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| incomplete())?;
        let Some(data) = frame.data_ref() else { continue };
        length += data.len();
        if length > MAX_DISCARDED {
            break;
        }
        if length <= MAX_BODY {
            bytes.extend_from_slice(data);
        }
    }
    if length > MAX_BODY { Err(ApiError::PayloadTooLarge) } else { Ok(bytes) }
}

fn incomplete() -> ApiError {
    ApiError::InvalidJson("The body did not arrive whole. Send it again.".to_owned())
}
