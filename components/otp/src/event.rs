//! The event that a request leaves, as far as it is known before the database has spoken.

use crate::{config::Config, environment::Environment};
use otp_core::{MobileNumber, OtpId, Timestamp};
use otp_events::{CodeData, Event, EventType};
use spin_sdk::http::HeaderMap;

/// Longest `traceparent` that is passed on: that of version 00 has 55 characters, later ones may have more.
const MAX_TRACEPARENT: usize = 128;

/// Which request it was.
#[derive(Debug)]
pub(crate) struct Origin {
    /// The caller's id for the request, or one that was made up.
    pub(crate) request_id: String,
    /// W3C trace context, if the caller traces.
    traceparent: Option<String>,
}

impl Origin {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        // The caller's id if it is sane, else a new one.
        let printable = |id: &&str| id.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        let request_id = header("x-request-id").filter(|id| (1..=128).contains(&id.len())).filter(printable);
        Self {
            request_id: request_id.map_or_else(crate::environment::new_request_id, str::to_owned),
            traceparent: header("traceparent").filter(|value| is_traceparent(value)).map(str::to_owned),
        }
    }
}

/// W3C Trace Context, section 3.2: `version-traceid-parentid-flags` in lower-case hexadecimal.
fn is_traceparent(value: &str) -> bool {
    let hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    let mut parts = value.split('-');
    let mut part = |length: usize| parts.next().filter(|part| part.len() == length && hex(part));
    let (version, trace, parent, flags) = (part(2), part(32), part(16), part(2));
    value.len() <= MAX_TRACEPARENT
        && version.is_some_and(|version| version != "ff")
        && trace.is_some_and(|trace| !zero(trace))
        && parent.is_some_and(|parent| !zero(parent))
        && flags.is_some()
}

/// Makes the events of one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draft<'a> {
    pub(crate) origin: &'a Origin,
    pub(crate) config: &'a Config,
}

impl Draft<'_> {
    /// The event as JSON. The database adds the code, for only its statement knows which one it is.
    pub(crate) fn json(&self, r#type: EventType, number: &MobileNumber, at: Timestamp) -> String {
        let mut event = Event::new(OtpId::generate(at, &Environment).as_str(), r#type);
        event.subject = Some(self.config.index_key.number(number.as_str()).to_string());
        event.time = Some(at.to_string());
        event.datacontenttype = Some("application/json".to_owned());
        event.requestid = Some(self.origin.request_id.clone());
        event.traceparent = self.origin.traceparent.clone();
        let data = CodeData { mobile_number: Some(number.as_str().to_owned()), ..CodeData::default() };
        event.data = serde_json::to_value(data).ok();
        // An event is a plain struct of strings, which always serialises.
        serde_json::to_string(&event).unwrap_or_default()
    }
}
