//! A dependency that is away.

/// The database did not do it in time, or at all. A write may have happened all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(
    /// The reason, for the log.
    pub String,
);
