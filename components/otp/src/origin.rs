//! Which request it was.

use crate::environment;
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
            request_id: request_id.map_or_else(environment::new_request_id, str::to_owned),
            traceparent: otp_request::traceparent(headers).map(str::to_owned),
        }
    }
}
