//! A setting that is too small or too large.

use std::ops::RangeInclusive;

/// A number is outside its range.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("must be from {from} to {to}")]
pub struct OutOfRange {
    from: u64,
    to: u64,
}

impl OutOfRange {
    pub(crate) fn check(value: u64, range: RangeInclusive<u64>) -> Result<u64, Self> {
        if range.contains(&value) { Ok(value) } else { Err(Self { from: *range.start(), to: *range.end() }) }
    }
}
