//! Group commit: statements that write at the same moment share one transaction.
//!
//! A commit writes whole pages into the log and takes and releases locks of the file, however little it changes, and
//! most pages that one request changes the next one changes too. Each statement stays atomic, gets its own outcome, and
//! gets it after the commit. If the transaction fails, nothing has happened, and each statement runs alone.
//!
//! Optimistic writers of one row conflict more often in a group: all of them read before any of them writes, one
//! succeeds, and the others read again. So after a conflict the next statements run alone, on the thread of their
//! request, where no other statement comes between the read and the write.

use super::{
    connection::{Cause, Connection, Effect, Failure, Rows, Settings},
    database::{Database, Turn},
    queue::{Call, Waiting},
    statement::Known,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// How long statements that run alone go before the queue after a conflict.
const PAUSE: Duration = Duration::from_millis(1);

/// Runs a statement that writes and may be run on any connection with these settings. It is committed when this
/// comes back.
pub(super) async fn commit(
    database: &Arc<Database>,
    known: Arc<Known>,
    settings: Arc<Settings>,
    call: Call,
) -> Result<Rows, Failure> {
    if database.queue().is_one_by_one()
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
            database.queue().learn_from(&outcome);
            let [outcome] = outcome;
            return outcome;
        }
    }
    let (sender, outcome) = oneshot::channel();
    if !database.queue().add(Waiting { known, settings, call, outcome: sender }) {
        tokio::spawn(serve(Arc::clone(database)));
    }
    outcome.await.map_err(|_| Failure::of_the_host("the statement panicked"))?
}

/// Commits what waits until nothing does.
async fn serve(database: Arc<Database>) {
    loop {
        if database.queue().is_one_by_one() {
            // The statements here read their rows a while ago, and most will conflict. Requests that read now go first.
            tokio::time::sleep(PAUSE).await;
        } else {
            // Requests that are ready to go on may bring statements of theirs.
            tokio::task::yield_now().await;
        }
        let turn = database.turn().await;
        let together = database.queue().next();
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
                            database.queue().learn_from(&outcomes);
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
    // One whose transaction could not be ended is closed, and SQLite rolls back.
    let connection = connection.filter(Connection::is_free);
    let run = move || {
        let connect = || database.connect(&together[0].settings);
        let mut connection = connection.map_or_else(connect, Ok);
        let outcomes = match &mut connection {
            Ok(connection) => run(connection, &together).unwrap_or_else(|failure| {
                if connection.is_free() {
                    together.iter().map(|waiting| run_one(connection, waiting)).collect()
                } else {
                    vec![Err(failure); together.len()]
                }
            }),
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
