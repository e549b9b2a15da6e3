//! What the outbox holds.

use serde::Serialize;

/// An event that waits, and that this request or task has to itself for a moment.
#[derive(Debug)]
pub(crate) struct Claimed {
    /// Its place in the outbox.
    pub(crate) sequence: i64,
    /// The event as JSON.
    pub(crate) event: String,
}

/// An event that nobody will ever take.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) sequence: i64,
    pub(crate) reason: String,
}

/// How much there is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Waiting {
    /// Events that are still to be published.
    pub(crate) waiting: i64,
    /// Events that were refused or have waited too long.
    pub(crate) dead: i64,
    /// For how long the oldest of the first has waited; 0 without any.
    pub(crate) oldest_seconds: i64,
}
