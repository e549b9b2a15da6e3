//! The outbox's statements.

use super::Sqlite;
use crate::outbox_entry::{Claimed, Refused, Waiting};
use crate::store::Purged;
use otp_core::{Guard, Timestamp, ports::Unavailable};
use serde_json::json;
use std::time::Duration;

impl Sqlite {
    pub(crate) async fn claim(
        &self,
        now: Timestamp,
        moment: Duration,
        most: usize,
    ) -> Result<Vec<Claimed>, Unavailable> {
        let times = || [now.unix_millis().into(), millis(moment).into()];
        if self.run(include_str!("outbox/waits.sql"), times()).await?.is_empty() {
            return Ok(Vec::new());
        }
        let parameters = times().into_iter().chain([count(most).into()]);
        let rows = self.run(include_str!("outbox/claim.sql"), parameters).await?;
        let claimed =
            |row: &super::Row| Ok(Claimed { sequence: row.integer(0)?, event: row.text(1)?.to_owned() });
        let mut claimed = rows.iter().map(claimed).collect::<Result<Vec<_>, Unavailable>>()?;
        // A statement that writes returns its rows in any order.
        claimed.sort_unstable_by_key(|event| event.sequence);
        Ok(claimed)
    }

    pub(crate) async fn forget_events(&self, sequences: &[i64]) -> Result<(), Unavailable> {
        self.run(include_str!("outbox/forget.sql"), [json!(sequences).to_string().into()]).await.map(drop)
    }

    pub(crate) async fn release(&self, sequences: &[i64]) -> Result<(), Unavailable> {
        self.run(include_str!("outbox/release.sql"), [json!(sequences).to_string().into()]).await.map(drop)
    }

    pub(crate) async fn bury(&self, now: Timestamp, refused: &[Refused]) -> Result<(), Unavailable> {
        let refused: Vec<_> = refused
            .iter()
            .map(|Refused { sequence, reason }| json!({ "sequence": sequence, "reason": reason }))
            .collect();
        let parameters = [now.unix_millis().into(), json!(refused).to_string().into()];
        self.run(include_str!("outbox/bury.sql"), parameters).await.map(drop)
    }

    pub(crate) async fn waiting(&self) -> Result<Waiting, Unavailable> {
        let rows = self.run(include_str!("outbox/count.sql"), []).await?;
        let row = rows.first().ok_or_else(|| Unavailable("SQLite: a count gave no row".to_owned()))?;
        Ok(Waiting { waiting: row.integer(0)?, dead: row.integer(1)? })
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
        let removed = self.run(include_str!("outbox/clear.sql"), parameters()).await?.len();
        let expired = self.run(include_str!("outbox/expire.sql"), parameters()).await?.len();
        let answers = [at.into(), count(most).into()];
        let answers = self.run(include_str!("purge/idempotency.sql"), answers).await?.len();
        let meters = [now.unix_micros().into(), count(most).into()];
        let meters = self.run(include_str!("purge/meters.sql"), meters).await?.len();
        // No window of the guard is longer than what it remembers of suspensions.
        let forgotten = Guard::forgets_before(now);
        let slots = [Guard::slot(forgotten).into(), count(most).into()];
        let counts = self.run(include_str!("purge/destinations.sql"), slots).await?.len();
        self.run(include_str!("purge/suspensions.sql"), [forgotten.unix_millis().into()]).await?;
        Ok(Purged { expired, removed, answers, meters, counts })
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn count(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}
