//! Decimal numbers of any length: text there, digits to the base 10,000 here.

use super::values::Refusal;
use bytes::{Buf, BufMut, BytesMut};
use std::{cmp::Ordering, fmt};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

/// Most decimals that PostgreSQL has after the point, and digits before it.
const MAX_SCALE: usize = 16_383;
const MAX_WHOLE: usize = 131_072;

const POSITIVE: u16 = 0;
const NEGATIVE: u16 = 0x4000;

/// A number as PostgreSQL sends it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Numeric {
    negative: bool,
    /// The power of 10,000 of the first digit.
    weight: i16,
    /// Decimals after the point.
    scale: u16,
    /// No zero first or last.
    digits: Vec<u16>,
}

impl Numeric {
    /// Reads digits, and perhaps a sign and a point.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let invalid = || format!("invalid decimal {text}");
        let negative = text.starts_with('-');
        let number = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
        let only_digits = |text: &str| text.bytes().all(|letter| letter.is_ascii_digit());
        let fits = whole.len() <= MAX_WHOLE && decimals.len() <= MAX_SCALE;
        if whole.len() + decimals.len() == 0 || !fits || !only_digits(whole) || !only_digits(decimals) {
            return Err(invalid());
        }
        // Filled up to whole groups of four on both sides of the point.
        let before = "0".repeat((4 - whole.len() % 4) % 4);
        let after = "0".repeat((4 - decimals.len() % 4) % 4);
        let all = [&before, whole, decimals, &after].concat();
        let groups = all.as_bytes().chunks(4);
        let mut digits: Vec<u16> = groups
            .map(|group| group.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0')))
            .collect();
        let zeros = digits.iter().take_while(|digit| **digit == 0).count();
        digits.drain(..zeros);
        digits.truncate(digits.len() - digits.iter().rev().take_while(|digit| **digit == 0).count());
        let weight = if digits.is_empty() { 0 } else { whole.len().div_ceil(4) as i64 - 1 - zeros as i64 };
        Ok(Self {
            negative: negative && !digits.is_empty(),
            weight: weight.try_into().map_err(|_| invalid())?,
            scale: decimals.len().try_into().map_err(|_| invalid())?,
            digits,
        })
    }

    fn digit(&self, power: i16) -> u16 {
        let index = i32::from(self.weight) - i32::from(power);
        usize::try_from(index).ok().and_then(|index| self.digits.get(index)).copied().unwrap_or(0)
    }
}

impl fmt::Display for Numeric {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = |power| format!("{:04}", self.digit(power));
        let whole: String = (0..=self.weight.max(0)).rev().map(group).collect();
        let whole = whole.trim_start_matches('0');
        let sign = if self.negative { "-" } else { "" };
        write!(formatter, "{sign}{}", if whole.is_empty() { "0" } else { whole })?;
        if self.scale > 0 {
            let groups = i16::try_from(self.scale.div_ceil(4)).map_err(|_| fmt::Error)?;
            let decimals: String = (1..=groups).map(|power| group(-power)).collect();
            write!(formatter, ".{}", &decimals[..usize::from(self.scale)])?;
        }
        Ok(())
    }
}

impl PartialOrd for Numeric {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let size = |number: &Self| (!number.digits.is_empty(), number.weight);
        let absolute = size(self).cmp(&size(other)).then_with(|| self.digits.cmp(&other.digits));
        Some(match (self.negative, other.negative) {
            (false, false) => absolute,
            (true, true) => absolute.reverse(),
            (negative, _) => {
                if negative {
                    Ordering::Less
                } else {
                    Ordering::Greater
                }
            }
        })
    }
}

impl ToSql for Numeric {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Refusal> {
        out.put_i16(self.digits.len().try_into()?);
        out.put_i16(self.weight);
        out.put_u16(if self.negative { NEGATIVE } else { POSITIVE });
        out.put_u16(self.scale);
        for digit in &self.digits {
            out.put_u16(*digit);
        }
        Ok(IsNull::No)
    }

    accepts!(NUMERIC);
    to_sql_checked!();
}

impl FromSql<'_> for Numeric {
    fn from_sql(_: &Type, mut bytes: &[u8]) -> Result<Self, Refusal> {
        let count = bytes.try_get_u16()?;
        let weight = bytes.try_get_i16()?;
        let negative = match bytes.try_get_u16()? {
            POSITIVE => false,
            NEGATIVE => true,
            _ => return Err("infinity and NaN are no decimals".into()),
        };
        let scale = bytes.try_get_u16()?;
        let digits = (0..count).map(|_| bytes.try_get_u16()).collect::<Result<_, _>>()?;
        Ok(Self { negative, weight, scale, digits })
    }

    accepts!(NUMERIC);
}
