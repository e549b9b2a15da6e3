//! What was read, and what became of it, in an SQLite file of one relay or in a Postgres that several share.
//! The stores are the one place of the relay that knows SQL.
//!
//! Everything is done in batches: a statement takes many rows, so that a thousand events cost little more
//! than one.

mod history;
mod lease;
mod not_now;
mod postgres;
mod reading;
mod round;
mod said;
mod schema;
mod sqlite;
mod writing;

use crate::{arguments::State, dead::Dead};
use anyhow::{Context, Result, bail};
pub(crate) use history::{Delivered, Delivery};
pub(crate) use lease::{Share, TICK};
pub(crate) use not_now::NotNow;
use postgres::Postgres;
pub(crate) use reading::{Part, Position, Read, Taken};
pub(crate) use round::{Due, Outcome, Round};
use sqlite::Sqlite;
use std::{path::Path, time::Duration};

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
    pub(crate) async fn take<'a>(&self, parts: &[Part<'a>]) -> Result<Taken<'a>> {
        ask!(self, store => store.take(parts))
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
        ask!(self, store => store.clean(age, CLEAN_AT_ONCE))
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
