//! What is known of a statement that was compiled before.

use super::connection::{Effect, Kind};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

/// A statement that takes longer is not run on a thread that has other requests to serve.
const QUICK: Duration = Duration::from_millis(5);

/// A statement that was run before.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) text: Box<str>,
    pub(super) kind: Kind,
    quick: AtomicBool,
}

impl Known {
    /// A statement that has not run yet. It is quick when it has shown that it is.
    pub(super) fn new(text: &str, kind: Kind) -> Self {
        Self { text: text.into(), kind, quick: AtomicBool::new(false) }
    }

    /// Whether it only needs the file, and no connection of its own.
    pub(super) fn is_shared(&self) -> bool {
        self.kind.effect == Effect::None
    }

    /// Whether it can be expected to take no time.
    pub(super) fn is_quick(&self) -> bool {
        self.quick.load(Ordering::Relaxed)
    }

    /// It has taken this time.
    pub(super) fn took(&self, time: Duration) {
        self.quick.store(time < QUICK, Ordering::Relaxed);
    }
}
