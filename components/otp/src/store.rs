//! The database, behind the domain's port: the one place that chooses it and bounds the wait for it.

mod accounts;
mod connection;
pub(crate) mod destinations;
mod outbox;
pub(crate) mod place;
pub(crate) mod postgres;
mod purge;
mod sqlite;
mod statement;

use crate::{
    deadline,
    outbox_entry::{Claimed, Refused, Waiting},
};
use connection::Connection;
use destinations::{Counts, Range};
use otp_core::{
    Guard, Tally, Timestamp,
    ports::{Commit, Committed, Loaded, Request, Unavailable},
};
use place::Place;
use postgres::Postgres;
use purge::Purged;
use std::{
    cell::RefCell,
    collections::BTreeMap,
    rc::Rc,
    time::{Duration, Instant},
};

/// The most that a request waits for the database, opening it and all statements included. A client
/// hears in under 3 s. The statements that write know it too: they do nothing when they come later.
const DEADLINE: Duration = Duration::from_millis(2_500);

thread_local! {
    /// The connection of this instance, opened by its first request, if it is one to keep.
    static KEPT: RefCell<Option<Rc<Connection>>> = const { RefCell::new(None) };
}

/// The database, for one request or one piece of background work.
#[derive(Debug)]
pub(crate) struct Store {
    place: Place,
    until: Instant,
    /// Whether it opens connections of its own.
    aside: bool,
    /// The connection that it has used, for its next statement.
    used: RefCell<Option<Rc<Connection>>>,
}

impl Store {
    /// For what begins now.
    pub(crate) fn new(place: &Place) -> Self {
        Self {
            place: place.clone(),
            until: Instant::now() + DEADLINE,
            aside: false,
            used: RefCell::default(),
        }
    }

    /// For work that no answer waits for, and that no answer shall wait for: on a connection of its own. A
    /// statement that waits for another writer keeps its connection busy.
    pub(crate) fn aside(place: &Place) -> Self {
        Self { aside: true, ..Self::new(place) }
    }

    /// Whether the database can be read and written.
    pub(crate) async fn ping(&self) -> Result<(), Unavailable> {
        self.with(async |database| database.run(statement::PING, []).await.map(drop)).await
    }

    /// What is known of an account, and of what a request about it depends on.
    pub(crate) async fn load(&self, request: &Request<'_>) -> Result<Loaded, Unavailable> {
        self.with(async |database| database.load(request).await).await
    }

    /// Whether it can tell what is known in the statement that commits nothing.
    pub(crate) fn tells(&self) -> bool {
        matches!(self.place, Place::Server(_))
    }

    /// Writes down what was decided, with the event as it goes out.
    pub(crate) async fn commit(
        &self,
        request: &Request<'_>,
        commit: &Commit<'_>,
        event: Option<String>,
    ) -> Result<Committed, Unavailable> {
        self.with(async |database| database.commit(request, commit, event).await).await
    }

    /// Takes up to `most` events that wait, oldest first. Nobody else takes them for `moment`. Of an account's, those
    /// that are `young` are left to whoever wrote them.
    pub(crate) async fn claim(
        &self,
        now: Timestamp,
        moment: Duration,
        young: Duration,
        most: usize,
    ) -> Result<Vec<Claimed>, Unavailable> {
        self.with(async |database| database.claim(now, moment, young, most).await).await
    }

    /// Drops events of accounts that were accepted: of each its subject and its id.
    pub(crate) async fn forget_own_events(&self, events: &[(&str, &str)]) -> Result<(), Unavailable> {
        self.with(async |database| database.forget_own_events(events).await).await
    }

    /// Drops events that were claimed and accepted.
    pub(crate) async fn forget_events(&self, sequences: &[i64]) -> Result<(), Unavailable> {
        self.with(async |database| database.forget_events(sequences).await).await
    }

    /// Gives up a claim.
    pub(crate) async fn release(&self, sequences: &[i64]) -> Result<(), Unavailable> {
        self.with(async |database| database.release(sequences).await).await
    }

    /// Moves events that were refused to the dead.
    pub(crate) async fn bury(&self, now: Timestamp, refused: &[Refused]) -> Result<(), Unavailable> {
        self.with(async |database| database.bury(now, refused).await).await
    }

    /// What the outbox holds.
    pub(crate) async fn waiting(&self) -> Result<Waiting, Unavailable> {
        self.with(async |database| database.waiting().await).await
    }

    /// Moves events older than `retention` to the dead, and drops what has had its day; up to `most` of each.
    pub(crate) async fn purge(
        &self,
        now: Timestamp,
        retention: Duration,
        most: usize,
    ) -> Result<Purged, Unavailable> {
        self.with(async |database| database.purge(now, retention, most).await).await
    }

    /// Adds to what ranges of numbers were sent and have verified, and returns what is known of each now.
    pub(crate) async fn count_destinations(
        &self,
        guard: &Guard,
        now: Timestamp,
        counts: &BTreeMap<Range, Counts>,
    ) -> Result<Vec<(Range, Tally)>, Unavailable> {
        self.with(async |database| database.count_destinations(guard, now, counts).await).await
    }

    /// Suspends a range and puts that on record, unless somebody else has; whether it did.
    pub(crate) async fn suspend(
        &self,
        range: &Range,
        now: Timestamp,
        until: Timestamp,
        strikes: i64,
        event: &str,
    ) -> Result<bool, Unavailable> {
        self.with(async |database| database.suspend(range, now, until, strikes, event).await).await
    }

    /// Ends a suspension early.
    pub(crate) async fn lift(&self, range: &Range, now: Timestamp) -> Result<(), Unavailable> {
        self.with(async |database| database.lift(range, now).await).await
    }

    /// Runs `work` on the connection, and forgets the connection if that fails: whatever is wrong with
    /// it, a new one may do.
    async fn with<T>(
        &self,
        work: impl AsyncFnOnce(&Connection) -> Result<T, Unavailable>,
    ) -> Result<T, Unavailable> {
        let opened_and_done = async {
            let used = self.used.borrow().clone();
            let connection = match used {
                Some(connection) => connection,
                None if self.aside => Rc::new(Connection::open(&self.place).await?),
                None => connection(&self.place).await?,
            };
            self.used.replace(Some(Rc::clone(&connection)));
            work(&*connection).await
        };
        let left = self.until.saturating_duration_since(Instant::now());
        let outcome = if left.is_zero() { None } else { deadline::within(left, opened_and_done).await };
        let outcome = outcome
            .unwrap_or_else(|| Err(Unavailable(format!("no answer within {} ms", DEADLINE.as_millis()))));
        if outcome.is_err()
            && let Some(used) = self.used.take()
        {
            forget(&used);
        }
        outcome
    }
}

/// The connection that there is, or a new one with the schema in place. Two requests that find none at
/// the same time both open one, which does no harm.
async fn connection(place: &Place) -> Result<Rc<Connection>, Unavailable> {
    if let Some(connection) = KEPT.with_borrow(Clone::clone) {
        return Ok(connection);
    }
    let connection = Rc::new(Connection::open(place).await?);
    if connection.is_kept() {
        KEPT.set(Some(Rc::clone(&connection)));
    }
    Ok(connection)
}

/// Forgets this connection, not one that another request has opened in its place.
fn forget(used: &Rc<Connection>) {
    Postgres::forget();
    KEPT.with_borrow_mut(|current| {
        if current.as_ref().is_some_and(|current| Rc::ptr_eq(current, used)) {
            *current = None;
        }
    });
}
