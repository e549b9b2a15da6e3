//! One statement after the other on a connection to the file.

use crate::row::{Row, Value};
use otp_core::ports::Unavailable;
use spin_sdk::sqlite::{self, Connection, Error, RowResult};

/// An open connection.
pub(crate) struct Session(Connection);

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Session")
    }
}

impl Session {
    /// To the default database.
    pub(super) async fn open() -> Result<Self, Unavailable> {
        Connection::open_default().await.map(Self).map_err(unavailable)
    }

    /// Runs one statement to its end: only then is it committed, and only then are its errors known.
    pub(crate) async fn run(
        &self,
        statement: &str,
        parameters: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<Row>, Unavailable> {
        let parameters = parameters.into_iter().map(into_sqlite);
        let result = self.0.execute(statement, parameters).await.map_err(unavailable)?;
        result.collect().await.map_err(unavailable)?.into_iter().map(row).collect()
    }
}

fn into_sqlite(value: Value) -> sqlite::Value {
    match value {
        Value::Null => sqlite::Value::Null,
        Value::Integer(integer) => sqlite::Value::Integer(integer),
        Value::Text(text) | Value::Json(text) => sqlite::Value::Text(text),
        Value::Blob(bytes) => sqlite::Value::Blob(bytes),
    }
}

fn row(row: RowResult) -> Result<Row, Unavailable> {
    row.values
        .into_iter()
        .map(|value| match value {
            sqlite::Value::Null => Ok(Value::Null),
            sqlite::Value::Integer(integer) => Ok(Value::Integer(integer)),
            sqlite::Value::Text(text) => Ok(Value::Text(text)),
            sqlite::Value::Blob(bytes) => Ok(Value::Blob(bytes)),
            sqlite::Value::Real(_) => Err(Unavailable("SQLite: a statement gave a fraction".to_owned())),
        })
        .collect()
}

fn unavailable(error: Error) -> Unavailable {
    Unavailable(match error {
        Error::Io(reason) => format!("SQLite: {reason}"),
        other => format!("SQLite: {other}"),
    })
}
