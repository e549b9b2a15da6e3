//! What goes into a statement and what comes out, whichever database it is.

use otp_core::{Channel, OtpId, Revision, Timestamp, ports::Unavailable};

/// A parameter of a statement, or a column of its result.
#[derive(Clone)]
pub(crate) enum Value {
    Null,
    Integer(i64),
    Text(String),
    /// JSON, as text.
    Json(String),
    Blob(Vec<u8>),
}

impl From<i64> for Value {
    fn from(integer: i64) -> Self {
        Self::Integer(integer)
    }
}

impl From<u32> for Value {
    fn from(integer: u32) -> Self {
        Self::Integer(integer.into())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Timestamp> for Value {
    fn from(moment: Timestamp) -> Self {
        Self::Integer(moment.unix_millis())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Blob(bytes.to_owned())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A row whose columns the statement fixes. A column of another type is a damaged database, not a
/// panic.
pub(crate) struct Row(Vec<Value>);

impl FromIterator<Value> for Row {
    fn from_iter<T: IntoIterator<Item = Value>>(values: T) -> Self {
        Self(values.into_iter().collect())
    }
}

impl Row {
    pub(crate) fn text(&self, column: usize) -> Result<&str, Unavailable> {
        match self.0.get(column) {
            Some(Value::Text(text)) => Ok(text),
            _ => Err(unexpected(column)),
        }
    }

    pub(crate) fn optional_blob(&self, column: usize) -> Result<Option<Vec<u8>>, Unavailable> {
        match self.0.get(column) {
            Some(Value::Blob(bytes)) => Ok(Some(bytes.clone())),
            Some(Value::Null) => Ok(None),
            _ => Err(unexpected(column)),
        }
    }

    pub(crate) fn integer(&self, column: usize) -> Result<i64, Unavailable> {
        self.optional_integer(column)?.ok_or_else(|| unexpected(column))
    }

    pub(crate) fn optional_integer(&self, column: usize) -> Result<Option<i64>, Unavailable> {
        match self.0.get(column) {
            Some(Value::Integer(integer)) => Ok(Some(*integer)),
            Some(Value::Null) => Ok(None),
            _ => Err(unexpected(column)),
        }
    }

    pub(crate) fn timestamp(&self, column: usize) -> Result<Timestamp, Unavailable> {
        self.integer(column).map(Timestamp::from_unix_millis)
    }

    /// A JSON array of whole numbers.
    pub(crate) fn integers(&self, column: usize) -> Result<Vec<i64>, Unavailable> {
        serde_json::from_str(self.text(column)?).map_err(|_| unexpected(column))
    }

    /// A JSON array of milliseconds.
    pub(crate) fn timestamps(&self, column: usize) -> Result<Vec<Timestamp>, Unavailable> {
        Ok(self.integers(column)?.into_iter().map(Timestamp::from_unix_millis).collect())
    }

    pub(crate) fn optional_timestamp(&self, column: usize) -> Result<Option<Timestamp>, Unavailable> {
        Ok(self.optional_integer(column)?.map(Timestamp::from_unix_millis))
    }

    pub(crate) fn optional_text(&self, column: usize) -> Result<Option<String>, Unavailable> {
        match self.0.get(column) {
            Some(Value::Text(text)) => Ok(Some(text.clone())),
            Some(Value::Null) => Ok(None),
            _ => Err(unexpected(column)),
        }
    }

    pub(crate) fn is_null(&self, column: usize) -> bool {
        matches!(self.0.get(column), None | Some(Value::Null))
    }

    pub(crate) fn revision(&self, column: usize) -> Result<Revision, Unavailable> {
        self.integer(column).map(Revision::from_stored)
    }

    pub(crate) fn otp_id(&self, column: usize) -> Result<OtpId, Unavailable> {
        self.text(column).map(|id| OtpId::from_stored(id.to_owned()))
    }

    pub(crate) fn channel(&self, column: usize) -> Result<Channel, Unavailable> {
        self.text(column)?.parse().map_err(|_| unexpected(column))
    }
}

pub(crate) fn unexpected(column: usize) -> Unavailable {
    Unavailable(format!("database: column {column} is not what the statement gives"))
}
