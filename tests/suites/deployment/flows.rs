//! Who has something to say to whom, as the design has it.

use std::collections::BTreeSet;

/// Every pair, each in alphabetical order.
pub(crate) fn reaches() -> BTreeSet<(&'static str, &'static str)> {
    BTreeSet::from([
        // Events one way; to be asked to push what waits the other.
        ("app", "relay"),
        ("app", "redis"),
        ("app", "postgres"),
        // The ledger.
        ("postgres", "relay"),
        ("kafka", "relay"),
    ])
}
