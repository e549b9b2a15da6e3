//! The version of a number's code.

/// Tells which of two codes of a number is the newer one: it grows with every code, also after the user
/// was erased, a backup was restored or the database was lost. The database gives it; nothing else may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OtpVersion(i64);

impl OtpVersion {
    /// What the database or the cache holds.
    pub const fn from_stored(version: i64) -> Self {
        Self(version)
    }

    /// The version as a number.
    pub const fn get(self) -> i64 {
        self.0
    }
}
