//! What was read from the topic, and what came of writing it down.

use crate::dead::Dead;
use otp_events::Event;

/// Where a batch of records came from, and where to go on after it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Position<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) next: i64,
    /// Of the lease by which it was read: nothing is written down by an older one.
    pub(crate) epoch: i64,
}

/// Records that were read together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part<'a> {
    /// `None` for what does not come from a topic.
    pub(crate) position: Option<Position<'a>>,
    pub(crate) read: &'a [Read],
}

/// A record that was read: its event, or why it is none.
#[derive(Debug)]
pub(crate) enum Read {
    /// An event, and whether an operator wants it processed again.
    Event { event: Box<Event>, again: bool },
    /// What cannot be processed.
    Dead(Dead),
}

impl Read {
    pub(super) fn event(&self) -> Option<&Event> {
        match self {
            Self::Event { event, .. } => Some(event),
            Self::Dead(_) => None,
        }
    }
}

/// What became of what was read, see [`Ledger::take`](super::Ledger::take).
#[derive(Debug, Default)]
pub(crate) struct Taken<'a> {
    /// Events seen for the first time, and the place of the part that has it.
    pub(crate) new: Vec<(&'a Event, usize)>,
    /// Events seen before.
    pub(crate) duplicates: usize,
    /// Codes to be delivered.
    pub(crate) deliveries: usize,
    /// What could not be processed.
    pub(crate) dead: usize,
    /// Numbers that were erased.
    pub(crate) erased: usize,
}
