//! From the outbox to the relay: after the answers, and when the relay asks.
//!
//! Events are claimed for a moment, pushed, and dropped when they were accepted. Whoever dies in between
//! leaves them to the next one after that moment, so an event may arrive twice, under the same id, and
//! none is lost. Any instance pushes what any other has left.

use crate::{
    config::Config,
    environment::Environment,
    log,
    outbox_entry::{Claimed, Refused, Waiting},
    relay::{NotPublished, Relay},
    store::Store,
};
use otp_core::{
    Breaker,
    ports::{Clock, Unavailable},
};
use otp_events::{MAX_BATCH_BYTES, MAX_BATCH_EVENTS};
use serde::Deserialize;
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

/// Between two batches of an instance. The first goes at once; under load, events gather for this long,
/// so that claiming and dropping them costs two statements for many.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a batch may take. The relay answers in seconds, also without its broker.
const PUBLISH_DEADLINE: Duration = Duration::from_secs(8);

/// How long claimed events are left alone: longer than a batch and its statements can take.
const CLAIM: Duration = Duration::from_secs(15);

/// How long a request to push may take.
const FLUSH_DEADLINE: Duration = Duration::from_millis(2_000);

thread_local! {
    /// Whether a task of this instance pushes.
    static RUNNING: Cell<bool> = const { Cell::new(false) };
    /// Whether there is something that it may not have seen. A request cannot wake that task, so it
    /// leaves word here.
    static WANTED: Cell<bool> = const { Cell::new(false) };
    /// When this instance last pushed.
    static LAST: Cell<Option<Instant>> = const { Cell::new(None) };
    static BREAKER: RefCell<Breaker> = RefCell::new(Breaker::default());
}

/// What became of events.
#[derive(Debug, Default)]
pub(crate) struct Published {
    /// Events that the relay has.
    pub(crate) published: usize,
    /// Events that it refused, which are now among the dead.
    pub(crate) refused: usize,
}

impl Published {
    fn add(&mut self, other: &Self) {
        self.published += other.published;
        self.refused += other.refused;
    }

    fn all(&self) -> usize {
        self.published + self.refused
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

/// Pushes what waits, after the answer. Returns at once.
pub(crate) fn soon(config: &Rc<Config>) {
    if config.relay.is_none() || !BREAKER.with_borrow(|breaker| breaker.allows(Environment.now())) {
        return;
    }
    WANTED.set(true);
    if RUNNING.replace(true) {
        return;
    }
    let config = Rc::clone(config);
    spin_sdk::wasip3::spawn(async move {
        if let Some(relay) = &config.relay {
            run(relay).await;
        }
        RUNNING.set(false);
    });
}

async fn run(relay: &Relay) {
    while WANTED.get() {
        let rest = LAST.get().map(|last| PAUSE.saturating_sub(last.elapsed())).unwrap_or_default();
        if !rest.is_zero() {
            spin_sdk::time::sleep(rest).await;
        }
        WANTED.set(false);
        LAST.set(Some(Instant::now()));
        match batch(relay, PUBLISH_DEADLINE).await {
            // There may be more where these came from.
            Ok(published) if published.all() >= MAX_BATCH_EVENTS => WANTED.set(true),
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

/// `POST /internal/outbox/flush`: pushes until nothing waits, the relay is away, or the time is over.
pub(crate) async fn flush(relay: &Relay) -> Result<(Published, Waiting), Unavailable> {
    let until = Instant::now() + FLUSH_DEADLINE;
    let mut flushed = Published::default();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match batch(relay, left).await {
            Ok(published) if published.all() == 0 => break,
            Ok(published) => flushed.add(&published),
            Err(Held::Relay(_)) => break,
            Err(Held::Database(unavailable)) => return Err(unavailable),
        }
    }
    Ok((flushed, Store::new().waiting().await?))
}

/// Claims, pushes and drops one batch.
async fn batch(relay: &Relay, limit: Duration) -> Result<Published, Held> {
    let outcome = try_batch(relay, limit).await;
    let now = Environment.now();
    match &outcome {
        Ok(published) if published.all() > 0 => BREAKER.with_borrow_mut(Breaker::succeeded),
        Ok(_) => {}
        Err(Held::Relay(reason)) => {
            if BREAKER.with_borrow_mut(|breaker| breaker.failed(now)) {
                log::line(format_args!("relay unavailable: {reason}; events wait in the outbox"));
            }
        }
        Err(Held::Database(Unavailable(reason))) => {
            log::line(format_args!("outbox unavailable: {reason}; events wait in it"));
        }
    }
    outcome
}

async fn try_batch(relay: &Relay, limit: Duration) -> Result<Published, Held> {
    let claimed = Store::new().claim(Environment.now(), CLAIM, MAX_BATCH_EVENTS).await?;
    let (events, mut refused): (Vec<_>, Vec<_>) = {
        let (fit, unfit): (Vec<_>, Vec<_>) = claimed.into_iter().map(Entry::read).partition(Result::is_ok);
        (
            fit.into_iter().filter_map(Result::ok).collect(),
            unfit.into_iter().filter_map(Result::err).collect(),
        )
    };
    let mut accepted = Vec::new();
    let pushed = push(relay, limit, &events, &mut accepted, &mut refused).await;
    // Also when a later part failed: what was accepted is not to be sent again.
    if !accepted.is_empty() {
        Store::new().forget_events(&accepted).await?;
    }
    if !refused.is_empty() {
        let first = &refused[0];
        log::line(format_args!(
            "{} events were refused and moved to outbox_dead; the first, {}: {}",
            refused.len(),
            first.sequence,
            first.reason
        ));
        Store::new().bury(Environment.now(), &refused).await?;
    }
    pushed?;
    Ok(Published { published: accepted.len(), refused: refused.len() })
}

/// A claimed event and its id.
struct Entry {
    sequence: i64,
    id: String,
    event: String,
}

#[derive(Deserialize)]
struct Identified {
    id: String,
}

impl Entry {
    /// What is not even JSON would spoil its whole batch.
    fn read(Claimed { sequence, event }: Claimed) -> Result<Self, Refused> {
        match serde_json::from_str(&event) {
            Ok(Identified { id }) => Ok(Self { sequence, id, event }),
            Err(_) => Err(Refused { sequence, reason: "not an event with an id".to_owned() }),
        }
    }
}

/// Pushes events, oldest first. A batch that the relay refuses as a whole is halved until the one that
/// is to blame stands alone: one bad event holds nobody up.
async fn push(
    relay: &Relay,
    limit: Duration,
    events: &[Entry],
    accepted: &mut Vec<i64>,
    refused: &mut Vec<Refused>,
) -> Result<(), Held> {
    let until = Instant::now() + limit;
    // Oldest on top.
    let mut parts = vec![events];
    while let Some(part) = parts.pop() {
        if part.is_empty() {
            continue;
        }
        let batch = format!("[{}]", part.iter().map(|entry| &*entry.event).collect::<Vec<_>>().join(","));
        if batch.len() > MAX_BATCH_BYTES {
            match part {
                [alone] => refused.push(Refused {
                    sequence: alone.sequence,
                    reason: format!("larger than a batch may be, {MAX_BATCH_BYTES} bytes"),
                }),
                _ => {
                    let (older, newer) = part.split_at(part.len() / 2);
                    parts.extend([newer, older]);
                }
            }
            continue;
        }
        match relay.publish(batch, until.saturating_duration_since(Instant::now())).await {
            Ok(answer) => {
                let kept: std::collections::HashSet<_> = answer.accepted.iter().map(String::as_str).collect();
                accepted.extend(
                    part.iter().filter(|entry| kept.contains(&*entry.id)).map(|entry| entry.sequence),
                );
                refused.extend(answer.rejected.into_iter().filter_map(|rejected| {
                    let sequence = part.get(rejected.index)?.sequence;
                    Some(Refused { sequence, reason: rejected.reason })
                }));
            }
            Err(NotPublished::Refused(status)) if part.len() == 1 => {
                let reason = format!("the relay answers {status}");
                refused.push(Refused { sequence: part[0].sequence, reason });
            }
            Err(NotPublished::Refused(_)) => {
                let (older, newer) = part.split_at(part.len() / 2);
                parts.extend([newer, older]);
            }
            Err(NotPublished::Away(reason)) => return Err(Held::Relay(reason)),
        }
    }
    Ok(())
}
