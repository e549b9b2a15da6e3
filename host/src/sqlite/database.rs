//! The file, the connections to it that are free, and what is known of statements.

use super::{
    connection::{Connection, Failure, Kind, Rows, Settings, file_id, is_file_failure, log_is_long},
    queue::Queue,
    statement::Known,
};
use anyhow::{Context as _, Result};
use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::{Mutex as Fair, OwnedMutexGuard};

/// Most connections that are kept while they are free, beside that of the writers.
const MAX_FREE: usize = 8;

/// Most statements that are known: more are only made by a guest that writes its parameters into them.
const MAX_KNOWN: usize = 256;

/// The right to write, until it is dropped.
pub(super) type Turn = OwnedMutexGuard<()>;

/// The default database.
#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    /// Fair: the writer that waits longest writes next.
    turn: Arc<Fair<()>>,
    pool: Mutex<Pool>,
    queue: Queue,
    known: Mutex<Vec<Arc<Known>>>,
    /// Whether the log is being moved into the file.
    moving: AtomicBool,
    /// The file, for [`flush`](Self::flush). It stays open: to close it would end the locks that SQLite's connections hold
    /// on it, as POSIX has it.
    flushed: Mutex<Option<File>>,
}

#[derive(Debug, Default)]
struct Pool {
    /// The one that writers use in turn. While nobody writes on another one, the pages that it remembers are those of the
    /// file.
    writer: Option<Connection>,
    /// The one used last comes last: its cache is the newest.
    free: Vec<Connection>,
    /// How many sessions there are. When the last one ends, all connections are closed, as with Spin.
    sessions: usize,
}

impl Database {
    /// The database of a state folder, which is made if it is missing.
    pub(crate) fn in_folder(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| {
            format!("cannot make the state folder {}; name another with --state-dir", folder.display())
        })?;
        Ok(Self {
            path: folder.join("sqlite_db.db"),
            turn: Arc::default(),
            pool: Mutex::default(),
            queue: Queue::default(),
            known: Mutex::default(),
            moving: AtomicBool::new(false),
            flushed: Mutex::default(),
        })
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A session begins. It sees the file that is there now, and no other one that had its name before.
    pub(super) fn begin_session(&self) {
        let file = std::fs::metadata(&self.path).ok().as_ref().map(file_id);
        let mut pool = self.pool();
        pool.sessions += 1;
        let is_current = |connection: &Connection| file.is_some_and(|file| connection.is_to(file));
        let (free, mut outdated): (_, Vec<_>) = pool.free.drain(..).partition(is_current);
        pool.free = free;
        outdated.extend(pool.writer.take_if(|writer| !is_current(writer)));
        drop(pool);
        close(outdated);
    }

    /// A session ends.
    pub(super) fn end_session(&self) {
        let mut pool = self.pool();
        pool.sessions -= 1;
        let unused = if pool.sessions == 0 { pool.take_all() } else { Vec::new() };
        drop(pool);
        close(unused);
    }

    /// A free connection with these settings, if there is one.
    pub(super) fn free(&self, settings: &Settings) -> Option<Connection> {
        let mut pool = self.pool();
        let index = pool.free.iter().rposition(|connection| connection.settings() == settings)?;
        Some(pool.free.remove(index))
    }

    /// A free connection with these settings, or a new one. Opening may block.
    pub(super) fn connect(&self, settings: &Settings) -> Result<Connection, Failure> {
        self.free(settings).map_or_else(|| Connection::open(&self.path, settings), Ok)
    }

    /// The connection for the next writer with these settings, if there is one. It has its [`turn`](Self::turn).
    pub(super) fn writer(&self, settings: &Settings) -> Option<Connection> {
        let writer = self.pool().writer.take_if(|writer| writer.settings() == settings);
        writer.or_else(|| self.free(settings))
    }

    /// A writer is done with its connection, unless the file was the matter.
    pub(super) fn release_writer(
        self: &Arc<Self>,
        connection: Connection,
        outcomes: &[Result<Rows, Failure>],
    ) {
        self.look_at_the_log();
        if outcomes.iter().any(is_file_failure) {
            return self.discard(connection);
        }
        let mut pool = self.pool();
        if pool.sessions > 0 && pool.writer.is_none() && connection.is_free() {
            pool.writer = Some(connection);
        } else {
            drop(pool);
            self.release(connection);
        }
    }

    /// A connection is no longer used.
    pub(super) fn release(self: &Arc<Self>, connection: Connection) {
        self.look_at_the_log();
        let mut pool = self.pool();
        // With a transaction open it is closed, and SQLite rolls back.
        if pool.sessions > 0 && pool.free.len() < MAX_FREE && connection.is_free() {
            pool.free.push(connection);
        } else {
            drop(pool);
            drop(connection);
        }
    }

    /// Something is wrong with the file: what comes next begins with new connections.
    pub(super) fn discard(&self, connection: Connection) {
        let mut discarded = self.pool().take_all();
        discarded.push(connection);
        close(discarded);
    }

    /// The statements that wait for their commit.
    pub(super) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Has the log moved into the file if it is too long after what was committed on this thread.
    fn look_at_the_log(self: &Arc<Self>) {
        if log_is_long()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
            && !self.moving.swap(true, Ordering::Relaxed)
        {
            let database = Arc::clone(self);
            runtime.spawn(async move {
                // The first pass moves most of the log, and flushes the file, while others write. The second one moves what
                // they have written since, with the turn to write: a log is begun anew only when all of it is in the
                // file. SQLite flushes the file only then; thousands of pages would hold up writers for 10 ms and more.
                database.move_log(None).await;
                let turn = database.turn().await;
                database.move_log(Some(turn)).await;
                database.moving.store(false, Ordering::Relaxed);
            });
        }
    }

    async fn move_log(self: &Arc<Self>, turn: Option<Turn>) {
        let database = Arc::clone(self);
        let moved = tokio::task::spawn_blocking(move || {
            let connection = database.connect(&Settings::default())?;
            let moved = connection.checkpoint();
            database.release(connection);
            if turn.is_none()
                && let Err(error) = database.flush()
            {
                tracing::debug!("the file is not flushed ahead: {error}");
            }
            drop(turn);
            moved
        });
        // It is tried again after the next commit.
        if let Ok(Err(failure)) = moved.await {
            tracing::debug!("the write-ahead log stays as it is: {:?}", failure.error);
        }
    }

    /// Waits until what was moved into the file is on the disk. SQLite does so itself before it relies on it.
    fn flush(&self) -> io::Result<()> {
        let mut flushed = self.flushed.lock().unwrap_or_else(PoisonError::into_inner);
        let current = file_id(&std::fs::metadata(&self.path)?);
        let file = match flushed.take() {
            Some(file) if file_id(&file.metadata()?) == current => file,
            _ => File::open(&self.path)?,
        };
        flushed.insert(file).sync_data()
    }

    /// The right to write, in turn.
    pub(super) async fn turn(&self) -> Turn {
        Arc::clone(&self.turn).lock_owned().await
    }

    /// The right to write, unless another one has it.
    pub(super) fn try_turn(&self) -> Option<Turn> {
        Arc::clone(&self.turn).try_lock_owned().ok()
    }

    /// What is known of a statement.
    pub(super) fn known(&self, statement: &str) -> Option<Arc<Known>> {
        // There are a few dozen, of different lengths: that is quicker than to hash a few thousand bytes.
        let known = self.statements();
        known.iter().find(|known| &*known.text == statement).cloned()
    }

    /// Notes what a statement does.
    pub(super) fn learn(&self, statement: &str, kind: Kind) -> Arc<Known> {
        let learnt = Arc::new(Known::new(statement, kind));
        let mut known = self.statements();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.push(Arc::clone(&learnt));
        learnt
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn statements(&self) -> MutexGuard<'_, Vec<Arc<Known>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    fn take_all(&mut self) -> Vec<Connection> {
        let mut all = std::mem::take(&mut self.free);
        all.extend(self.writer.take());
        all
    }
}

/// Closes connections where that may block: the last one moves the write-ahead log into the file.
fn close(connections: Vec<Connection>) {
    if connections.is_empty() {
        return;
    }
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(move || drop(connections))),
        Err(_) => drop(connections),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flushed(database: &Database) -> Option<(std::os::fd::RawFd, (u64, u64))> {
        use std::os::fd::AsRawFd;
        let flushed = database.flushed.lock().unwrap();
        flushed.as_ref().map(|file| (file.as_raw_fd(), file_id(&file.metadata().unwrap())))
    }

    #[test]
    fn the_file_that_is_flushed_stays_open_until_another_one_has_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::in_folder(folder.path()).unwrap();
        assert!(database.flush().is_err(), "there is no file yet");
        std::fs::write(database.path(), "one").unwrap();
        database.flush().unwrap();
        let first = flushed(&database);
        database.flush().unwrap();
        assert_eq!(flushed(&database), first);
        std::fs::write(folder.path().join("other"), "two").unwrap();
        std::fs::rename(folder.path().join("other"), database.path()).unwrap();
        database.flush().unwrap();
        let current = file_id(&std::fs::metadata(database.path()).unwrap());
        assert_eq!(flushed(&database).unwrap().1, current);
        assert_ne!(first.unwrap().1, current);
    }

    #[tokio::test]
    async fn a_long_log_is_flushed_before_the_writers_have_to_wait_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let database = Arc::new(Database::in_folder(folder.path()).unwrap());
        let connection = database.connect(&Settings::default()).unwrap();
        connection.checkpoint().unwrap();
        // While somebody writes, the log is moved and flushed as far as that goes without him.
        let turn = database.turn().await;
        database.move_log(None).await;
        assert!(flushed(&database).is_some());
        drop(turn);
    }
}
