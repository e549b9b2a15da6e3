//! Rounds through the providers: what is due, and what came of it.

use serde::Serialize;
use std::time::Instant;

/// A delivery whose time has come, and whose attempt has been written down.
#[derive(Debug)]
pub(crate) struct Due {
    pub(crate) event_id: String,
    pub(crate) event: String,
    /// Rounds by now, this one included.
    pub(crate) attempts: i64,
    pub(crate) expires_at: i64,
    /// When its event was read.
    pub(crate) created_at: i64,
    /// Which claim of the delivery this is.
    pub(crate) claim: i64,
    /// Before it was claimed.
    pub(crate) claimed_at: Instant,
}

/// What came of a round.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) event_id: String,
    /// Whose claim it was: what came of an older one does not count.
    pub(crate) claim: i64,
    /// `delivered`, `waiting`, `expired` or `failed`
    pub(crate) state: &'static str,
    pub(crate) provider: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) next_at: i64,
    /// Whether the event itself has to be kept.
    pub(crate) keep: bool,
    /// Whether anybody was asked at all; if not, the round does not count.
    pub(crate) tried: bool,
}

/// What is to be done, see [`Ledger::due`](super::Ledger::due).
#[derive(Debug, Default)]
pub(crate) struct Round {
    pub(crate) due: Vec<Due>,
    /// Codes that were replaced or came to their end before they were delivered.
    pub(crate) superseded: usize,
    /// Codes whose life was over.
    pub(crate) expired: usize,
}

/// Why a code was not delivered, for whoever asks what became of it.
pub(super) const SUPERSEDED: &str = "the code was replaced, used or locked before it was delivered";
pub(super) const EXPIRED: &str = "the code's life was over before it was delivered";
