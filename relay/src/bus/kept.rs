//! What became of an event that was handed over.

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It is kept.
    Yes,
    /// It is not, and can be sent again.
    NotNow,
    /// It never will be.
    Never(String),
}
