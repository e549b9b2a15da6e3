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
    time::Duration,
};
use tokio::runtime::Handle;
use tokio_postgres::{RowStream, Statement, error::SqlState, types::ToSql};

/// Most statements that are kept prepared on a connection: more are only made by a guest that writes its
/// parameters into them.
const STATEMENTS: usize = 256;

/// How long clearing a session may take.
const CLEAR_TIMEOUT: Duration = Duration::from_secs(5);

/// Undoes what a guest may have left behind, except for prepared statements.
const CLEAR: &str = "ROLLBACK; CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; \
                     SELECT pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES";

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
    /// A statement may have changed more than data.
    changed: bool,
}

impl Past {
    fn executes(&mut self, statement: &str) {
        self.executed = true;
        self.changed |= !changes_only_data(statement);
    }
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

    /// Prepares a statement, or takes it from those that are, and runs it until its first row can come.
    pub(super) async fn query(self: &Arc<Self>, text: &str, parameters: &[Parameter]) -> Result<Rows, Error> {
        let mut running = Running::new(self)?;
        match self.start(&mut running.client, text, parameters).await {
            Ok((statement, rows)) => Ok(Rows { rows: Box::pin(rows), statement, running }),
            Err(error) => {
                running.ended();
                Err(error)
            }
        }
    }

    /// Runs a statement to its end, and tells how many rows it has changed.
    pub(super) async fn execute(
        self: &Arc<Self>,
        text: &str,
        parameters: &[Parameter],
    ) -> Result<u64, Error> {
        let mut running = self.query(text, parameters).await?;
        while let Some(row) = std::future::poll_fn(|context| running.poll_unread(context)).await {
            row?;
        }
        Ok(running.rows.rows_affected().unwrap_or_default())
    }

    async fn start(
        &self,
        client: &mut Arc<Client>,
        text: &str,
        parameters: &[Parameter],
    ) -> Result<(Statement, RowStream), Error> {
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
        let statement = statement.map_err(|error| query_failed(&error))?;
        self.past().executes(text);
        match execute(client, &statement, parameters).await {
            Ok(rows) => Ok((statement, rows)),
            Err(error) if is_outdated(&error) => {
                // A table has another shape since, or a guest has deallocated it: it was not executed.
                client.statement_cache.remove(text, &[]);
                let Ok(statement) = prepare(client, text).await else {
                    return Err(query_failed(&error));
                };
                let rows = execute(client, &statement, parameters).await;
                rows.map(|rows| (statement, rows)).map_err(|error| query_failed(&error))
            }
            Err(error) => Err(query_failed(&error)),
        }
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
        let past = self.past();
        let (abandoned, changed) = (past.abandoned.is_some(), past.changed);
        drop(past);
        if client.is_closed() {
            drop(Client::take(client));
        } else if !abandoned && !changed {
            drop(client);
        } else if let Ok(runtime) = Handle::try_current() {
            let server = Arc::clone(&self.server);
            // It keeps its place in the pool meanwhile: the server shall not have more of them than that.
            runtime.spawn(async move {
                if abandoned {
                    server.cancel(client.cancel_token()).await;
                } else if let Ok(Ok(_)) =
                    tokio::time::timeout(CLEAR_TIMEOUT, client.simple_query(CLEAR)).await
                {
                    return;
                }
                drop(Client::take(client));
            });
        } else {
            drop(Client::take(client));
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

/// Whether the server will not execute a statement as it was prepared.
fn is_outdated(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|error| match *error.code() {
        SqlState::INVALID_SQL_STATEMENT_NAME => true,
        // "cached plan must not change result type"
        SqlState::FEATURE_NOT_SUPPORTED => error.routine() == Some("RevalidateCachedQuery"),
        _ => false,
    })
}

/// Whether a statement leaves nothing behind in its session, as most do. What a function does in one that
/// looks harmless is seen by its name only.
pub(super) fn changes_only_data(statement: &str) -> bool {
    let mut rest = statement;
    loop {
        rest = rest.trim_start_matches(|letter: char| letter.is_whitespace() || letter == '(');
        let Some(comment) = rest.strip_prefix("--") else {
            break;
        };
        rest = comment.split_once('\n').map_or("", |(_, rest)| rest);
    }
    let is_one_of = |word: &str, others: &[&str]| others.iter().any(|other| word.eq_ignore_ascii_case(other));
    let starts_with = |word: &str, start: &str| {
        word.get(..start.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(start))
    };
    let mut words = rest.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
    let verbs = ["select", "insert", "update", "delete", "with", "merge", "values"];
    words.next().is_some_and(|verb| is_one_of(verb, &verbs))
        && !words.any(|word| {
            is_one_of(word, &["set_config", "temp", "temporary", "pg_temp"])
                || starts_with(word, "pg_advisory_")
                || starts_with(word, "pg_try_advisory_")
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
    statement: Statement,
    running: Running,
}

impl fmt::Debug for Rows {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Rows").field("running", &self.running).finish_non_exhaustive()
    }
}

impl Rows {
    /// Their columns, known even if there is no row.
    pub(super) fn columns(&self) -> Vec<Column> {
        values::columns(self.statement.columns())
    }

    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Row, Error>>> {
        let row = std::task::ready!(self.poll_unread(context));
        let read = |row| values::row(&row).map_err(|error| failed(format!("{error:?}")));
        Poll::Ready(row.map(|row| row.and_then(read)))
    }

    fn poll_unread(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<tokio_postgres::Row, Error>>> {
        let row = std::task::ready!(self.rows.as_mut().poll_next(context));
        if !matches!(row, Some(Ok(_))) {
            self.running.ended();
        }
        Poll::Ready(row.map(|row| row.map_err(|error| query_failed(&error))))
    }

    pub(super) async fn next(&mut self) -> Option<Result<Row, Error>> {
        std::future::poll_fn(|context| self.poll_next(context)).await
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
