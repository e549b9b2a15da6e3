//! The statements that wait to be committed.

use super::{
    bindings::sqlite::Value,
    connection::{Failure, Rows, Settings},
    statement::Known,
};
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};
use tokio::sync::oneshot;

/// Most statements of a transaction: its first statement waits for its last one.
const MAX_TOGETHER: usize = 64;

/// How many statements run alone after a conflict.
const ONE_BY_ONE: u32 = 64;

/// A statement and its parameters.
pub(super) type Call = Arc<(String, Vec<Value>)>;

/// A statement that waits for its commit.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) known: Arc<Known>,
    pub(super) settings: Arc<Settings>,
    pub(super) call: Call,
    pub(super) outcome: oneshot::Sender<Result<Rows, Failure>>,
}

/// The statements that wait for their commit.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// How many statements still run alone.
    one_by_one: AtomicU32,
}

#[derive(Debug, Default)]
struct State {
    /// Oldest first.
    waiting: VecDeque<Waiting>,
    /// Whether a task commits them.
    served: bool,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the next statement runs alone.
    pub(super) fn is_one_by_one(&self) -> bool {
        self.one_by_one.load(Ordering::Relaxed) > 0
    }

    /// Looks for conflicts among the outcomes of a transaction, or in that of a statement that ran alone.
    pub(super) fn learn_from(&self, outcomes: &[Result<Rows, Failure>]) {
        let conflicts = outcomes.iter().filter(|outcome| is_conflict(outcome)).count();
        // A single one in a transaction may have another reason.
        if conflicts > 1 || (conflicts == 1 && outcomes.len() == 1) {
            self.one_by_one.store(ONE_BY_ONE, Ordering::Relaxed);
        } else if outcomes.len() == 1 {
            let less = |left: u32| left.checked_sub(1);
            let _ = self.one_by_one.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }

    /// Adds a statement. Returns whether a task already commits what is in the queue; if not, the caller starts one.
    pub(super) fn add(&self, waiting: Waiting) -> bool {
        let mut state = self.state();
        state.waiting.push_back(waiting);
        std::mem::replace(&mut state.served, true)
    }

    /// Takes the statements of the next transaction: all have the same settings, and are quick unless there is only one.
    /// Returns none if the queue is empty; the task that commits ends then.
    pub(super) fn next(&self) -> Vec<Waiting> {
        let mut state = self.state();
        // A statement that its caller has given up is not begun.
        state.waiting.retain(|waiting| !waiting.outcome.is_closed());
        let Some(first) = state.waiting.front() else {
            state.served = false;
            return Vec::new();
        };
        let (settings, quick) = (Arc::clone(&first.settings), first.known.is_quick());
        let alike =
            |waiting: &&Waiting| *waiting.settings == *settings && waiting.known.is_quick() == quick && quick;
        let count = state.waiting.iter().take(MAX_TOGETHER).take_while(alike).count().max(1);
        state.waiting.drain(..count).collect()
    }
}

/// Whether a statement returned no row although it returns rows: the row that it would change is no longer as expected.
fn is_conflict(outcome: &Result<Rows, Failure>) -> bool {
    matches!(outcome, Ok((columns, rows)) if !columns.is_empty() && rows.is_empty())
}
