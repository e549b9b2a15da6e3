//! What happens to events that were read: they are written down, once, and their codes delivered.

use crate::{
    dead::{AGAIN, Dead},
    ledger::{Ledger, Position, Read, Share},
    metrics::Metrics,
    moment::{now, parse_rfc3339, rfc3339},
    signatures::{Place, Signatures},
    telemetry::{self, Destination, IN_PROCESS},
};
use anyhow::Result;
use otp_events::{Event, EventType, Record};
use std::{sync::Arc, time::SystemTime};
use tokio::sync::Notify;

/// Writes down what was read, and wakes whoever delivers.
#[derive(Debug, Clone)]
pub(crate) struct Consumer {
    ledger: Ledger,
    metrics: Arc<Metrics>,
    signatures: Arc<Signatures>,
    /// Something may be due.
    work: Arc<Notify>,
    /// A number was erased, and is still in the files.
    erased: Arc<Notify>,
}

impl Consumer {
    pub(crate) fn new(
        ledger: Ledger,
        metrics: Arc<Metrics>,
        signatures: Arc<Signatures>,
        work: Arc<Notify>,
        erased: Arc<Notify>,
    ) -> Self {
        Self { ledger, metrics, signatures, work, erased }
    }

    /// An event, or what cannot be processed: it is not the component's.
    pub(crate) fn admit(&self, event: Event) -> Read {
        match self.signatures.check(&event, Place::Consumer) {
            Ok(()) => Read::Event { event: Box::new(event), again: false },
            Err(error) => Read::Dead(Dead::new(Record::from(&event), error.to_string(), now())),
        }
    }

    /// A record as its event, or as what cannot be processed: it is no event, or not the component's.
    pub(crate) fn read(&self, record: Record) -> Read {
        let event = match record.event() {
            Ok(event) => event,
            Err(malformed) => return Read::Dead(Dead::new(record, malformed.to_string(), now())),
        };
        match self.signatures.check(&event, Place::Consumer) {
            Ok(()) => Read::Event { event: Box::new(event), again: record.header(AGAIN).is_some() },
            Err(error) => Read::Dead(Dead::new(record, error.to_string(), now())),
        }
    }

    /// Takes a batch, and the place to go on from after it, in one step.
    pub(crate) async fn take(&self, position: Option<Position<'_>>, read: &[Read]) -> Result<()> {
        let begun = SystemTime::now();
        let from = position.map_or(IN_PROCESS, |Position { topic, partition, .. }| Destination {
            system: "kafka",
            topic,
            partition: Some(partition),
        });
        let taken = self.ledger.take(position, read).await?;
        self.metrics.consumed.inc_by(taken.new.len() as u64);
        for event in &taken.new {
            self.metrics.count(event);
            telemetry::processed(event, from, begun);
            if event.r#type == EventType::DestinationSuspended {
                warn_of_suspension(event);
            }
        }
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

    /// Which partitions are this relay's, see [`Ledger::share`].
    pub(crate) async fn share(&self, topic: &str, partitions: i32, reads: bool) -> Result<Share> {
        self.ledger.share(topic, partitions, reads).await
    }

    /// Gives a partition up.
    pub(crate) async fn release(&self, topic: &str, partition: i32, epoch: i64) -> Result<()> {
        self.ledger.release(topic, partition, epoch).await
    }

    /// Where to go on reading.
    pub(crate) async fn next_offset(&self, topic: &str, partition: i32) -> Result<Option<i64>> {
        self.ledger.next_offset(topic, partition).await
    }
}

/// Most characters of a range that are logged: a whole number shall not come into the log as a range.
const MAX_PREFIX: usize = 10;

/// Tells the operator which numbers get no codes for now. Nothing of it is repeated unless it has the form
/// that it ought to have.
fn warn_of_suspension(event: &Event) {
    let said = event.suspension().unwrap_or_default();
    let is_range = |prefix: &String| {
        let digits = prefix.strip_prefix('+').unwrap_or_default();
        prefix.len() <= MAX_PREFIX && !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    let until = said.suspended_until.as_deref().and_then(parse_rfc3339).map(rfc3339);
    tracing::warn!(
        event_id = event.id,
        prefix = said.prefix.filter(is_range),
        until,
        sent = said.sent,
        verified = said.verified,
        "a range of numbers is suspended: many codes were sent there, and few came back"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::{Arguments, Command, Dlq};
    use clap::Parser;
    use otp_events::Data;
    use otp_seal::EventKeys;
    use serde_json::json;

    #[tokio::test]
    async fn an_event_that_is_not_the_components_is_dead_and_its_id_is_still_free() {
        let folder = tempfile::tempdir().unwrap();
        let line = ["relay", "dlq", "list", "--state-dir", folder.path().to_str().unwrap()];
        let Command::Dlq { command: Dlq::List(arguments) } = Arguments::try_parse_from(line).unwrap().command
        else {
            panic!("another command was asked for")
        };
        let ledger = Ledger::open(&arguments.state).await.unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let signatures = Arc::new(Signatures::new(EventKeys::development(), Arc::clone(&metrics)));
        let (work, erased) = (Arc::default(), Arc::default());
        let consumer = Consumer::new(ledger, Arc::clone(&metrics), signatures, work, erased);
        let mut genuine = Event::new("0198c7a4", EventType::Verified);
        genuine.subject = Some("9eeec548fe31b7e38fcb0f946ea5c649".to_owned());
        genuine.data = Some(Data::of(&json!({ "version": 7 })));
        genuine.sign(&EventKeys::development());
        let forged = Event { data: Some(Data::of(&json!({ "version": 8 }))), ..genuine.clone() };
        for read in [consumer.admit(forged.clone()), consumer.read(Record::from(&forged))] {
            consumer.take(None, &[read]).await.unwrap();
        }
        let dead = consumer.ledger.dead(10, true).await.unwrap();
        let letters: Vec<_> =
            dead.iter().map(|(_, dead)| (&dead.record, dead.reason.contains("sign"))).collect();
        assert_eq!(letters, [(&Record::from(&forged), true); 2]);
        assert_eq!([metrics.consumed.get(), metrics.dead.get()], [0, 2]);
        for read in [consumer.admit(genuine.clone()), consumer.read(Record::from(&genuine))] {
            consumer.take(None, &[read]).await.unwrap();
        }
        assert_eq!([metrics.consumed.get(), metrics.duplicates.get(), metrics.dead.get()], [1, 1, 2]);
        consumer.ledger.close().await;
    }
}
