//! What was read and waits to be written down: what waits at the same moment is written together, in one transaction.

use crate::ledger::{Part, Position, Read};
use anyhow::Result;
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::oneshot;

/// From so many records on nothing more joins them: the first waits for the last.
const MANY: usize = 1_000;

/// Where records came from, and where to go on after them, see [`Position`].
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) next: i64,
    pub(crate) epoch: i64,
}

/// Records that wait to be written down.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) place: Option<Place>,
    pub(crate) read: Vec<Read>,
    pub(crate) done: oneshot::Sender<Result<()>>,
}

impl Waiting {
    pub(crate) fn part(&self) -> Part<'_> {
        let position = self.place.as_ref().map(|Place { topic, partition, next, epoch }| Position {
            topic,
            partition: *partition,
            next: *next,
            epoch: *epoch,
        });
        Part { position, read: &self.read }
    }
}

/// The records that wait.
#[derive(Debug, Default)]
pub(crate) struct Takes(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Oldest first.
    waiting: VecDeque<Waiting>,
    /// Whether a task writes them down.
    served: bool,
}

impl Takes {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds records. Returns whether a task writes down what waits; if not, the caller starts one.
    pub(crate) fn add(&self, waiting: Waiting) -> bool {
        let mut state = self.state();
        state.waiting.push_back(waiting);
        std::mem::replace(&mut state.served, true)
    }

    /// What is written down next; nothing if nothing waits, and then the task ends.
    pub(crate) fn next(&self) -> Vec<Waiting> {
        let mut state = self.state();
        let mut records = 0;
        let mut together = Vec::new();
        while records < MANY
            && let Some(next) = state.waiting.pop_front()
        {
            records += next.read.len();
            together.push(next);
        }
        state.served = !together.is_empty();
        together
    }

    /// The task has ended before it could know that nothing waits. What waits hears so.
    pub(crate) fn abandon(&self) {
        let mut state = self.state();
        state.served = false;
        state.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead::Dead;
    use otp_events::Record;

    fn waiting(records: usize) -> Waiting {
        let record = Record { key: String::new(), headers: Vec::new(), value: Vec::new() };
        let read = (0..records).map(|_| Read::Dead(Dead::new(record.clone(), String::new(), 0))).collect();
        Waiting { place: None, read, done: oneshot::channel().0 }
    }

    #[test]
    fn what_waits_at_the_same_moment_goes_together_up_to_a_limit() {
        let takes = Takes::default();
        assert!(!takes.add(waiting(10)), "no task runs yet");
        for records in [MANY, 1, 2] {
            assert!(takes.add(waiting(records)));
        }
        let sizes = |together: Vec<Waiting>| together.iter().map(|one| one.read.len()).collect::<Vec<_>>();
        assert_eq!(sizes(takes.next()), [10, MANY]);
        assert_eq!(sizes(takes.next()), [1, 2]);
        assert!(takes.next().is_empty());
        assert!(!takes.add(waiting(1)), "the task has ended");
    }
}
