//! Postgres through Spin's interface. The statements stand in `postgres/`, one file each, with reasons.
//!
//! Each is atomic by itself, and there are no transactions over several: a connection goes back to the host's
//! pool whatever becomes of the request, and must leave nothing open there.

pub(crate) mod address;
mod query;
mod schema;

use crate::row::{Row, Value};
use address::Address;
use otp_core::ports::Unavailable;
use query::{database_error, parameter, query, unavailable};
use spin_sdk::pg::{Connection, Error};
use std::cell::Cell;

/// How long the server works on a statement before it gives up, in milliseconds. By then nobody waits for it any
/// more, and one that waits for a lock for ever would keep its connection for ever.
const STATEMENT_TIMEOUT: u32 = 2_600;

/// How a statement says that it gave up, see `give_up` in the schema.
const OVERTAKEN: &str = "OTP02";

/// How often a statement is tried that the server has ended for the sake of another one.
const TRIES: usize = 3;

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
    /// Something was put in the way since the statement began.
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
