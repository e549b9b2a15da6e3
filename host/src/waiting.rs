//! Which connections wait for their clients, and since when.
//!
//! A client that takes its time is harmless as long as there is room. When there is none, the connection
//! that has waited longest makes place for the next one: with as many slow clients as there may be
//! connections, an honest one, which sends what it has at once, is still served.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::Notify;

/// All connections that wait for their clients.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    /// By tickets that only grow: the first one has waited longest.
    queue: Mutex<BTreeMap<u64, Arc<Notify>>>,
    next_ticket: AtomicU64,
    joined: Notify,
}

impl Waiting {
    /// Tells the connection that has waited longest to close. False if none waits.
    pub(crate) fn close_longest(&self) -> bool {
        let longest = self.queue().pop_first();
        longest.inspect(|(_, close)| close.notify_one()).is_some()
    }

    /// Completes when a connection has begun to wait, now or since it was last asked.
    pub(crate) async fn joined(&self) {
        self.joined.notified().await;
    }

    fn queue(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Notify>>> {
        // No panic can leave a map of tickets half changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's place among those that wait. It is given up when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    waiting: Arc<Waiting>,
    ticket: AtomicU64,
    close: Arc<Notify>,
}

impl Place {
    /// Begins to wait.
    pub(crate) fn new(waiting: Arc<Waiting>) -> Self {
        let place = Self { waiting, ticket: AtomicU64::new(0), close: Arc::default() };
        let mut queue = place.waiting.queue();
        place.join(&mut queue);
        drop(queue);
        place
    }

    /// The client has done what it had to, and there is something else now to wait for.
    pub(crate) fn wait_anew(&self) {
        let mut queue = self.waiting.queue();
        queue.remove(&self.ticket.load(Ordering::Relaxed));
        self.join(&mut queue);
    }

    /// The client has done all that it had to: until [`wait_anew`](Self::wait_anew) nobody closes the
    /// connection. False if somebody has already told it to.
    pub(crate) fn leave(&self) -> bool {
        self.waiting.queue().remove(&self.ticket.load(Ordering::Relaxed)).is_some()
    }

    /// Completes when the connection has to close.
    pub(crate) async fn closed(&self) {
        self.close.notified().await;
    }

    fn join(&self, queue: &mut BTreeMap<u64, Arc<Notify>>) {
        let ticket = self.waiting.next_ticket.fetch_add(1, Ordering::Relaxed);
        self.ticket.store(ticket, Ordering::Relaxed);
        queue.insert(ticket, Arc::clone(&self.close));
        self.waiting.joined.notify_one();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn is_closed(place: &Place) -> bool {
        let soon = tokio::time::timeout(std::time::Duration::from_millis(20), place.closed());
        soon.await.is_ok()
    }

    #[tokio::test]
    async fn whoever_has_waited_longest_closes_first() {
        let waiting = Arc::<Waiting>::default();
        let [first, second] = [(); 2].map(|()| Place::new(Arc::clone(&waiting)));
        assert!(waiting.close_longest());
        assert!(is_closed(&first).await && !is_closed(&second).await);
        assert!(!first.leave(), "told to close, it must not go on");
    }

    #[tokio::test]
    async fn whoever_does_not_wait_is_not_closed() {
        let waiting = Arc::<Waiting>::default();
        let places = [(); 3].map(|()| Place::new(Arc::clone(&waiting)));
        assert!(places[0].leave());
        places[1].wait_anew();
        assert!(waiting.close_longest());
        assert!(is_closed(&places[2]).await);
        assert!(waiting.close_longest());
        assert!(is_closed(&places[1]).await);
        assert!(!waiting.close_longest() && !is_closed(&places[0]).await);
        places[0].wait_anew();
        drop(places);
        assert!(!waiting.close_longest());
    }
}
