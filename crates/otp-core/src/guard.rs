//! The guard against pumping: ranges of numbers that are sent much and verify nothing.

use crate::out_of_range::OutOfRange;
use otp_terms::Timestamp;

/// When a range is suspended, and for how long.
///
/// Whoever pumps messages to a range for a share of what they cost has no use for the codes. So of what is
/// sent to a range within the window, a share has to be verified; if it is not, nothing is sent to the range
/// for a while, and for longer the next time. Codes of the last [`ON_THEIR_WAY`](Self::ON_THEIR_WAY) do not
/// count against it: honest users have not typed theirs yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    least: i64,
    percent: i64,
    window_seconds: i64,
    suspend_seconds: i64,
}

/// Values for a [`Guard`] as an operator sets them.
#[derive(Debug, Clone, Copy)]
pub struct GuardSettings {
    /// Codes that a range must have been sent within the window, before it is judged at all: 1 to 1,000,000.
    pub least: u64,
    /// Percent of them that have to be verified: 1 to 100.
    pub percent: u64,
    /// The window in seconds: 60 to 86,400.
    pub window_seconds: u64,
    /// How long a first suspension lasts, in seconds: 1 to 86,400.
    pub suspend_seconds: u64,
}

/// What is known of a range within the window, and since its last suspension ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Codes sent.
    pub sent: i64,
    /// Those of them that had time to be verified.
    pub settled: i64,
    /// Codes verified.
    pub verified: i64,
    /// The end of its last suspension, be it past or to come.
    pub suspended_until: Option<Timestamp>,
    /// How many there were in a row.
    pub strikes: i64,
}

/// What is to be done about a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// Nothing.
    Leave,
    /// To be suspended until then, for this time in a row.
    Suspend {
        /// The end.
        until: Timestamp,
        /// This one included.
        strikes: i64,
    },
    /// To be let go: the codes were verified after all.
    Lift,
}

impl Guard {
    /// Length of the slots that codes are counted in, in milliseconds.
    pub const SLOT: i64 = 15_000;

    /// How long a code may take from its making to its check without counting against its range, in
    /// milliseconds: in whole slots.
    pub const ON_THEIR_WAY: i64 = 3 * Self::SLOT;

    /// Longest suspension, in seconds: a day.
    const LONGEST: i64 = 86_400;

    /// A range that was suspended before, and verifies nothing when it is let go, is suspended again after
    /// this part of the codes.
    const ON_PROBATION: i64 = 10;

    /// So many times the least number, with a share so many times smaller than the one that is due, need no
    /// time to settle: nobody's honest users all take that long.
    const BLATANT: i64 = 5;

    /// Fails for what is outside its range, and says which it is.
    pub fn new(settings: GuardSettings) -> Result<Self, (&'static str, OutOfRange)> {
        let check = |name, value, range| {
            OutOfRange::check(value, range).map(|value| value as i64).map_err(|error| (name, error))
        };
        Ok(Self {
            least: check("pumping_min_sends", settings.least, 1..=1_000_000)?,
            percent: check("pumping_min_percent", settings.percent, 1..=100)?,
            window_seconds: check("pumping_window_seconds", settings.window_seconds, 60..=86_400)?,
            suspend_seconds: check("pumping_suspend_seconds", settings.suspend_seconds, 1..=86_400)?,
        })
    }

    /// The slot of a moment.
    pub fn slot(at: Timestamp) -> i64 {
        at.unix_millis().div_euclid(Self::SLOT)
    }

    /// The first slot that counts at `now`.
    pub fn first_slot(&self, now: Timestamp) -> i64 {
        (now.unix_millis() - self.window_seconds * 1_000).div_euclid(Self::SLOT)
    }

    /// The first slot whose codes may still be on their way.
    pub fn first_unsettled_slot(now: Timestamp) -> i64 {
        (now.unix_millis() - Self::ON_THEIR_WAY).div_euclid(Self::SLOT)
    }

    /// The moment before which a suspension must have ended to be forgotten.
    pub fn forgets_before(now: Timestamp) -> Timestamp {
        Timestamp::from_unix_millis(now.unix_millis() - Self::LONGEST * 1_000)
    }

    /// What is to be done about a range of which this is known.
    pub fn judge(&self, tally: &Tally, now: Timestamp) -> Judgement {
        if tally.suspended_until.is_some_and(|until| until > now) {
            // What was sent before it is verified while it lasts.
            let enough = tally.verified > 0
                && self.verifies_enough(tally.verified, tally.settled)
                && self.verifies_enough(tally.verified * Self::BLATANT, tally.sent);
            return if enough { Judgement::Lift } else { Judgement::Leave };
        }
        let remembered = tally.suspended_until.is_some_and(|until| until >= Self::forgets_before(now));
        let strikes = if remembered { tally.strikes } else { 0 };
        let least = if strikes > 0 { (self.least / Self::ON_PROBATION).max(1) } else { self.least };
        let pumped = tally.settled >= least && !self.verifies_enough(tally.verified, tally.settled);
        let blatant = tally.sent >= least * Self::BLATANT
            && !self.verifies_enough(tally.verified * Self::BLATANT, tally.sent);
        if !pumped && !blatant {
            return Judgement::Leave;
        }
        let doubled = self.suspend_seconds << strikes.clamp(0, 20);
        let seconds = doubled.min(Self::LONGEST.max(self.suspend_seconds));
        Judgement::Suspend {
            until: Timestamp::from_unix_millis(now.unix_millis() + seconds * 1_000),
            strikes: strikes + 1,
        }
    }

    fn verifies_enough(&self, verified: i64, sent: i64) -> bool {
        verified * 100 >= sent * self.percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        let settings =
            GuardSettings { least: 100, percent: 10, window_seconds: 3_600, suspend_seconds: 1_800 };
        Guard::new(settings).unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_millis(seconds * 1_000)
    }

    const NOW: i64 = 1_000_000;

    fn judged(tally: Tally) -> Judgement {
        guard().judge(&tally, at(NOW))
    }

    fn suspended(seconds: i64, strikes: i64) -> Judgement {
        Judgement::Suspend { until: at(NOW + seconds), strikes }
    }

    #[test]
    fn a_range_that_is_sent_much_and_verifies_nothing_is_suspended() {
        let tally = |settled, verified| Tally { sent: settled, settled, verified, ..Tally::default() };
        assert_eq!(judged(tally(99, 0)), Judgement::Leave, "not much yet");
        assert_eq!(judged(tally(100, 0)), suspended(1_800, 1));
        assert_eq!(judged(tally(100, 9)), suspended(1_800, 1));
        assert_eq!(judged(tally(100, 10)), Judgement::Leave);
    }

    #[test]
    fn codes_on_their_way_do_not_count_unless_there_are_far_too_many() {
        let tally = |sent, verified| Tally { sent, settled: 0, verified, ..Tally::default() };
        assert_eq!(judged(tally(499, 0)), Judgement::Leave);
        assert_eq!(judged(tally(500, 0)), suspended(1_800, 1));
        assert_eq!(judged(tally(500, 10)), Judgement::Leave, "a fifth of what is due");
    }

    #[test]
    fn the_next_suspension_comes_sooner_and_lasts_longer() {
        let after = |strikes, ended: i64| Tally {
            sent: 10,
            settled: 10,
            suspended_until: Some(at(NOW - ended)),
            strikes,
            ..Tally::default()
        };
        assert_eq!(judged(after(1, 5)), suspended(3_600, 2));
        assert_eq!(judged(after(3, 5)), suspended(14_400, 4));
        assert_eq!(judged(after(9, 5)), suspended(86_400, 10), "a day at most");
        assert_eq!(judged(after(9, 86_401)), Judgement::Leave, "forgotten after a day");
    }

    #[test]
    fn a_suspension_is_lifted_when_the_codes_are_verified_after_all() {
        let during = |verified| Tally {
            sent: 120,
            settled: 120,
            verified,
            suspended_until: Some(at(NOW + 60)),
            strikes: 1,
        };
        assert_eq!(judged(during(11)), Judgement::Leave);
        assert_eq!(judged(during(12)), Judgement::Lift);
        let sudden = |verified| Tally { settled: 0, sent: 500, ..during(verified) };
        assert_eq!(judged(sudden(9)), Judgement::Leave, "one code is not enough for hundreds");
        assert_eq!(judged(sudden(10)), Judgement::Lift);
        let idle = Tally { suspended_until: Some(at(NOW + 60)), strikes: 1, ..Tally::default() };
        assert_eq!(judged(idle), Judgement::Leave, "nothing verified is not enough");
    }

    #[test]
    fn settings_outside_their_range_are_named() {
        let settings = GuardSettings { least: 0, percent: 10, window_seconds: 3_600, suspend_seconds: 1_800 };
        assert_eq!(Guard::new(settings).unwrap_err().0, "pumping_min_sends");
        let settings = GuardSettings { least: 1, percent: 101, ..settings };
        assert_eq!(Guard::new(settings).unwrap_err().0, "pumping_min_percent");
    }
}
