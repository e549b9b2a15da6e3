//! The limit of a recipient.

use crate::out_of_range::OutOfRange;
use otp_terms::Timestamp;

/// Codes that are sent to one recipient: at most so many in any window of that length. Exact: it goes by the
/// moments themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendLimit {
    requests: i64,
    window_seconds: i64,
}

/// How far a limit is used up, for the fields `RateLimit-Policy` and `RateLimit`
/// (draft-ietf-httpapi-ratelimit-headers-11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Which limit: `number`, `client`, `key` or `global`.
    pub name: &'static str,
    /// Requests that are still let in.
    pub remaining: i64,
    /// Whole seconds until there is one more.
    pub seconds: i64,
}

impl SendLimit {
    /// Fails outside 1 to 100 requests.
    pub fn new(requests: u64, window: SendWindow) -> Result<Self, OutOfRange> {
        let requests = OutOfRange::check(requests, 1..=100)? as i64;
        Ok(Self { requests, window_seconds: window.0 })
    }

    /// Sends in a window.
    pub const fn requests(self) -> i64 {
        self.requests
    }

    /// The window in milliseconds.
    pub const fn window_millis(self) -> i64 {
        self.window_seconds * 1_000
    }

    /// How far the limit is used up after `sends`, oldest first.
    pub fn quota(self, sends: &[Timestamp], now: Timestamp) -> Quota {
        let (remaining, more_at) = self.remaining(sends, now);
        Self::state(remaining, more_at.map_or(0, |at| seconds_rounded_up(at - now.unix_millis())))
    }

    /// When a recipient that has had these sends may be sent one more.
    pub fn free_at(self, sends: &[Timestamp], now: Timestamp) -> Timestamp {
        match self.remaining(sends, now) {
            (0, Some(at)) => Timestamp::from_unix_millis(at),
            _ => now,
        }
    }

    /// The moments with one more, at `now`: `None` if the limit does not let it. No window of its length ever sees more
    /// than the limit, whatever clocks say: the moments never go back.
    pub fn admit(self, sends: &[Timestamp], now: Timestamp) -> Option<Vec<Timestamp>> {
        let (at, mut within) = self.within(sends, now);
        if within.len() as u64 >= self.requests.unsigned_abs() {
            return None;
        }
        within.push(at);
        Some(within.into_iter().map(Timestamp::from_unix_millis).collect())
    }

    /// This moment, or that of the last send if a clock elsewhere is ahead, and the sends within the window that ends
    /// then. Moments that lie further ahead than a window were written by a wrong clock.
    fn within(self, sends: &[Timestamp], now: Timestamp) -> (i64, Vec<i64>) {
        let (window, now) = (self.window_millis(), now.unix_millis());
        let known = || sends.iter().map(|at| at.unix_millis()).filter(|at| *at <= now + window);
        let at = known().fold(now, i64::max);
        (at, known().filter(|sent| *sent > at - window).collect())
    }

    /// Sends that are left, and the moment at which there will be one more, in milliseconds.
    fn remaining(self, sends: &[Timestamp], now: Timestamp) -> (i64, Option<i64>) {
        let (_, within) = self.within(sends, now);
        let used = i64::try_from(within.len()).unwrap_or(i64::MAX);
        // Whoever leaves the window next makes room, unless there are more in it than the limit is by now.
        let next = within.get(usize::try_from(used - self.requests).unwrap_or_default());
        ((self.requests - used).max(0), next.map(|sent| sent + self.window_millis()))
    }

    fn state(remaining: i64, seconds: i64) -> Quota {
        Quota { name: Quota::RECIPIENT, remaining, seconds }
    }
}

impl Quota {
    /// The name of a recipient's own limit.
    pub const RECIPIENT: &'static str = "number";
}

/// 1 second to a day.
#[derive(Debug, Clone, Copy, Default)]
pub struct SendWindow(i64);

impl SendWindow {
    /// Fails outside 1 to 86,400.
    pub fn from_seconds(seconds: u64) -> Result<Self, OutOfRange> {
        OutOfRange::check(seconds, 1..=86_400).map(|seconds| Self(seconds as i64))
    }
}

/// The next whole second: waiting that long is enough, and a second less is not.
pub(crate) fn seconds_rounded_up(millis: i64) -> i64 {
    millis.max(0).saturating_add(999) / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limit(requests: u64, seconds: u64) -> SendLimit {
        SendLimit::new(requests, SendWindow::from_seconds(seconds).unwrap()).unwrap()
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_unix_millis(millis)
    }

    #[test]
    fn what_remains_and_when_there_is_more() {
        let limit = limit(2, 10);
        let quota = |sends: &[i64], now| {
            let sends: Vec<_> = sends.iter().map(|millis| at(*millis)).collect();
            let quota = limit.quota(&sends, at(now));
            (quota.remaining, quota.seconds)
        };
        assert_eq!(quota(&[], 50_000), (2, 0));
        assert_eq!(quota(&[50_000], 50_000), (1, 10));
        assert_eq!(quota(&[50_000, 50_001], 50_001), (0, 10));
        assert_eq!(quota(&[50_000, 50_001], 59_001), (0, 1));
        assert_eq!(quota(&[50_000, 50_001], 60_000), (1, 1), "the first has left, at the edge");
        assert_eq!(quota(&[1, 2, 3, 4], 10), (0, 10), "the limit was lowered: the third has to leave");
        assert_eq!(quota(&[900_000], 10), (2, 0), "written by a wrong clock");
    }

    #[test]
    fn values_outside_their_range_are_refused() {
        assert!(SendWindow::from_seconds(0).is_err());
        assert!(SendWindow::from_seconds(86_401).is_err());
        assert!(SendLimit::new(0, SendWindow::from_seconds(1).unwrap()).is_err());
        assert!(SendLimit::new(101, SendWindow::from_seconds(1).unwrap()).is_err());
    }

    proptest! {
        /// Clocks of hosts differ: a step may be earlier than the one before it, by less than a window.
        #[test]
        fn no_window_sees_more_than_the_limit_and_none_that_has_room_is_refused(
            requests in 1u64..=6, seconds in 1u64..=30,
            steps in prop::collection::vec(prop_oneof![3 => -200i64..=300, 1 => 0i64..=1_200, 1 => Just(0i64)], 1..60),
        ) {
            let limit = limit(requests, seconds);
            let window = limit.window_millis();
            let (mut now, mut newest, mut kept, mut sent) = (1_795_333_302_000, 0, Vec::new(), Vec::<i64>::new());
            let within = |sent: &[i64], end: i64| {
                sent.iter().filter(|at| (end - window + 1..=end).contains(at)).count() as u64
            };
            for step in steps {
                now = (now + step * window / 1_000).max(newest - window / 2);
                newest = newest.max(now);
                let end = now.max(sent.last().copied().unwrap_or(now));
                match limit.admit(&kept, at(now)) {
                    Some(moments) => {
                        sent.push(end);
                        prop_assert_eq!(moments.last(), Some(&at(end)), "as of this moment");
                        prop_assert_eq!(moments.len() as u64, within(&sent, end), "no more is kept");
                        kept = moments;
                        for moment in &sent {
                            prop_assert!(within(&sent, *moment) <= requests, "{:?}", sent);
                        }
                    }
                    None => {
                        prop_assert_eq!(within(&sent, end), requests, "refused in a window that is not full");
                        let free = limit.free_at(&kept, at(now));
                        prop_assert!(limit.admit(&kept, free).is_some());
                        let just_before = at(free.unix_millis() - 1);
                        prop_assert!(limit.admit(&kept, just_before).is_none());
                    }
                }
            }
        }

        #[test]
        fn the_wait_is_enough_and_a_second_less_is_not(
            requests in 1u64..6, seconds in 1u64..100, gaps in prop::collection::vec(0i64..30_000, 0..12), more in 0i64..90_000,
        ) {
            let limit = limit(requests, seconds);
            let mut sends = vec![];
            let mut now = 1_000_000;
            for gap in gaps {
                now += gap;
                if limit.quota(&sends, at(now)).remaining > 0 {
                    sends.push(at(now));
                }
            }
            now += more % (seconds as i64 * 1_000);
            let quota = limit.quota(&sends, at(now));
            if quota.remaining == 0 {
                prop_assert!(limit.quota(&sends, at(now + quota.seconds * 1_000)).remaining > 0);
                prop_assert_eq!(limit.quota(&sends, at(now + (quota.seconds - 1) * 1_000)).remaining, 0);
                let free = limit.free_at(&sends, at(now));
                prop_assert!(limit.quota(&sends, free).remaining > 0);
                let just_before = at(free.unix_millis() - 1);
                prop_assert_eq!(limit.quota(&sends, just_before).remaining, 0);
            }
        }
    }
}
