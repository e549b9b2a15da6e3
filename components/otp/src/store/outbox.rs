//! The outbox's statements.

use super::{connection::Connection, statement};
use crate::{
    outbox_entry::{Claimed, Refused, Waiting},
    row::{Row, Value},
};
use otp_core::{Timestamp, ports::Unavailable};
use serde_json::json;
use std::time::Duration;

impl Connection {
    pub(crate) async fn claim(
        &self,
        now: Timestamp,
        moment: Duration,
        young: Duration,
        most: usize,
    ) -> Result<Vec<Claimed>, Unavailable> {
        let times = || [now.unix_millis().into(), millis(moment).into(), millis(young).into()];
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

    pub(crate) async fn forget_own_events(&self, events: &[(&str, &str)]) -> Result<(), Unavailable> {
        // As it stands in an event's text, and nowhere else: in a value, quotes are escaped.
        let events: Vec<_> =
            events.iter().map(|(subject, id)| (subject, format!(r#""id":"{id}""#))).collect();
        let events = Value::Json(json!(events).to_string());
        self.run(statement::OUTBOX_FORGET_OWN, [events]).await.map(drop)
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
}

fn list(sequences: &[i64]) -> Value {
    Value::Json(json!(sequences).to_string())
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn count(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}
