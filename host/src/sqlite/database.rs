//! The file, the connections to it that are free, and what is known of statements.

use super::connection::{Connection, Effect, Failure, Kind, Settings, file_id};
use anyhow::{Context as _, Result};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Mutex as Fair, OwnedMutexGuard};

/// Most connections that are kept while they are free. One is used at a time by writers, and a few by readers.
const MAX_FREE: usize = 8;

/// Most statements that are known: more are only made by a guest that writes its parameters into them.
const MAX_KNOWN: usize = 256;

/// A statement that takes longer is not run on a thread that has other requests to serve.
const QUICK: Duration = Duration::from_millis(5);

/// The right to write, until it is dropped.
pub(super) type Turn = OwnedMutexGuard<()>;

/// The default database.
#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    /// Fair: the writer that waits longest writes next.
    turn: Arc<Fair<()>>,
    pool: Mutex<Pool>,
    known: Mutex<Vec<Arc<Known>>>,
}

#[derive(Debug, Default)]
struct Pool {
    /// The one used last comes last: its cache is the newest.
    free: Vec<Connection>,
    /// How many sessions there are. When the last one ends, all connections are closed, as with Spin.
    sessions: usize,
}

/// A statement that was run before.
#[derive(Debug)]
pub(super) struct Known {
    statement: Box<str>,
    pub(super) kind: Kind,
    quick: AtomicBool,
}

impl Known {
    /// Whether it only needs the file, and no connection of its own.
    pub(super) fn is_shared(&self) -> bool {
        self.kind.effect == Effect::None
    }

    /// Whether it can be expected to take no time.
    pub(super) fn is_quick(&self) -> bool {
        self.quick.load(Ordering::Relaxed)
    }

    /// It has taken this time, and the next one may have to move the log into the file.
    pub(super) fn took(&self, time: Duration, log_is_long: bool) {
        self.quick.store(time < QUICK && !log_is_long, Ordering::Relaxed);
    }
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
            known: Mutex::default(),
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
        let (free, outdated) =
            pool.free.drain(..).partition(|connection| file.is_some_and(|file| connection.is_to(file)));
        pool.free = free;
        drop(pool);
        close(outdated);
    }

    /// A session ends.
    pub(super) fn end_session(&self) {
        let mut pool = self.pool();
        pool.sessions -= 1;
        let unused = if pool.sessions == 0 { std::mem::take(&mut pool.free) } else { Vec::new() };
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

    /// A connection is no longer used.
    pub(super) fn release(&self, connection: Connection) {
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
        let mut discarded = std::mem::take(&mut self.pool().free);
        discarded.push(connection);
        close(discarded);
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
        known.iter().find(|known| &*known.statement == statement).cloned()
    }

    /// Notes what a statement does.
    pub(super) fn learn(&self, statement: &str, kind: Kind) -> Arc<Known> {
        // It is quick when it has shown that it is.
        let learnt = Arc::new(Known { statement: statement.into(), kind, quick: AtomicBool::new(false) });
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
