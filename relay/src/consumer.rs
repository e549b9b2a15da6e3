//! What happens to events that were read: they are written down, once, and their codes delivered.

use crate::{
    dead::{AGAIN, Dead},
    ledger::{Ledger, Position, Read, now},
    metrics::Metrics,
};
use anyhow::Result;
use otp_events::Record;
use std::sync::Arc;
use tokio::sync::Notify;

/// Writes down what was read, and wakes whoever delivers.
#[derive(Debug, Clone)]
pub(crate) struct Consumer {
    ledger: Ledger,
    metrics: Arc<Metrics>,
    /// Something may be due.
    work: Arc<Notify>,
    /// A number was erased, and is still in the files.
    erased: Arc<Notify>,
}

impl Consumer {
    pub(crate) fn new(ledger: Ledger, metrics: Arc<Metrics>, work: Arc<Notify>, erased: Arc<Notify>) -> Self {
        Self { ledger, metrics, work, erased }
    }

    /// Takes a batch, and the place to go on from after it, in one step.
    pub(crate) async fn take(&self, position: Option<Position<'_>>, read: &[Read]) -> Result<()> {
        let taken = self.ledger.take(position, read).await?;
        self.metrics.consumed.inc_by(taken.new.len() as u64);
        self.metrics.duplicates.inc_by(taken.duplicates as u64);
        self.metrics.dead.inc_by(taken.dead as u64);
        if taken.deliveries + taken.dead > 0 {
            self.work.notify_one();
        }
        if taken.erased > 0 {
            tracing::debug!(numbers = taken.erased, "erased: what was known of them is forgotten");
            self.erased.notify_one();
        }
        if taken.dead > 0 {
            tracing::warn!(dead = taken.dead, "events cannot be processed; see: relay dlq list");
        }
        Ok(())
    }

    /// Where it writes.
    pub(crate) fn ledger(&self) -> Ledger {
        self.ledger.clone()
    }

    /// Where to go on reading.
    pub(crate) async fn next_offset(&self, topic: &str, partition: i32) -> Result<Option<i64>> {
        self.ledger.next_offset(topic, partition).await
    }
}

impl Read {
    /// A record as an event, or as what cannot be processed.
    pub(crate) fn from_record(record: Record) -> Self {
        match record.event() {
            Ok(event) => {
                let again = record.header(AGAIN).is_some();
                Self::Event { event: Box::new(event), again }
            }
            Err(malformed) => Self::Dead(Dead::new(record, malformed.to_string(), now())),
        }
    }
}
