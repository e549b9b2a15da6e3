//! The database, behind the domain's port: the one place that chooses it and bounds the wait for it.

mod connection;
mod database;
mod destinations;
mod outbox;
pub(crate) mod postgres;
mod row;
mod sqlite;
mod statement;

use crate::{
    deadline,
    destinations::Counts,
    event::Draft,
    outbox_entry::{Claimed, Refused, Waiting},
};
use connection::Connection;
use database::OnRecord;
use otp_core::{
    Guard, Idempotency, MaxAttempts, MobileNumber, OtpVersion, Recipient, Tally, Timestamp,
    ports::{Checked, Database, Guess, NewCode, Reissued, Replay, Sent, StoredCode, Terms, Unavailable},
};
use postgres::Postgres;
use serde::Serialize;
use std::{
    cell::RefCell,
    collections::BTreeMap,
    rc::Rc,
    time::{Duration, Instant},
};

/// What a purge has done.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Purged {
    /// Events that have waited too long and are among the dead now.
    pub(crate) expired: usize,
    /// Dead ones that were removed.
    pub(crate) removed: usize,
    /// Answers that were kept for retries.
    pub(crate) answers: usize,
    /// Meters that were empty.
    pub(crate) meters: usize,
    /// Counts of ranges that decide nothing any more.
    pub(crate) counts: usize,
}

/// The most that a request waits for the database, opening it and all statements included. A client
/// hears in under 3 s. The statements that write know it too: they do nothing when they come later.
const DEADLINE: Duration = Duration::from_millis(2_500);

thread_local! {
    /// The connection of this instance, opened by its first request, if it is one to keep.
    static KEPT: RefCell<Option<Rc<Connection>>> = const { RefCell::new(None) };
}

/// Where the database is.
#[derive(Debug, Clone, Default)]
pub(crate) enum Place {
    /// In Spin's SQLite file.
    #[default]
    File,
    /// On a Postgres server.
    Server(Rc<postgres::Address>),
}

impl Place {
    /// What it is called, for the operator.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::File => "sqlite",
            Self::Server(_) => "postgres",
        }
    }
}

/// The database, for one request or one piece of background work.
#[derive(Debug)]
pub(crate) struct Store {
    place: Place,
    until: Instant,
    /// Whether it opens connections of its own.
    aside: bool,
}

/// The database as the domain sees it: what is written there leaves the request's event.
#[derive(Debug)]
pub(crate) struct RequestStore<'a> {
    pub(crate) store: Store,
    pub(crate) draft: Draft<'a>,
}

impl Store {
    /// For what begins now.
    pub(crate) fn new(place: &Place) -> Self {
        Self { place: place.clone(), until: Instant::now() + DEADLINE, aside: false }
    }

    /// For work that no answer waits for, and that no answer shall wait for: on a connection of its own. A
    /// statement that waits for another writer keeps its connection busy.
    pub(crate) fn aside(place: &Place) -> Self {
        Self { aside: true, ..Self::new(place) }
    }

    /// Whether the database can be asked.
    pub(crate) async fn ping(&self) -> Result<(), Unavailable> {
        self.with(async |database| database.run(statement::PING, []).await.map(drop)).await
    }

    /// Takes up to `most` events that wait, oldest first. Nobody else takes them for `moment`.
    pub(crate) async fn claim(
        &self,
        now: Timestamp,
        moment: Duration,
        most: usize,
    ) -> Result<Vec<Claimed>, Unavailable> {
        self.with(async |database| database.claim(now, moment, most).await).await
    }

    /// Drops events that were accepted.
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
        counts: &BTreeMap<String, Counts>,
    ) -> Result<Vec<(String, Tally)>, Unavailable> {
        self.with(async |database| database.count_destinations(guard, now, counts).await).await
    }

    /// Suspends a range and puts that on record, unless somebody else has; whether it did.
    pub(crate) async fn suspend(
        &self,
        range: &str,
        now: Timestamp,
        until: Timestamp,
        strikes: i64,
        event: &str,
    ) -> Result<bool, Unavailable> {
        self.with(async |database| database.suspend(range, now, until, strikes, event).await).await
    }

    /// Ends a suspension early.
    pub(crate) async fn lift(&self, range: &str, now: Timestamp) -> Result<(), Unavailable> {
        self.with(async |database| database.lift(range, now).await).await
    }

    /// Runs `work` on the connection, and forgets the connection if that fails: whatever is wrong with
    /// it, a new one may do.
    async fn with<T>(
        &self,
        work: impl AsyncFnOnce(&Connection) -> Result<T, Unavailable>,
    ) -> Result<T, Unavailable> {
        let used = RefCell::new(None);
        let opened_and_done = async {
            let connection = if self.aside {
                Rc::new(Connection::open(&self.place).await?)
            } else {
                connection(&self.place).await?
            };
            used.replace(Some(Rc::clone(&connection)));
            work(&*connection).await
        };
        let left = self.until.saturating_duration_since(Instant::now());
        let outcome = deadline::within(left, opened_and_done)
            .await
            .unwrap_or_else(|| Err(Unavailable(format!("no answer within {} ms", DEADLINE.as_millis()))));
        if let (Err(_), Some(used)) = (&outcome, used.take()) {
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

impl RequestStore<'_> {
    async fn with<T>(
        &self,
        work: impl AsyncFnOnce(&OnRecord<'_>) -> Result<T, Unavailable>,
    ) -> Result<T, Unavailable> {
        let draft = self.draft;
        self.store.with(async |connection| work(&OnRecord { connection, draft }).await).await
    }
}

impl Database for RequestStore<'_> {
    async fn issue(
        &self,
        terms: &Terms<'_>,
        code: &NewCode<'_>,
        recipient: &Recipient,
    ) -> Result<Sent<OtpVersion>, Unavailable> {
        self.with(async |database| database.issue(terms, code, recipient).await).await
    }

    async fn reissue(&self, terms: &Terms<'_>, code: &NewCode<'_>) -> Result<Sent<Reissued>, Unavailable> {
        self.with(async |database| database.reissue(terms, code).await).await
    }

    async fn resend(
        &self,
        terms: &Terms<'_>,
        cached: Option<OtpVersion>,
    ) -> Result<Sent<StoredCode>, Unavailable> {
        self.with(async |database| database.resend(terms, cached).await).await
    }

    async fn find(&self, number: &MobileNumber) -> Result<Option<StoredCode>, Unavailable> {
        self.with(async |database| database.find(number).await).await
    }

    async fn check(&self, guess: &Guess<'_>) -> Result<Checked, Unavailable> {
        self.with(async |database| database.check(guess).await).await
    }

    async fn replay(
        &self,
        idempotency: &Idempotency,
        now: Timestamp,
        max_attempts: MaxAttempts,
    ) -> Result<Option<Replay>, Unavailable> {
        self.with(async |database| database.replay(idempotency, now, max_attempts).await).await
    }

    async fn erase(&self, number: &MobileNumber, now: Timestamp) -> Result<(), Unavailable> {
        self.with(async |database| database.erase(number, now).await).await
    }
}
