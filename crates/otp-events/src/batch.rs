//! What component and relay say to each other.

use serde::{Deserialize, Serialize};

/// The form of a batch (CloudEvents JSON format, section 4).
pub const BATCH_CONTENT_TYPE: &str = "application/cloudevents-batch+json";

/// Most events in a batch.
pub const MAX_BATCH_EVENTS: usize = 500;

/// Most bytes of a batch.
pub const MAX_BATCH_BYTES: usize = 1024 * 1024;

/// What became of a batch's events. One that is in neither list is to be sent again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Answer {
    /// Ids of those that are kept: they may be forgotten by whoever sent them.
    pub accepted: Vec<String>,
    /// Those that never will be.
    pub rejected: Vec<Rejected>,
}

/// An event that was refused for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// Its id; `None` where it has none that could be read.
    #[serde(default)]
    pub id: Option<String>,
    /// Which one of the batch it was, counted from 0, if the relay tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    /// Why.
    pub reason: String,
}
