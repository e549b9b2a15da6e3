//! Limits of what is not a number: a client, an API key, everybody together.

use crate::{out_of_range::OutOfRange, send_limit::Quota, unavailable::Unavailable};
use otp_terms::Timestamp;

/// So many requests at once, and then as many in each window, evenly: the generic cell rate algorithm
/// (ITU-T I.371, annex A), which needs one number for each that it counts. A window that begins with a burst
/// may see up to twice the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeterLimit {
    requests: i64,
    window_seconds: i64,
}

/// The text is no limit.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidMeterLimit {
    /// Not two numbers with a stroke between them.
    #[error("must be requests/seconds, such as 100/60")]
    Form,
    /// The requests.
    #[error("requests {0}")]
    Requests(OutOfRange),
    /// The seconds.
    #[error("seconds {0}")]
    Window(OutOfRange),
}

/// A limit, and whose requests are counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meter {
    /// What is limited: `client`, `key` or `global`.
    pub name: &'static str,
    /// Under which key it is counted. Shows no address and no secret.
    pub key: String,
    /// The limit.
    pub limit: MeterLimit,
}

/// A meter that lets nobody in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Full {
    /// Which one.
    pub name: &'static str,
    /// When it lets a request in again, in microseconds since the Unix epoch.
    pub free_at: i64,
}

impl Meter {
    /// Whether it counts what is sent, to whomever, and not what its caller asks for. Such a one comes last.
    pub(crate) fn counts_sends(&self) -> bool {
        self.name == "global"
    }

    /// What is said of it if it lets nobody in at `now`, where it is empty at `empty_at` (microseconds since the Unix
    /// epoch).
    pub fn full(&self, empty_at: i64, now: Timestamp) -> Option<Quota> {
        // The clock has milliseconds: what has room within this one is not full.
        let end = now.unix_micros().saturating_add(1_000);
        let full = empty_at > end.saturating_add(self.limit.room());
        full.then(|| Quota { name: self.name, remaining: 0, seconds: self.limit.wait(empty_at, now) })
    }
}

impl Quota {
    /// What is said of a meter that the cache has found full.
    pub(crate) fn of_meter(full: &Full, meters: &[Meter], now: Timestamp) -> Result<Self, Unavailable> {
        let meter = meters.iter().find(|meter| meter.name == full.name);
        let meter = meter.ok_or_else(|| Unavailable("a meter that was not asked for is full".to_owned()))?;
        let empty_at = full.free_at.saturating_add(meter.limit.room());
        Ok(Self { name: meter.name, remaining: 0, seconds: meter.limit.wait(empty_at, now) })
    }
}

impl std::str::FromStr for MeterLimit {
    type Err = InvalidMeterLimit;

    fn from_str(text: &str) -> Result<Self, InvalidMeterLimit> {
        let whole = |text: &str| {
            let text = text.trim();
            text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten()
        };
        let (requests, seconds) = text.split_once('/').ok_or(InvalidMeterLimit::Form)?;
        let (Some(requests), Some(seconds)) = (whole(requests), whole(seconds)) else {
            return Err(InvalidMeterLimit::Form);
        };
        let requests = OutOfRange::check(requests, 1..=1_000_000).map_err(InvalidMeterLimit::Requests)?;
        let seconds = OutOfRange::check(seconds, 1..=86_400).map_err(InvalidMeterLimit::Window)?;
        Ok(Self { requests: requests as i64, window_seconds: seconds as i64 })
    }
}

impl MeterLimit {
    /// Requests at once, and in each window.
    pub const fn requests(self) -> i64 {
        self.requests
    }

    /// The window in seconds.
    pub const fn window_seconds(self) -> i64 {
        self.window_seconds
    }

    /// By how much a request puts off the moment at which the meter is empty, in microseconds.
    pub const fn share(self) -> i64 {
        self.window_seconds * 1_000_000 / self.requests
    }

    /// How far ahead that moment may lie for another request to be let in, in microseconds.
    pub const fn room(self) -> i64 {
        self.share() * (self.requests - 1)
    }

    /// Whole seconds until another request is let in, if the meter is empty at `empty_at` (microseconds since
    /// the Unix epoch): waiting that long is enough, and a second less is not. At least one.
    pub fn wait(self, empty_at: i64, now: Timestamp) -> i64 {
        let micros = empty_at.saturating_sub(self.room()).saturating_sub(now.unix_micros());
        micros.max(1).saturating_add(999_999) / 1_000_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A meter as the databases and the cache keep it.
    #[derive(Default)]
    struct Kept(i64);

    impl Kept {
        fn count(&mut self, limit: MeterLimit, now: i64) -> bool {
            let free = self.0 <= now + limit.room();
            if free {
                self.0 = self.0.max(now) + limit.share();
            }
            free
        }
    }

    #[test]
    fn a_limit_is_read_from_two_numbers() {
        let limit: MeterLimit = " 100 / 60 ".parse().unwrap();
        assert_eq!((limit.requests(), limit.window_seconds()), (100, 60));
        for bad in ["", "100", "100/", "/60", "a/b", "-1/60", "100/60/1", "1e3/60", "99999999999999999999/1"]
        {
            assert_eq!(bad.parse::<MeterLimit>(), Err(InvalidMeterLimit::Form), "{bad}");
        }
        let said = |text: &str| text.parse::<MeterLimit>().unwrap_err().to_string();
        assert_eq!(said("0/60"), "requests must be from 1 to 1000000");
        assert_eq!(said("1/86401"), "seconds must be from 1 to 86400");
    }

    proptest! {
        #[test]
        fn just_so_many_are_let_in_at_once(requests in 1u64..2_000, seconds in 1u64..86_400) {
            let limit: MeterLimit = format!("{requests}/{seconds}").parse().unwrap();
            let mut meter = Kept::default();
            let now = 1_795_333_302_000_000;
            let passed = (0..requests + 50).filter(|_| meter.count(limit, now)).count();
            prop_assert_eq!(passed as u64, requests);
        }

        #[test]
        fn no_window_sees_more_than_twice_the_limit(
            requests in 1i64..20, seconds in 1i64..10, gaps in prop::collection::vec(0i64..2_000_000, 1..200),
        ) {
            let limit: MeterLimit = format!("{requests}/{seconds}").parse().unwrap();
            let (mut meter, mut now, mut passed) = (Kept::default(), 1_795_333_302_000_000, Vec::new());
            for gap in gaps {
                now += gap;
                if meter.count(limit, now) {
                    passed.push(now);
                }
            }
            for start in &passed {
                let seen = passed.iter().filter(|at| (*start..start + seconds * 1_000_000).contains(at));
                prop_assert!(seen.count() as i64 <= 2 * requests);
            }
        }

        #[test]
        fn the_wait_is_true(requests in 1i64..50, seconds in 1i64..500, late in 0i64..1_000_000) {
            let limit: MeterLimit = format!("{requests}/{seconds}").parse().unwrap();
            let mut meter = Kept::default();
            let start = 1_795_333_302_000;
            for _ in 0..requests {
                prop_assert!(meter.count(limit, start * 1_000));
            }
            let now = start + late % (limit.share() / 1_000).max(1);
            prop_assume!(!meter.count(limit, now * 1_000));
            let wait = limit.wait(meter.0, Timestamp::from_unix_millis(now));
            prop_assert!(wait >= 1);
            let after = |seconds: i64| Kept(meter.0).count(limit, now * 1_000 + seconds * 1_000_000);
            prop_assert!(after(wait));
            prop_assert!(!after(wait - 1));
        }
    }
}
