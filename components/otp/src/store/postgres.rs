//! Postgres through Spin's interface. The statements stand in `postgres/`, one file each, with reasons.
//!
//! Each is atomic by itself, and there are no transactions over several: a connection goes back to the host's
//! pool whatever becomes of the request, and must leave nothing open there.

mod schema;

use super::row::{Row, Value};
use crate::{endpoint::Endpoint, environment::Environment};
use otp_core::ports::{Clock, Unavailable};
use spin_sdk::pg::{
    Certificate, Connection, DbError, DbValue, Error, OpenOptions, ParameterValue, PgError, QueryError,
};
use std::{cell::Cell, fmt::Write};

/// How long the server works on a statement before it gives up, in milliseconds. By then nobody waits for it any
/// more, and one that waits for a lock for ever would keep its connection for ever.
const STATEMENT_TIMEOUT: u32 = 2_600;

/// How the server treats statements on our connections, whatever its administrator has set for everybody else:
///
/// - how they see each other, which they are written for;
/// - planned once, and not for each set of parameters;
/// - and by the indexes that there is one of for all that a request looks up. A plan is kept, and one that was made
///   when a table was small or empty would read all of what it has grown to.
const OPTIONS: &str = r"-c default_transaction_isolation=read\\ committed -c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c jit=off";

/// How a statement says that it gave up, see migration 0009.
const TOO_LATE: &str = "OTP01";
const OVERTAKEN: &str = "OTP02";

/// How often a statement is tried that the server has ended for the sake of another one.
const TRIES: usize = 3;

/// Where Postgres is, with the credentials in it. Not printable.
pub(crate) struct Address {
    /// In the form `key=value`, without its options.
    text: String,
    /// The authority that its certificate has to come from, in PEM form; `None` for those of the host.
    authority: Option<String>,
}

/// Whether the way to it is encrypted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Tls {
    /// Except on this machine.
    #[default]
    UnlessLocal,
    Required,
    Off,
}

impl std::str::FromStr for Tls {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "require" => Ok(Self::Required),
            "disable" => Ok(Self::Off),
            _ => Err("must be require, disable, or empty for TLS unless Postgres is on this machine"),
        }
    }
}

impl Address {
    /// From the endpoint `postgres://host:port` and what goes with it.
    pub(crate) fn new(
        endpoint: &str,
        user: &str,
        password: &str,
        database: &str,
        tls: Tls,
        authority: &str,
    ) -> Result<Self, &'static str> {
        const FORM: &str =
            "must be postgres://host:port; user, password and database have variables of their own";
        let known = |scheme| matches!(scheme, "postgres" | "postgresql");
        let endpoint = Endpoint::parse(endpoint).filter(|endpoint| known(endpoint.scheme)).ok_or(FORM)?;
        let (_, port) = endpoint.place.rsplit_once(':').ok_or(FORM)?;
        let encrypted = match tls {
            Tls::UnlessLocal => !endpoint.is_loopback(),
            Tls::Required => true,
            Tls::Off => false,
        };
        let host = endpoint.host.trim_start_matches('[').trim_end_matches(']');
        let mut text =
            format!("host={} port={port} application_name=spin-otp connect_timeout=2", quoted(host));
        for (name, value) in [("user", user), ("password", password), ("dbname", database)] {
            if !value.is_empty() {
                // Writing to a String cannot fail.
                let _ = write!(text, " {name}={}", quoted(value));
            }
        }
        text.push_str(if encrypted { " sslmode=require" } else { " sslmode=disable" });
        let authority =
            Some(authority.trim()).filter(|text| !text.is_empty() && encrypted).map(str::to_owned);
        Ok(Self { text, authority })
    }

    /// A connection whose statements end after that time, in milliseconds; 0 for never.
    async fn connect(&self, timeout: u32) -> Result<Connection, Unavailable> {
        let address = format!("{} options='-c statement_timeout={timeout} {OPTIONS}'", self.text);
        let ca_root = self.authority.clone().map(Certificate::Text);
        Connection::open_with_options(address, OpenOptions { ca_root }).await.map_err(unavailable)
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Address")
    }
}

/// A value of a connection string, whatever is in it.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

thread_local! {
    /// What this instance knows of the server: that its schema is in place, and how far its clock is ahead.
    static AHEAD: Cell<Option<i64>> = const { Cell::new(None) };
}

/// A connection with the schema in place.
pub(super) struct Postgres {
    connection: Connection,
    ahead: i64,
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Postgres")
    }
}

impl Postgres {
    /// Opens a connection. The first one of an instance brings the schema up to date.
    pub(super) async fn open(address: &Address) -> Result<Self, Unavailable> {
        let connection = address.connect(STATEMENT_TIMEOUT).await?;
        let ahead = match AHEAD.get() {
            Some(ahead) => ahead,
            None => schema::bring_up_to_date(address, &connection).await?,
        };
        AHEAD.set(Some(ahead));
        Ok(Self { connection, ahead })
    }

    /// Forgets what is known of the server: it may be another one.
    pub(super) fn forget() {
        AHEAD.set(None);
    }

    pub(super) fn ahead(&self) -> i64 {
        self.ahead
    }

    /// Runs one statement to its end. No rows come back, either, from one that found what it saw at its beginning
    /// overtaken by another one: it has done nothing then.
    pub(super) async fn run(
        &self,
        statement: &str,
        parameters: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<Row>, Unavailable> {
        let parameters: Vec<_> = parameters.into_iter().map(parameter).collect();
        let mut tries = 1;
        loop {
            match query(&self.connection, statement, &parameters).await {
                Ok(rows) => return Ok(rows),
                Err(error) => match verdict(&error) {
                    Verdict::Overtaken => return Ok(Vec::new()),
                    Verdict::Again if tries < TRIES => tries += 1,
                    _ => return Err(unavailable(error)),
                },
            }
        }
    }
}

/// What an error means.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Something was put in the way since the statement began (`issue.sql`).
    Overtaken,
    /// Another statement was in the way, and is gone.
    Again,
    /// It cannot be done.
    Failed,
}

fn verdict(error: &Error) -> Verdict {
    // https://www.postgresql.org/docs/current/errcodes-appendix.html
    match database_error(error) {
        Some(error) if error.code == OVERTAKEN => Verdict::Overtaken,
        // serialization_failure, deadlock_detected
        Some(error) if ["40001", "40P01"].contains(&error.code.as_str()) => Verdict::Again,
        _ => Verdict::Failed,
    }
}

fn database_error(error: &Error) -> Option<&DbError> {
    match error {
        Error::PgError(PgError::QueryFailed(QueryError::DbError(error))) => Some(error),
        _ => None,
    }
}

async fn query(
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

fn parameter(value: Value) -> ParameterValue {
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
fn unavailable(error: Error) -> Unavailable {
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

/// The milliseconds of our clock.
fn now() -> i64 {
    Environment.now().unix_millis()
}
