//! Sparing requests the wait for something that is known to be away.

use crate::timestamp::Timestamp;

/// Shortest and longest pause after a failure, in milliseconds.
const PAUSE: (i64, i64) = (1_000, 10_000);

/// Open after a failure, for a pause that doubles with each further one from 1 s to 10 s; closed again by
/// a success.
#[derive(Debug, Default)]
pub struct Breaker {
    failures: u32,
    /// Milliseconds since the Unix epoch.
    open_until: i64,
}

impl Breaker {
    /// Until when nothing is to be tried; a moment in the past where everything may be.
    pub fn open_until(&self) -> Timestamp {
        Timestamp::from_unix_millis(self.open_until)
    }

    /// Whether it is worth trying at this moment.
    pub fn allows(&self, now: Timestamp) -> bool {
        now.unix_millis() >= self.open_until
    }

    /// Notes a success.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Notes a failure; true if it is news. Those that were under way together count as one.
    pub fn failed(&mut self, now: Timestamp) -> bool {
        if !self.allows(now) {
            return false;
        }
        let pause = PAUSE.0.saturating_mul(1 << self.failures.min(8)).min(PAUSE.1);
        self.failures = self.failures.saturating_add(1);
        self.open_until = now.unix_millis().saturating_add(pause);
        self.failures == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_unix_millis(1_795_333_302_000 + millis)
    }

    #[test]
    fn a_failure_spares_the_next_ones_for_a_pause_that_grows() {
        let mut breaker = Breaker::default();
        assert!(breaker.allows(at(0)));
        let mut now = 0;
        for (failure, pause) in [1_000, 2_000, 4_000, 8_000, 10_000, 10_000].into_iter().enumerate() {
            assert_eq!(breaker.failed(at(now)), failure == 0, "only the first is news");
            assert!(!breaker.allows(at(now)) && !breaker.allows(at(now + pause - 1)));
            now += pause;
            assert!(breaker.allows(at(now)));
        }
        breaker.succeeded();
        assert!(breaker.failed(at(now)), "news again");
        assert!(breaker.allows(at(now + 1_000)));
    }

    #[test]
    fn failures_that_were_under_way_together_count_as_one() {
        let mut breaker = Breaker::default();
        assert!(breaker.failed(at(0)));
        for millis in 1..16 {
            assert!(!breaker.failed(at(millis)));
        }
        assert!(breaker.allows(at(1_000)));
    }
}
