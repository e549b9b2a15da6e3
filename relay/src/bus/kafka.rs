//! Kafka, by rskafka: a task a partition that produces, and one that reads as long as the partition is this
//! relay's.

mod leases;

use super::kept::Kept;
use crate::{
    arguments,
    brokers::{self, DEADLINE, from_kafka, to_kafka},
    consumer::Consumer,
    dead::Dead,
    dlq,
    ledger::{Ledger, NotNow, Read},
    metrics::{Lag, Metrics},
    moment::now,
    murmur2::partition_of,
    stop::Stop,
    takes::Place,
};
use anyhow::{Context, Result, bail};
use leases::{Lease, Leases};
use otp_events::{Event, Record};
use rskafka::client::{
    Client,
    error::{Error, ProtocolError, RequestError},
    partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};

/// Between two attempts to reach brokers that are away.
const RECONNECT: Duration = Duration::from_millis(500);

/// Most different reasons that are logged in thirty attempts.
const REASONS: usize = 4;

/// How long the broker holds back an answer while there is nothing to read, in milliseconds.
const MAX_WAIT: i32 = 500;

/// Most bytes that are read at once from a partition.
const FETCH_BYTES: i32 = 2 * 1024 * 1024;

/// What the library says of the mark that a transaction leaves behind, which is no record and which it
/// cannot decode.
const MARKER: &str = "control batch";

/// So few bytes that a broker gives a single batch.
const ONE_BATCH: i32 = 2;

/// Most bytes that are produced at once: well below the megabyte that brokers take by default.
const PRODUCE_BYTES: usize = 600 * 1024;

/// A partition is produced to at most once in each of these periods, which are the same for all partitions. Under load,
/// events gather, so that one produce request, one fetch response and one transaction of the ledger carry many. A single
/// event is produced at once. In milliseconds; a second has a whole number of them.
const PERIOD: u32 = 25;

/// Between two looks at how the brokers do, and after how many bad ones a new client is made.
const LOOK: Duration = Duration::from_secs(1);
const PATIENCE: u32 = 5;

/// How many looks there are between two at how many partitions there are.
const RECOUNT: u32 = 10;

/// How long a batch waits for a partition, and for one that was down a moment ago: the other partitions' events are not
/// to wait for it. Less than the intake waits in all.
const ANSWER: Duration = Duration::from_secs(5);
const ANSWER_OF_ONE_DOWN: Duration = Duration::from_secs(1);

/// Between two looks at a partition that another relay reads.
const STAND_BY: Duration = Duration::from_secs(2);

/// After how many failures in a row a record counts as undecodable.
const STRIKES: u32 = 3;

/// Batches that wait for a partition. More are turned away, so that memory stays bounded.
const QUEUE: usize = 64;

/// The topic of events.
#[derive(Debug)]
pub(crate) struct Kafka {
    settings: arguments::Kafka,
    /// The partitions, once the brokers were reached.
    producers: OnceLock<Vec<Producer>>,
    /// Replaced when the brokers have been away for long: rskafka keeps to connections and addresses that
    /// may never work again.
    client: RwLock<Option<Arc<Client>>>,
    /// Partitions that cannot be written to or read. One of them closes nothing but itself.
    down: Mutex<BTreeSet<i32>>,
    up: AtomicBool,
    /// Which partitions are read, once the brokers were reached.
    leases: OnceLock<Arc<Leases>>,
    /// Told whenever the brokers are there again.
    back: Arc<Notify>,
    metrics: Arc<Metrics>,
    /// When the first of the periods in which batches are produced began.
    begun: Instant,
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
    pub(crate) fn new(settings: arguments::Kafka, metrics: Arc<Metrics>, back: Arc<Notify>) -> Self {
        Self {
            settings,
            producers: OnceLock::new(),
            client: RwLock::new(None),
            down: Mutex::default(),
            up: AtomicBool::new(false),
            leases: OnceLock::new(),
            back,
            metrics,
            begun: Instant::now(),
        }
    }

    pub(crate) fn topic(&self) -> &str {
        &self.settings.topic
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// How many partitions this relay reads, and how many there are.
    pub(super) fn partitions(&self) -> Option<(i64, usize)> {
        self.producers.get().map(|producers| (self.metrics.partitions_owned.get(), producers.len()))
    }

    fn down(&self) -> MutexGuard<'_, BTreeSet<i32>> {
        self.down.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how a partition does; the brokers count as away when all are down.
    fn mark(&self, partition: i32, works: bool) {
        let down = {
            let mut down = self.down();
            let changed = if works { down.remove(&partition) } else { down.insert(partition) };
            if !changed {
                return;
            }
            down.len()
        };
        self.set_up(self.producers.get().is_some_and(|producers| down < producers.len()));
    }

    fn set_up(&self, up: bool) {
        self.metrics.bus_up.set(i64::from(up));
        if self.up.swap(up, Ordering::Relaxed) != up {
            if up {
                tracing::info!("the brokers are there");
                self.back.notify_one();
            } else {
                tracing::warn!("the brokers are away; events wait where they are");
            }
        }
    }

    fn client(&self) -> Result<Arc<Client>> {
        let client = self.client.read().unwrap_or_else(PoisonError::into_inner);
        client.clone().context("the brokers were not reached yet")
    }

    fn set_client(&self, client: Client) {
        *self.client.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(client));
    }

    /// Hands over events, each to its number's partition.
    pub(super) async fn publish(&self, events: &[Event]) -> Vec<Kept> {
        let Some(producers) = self.producers.get() else { return vec![Kept::NotNow; events.len()] };
        let partitions = i32::try_from(producers.len()).unwrap_or(i32::MAX);
        let mut parts: BTreeMap<i32, (Vec<usize>, Vec<rskafka::record::Record>)> = BTreeMap::new();
        for (index, event) in events.iter().enumerate() {
            let record = Record::from(event);
            let part = parts.entry(partition_of(record.key.as_bytes(), partitions)).or_default();
            part.0.push(index);
            part.1.push(to_kafka(record));
        }
        let mut kept = vec![Kept::NotNow; events.len()];
        let mut waiting = Vec::new();
        let (now, down) = (Instant::now(), self.down().clone());
        for (partition, (indices, records)) in parts {
            let Some(producer) = usize::try_from(partition).ok().and_then(|place| producers.get(place))
            else {
                continue;
            };
            let (done, outcome) = oneshot::channel();
            // A queue that is full is a broker that does not keep up.
            if producer.queue.try_send(Pending { records, done }).is_ok() {
                let patience = if down.contains(&partition) { ANSWER_OF_ONE_DOWN } else { ANSWER };
                waiting.push((indices, timeout_at(now + patience, outcome)));
            }
        }
        for (indices, outcome) in waiting {
            // One that is not known in time is sent again, and if it is kept after all it is there twice: the ledger
            // knows it by its id.
            let Ok(Ok(outcomes)) = outcome.await else { continue };
            for (index, outcome) in indices.into_iter().zip(outcomes) {
                kept[index] = outcome;
            }
        }
        kept
    }

    /// Reaches the brokers, makes missing topics, and then produces and consumes until told to stop.
    pub(crate) async fn run(self: Arc<Self>, consumer: Consumer, stop: Stop) {
        let mut attempts = 0_u32;
        let mut told = BTreeSet::new();
        let partitions = loop {
            let reason = match timeout(DEADLINE * 2, self.connect()).await {
                Ok(Ok(partitions)) => break partitions,
                Ok(Err(error)) => format!("{error:#}"),
                Err(_) => "no answer".to_owned(),
            };
            // Each reason is logged once in thirty attempts. A reason with a changing text must not fill the log.
            if attempts.is_multiple_of(30) {
                told.clear();
            }
            if told.len() < REASONS && told.insert(reason.clone()) {
                tracing::warn!(
                    "the brokers cannot be reached, trying again; check KAFKA_BROKERS, KAFKA_TLS, KAFKA_CA_FILE \
                     and KAFKA_SASL_MECHANISM, _USERNAME and _PASSWORD: {reason}"
                );
            }
            attempts += 1;
            tokio::select! {
                () = sleep(RECONNECT) => {}
                () = stop.stopped() => return,
            }
        };
        let mut tasks = JoinSet::new();
        let mut producers = Vec::new();
        let leases = Leases::new(self.settings.topic.clone(), partitions, consumer.clone(), &self.metrics);
        let leases = Arc::clone(self.leases.get_or_init(|| Arc::new(leases)));
        for partition in 0..partitions {
            let (queue, pending) = mpsc::channel(QUEUE);
            producers.push(Producer { queue });
            tasks.spawn(Arc::clone(&self).produce(partition, pending, stop.clone()));
            tasks.spawn(Arc::clone(&self).consume(partition, consumer.clone(), stop.clone()));
        }
        if self.producers.set(producers).is_ok() {
            self.set_up(true);
        }
        let kafka = Arc::clone(&self);
        tasks.spawn(leases.run(move || kafka.is_up(), stop.clone()));
        tasks.spawn(Arc::clone(&self).forward_dead(consumer.ledger(), stop.clone()));
        tasks.spawn(Arc::clone(&self).look_after(partitions, stop));
        tracing::info!(topic = self.settings.topic, partitions, "connected to Kafka");
        while let Some(ended) = tasks.join_next().await {
            // A partition without its task would be silent for ever.
            if let Some(panic) = ended.err().and_then(|error| error.try_into_panic().ok()) {
                std::panic::resume_unwind(panic);
            }
        }
    }

    /// Makes a client, and tells how many partitions the topic has.
    async fn connect(&self) -> Result<i32> {
        let client = brokers::connect(&self.settings).await?;
        let partitions = brokers::ensure_topic(&client, &self.settings, &self.settings.topic).await?;
        brokers::ensure_topic(&client, &self.settings, &self.settings.dlq_topic).await?;
        self.set_client(client);
        Ok(partitions)
    }

    /// Makes a new client while a partition stays away from the old one, which asks nobody else who leads it as long
    /// as the leader that it knows says nothing at all. Ends the relay when the topic has got more partitions: nobody
    /// would read some of them, where relays know of different numbers.
    async fn look_after(self: Arc<Self>, partitions: i32, stop: Stop) {
        let (mut away, mut looks) = (0, 0_u32);
        loop {
            tokio::select! {
                () = sleep(LOOK) => {}
                () = stop.stopped() => return,
            }
            away = if self.down().is_empty() { 0 } else { away + 1 };
            if away >= PATIENCE
                && let Ok(Ok(client)) = timeout(DEADLINE, brokers::reconnect(&self.settings)).await
            {
                self.set_client(client);
                away = 0;
            }
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(RECOUNT)
                && let Some(now) = self.count().await
                && now != partitions
            {
                let topic = &self.settings.topic;
                stop.fail(format!(
                    "the topic {topic} has {now} partitions, and had {partitions} when this relay began: start it again"
                ));
            }
        }
    }

    /// How many partitions the topic has, if somebody says so.
    async fn count(&self) -> Option<i32> {
        let client = self.client().ok()?;
        timeout(DEADLINE, brokers::partitions(&client, &self.settings.topic)).await.ok()?.ok()?
    }

    /// Moves dead letters to their topic until told to stop.
    async fn forward_dead(self: Arc<Self>, ledger: Ledger, stop: Stop) {
        loop {
            tokio::select! {
                () = sleep(LOOK) => {}
                () = stop.stopped() => return,
            }
            // One relay is enough for that; the one that reads the first partition.
            if !self.leases.get().is_some_and(|leases| leases.holds(0)) {
                continue;
            }
            let forwarded = match self.client() {
                Ok(client) => dlq::forward(client, &self.settings, &ledger).await,
                Err(error) => Err(error),
            };
            if let Err(error) = forwarded {
                tracing::debug!("dead letters stay in the ledger: {error:#}");
            }
        }
    }

    async fn partition(&self, partition: i32) -> Result<PartitionClient> {
        let client = self.client()?;
        let opening = client.partition_client(&self.settings.topic, partition, UnknownTopicHandling::Error);
        Ok(timeout(DEADLINE, opening).await??)
    }

    /// Produces what is handed in. While one batch is under way the next one gathers, and until its period begins.
    async fn produce(self: Arc<Self>, partition: i32, mut pending: mpsc::Receiver<Pending>, stop: Stop) {
        let (mut open, mut next) = (None, Duration::ZERO);
        loop {
            let first = tokio::select! {
                first = pending.recv() => first,
                () = stop.drained() => None,
            };
            let Some(first) = first else { return };
            sleep(next.saturating_sub(self.begun.elapsed())).await;
            next = next_period(self.begun.elapsed());
            let mut batch = vec![first];
            let mut size = batch[0].size();
            while size < PRODUCE_BYTES {
                let Ok(next) = pending.try_recv() else { break };
                size += next.size();
                batch.push(next);
            }
            // Whoever gave up waiting sends it again, and would have it twice.
            batch.retain(|pending| !pending.done.is_closed());
            let (records, waiting): (Vec<_>, Vec<_>) =
                batch.into_iter().map(|pending| (pending.records, pending.done)).unzip();
            let sizes: Vec<_> = records.iter().map(Vec::len).collect();
            let mut kept = self.produce_all(&mut open, partition, records.concat()).await.into_iter();
            for (done, size) in waiting.into_iter().zip(sizes) {
                // Whoever wanted to know may have gone.
                let _ = done.send(kept.by_ref().take(size).collect());
            }
        }
    }

    /// Produces records in as few requests as their size allows.
    async fn produce_all(
        &self,
        open: &mut Option<PartitionClient>,
        partition: i32,
        records: Vec<rskafka::record::Record>,
    ) -> Vec<Kept> {
        let mut kept = Vec::with_capacity(records.len());
        let mut rest = records.into_iter().peekable();
        while rest.peek().is_some() {
            let mut size = 0;
            let mut part = Vec::new();
            let fits = |size: usize, record: &rskafka::record::Record| {
                size == 0 || size + record.approximate_size() < PRODUCE_BYTES
            };
            while let Some(record) = rest.next_if(|record| fits(size, record)) {
                size += record.approximate_size();
                part.push(record);
            }
            let outcome = self.produce_once(open, partition, part.clone()).await;
            self.mark(partition, outcome != Kept::NotNow);
            match outcome {
                // One of them is to blame, and the broker does not say which.
                Kept::Never(_) if part.len() > 1 => {
                    let mut away = false;
                    for record in part {
                        let outcome = match away {
                            true => Kept::NotNow,
                            false => self.produce_once(open, partition, vec![record]).await,
                        };
                        away = outcome == Kept::NotNow;
                        kept.push(outcome);
                    }
                }
                outcome => kept.extend(std::iter::repeat_n(outcome, part.len())),
            }
            if kept.last() == Some(&Kept::NotNow) {
                // What comes after it would only wait as long again.
                kept.extend(rest.by_ref().map(|_| Kept::NotNow));
            }
        }
        kept
    }

    async fn produce_once(
        &self,
        open: &mut Option<PartitionClient>,
        partition: i32,
        records: Vec<rskafka::record::Record>,
    ) -> Kept {
        let opened = match open.take() {
            Some(opened) => opened,
            None => match self.partition(partition).await {
                Ok(opened) => opened,
                Err(error) => {
                    tracing::debug!(partition, "cannot produce: {error:#}");
                    return Kept::NotNow;
                }
            },
        };
        // rskafka asks for all in-sync replicas (acks = -1).
        match timeout(DEADLINE, opened.produce(records, Compression::NoCompression)).await {
            Ok(Ok(_)) => {
                *open = Some(opened);
                Kept::Yes
            }
            Ok(Err(error)) => brokers::refusal(&error).map_or_else(
                || {
                    tracing::debug!(partition, "cannot produce: {error}");
                    Kept::NotNow
                },
                Kept::Never,
            ),
            Err(_) => Kept::NotNow,
        }
    }

    /// Reads a partition whenever it is this relay's, until told to stop.
    async fn consume(self: Arc<Self>, partition: i32, consumer: Consumer, stop: Stop) {
        let Some(leases) = self.leases.get().cloned() else { return };
        let mut lease = leases.of(partition);
        loop {
            let epoch = tokio::select! {
                epoch = self.stand_by(partition, &mut lease) => epoch,
                () = stop.stopped() => return,
            };
            self.read_on(partition, epoch, &mut lease, &consumer, &stop).await;
            // Somebody else says from now on how much is still to be read.
            self.metrics.forget_lag(partition);
            if stop.is_stopping() {
                return;
            }
            leases.done_with(partition, epoch).await;
        }
    }

    /// Waits until a partition is this relay's, and looks meanwhile how it does: events are produced to it.
    async fn stand_by(&self, partition: i32, lease: &mut watch::Receiver<Lease>) -> i64 {
        let looking = async {
            loop {
                sleep(STAND_BY).await;
                let looked = async {
                    let opened = self.partition(partition).await?;
                    anyhow::Ok(timeout(DEADLINE, opened.get_offset(OffsetAt::Latest)).await??)
                };
                let looked = looked.await;
                self.mark(partition, looked.is_ok());
            }
        };
        tokio::pin!(looking);
        loop {
            let now = *lease.borrow_and_update();
            if let Lease::Held(epoch) | Lease::GivingUp(epoch) = now {
                return epoch;
            }
            tokio::select! {
                () = changed(lease) => {}
                () = &mut looking => {}
            }
        }
    }

    /// Reads a partition from where the ledger says, and goes on only when what was read is written down.
    async fn read_on(
        &self,
        partition: i32,
        epoch: i64,
        lease: &mut watch::Receiver<Lease>,
        consumer: &Consumer,
        stop: &Stop,
    ) {
        let topic = self.settings.topic.clone();
        let lag = self.metrics.lag_of(partition);
        let mut reader =
            Reader { topic, partition, epoch, open: None, next: None, lag, bytes: FETCH_BYTES, strikes: 0 };
        loop {
            let read = tokio::select! {
                read = reader.read(self, consumer) => read,
                () = over(lease, epoch) => return,
                () = stop.stopped() => return,
            };
            let done = match read {
                Ok(None) => Ok(()),
                // Not raced against the end: what has begun is written down.
                Ok(Some((next, read))) => reader.take(consumer, next, read).await,
                Err(NotRead::Unreadable(reason)) => reader.step_over(consumer, &reason).await,
                Err(NotRead::NoPlace(error)) => Err(error),
                Err(NotRead::Away(error)) => {
                    self.mark(partition, false);
                    Err(error)
                }
            };
            if let Err(error) = done {
                tracing::debug!(partition, "cannot read: {error:#}");
                match error.downcast_ref() {
                    Some(NotNow::LeaseLost) => return,
                    // The broker has nothing to do with it.
                    Some(NotNow::Away(_)) => {}
                    None => reader.open = None,
                }
                tokio::select! {
                    () = sleep(RECONNECT) => {}
                    () = stop.stopped() => return,
                }
            }
        }
    }
}

/// When the period begins that comes after this moment.
fn next_period(now: Duration) -> Duration {
    let periods = now.subsec_millis() / PERIOD + 1;
    Duration::from_secs(now.as_secs()) + Duration::from_millis((periods * PERIOD).into())
}

/// Waits until a lease changes. Whoever grants leases is there to the end.
async fn changed(lease: &mut watch::Receiver<Lease>) {
    if lease.changed().await.is_err() {
        std::future::pending().await
    }
}

/// Waits until a partition is no longer to be read by this lease.
async fn over(lease: &mut watch::Receiver<Lease>, epoch: i64) {
    while *lease.borrow_and_update() == Lease::Held(epoch) {
        changed(lease).await;
    }
}

/// Reads one partition.
struct Reader {
    topic: String,
    partition: i32,
    /// Of the lease by which it is read.
    epoch: i64,
    open: Option<PartitionClient>,
    next: Option<i64>,
    lag: Lag,
    /// How much is fetched at once: less where something cannot be decoded.
    bytes: i32,
    /// How often in a row the batch that comes next could not be decoded.
    strikes: u32,
}

/// Why nothing was read.
enum NotRead {
    /// The broker sends something that cannot be decoded.
    Unreadable(String),
    /// The ledger does not say where to go on.
    NoPlace(anyhow::Error),
    /// It can be tried again.
    Away(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for NotRead {
    fn from(error: E) -> Self {
        Self::Away(error.into())
    }
}

impl Reader {
    /// What comes next, and where to go on after it; `None` while there is nothing.
    async fn read(
        &mut self,
        kafka: &Kafka,
        consumer: &Consumer,
    ) -> Result<Option<(i64, Vec<Read>)>, NotRead> {
        let known = match self.next {
            Some(next) => Some(next),
            None => consumer.next_offset(&self.topic, self.partition).await.map_err(NotRead::NoPlace)?,
        };
        let opened = match &self.open {
            Some(opened) => opened,
            None => self.open.insert(kafka.partition(self.partition).await?),
        };
        let next = match known {
            Some(next) => next,
            None => timeout(DEADLINE, opened.get_offset(OffsetAt::Earliest)).await??,
        };
        self.next = Some(next);
        let fetching = opened.fetch_records(next, 1..self.bytes, MAX_WAIT);
        let (records, end) = match timeout(DEADLINE, fetching).await? {
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
            Err(Error::Request(
                error @ (RequestError::ReadError(_)
                | RequestError::ReadVersionedError(_)
                | RequestError::TooMuchData { .. }),
            )) => return Err(NotRead::Unreadable(error.to_string())),
            Err(error) => return Err(error.into()),
        };
        kafka.mark(self.partition, true);
        (self.bytes, self.strikes) = (FETCH_BYTES, 0);
        let after = records.last().map(|last| last.offset + 1);
        let oldest = records.first().map(|first| first.record.timestamp.timestamp_millis());
        self.lag.set(end - after.unwrap_or(next), oldest.map_or(0, |oldest| now() - oldest));
        if after.is_none() && end > next {
            // Something is there that is no record for us, and the broker does not hold its answer back.
            sleep(Duration::from_millis(MAX_WAIT.unsigned_abs().into())).await;
        }
        let read = |records: Vec<rskafka::record::RecordAndOffset>| {
            records.into_iter().map(|read| consumer.read(from_kafka(read.record))).collect()
        };
        Ok(after.map(|after| (after, read(records))))
    }

    /// Writes down what was read, and goes on after it.
    async fn take(&mut self, consumer: &Consumer, next: i64, read: Vec<Read>) -> Result<()> {
        let place = Place { topic: self.topic.clone(), partition: self.partition, next, epoch: self.epoch };
        consumer.take(Some(place), read).await?;
        self.next = Some(next);
        Ok(())
    }

    /// Leaves a record behind that cannot be decoded again and again, and says so: it shall not hold up
    /// the rest. What stands in front of it is read first: a broker always gives one batch whole, however
    /// little is asked for, and no second one.
    async fn step_over(&mut self, consumer: &Consumer, reason: &str) -> Result<()> {
        self.open = None;
        if self.bytes > ONE_BATCH {
            self.bytes = ONE_BATCH;
            return Ok(());
        }
        self.strikes += 1;
        let Some(offset) = self.next.filter(|_| self.strikes >= STRIKES) else {
            bail!("what comes next cannot be decoded: {reason}");
        };
        if reason.contains(MARKER) {
            self.strikes = 0;
            return self.take(consumer, offset + 1, Vec::new()).await;
        }
        tracing::error!(
            partition = self.partition,
            offset,
            "a record cannot be decoded and is left out: {reason}"
        );
        let place = [("partition", self.partition.to_string()), ("offset", offset.to_string())];
        let record = Record {
            key: String::new(),
            headers: place.map(|(name, value)| (format!("spin-otp-{name}"), value)).into(),
            value: Vec::new(),
        };
        let dead = Dead::new(record, format!("cannot be decoded: {reason}"), now());
        self.take(consumer, offset + 1, vec![Read::Dead(dead)]).await?;
        // Records that were written together are sent together: the next one most likely fails as well.
        self.strikes = STRIKES - 1;
        Ok(())
    }
}

impl Pending {
    fn size(&self) -> usize {
        self.records.iter().map(rskafka::record::Record::approximate_size).sum()
    }
}
