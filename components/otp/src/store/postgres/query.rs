//! One statement on a connection, and what its errors mean to us.

use crate::row::{Row, Value};
use otp_core::ports::Unavailable;
use spin_sdk::pg::{Connection, DbError, DbValue, Error, ParameterValue, PgError, QueryError};

/// How a statement says that it came too late, see `must_be_before` in the schema.
const TOO_LATE: &str = "OTP01";

pub(super) fn database_error(error: &Error) -> Option<&DbError> {
    match error {
        Error::PgError(PgError::QueryFailed(QueryError::DbError(error))) => Some(error),
        _ => None,
    }
}

pub(super) async fn query(
    connection: &Connection,
    statement: &str,
    parameters: &[ParameterValue],
) -> Result<Vec<Row>, Error> {
    let mut result = connection.query(statement, parameters).await?;
    let mut rows = Vec::new();
    while let Some(values) = result.rows().next().await {
        rows.push(values.into_iter().map(value).collect::<Result<Row, Error>>()?);
    }
    result.result().await?;
    Ok(rows)
}

pub(super) fn parameter(value: Value) -> ParameterValue {
    match value {
        Value::Null => ParameterValue::DbNull,
        Value::Integer(integer) => ParameterValue::Int64(integer),
        Value::Text(text) => ParameterValue::Str(text),
        Value::Json(text) => ParameterValue::Jsonb(text.into_bytes()),
        Value::Blob(bytes) => ParameterValue::Binary(bytes),
    }
}

fn value(value: DbValue) -> Result<Value, Error> {
    match value {
        DbValue::DbNull => Ok(Value::Null),
        DbValue::Int64(integer) => Ok(Value::Integer(integer)),
        DbValue::Int32(integer) => Ok(Value::Integer(integer.into())),
        DbValue::Str(text) => Ok(Value::Text(text)),
        DbValue::Binary(bytes) => Ok(Value::Blob(bytes)),
        _ => Err(Error::Decode("a statement gave a value of another type".to_owned())),
    }
}

/// In words for the operator. What the server says may quote what the statement was given, a number for one: the
/// fields that never do are enough to find it in the server's own log.
pub(super) fn unavailable(error: Error) -> Unavailable {
    Unavailable(match error {
        Error::PgError(PgError::ConnectionFailed(reason)) => format!("Postgres: cannot connect: {reason}"),
        Error::PgError(PgError::QueryFailed(QueryError::DbError(error))) => {
            if error.code == TOO_LATE {
                return Unavailable("Postgres: busy for too long".to_owned());
            }
            format!("Postgres: {} {}", error.code, error.message)
        }
        Error::PgError(PgError::QueryFailed(QueryError::Text(reason))) => format!("Postgres: {reason}"),
        Error::PgError(_) => "Postgres: the statement's values did not fit".to_owned(),
        Error::Decode(reason) => format!("Postgres: {reason}"),
    })
}
