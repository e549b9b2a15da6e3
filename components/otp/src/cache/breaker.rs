//! Sparing requests the wait for something that is known to be away.

/// Shortest and longest pause after a failure, in milliseconds.
const PAUSE: (i64, i64) = (1_000, 10_000);

/// Open after a failure, for a pause that doubles with each further one; closed again by a success.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    open_until: i64,
}

impl Breaker {
    /// Whether it is worth trying at this moment.
    pub(super) fn allows(&self, now: i64) -> bool {
        now >= self.open_until
    }

    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Notes a failure; true if it is news. Those that were under way together count as one.
    pub(super) fn failed(&mut self, now: i64) -> bool {
        if !self.allows(now) {
            return false;
        }
        let pause = PAUSE.0.saturating_mul(1 << self.failures.min(8)).min(PAUSE.1);
        self.failures = self.failures.saturating_add(1);
        self.open_until = now.saturating_add(pause);
        self.failures == 1
    }
}
