//! What was read, and what became of it, in an SQLite file of one relay or in a Postgres that several share.
//! The stores are the one place of the relay that knows SQL.
//!
//! Everything is done in batches: a statement takes many rows, so that a thousand events cost little more
//! than one.

mod postgres;
mod said;
mod schema;
mod sqlite;
mod writing;

use crate::{arguments::State, dead::Dead};
use anyhow::{Context, Result, bail};
use otp_events::Event;
pub(crate) use postgres::Database;
use postgres::Postgres;
use serde::Serialize;
use sqlite::Sqlite;
use std::{
    path::Path,
    time::{Duration, Instant, SystemTime},
};

/// How long a relay that has said nothing counts as alive. What it has is then anybody's.
pub(crate) const LEASE: Duration = Duration::from_secs(6);

/// How often a relay says that it is alive, and looks at who else is.
pub(crate) const TICK: Duration = Duration::from_secs(1);

/// Most rows of a kind that one cleaning removes.
const CLEAN_AT_ONCE: i64 = 5_000;

/// The ledger.
#[derive(Debug, Clone)]
pub(crate) enum Ledger {
    /// A file, of one relay.
    Sqlite(Sqlite),
    /// A database, of as many relays as there are.
    Postgres(Postgres),
}

/// Why nothing was written down. Any other error of the ledger is one of its own.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotNow {
    /// It can be tried again later. Whoever opened the ledger has said so in the log, once.
    #[error("the ledger is away: {0}")]
    Away(String),
    /// The partition is another relay's by now, and so is what was read from it.
    #[error("the partition is another relay's by now")]
    LeaseLost,
}

/// Where a batch of records came from, and where to go on after it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Position<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) next: i64,
    /// Of the lease by which it was read: nothing is written down by an older one.
    pub(crate) epoch: i64,
}

/// The partitions of a topic that are this relay's.
#[derive(Debug, Default)]
pub(crate) struct Share {
    /// Each with the epoch of its lease.
    pub(crate) held: Vec<(i32, i64)>,
    /// How many there should be, so that all relays have as many.
    pub(crate) aim: usize,
}

/// A record that was read: its event, or why it is none.
pub(crate) enum Read {
    /// An event, and whether an operator wants it processed again.
    Event { event: Box<Event>, again: bool },
    /// What cannot be processed.
    Dead(Dead),
}

/// A delivery whose time has come, and whose attempt has been written down.
#[derive(Debug)]
pub(crate) struct Due {
    pub(crate) event_id: String,
    pub(crate) event: String,
    /// Rounds by now, this one included.
    pub(crate) attempts: i64,
    pub(crate) expires_at: i64,
    /// When its event was read.
    pub(crate) created_at: i64,
    /// Which claim of the delivery this is.
    pub(crate) claim: i64,
    /// Before it was claimed.
    pub(crate) claimed_at: Instant,
}

/// What came of a round.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) event_id: String,
    /// Whose claim it was: what came of an older one does not count.
    pub(crate) claim: i64,
    /// `delivered`, `waiting`, `expired` or `failed`
    pub(crate) state: &'static str,
    pub(crate) provider: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) next_at: i64,
    /// Whether the event itself has to be kept.
    pub(crate) keep: bool,
    /// Whether anybody was asked at all; if not, the round does not count.
    pub(crate) tried: bool,
}

/// What [`Ledger::take`] did.
#[derive(Debug, Default)]
pub(crate) struct Taken<'a> {
    /// Events seen for the first time.
    pub(crate) new: Vec<&'a Event>,
    /// Events seen before.
    pub(crate) duplicates: usize,
    /// Codes to be delivered.
    pub(crate) deliveries: usize,
    /// What could not be processed.
    pub(crate) dead: usize,
    /// Numbers that were erased.
    pub(crate) erased: usize,
}

/// What [`Ledger::due`] found.
#[derive(Debug, Default)]
pub(crate) struct Round {
    pub(crate) due: Vec<Due>,
    /// Codes that were replaced or came to their end before they were delivered.
    pub(crate) superseded: usize,
    /// Codes whose life was over.
    pub(crate) expired: usize,
}

/// Why a code was not delivered, for whoever asks what became of it.
const SUPERSEDED: &str = "the code was replaced, used or locked before it was delivered";
const EXPIRED: &str = "the code's life was over before it was delivered";

/// What became of one event's code, for people.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Delivery {
    event_id: String,
    otp_id: String,
    channel: String,
    state: String,
    attempts: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    created_at: String,
    updated_at: String,
}

/// A code that was put into the inbox.
#[derive(Debug)]
pub(crate) struct Delivered {
    pub(crate) event: String,
    pub(crate) at: i64,
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A moment as RFC 3339, UTC, with milliseconds.
pub(crate) fn rfc3339(millis: i64) -> String {
    chrono::DateTime::from_timestamp_millis(millis)
        .unwrap_or_default()
        .to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// The milliseconds of a moment in RFC 3339.
pub(crate) fn parse_rfc3339(text: &str) -> Option<i64> {
    chrono::DateTime::parse_from_rfc3339(text).ok().map(|moment| moment.timestamp_millis())
}

/// Asks the store that there is.
macro_rules! ask {
    ($ledger:expr, $store:ident => $answer:expr) => {
        match $ledger {
            Ledger::Sqlite($store) => $answer.await,
            Ledger::Postgres($store) => $answer.await,
        }
    };
}

impl Ledger {
    /// Opens the ledger that is configured, or makes one. A database that is away is waited for by whoever
    /// needs it; one that will never let the relay in is an error.
    pub(crate) async fn open(state: &State) -> Result<Self> {
        match state.database()? {
            Some(database) => {
                Postgres::open(database).await.map(Self::Postgres).context("RELAY_DATABASE_URL")
            }
            None => Self::in_folder(&state.state_dir).await,
        }
    }

    /// Opens the ledger that there is; a wrong folder is a mistake, and no reason to make one.
    pub(crate) async fn open_existing(state: &State) -> Result<Self> {
        if state.database()?.is_none() && !Sqlite::is_in(&state.state_dir) {
            bail!(
                "there is no ledger in {}; set RELAY_STATE_DIR to what the relay has",
                state.state_dir.display()
            );
        }
        Self::open(state).await
    }

    async fn in_folder(folder: &Path) -> Result<Self> {
        Sqlite::open(folder).await.map(Self::Sqlite)
    }

    /// For people.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "sqlite",
            Self::Postgres(_) => "postgres",
        }
    }

    /// Whether there may be other relays.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// Whether it can be written to.
    pub(crate) async fn ping(&self) -> Result<()> {
        ask!(self, store => store.ping())
    }

    /// Says that this relay is alive, and may have deliveries in hand.
    pub(crate) async fn renew(&self) -> Result<()> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(store) => store.renew().await,
        }
    }

    /// Says that this relay ends: what it has is anybody's at once.
    pub(crate) async fn leave(&self) -> Result<()> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(store) => store.leave().await,
        }
    }

    /// Says whether this relay reads a topic, takes what it lacks for its share of the partitions that are
    /// nobody's, and tells which are its own. One that does not read has none.
    pub(crate) async fn share(&self, topic: &str, partitions: i32, reads: bool) -> Result<Share> {
        match self {
            Self::Sqlite(_) => {
                let held: Vec<_> = (0..partitions).map(|partition| (partition, 0)).collect();
                Ok(Share { aim: held.len(), held })
            }
            Self::Postgres(store) => store.share(topic, partitions, reads).await,
        }
    }

    /// Gives a partition up, for another relay to read.
    pub(crate) async fn release(&self, topic: &str, partition: i32, epoch: i64) -> Result<()> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(store) => store.release(topic, partition, epoch).await,
        }
    }

    /// Makes rounds due at once that nobody goes on with: those of relays that died, and those of this one
    /// that it does not have in hand. Whoever opens the ledger to deliver calls this first.
    pub(crate) async fn recover(&self, in_hand: &[&str]) -> Result<u64> {
        ask!(self, store => store.recover(in_hand))
    }

    /// Where to go on reading; `None` where nothing was read yet.
    pub(crate) async fn next_offset(&self, topic: &str, partition: i32) -> Result<Option<i64>> {
        ask!(self, store => store.next_offset(topic, partition))
    }

    /// Writes down what was read and where to go on, in one step. Of an event that was seen before
    /// nothing happens.
    pub(crate) async fn take<'a>(
        &self,
        position: Option<Position<'_>>,
        read: &'a [Read],
    ) -> Result<Taken<'a>> {
        ask!(self, store => store.take(position, read))
    }

    /// Starts a round for up to `most` deliveries that are due: writes their attempts down, and ends
    /// those whose code is no longer live.
    pub(crate) async fn due(&self, most: usize) -> Result<Round> {
        ask!(self, store => store.due(most))
    }

    /// Writes down what came of rounds, and puts those that failed for good among the dead. Of a round
    /// whose number was erased meanwhile, or that another relay has claimed, nothing is written.
    pub(crate) async fn settle(&self, outcomes: &[Outcome]) -> Result<()> {
        ask!(self, store => store.settle(outcomes))
    }

    /// Whether the code of a delivery that was claimed is still the newest of its number and not at its end,
    /// and the claim is still the newest.
    pub(crate) async fn is_live(&self, due: &Due) -> Result<bool> {
        ask!(self, store => store.is_live(&due.event_id, due.claim))
    }

    /// When the next delivery is due.
    pub(crate) async fn next_due(&self) -> Result<Option<i64>> {
        ask!(self, store => store.next_due())
    }

    /// What became of a code, newest first.
    pub(crate) async fn deliveries(&self, otp_id: &str) -> Result<Vec<Delivery>> {
        ask!(self, store => store.deliveries(otp_id))
    }

    /// What was put into the inbox, newest first.
    pub(crate) async fn inbox(&self, most: i64) -> Result<Vec<Delivered>> {
        ask!(self, store => store.inbox(most))
    }

    /// The dead, oldest first, with their places; those that are parked only if asked for.
    pub(crate) async fn dead(&self, most: i64, parked: bool) -> Result<Vec<(i64, Dead)>> {
        ask!(self, store => store.dead(most, parked))
    }

    /// Keeps a dead one here, for its topic does not take it.
    pub(crate) async fn park(&self, id: i64) -> Result<()> {
        ask!(self, store => store.park(id))
    }

    /// Drops dead ones that somebody else has now.
    pub(crate) async fn drop_dead(&self, ids: &[i64]) -> Result<()> {
        ask!(self, store => store.drop_dead(ids))
    }

    /// Forgets some of what is older than `age`. Whether there may be more.
    pub(crate) async fn clean(&self, age: Duration) -> Result<bool> {
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        ask!(self, store => store.clean(age))
    }

    /// Has the tables written anew in which numbers stand, after an erasure.
    pub(crate) async fn rewrite(&self) -> Result<()> {
        ask!(self, store => store.rewrite())
    }

    /// Empties the log of changes, where it is a file of the relay's own: pages as they were before an
    /// erasure are in it. `false` if somebody reads them just now.
    pub(crate) async fn empty_log(&self) -> Result<bool> {
        match self {
            Self::Sqlite(store) => store.empty_log().await,
            Self::Postgres(_) => Ok(true),
        }
    }

    /// Closes it.
    pub(crate) async fn close(&self) {
        ask!(self, store => store.close());
    }
}

impl Read {
    fn event(&self) -> Option<&Event> {
        match self {
            Self::Event { event, .. } => Some(event),
            Self::Dead(_) => None,
        }
    }
}
