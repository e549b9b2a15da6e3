//! SQLite: `spin:sqlite` over a file, and where the file is.
//!
//! As with Spin, the file is `<state folder>/sqlite_db.db`, opened with SQLite's own defaults; each `open` has
//! settings, transactions and temporary tables of its own; each statement is atomic; and other files cannot be
//! attached. Unlike Spin,
//!
//! - what a guest has opened is a connection of SQLite's only as long as it makes a difference ([`session`]);
//!   so `changes()`, `last_insert_rowid()` and `total_changes()` are refused outside of triggers: use `RETURNING`;
//! - a statement that was quick before is run where its request is, and moves to a thread that may block only when
//!   another process holds a lock;
//! - writers of this host take turns instead of meeting in SQLite's busy handler, which sleeps and retries and so
//!   lets the unlucky wait a hundred times longer than the lucky. A transaction keeps its turn until its end.
//!   Processes beside this one are waited for by SQLite's own means.

mod bindings;
mod commits;
mod connection;
mod database;
mod queue;
mod session;
mod statement;

use crate::{manifest::DEFAULT_DATABASE, telemetry::Requests};
use bindings::sqlite::{
    self as interface, Error, Host, HostConnection, HostConnectionWithStore, RowResult, Value,
};
pub(crate) use database::Database;
use session::Session;
use std::sync::Arc;
use wasmtime::{
    AsContextMut,
    component::{Accessor, FutureReader, HasData, Linker, Resource, ResourceTable, StreamReader},
};

/// What an instance has of SQLite.
#[derive(Debug)]
pub(crate) struct Sqlite {
    /// `None` where the manifest grants no database.
    database: Option<Arc<Database>>,
    /// The guest's connections.
    table: ResourceTable,
    requests: Requests,
}

impl Sqlite {
    pub(crate) fn new(database: Option<Arc<Database>>, requests: Requests) -> Self {
        Self { database, table: ResourceTable::new(), requests }
    }

    fn open(&mut self, label: &str) -> Result<Resource<interface::Connection>, Error> {
        // Which labels there are besides is not told.
        let database = self.database.as_ref().filter(|_| label == DEFAULT_DATABASE);
        let session = Session::open(Arc::clone(database.ok_or(Error::AccessDenied)?));
        let kept = self.table.push(Arc::new(session));
        kept.map(|kept| Resource::new_own(kept.rep())).map_err(|error| Error::Io(error.to_string()))
    }

    fn session(&self, connection: &Resource<interface::Connection>) -> Result<Arc<Session>, Error> {
        let session = Resource::new_borrow(connection.rep());
        self.table.get(&session).cloned().map_err(|_| Error::InvalidConnection)
    }
}

/// Links the interface to a store that has `get` for it.
pub(crate) fn add_to_linker<T: Send + 'static>(
    linker: &mut Linker<T>,
    get: fn(&mut T) -> &mut Sqlite,
) -> wasmtime::Result<()> {
    bindings::sqlite::add_to_linker::<_, SqliteData>(linker, get)
}

/// Gives the linker access to the [`Sqlite`] of an instance.
#[derive(Debug)]
struct SqliteData;

impl HasData for SqliteData {
    type Data<'a> = &'a mut Sqlite;
}

impl Host for &mut Sqlite {}

impl HostConnection for &mut Sqlite {
    fn drop(&mut self, connection: Resource<interface::Connection>) -> wasmtime::Result<()> {
        self.table.delete(Resource::<Arc<Session>>::new_own(connection.rep()))?;
        Ok(())
    }
}

impl<T: Send + 'static> HostConnectionWithStore<T> for SqliteData {
    async fn open_async(
        accessor: &Accessor<T, Self>,
        database: String,
    ) -> Result<Resource<interface::Connection>, Error> {
        accessor.with(|mut access| access.get().open(&database))
    }

    async fn execute_async(
        accessor: &Accessor<T, Self>,
        connection: Resource<interface::Connection>,
        statement: String,
        parameters: Vec<Value>,
    ) -> Result<(Vec<String>, StreamReader<RowResult>, FutureReader<Result<(), Error>>), Error> {
        let (session, mut span) = accessor.with(|mut access| {
            let sqlite = access.get();
            let (session, requests) = (sqlite.session(&connection), sqlite.requests.clone());
            (session, requests.database(access.as_context_mut(), "sqlite", &statement))
        });
        let (columns, rows) = session?.execute(statement, parameters).await;
        if rows.is_err() {
            span.failed("sqlite");
        }
        drop(span);
        let (rows, outcome) = match rows {
            Ok(rows) => (rows, Ok(())),
            Err(error) => (Vec::new(), Err(error)),
        };
        accessor
            .with(|mut access| {
                let rows = StreamReader::new(&mut access, rows)?;
                let outcome = async move { wasmtime::error::Ok(outcome) };
                Ok((columns, rows, FutureReader::new(&mut access, outcome)?))
            })
            .map_err(|error: wasmtime::Error| Error::Io(error.to_string()))
    }
}

#[cfg(test)]
mod tests;
