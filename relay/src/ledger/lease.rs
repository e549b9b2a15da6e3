//! How long a relay has what it has, where several share a ledger.

use std::time::Duration;

/// How long a relay that has said nothing counts as alive. What it has is then anybody's.
pub(crate) const LEASE: Duration = Duration::from_secs(6);

/// How often a relay says that it is alive, and looks at who else is.
pub(crate) const TICK: Duration = Duration::from_secs(1);

/// The partitions of a topic that are this relay's.
#[derive(Debug, Default)]
pub(crate) struct Share {
    /// Each with the epoch of its lease.
    pub(crate) held: Vec<(i32, i64)>,
    /// How many there should be, so that all relays have as many.
    pub(crate) aim: usize,
}
