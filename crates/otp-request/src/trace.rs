//! What ties a request to the caller's own records.

use crate::field_line::{is_printable, single_text};
use http::HeaderMap;

/// Longest `traceparent` that is passed on, in bytes: that of version 00 has 55, later ones may have more.
const MAX_TRACEPARENT: usize = 128;

/// The caller's id for the request, from `X-Request-Id`: 1 to 128 printable ASCII characters. One that is
/// longer, or that stands twice, is treated as if it were not there.
pub fn request_id(headers: &HeaderMap) -> Option<&str> {
    single_text(headers, "x-request-id").filter(|id| (1..=128).contains(&id.len()))
}

/// The caller's trace context, from `traceparent` (W3C Trace Context, section 3.2). One that is malformed,
/// or that stands twice, is treated as if it were not there, as the recommendation wants it.
pub fn traceparent(headers: &HeaderMap) -> Option<&str> {
    single_text(headers, "traceparent").filter(|value| is_traceparent(value))
}

/// `version-traceid-parentid-flags` in lower-case hexadecimal. Nothing may follow in version 00; in a later
/// one a dash and whatever it says.
fn is_traceparent(value: &str) -> bool {
    let hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    let mut parts = value.split('-');
    let mut part = |length: usize| parts.next().filter(|part| part.len() == length && hex(part));
    let (version, trace, parent, flags) = (part(2), part(32), part(16), part(2));
    value.len() <= MAX_TRACEPARENT
        && is_printable(value)
        && version.is_some_and(|version| version != "ff")
        && trace.is_some_and(|trace| !zero(trace))
        && parent.is_some_and(|parent| !zero(parent))
        && flags.is_some()
        && (version != Some("00") || parts.next().is_none())
}
