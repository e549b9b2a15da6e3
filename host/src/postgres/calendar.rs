//! Dates and times: tuples there, days and microseconds since the year 2000 here.

use super::values::Refusal;
use bytes::{Buf, BufMut, BytesMut};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

/// Days from 1970 to 2000.
const EPOCH: i64 = 10_957;

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// Year, month, day.
#[derive(Debug)]
pub(super) struct Date(pub(super) (i32, u8, u8));

/// Hour, minute, second, nanosecond.
#[derive(Debug)]
pub(super) struct Time(pub(super) (u8, u8, u8, u32));

/// Both, without a time zone.
#[derive(Debug)]
pub(super) struct Timestamp(pub(super) (i32, u8, u8, u8, u8, u8, u32));

/// Seconds since 1970, in a column with a time zone.
#[derive(Debug)]
pub(super) struct Instant(i64);

impl Date {
    pub(super) fn new((year, month, day): (i32, u8, u8)) -> Result<Self, String> {
        let days = days((year, month, day));
        if (1..=12).contains(&month) && date(days) == Some((year, month, day)) {
            Ok(Self((year, month, day)))
        } else {
            Err(format!("invalid date y={year}, m={month}, d={day}"))
        }
    }
}

impl Time {
    pub(super) fn new((hour, minute, second, nanos): (u8, u8, u8, u32)) -> Result<Self, String> {
        // A leap second is the 59th one with more than a second's nanoseconds.
        let most = if second == 59 { 2_000_000_000 } else { 1_000_000_000 };
        if hour < 24 && minute < 60 && second < 60 && nanos < most {
            Ok(Self((hour, minute, second, nanos)))
        } else {
            Err(format!("invalid time {hour}:{minute}:{second}:{nanos}"))
        }
    }

    /// Microseconds since midnight.
    fn micros(&self) -> i64 {
        let (hour, minute, second, nanos) = self.0;
        let seconds = (i64::from(hour) * 60 + i64::from(minute)) * 60 + i64::from(second);
        seconds * MICROS_PER_SECOND + i64::from(nanos / 1000)
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "all are below a day")]
    fn from_micros(micros: i64) -> Self {
        // 24:00:00 exists there, and is midnight here.
        let micros = micros.rem_euclid(MICROS_PER_DAY);
        let (seconds, micros) = (micros / MICROS_PER_SECOND, micros % MICROS_PER_SECOND);
        let (minutes, second) = (seconds / 60, seconds % 60);
        Self(((minutes / 60) as u8, (minutes % 60) as u8, second as u8, micros as u32 * 1000))
    }
}

impl Timestamp {
    pub(super) fn new(
        (year, month, day, hour, minute, second, nanos): (i32, u8, u8, u8, u8, u8, u32),
    ) -> Result<Self, String> {
        Date::new((year, month, day))?;
        Time::new((hour, minute, second, nanos))?;
        Ok(Self((year, month, day, hour, minute, second, nanos)))
    }
}

impl Instant {
    pub(super) fn new(seconds: i64) -> Result<Self, String> {
        let micros = seconds.checked_sub(EPOCH * 86_400).and_then(|s| s.checked_mul(MICROS_PER_SECOND));
        micros.map(Self).ok_or_else(|| format!("invalid epoch timestamp {seconds}"))
    }
}

/// Days since 2000 in the Gregorian calendar, also before it was made. Years are counted from March, so
/// that the leap day is the last one of them, in eras of 400.
fn days((year, month, day): (i32, u8, u8)) -> i64 {
    let (month, day) = (i64::from(month), i64::from(day));
    let year = i64::from(year) - i64::from(month < 3);
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468 - EPOCH
}

/// The other way round.
fn date(days: i64) -> Option<(i32, u8, u8)> {
    let days = days + EPOCH + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month < 3);
    Some((year.try_into().ok()?, month.try_into().ok()?, day.try_into().ok()?))
}

impl ToSql for Date {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Refusal> {
        out.put_i32(days(self.0).try_into().map_err(|_| "value too large to transmit")?);
        Ok(IsNull::No)
    }

    accepts!(DATE);
    to_sql_checked!();
}

impl FromSql<'_> for Date {
    fn from_sql(_: &Type, mut bytes: &[u8]) -> Result<Self, Refusal> {
        let days = bytes.try_get_i32()?;
        if matches!(days, i32::MIN | i32::MAX) {
            return Err("infinity is no date".into());
        }
        date(days.into()).map(Self).ok_or_else(|| "value too large to decode".into())
    }

    accepts!(DATE);
}

impl ToSql for Time {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Refusal> {
        out.put_i64(self.micros());
        Ok(IsNull::No)
    }

    accepts!(TIME);
    to_sql_checked!();
}

impl FromSql<'_> for Time {
    fn from_sql(_: &Type, mut bytes: &[u8]) -> Result<Self, Refusal> {
        Ok(Self::from_micros(bytes.try_get_i64()?))
    }

    accepts!(TIME);
}

impl ToSql for Timestamp {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Refusal> {
        let (year, month, day, hour, minute, second, nanos) = self.0;
        let time = Time((hour, minute, second, nanos)).micros();
        let micros =
            days((year, month, day)).checked_mul(MICROS_PER_DAY).and_then(|day| day.checked_add(time));
        out.put_i64(micros.ok_or("value too large to transmit")?);
        Ok(IsNull::No)
    }

    accepts!(TIMESTAMP);
    to_sql_checked!();
}

impl FromSql<'_> for Timestamp {
    fn from_sql(_: &Type, mut bytes: &[u8]) -> Result<Self, Refusal> {
        let micros = bytes.try_get_i64()?;
        if matches!(micros, i64::MIN | i64::MAX) {
            return Err("infinity is no time".into());
        }
        let (year, month, day) =
            date(micros.div_euclid(MICROS_PER_DAY)).ok_or("value too large to decode")?;
        let Time((hour, minute, second, nanos)) = Time::from_micros(micros);
        Ok(Self((year, month, day, hour, minute, second, nanos)))
    }

    accepts!(TIMESTAMP);
}

impl ToSql for Instant {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Refusal> {
        out.put_i64(self.0);
        Ok(IsNull::No)
    }

    accepts!(TIMESTAMPTZ);
    to_sql_checked!();
}
