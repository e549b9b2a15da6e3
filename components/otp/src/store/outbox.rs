//! The outbox's statements.

use super::{
    Purged,
    connection::Connection,
    row::{Row, Value},
    statement,
};
use crate::outbox_entry::{Claimed, Refused, Waiting};
use otp_core::{Guard, Timestamp, ports::Unavailable};
use serde_json::json;
use std::time::Duration;

impl Connection {
    pub(crate) async fn claim(
        &self,
        now: Timestamp,
        moment: Duration,
        most: usize,
    ) -> Result<Vec<Claimed>, Unavailable> {
        let times = || [now.unix_millis().into(), millis(moment).into()];
        if self.run(statement::OUTBOX_WAITS, times()).await?.is_empty() {
            return Ok(Vec::new());
        }
        let parameters = times().into_iter().chain([count(most).into()]);
        let rows = self.run(statement::OUTBOX_CLAIM, parameters).await?;
        let claimed = |row: &Row| Ok(Claimed { sequence: row.integer(0)?, event: row.text(1)?.to_owned() });
        let mut claimed = rows.iter().map(claimed).collect::<Result<Vec<_>, Unavailable>>()?;
        // A statement that writes returns its rows in any order.
        claimed.sort_unstable_by_key(|event| event.sequence);
        Ok(claimed)
    }

    pub(crate) async fn forget_events(&self, sequences: &[i64]) -> Result<(), Unavailable> {
        self.run(statement::OUTBOX_FORGET, [list(sequences)]).await.map(drop)
    }

    pub(crate) async fn release(&self, sequences: &[i64]) -> Result<(), Unavailable> {
        self.run(statement::OUTBOX_RELEASE, [list(sequences)]).await.map(drop)
    }

    pub(crate) async fn bury(&self, now: Timestamp, refused: &[Refused]) -> Result<(), Unavailable> {
        let refused: Vec<_> = refused
            .iter()
            .map(|Refused { sequence, reason }| json!({ "sequence": sequence, "reason": reason }))
            .collect();
        let parameters = [now.unix_millis().into(), Value::Json(json!(refused).to_string())];
        self.run(statement::OUTBOX_BURY, parameters).await.map(drop)
    }

    pub(crate) async fn waiting(&self) -> Result<Waiting, Unavailable> {
        let rows = self.run(statement::OUTBOX_COUNT, []).await?;
        let row = rows.first().ok_or_else(|| Unavailable("database: a count gave no row".to_owned()))?;
        Ok(Waiting {
            waiting: row.integer(0)?,
            dead: row.integer(1)?,
            oldest_seconds: row.integer(2)? / 1000,
        })
    }

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

fn list(sequences: &[i64]) -> Value {
    Value::Json(json!(sequences).to_string())
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn count(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}
