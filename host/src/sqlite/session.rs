//! What a guest has as a connection.
//!
//! Most statements leave nothing behind on a connection, and need none of their own: they are run on the one that was
//! used last of those with the guest's settings, whose pages are in memory and whose statements are prepared. A
//! guest gets a connection to itself for a transaction until that ends, and for good with the first statement
//! whose effect only it must see.

use super::{
    bindings::sqlite::{Error, RowResult, Value},
    commits,
    connection::{Cause, Connection, Effect, Failure, Rows, Settings, is_file_failure},
    database::{Database, Turn},
    queue::Call,
    statement::Known,
};
use std::{sync::Arc, time::Instant};
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};

/// Names of the columns, and the rows or what became of them.
pub(super) type Outcome = (Vec<String>, Result<Vec<RowResult>, Error>);

/// A guest's connection.
#[derive(Debug)]
pub(super) struct Session {
    database: Arc<Database>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    settings: Arc<Settings>,
    own: Option<Own>,
}

/// Fields drop in this order: SQLite rolls back before the next writer has its turn.
#[derive(Debug)]
struct Own {
    connection: Connection,
    /// Held from a transaction's first writing statement to its end.
    turn: Option<Turn>,
    for_good: bool,
}

/// What became of an attempt to run a statement.
enum Run {
    Done(Result<Rows, Failure>),
    /// It writes, and another one does now. Nothing has happened.
    NotItsTurn,
}

impl Session {
    pub(super) fn open(database: Arc<Database>) -> Self {
        database.begin_session();
        Self { database, state: Arc::default() }
    }

    /// Runs a statement to its end.
    pub(super) async fn execute(&self, statement: String, parameters: Vec<Value>) -> Outcome {
        match self.run(Arc::new((statement, parameters))).await {
            Ok((columns, rows)) => (columns, Ok(rows)),
            Err(failure) => (Vec::new(), Err(failure.error)),
        }
    }

    async fn run(&self, call: Call) -> Result<Rows, Failure> {
        let mut turn = None;
        loop {
            // Not waited for where it is free: the runtime would now and then have the request wait all the same, and a
            // row that it has looked at be written by another.
            let state = match Arc::clone(&self.state).try_lock_owned() {
                Ok(state) => state,
                Err(_) => Arc::clone(&self.state).lock_owned().await,
            };
            let known = self.database.known(&call.0);
            if state.own.is_none()
                && let Some(known) = known.filter(|known| known.is_shared())
            {
                let settings = Arc::clone(&state.settings);
                drop((state, turn));
                return self.run_shared(known, settings, call).await;
            }
            let (database, call, held) = (Arc::clone(&self.database), Arc::clone(&call), turn.take());
            let run =
                move |abandoned: &dyn Fn() -> bool| run_with_state(&database, state, &call, held, abandoned);
            match on_thread_that_may_block(run).await? {
                Run::Done(rows) => return rows,
                // Behind a writer that hangs, those who wait would hold all the threads there are. So they wait here.
                Run::NotItsTurn => turn = Some(self.database.turn().await),
            }
        }
    }

    /// Runs a statement that may be run on any connection with these settings.
    async fn run_shared(
        &self,
        known: Arc<Known>,
        settings: Arc<Settings>,
        call: Call,
    ) -> Result<Rows, Failure> {
        if known.kind.writes {
            return commits::commit(&self.database, known, settings, call).await;
        }
        let mut free = self.database.free(&settings);
        if known.is_quick()
            && let Some(mut connection) = free
        {
            // Two changes of threads cost as much as the statement. No call is given up in the middle: there is
            // no point at which this waits.
            let start = Instant::now();
            match connection.at_once(|connection| connection.run(&call.0, &call.1, &Effect::None)) {
                Err(Failure { cause: Cause::Wait, .. }) => free = Some(connection),
                rows => {
                    known.took(start.elapsed());
                    release(&self.database, connection, &rows);
                    return rows;
                }
            }
        }
        let database = Arc::clone(&self.database);
        on_thread_that_may_block(move |abandoned| {
            let mut connection = match free {
                Some(connection) => connection,
                None => database.connect(&settings)?,
            };
            if abandoned() {
                database.release(connection);
                return Err(given_up());
            }
            let start = Instant::now();
            let rows = connection.run(&call.0, &call.1, &Effect::None);
            known.took(start.elapsed());
            release(&database, connection, &rows);
            rows
        })
        .await?
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.database.end_session();
    }
}

/// Runs a statement on the guest's own connection, or one that has an effect on a connection or is not known yet.
fn run_with_state(
    database: &Arc<Database>,
    mut state: OwnedMutexGuard<State>,
    call: &Call,
    mut turn: Option<Turn>,
    abandoned: &dyn Fn() -> bool,
) -> Run {
    let (statement, parameters) = &**call;
    let is_own = state.own.is_some();
    let mut own = match state.own.take() {
        Some(own) => own,
        None => match database.connect(&state.settings) {
            Ok(connection) => Own { connection, turn: None, for_good: false },
            Err(failure) => return Run::Done(Err(failure)),
        },
    };
    let known = match database.known(statement) {
        Some(known) => Ok(known),
        None => own.connection.kind(statement).map(|kind| database.learn(statement, kind)),
    };
    let run = match known {
        Err(failure) => Run::Done(Err(failure)),
        // Behind a connection that hangs, what was given up would only lengthen the queue.
        Ok(_) if abandoned() => Run::Done(Err(given_up())),
        Ok(known) => {
            if known.kind.writes && own.turn.is_none() && turn.is_none() {
                turn = database.try_turn();
            }
            if known.kind.writes && own.turn.is_none() && turn.is_none() {
                Run::NotItsTurn
            } else {
                let effect = &known.kind.effect;
                // Rather than one more connection, one that has been set so before.
                if let Effect::Setting(setting) = effect
                    && !is_own
                    && let Some(alike) = database.free(&state.settings.with(setting))
                {
                    database.release(std::mem::replace(&mut own.connection, alike));
                }
                own.for_good |= *effect == Effect::Own;
                let start = Instant::now();
                let rows = own.connection.run(statement, parameters, effect);
                known.took(start.elapsed());
                state.settings = Arc::new(own.connection.settings().clone());
                Run::Done(rows)
            }
        }
    };
    if own.connection.is_free() {
        // Not before the connection is there for the next writer.
        turn = turn.or(own.turn.take());
    } else {
        own.turn = own.turn.or(turn.take());
    }
    if own.for_good || !own.connection.is_free() {
        state.own = Some(own);
    } else if let Run::Done(rows) = &run {
        release(database, own.connection, rows);
    } else {
        database.release(own.connection);
    }
    drop(turn);
    run
}

/// Keeps a connection for the next statement, unless the file was the matter.
fn release(database: &Arc<Database>, connection: Connection, rows: &Result<Rows, Failure>) {
    if is_file_failure(rows) {
        database.discard(connection);
    } else {
        database.release(connection);
    }
}

/// Runs this to its end, whether or not its outcome is still waited for; it can ask.
async fn on_thread_that_may_block<T: Send + 'static>(
    run: impl FnOnce(&dyn Fn() -> bool) -> T + Send + 'static,
) -> Result<T, Failure> {
    let (sender, receiver) = oneshot::channel();
    tokio::task::spawn_blocking(move || {
        let outcome = run(&|| sender.is_closed());
        // A guest that has given up since hears nothing more; what it asked for has happened.
        let _ = sender.send(outcome);
    });
    receiver.await.map_err(|_| Failure::of_the_host("the statement panicked"))
}

fn given_up() -> Failure {
    Failure::of_the_host("the caller has given up this statement")
}
