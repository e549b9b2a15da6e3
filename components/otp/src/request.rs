//! A request's body on its way in.

use crate::{deadline, error::ApiError};
use http_body_util::BodyExt;
use otp_request::Fields;
use std::time::Duration;

/// Longest body that is read, in bytes. The largest sensible one has a tenth of it.
const MAX_BODY: usize = 4096;

/// What is read and thrown away of a longer one, in bytes. A client that is still sending when it is
/// refused and cut off may never see why.
const MAX_DISCARDED: usize = 1024 * 1024;

/// How long a client may take to send it.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// A request's body.
pub(crate) type Body = spin_sdk::wasip3::http_compat::IncomingBody<spin_sdk::wasip3::http::types::Request>;

/// Reads the body as JSON, whatever its content type says.
pub(crate) async fn fields(body: Body) -> Result<Fields, ApiError> {
    let bytes = deadline::within(BODY_DEADLINE, read(body)).await.unwrap_or_else(|| Err(incomplete()))?;
    Ok(Fields::parse(&bytes)?)
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
    ApiError::IncompleteBody
}
