//! A connection to the file: what is set on it, what a statement does to it, and how one is run.

use super::bindings::sqlite::{Error, RowResult, Value};
use rusqlite::{
    CachedStatement, ErrorCode,
    hooks::{AuthAction, AuthContext, Authorization, Wal},
    types::{FromSql, FromSqlResult, ToSql, ToSqlOutput, ValueRef},
};
use std::{
    cell::Cell,
    collections::BTreeMap,
    ffi::c_int,
    fs::{Metadata, OpenOptions},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Most bytes of a result, as with Spin: a guest's mistake must not fill the host's memory.
const MAX_RESULT_BYTES: usize = 128 * 1024 * 1024;

/// Statements that stay prepared on a connection: more than a component has. SQLite's wrapper keeps 16.
const PREPARED: usize = 128;

/// Pages of the write-ahead log from which on they are moved into the file. SQLite by itself does it from 1000 on; but a
/// page that was written several times is moved once, and each time waits for the disk twice.
const LONG_LOG: c_int = 4000;

/// How long a statement may take where others wait for its thread.
const MAX_AT_ONCE: Duration = Duration::from_millis(5);

/// After how many instructions of SQLite's machine it is asked how long that was.
const INSTRUCTIONS: c_int = 1_000;

/// Functions that tell of the statement before on the same connection, which may be another guest's.
const OF_THE_CONNECTION: [&str; 3] = ["changes", "last_insert_rowid", "total_changes"];

thread_local! {
    /// When the statement was begun that this thread runs inside [`Connection::at_once`].
    static AT_ONCE: Cell<Option<Instant>> = const { Cell::new(None) };
    /// Whether the log was long after the last commit on this thread.
    static LOG_IS_LONG: Cell<bool> = const { Cell::new(false) };
}

/// What a guest has set on its connection, by name. Connections with the same settings are alike.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settings(BTreeMap<String, String>);

impl Settings {
    /// These and one more.
    pub(super) fn with(&self, (name, value): &(String, String)) -> Self {
        let mut settings = self.clone();
        settings.0.insert(name.clone(), value.clone());
        settings
    }
}

/// What a statement does to its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing: it reads or changes what is in the file.
    None,
    /// It sets something that is known to be the connection's and nothing else's.
    Setting((String, String)),
    /// It begins or ends a transaction.
    Transaction,
    /// It makes a difference that only its guest must see: a temporary table, another setting.
    Own,
}

/// What is known of a statement once it was compiled.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) effect: Effect,
    pub(super) writes: bool,
}

/// A file, whatever its name has become.
type FileId = (u64, u64);

pub(super) fn file_id(metadata: &Metadata) -> FileId {
    (metadata.dev(), metadata.ino())
}

#[derive(Debug)]
pub(super) struct Connection {
    sqlite: rusqlite::Connection,
    settings: Settings,
    /// How long it waits for the locks of other processes, as SQLite's default or the guest has it.
    patience: Duration,
    file: Option<FileId>,
    /// What the statement does that is being compiled.
    effect: Arc<Mutex<Effect>>,
}

/// Names of the columns, and the rows.
pub(super) type Rows = (Vec<String>, Vec<RowResult>);

/// Why there are none.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) cause: Cause,
}

/// What a failure is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    Statement,
    /// Another process holds a lock, or it is longer than what may be run at once. Nothing has happened.
    Wait,
    /// The file is damaged, full, gone or not to be written.
    File,
}

impl Connection {
    /// Opens the file with SQLite's own defaults, and these settings.
    pub(super) fn open(path: &Path, settings: &Settings) -> Result<Self, Failure> {
        Self::try_open(path, settings).map_err(Failure::from)
    }

    fn try_open(path: &Path, settings: &Settings) -> rusqlite::Result<Self> {
        // For its owner alone; SQLite gives its log the same rights. One that is there keeps those that it has.
        let _ = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let sqlite = rusqlite::Connection::open(path)?;
        sqlite.set_prepared_statement_cache_capacity(PREPARED);
        let effect = Arc::new(Mutex::new(Effect::None));
        let noted = Arc::clone(&effect);
        sqlite.authorizer(Some(move |context: AuthContext<'_>| authorize(&context, &noted)))?;
        sqlite.wal_hook(Some(committed));
        sqlite.commit_hook(Some(begins_to_commit))?;
        sqlite.progress_handler(INSTRUCTIONS, Some(is_too_long))?;
        for (name, value) in &settings.0 {
            sqlite.pragma_update(None, name, value)?;
        }
        let file = std::fs::metadata(path).ok().as_ref().map(file_id);
        let mut connection =
            Self { sqlite, settings: settings.clone(), patience: Duration::ZERO, file, effect };
        connection.patience = connection.busy_timeout()?;
        Ok(connection)
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether it is to this file.
    pub(super) fn is_to(&self, file: FileId) -> bool {
        self.file == Some(file)
    }

    /// Whether no transaction is open.
    pub(super) fn is_free(&self) -> bool {
        self.sqlite.is_autocommit()
    }

    /// Compiles a statement to know what it does.
    pub(super) fn kind(&self, statement: &str) -> Result<Kind, Failure> {
        *self.effect() = Effect::None;
        // Not from the cache: the effect is noted only while SQLite compiles.
        let prepared = self.sqlite.prepare(statement)?;
        Ok(Kind { effect: self.effect().clone(), writes: !prepared.readonly() })
    }

    /// Runs a statement to its end, and waits for locks as the guest wants it.
    pub(super) fn run(
        &mut self,
        statement: &str,
        parameters: &[Value],
        effect: &Effect,
    ) -> Result<Rows, Failure> {
        AT_ONCE.set(AT_ONCE.get().map(|_| Instant::now()));
        let rows = collect(&mut self.sqlite.prepare_cached(statement)?, parameters)?;
        if let Effect::Setting(setting) = effect {
            self.settings = self.settings.with(setting);
            self.patience = self.busy_timeout()?;
        }
        Ok(rows)
    }

    /// Runs what needs no patience: it waits for no lock, and no statement of it takes a long time.
    pub(super) fn at_once<T>(&mut self, run: impl FnOnce(&mut Self) -> T) -> T {
        let _ = self.sqlite.busy_timeout(Duration::ZERO);
        AT_ONCE.set(Some(Instant::now()));
        let ran = run(self);
        AT_ONCE.set(None);
        let _ = self.sqlite.busy_timeout(self.patience);
        ran
    }

    /// Runs statements that write, and commits all that they have done. On a failure nothing has happened.
    pub(super) fn transaction<T>(
        &mut self,
        run: impl FnOnce(&mut Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.sqlite.prepare_cached("BEGIN IMMEDIATE")?.execute(())?;
        let ran = run(self);
        // What ends it is not broken off.
        AT_ONCE.set(None);
        let done = ran.and_then(|ran| {
            self.sqlite.prepare_cached("COMMIT")?.execute(())?;
            Ok(ran)
        });
        if done.is_err() && !self.is_free() {
            self.sqlite.prepare_cached("ROLLBACK")?.execute(())?;
        }
        done
    }

    /// Moves what is in the write-ahead log into the file, as far as nobody reads what was there before. Waits for the
    /// disk.
    pub(super) fn checkpoint(&self) -> Result<(), Failure> {
        Ok(self.sqlite.query_row("PRAGMA wal_checkpoint(PASSIVE)", (), |_| Ok(()))?)
    }

    fn busy_timeout(&self) -> rusqlite::Result<Duration> {
        let millis: u32 = self.sqlite.pragma_query_value(None, "busy_timeout", |row| row.get(0))?;
        Ok(Duration::from_millis(millis.into()))
    }

    fn effect(&self) -> std::sync::MutexGuard<'_, Effect> {
        self.effect.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asked by SQLite now and then whether to break a statement off.
fn is_too_long() -> bool {
    AT_ONCE.get().is_some_and(|begun| begun.elapsed() > MAX_AT_ONCE)
}

/// Called by SQLite before a commit. It asks whether to break a statement off at the end of the statement, too, when that
/// has been committed already: so from here on nothing is broken off.
fn begins_to_commit() -> bool {
    AT_ONCE.set(None);
    false
}

/// Called by SQLite after a commit to the write-ahead log, in the place of its own checkpoint, which waits for the disk
/// while the next writer waits for it.
fn committed(_: &Wal, pages: c_int) -> rusqlite::Result<()> {
    LOG_IS_LONG.set(pages >= LONG_LOG);
    Ok(())
}

/// Whether the log was too long after the last commit on this thread. Tells it once.
pub(super) fn log_is_long() -> bool {
    LOG_IS_LONG.take()
}

/// Asked by SQLite for each part of a statement that it compiles.
fn authorize(context: &AuthContext<'_>, noted: &Mutex<Effect>) -> Authorization {
    let effect = match context.action {
        AuthAction::Attach { filename } if !matches!(filename, "" | ":memory:") => {
            return Authorization::Deny;
        }
        AuthAction::Function { function_name }
            if context.accessor.is_none()
                && OF_THE_CONNECTION.iter().any(|name| name.eq_ignore_ascii_case(function_name)) =>
        {
            return Authorization::Deny;
        }
        AuthAction::Pragma { pragma_name, pragma_value } => {
            pragma(pragma_name, pragma_value, context.database_name)
        }
        AuthAction::Transaction { .. } | AuthAction::Savepoint { .. } => Effect::Transaction,
        AuthAction::CreateTempIndex { .. }
        | AuthAction::CreateTempTable { .. }
        | AuthAction::CreateTempTrigger { .. }
        | AuthAction::CreateTempView { .. }
        | AuthAction::DropTempIndex { .. }
        | AuthAction::DropTempTable { .. }
        | AuthAction::DropTempTrigger { .. }
        | AuthAction::DropTempView { .. }
        | AuthAction::Attach { .. }
        | AuthAction::Detach { .. }
        | AuthAction::Unknown { .. } => Effect::Own,
        _ => Effect::None,
    };
    if effect != Effect::None {
        *noted.lock().unwrap_or_else(PoisonError::into_inner) = effect;
    }
    Authorization::Allow
}

fn pragma(name: &str, value: Option<&str>, database: Option<&str>) -> Effect {
    let name = name.to_ascii_lowercase();
    match (name.as_str(), value) {
        ("busy_timeout" | "synchronous", Some(value)) if database.is_none() => {
            Effect::Setting((name, value.to_ascii_lowercase()))
        }
        // Of the file, and so of all its connections.
        ("user_version", _) | ("journal_mode" | "synchronous", None) => Effect::None,
        ("journal_mode", Some(mode)) if mode.eq_ignore_ascii_case("wal") => Effect::None,
        _ => Effect::Own,
    }
}

fn collect(statement: &mut CachedStatement<'_>, parameters: &[Value]) -> Result<Rows, Failure> {
    let columns: Vec<_> = statement.column_names().into_iter().map(str::to_owned).collect();
    let mut rows = statement.query(rusqlite::params_from_iter(parameters))?;
    let mut collected = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let values =
            (0..columns.len()).map(|column| row.get(column)).collect::<rusqlite::Result<Vec<Value>>>()?;
        bytes += values.iter().map(size).sum::<usize>();
        if bytes > MAX_RESULT_BYTES {
            let error = Error::Io(format!("query result exceeds limit of {MAX_RESULT_BYTES} bytes"));
            return Err(Failure { error, cause: Cause::Statement });
        }
        collected.push(RowResult { values });
    }
    Ok((columns, collected))
}

fn size(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::Text(text) => text.len(),
            Value::Blob(bytes) => bytes.len(),
            Value::Integer(_) | Value::Real(_) | Value::Null => 0,
        }
}

/// Whether a statement failed because of the file: its connection must not be used again.
pub(super) fn is_file_failure(outcome: &Result<Rows, Failure>) -> bool {
    matches!(outcome, Err(Failure { cause: Cause::File, .. }))
}

impl Failure {
    /// One that SQLite has no part in.
    pub(super) fn of_the_host(reason: &str) -> Self {
        Self { error: Error::Io(reason.to_owned()), cause: Cause::Statement }
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        let code = error.sqlite_error_code();
        let cause = match code {
            Some(ErrorCode::DatabaseBusy | ErrorCode::OperationInterrupted) => Cause::Wait,
            Some(
                ErrorCode::CannotOpen
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::DiskFull
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::NotADatabase
                | ErrorCode::PermissionDenied
                | ErrorCode::ReadOnly
                | ErrorCode::SystemIoFailure,
            ) => Cause::File,
            _ => Cause::Statement,
        };
        let error = match code {
            Some(ErrorCode::DiskFull) => Error::DatabaseFull,
            _ => Error::Io(error.to_string()),
        };
        Self { error, cause }
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

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::hooks::Action;
    use std::thread::sleep;

    #[test]
    fn what_was_committed_is_not_broken_off() {
        let folder = tempfile::tempdir().unwrap();
        let mut connection = Connection::open(&folder.path().join("file"), &Settings::default()).unwrap();
        // So it is asked at every point at which SQLite asks at all.
        connection.sqlite.progress_handler(1, Some(is_too_long)).unwrap();
        let run = |connection: &mut Connection, text: &str| connection.run(text, &[], &Effect::None);
        run(&mut connection, "PRAGMA journal_mode = wal").unwrap();
        run(&mut connection, "CREATE TABLE notes (note)").unwrap();
        let count = |connection: &Connection| -> i64 {
            connection.sqlite.query_row("SELECT count(*) FROM notes", (), |row| row.get(0)).unwrap()
        };
        // All of it takes too long when nothing but the commit is left.
        connection
            .sqlite
            .update_hook(Some(|_: Action, _: &str, _: &str, _: i64| sleep(2 * MAX_AT_ONCE)))
            .unwrap();
        let insert = "INSERT INTO notes VALUES (1)";
        let alone = connection.at_once(|connection| run(connection, insert));
        assert!(alone.is_ok(), "{alone:?}");
        assert_eq!(count(&connection), 1);
        connection.sqlite.update_hook(None::<fn(Action, &str, &str, i64)>).unwrap();
        let together = connection.at_once(|connection| {
            connection.transaction(|connection| {
                let done = run(connection, insert);
                sleep(2 * MAX_AT_ONCE);
                done
            })
        });
        assert!(together.is_ok(), "{together:?}");
        assert_eq!(count(&connection), 2);
        // What is broken off has not happened.
        let long = "INSERT INTO notes WITH RECURSIVE counted (n) AS (
                      SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < 10000000
                    ) SELECT count(*) FROM counted";
        let alone = connection.at_once(|connection| run(connection, long));
        assert!(matches!(alone, Err(Failure { cause: Cause::Wait, .. })), "{alone:?}");
        let together =
            connection.at_once(|connection| connection.transaction(|connection| run(connection, long)));
        assert!(matches!(together, Err(Failure { cause: Cause::Wait, .. })), "{together:?}");
        assert!(connection.is_free());
        assert_eq!(count(&connection), 2);
    }
}
