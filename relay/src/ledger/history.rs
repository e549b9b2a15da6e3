//! What became of codes, for people.

use serde::Serialize;

/// What became of one event's code, for people.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Delivery {
    pub(super) event_id: String,
    pub(super) otp_id: String,
    pub(super) channel: String,
    pub(super) state: String,
    pub(super) attempts: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) provider: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    pub(super) created_at: String,
    pub(super) updated_at: String,
}

/// A code that was put into the inbox.
#[derive(Debug)]
pub(crate) struct Delivered {
    pub(crate) event: String,
    pub(crate) at: i64,
}
