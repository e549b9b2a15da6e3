//! From the outbox to the relay: after the answers, and when the relay asks.
//!
//! The instance that writes an event pushes it from memory, and deletes it from the outbox when the relay has accepted it.
//! An event that is still in the outbox after `YOUNG` is claimed, pushed and deleted by any instance. An instance that dies
//! in between leaves its events to the others, so an event may arrive twice, under the same id, and none is lost.

use crate::{
    config::Config,
    environment::Environment,
    log,
    origin::Origin,
    outbox_entry::{Claimed, Refused, Waiting},
    relay::{Away, Relay},
    store::{Store, place::Place},
};
use otp_core::{
    Breaker,
    ports::{Clock, Unavailable},
};
use otp_events::{MAX_BATCH_BYTES, MAX_BATCH_EVENTS, Rejected};
use serde::Deserialize;
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    time::{Duration, Instant},
};

/// Between two batches of an instance. The first goes at once; under load, events gather for this long,
/// so that pushing and dropping them costs one call and one statement for many.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a batch may take. The relay answers in seconds, also without its broker.
const PUBLISH_DEADLINE: Duration = Duration::from_secs(8);

/// How long claimed events are left alone: longer than a batch and its statements can take.
const CLAIM: Duration = Duration::from_secs(15);

/// How long no other instance claims an event. A push takes a fraction of that.
const YOUNG: Duration = Duration::from_secs(3);

/// Between two looks of an instance for what others have left.
const LOOK: Duration = Duration::from_secs(5);

/// Most events that an instance keeps in memory. The rest stay in the outbox until an instance claims them.
const MAX_OWN: usize = 2 * MAX_BATCH_EVENTS;

/// How long a request to push goes on to begin batches, and how long it may take in all.
const FLUSH: Duration = Duration::from_millis(1_000);
const FLUSH_DEADLINE: Duration = Duration::from_millis(2_800);

/// Most rows of a kind that an instance tidies away: more than it can have written itself.
const TIDY_AT_ONCE: usize = 200;

thread_local! {
    /// Whether a task of this instance pushes.
    static RUNNING: Cell<bool> = const { Cell::new(false) };
    /// Whether there is something that it may not have seen. A request cannot wake that task, so it
    /// leaves word here.
    static WANTED: Cell<bool> = const { Cell::new(false) };
    /// When this instance last pushed, and when it last looked for what others have left.
    static LAST: Cell<Option<Instant>> = const { Cell::new(None) };
    static LOOKED: Cell<Option<Instant>> = const { Cell::new(None) };
    /// The events that this instance has written and not pushed.
    static OWN: RefCell<Vec<Entry<Own>>> = const { RefCell::new(Vec::new()) };
    static BREAKER: RefCell<Breaker> = RefCell::new(Breaker::default());
}

/// What became of events.
#[derive(Debug, Default)]
pub(crate) struct Published {
    /// Events that were claimed.
    claimed: usize,
    /// Events that the relay has.
    pub(crate) published: usize,
    /// Events that it refused, which are now among the dead.
    pub(crate) refused: usize,
}

impl Published {
    fn add(&mut self, other: &Self) {
        self.claimed += other.claimed;
        self.published += other.published;
        self.refused += other.refused;
    }
}

/// Why events could not be pushed. They wait.
enum Held {
    Database(Unavailable),
    Relay(String),
}

impl From<Unavailable> for Held {
    fn from(unavailable: Unavailable) -> Self {
        Self::Database(unavailable)
    }
}

/// An event of this instance's own.
#[derive(Debug)]
struct Own {
    /// Whose event it is, as the outbox has it.
    subject: String,
    written: Instant,
}

/// Has an event that is in the outbox now pushed by this instance.
pub(crate) fn written(config: &Config, subject: &str, id: &str, event: String) {
    if config.relay.is_none() || !BREAKER.with_borrow(|breaker| breaker.allows(Environment.now())) {
        return;
    }
    OWN.with_borrow_mut(|own| {
        if own.len() < MAX_OWN {
            let key = Own { subject: subject.to_owned(), written: Instant::now() };
            own.push(Entry { key, id: id.to_owned(), event });
        }
    });
}

/// Notes that the outbox has an event that this instance has to claim: its next batch looks for it.
pub(crate) fn for_anybody() {
    LOOKED.set(None);
}

/// Pushes what waits, after the answer to a request, and in its trace. Returns at once.
pub(crate) fn soon(config: &Rc<Config>, origin: &Origin) {
    tidy(config);
    if config.relay.is_none() || !BREAKER.with_borrow(|breaker| breaker.allows(Environment.now())) {
        return;
    }
    WANTED.set(true);
    if RUNNING.replace(true) {
        return;
    }
    let (config, traceparent) = (Rc::clone(config), origin.traceparent.clone());
    spin_sdk::wasip3::spawn(async move {
        if let Some(relay) = &config.relay {
            run(&config.database, relay, traceparent.as_deref()).await;
        }
        RUNNING.set(false);
    });
}

/// Where no relay asks for it, an instance moves what has waited too long to the dead, once in its life.
fn tidy(config: &Rc<Config>) {
    thread_local! {
        static TIDIED: Cell<bool> = const { Cell::new(false) };
    }
    if TIDIED.replace(true) || config.relay.as_ref().is_some_and(|relay| relay.token().is_some()) {
        return;
    }
    let (place, retention) = (config.database.clone(), config.outbox_retention);
    spin_sdk::wasip3::spawn(async move {
        // The next instance does what this one could not.
        let _ = Store::aside(&place).purge(Environment.now(), retention, TIDY_AT_ONCE).await;
    });
}

async fn run(place: &Place, relay: &Relay, traceparent: Option<&str>) {
    while WANTED.get() {
        let rest = LAST.get().map(|last| PAUSE.saturating_sub(last.elapsed())).unwrap_or_default();
        if !rest.is_zero() {
            spin_sdk::time::sleep(rest).await;
        }
        WANTED.set(false);
        LAST.set(Some(Instant::now()));
        if own_batch(place, relay, traceparent).await.is_err() {
            // They are anybody's now, or soon.
            OWN.take();
            return;
        }
        if LOOKED.get().is_some_and(|looked| looked.elapsed() < LOOK) {
            continue;
        }
        LOOKED.set(Some(Instant::now()));
        match batch(place, relay, PUBLISH_DEADLINE, traceparent).await {
            // There may be more where these came from.
            Ok(published) if published.claimed >= MAX_BATCH_EVENTS => {
                LOOKED.set(None);
                WANTED.set(true);
            }
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

/// `POST /internal/outbox/flush`: pushes until nothing waits, the relay is away, or the time is over.
pub(crate) async fn flush(place: &Place, relay: &Relay) -> Result<(Published, Waiting), Unavailable> {
    let start = Instant::now();
    let mut flushed = Published::default();
    while start.elapsed() < FLUSH {
        match batch(place, relay, FLUSH_DEADLINE.saturating_sub(start.elapsed()), None).await {
            Ok(published) if published.claimed == 0 => break,
            Ok(published) => flushed.add(&published),
            Err(Held::Relay(_)) => break,
            Err(Held::Database(unavailable)) => return Err(unavailable),
        }
    }
    Ok((flushed, Store::new(place).waiting().await?))
}

/// Pushes and drops what this instance has written, as much as goes at once.
async fn own_batch(place: &Place, relay: &Relay, traceparent: Option<&str>) -> Result<(), Held> {
    let events = OWN.with_borrow_mut(|own| {
        // What is older than that may be claimed by others, and by this instance next.
        let all = own.len();
        own.retain(|entry| entry.key.written.elapsed() < YOUNG);
        if own.len() < all {
            for_anybody();
        }
        own.drain(..own.len().min(MAX_BATCH_EVENTS)).collect::<Vec<_>>()
    });
    if events.is_empty() {
        return Ok(());
    }
    if OWN.with_borrow(|own| !own.is_empty()) {
        WANTED.set(true);
    }
    // What is refused stays in the outbox: whoever claims it moves it to the dead.
    let (mut accepted, mut refused) = (Vec::new(), Vec::new());
    let pushed = push(relay, (PUBLISH_DEADLINE, traceparent), &events, &mut accepted, &mut refused).await;
    let forgotten = async {
        if accepted.is_empty() {
            return Ok(());
        }
        let accepted: Vec<_> = accepted.iter().map(|entry| (&*entry.key.subject, &*entry.id)).collect();
        Store::new(place).forget_own_events(&accepted).await
    };
    noted(match forgotten.await {
        Ok(()) => pushed.map_err(|Away(reason)| Held::Relay(reason)),
        Err(unavailable) => Err(unavailable.into()),
    })
}

/// Claims, pushes and drops one batch.
async fn batch(
    place: &Place,
    relay: &Relay,
    limit: Duration,
    traceparent: Option<&str>,
) -> Result<Published, Held> {
    match try_batch(place, relay, limit, traceparent).await {
        // Of the relay it says nothing.
        Ok(published) if published.claimed == 0 => Ok(published),
        outcome => noted(outcome),
    }
}

/// Notes whether the relay was there, and tells the operator if not.
fn noted<T>(outcome: Result<T, Held>) -> Result<T, Held> {
    match &outcome {
        Ok(_) => BREAKER.with_borrow_mut(Breaker::succeeded),
        Err(Held::Relay(reason)) => {
            if BREAKER.with_borrow_mut(|breaker| breaker.failed(Environment.now())) {
                log::line(format_args!("relay unavailable: {reason}; events wait in the outbox"));
            }
        }
        Err(Held::Database(Unavailable(reason))) => {
            log::line(format_args!("outbox unavailable: {reason}; events wait in it"));
        }
    }
    outcome
}

async fn try_batch(
    place: &Place,
    relay: &Relay,
    limit: Duration,
    traceparent: Option<&str>,
) -> Result<Published, Held> {
    let claimed = Store::new(place).claim(Environment.now(), CLAIM, YOUNG, MAX_BATCH_EVENTS).await?;
    let mut published = Published { claimed: claimed.len(), ..Published::default() };
    let (mut events, mut refused) = (Vec::new(), Vec::new());
    for claimed in claimed {
        match Entry::read(claimed) {
            Ok(entry) => events.push(entry),
            Err(reason) => refused.push(reason),
        }
    }
    let (mut accepted, mut rejected) = (Vec::new(), Vec::new());
    let pushed = push(relay, (limit, traceparent), &events, &mut accepted, &mut rejected).await;
    let accepted: Vec<_> = accepted.iter().map(|entry| entry.key).collect();
    refused.extend(rejected.into_iter().map(|(entry, reason)| Refused { sequence: entry.key, reason }));
    // Also when a later part failed: what was accepted is not to be sent again.
    if !accepted.is_empty() {
        Store::new(place).forget_events(&accepted).await?;
    }
    if let Some(first) = refused.first() {
        log::line(format_args!(
            "{} events were refused and moved to outbox_dead; the first, {}: {}",
            refused.len(),
            first.sequence,
            first.reason
        ));
        Store::new(place).bury(Environment.now(), &refused).await?;
    }
    if let Err(Away(reason)) = pushed {
        let settled = |sequence: &i64| {
            accepted.contains(sequence) || refused.iter().any(|refused| refused.sequence == *sequence)
        };
        // For whoever finds the relay first. Not if there is more behind them, which may go where these cannot: a part
        // of the brokers may be away.
        if published.claimed < MAX_BATCH_EVENTS {
            let held: Vec<_> = events.iter().map(|entry| entry.key).filter(|held| !settled(held)).collect();
            Store::new(place).release(&held).await?;
        }
        return Err(Held::Relay(reason));
    }
    (published.published, published.refused) = (accepted.len(), refused.len());
    Ok(published)
}

/// An event to push, its id, and what it is known by in the outbox.
#[derive(Debug)]
struct Entry<K> {
    key: K,
    id: String,
    event: String,
}

#[derive(Deserialize)]
struct Identified {
    id: String,
}

impl Entry<i64> {
    /// What is not even JSON would spoil its whole batch.
    fn read(Claimed { sequence, event }: Claimed) -> Result<Self, Refused> {
        match serde_json::from_str(&event) {
            Ok(Identified { id }) => Ok(Self { key: sequence, id, event }),
            Err(_) => Err(Refused { sequence, reason: "not an event with an id".to_owned() }),
        }
    }
}

/// Pushes events, oldest first, in as few batches as their size allows.
async fn push<'a, K>(
    relay: &Relay,
    (limit, traceparent): (Duration, Option<&str>),
    events: &'a [Entry<K>],
    accepted: &mut Vec<&'a Entry<K>>,
    refused: &mut Vec<(&'a Entry<K>, String)>,
) -> Result<(), Away> {
    let until = Instant::now() + limit;
    let mut rest = events;
    while let Some(first) = rest.first() {
        // With the brackets, and a comma for each.
        let mut size = 2;
        let fit = rest.iter().take_while(|entry| {
            size += entry.event.len() + 1;
            size <= MAX_BATCH_BYTES
        });
        let (part, later) = rest.split_at(fit.count());
        if part.is_empty() {
            refused.push((first, format!("larger than a batch may be, {MAX_BATCH_BYTES} bytes")));
            rest = &rest[1..];
            continue;
        }
        rest = later;
        let mut batch =
            String::with_capacity(part.iter().map(|entry| entry.event.len() + 1).sum::<usize>() + 1);
        for entry in part {
            batch.push(if batch.is_empty() { '[' } else { ',' });
            batch.push_str(&entry.event);
        }
        batch.push(']');
        let answer =
            relay.publish(batch, traceparent, until.saturating_duration_since(Instant::now())).await?;
        let by_id: HashMap<_, _> = part.iter().map(|entry| (&*entry.id, entry)).collect();
        accepted.extend(answer.accepted.iter().filter_map(|id| by_id.get(&**id)));
        refused.extend(
            answer
                .rejected
                .into_iter()
                .filter_map(|Rejected { id, reason, .. }| Some((*by_id.get(&*id?)?, reason))),
        );
    }
    Ok(())
}
