//! What happens to events that were read: they are written down, once, and their codes delivered.

use crate::{
    dead::{AGAIN, Dead},
    ledger::{Ledger, NotNow, Part, Position, Read, Share},
    metrics::Metrics,
    moment::{now, parse_rfc3339, rfc3339},
    signatures::{self, Signatures},
    takes::{Place, Takes, Waiting},
    telemetry::{self, Destination, IN_PROCESS},
};
use anyhow::Result;
use otp_events::{Event, EventType, Record};
use std::{sync::Arc, time::SystemTime};
use tokio::sync::{Notify, oneshot};

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
    /// What was read and is not written down yet.
    takes: Arc<Takes>,
}

impl Consumer {
    pub(crate) fn new(
        ledger: Ledger,
        metrics: Arc<Metrics>,
        signatures: Arc<Signatures>,
        work: Arc<Notify>,
        erased: Arc<Notify>,
    ) -> Self {
        Self { ledger, metrics, signatures, work, erased, takes: Arc::default() }
    }

    /// An event, or what cannot be processed: it is not the component's.
    pub(crate) fn admit(&self, event: Event) -> Read {
        match self.signatures.check(&event, signatures::Place::Consumer) {
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
        match self.signatures.check(&event, signatures::Place::Consumer) {
            Ok(()) => Read::Event { event: Box::new(event), again: record.header(AGAIN).is_some() },
            Err(error) => Read::Dead(Dead::new(record, error.to_string(), now())),
        }
    }

    /// Takes a batch, and the place to go on from after it, in one step. What has begun is done also if its caller gives
    /// up waiting.
    pub(crate) async fn take(&self, place: Option<Place>, read: Vec<Read>) -> Result<()> {
        let (done, outcome) = oneshot::channel();
        if !self.takes.add(Waiting { place, read, done }) {
            tokio::spawn(self.clone().write_down());
        }
        outcome
            .await
            .unwrap_or_else(|_| Err(NotNow::Away("what was read could not be written".to_owned()).into()))
    }

    /// Writes down what waits until nothing does.
    async fn write_down(self) {
        /// If the task panics, the next caller starts a new one.
        struct Serving(Arc<Takes>);
        impl Drop for Serving {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    self.0.abandon();
                }
            }
        }
        let serving = Serving(self.takes.clone());
        loop {
            let together = serving.0.next();
            if together.is_empty() {
                return;
            }
            let parts: Vec<_> = together.iter().map(Waiting::part).collect();
            let mut outcomes = Vec::new();
            match self.take_together(&parts).await {
                Err(error) if parts.len() == 1 => outcomes.push(Err(error)),
                Err(_) => {
                    // One of them is to blame; the others go on.
                    for part in &parts {
                        outcomes.push(self.take_together(std::slice::from_ref(part)).await);
                    }
                }
                Ok(()) => outcomes.resize_with(parts.len(), || Ok(())),
            }
            for (waiting, outcome) in together.into_iter().zip(outcomes) {
                // The caller may have given up.
                let _ = waiting.done.send(outcome);
            }
        }
    }

    async fn take_together(&self, parts: &[Part<'_>]) -> Result<()> {
        let begun = SystemTime::now();
        let taken = self.ledger.take(parts).await?;
        self.metrics.consumed.inc_by(taken.new.len() as u64);
        for (event, part) in &taken.new {
            self.metrics.count(event);
            let from = parts[*part].position.map_or(IN_PROCESS, |Position { topic, partition, .. }| {
                Destination { system: "kafka", topic, partition: Some(partition) }
            });
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
            consumer.take(None, vec![read]).await.unwrap();
        }
        let dead = consumer.ledger.dead(10, true).await.unwrap();
        let letters: Vec<_> =
            dead.iter().map(|(_, dead)| (&dead.record, dead.reason.contains("sign"))).collect();
        assert_eq!(letters, [(&Record::from(&forged), true); 2]);
        assert_eq!([metrics.consumed.get(), metrics.dead.get()], [0, 2]);
        for read in [consumer.admit(genuine.clone()), consumer.read(Record::from(&genuine))] {
            consumer.take(None, vec![read]).await.unwrap();
        }
        assert_eq!([metrics.consumed.get(), metrics.duplicates.get(), metrics.dead.get()], [1, 1, 2]);
        consumer.ledger.close().await;
    }
}
