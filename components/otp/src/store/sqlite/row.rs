//! A row of a result, read by position and type.

use otp_core::{Channel, OtpId, OtpVersion, Timestamp, ports::Unavailable};
use spin_sdk::sqlite::{RowResult, Value};

/// A row whose columns the statement fixes. A column of another type is a damaged database, not a
/// panic.
#[derive(Debug)]
pub(super) struct Row(Vec<Value>);

impl From<RowResult> for Row {
    fn from(row: RowResult) -> Self {
        Self(row.values)
    }
}

impl Row {
    pub(super) fn text(&self, column: usize) -> Result<&str, Unavailable> {
        match self.0.get(column) {
            Some(Value::Text(text)) => Ok(text),
            _ => Err(unexpected(column)),
        }
    }

    pub(super) fn optional_blob(&self, column: usize) -> Result<Option<Vec<u8>>, Unavailable> {
        match self.0.get(column) {
            Some(Value::Blob(bytes)) => Ok(Some(bytes.clone())),
            Some(Value::Null) => Ok(None),
            _ => Err(unexpected(column)),
        }
    }

    pub(super) fn integer(&self, column: usize) -> Result<i64, Unavailable> {
        self.optional_integer(column)?.ok_or_else(|| unexpected(column))
    }

    pub(super) fn optional_integer(&self, column: usize) -> Result<Option<i64>, Unavailable> {
        match self.0.get(column) {
            Some(Value::Integer(integer)) => Ok(Some(*integer)),
            Some(Value::Null) => Ok(None),
            _ => Err(unexpected(column)),
        }
    }

    pub(super) fn timestamp(&self, column: usize) -> Result<Timestamp, Unavailable> {
        self.integer(column).map(Timestamp::from_unix_millis)
    }

    /// A JSON array of milliseconds.
    pub(super) fn timestamps(&self, column: usize) -> Result<Vec<Timestamp>, Unavailable> {
        let millis: Vec<i64> = serde_json::from_str(self.text(column)?).map_err(|_| unexpected(column))?;
        Ok(millis.into_iter().map(Timestamp::from_unix_millis).collect())
    }

    pub(super) fn version(&self, column: usize) -> Result<OtpVersion, Unavailable> {
        self.integer(column).map(OtpVersion::from_stored)
    }

    pub(super) fn otp_id(&self, column: usize) -> Result<OtpId, Unavailable> {
        self.text(column).map(|id| OtpId::from_stored(id.to_owned()))
    }

    pub(super) fn channel(&self, column: usize) -> Result<Channel, Unavailable> {
        self.text(column)?.parse().map_err(|_| unexpected(column))
    }
}

fn unexpected(column: usize) -> Unavailable {
    Unavailable(format!("SQLite: column {column} is not what the statement gives"))
}
