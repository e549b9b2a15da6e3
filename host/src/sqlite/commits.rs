//! Statements that write, and are committed together.
//!
//! A commit writes whole pages into the log, takes locks of the file and gives them back, whatever is in it; and
//! what one request writes lies for the most part on pages that the next one writes, too. So the statements that are
//! there at the same moment make one transaction. Each of them stays atomic, hears its own outcome, and hears it
//! when all of that is committed. If the transaction fails, nothing has happened, and each is run by itself.
//!
//! Guests that write one row, each only if nobody else has since it looked, get in each other's way when all look before
//! any writes: one of them gets through, and the others look again. As soon as that is seen, statements are run where
//! their requests are for a while: between a look and a write nothing comes then.

use super::{
    bindings::sqlite::Value,
    connection::{Cause, Connection, Effect, Failure, Rows, Settings},
    database::{Database, Known, Turn},
};
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// Most statements of a transaction: its first one waits for the last one.
const MAX_TOGETHER: usize = 64;

/// Statements that are run by themselves after some have been seen to get in each other's way.
const ONE_BY_ONE: u32 = 64;

/// How long others may go first then.
const PAUSE: Duration = Duration::from_millis(1);

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

/// The statements that wait for their commit.
#[derive(Debug, Default)]
pub(super) struct Commits {
    queue: Mutex<Queue>,
    /// How many are still to be run by themselves.
    one_by_one: AtomicU32,
}

#[derive(Debug, Default)]
struct Queue {
    /// Oldest first.
    waiting: VecDeque<Waiting>,
    /// Whether somebody sees to them.
    seen_to: bool,
}

impl Commits {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the next statement is to be run by itself.
    fn is_one_by_one(&self) -> bool {
        self.one_by_one.load(Ordering::Relaxed) > 0
    }

    /// Looks for statements that got in each other's way.
    fn learn_from(&self, outcomes: &[Result<Rows, Failure>]) {
        let count = outcomes.iter().filter(|outcome| is_in_vain(outcome)).count();
        // One among several may have had a reason of its own.
        if count > 1 || (count == 1 && outcomes.len() == 1) {
            self.one_by_one.store(ONE_BY_ONE, Ordering::Relaxed);
        } else if outcomes.len() == 1 {
            let less = |left: u32| left.checked_sub(1);
            let _ = self.one_by_one.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
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

/// Whether a statement would have given a row, and gave none.
fn is_in_vain(outcome: &Result<Rows, Failure>) -> bool {
    matches!(outcome, Ok((columns, rows)) if !columns.is_empty() && rows.is_empty())
}

/// Runs a statement that writes and may be run on any connection with these settings. It is committed when this
/// comes back.
pub(super) async fn commit(
    database: &Arc<Database>,
    known: Arc<Known>,
    settings: Arc<Settings>,
    call: Call,
) -> Result<Rows, Failure> {
    if database.commits().is_one_by_one()
        && known.is_quick()
        && let Some(turn) = database.try_turn()
        && let Some(mut connection) = database.writer(&settings)
    {
        let start = Instant::now();
        let outcome = connection.at_once(|connection| connection.run(&call.0, &call.1, &Effect::None));
        let outcome = [outcome];
        database.release_writer(connection, &outcome);
        drop(turn);
        if !matches!(outcome, [Err(Failure { cause: Cause::Wait, .. })]) {
            known.took(start.elapsed());
            database.commits().learn_from(&outcome);
            let [outcome] = outcome;
            return outcome;
        }
    }
    let (sender, outcome) = oneshot::channel();
    if !database.commits().add(Waiting { known, settings, call, outcome: sender }) {
        tokio::spawn(see_to(Arc::clone(database)));
    }
    outcome.await.map_err(|_| Failure::of_the_host("the statement panicked"))?
}

/// Commits what waits until nothing does.
async fn see_to(database: Arc<Database>) {
    loop {
        if database.commits().is_one_by_one() {
            // What waits here has looked a while ago, and is in vain for the most part. Those that look now go first.
            tokio::time::sleep(PAUSE).await;
        } else {
            // Requests that are ready to go on may bring statements of theirs.
            tokio::task::yield_now().await;
        }
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
                        if together.len() > 1 {
                            database.commits().learn_from(&outcomes);
                        }
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
            let outcome = run_one(connection, waiting);
            // Some failures undo all that there was, and what was broken off here can go on elsewhere.
            let undone = connection.is_free() || matches!(outcome, Err(Failure { cause: Cause::Wait, .. }));
            if undone {
                return Err(Failure::of_the_host("the transaction was rolled back"));
            }
            outcomes.push(outcome);
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
