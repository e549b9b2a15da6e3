//! What a guest does with a connection between `open` and its end, and in which state it leaves it.

use super::{
    bindings::postgres::{Column, DbError, Error, QueryError, Row},
    pool::{Authority, Server, Servers},
    values::{self, Parameter},
};
use deadpool_postgres::Client;
use futures::Stream;
use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};
use tokio::runtime::Handle;
use tokio_postgres::{RowStream, Statement, error::SqlState, types::ToSql};

/// Most statements that are kept prepared on a connection: more are only made by a guest that writes its
/// parameters into them.
const STATEMENTS: usize = 256;

/// A connection in a guest's hands. When the last of its statements and handles is gone, it goes back to
/// the pool, or is closed if nobody knows what is still to come on it.
#[derive(Debug)]
pub(super) struct Session {
    server: Arc<Server>,
    /// Always there, until the end.
    client: Mutex<Option<Arc<Client>>>,
    past: Mutex<Past>,
}

/// What has happened on it.
#[derive(Debug, Default)]
struct Past {
    /// Counts what happens.
    clock: u64,
    /// When a statement was last given up before its end. PostgreSQL answers in order: that statement is
    /// over, too, once a later one is.
    abandoned: Option<u64>,
    /// Something has been executed, and a transaction may be open: no other connection can take its place.
    executed: bool,
    /// The server has said that it is ending, or that it is a replica by now: nothing more is to be had on it.
    unfit: bool,
}

impl Session {
    /// A connection to the address: one that is there, if possible.
    pub(super) async fn open(
        servers: &Servers,
        address: &str,
        authority: Option<&Authority>,
    ) -> Result<Arc<Self>, Error> {
        let server = servers.at(address, authority)?;
        let client = Mutex::new(Some(Arc::new(server.connect().await?)));
        Ok(Arc::new(Self { server, client, past: Mutex::default() }))
    }

    /// Prepares a statement, or takes it from those that are, and runs it until its first row can come. Its columns
    /// are known even if there is no row.
    pub(super) async fn query(
        self: &Arc<Self>,
        text: &str,
        parameters: &[Parameter],
    ) -> Result<(Vec<Column>, Rows), Error> {
        let mut running = Running::new(self)?;
        match self.start(&mut running.client, text, parameters).await {
            Ok((columns, rows)) => Ok((columns, Rows { rows: Box::pin(rows), running })),
            Err(error) => {
                running.ended();
                Err(error)
            }
        }
    }

    async fn start(
        &self,
        client: &mut Arc<Client>,
        text: &str,
        parameters: &[Parameter],
    ) -> Result<(Vec<Column>, RowStream), Error> {
        // As long as nothing has been executed on it, another one can take its place.
        let fresh = !self.past().executed;
        if fresh && client.is_closed() {
            *client = self.reconnect().await?;
        }
        let statement = match prepare(client, text).await {
            Err(error) if fresh && is_lost(&error) => {
                *client = self.reconnect().await?;
                prepare(client, text).await
            }
            prepared => prepared,
        };
        let statement = statement.map_err(|error| self.failed(&error))?;
        let columns = values::columns(statement.columns())?;
        self.past().executed = true;
        match execute(client, &statement, parameters).await {
            Ok(rows) => Ok((columns, rows)),
            Err(error) if is_outdated(&error) => {
                // A table has another shape since, or a guest has deallocated it: it was not executed.
                client.statement_cache.remove(text, &[]);
                let Ok(statement) = prepare(client, text).await else {
                    return Err(query_failed(&error));
                };
                let columns = values::columns(statement.columns())?;
                let rows = execute(client, &statement, parameters).await;
                rows.map(|rows| (columns, rows)).map_err(|error| self.failed(&error))
            }
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// What went wrong. After a failover the connections that there are lead to a server that is of no use any more: this one
    /// is closed when its guest gives it back, and those that are free are closed now.
    fn failed(&self, error: &tokio_postgres::Error) -> Error {
        if error.code().is_some_and(is_unfit) {
            self.past().unfit = true;
            self.server.close_free();
        }
        query_failed(error)
    }

    async fn reconnect(&self) -> Result<Arc<Client>, Error> {
        let client = Arc::new(self.server.connect().await?);
        *self.client() = Some(Arc::clone(&client));
        Ok(client)
    }

    fn client(&self) -> MutexGuard<'_, Option<Arc<Client>>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(client) = self.client().take().and_then(Arc::into_inner) else {
            return;
        };
        let (abandoned, unfit) = {
            let past = self.past();
            (past.abandoned.is_some(), past.unfit)
        };
        if !abandoned && !unfit && !client.is_closed() {
            return;
        }
        let server = Arc::clone(&self.server);
        match Handle::try_current() {
            Ok(runtime) if abandoned && !client.is_closed() => {
                // It keeps its place in the pool meanwhile: the server must not have more of them than that.
                runtime.spawn(async move {
                    server.cancel(client.cancel_token()).await;
                    drop(Client::take(client));
                });
            }
            _ => drop(Client::take(client)),
        }
    }
}

async fn prepare(client: &Client, text: &str) -> Result<Statement, tokio_postgres::Error> {
    if client.statement_cache.size() >= STATEMENTS {
        client.statement_cache.clear();
    }
    client.prepare_cached(text).await
}

async fn execute(
    client: &Client,
    statement: &Statement,
    parameters: &[Parameter],
) -> Result<RowStream, tokio_postgres::Error> {
    let parameters = parameters.iter().map(|parameter| &**parameter as &(dyn ToSql + Sync));
    client.query_raw(statement, parameters).await
}

/// Whether the connection is gone, or about to.
fn is_lost(error: &tokio_postgres::Error) -> bool {
    error.is_closed()
        || matches!(
            error.code(),
            Some(&SqlState::ADMIN_SHUTDOWN | &SqlState::CRASH_SHUTDOWN | &SqlState::CANNOT_CONNECT_NOW)
        )
}

/// Whether the server says by this that it is of no use for now, and another one may be in its place: it became read-only
/// (`read_only_sql_transaction`), or the SQLSTATE is of class 08 (connection exception) or 57P (operator intervention).
fn is_unfit(state: &SqlState) -> bool {
    *state == SqlState::READ_ONLY_SQL_TRANSACTION
        || ["08", "57P"].iter().any(|class| state.code().starts_with(class))
}

/// Whether the server will not execute a statement as it was prepared.
fn is_outdated(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|error| match *error.code() {
        SqlState::INVALID_SQL_STATEMENT_NAME => true,
        // "cached plan must not change result type"
        SqlState::FEATURE_NOT_SUPPORTED => error.routine() == Some("RevalidateCachedQuery"),
        _ => false,
    })
}

/// A statement between its start and its end.
#[derive(Debug)]
struct Running {
    client: Arc<Client>,
    /// After the client: the session takes the last one back.
    session: Arc<Session>,
    since: u64,
    ended: bool,
}

impl Running {
    fn new(session: &Arc<Session>) -> Result<Self, Error> {
        let client = session.client().clone();
        let client = client.ok_or_else(|| Error::ConnectionFailed("no connection found".to_owned()))?;
        let mut past = session.past();
        past.clock += 1;
        Ok(Self { client, session: Arc::clone(session), since: past.clock, ended: false })
    }

    /// The server has said its last word on it, or never heard of it.
    fn ended(&mut self) {
        self.ended = true;
        let mut past = self.session.past();
        if past.abandoned.is_some_and(|abandoned| abandoned < self.since) {
            past.abandoned = None;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            let mut past = self.session.past();
            past.clock += 1;
            past.abandoned = Some(past.clock);
        }
    }
}

/// The rows of a statement as they come.
pub(super) struct Rows {
    rows: Pin<Box<RowStream>>,
    running: Running,
}

impl fmt::Debug for Rows {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Rows").field("running", &self.running).finish_non_exhaustive()
    }
}

impl Rows {
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Row, Error>>> {
        let row = std::task::ready!(self.rows.as_mut().poll_next(context));
        if !matches!(row, Some(Ok(_))) {
            self.running.ended();
        }
        Poll::Ready(row.map(|row| {
            let row = row.map_err(|error| self.running.session.failed(&error))?;
            values::row(&row).map_err(|error| failed(format!("{error:?}")))
        }))
    }
}

/// What went wrong beside PostgreSQL.
pub(super) fn failed(reason: String) -> Error {
    Error::QueryFailed(QueryError::Text(reason))
}

/// What the client said, with the parts that PostgreSQL gave it.
fn query_failed(error: &tokio_postgres::Error) -> Error {
    let as_text = format!("{error:?}");
    let Some(said) = error.as_db_error() else {
        return failed(as_text);
    };
    let extras = [
        ("column", said.column().map(str::to_owned)),
        ("constraint", said.constraint().map(str::to_owned)),
        ("routine", said.routine().map(str::to_owned)),
        ("hint", said.hint().map(str::to_owned)),
        ("table", said.table().map(str::to_owned)),
        ("datatype", said.datatype().map(str::to_owned)),
        ("schema", said.schema().map(str::to_owned)),
        ("file", said.file().map(str::to_owned)),
        ("line", said.line().map(|line| line.to_string())),
        ("where_", said.where_().map(str::to_owned)),
    ];
    Error::QueryFailed(QueryError::DbError(DbError {
        as_text,
        severity: said.severity().to_owned(),
        code: said.code().code().to_owned(),
        message: said.message().to_owned(),
        detail: said.detail().map(str::to_owned),
        extras: extras.into_iter().filter_map(|(name, said)| Some((name.to_owned(), said?))).collect(),
    }))
}
