//! What ranges of numbers are sent and verify.

use super::{connection::Connection, statement};
use crate::row::{Row, Value};
use otp_core::{Guard, Tally, Timestamp, ports::Unavailable};
use serde_json::json;
use std::collections::BTreeMap;

/// A range of numbers, and the application that sends to it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Range {
    pub(crate) application: String,
    pub(crate) prefix: String,
}

/// Codes of one range.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) sent: i64,
    pub(crate) verified: i64,
}

impl Connection {
    pub(crate) async fn count_destinations(
        &self,
        guard: &Guard,
        now: Timestamp,
        counts: &BTreeMap<Range, Counts>,
    ) -> Result<Vec<(Range, Tally)>, Unavailable> {
        let list: Vec<_> = counts
            .iter()
            .map(|(Range { application, prefix }, Counts { sent, verified })| {
                json!({ "application": application, "prefix": prefix, "sent": sent, "verified": verified })
            })
            .collect();
        let counted = [Guard::slot(now).into(), Value::Json(json!(list).to_string())];
        self.run(statement::DESTINATIONS_COUNT, counted).await?;
        let ranges = counts
            .keys()
            .map(|Range { application, prefix }| json!({ "application": application, "prefix": prefix }));
        let ranges: Vec<_> = ranges.collect();
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
                sent: row.integer(2)?,
                settled: row.integer(3)?,
                verified: row.integer(4)?,
                suspended_until: row.optional_timestamp(5)?,
                strikes: row.optional_integer(6)?.unwrap_or_default(),
            };
            let range = Range { application: row.text(0)?.to_owned(), prefix: row.text(1)?.to_owned() };
            Ok((range, tally))
        };
        rows.iter().map(tally).collect()
    }

    pub(crate) async fn suspend(
        &self,
        range: &Range,
        now: Timestamp,
        until: Timestamp,
        strikes: i64,
        event: &str,
    ) -> Result<bool, Unavailable> {
        let parameters = [
            range.application.as_str().into(),
            range.prefix.as_str().into(),
            now.unix_millis().into(),
            until.unix_millis().into(),
            strikes.into(),
            event.into(),
        ];
        Ok(!self.run(statement::DESTINATIONS_SUSPEND, parameters).await?.is_empty())
    }

    pub(crate) async fn lift(&self, range: &Range, now: Timestamp) -> Result<(), Unavailable> {
        let parameters = [range.application.as_str().into(), range.prefix.as_str().into(), now.into()];
        self.run(statement::DESTINATIONS_LIFT, parameters).await.map(drop)
    }
}
