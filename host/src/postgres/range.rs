//! Ranges: two bounds there, a flag for each case here.

use super::{bindings::postgres::RangeBoundKind, values::Refusal};
use bytes::{Buf, BufMut, BytesMut};
use tokio_postgres::types::{FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};

const EMPTY: u8 = 0x01;
const LOWER_INCLUSIVE: u8 = 0x02;
const UPPER_INCLUSIVE: u8 = 0x04;
const LOWER_INFINITE: u8 = 0x08;
const UPPER_INFINITE: u8 = 0x10;

type Bound<T> = Option<(T, RangeBoundKind)>;

/// A range. Without a bound it does not end there. As with Spin, an empty one that is read has neither,
/// and one whose bounds are the wrong way round is sent as empty.
#[derive(Debug)]
pub(super) struct Range<T> {
    lower: Bound<T>,
    upper: Bound<T>,
}

impl<T> From<(Bound<T>, Bound<T>)> for Range<T> {
    fn from((lower, upper): (Bound<T>, Bound<T>)) -> Self {
        Self { lower, upper }
    }
}

impl<T> From<Range<T>> for (Bound<T>, Bound<T>) {
    fn from(range: Range<T>) -> Self {
        (range.lower, range.upper)
    }
}

impl<T> Range<T> {
    pub(super) fn map<U>(self, map: impl Fn(T) -> U) -> Range<U> {
        let bound = |bound: Bound<T>| bound.map(|(value, kind)| (map(value), kind));
        Range { lower: bound(self.lower), upper: bound(self.upper) }
    }
}

fn element(range: &Type) -> Option<&Type> {
    match range.kind() {
        Kind::Range(element) => Some(element),
        _ => None,
    }
}

impl<T: ToSql + PartialOrd> ToSql for Range<T> {
    fn to_sql(&self, range: &Type, out: &mut BytesMut) -> Result<IsNull, Refusal> {
        let element = element(range).ok_or("no range")?;
        if let (Some((lower, _)), Some((upper, _))) = (&self.lower, &self.upper)
            && lower > upper
        {
            out.put_u8(EMPTY);
            return Ok(IsNull::No);
        }
        let flag = |bound: &Bound<T>, infinite, inclusive| match bound {
            None => infinite,
            Some((_, RangeBoundKind::Inclusive)) => inclusive,
            Some((_, RangeBoundKind::Exclusive)) => 0,
        };
        out.put_u8(
            flag(&self.lower, LOWER_INFINITE, LOWER_INCLUSIVE)
                | flag(&self.upper, UPPER_INFINITE, UPPER_INCLUSIVE),
        );
        for (value, _) in [&self.lower, &self.upper].into_iter().flatten() {
            let mut bytes = BytesMut::new();
            value.to_sql(element, &mut bytes)?;
            out.put_i32(bytes.len().try_into()?);
            out.put_slice(&bytes);
        }
        Ok(IsNull::No)
    }

    fn accepts(range: &Type) -> bool {
        element(range).is_some_and(T::accepts)
    }

    to_sql_checked!();
}

impl<'a, T: FromSql<'a>> FromSql<'a> for Range<T> {
    fn from_sql(range: &Type, mut bytes: &'a [u8]) -> Result<Self, Refusal> {
        let element = element(range).ok_or("no range")?;
        let flags = bytes.try_get_u8()?;
        let mut bound = |infinite, inclusive| -> Result<Bound<T>, Refusal> {
            if flags & (infinite | EMPTY) != 0 {
                return Ok(None);
            }
            let length = usize::try_from(bytes.try_get_i32()?)?;
            let (value, rest) = bytes.split_at_checked(length).ok_or("a bound is cut off")?;
            bytes = rest;
            let included = flags & inclusive != 0;
            let kind = if included { RangeBoundKind::Inclusive } else { RangeBoundKind::Exclusive };
            Ok(Some((T::from_sql(element, value)?, kind)))
        };
        let lower = bound(LOWER_INFINITE, LOWER_INCLUSIVE)?;
        Ok(Self { lower, upper: bound(UPPER_INFINITE, UPPER_INCLUSIVE)? })
    }

    fn accepts(range: &Type) -> bool {
        element(range).is_some_and(T::accepts)
    }
}
