//! What ranges of numbers are sent and verify.

use super::{
    connection::Connection,
    row::{Row, Value},
    statement,
};
use crate::destinations::Counts;
use otp_core::{Guard, Tally, Timestamp, ports::Unavailable};
use serde_json::json;
use std::collections::BTreeMap;

impl Connection {
    pub(crate) async fn count_destinations(
        &self,
        guard: &Guard,
        now: Timestamp,
        counts: &BTreeMap<String, Counts>,
    ) -> Result<Vec<(String, Tally)>, Unavailable> {
        let list: Vec<_> = counts
            .iter()
            .map(|(range, Counts { sent, verified })| json!({ "prefix": range, "sent": sent, "verified": verified }))
            .collect();
        let counted = [Guard::slot(now).into(), Value::Json(json!(list).to_string())];
        self.run(statement::DESTINATIONS_COUNT, counted).await?;
        let ranges: Vec<_> = counts.keys().collect();
        let asked = [
            Value::Json(json!(ranges).to_string()),
            guard.first_slot(now).into(),
            Guard::first_unsettled_slot(now).into(),
            now.unix_millis().into(),
            Guard::SLOT.into(),
        ];
        let rows = self.run(statement::DESTINATIONS_TALLY, asked).await?;
        let tally = |row: &Row| {
            let tally = Tally {
                sent: row.integer(1)?,
                settled: row.integer(2)?,
                verified: row.integer(3)?,
                suspended_until: row.optional_integer(4)?.map(Timestamp::from_unix_millis),
                strikes: row.optional_integer(5)?.unwrap_or_default(),
            };
            Ok((row.text(0)?.to_owned(), tally))
        };
        rows.iter().map(tally).collect()
    }

    pub(crate) async fn suspend(
        &self,
        range: &str,
        now: Timestamp,
        until: Timestamp,
        strikes: i64,
        event: &str,
    ) -> Result<bool, Unavailable> {
        let parameters = [
            range.into(),
            now.unix_millis().into(),
            until.unix_millis().into(),
            strikes.into(),
            Value::Json(event.to_owned()),
        ];
        Ok(!self.run(statement::DESTINATIONS_SUSPEND, parameters).await?.is_empty())
    }

    pub(crate) async fn lift(&self, range: &str, now: Timestamp) -> Result<(), Unavailable> {
        self.run(statement::DESTINATIONS_LIFT, [range.into(), now.unix_millis().into()]).await.map(drop)
    }
}
