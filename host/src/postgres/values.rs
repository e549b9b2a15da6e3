//! Values of the interface and of PostgreSQL, both ways: each type of the one goes with the same types of
//! the other as in Spin.

use super::{
    bindings::postgres::{Column, DbDataType, DbValue, Error, Interval, ParameterValue},
    numeric::Numeric,
    range::Range,
};
use bytes::{Buf, BufMut, BytesMut};
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, Timelike};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

/// What becomes of a value that cannot be sent or read.
pub(super) type Refusal = Box<dyn std::error::Error + Sync + Send>;

/// A parameter, ready to be sent.
pub(super) type Parameter = Box<dyn ToSql + Sync + Send>;

/// Makes parameters of what a guest gave.
pub(super) fn parameters(values: Vec<ParameterValue>) -> Result<Vec<Parameter>, Error> {
    values.into_iter().map(parameter).collect::<Result<_, _>>().map_err(Error::BadParameter)
}

fn parameter(value: ParameterValue) -> Result<Parameter, String> {
    Ok(match value {
        ParameterValue::Boolean(value) => Box::new(value),
        ParameterValue::Int8(value) => Box::new(value),
        ParameterValue::Int16(value) => Box::new(value),
        ParameterValue::Int32(value) => Box::new(value),
        ParameterValue::Int64(value) => Box::new(value),
        ParameterValue::Floating32(value) => Box::new(value),
        ParameterValue::Floating64(value) => Box::new(value),
        ParameterValue::Str(value) => Box::new(value),
        ParameterValue::Binary(value) => Box::new(value),
        ParameterValue::Date(value) => Box::new(date(value)?),
        ParameterValue::Time(value) => Box::new(time(value)?),
        ParameterValue::Datetime((year, month, day, hour, minute, second, nanos)) => {
            Box::new(NaiveDateTime::new(date((year, month, day))?, time((hour, minute, second, nanos))?))
        }
        ParameterValue::Timestamp(seconds) => Box::new(
            DateTime::from_timestamp_secs(seconds)
                .ok_or_else(|| format!("invalid epoch timestamp {seconds}"))?,
        ),
        ParameterValue::Uuid(value) => Box::new(Uuid::parse(&value)?),
        ParameterValue::Jsonb(value) => Box::new(Json::parse(value)?),
        ParameterValue::Decimal(value) => Box::new(Numeric::parse(&value)?),
        ParameterValue::RangeInt32(value) => Box::new(Range::<i32>::from(value)),
        ParameterValue::RangeInt64(value) => Box::new(Range::<i64>::from(value)),
        ParameterValue::RangeDecimal((lower, upper)) => {
            let bound = |bound: Option<(String, _)>| {
                bound.map(|(value, kind)| Ok::<_, String>((Numeric::parse(&value)?, kind))).transpose()
            };
            Box::new(Range::from((bound(lower)?, bound(upper)?)))
        }
        ParameterValue::ArrayInt32(values) => Box::new(values),
        ParameterValue::ArrayInt64(values) => Box::new(values),
        ParameterValue::ArrayDecimal(values) => {
            let parse = |value: Option<String>| value.map(|value| Numeric::parse(&value)).transpose();
            Box::new(values.into_iter().map(parse).collect::<Result<Vec<_>, _>>()?)
        }
        ParameterValue::ArrayStr(values) => Box::new(values),
        ParameterValue::Interval(value) => Box::new(value),
        ParameterValue::DbNull => Box::new(Null),
    })
}

fn date((year, month, day): (i32, u8, u8)) -> Result<NaiveDate, String> {
    NaiveDate::from_ymd_opt(year, month.into(), day.into())
        .ok_or_else(|| format!("invalid date y={year}, m={month}, d={day}"))
}

fn time((hour, minute, second, nanos): (u8, u8, u8, u32)) -> Result<NaiveTime, String> {
    NaiveTime::from_hms_nano_opt(hour.into(), minute.into(), second.into(), nanos)
        .ok_or_else(|| format!("invalid time {hour}:{minute}:{second}:{nanos}"))
}

#[expect(clippy::cast_possible_truncation, reason = "months and days are below 32")]
fn of_date(date: NaiveDate) -> (i32, u8, u8) {
    (date.year(), date.month() as u8, date.day() as u8)
}

#[expect(clippy::cast_possible_truncation, reason = "hours, minutes and seconds are below 60")]
fn of_time(time: NaiveTime) -> (u8, u8, u8, u32) {
    (time.hour() as u8, time.minute() as u8, time.second() as u8, time.nanosecond())
}

/// The columns of a statement.
pub(super) fn columns(columns: &[tokio_postgres::Column]) -> Vec<Column> {
    columns
        .iter()
        .map(|column| Column { name: column.name().to_owned(), data_type: data_type(column.type_()) })
        .collect()
}

fn data_type(kind: &Type) -> DbDataType {
    match *kind {
        Type::BOOL => DbDataType::Boolean,
        Type::INT2 => DbDataType::Int16,
        Type::INT4 => DbDataType::Int32,
        Type::INT8 => DbDataType::Int64,
        Type::FLOAT4 => DbDataType::Floating32,
        Type::FLOAT8 => DbDataType::Floating64,
        Type::TEXT | Type::VARCHAR | Type::BPCHAR => DbDataType::Str,
        Type::BYTEA => DbDataType::Binary,
        Type::DATE => DbDataType::Date,
        Type::TIME => DbDataType::Time,
        Type::TIMESTAMP | Type::TIMESTAMPTZ => DbDataType::Datetime,
        Type::UUID => DbDataType::Uuid,
        Type::JSONB => DbDataType::Jsonb,
        Type::NUMERIC => DbDataType::Decimal,
        Type::INT4_RANGE => DbDataType::RangeInt32,
        Type::INT8_RANGE => DbDataType::RangeInt64,
        Type::NUM_RANGE => DbDataType::RangeDecimal,
        Type::INT4_ARRAY => DbDataType::ArrayInt32,
        Type::INT8_ARRAY => DbDataType::ArrayInt64,
        Type::NUMERIC_ARRAY => DbDataType::ArrayDecimal,
        Type::TEXT_ARRAY | Type::VARCHAR_ARRAY | Type::BPCHAR_ARRAY => DbDataType::ArrayStr,
        Type::INTERVAL => DbDataType::Interval,
        _ => DbDataType::Other(kind.name().to_owned()),
    }
}

/// The values of a row.
pub(super) fn row(row: &tokio_postgres::Row) -> Result<Vec<DbValue>, tokio_postgres::Error> {
    (0..row.len()).map(|index| value(row, index)).collect()
}

fn value(row: &tokio_postgres::Row, index: usize) -> Result<DbValue, tokio_postgres::Error> {
    match *row.columns()[index].type_() {
        Type::BOOL => read(row, index, DbValue::Boolean),
        Type::INT2 => read(row, index, DbValue::Int16),
        Type::INT4 => read(row, index, DbValue::Int32),
        Type::INT8 => read(row, index, DbValue::Int64),
        Type::FLOAT4 => read(row, index, DbValue::Floating32),
        Type::FLOAT8 => read(row, index, DbValue::Floating64),
        Type::TEXT | Type::VARCHAR | Type::BPCHAR => read(row, index, DbValue::Str),
        Type::BYTEA => read(row, index, DbValue::Binary),
        Type::DATE => read(row, index, |read| DbValue::Date(of_date(read))),
        Type::TIME => read(row, index, |read| DbValue::Time(of_time(read))),
        // As with Spin, one with a time zone is announced as this and cannot be read: cast it.
        Type::TIMESTAMP | Type::TIMESTAMPTZ => read(row, index, |read: NaiveDateTime| {
            let ((year, month, day), (hour, minute, second, nanos)) =
                (of_date(read.date()), of_time(read.time()));
            DbValue::Datetime((year, month, day, hour, minute, second, nanos))
        }),
        Type::UUID => read(row, index, |uuid: Uuid| DbValue::Uuid(uuid.to_string())),
        Type::JSONB => read(row, index, |Json(json)| DbValue::Jsonb(json)),
        Type::NUMERIC => read(row, index, |number: Numeric| DbValue::Decimal(number.to_string())),
        Type::INT4_RANGE => read(row, index, |range: Range<i32>| DbValue::RangeInt32(range.into())),
        Type::INT8_RANGE => read(row, index, |range: Range<i64>| DbValue::RangeInt64(range.into())),
        Type::NUM_RANGE => read(row, index, |range: Range<Numeric>| {
            DbValue::RangeDecimal(range.map(|n| n.to_string()).into())
        }),
        Type::INT4_ARRAY => read(row, index, DbValue::ArrayInt32),
        Type::INT8_ARRAY => read(row, index, DbValue::ArrayInt64),
        Type::NUMERIC_ARRAY => read(row, index, |numbers: Vec<Option<Numeric>>| {
            let text = |number: Option<Numeric>| number.map(|number| number.to_string());
            DbValue::ArrayDecimal(numbers.into_iter().map(text).collect())
        }),
        Type::TEXT_ARRAY | Type::VARCHAR_ARRAY | Type::BPCHAR_ARRAY => read(row, index, DbValue::ArrayStr),
        Type::INTERVAL => read(row, index, DbValue::Interval),
        _ => read(row, index, |Other(bytes)| DbValue::Unsupported(bytes)),
    }
}

fn read<'a, T: FromSql<'a>>(
    row: &'a tokio_postgres::Row,
    index: usize,
    value: impl FnOnce(T) -> DbValue,
) -> Result<DbValue, tokio_postgres::Error> {
    row.try_get::<_, Option<T>>(index).map(|read| read.map_or(DbValue::DbNull, value))
}

/// How much memory the values of a row take.
pub(super) fn size(row: &[DbValue]) -> usize {
    let texts = |texts: &[Option<String>]| {
        size_of_val(texts) + texts.iter().flatten().map(String::len).sum::<usize>()
    };
    let held = |value: &DbValue| match value {
        DbValue::Str(text) | DbValue::Uuid(text) | DbValue::Decimal(text) => text.len(),
        DbValue::Binary(bytes) | DbValue::Jsonb(bytes) | DbValue::Unsupported(bytes) => bytes.len(),
        DbValue::RangeDecimal((lower, upper)) => {
            [lower, upper].into_iter().flatten().map(|(text, _)| text.len()).sum()
        }
        DbValue::ArrayInt32(numbers) => size_of_val(&numbers[..]),
        DbValue::ArrayInt64(numbers) => size_of_val(&numbers[..]),
        DbValue::ArrayDecimal(numbers) => texts(numbers),
        DbValue::ArrayStr(strings) => texts(strings),
        _ => 0,
    };
    size_of_val(row) + row.iter().map(held).sum::<usize>()
}

/// NULL, whatever the type.
#[derive(Debug)]
struct Null;

impl ToSql for Null {
    fn to_sql(&self, _: &Type, _: &mut BytesMut) -> Result<IsNull, Refusal> {
        Ok(IsNull::Yes)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// A value of a type that the interface does not know.
#[derive(Debug)]
struct Other(Vec<u8>);

impl FromSql<'_> for Other {
    fn from_sql(_: &Type, bytes: &[u8]) -> Result<Self, Refusal> {
        Ok(Self(bytes.to_vec()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

#[derive(Debug)]
struct Uuid(u128);

impl Uuid {
    /// Reads the usual form, with or without hyphens, in braces, or as a URN.
    fn parse(text: &str) -> Result<Self, String> {
        let braced = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
        let bare = braced.or_else(|| text.strip_prefix("urn:uuid:")).unwrap_or(text);
        let hyphens = [8, 13, 18, 23];
        let digits: String = match bare.len() {
            36 if hyphens.iter().all(|index| bare.as_bytes()[*index] == b'-') => bare.split('-').collect(),
            _ => bare.to_owned(),
        };
        if digits.len() != 32 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(format!("invalid UUID {text}"));
        }
        u128::from_str_radix(&digits, 16).map(Self).map_err(|error| error.to_string())
    }
}

impl std::fmt::Display for Uuid {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = format!("{:032x}", self.0);
        let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
        formatter.write_str(&parts.join("-"))
    }
}

impl ToSql for Uuid {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Refusal> {
        out.put_u128(self.0);
        Ok(IsNull::No)
    }

    accepts!(UUID);
    to_sql_checked!();
}

impl FromSql<'_> for Uuid {
    fn from_sql(_: &Type, mut bytes: &[u8]) -> Result<Self, Refusal> {
        Ok(Self(bytes.try_get_u128()?))
    }

    accepts!(UUID);
}

/// The text of a JSON value.
#[derive(Debug)]
struct Json(Vec<u8>);

impl Json {
    fn parse(text: Vec<u8>) -> Result<Self, String> {
        serde_json::from_slice::<serde::de::IgnoredAny>(&text)
            .map(|_| Self(text))
            .map_err(|error| format!("invalid JSON: {error}"))
    }
}

impl ToSql for Json {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Refusal> {
        if *kind == Type::JSONB {
            // The version of its form.
            out.put_u8(1);
        }
        out.put_slice(&self.0);
        Ok(IsNull::No)
    }

    accepts!(JSON, JSONB);
    to_sql_checked!();
}

impl FromSql<'_> for Json {
    fn from_sql(_: &Type, bytes: &[u8]) -> Result<Self, Refusal> {
        match bytes {
            [1, text @ ..] => Ok(Self(text.to_vec())),
            _ => Err("unsupported JSONB encoding version".into()),
        }
    }

    accepts!(JSONB);
}

impl ToSql for Interval {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Refusal> {
        out.put_i64(self.micros);
        out.put_i32(self.days);
        out.put_i32(self.months);
        Ok(IsNull::No)
    }

    accepts!(INTERVAL);
    to_sql_checked!();
}

impl FromSql<'_> for Interval {
    fn from_sql(_: &Type, mut bytes: &[u8]) -> Result<Self, Refusal> {
        Ok(Self { micros: bytes.try_get_i64()?, days: bytes.try_get_i32()?, months: bytes.try_get_i32()? })
    }

    accepts!(INTERVAL);
}
