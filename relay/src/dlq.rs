//! The dead letters: from the ledger to their topic, and from there before an operator's eyes or back.

use crate::{
    arguments::{self, Dlq, DlqArguments},
    brokers::{self, DEADLINE, from_kafka, to_kafka},
    dead::{AGAIN, DIED_AT, Dead, REASON},
    ledger::{Ledger, Part, Read},
    moment::{parse_rfc3339, rfc3339},
    murmur2::partition_of,
};
use anyhow::{Result, bail};
use otp_events::Record;
use otp_seal::EventKeys;
use rskafka::client::{
    Client,
    partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling},
};
use serde_json::json;
use std::{
    collections::{BTreeMap, HashMap},
    io::Write,
    sync::Arc,
};
use tokio::time::timeout;

/// Dead letters that are handled at once.
const AT_ONCE: i64 = 100;

/// Most bytes that are read at once.
const FETCH_BYTES: i32 = 1024 * 1024;

/// Moves dead letters from the ledger to their topic. Who dies after producing and before dropping
/// produces again: a dead letter may be there twice, and is never lost.
pub(crate) async fn forward(client: Arc<Client>, settings: &arguments::Kafka, ledger: &Ledger) -> Result<()> {
    let dead = ledger.dead(AT_ONCE, false).await?;
    if dead.is_empty() {
        return Ok(());
    }
    let mut topic = Topic::new(client, settings.dlq_topic.clone());
    let partitions = timeout(DEADLINE, brokers::ensure_topic(&topic.client, settings, &topic.name)).await??;
    for (id, Dead { mut record, reason, died_at }) in dead {
        record.headers.push((REASON.to_owned(), reason));
        record.headers.push((DIED_AT.to_owned(), rfc3339(died_at)));
        match topic.produce(partitions, record).await {
            Ok(()) => ledger.drop_dead(&[id]).await?,
            // It shall not hold up the others.
            Err(NotProduced::Refused(reason)) => {
                tracing::error!(
                    id,
                    "the dead-letter topic refuses a letter, which stays in the ledger: {reason}"
                );
                ledger.park(id).await?;
            }
            Err(NotProduced::Away(error)) => return Err(error),
        }
    }
    Ok(())
}

/// `relay dlq`
pub(crate) async fn run(command: Dlq) -> Result<()> {
    match command {
        Dlq::List(arguments) => {
            for (place, dead) in letters(&arguments).await? {
                print(&place, &dead)?;
            }
            Ok(())
        }
        Dlq::Replay { common, id } => {
            let letters = letters(&common).await?;
            let wanted = |dead: &Dead| id.as_deref().is_none_or(|id| dead.record.header("ce_id") == Some(id));
            let chosen: Vec<_> = letters.into_iter().filter(|(_, dead)| wanted(dead)).collect();
            let keys = common.signing.keys()?.unwrap_or_else(EventKeys::development);
            let chosen = worth_replaying(chosen, &keys);
            if let (Some(id), true) = (&id, chosen.is_empty()) {
                bail!("no dead event that can be replayed has the id {id}; see: relay dlq list");
            }
            let count = chosen.len();
            replay(&common, chosen).await?;
            writeln!(std::io::stdout(), "{}", json!({ "replayed": count }))?;
            Ok(())
        }
    }
}

/// Where a dead letter is.
enum Place {
    Topic { partition: i32, offset: i64 },
    Ledger(i64),
}

async fn letters(arguments: &DlqArguments) -> Result<Vec<(Place, Dead)>> {
    let mut letters = Vec::new();
    let with_kafka = !arguments.kafka.brokers()?.is_empty();
    // With Kafka, what is on its way to the topic, or does not fit there.
    match Ledger::open_existing(&arguments.state).await {
        Ok(ledger) => {
            let dead = ledger.dead(i64::MAX, true).await?;
            letters.extend(dead.into_iter().map(|(id, dead)| (Place::Ledger(id), dead)));
        }
        // Whoever asks from another machine need not have it, but should know.
        Err(error) if with_kafka && arguments.state.database()?.is_none() => {
            tracing::warn!("what is on the topic is all that is looked at: {error:#}");
        }
        Err(error) => return Err(error),
    }
    if !with_kafka {
        return Ok(letters);
    }
    let client = timeout(DEADLINE * 2, brokers::connect(&arguments.kafka)).await??;
    let name = &arguments.kafka.dlq_topic;
    let Some(partitions) = timeout(DEADLINE, brokers::partitions(&client, name)).await?? else {
        return Ok(letters);
    };
    let mut topic = Topic::new(Arc::new(client), name.clone());
    for partition in 0..partitions {
        let opened = topic.partition(partition).await?;
        let mut next = timeout(DEADLINE, opened.get_offset(OffsetAt::Earliest)).await??;
        let end = timeout(DEADLINE, opened.get_offset(OffsetAt::Latest)).await??;
        while next < end {
            let (records, _) = timeout(DEADLINE, opened.fetch_records(next, 1..FETCH_BYTES, 500)).await??;
            let Some(last) = records.last() else { break };
            next = last.offset + 1;
            letters.extend(records.into_iter().map(|read| {
                let place = Place::Topic { partition, offset: read.offset };
                let written_at = read.record.timestamp.timestamp_millis();
                let mut record = from_kafka(read.record);
                let died_at = record.header(DIED_AT).and_then(parse_rfc3339).unwrap_or(written_at);
                let reason = record.header(REASON).unwrap_or("unknown").to_owned();
                record.headers.retain(|(name, _)| name != REASON && name != DIED_AT);
                (place, Dead::new(record, reason, died_at))
            }));
        }
    }
    Ok(letters)
}

/// The newest letter of each event, without those that are no events or not the component's: they would only die
/// again.
fn worth_replaying(letters: Vec<(Place, Dead)>, keys: &EventKeys) -> Vec<(Place, Dead)> {
    let mut newest: BTreeMap<String, (Place, Dead)> = BTreeMap::new();
    for (place, dead) in letters {
        let Ok(event) = dead.record.event() else {
            tracing::warn!(reason = dead.reason, "not replayed: it is no event");
            continue;
        };
        if let Err(error) = event.check_signature(keys) {
            tracing::warn!(id = event.id, "not replayed: {error} (RELAY_EVENT_KEYS)");
            continue;
        }
        let older = newest.get(&event.id).is_some_and(|(_, other)| other.died_at > dead.died_at);
        if !older {
            newest.insert(event.id, (place, dead));
        }
    }
    newest.into_values().collect()
}

/// Puts letters back. Each goes on with the note that it is wanted again; without it the consumer, which
/// has seen its id, would pass it over.
async fn replay(arguments: &DlqArguments, letters: Vec<(Place, Dead)>) -> Result<()> {
    let mut kafka = None;
    for (place, Dead { mut record, .. }) in letters {
        record.headers.retain(|(name, _)| name != AGAIN);
        record.headers.push((AGAIN.to_owned(), "1".to_owned()));
        match place {
            Place::Ledger(id) => {
                let ledger = Ledger::open_existing(&arguments.state).await?;
                let event = Box::new(record.event()?);
                let read = [Read::Event { event, again: true }];
                ledger.take(&[Part { position: None, read: &read }]).await?;
                ledger.drop_dead(&[id]).await?;
            }
            Place::Topic { .. } => {
                if kafka.is_none() {
                    kafka = Some(topic(arguments, &arguments.kafka.topic).await?);
                }
                if let Some((topic, partitions)) = &mut kafka {
                    topic.produce(*partitions, record).await?;
                }
            }
        }
    }
    Ok(())
}

/// One line of JSON. The data stays out of it: it holds the number.
fn print(place: &Place, dead: &Dead) -> Result<()> {
    let header = |name: &str| dead.record.header(name);
    let mut line = json!({
        "id": header("ce_id"),
        "type": header("ce_type"),
        "subject": header("ce_subject"),
        "reason": dead.reason,
        "diedAt": rfc3339(dead.died_at),
    });
    match place {
        Place::Topic { partition, offset } => {
            line["partition"] = json!(partition);
            line["offset"] = json!(offset);
        }
        Place::Ledger(id) => line["ledger"] = json!(id),
    }
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

async fn topic(arguments: &DlqArguments, name: &str) -> Result<(Topic, i32)> {
    let client = timeout(DEADLINE * 2, brokers::connect(&arguments.kafka)).await??;
    let partitions = timeout(DEADLINE * 2, brokers::ensure_topic(&client, &arguments.kafka, name)).await??;
    Ok((Topic::new(Arc::new(client), name.to_owned()), partitions))
}

/// Why a letter is not on its topic.
#[derive(Debug, thiserror::Error)]
enum NotProduced {
    /// It will never be.
    #[error("{0}")]
    Refused(String),
    /// It may be later.
    #[error(transparent)]
    Away(#[from] anyhow::Error),
}

/// A topic whose partitions are opened as they are needed.
struct Topic {
    client: Arc<Client>,
    name: String,
    open: HashMap<i32, Arc<PartitionClient>>,
}

impl Topic {
    fn new(client: Arc<Client>, name: String) -> Self {
        Self { client, name, open: HashMap::new() }
    }

    async fn partition(&mut self, partition: i32) -> Result<Arc<PartitionClient>> {
        if let Some(open) = self.open.get(&partition) {
            return Ok(Arc::clone(open));
        }
        let opening = self.client.partition_client(&self.name, partition, UnknownTopicHandling::Error);
        let opened = Arc::new(timeout(DEADLINE, opening).await??);
        self.open.insert(partition, Arc::clone(&opened));
        Ok(opened)
    }

    async fn produce(&mut self, partitions: i32, record: Record) -> Result<(), NotProduced> {
        let partition = partition_of(record.key.as_bytes(), partitions);
        let opened = self.partition(partition).await?;
        let producing = opened.produce(vec![to_kafka(record)], Compression::NoCompression);
        match timeout(DEADLINE, producing).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(match brokers::refusal(&error) {
                Some(reason) => NotProduced::Refused(reason),
                None => NotProduced::Away(error.into()),
            }),
            Err(elapsed) => Err(NotProduced::Away(elapsed.into())),
        }
    }
}
