//! Why the ledger cannot be written to just now.

/// Why nothing was written down. Any other error of the ledger is one of its own.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotNow {
    /// It can be tried again later. Whoever opened the ledger has said so in the log, once.
    #[error("the ledger is away: {0}")]
    Away(String),
    /// The partition is another relay's by now, and so is what was read from it.
    #[error("the partition is another relay's by now")]
    LeaseLost,
}
