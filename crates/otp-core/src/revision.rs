//! The one counter of an account.

use otp_terms::Timestamp;

/// Which state of an account this is. It grows with everything that is written of the account: by one, or to the
/// moment in milliseconds if that is more. So it grows through erasure, a restored backup and a lost database, too.
///
/// The revision at which a code was made is the code's version, and the one at which an event was left is the event's
/// sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Revision(i64);

impl Revision {
    /// What database or cache hold.
    pub const fn from_stored(revision: i64) -> Self {
        Self(revision)
    }

    /// As a number.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The least one after this.
    pub const fn after(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The one after this, at `now`.
    pub fn next(self, now: Timestamp) -> Self {
        self.after().max(Self(now.unix_millis()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_by_the_clock_unless_that_stands_behind() {
        let at = Timestamp::from_unix_millis;
        assert_eq!(Revision::default().next(at(1_000)).get(), 1_000);
        assert_eq!(Revision::from_stored(1_000).next(at(1_000)).get(), 1_001);
        assert_eq!(Revision::from_stored(5_000).next(at(1_000)).get(), 5_001);
    }
}
