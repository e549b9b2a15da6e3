//! Kafka, by rskafka: a task a partition that produces, and one that reads.

use super::Kept;
use crate::{
    arguments,
    brokers::{self, DEADLINE, from_kafka, to_kafka},
    consumer::Consumer,
    dlq,
    ledger::{Position, Read},
    metrics::Metrics,
    murmur2::partition_of,
    stop::Stop,
};
use anyhow::Result;
use otp_events::{Event, Record};
use rskafka::client::{
    Client,
    error::{Error, ProtocolError},
    partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{sleep, timeout},
};

/// Between two attempts to reach brokers that are away.
const RECONNECT: Duration = Duration::from_millis(500);

/// How long the broker holds back an answer while there is nothing to read, in milliseconds.
const MAX_WAIT: i32 = 500;

/// Most bytes that are read at once from a partition.
const FETCH_BYTES: i32 = 2 * 1024 * 1024;

/// Most bytes that are produced at once: well below the megabyte that brokers take by default.
const PRODUCE_BYTES: usize = 600 * 1024;

/// Batches that wait for a partition. More are turned away, so that memory stays bounded.
const QUEUE: usize = 64;

/// The topic of events.
#[derive(Debug)]
pub(crate) struct Kafka {
    settings: arguments::Kafka,
    /// The partitions, once the brokers were reached.
    producers: OnceLock<Vec<Producer>>,
    up: AtomicBool,
    metrics: Arc<Metrics>,
}

/// Where a partition's records are handed in.
#[derive(Debug)]
struct Producer {
    queue: mpsc::Sender<Pending>,
}

/// Records that wait to be produced, and who wants to know.
struct Pending {
    records: Vec<rskafka::record::Record>,
    done: oneshot::Sender<Vec<Kept>>,
}

impl Kafka {
    pub(crate) fn new(settings: arguments::Kafka, metrics: Arc<Metrics>) -> Self {
        Self { settings, producers: OnceLock::new(), up: AtomicBool::new(false), metrics }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    fn set_up(&self, up: bool) {
        self.metrics.bus_up.set(i64::from(up));
        if self.up.swap(up, Ordering::Relaxed) != up {
            if up {
                tracing::info!("the brokers are there");
            } else {
                tracing::warn!("the brokers are away; events wait where they are");
            }
        }
    }

    /// Hands over events, each to its number's partition.
    pub(super) async fn publish(&self, events: &[Event]) -> Vec<Kept> {
        let Some(producers) = self.producers.get() else { return vec![Kept::NotNow; events.len()] };
        let partitions = i32::try_from(producers.len()).unwrap_or(i32::MAX);
        let mut parts: BTreeMap<usize, (Vec<usize>, Vec<rskafka::record::Record>)> = BTreeMap::new();
        for (index, event) in events.iter().enumerate() {
            let record = Record::from(event);
            let partition =
                usize::try_from(partition_of(record.key.as_bytes(), partitions)).unwrap_or_default();
            let part = parts.entry(partition).or_default();
            part.0.push(index);
            part.1.push(to_kafka(record));
        }
        let mut kept = vec![Kept::NotNow; events.len()];
        let mut waiting = Vec::new();
        for (partition, (indices, records)) in parts {
            let (done, outcome) = oneshot::channel();
            // A queue that is full is a broker that does not keep up.
            if producers[partition].queue.try_send(Pending { records, done }).is_ok() {
                waiting.push((indices, outcome));
            }
        }
        for (indices, outcome) in waiting {
            for (index, outcome) in indices.into_iter().zip(outcome.await.unwrap_or_default()) {
                kept[index] = outcome;
            }
        }
        kept
    }

    /// Reaches the brokers, makes missing topics, and then produces and consumes until told to stop.
    pub(crate) async fn run(self: Arc<Self>, consumer: Consumer, stop: Stop) {
        let client = loop {
            match timeout(DEADLINE * 2, self.connect()).await {
                Ok(Ok(connected)) => break connected,
                Ok(Err(error)) => tracing::warn!("the brokers cannot be reached: {error:#}; trying again"),
                Err(_) => tracing::warn!("the brokers do not answer; trying again"),
            }
            tokio::select! {
                () = sleep(RECONNECT) => {}
                () = stop.stopped() => return,
            }
        };
        let (client, partitions) = client;
        let mut tasks = JoinSet::new();
        tasks.spawn(dlq::forward(
            Arc::clone(&client),
            self.settings.clone(),
            consumer.ledger(),
            stop.clone(),
        ));
        let mut producers = Vec::new();
        for partition in 0..partitions {
            let (queue, pending) = mpsc::channel(QUEUE);
            producers.push(Producer { queue });
            let (kafka, client, stop) = (Arc::clone(&self), Arc::clone(&client), stop.clone());
            let consumer = consumer.clone();
            tasks.spawn(Arc::clone(&kafka).produce(Arc::clone(&client), partition, pending, stop.clone()));
            tasks.spawn(kafka.consume(client, partition, consumer, stop));
        }
        if self.producers.set(producers).is_ok() {
            self.set_up(true);
        }
        tracing::info!(topic = self.settings.topic, partitions, "connected to Kafka");
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!("a partition's task failed: {error}");
            }
        }
    }

    /// A client, and how many partitions the topic has.
    async fn connect(&self) -> Result<(Arc<Client>, i32)> {
        let client = brokers::connect(&self.settings).await?;
        let partitions = brokers::ensure_topic(&client, &self.settings, &self.settings.topic).await?;
        brokers::ensure_topic(&client, &self.settings, &self.settings.dlq_topic).await?;
        Ok((Arc::new(client), partitions))
    }

    async fn partition(&self, client: &Client, partition: i32) -> Result<PartitionClient, Error> {
        client.partition_client(&self.settings.topic, partition, UnknownTopicHandling::Error).await
    }

    /// Produces what is handed in. While one batch is under way the next one gathers, so that each goes
    /// as soon as it can and none waits for company.
    async fn produce(
        self: Arc<Self>,
        client: Arc<Client>,
        partition: i32,
        mut pending: mpsc::Receiver<Pending>,
        stop: Stop,
    ) {
        let mut open = None;
        loop {
            let first = tokio::select! {
                first = pending.recv() => first,
                () = stop.drained() => None,
            };
            let Some(first) = first else { return };
            let mut batch = vec![first];
            let mut size = batch[0].size();
            while size < PRODUCE_BYTES {
                let Ok(next) = pending.try_recv() else { break };
                size += next.size();
                batch.push(next);
            }
            let (records, waiting): (Vec<_>, Vec<_>) =
                batch.into_iter().map(|pending| (pending.records, pending.done)).unzip();
            let sizes: Vec<_> = records.iter().map(Vec::len).collect();
            let mut kept =
                self.produce_all(&client, &mut open, partition, records.concat()).await.into_iter();
            for (done, size) in waiting.into_iter().zip(sizes) {
                // Whoever wanted to know may have gone.
                let _ = done.send(kept.by_ref().take(size).collect());
            }
        }
    }

    /// Produces records in as few requests as their size allows.
    async fn produce_all(
        &self,
        client: &Client,
        open: &mut Option<PartitionClient>,
        partition: i32,
        records: Vec<rskafka::record::Record>,
    ) -> Vec<Kept> {
        let mut kept = Vec::with_capacity(records.len());
        let mut rest = records.into_iter().peekable();
        while rest.peek().is_some() {
            let mut size = 0;
            let mut part = Vec::new();
            while let Some(record) =
                rest.next_if(|record| part.is_empty() || size + record.approximate_size() < PRODUCE_BYTES)
            {
                size += record.approximate_size();
                part.push(record);
            }
            let outcome = self.produce_once(client, open, partition, part.clone()).await;
            self.set_up(outcome != Kept::NotNow);
            match outcome {
                // One of them is to blame, and the broker does not say which.
                Kept::Never(_) if part.len() > 1 => {
                    for record in part {
                        kept.push(self.produce_once(client, open, partition, vec![record]).await);
                    }
                }
                outcome => kept.extend(std::iter::repeat_n(outcome, part.len())),
            }
        }
        kept
    }

    async fn produce_once(
        &self,
        client: &Client,
        open: &mut Option<PartitionClient>,
        partition: i32,
        records: Vec<rskafka::record::Record>,
    ) -> Kept {
        let work = async {
            let opened = match open.take() {
                Some(opened) => opened,
                None => self.partition(client, partition).await?,
            };
            // rskafka asks for all in-sync replicas (acks = -1).
            opened.produce(records, Compression::NoCompression).await?;
            Ok::<_, Error>(opened)
        };
        match timeout(DEADLINE, work).await {
            Ok(Ok(opened)) => {
                *open = Some(opened);
                Kept::Yes
            }
            Ok(Err(Error::ServerError {
                protocol_error:
                    reason @ (ProtocolError::MessageTooLarge
                    | ProtocolError::RecordListTooLarge
                    | ProtocolError::InvalidRecord),
                ..
            })) => Kept::Never(format!("the broker refuses it: {reason}")),
            Ok(Err(error)) => {
                tracing::debug!(partition, "cannot produce: {error}");
                Kept::NotNow
            }
            Err(_) => Kept::NotNow,
        }
    }

    /// Reads a partition from where the ledger says, and goes on only when what was read is written down.
    async fn consume(self: Arc<Self>, client: Arc<Client>, partition: i32, consumer: Consumer, stop: Stop) {
        let topic = self.settings.topic.clone();
        let lag = self.metrics.lag.with_label_values(&[&partition.to_string()]);
        let mut reader = Reader { client, topic, partition, open: None, next: None, lag };
        loop {
            let read = tokio::select! {
                read = reader.read(&self, &consumer) => read,
                () = stop.stopped() => return,
            };
            let done = match read {
                Ok(None) => Ok(()),
                Ok(Some((next, records))) => {
                    let read: Vec<_> = records.into_iter().map(Read::from_record).collect();
                    let position = Position { topic: &reader.topic, partition, next };
                    // Not raced against the end: what has begun is written down.
                    let taken = consumer.take(Some(position), &read).await;
                    if taken.is_ok() {
                        reader.next = Some(next);
                    }
                    taken
                }
                Err(error) => {
                    self.set_up(false);
                    Err(error)
                }
            };
            if let Err(error) = done {
                tracing::debug!(partition, "cannot read: {error:#}");
                reader.open = None;
                tokio::select! {
                    () = sleep(RECONNECT) => {}
                    () = stop.stopped() => return,
                }
            }
        }
    }
}

/// Reads one partition.
struct Reader {
    client: Arc<Client>,
    topic: String,
    partition: i32,
    open: Option<PartitionClient>,
    next: Option<i64>,
    lag: prometheus::IntGauge,
}

impl Reader {
    /// What comes next, and where to go on after it; `None` while there is nothing.
    async fn read(&mut self, kafka: &Kafka, consumer: &Consumer) -> Result<Option<(i64, Vec<Record>)>> {
        let opened = match &self.open {
            Some(opened) => opened,
            None => {
                let opened = timeout(DEADLINE, kafka.partition(&self.client, self.partition)).await??;
                self.open.insert(opened)
            }
        };
        let next = match self.next {
            Some(next) => next,
            None => match consumer.next_offset(&self.topic, self.partition).await? {
                Some(next) => next,
                None => timeout(DEADLINE, opened.get_offset(OffsetAt::Earliest)).await??,
            },
        };
        self.next = Some(next);
        let (records, end) =
            match timeout(DEADLINE, opened.fetch_records(next, 1..FETCH_BYTES, MAX_WAIT)).await? {
                Ok(fetched) => fetched,
                Err(Error::ServerError { protocol_error: ProtocolError::OffsetOutOfRange, .. }) => {
                    let earliest = timeout(DEADLINE, opened.get_offset(OffsetAt::Earliest)).await??;
                    let latest = timeout(DEADLINE, opened.get_offset(OffsetAt::Latest)).await??;
                    tracing::error!(
                        partition = self.partition,
                        offset = next,
                        earliest,
                        latest,
                        "the topic no longer has this offset; reading from the earliest that there is"
                    );
                    kafka.metrics.offsets_lost.inc();
                    self.next = Some(earliest);
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            };
        kafka.set_up(true);
        let after = records.last().map(|last| last.offset + 1);
        self.lag.set((end - after.unwrap_or(next)).max(0));
        Ok(after.map(|after| (after, records.into_iter().map(|read| from_kafka(read.record)).collect())))
    }
}

impl Pending {
    fn size(&self) -> usize {
        self.records.iter().map(rskafka::record::Record::approximate_size).sum()
    }
}
