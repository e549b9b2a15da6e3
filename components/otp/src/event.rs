//! The event that a request leaves, as far as it is known before the database has spoken.

use crate::{config::Config, environment::Environment};
use otp_core::{MobileNumber, OtpId, Timestamp};
use otp_events::{CodeData, Event, EventType};
use spin_sdk::http::HeaderMap;

/// Which request it was.
#[derive(Debug)]
pub(crate) struct Origin {
    /// The caller's id for the request, or one that was made up.
    pub(crate) request_id: String,
    /// W3C trace context, if the caller traces. Without one the event has none either: Spin shows its own
    /// span's to nobody inside, and one that was made up here would name a span that nobody ever sees, and
    /// would take the decision whether to sample from those who can. The relay then begins a trace.
    pub(crate) traceparent: Option<String>,
}

impl Origin {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let request_id = otp_request::request_id(headers);
        Self {
            request_id: request_id.map_or_else(crate::environment::new_request_id, str::to_owned),
            traceparent: otp_request::traceparent(headers).map(str::to_owned),
        }
    }
}

/// Makes the events of one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draft<'a> {
    pub(crate) origin: &'a Origin,
    pub(crate) config: &'a Config,
    /// The name of the API key that was used; empty where there are none.
    pub(crate) key_name: &'a str,
}

impl Draft<'_> {
    /// The event as JSON. The database adds the code, for only its statement knows which one it is.
    pub(crate) fn json(&self, r#type: EventType, number: &MobileNumber, at: Timestamp) -> String {
        let mut event = self.event(r#type, number, at);
        let data = CodeData { mobile_number: Some(number.as_str().to_owned()), ..CodeData::default() };
        event.data = serde_json::to_value(data).ok();
        // An event is a plain struct of strings, which always serialises.
        serde_json::to_string(&event).unwrap_or_default()
    }

    /// The event on which everybody forgets a number. It names the number by its keyed index only: whoever
    /// has something to forget knows it by that.
    pub(crate) fn erasure(&self, number: &MobileNumber, at: Timestamp) -> Event {
        Event { data: Some(serde_json::json!({})), ..self.event(EventType::Erased, number, at) }
    }

    fn event(&self, r#type: EventType, number: &MobileNumber, at: Timestamp) -> Event {
        let mut event = Event::new(OtpId::generate(at, &Environment).as_str(), r#type);
        event.subject = Some(self.config.index_key.number(number.as_str()).to_string());
        event.time = Some(at.to_string());
        event.datacontenttype = Some("application/json".to_owned());
        if !self.key_name.is_empty() {
            event.apikeyname = Some(self.key_name.to_owned());
        }
        event.requestid = Some(self.origin.request_id.clone());
        event.traceparent = self.origin.traceparent.clone();
        event
    }
}
