//! What could not be processed.

use otp_events::Record;

/// Header that says why.
pub(crate) const REASON: &str = "spin-otp-reason";
/// Header that says when, RFC 3339.
pub(crate) const DIED_AT: &str = "spin-otp-died-at";
/// Header of an event that an operator wants processed again.
pub(crate) const AGAIN: &str = "spin-otp-again";

/// A record that could not be processed, whole, and why.
#[derive(Debug, Clone)]
pub(crate) struct Dead {
    pub(crate) record: Record,
    pub(crate) reason: String,
    /// Milliseconds since the Unix epoch.
    pub(crate) died_at: i64,
}

impl Dead {
    pub(crate) fn new(record: Record, reason: impl Into<String>, died_at: i64) -> Self {
        Self { record, reason: reason.into(), died_at }
    }
}
