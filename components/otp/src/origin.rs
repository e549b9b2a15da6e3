//! Which request it was.

use crate::environment;
use spin_sdk::http::HeaderMap;

/// Which request it was.
#[derive(Debug)]
pub(crate) struct Origin {
    /// The caller's id for the request, or one that was made up.
    pub(crate) request_id: String,
    /// W3C trace context, if the caller traces. Without one the event has none either, and the relay begins a trace:
    /// Spin does not show its own span to a component, and a made-up one would name a span that no tracer records and
    /// would take the sampling decision away from the tracers.
    pub(crate) traceparent: Option<String>,
}

impl Origin {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let request_id = otp_request::request_id(headers);
        Self {
            request_id: request_id.map_or_else(environment::new_request_id, str::to_owned),
            traceparent: otp_request::traceparent(headers).map(str::to_owned),
        }
    }
}
