//! A connection to the database that was chosen.

use super::{
    place::Place,
    postgres::Postgres,
    sqlite::{self, Session},
    statement::Statement,
};
use crate::row::{Row, Value};
use otp_core::ports::Unavailable;

/// A connection with the schema in place.
#[derive(Debug)]
pub(super) enum Connection {
    Sqlite(Session),
    Postgres(Postgres),
}

impl Connection {
    pub(super) async fn open(place: &Place) -> Result<Self, Unavailable> {
        match place {
            Place::File => sqlite::open().await.map(Self::Sqlite),
            Place::Server(address) => Postgres::open(address).await.map(Self::Postgres),
        }
    }

    /// Runs one statement to its end: only then is it committed, and only then are its errors known.
    pub(super) async fn run(
        &self,
        statement: Statement,
        parameters: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<Row>, Unavailable> {
        match self {
            Self::Sqlite(sqlite) => sqlite.run(statement.sqlite, parameters).await,
            Self::Postgres(postgres) => postgres.run(statement.postgres, parameters).await,
        }
    }

    /// How far the database's clock is ahead of ours, in milliseconds. A file has no clock of its own.
    pub(super) fn ahead(&self) -> i64 {
        match self {
            Self::Sqlite(_) => 0,
            Self::Postgres(postgres) => postgres.ahead(),
        }
    }

    /// Whether it is worth keeping. A server's connections are its host's to keep: taking one from there costs
    /// nothing, and one that this instance kept would be missing elsewhere.
    pub(super) fn is_kept(&self) -> bool {
        matches!(self, Self::Sqlite(_))
    }
}
