//! SQLite: `spin:sqlite` over a file, and where the file is.
//!
//! As with Spin, each `open` is a connection of its own to `<state folder>/sqlite_db.db`, opened by its
//! first statement with SQLite's own defaults; statements are prepared once, run on a thread that may
//! block, and cannot attach other files.
//!
//! Unlike Spin, writers of this host take turns instead of meeting in SQLite's busy handler, which
//! sleeps and retries and so lets the unlucky wait a hundred times longer than the lucky. A connection
//! inside `BEGIN … COMMIT` keeps its turn until the end. Processes beside this one are waited for by
//! SQLite's own means.

use crate::{manifest::DEFAULT_DATABASE, telemetry::Requests};
use anyhow::{Context as _, Result};
use bindings::sqlite::{Error, Host, HostConnection, HostConnectionWithStore, RowResult, Value};
use rusqlite::{
    hooks::{AuthAction, AuthContext, Authorization},
    types::{FromSql, FromSqlResult, ToSql, ToSqlOutput, ValueRef},
};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::{Mutex as Turn, OwnedMutexGuard, oneshot};
use wasmtime::{
    AsContextMut,
    component::{Accessor, FutureReader, HasData, Linker, Resource, ResourceTable, StreamReader},
};

mod bindings {
    //! What `wit/` says, as Rust traits.
    #![allow(clippy::all, clippy::pedantic, reason = "generated")]

    wasmtime::component::bindgen!({
        path: "../wit",
        world: "uses-sqlite",
        with: { "spin:sqlite/sqlite.connection": super::Connection },
        require_store_data_send: true,
    });

    pub(crate) use spin::sqlite::sqlite;
}

/// Most bytes of a result, as with Spin: a guest's mistake shall not fill the host's memory.
const MAX_RESULT_BYTES: usize = 128 * 1024 * 1024;

/// The default database.
#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    /// Fair: whoever waits longest writes next.
    turn: Arc<Turn<()>>,
}

impl Database {
    /// The database of a state folder, which is made if it is missing.
    pub(crate) fn in_folder(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| {
            format!("cannot make the state folder {}; name another with --state-dir", folder.display())
        })?;
        Ok(Self { path: folder.join("sqlite_db.db"), turn: Arc::default() })
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn connect(&self) -> Connection {
        Connection(Arc::new(Shared {
            path: self.path.clone(),
            turn: Arc::clone(&self.turn),
            open: Mutex::new(None),
        }))
    }
}

/// A guest's connection. Cheap to clone; the last one closes it.
#[expect(unreachable_pub, reason = "the generated bindings export it again")]
#[derive(Debug, Clone)]
pub struct Connection(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    turn: Arc<Turn<()>>,
    open: Mutex<Option<Open>>,
}

/// Fields drop in this order: SQLite rolls back before somebody else has the turn.
#[derive(Debug)]
struct Open {
    sqlite: rusqlite::Connection,
    /// Held from a transaction's first writing statement to its end.
    transaction: Option<OwnedMutexGuard<()>>,
}

/// Names of the columns, and the rows or what became of them.
type Outcome = (Vec<String>, Result<Vec<RowResult>, Error>);

/// What became of an attempt to run a statement.
enum Run {
    Done(Outcome),
    /// It writes, and somebody else does now. Nothing has happened.
    NotItsTurn,
}

impl Connection {
    /// Runs a statement to its end on a thread that may block.
    async fn execute(&self, statement: String, parameters: Vec<Value>) -> Outcome {
        let call = Arc::new((statement, parameters));
        let mut turn = None;
        loop {
            let (shared, call, held) = (Arc::clone(&self.0), Arc::clone(&call), turn.take());
            let (sender, receiver) = oneshot::channel();
            tokio::task::spawn_blocking(move || {
                let ran = shared.run(&call.0, &call.1, held, || sender.is_closed());
                // A guest that has given up since hears nothing more; what it asked for has happened.
                let _ = sender.send(ran);
            });
            match receiver.await {
                Ok(Run::Done(outcome)) => return outcome,
                // Behind a writer that hangs, those who wait would hold all the threads there are, and keep them when
                // nobody waits for them any more. So they wait here.
                Ok(Run::NotItsTurn) => turn = Some(Arc::clone(&self.0.turn).lock_owned().await),
                Err(_) => return (Vec::new(), Err(Error::Io("the statement panicked".to_owned()))),
            }
        }
    }
}

impl Shared {
    fn run(
        &self,
        statement: &str,
        parameters: &[Value],
        turn: Option<OwnedMutexGuard<()>>,
        abandoned: impl Fn() -> bool,
    ) -> Run {
        let mut columns = Vec::new();
        match self.try_run(statement, parameters, turn, &mut columns, abandoned) {
            Ok(Some(rows)) => Run::Done((columns, Ok(rows))),
            Ok(None) => Run::NotItsTurn,
            Err(error) => Run::Done((columns, Err(error))),
        }
    }

    /// The rows; `None` where it has to wait for its turn.
    fn try_run(
        &self,
        statement: &str,
        parameters: &[Value],
        mut turn: Option<OwnedMutexGuard<()>>,
        columns: &mut Vec<String>,
        abandoned: impl Fn() -> bool,
    ) -> Result<Option<Vec<RowResult>>, Error> {
        // A statement that panicked leaves nothing half done that SQLite would not roll back.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let open = match &mut *open {
            Some(open) => open,
            none => none.insert(Open { sqlite: connect(&self.path).map_err(io)?, transaction: None }),
        };
        let rows = {
            let mut prepared = open.sqlite.prepare_cached(statement).map_err(io)?;
            if !prepared.readonly() && open.transaction.is_none() && turn.is_none() {
                match Arc::clone(&self.turn).try_lock_owned() {
                    Ok(free) => turn = Some(free),
                    Err(_) => return Ok(None),
                }
            }
            columns.extend(prepared.column_names().into_iter().map(str::to_owned));
            // Behind a connection that hangs, what nobody waits for any more would only lengthen the queue.
            if abandoned() {
                return Err(Error::Io("nobody waits for this statement any more".to_owned()));
            }
            collect(&mut prepared, parameters)
        };
        if open.sqlite.is_autocommit() {
            open.transaction = None;
        } else if turn.is_some() {
            open.transaction = turn;
        }
        rows.map(Some)
    }
}

fn connect(path: &Path) -> rusqlite::Result<rusqlite::Connection> {
    let connection = rusqlite::Connection::open(path)?;
    connection.authorizer(Some(|context: AuthContext<'_>| match context.action {
        AuthAction::Attach { filename } if !matches!(filename, "" | ":memory:") => Authorization::Deny,
        _ => Authorization::Allow,
    }))?;
    Ok(connection)
}

fn collect(
    statement: &mut rusqlite::CachedStatement<'_>,
    parameters: &[Value],
) -> Result<Vec<RowResult>, Error> {
    let width = statement.column_count();
    let mut rows = statement.query(rusqlite::params_from_iter(parameters)).map_err(io)?;
    let mut collected = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.next().map_err(io)? {
        let values =
            (0..width).map(|column| row.get(column)).collect::<rusqlite::Result<Vec<Value>>>().map_err(io)?;
        bytes += values.iter().map(size).sum::<usize>();
        if bytes > MAX_RESULT_BYTES {
            return Err(Error::Io(format!("query result exceeds limit of {MAX_RESULT_BYTES} bytes")));
        }
        collected.push(RowResult { values });
    }
    Ok(collected)
}

fn size(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::Text(text) => text.len(),
            Value::Blob(bytes) => bytes.len(),
            Value::Integer(_) | Value::Real(_) | Value::Null => 0,
        }
}

fn io(error: rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => Error::DatabaseFull,
        _ => Error::Io(error.to_string()),
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Integer(integer) => ValueRef::Integer(*integer),
            Self::Real(real) => ValueRef::Real(*real),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
            Self::Null => ValueRef::Null,
        }))
    }
}

impl FromSql for Value {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Ok(match value {
            ValueRef::Integer(integer) => Self::Integer(integer),
            ValueRef::Real(real) => Self::Real(real),
            ValueRef::Text(text) => Self::Text(String::from_utf8_lossy(text).into_owned()),
            ValueRef::Blob(bytes) => Self::Blob(bytes.to_vec()),
            ValueRef::Null => Self::Null,
        })
    }
}

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

    fn open(&mut self, label: &str) -> Result<Resource<Connection>, Error> {
        // Which labels there are besides is nobody's business.
        let database = self.database.as_ref().filter(|_| label == DEFAULT_DATABASE);
        let connection = database.ok_or(Error::AccessDenied)?.connect();
        self.table.push(connection).map_err(|error| Error::Io(error.to_string()))
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
    fn drop(&mut self, connection: Resource<Connection>) -> wasmtime::Result<()> {
        self.table.delete(connection)?;
        Ok(())
    }
}

impl<T: Send + 'static> HostConnectionWithStore<T> for SqliteData {
    async fn open_async(
        accessor: &Accessor<T, Self>,
        database: String,
    ) -> Result<Resource<Connection>, Error> {
        accessor.with(|mut access| access.get().open(&database))
    }

    async fn execute_async(
        accessor: &Accessor<T, Self>,
        connection: Resource<Connection>,
        statement: String,
        parameters: Vec<Value>,
    ) -> Result<(Vec<String>, StreamReader<RowResult>, FutureReader<Result<(), Error>>), Error> {
        let (connection, mut span) = accessor.with(|mut access| {
            let sqlite = access.get();
            let (connection, requests) = (sqlite.table.get(&connection).cloned(), sqlite.requests.clone());
            (connection, requests.database(access.as_context_mut(), "sqlite", &statement))
        });
        let connection = connection.map_err(|_| Error::InvalidConnection)?;
        let (columns, rows) = connection.execute(statement, parameters).await;
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
mod tests {
    use super::*;
    use std::time::Duration;

    struct Folder {
        database: Database,
        _folder: tempfile::TempDir,
    }

    fn folder() -> Folder {
        let folder = tempfile::tempdir().unwrap();
        Folder { database: Database::in_folder(&folder.path().join("state")).unwrap(), _folder: folder }
    }

    async fn run(connection: &Connection, statement: &str) -> Result<Vec<Vec<Value>>, Error> {
        let (_, rows) = connection.execute(statement.to_owned(), Vec::new()).await;
        rows.map(|rows| rows.into_iter().map(|row| row.values).collect())
    }

    fn integer(rows: &[Vec<Value>]) -> i64 {
        match rows {
            [row] => match row[..] {
                [Value::Integer(integer)] => integer,
                _ => panic!("{row:?}"),
            },
            _ => panic!("{rows:?}"),
        }
    }

    #[tokio::test]
    async fn values_of_every_type_come_back_as_they_went_in() {
        let folder = folder();
        let connection = folder.database.connect();
        let values = vec![
            Value::Integer(i64::MIN),
            Value::Real(0.5),
            Value::Text("grüße\0 '\"".to_owned()),
            Value::Blob(vec![0, 255]),
            Value::Null,
        ];
        let statement = "SELECT ?1 AS a, ?2 AS b, ?3 AS c, ?4 AS d, ?5 AS e".to_owned();
        let (columns, rows) = connection.execute(statement, values.clone()).await;
        assert_eq!(columns, ["a", "b", "c", "d", "e"]);
        assert_eq!(format!("{:?}", rows.unwrap()[0].values), format!("{values:?}"));
    }

    #[tokio::test]
    async fn the_file_is_where_spin_keeps_it_and_outlives_its_connections() {
        let folder = folder();
        assert!(folder.database.path().ends_with("state/sqlite_db.db"));
        let first = folder.database.connect();
        run(&first, "CREATE TABLE t (x)").await.unwrap();
        run(&first, "INSERT INTO t VALUES (7)").await.unwrap();
        drop(first);
        assert_eq!(integer(&run(&folder.database.connect(), "SELECT x FROM t").await.unwrap()), 7);
    }

    #[tokio::test]
    async fn an_error_is_told_and_the_connection_lives_on() {
        let folder = folder();
        let connection = folder.database.connect();
        for (statement, said) in [
            ("SELEC 1", "syntax error"),
            ("SELECT * FROM nowhere", "no such table"),
            ("ATTACH 'other.db' AS other", "not authorized"),
        ] {
            match run(&connection, statement).await {
                Err(Error::Io(reason)) => assert!(reason.contains(said), "{reason}"),
                other => panic!("{statement}: {other:?}"),
            }
        }
        assert_eq!(integer(&run(&connection, "SELECT 1").await.unwrap()), 1);
    }

    #[tokio::test]
    async fn each_open_is_a_connection_of_its_own() {
        let folder = folder();
        let (one, two) = (folder.database.connect(), folder.database.connect());
        run(&one, "CREATE TEMP TABLE mine (x)").await.unwrap();
        assert!(run(&two, "SELECT * FROM mine").await.is_err());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_writers_at_once_all_get_their_turn() {
        let folder = folder();
        let first = folder.database.connect();
        run(&first, "PRAGMA journal_mode = WAL").await.unwrap();
        run(&first, "CREATE TABLE t (x)").await.unwrap();
        let writers = (0..32).map(|_| {
            let connection = folder.database.connect();
            tokio::spawn(async move {
                // Refuse rather than wait: without turns this would fail at once.
                run(&connection, "PRAGMA busy_timeout = 0").await.unwrap();
                for _ in 0..20 {
                    run(&connection, "INSERT INTO t VALUES (1)").await.unwrap();
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
        assert_eq!(integer(&run(&first, "SELECT count(*) FROM t").await.unwrap()), 640);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_transaction_keeps_its_turn_until_it_ends_or_its_connection_does() {
        let folder = folder();
        let (one, two) = (folder.database.connect(), folder.database.connect());
        for connection in [&one, &two] {
            run(connection, "PRAGMA busy_timeout = 0").await.unwrap();
        }
        run(&one, "CREATE TABLE t (x)").await.unwrap();
        run(&one, "BEGIN IMMEDIATE").await.unwrap();
        run(&one, "INSERT INTO t VALUES (1)").await.unwrap();

        let waiting = tokio::spawn({
            let two = two.clone();
            async move { run(&two, "INSERT INTO t VALUES (2)").await }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!waiting.is_finished());
        run(&one, "COMMIT").await.unwrap();
        waiting.await.unwrap().unwrap();

        run(&one, "BEGIN IMMEDIATE").await.unwrap();
        run(&one, "INSERT INTO t VALUES (3)").await.unwrap();
        drop(one);
        run(&two, "INSERT INTO t VALUES (4)").await.unwrap();
        assert_eq!(integer(&run(&two, "SELECT sum(x) FROM t").await.unwrap()), 7, "3 was rolled back");
    }

    #[test]
    fn only_what_the_manifest_grants_can_be_opened() {
        let folder = folder();
        let mut granted = Sqlite::new(Some(Arc::new(folder.database)), Requests::default());
        assert!(granted.open("default").is_ok());
        assert!(matches!(granted.open("other"), Err(Error::AccessDenied)));
        let mut denied = Sqlite::new(None, Requests::default());
        assert!(matches!(denied.open("default"), Err(Error::AccessDenied)));
    }
}
