//! Statements that write, and are committed together.
//!
//! A commit writes whole pages into the log, takes locks of the file and gives them back, whatever is in it; and
//! what one request writes lies for the most part on pages that the next one writes, too. So the statements that are
//! there at the same moment make one transaction. Each of them stays atomic, hears its own outcome, and hears it
//! when all of that is committed. If the transaction fails, nothing has happened, and each is run by itself.

use super::{
    bindings::sqlite::Value,
    connection::{Cause, Connection, Effect, Failure, Rows, Settings},
    database::{Database, Known, Turn},
};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};
use tokio::sync::oneshot;

/// Most statements of a transaction: its first one waits for the last one.
const MAX_TOGETHER: usize = 64;

/// A statement and its parameters.
pub(super) type Call = Arc<(String, Vec<Value>)>;

/// A statement that waits for its commit.
#[derive(Debug)]
struct Waiting {
    known: Arc<Known>,
    settings: Arc<Settings>,
    call: Call,
    outcome: oneshot::Sender<Result<Rows, Failure>>,
}

/// The statements that wait for their commit, oldest first.
#[derive(Debug, Default)]
pub(super) struct Commits(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// Whether somebody sees to them.
    seen_to: bool,
}

impl Commits {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more. Whether somebody sees to it already.
    fn add(&self, waiting: Waiting) -> bool {
        let mut queue = self.queue();
        queue.waiting.push_back(waiting);
        std::mem::replace(&mut queue.seen_to, true)
    }

    /// Those to be committed next: alike in what their connection has to be and in whether they are quick. None if
    /// nobody waits; then nobody sees to it any more.
    fn next(&self) -> Vec<Waiting> {
        let mut queue = self.queue();
        // Whoever was given up has not begun.
        queue.waiting.retain(|waiting| !waiting.outcome.is_closed());
        let Some(first) = queue.waiting.front() else {
            queue.seen_to = false;
            return Vec::new();
        };
        let (settings, quick) = (Arc::clone(&first.settings), first.known.is_quick());
        let alike =
            |waiting: &&Waiting| *waiting.settings == *settings && waiting.known.is_quick() == quick && quick;
        let count = queue.waiting.iter().take(MAX_TOGETHER).take_while(alike).count().max(1);
        queue.waiting.drain(..count).collect()
    }
}

/// Runs a statement that writes and may be run on any connection with these settings. It is committed when this
/// comes back.
pub(super) async fn commit(
    database: &Arc<Database>,
    known: Arc<Known>,
    settings: Arc<Settings>,
    call: Call,
) -> Result<Rows, Failure> {
    let (sender, outcome) = oneshot::channel();
    if !database.commits().add(Waiting { known, settings, call, outcome: sender }) {
        tokio::spawn(see_to(Arc::clone(database)));
    }
    outcome.await.map_err(|_| Failure::of_the_host("the statement panicked"))?
}

/// Commits what waits until nothing does.
async fn see_to(database: Arc<Database>) {
    loop {
        // Requests that are ready to go on may bring statements of theirs.
        tokio::task::yield_now().await;
        let turn = database.turn().await;
        let together = database.commits().next();
        let Some(first) = together.first() else { return };
        let quick = first.known.is_quick();
        let connection = database.writer(&first.settings);
        match connection {
            // Two changes of threads cost as much as the statements. Nothing is given up in the middle: there is no
            // point at which this waits.
            Some(mut connection) if quick => {
                match connection.at_once(|connection| run(connection, &together)) {
                    Ok(outcomes) => {
                        database.release_writer(connection, &outcomes);
                        drop(turn);
                        tell(together, outcomes);
                    }
                    Err(_) => where_it_may_block(&database, Some(connection), together, turn).await,
                }
            }
            connection => where_it_may_block(&database, connection, together, turn).await,
        }
    }
}

async fn where_it_may_block(
    database: &Arc<Database>,
    connection: Option<Connection>,
    together: Vec<Waiting>,
    turn: Turn,
) {
    let database = Arc::clone(database);
    let run = move || {
        let connect = || database.connect(&together[0].settings);
        let mut connection = connection.map_or_else(connect, Ok);
        let outcomes = match &mut connection {
            Ok(connection) => run(connection, &together)
                .unwrap_or_else(|_| together.iter().map(|waiting| run_one(connection, waiting)).collect()),
            Err(failure) => vec![Err(failure.clone()); together.len()],
        };
        // Before the next writer has its turn, which takes the connection with it.
        if let Ok(connection) = connection {
            database.release_writer(connection, &outcomes);
        }
        drop(turn);
        tell(together, outcomes);
    };
    // One that panics has told nobody anything, and they hear that.
    let _ = tokio::task::spawn_blocking(run).await;
}

/// Runs statements, and commits them together. On a failure nothing has happened.
fn run(connection: &mut Connection, together: &[Waiting]) -> Result<Vec<Result<Rows, Failure>>, Failure> {
    if let [one] = together {
        return match run_one(connection, one) {
            Err(failure) if failure.cause == Cause::Wait => Err(failure),
            outcome => Ok(vec![outcome]),
        };
    }
    connection.transaction(|connection| {
        let mut outcomes = Vec::with_capacity(together.len());
        for waiting in together {
            outcomes.push(run_one(connection, waiting));
            // Some failures undo all that there was.
            if connection.is_free() {
                return Err(Failure::of_the_host("the transaction was rolled back"));
            }
        }
        Ok(outcomes)
    })
}

fn run_one(connection: &mut Connection, waiting: &Waiting) -> Result<Rows, Failure> {
    let start = Instant::now();
    let rows = connection.run(&waiting.call.0, &waiting.call.1, &Effect::None);
    waiting.known.took(start.elapsed());
    rows
}

fn tell(together: Vec<Waiting>, outcomes: Vec<Result<Rows, Failure>>) {
    for (waiting, outcome) in together.into_iter().zip(outcomes) {
        // A guest that has given up since hears nothing more; what it asked for has happened.
        let _ = waiting.outcome.send(outcome);
    }
}
