//! SQLite through Spin's interface. The statements stand in `sqlite/`, one file each, with reasons.

mod schema;

use super::row::{Row, Value};
use otp_core::ports::Unavailable;
use spin_sdk::sqlite::{self, Connection, Error, RowResult};

/// How long SQLite itself waits for another writer, in milliseconds: less than the request's deadline,
/// so that a busy database is told from a silent one.
const BUSY_TIMEOUT: u32 = 2_000;

/// A connection with the schema in place.
pub(super) struct Sqlite(Connection);

impl std::fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sqlite")
    }
}

impl Sqlite {
    /// Opens the default database and brings its schema up to date.
    pub(super) async fn open() -> Result<Self, Unavailable> {
        let database = Self(Connection::open_default().await.map_err(unavailable)?);
        database.run(&format!("PRAGMA busy_timeout = {BUSY_TIMEOUT}"), []).await?;
        // A commit survives the death of this process, of the host and of the system's other programs.
        // Only a loss of power may take the last moments; waiting for the disk at each commit would
        // cost most of the speed.
        database.run("PRAGMA synchronous = NORMAL", []).await?;
        schema::bring_up_to_date(&database).await?;
        Ok(database)
    }

    /// Runs one statement to its end: only then is it committed, and only then are its errors known.
    pub(super) async fn run(
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
