//! Dropping what has outlived its use, a part at a time.

use super::{
    connection::Connection,
    outbox::{count, millis},
    statement,
};
use otp_core::{Guard, Timestamp, ports::Unavailable};
use serde::Serialize;
use std::time::Duration;

/// What a purge has done.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Purged {
    /// Events that have waited too long and are among the dead now.
    pub(crate) expired: usize,
    /// Dead ones that were removed.
    pub(crate) removed: usize,
    /// Answers that were kept for retries.
    pub(crate) answers: usize,
    /// Meters that were empty.
    pub(crate) meters: usize,
    /// Counts of ranges that decide nothing any more.
    pub(crate) counts: usize,
}

impl Connection {
    pub(crate) async fn purge(
        &self,
        now: Timestamp,
        retention: Duration,
        most: usize,
    ) -> Result<Purged, Unavailable> {
        let at = now.unix_millis();
        let parameters = || [at.into(), millis(retention).into(), count(most).into()];
        // The dead first: those that die now are kept for as long again.
        let removed = self.run(statement::OUTBOX_CLEAR, parameters()).await?.len();
        let expired = self.run(statement::OUTBOX_EXPIRE, parameters()).await?.len();
        let answers = [at.into(), count(most).into()];
        let answers = self.run(statement::PURGE_IDEMPOTENCY, answers).await?.len();
        let meters = [now.unix_micros().into(), count(most).into()];
        let meters = self.run(statement::PURGE_METERS, meters).await?.len();
        // No window of the guard is longer than what it remembers of suspensions.
        let forgotten = Guard::forgets_before(now);
        let slots = [Guard::slot(forgotten).into(), count(most).into()];
        let counts = self.run(statement::PURGE_DESTINATIONS, slots).await?.len();
        self.run(statement::PURGE_SUSPENSIONS, [forgotten.unix_millis().into()]).await?;
        Ok(Purged { expired, removed, answers, meters, counts })
    }
}
