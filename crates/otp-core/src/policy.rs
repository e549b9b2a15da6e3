//! The numbers that an operator may set.

use crate::{code::CodeLength, out_of_range::OutOfRange, send_limit::SendLimit};

/// How codes are made, how many guesses they stand, and how often a number is sent one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Policy {
    /// Digits of a code.
    pub length: CodeLength,
    /// How long a code is good.
    pub life: CodeLife,
    /// Wrong values of one code that are compared before it is locked.
    pub max_attempts: MaxAttempts,
    /// Wrong guesses in a row, of all codes of a number, that lock it.
    pub max_failures: MaxFailures,
    /// For how long.
    pub lock: LockTime,
    /// How often a number is sent a code; `None` for as often as one likes.
    pub sends: Option<SendLimit>,
    /// Whether ranges of numbers can be suspended.
    pub guarded: bool,
    /// Whether nobody shall be able to tell a known number from an unknown one: then every refusal for the
    /// number's sake costs the same work as another.
    pub uniform: bool,
}

/// How long a code is good: 1 to 600 seconds. Ten minutes are the most that OWASP ASVS 5.0 (6.5.5) and
/// NIST SP 800-63B-4 (3.1.3.2) allow a code sent out of band.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeLife(i64);

impl CodeLife {
    /// Fails outside 1 to 600.
    pub fn from_seconds(seconds: u64) -> Result<Self, OutOfRange> {
        OutOfRange::check(seconds, 1..=600).map(|seconds| Self(seconds as i64))
    }

    /// The life in seconds.
    pub const fn seconds(self) -> i64 {
        self.0
    }
}

impl Default for CodeLife {
    fn default() -> Self {
        Self(600)
    }
}

/// Wrong values of one code that are compared: 1 to 100 (the most that NIST SP 800-63B-4, 3.2.2, allows).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxAttempts(i64);

impl MaxAttempts {
    /// Fails outside 1 to 100.
    pub fn new(attempts: u64) -> Result<Self, OutOfRange> {
        OutOfRange::check(attempts, 1..=100).map(|attempts| Self(attempts as i64))
    }

    /// The number of attempts.
    pub const fn get(self) -> i64 {
        self.0
    }
}

/// Wrong guesses in a row, of all codes of a number, that lock it: 1 to 100 (the most that NIST SP 800-63B-4,
/// 3.2.2, allows).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxFailures(i64);

impl MaxFailures {
    /// Fails outside 1 to 100.
    pub fn new(failures: u64) -> Result<Self, OutOfRange> {
        OutOfRange::check(failures, 1..=100).map(|failures| Self(failures as i64))
    }

    /// The number of failures.
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl Default for MaxFailures {
    fn default() -> Self {
        Self(30)
    }
}

/// How long a number is locked: a second to a week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockTime(i64);

impl LockTime {
    /// Fails outside 1 to 604,800.
    pub fn from_seconds(seconds: u64) -> Result<Self, OutOfRange> {
        OutOfRange::check(seconds, 1..=604_800).map(|seconds| Self(seconds as i64))
    }

    /// In milliseconds.
    pub const fn millis(self) -> i64 {
        self.0 * 1_000
    }
}

impl Default for LockTime {
    fn default() -> Self {
        Self(3_600)
    }
}

impl Default for MaxAttempts {
    fn default() -> Self {
        Self(5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_outside_their_range_are_refused_and_say_it() {
        assert_eq!(CodeLife::from_seconds(0).unwrap_err().to_string(), "must be from 1 to 600");
        assert!(CodeLife::from_seconds(601).is_err());
        assert_eq!(CodeLife::from_seconds(600).unwrap(), CodeLife::default());
        assert!(MaxAttempts::new(0).is_err());
        assert!(MaxAttempts::new(101).is_err());
        assert!(MaxFailures::new(0).is_err());
        assert!(MaxFailures::new(101).is_err());
        assert!(LockTime::from_seconds(0).is_err());
        assert!(LockTime::from_seconds(604_801).is_err());
    }
}
