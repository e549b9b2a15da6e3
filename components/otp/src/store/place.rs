//! Where the database is.

use super::postgres::address::Address;
use std::rc::Rc;

/// Where the database is.
#[derive(Debug, Clone, Default)]
pub(crate) enum Place {
    /// In Spin's SQLite file.
    #[default]
    File,
    /// On a Postgres server.
    Server(Rc<Address>),
}

impl Place {
    /// What it is called, for the operator.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::File => "sqlite",
            Self::Server(_) => "postgres",
        }
    }
}
