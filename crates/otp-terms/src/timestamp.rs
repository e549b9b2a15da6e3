//! Moments in time.

use std::fmt::Write;

/// A moment, in milliseconds since the Unix epoch, UTC. Milliseconds decide what has expired; answers
/// show whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    pub const fn from_unix_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn unix_millis(self) -> i64 {
        self.0
    }

    /// Microseconds since the Unix epoch.
    pub const fn unix_micros(self) -> i64 {
        self.0.saturating_mul(1_000)
    }

    /// The moment that many seconds later; the last one that there is if it would lie beyond.
    pub const fn plus_seconds(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1_000)))
    }

    /// Whole seconds from `self` until `later`; 0 if that has passed.
    pub fn seconds_until(self, later: Self) -> i64 {
        later.0.saturating_sub(self.0).max(0) / 1_000
    }
}

impl Timestamp {
    /// RFC 3339 in UTC, with milliseconds: `2026-11-22T07:41:42.123Z`.
    pub fn rfc3339_millis(self) -> String {
        let mut text = self.to_string();
        text.pop();
        // Writing to a String cannot fail.
        let _ = write!(text, ".{:03}Z", self.0.rem_euclid(1_000));
        text
    }
}

impl std::fmt::Display for Timestamp {
    /// RFC 3339 in UTC, whole seconds: `2026-11-22T07:41:42Z`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let moment = time::OffsetDateTime::from_unix_timestamp(self.0.div_euclid(1_000))
            .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
        let (year, month, day) = moment.to_calendar_date();
        let (hour, minute, second) = moment.to_hms();
        write!(f, "{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z", u8::from(month))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_shown_in_whole_seconds_utc() {
        assert_eq!(Timestamp::from_unix_millis(1_795_333_302_999).to_string(), "2026-11-22T07:41:42Z");
        assert_eq!(Timestamp::from_unix_millis(0).to_string(), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn seconds_left_are_never_more_than_there_are() {
        let now = Timestamp::from_unix_millis(1_000);
        assert_eq!(now.seconds_until(Timestamp::from_unix_millis(2_999)), 1);
        assert_eq!(now.seconds_until(Timestamp::from_unix_millis(1_999)), 0);
        assert_eq!(now.seconds_until(Timestamp::from_unix_millis(0)), 0);
    }
}
