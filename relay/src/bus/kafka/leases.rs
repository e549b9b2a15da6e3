//! Which partitions this relay reads: all of them, or its share where several relays have one ledger.
//!
//! What is known here may be out of date, after a pause above all. The ledger decides: nothing that was read
//! under an older lease is written down.

use crate::{
    consumer::Consumer,
    ledger::{NotNow, TICK},
    metrics::Metrics,
    stop::Stop,
};
use anyhow::Result;
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

/// How long the brokers may be away from this relay before it gives its partitions to those that may reach them.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a partition is to this relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lease {
    /// Another's, or nobody's.
    None,
    /// Its own, with the epoch of its lease.
    Held(i64),
    /// Its own until what is under way is written down: others have too few.
    GivingUp(i64),
}

/// The leases of a topic's partitions.
#[derive(Debug)]
pub(super) struct Leases {
    topic: String,
    consumer: Consumer,
    metrics: Arc<Metrics>,
    partitions: Vec<watch::Sender<Lease>>,
    /// A partition has become free, or another relay's.
    changed: Notify,
}

impl Leases {
    pub(super) fn new(topic: String, partitions: i32, consumer: Consumer, metrics: &Arc<Metrics>) -> Self {
        let partitions = (0..partitions).map(|_| watch::Sender::new(Lease::None)).collect();
        Self { topic, consumer, metrics: Arc::clone(metrics), partitions, changed: Notify::new() }
    }

    /// What a partition is, and whenever that changes.
    pub(super) fn of(&self, partition: i32) -> watch::Receiver<Lease> {
        self.partitions[usize::try_from(partition).unwrap_or_default()].subscribe()
    }

    /// Whether a partition is this relay's.
    pub(super) fn holds(&self, partition: usize) -> bool {
        self.partitions.get(partition).is_some_and(|lease| matches!(*lease.borrow(), Lease::Held(_)))
    }

    /// Looks again and again which partitions are this relay's, until told to stop; then it gives them up.
    pub(super) async fn run(self: Arc<Self>, brokers_are_up: impl Fn() -> bool, stop: Stop) {
        let mut reached = Instant::now();
        loop {
            if brokers_are_up() {
                reached = Instant::now();
            }
            if let Err(error) = self.share(reached.elapsed() < PATIENCE).await {
                // What is held stays so: whoever takes it has to know the ledger better.
                tracing::debug!("the partitions cannot be shared out: {error:#}");
            }
            tokio::select! {
                _ = timeout(TICK, self.changed.notified()) => {}
                () = stop.stopped() => break,
            }
        }
        if let Err(error) = self.share(false).await {
            tracing::debug!("the partitions are not given up, and run out: {error:#}");
        }
    }

    /// Takes what this relay lacks, and begins to give up what it has too much of.
    async fn share(&self, reads: bool) -> Result<()> {
        let count = i32::try_from(self.partitions.len())?;
        let share = self.consumer.share(&self.topic, count, reads).await?;
        let held: HashMap<_, _> = share.held.iter().copied().collect();
        let surplus = share.held.len().saturating_sub(share.aim);
        let too_many: Vec<_> =
            share.held.iter().rev().take(surplus).map(|(partition, _)| *partition).collect();
        for (partition, lease) in (0..).zip(&self.partitions) {
            let now = match held.get(&partition) {
                Some(epoch) if too_many.contains(&partition) => Lease::GivingUp(*epoch),
                Some(epoch) => Lease::Held(*epoch),
                None => Lease::None,
            };
            let before = *lease.borrow();
            // What is being given up is no longer begun with, even if it could be kept after all.
            if matches!((before, now), (Lease::GivingUp(given), Lease::Held(epoch)) if given == epoch) {
                continue;
            }
            if reads && matches!((before, now), (Lease::Held(_), Lease::None))
                || matches!((before, now), (Lease::Held(old), Lease::Held(new)) if old != new)
            {
                self.lost(partition);
            }
            if matches!((before, now), (Lease::None, Lease::GivingUp(_))) {
                // Nobody has begun to read it.
                self.release(partition, held[&partition]).await?;
                continue;
            }
            if before != now {
                lease.send_replace(now);
                tracing::debug!(partition, ?before, ?now, "a lease has changed");
            }
        }
        let owned = self.partitions.iter().filter(|lease| matches!(*lease.borrow(), Lease::Held(_))).count();
        let before = self.metrics.partitions_owned.get();
        self.metrics.partitions_owned.set(i64::try_from(owned)?);
        if before != self.metrics.partitions_owned.get() {
            tracing::info!(owned, partitions = count, "partitions that this relay reads");
        }
        Ok(())
    }

    fn lost(&self, partition: i32) {
        self.metrics.leases_lost.inc();
        tracing::warn!(
            partition,
            "another relay has taken this partition, for this one was silent for too long; nothing is lost"
        );
    }

    /// Nothing of a partition is under way any more: if it was to be given up, it is. If it was lost, that
    /// is noted.
    pub(super) async fn done_with(&self, partition: i32, epoch: i64) {
        let Some(lease) = self.partitions.get(usize::try_from(partition).unwrap_or_default()) else { return };
        let before = *lease.borrow();
        match before {
            Lease::GivingUp(given) if given == epoch => {
                if let Err(error) = self.release(partition, epoch).await {
                    tracing::debug!(partition, "a partition is given up later: {error:#}");
                }
                lease.send_if_modified(|lease| replace(lease, before, Lease::None));
            }
            // The ledger has refused what was read: it is another's by now.
            Lease::Held(held)
                if held == epoch && lease.send_if_modified(|lease| replace(lease, before, Lease::None)) =>
            {
                self.lost(partition);
                self.changed.notify_one();
            }
            _ => {}
        }
    }

    async fn release(&self, partition: i32, epoch: i64) -> Result<()> {
        match self.consumer.release(&self.topic, partition, epoch).await {
            Err(error) if matches!(error.downcast_ref(), Some(NotNow::LeaseLost)) => Ok(()),
            released => released,
        }
    }
}

fn replace(lease: &mut Lease, before: Lease, now: Lease) -> bool {
    let same = *lease == before;
    if same {
        *lease = now;
    }
    same
}
