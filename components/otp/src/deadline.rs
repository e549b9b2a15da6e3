//! Waiting no longer than one is willing to.

use futures::future::{Either, select};
use std::{pin::pin, time::Duration};

/// What `work` comes to, or `None` if it takes longer than `limit`. Work that was given up is dropped;
/// what it has asked of another process may still happen there.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    match select(pin!(work), pin!(spin_sdk::time::sleep(limit))).await {
        Either::Left((outcome, _)) => Some(outcome),
        Either::Right(((), _)) => None,
    }
}
