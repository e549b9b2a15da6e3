//! What was read, and what became of it: an SQLite file, and the one place of the relay that knows SQL.
//!
//! Everything is done in batches: a statement takes a whole JSON array, so that a thousand events cost
//! little more than one.

use crate::{dead::Dead, erasure::Erasure};
use anyhow::{Context, Result};
use otp_events::{Event, EventType, Record};
use serde::Serialize;
use serde_json::json;
use sqlx::{
    Connection, Row, Sqlite, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};
use std::{
    collections::{HashMap, HashSet},
    path::Path,
    time::{Duration, SystemTime},
};

const SCHEMA: [&str; 2] = [
    include_str!("../../migrations/relay/0001_ledger.sql"),
    include_str!("../../migrations/relay/0002_erasure.sql"),
];

const FILE: &str = "ledger.db";

/// The reason of a lock that is one of the number, and not of its code.
const NUMBER_LOCKED: &str = "number_locked";

/// How long a connection waits for another writer: a `relay dlq` beside the relay.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the log is waited for before it is left as it is: longer would keep events waiting, too.
const LOG_TIMEOUT: Duration = Duration::from_millis(200);

/// How long a round through the providers may take before it counts as lost: longer than a code lives. A
/// relay that starts does not wait for that, see [`Ledger::recover`].
const ROUND: Duration = Duration::from_secs(15 * 60);

/// Most rows of a kind that one cleaning removes.
const CLEAN_AT_ONCE: i64 = 5_000;

/// The ledger. One writer at a time; readers beside it.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    writer: SqlitePool,
    readers: SqlitePool,
}

/// Where a batch of records came from, and where to go on after it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Position<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) next: i64,
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
}

/// What came of a round.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) event_id: String,
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

/// What is said of a number, for `numbers`, where everything only ever grows.
#[derive(Default, Serialize)]
struct News<'a> {
    subject: &'a str,
    version: i64,
    ended: i64,
    erased: i64,
    erased_sequence: String,
}

/// A row to be inserted into `deliveries`, and into `contents`.
#[derive(Serialize)]
struct NewDelivery<'a> {
    event_id: &'a str,
    otp_id: String,
    subject: &'a str,
    version: i64,
    sequence: &'a str,
    channel: String,
    expires_at: i64,
    event: String,
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

impl Ledger {
    /// Whether there is a ledger in this folder.
    pub(crate) fn is_in(folder: &Path) -> bool {
        folder.join(FILE).exists()
    }

    /// Opens the ledger in this folder, or makes one.
    pub(crate) async fn open(folder: &Path) -> Result<Self> {
        let file = folder.join(FILE);
        let say = || format!("cannot open the ledger {}", file.display());
        std::fs::create_dir_all(folder).with_context(say)?;
        // Whoever hears "accepted" forgets the event, so what is written here has to stay written, also
        // when the power goes.
        let options = SqliteConnectOptions::new()
            .filename(&file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            // What is deleted is overwritten, also on pages that become free: FAST leaves those as they
            // are, and that is where large events end.
            .pragma("secure_delete", "ON");
        let pool =
            |connections| SqlitePoolOptions::new().max_connections(connections).acquire_timeout(BUSY_TIMEOUT);
        // A connection whose COMMIT failed, for the disk was full, may count as in a transaction for ever.
        let writer = pool(1).before_acquire(|connection, _| {
            let sound = !connection.is_in_transaction();
            Box::pin(async move { Ok(sound) })
        });
        let writer = writer.connect_with(options.clone()).await.with_context(say)?;
        let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await.with_context(say)?;
        let taken: i64 =
            sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *transaction).await.with_context(say)?;
        for step in SCHEMA.iter().skip(usize::try_from(taken).unwrap_or_default()) {
            sqlx::raw_sql(*step).execute(&mut *transaction).await.with_context(say)?;
        }
        if usize::try_from(taken).unwrap_or_default() < SCHEMA.len() {
            let version = sqlx::AssertSqlSafe(format!("PRAGMA user_version = {}", SCHEMA.len()));
            sqlx::raw_sql(version).execute(&mut *transaction).await.with_context(say)?;
        }
        transaction.commit().await.with_context(say)?;
        if taken == 1 {
            // Until then nothing was overwritten, and what was deleted may still be in the file.
            sqlx::raw_sql("VACUUM").execute(&writer).await.with_context(say)?;
        }
        let readers = pool(4).connect_with(options.read_only(true)).await.with_context(say)?;
        Ok(Self { writer, readers })
    }

    /// Whether it can be written to.
    pub(crate) async fn ping(&self) -> Result<()> {
        let transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        transaction.rollback().await?;
        Ok(())
    }

    /// Makes rounds that were under way when the last relay died due at once. Whoever opens the ledger
    /// to deliver calls this first.
    pub(crate) async fn recover(&self) -> Result<u64> {
        let recovered = sqlx::query(
            "UPDATE deliveries SET attempting = 0, next_at = ?1 WHERE state = 'waiting' AND attempting = 1",
        )
        .bind(now())
        .execute(&self.writer)
        .await?;
        Ok(recovered.rows_affected())
    }

    /// Where to go on reading; `None` where nothing was read yet.
    pub(crate) async fn next_offset(&self, topic: &str, partition: i32) -> Result<Option<i64>> {
        let next = sqlx::query_scalar("SELECT next FROM offsets WHERE topic = ?1 AND partition = ?2")
            .bind(topic)
            .bind(partition)
            .fetch_optional(&self.readers)
            .await?;
        Ok(next)
    }

    /// Writes down what was read and where to go on, in one step. Of an event that was seen before
    /// nothing happens.
    pub(crate) async fn take<'a>(
        &self,
        position: Option<Position<'_>>,
        read: &'a [Read],
    ) -> Result<Taken<'a>> {
        let now = now();
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let mut taken = Taken::default();

        let ids: Vec<_> = read.iter().filter_map(Read::event).map(|event| &*event.id).collect();
        let mut unseen = remember(&mut transaction, &ids, now).await?;
        let mut news = Vec::new();
        let mut deliveries = Vec::new();
        let mut dead = Vec::new();
        let mut erasures: Vec<(&str, Erasure)> = Vec::new();
        for read in read {
            let (event, again) = match read {
                Read::Event { event, again } => (&**event, *again),
                Read::Dead(letter) => {
                    dead.push(letter.clone());
                    continue;
                }
            };
            // A copy within the batch finds its id taken by the first.
            if unseen.remove(&*event.id) {
                taken.new.push(event);
            } else if !again {
                taken.duplicates += 1;
                continue;
            }
            match Said::by(event) {
                Ok(Said::Nothing) => {}
                Ok(Said::News(said)) => news.push(said),
                Ok(Said::Code(said, delivery)) => {
                    news.push(said);
                    deliveries.push(delivery);
                }
                Ok(Said::Erased { subject, mut erasure }) => {
                    if !erasure.is_exact() {
                        let so_far = news.iter().filter(|news| news.subject == subject);
                        let so_far = so_far.map(|news| news.version).max().unwrap_or_default();
                        erasure.version = newest(&mut transaction, subject).await?.max(so_far);
                    }
                    erasures.push((subject, erasure));
                }
                Err(reason) => dead.push(Dead::new(Record::from(event), reason, now)),
            }
        }
        taken.erased = erasures.len();
        let erased: HashSet<_> = erasures.iter().map(|(subject, _)| *subject).collect();
        news.extend(erasures.iter().map(|(subject, Erasure { version, sequence })| News {
            subject,
            version: *version,
            ended: *version,
            erased: *version,
            erased_sequence: sequence.clone(),
        }));
        if !news.is_empty() {
            sqlx::query(
                "INSERT INTO numbers (subject, version, ended, erased, erased_sequence, seen_at)
                 SELECT value ->> '$.subject', max(value ->> '$.version'), max(value ->> '$.ended'),
                        max(value ->> '$.erased'), max(value ->> '$.erased_sequence'), ?2
                 FROM json_each(?1) GROUP BY 1
                 ON CONFLICT (subject) DO UPDATE SET
                   version         = max(version, excluded.version),
                   ended           = max(ended, excluded.ended),
                   erased          = max(erased, excluded.erased),
                   erased_sequence = max(erased_sequence, excluded.erased_sequence),
                   seen_at         = excluded.seen_at",
            )
            .bind(serde_json::to_string(&news)?)
            .bind(now)
            .execute(&mut *transaction)
            .await?;
        }
        // Before or after the erasure in this batch, or long after it: what it covers is not kept.
        let about = deliveries.iter().map(|delivery| delivery.subject);
        let about: HashSet<_> =
            about.chain(dead.iter().map(|dead| &*dead.record.key)).chain(erased.iter().copied()).collect();
        let tombstones = tombstones(&mut transaction, &about).await?;
        if !tombstones.is_empty() {
            let erasure_of = |subject: &str| tombstones.get(subject);
            deliveries.retain(|delivery| {
                !erasure_of(delivery.subject)
                    .is_some_and(|erasure| erasure.covers(Some(delivery.version), Some(delivery.sequence)))
            });
            dead.retain(|dead| {
                !erasure_of(&dead.record.key).is_some_and(|erasure| covers_dead(erasure, &dead.record))
            });
        }
        for subject in erased {
            // Where nothing is known of a number there is no tombstone; a dead letter may still be here.
            let erasure = tombstones.get(subject).cloned().unwrap_or_default();
            forget(&mut transaction, subject, &erasure).await?;
        }
        if !deliveries.is_empty() {
            let rows = serde_json::to_string(&deliveries)?;
            // Again, only if it had failed: what was delivered is not delivered twice.
            sqlx::query(
                "INSERT INTO deliveries (event_id, otp_id, subject, version, sequence, channel, expires_at,
                                         next_at, created_at, updated_at)
                 SELECT value ->> '$.event_id', value ->> '$.otp_id', value ->> '$.subject',
                        value ->> '$.version', value ->> '$.sequence', value ->> '$.channel',
                        value ->> '$.expires_at', ?2, ?2, ?2
                 FROM json_each(?1) WHERE true
                 ON CONFLICT (event_id) DO UPDATE SET
                   state = 'waiting', attempts = 0, next_at = excluded.next_at, reason = NULL,
                   updated_at = excluded.updated_at
                 WHERE state = 'failed'",
            )
            .bind(&rows)
            .bind(now)
            .execute(&mut *transaction)
            .await?;
            // One that waits already has it.
            sqlx::query(
                "INSERT INTO contents (event_id, event)
                 SELECT deliveries.event_id, value ->> '$.event'
                 FROM json_each(?1) JOIN deliveries ON deliveries.event_id = value ->> '$.event_id'
                 WHERE state = 'waiting'
                 ON CONFLICT DO NOTHING",
            )
            .bind(&rows)
            .execute(&mut *transaction)
            .await?;
            taken.deliveries = deliveries.len();
        }
        taken.dead = dead.len();
        bury(&mut transaction, &dead).await?;
        if let Some(Position { topic, partition, next }) = position {
            sqlx::query(
                "INSERT INTO offsets (topic, partition, next) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET next = excluded.next",
            )
            .bind(topic)
            .bind(partition)
            .bind(next)
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(taken)
    }

    /// Starts a round for up to `most` deliveries that are due: writes their attempts down, and ends
    /// those whose code is no longer live.
    pub(crate) async fn due(&self, most: usize) -> Result<Round> {
        let now = now();
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let rows = sqlx::query(
            "SELECT deliveries.event_id, contents.event, deliveries.expires_at, deliveries.attempts,
                    deliveries.created_at,
                    deliveries.version < coalesce(numbers.version, 0)
                      OR deliveries.version <= coalesce(numbers.ended, 0) AS superseded
             FROM deliveries LEFT JOIN numbers USING (subject) LEFT JOIN contents USING (event_id)
             WHERE state = 'waiting' AND next_at <= ?1 ORDER BY next_at LIMIT ?2",
        )
        .bind(now)
        .bind(most)
        .fetch_all(&mut *transaction)
        .await?;
        let mut round = Round::default();
        let (mut superseded, mut expired) = (Vec::new(), Vec::new());
        for row in &rows {
            let event_id: String = row.try_get(0)?;
            let (event, expires_at): (Option<String>, i64) = (row.try_get(1)?, row.try_get(2)?);
            let created_at = row.try_get(4)?;
            if row.try_get(5)? {
                superseded.push(event_id);
            } else if expires_at <= now {
                expired.push(event_id);
            } else {
                let attempts = row.try_get::<i64, _>(3)? + 1;
                let event = event.unwrap_or_default();
                round.due.push(Due { event_id, event, attempts, expires_at, created_at });
            }
        }
        let end = "UPDATE deliveries SET state = ?2, attempting = 0, updated_at = ?3, reason = ?4
                   WHERE event_id IN (SELECT value FROM json_each(?1))";
        let drop_contents = "DELETE FROM contents WHERE event_id IN (SELECT value FROM json_each(?1))";
        for (ids, state, reason) in [
            (&superseded, "superseded", "the code was replaced, used or locked before it was delivered"),
            (&expired, "expired", "the code's life was over before it was delivered"),
        ] {
            if !ids.is_empty() {
                let ids = json!(ids).to_string();
                sqlx::query(drop_contents).bind(&ids).execute(&mut *transaction).await?;
                sqlx::query(end)
                    .bind(ids)
                    .bind(state)
                    .bind(now)
                    .bind(reason)
                    .execute(&mut *transaction)
                    .await?;
            }
        }
        if !round.due.is_empty() {
            let ids: Vec<_> = round.due.iter().map(|due| &*due.event_id).collect();
            sqlx::query(
                "UPDATE deliveries SET attempts = attempts + 1, attempting = 1, next_at = ?2, updated_at = ?3
                 WHERE event_id IN (SELECT value FROM json_each(?1))",
            )
            .bind(json!(ids).to_string())
            .bind(now + i64::try_from(ROUND.as_millis()).unwrap_or_default())
            .bind(now)
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        (round.superseded, round.expired) = (superseded.len(), expired.len());
        Ok(round)
    }

    /// Writes down what came of rounds, and puts those that failed for good among the dead. Of a round
    /// whose number was erased meanwhile nothing is written.
    pub(crate) async fn settle(&self, outcomes: &[Outcome]) -> Result<()> {
        let now = now();
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let failed: Vec<_> = outcomes.iter().filter(|outcome| outcome.state == "failed").collect();
        if !failed.is_empty() {
            let ids: Vec<_> = failed.iter().map(|outcome| &*outcome.event_id).collect();
            let rows = sqlx::query(
                "SELECT event_id, subject, event FROM deliveries JOIN contents USING (event_id)
                 WHERE event_id IN (SELECT value FROM json_each(?1))",
            )
            .bind(json!(ids).to_string())
            .fetch_all(&mut *transaction)
            .await?;
            let mut dead = Vec::new();
            for row in &rows {
                let (id, subject): (String, String) = (row.try_get(0)?, row.try_get(1)?);
                let event: String = row.try_get(2)?;
                let reason = failed.iter().find(|outcome| outcome.event_id == id);
                let reason = reason.and_then(|outcome| outcome.reason.clone()).unwrap_or_default();
                let record = match serde_json::from_str::<Event>(&event) {
                    Ok(event) => Record::from(&event),
                    // Damaged; kept as it is, and found by an erasure.
                    Err(_) => Record { key: subject, headers: Vec::new(), value: event.into_bytes() },
                };
                dead.push(Dead::new(record, reason, now));
            }
            bury(&mut transaction, &dead).await?;
        }
        let settled = serde_json::to_string(outcomes)?;
        sqlx::query(
            "DELETE FROM contents WHERE event_id IN (
               SELECT value ->> '$.event_id'
               FROM json_each(?1) JOIN deliveries ON deliveries.event_id = value ->> '$.event_id'
               WHERE state = 'waiting' AND NOT value ->> '$.keep')",
        )
        .bind(&settled)
        .execute(&mut *transaction)
        .await?;
        sqlx::query(
            "UPDATE deliveries SET
               state      = settled.state,
               attempting = 0,
               attempts   = attempts - (NOT settled.tried),
               next_at    = settled.next_at,
               provider   = settled.provider,
               reason     = settled.reason,
               updated_at = ?2
             FROM (SELECT value ->> '$.event_id' AS id, value ->> '$.state' AS state,
                          value ->> '$.provider' AS provider, value ->> '$.reason' AS reason,
                          value ->> '$.next_at' AS next_at, value ->> '$.tried' AS tried
                   FROM json_each(?1)) AS settled
             WHERE deliveries.event_id = settled.id AND deliveries.state = 'waiting'",
        )
        .bind(settled)
        .bind(now)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Whether an event's code is still the newest of its number and not at its end.
    pub(crate) async fn is_live(&self, event_id: &str) -> Result<bool> {
        let live = sqlx::query_scalar(
            "SELECT deliveries.version >= coalesce(numbers.version, 0)
                AND deliveries.version > coalesce(numbers.ended, 0)
             FROM deliveries LEFT JOIN numbers USING (subject) WHERE event_id = ?1",
        )
        .bind(event_id)
        .fetch_optional(&self.readers)
        .await?;
        Ok(live.unwrap_or(false))
    }

    /// When the next delivery is due.
    pub(crate) async fn next_due(&self) -> Result<Option<i64>> {
        let next = sqlx::query_scalar("SELECT min(next_at) FROM deliveries WHERE state = 'waiting'")
            .fetch_one(&self.readers)
            .await?;
        Ok(next)
    }

    /// What became of a code, newest first.
    pub(crate) async fn deliveries(&self, otp_id: &str) -> Result<Vec<Delivery>> {
        let rows = sqlx::query(
            "SELECT event_id, otp_id, channel, state, attempts, provider, reason, created_at, updated_at
             FROM deliveries WHERE otp_id = ?1 ORDER BY sequence DESC LIMIT 100",
        )
        .bind(otp_id)
        .fetch_all(&self.readers)
        .await?;
        let delivery = |row: &SqliteRow| -> Result<Delivery> {
            Ok(Delivery {
                event_id: row.try_get(0)?,
                otp_id: row.try_get(1)?,
                channel: row.try_get(2)?,
                state: row.try_get(3)?,
                attempts: row.try_get(4)?,
                provider: row.try_get(5)?,
                reason: row.try_get(6)?,
                created_at: rfc3339(row.try_get(7)?),
                updated_at: rfc3339(row.try_get(8)?),
            })
        };
        rows.iter().map(delivery).collect()
    }

    /// What was put into the inbox, newest first.
    pub(crate) async fn inbox(&self, most: i64) -> Result<Vec<Delivered>> {
        let rows = sqlx::query(
            "SELECT event, updated_at FROM deliveries JOIN contents USING (event_id)
             WHERE state = 'delivered' AND provider = 'inbox'
             ORDER BY updated_at DESC, sequence DESC LIMIT ?1",
        )
        .bind(most)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| Ok(Delivered { event: row.try_get(0)?, at: row.try_get(1)? })).collect()
    }

    /// The dead, oldest first, with their places; those that are parked only if asked for.
    pub(crate) async fn dead(&self, most: i64, parked: bool) -> Result<Vec<(i64, Dead)>> {
        let rows = sqlx::query(
            "SELECT id, key, headers, value, reason, died_at FROM dead
             WHERE parked <= ?2 ORDER BY id LIMIT ?1",
        )
        .bind(most)
        .bind(parked)
        .fetch_all(&self.readers)
        .await?;
        let dead = |row: &SqliteRow| -> Result<(i64, Dead)> {
            let headers = serde_json::from_str(&row.try_get::<String, _>(2)?)?;
            let record = Record { key: row.try_get(1)?, headers, value: row.try_get(3)? };
            Ok((row.try_get(0)?, Dead::new(record, row.try_get::<String, _>(4)?, row.try_get(5)?)))
        };
        rows.iter().map(dead).collect()
    }

    /// Keeps a dead one here, for its topic does not take it.
    pub(crate) async fn park(&self, id: i64) -> Result<()> {
        sqlx::query("UPDATE dead SET parked = 1 WHERE id = ?1").bind(id).execute(&self.writer).await?;
        Ok(())
    }

    /// Drops dead ones that somebody else has now.
    pub(crate) async fn drop_dead(&self, ids: &[i64]) -> Result<()> {
        sqlx::query("DELETE FROM dead WHERE id IN (SELECT value FROM json_each(?1))")
            .bind(json!(ids).to_string())
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// Forgets some of what is older than `age`. Whether there may be more.
    pub(crate) async fn clean(&self, age: Duration) -> Result<bool> {
        let before = now() - i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let mut more = false;
        for statement in [
            "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE seen_at < ?1 LIMIT ?2)",
            "DELETE FROM numbers WHERE subject IN (SELECT subject FROM numbers WHERE seen_at < ?1 LIMIT ?2)",
            "DELETE FROM dead WHERE id IN (SELECT id FROM dead WHERE died_at < ?1 LIMIT ?2)",
            "DELETE FROM deliveries WHERE event_id IN (SELECT event_id FROM deliveries
               WHERE updated_at < ?1 AND state <> 'waiting' LIMIT ?2)",
        ] {
            let done = sqlx::query(statement).bind(before).bind(CLEAN_AT_ONCE).execute(&self.writer).await?;
            more |= done.rows_affected() >= CLEAN_AT_ONCE.unsigned_abs();
        }
        Ok(more)
    }

    /// Writes the tables anew in which numbers stand. Where SQLite has split or joined pages, old copies of
    /// rows may be left in them that no statement reaches, and that go only with the whole page: to delete
    /// all rows of a table frees its pages, and `secure_delete` overwrites those.
    pub(crate) async fn rewrite(&self) -> Result<()> {
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::raw_sql(
            "INSERT INTO spare_contents (event_id, event) SELECT event_id, event FROM contents ORDER BY rowid;
             DELETE FROM contents;
             INSERT INTO contents (event_id, event) SELECT event_id, event FROM spare_contents;
             DELETE FROM spare_contents;
             INSERT INTO spare_dead (id, key, headers, value, reason, died_at, parked)
               SELECT id, key, headers, value, reason, died_at, parked FROM dead ORDER BY id;
             DELETE FROM dead;
             INSERT INTO dead (id, key, headers, value, reason, died_at, parked)
               SELECT id, key, headers, value, reason, died_at, parked FROM spare_dead;
             DELETE FROM spare_dead;",
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Moves all of the write-ahead log into the database and empties the file: pages as they were before
    /// an erasure are in it. `false` if somebody reads them just now.
    pub(crate) async fn empty_log(&self) -> Result<bool> {
        let mut writer = self.writer.acquire().await?;
        let wait = |time: Duration| {
            sqlx::raw_sql(sqlx::AssertSqlSafe(format!("PRAGMA busy_timeout = {}", time.as_millis())))
        };
        wait(LOG_TIMEOUT).execute(&mut *writer).await?;
        let busy = sqlx::query_scalar("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut *writer).await;
        wait(BUSY_TIMEOUT).execute(&mut *writer).await?;
        let busy: bool = busy?;
        Ok(!busy)
    }

    /// Closes the file.
    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
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

/// Notes ids, and tells which of them are new.
async fn remember(
    transaction: &mut Transaction<'_, Sqlite>,
    ids: &[&str],
    now: i64,
) -> Result<HashSet<String>> {
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let new = sqlx::query_scalar(
        "INSERT INTO events (id, seen_at) SELECT value, ?2 FROM json_each(?1) WHERE true
         ON CONFLICT DO NOTHING RETURNING id",
    )
    .bind(json!(ids).to_string())
    .bind(now)
    .fetch_all(&mut **transaction)
    .await?;
    Ok(new.into_iter().collect())
}

/// The newest code of a number that was seen; 0 for none.
async fn newest(transaction: &mut Transaction<'_, Sqlite>, subject: &str) -> Result<i64> {
    let version = sqlx::query_scalar("SELECT version FROM numbers WHERE subject = ?1")
        .bind(subject)
        .fetch_optional(&mut **transaction)
        .await?;
    Ok(version.unwrap_or_default())
}

/// What was erased of these numbers, where anything was.
async fn tombstones(
    transaction: &mut Transaction<'_, Sqlite>,
    subjects: &HashSet<&str>,
) -> Result<HashMap<String, Erasure>> {
    if subjects.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query(
        "SELECT subject, erased, erased_sequence FROM numbers
         WHERE subject IN (SELECT value FROM json_each(?1)) AND (erased > 0 OR erased_sequence <> '')",
    )
    .bind(json!(subjects).to_string())
    .fetch_all(&mut **transaction)
    .await?;
    let tombstone = |row: &SqliteRow| -> Result<(String, Erasure)> {
        Ok((row.try_get(0)?, Erasure { version: row.try_get(1)?, sequence: row.try_get(2)? }))
    };
    rows.iter().map(tombstone).collect()
}

/// Deletes all that an erasure covers.
async fn forget(transaction: &mut Transaction<'_, Sqlite>, subject: &str, erasure: &Erasure) -> Result<()> {
    let rows = sqlx::query("SELECT event_id, version, sequence FROM deliveries WHERE subject = ?1")
        .bind(subject)
        .fetch_all(&mut **transaction)
        .await?;
    let mut deliveries: Vec<String> = Vec::new();
    for row in &rows {
        if erasure.covers(Some(row.try_get(1)?), Some(row.try_get(2)?)) {
            deliveries.push(row.try_get(0)?);
        }
    }
    let rows = sqlx::query("SELECT id, headers, value FROM dead WHERE key = ?1")
        .bind(subject)
        .fetch_all(&mut **transaction)
        .await?;
    let mut dead: Vec<i64> = Vec::new();
    for row in &rows {
        let headers = serde_json::from_str(&row.try_get::<String, _>(1)?)?;
        let record = Record { key: subject.to_owned(), headers, value: row.try_get(2)? };
        if covers_dead(erasure, &record) {
            dead.push(row.try_get(0)?);
        }
    }
    // Their contents go with them, see the trigger.
    sqlx::query("DELETE FROM deliveries WHERE event_id IN (SELECT value FROM json_each(?1))")
        .bind(json!(deliveries).to_string())
        .execute(&mut **transaction)
        .await?;
    sqlx::query("DELETE FROM dead WHERE id IN (SELECT value FROM json_each(?1))")
        .bind(json!(dead).to_string())
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// Whether an erasure covers a record among the dead. One that is no event shows no version.
fn covers_dead(erasure: &Erasure, record: &Record) -> bool {
    record.event().map_or(true, |event| erasure.covers_event(&event))
}

async fn bury(transaction: &mut Transaction<'_, Sqlite>, dead: &[Dead]) -> Result<()> {
    for Dead { record, reason, died_at } in dead {
        sqlx::query("INSERT INTO dead (key, headers, value, reason, died_at) VALUES (?1, ?2, ?3, ?4, ?5)")
            .bind(&record.key)
            .bind(serde_json::to_string(&record.headers)?)
            .bind(&record.value)
            .bind(reason)
            .bind(died_at)
            .execute(&mut **transaction)
            .await?;
    }
    Ok(())
}

/// What an event means for the ledger.
enum Said<'a> {
    /// Nothing. It is on the topic for others.
    Nothing,
    /// Which code is the newest of a number, and which has come to its end.
    News(News<'a>),
    /// A code that is to be delivered.
    Code(News<'a>, NewDelivery<'a>),
    /// A number that is to be forgotten.
    Erased { subject: &'a str, erasure: Erasure },
}

impl<'a> Said<'a> {
    /// Of a type that this version does not know, nothing follows. What says that a code is to be
    /// delivered, and not which, is dead.
    fn by(event: &'a Event) -> Result<Self, String> {
        let subject = event.subject.as_deref();
        if event.r#type == EventType::Erased {
            let subject = subject.ok_or("subject is needed")?;
            return Ok(Self::Erased { subject, erasure: Erasure::by(event) });
        }
        let delivers = event.r#type.delivers();
        let ends = matches!(event.r#type, EventType::Verified | EventType::Locked);
        if !delivers && !ends {
            return Ok(Self::Nothing);
        }
        // The parser's own message is not passed on: it may repeat what was sent.
        let data = event.code().map_err(|_| "a field of data has the wrong type".to_owned())?;
        let (Some(subject), Some(version)) = (subject, data.version) else {
            return if delivers {
                Err("subject and data.version are needed".to_owned())
            } else {
                Ok(Self::Nothing)
            };
        };
        // A number that is locked for a while may have a code that outlives that: its code has not ended.
        let for_a_while = data.reason.as_deref() == Some(NUMBER_LOCKED);
        let ended = if ends && !for_a_while { version } else { 0 };
        let news = News { subject, version, ended, ..News::default() };
        if !delivers {
            return Ok(Self::News(news));
        }
        let missing = |name: &str| format!("data.{name} is needed");
        let expires_at = data.expires_at.ok_or_else(|| missing("expiresAt"))?;
        let expires_at = parse_rfc3339(&expires_at).ok_or("data.expiresAt is not RFC 3339")?;
        data.sealed_otp.ok_or_else(|| missing("sealedOtp"))?;
        data.mobile_number.ok_or_else(|| missing("mobileNumber"))?;
        let delivery = NewDelivery {
            event_id: &event.id,
            otp_id: data.otp_id.ok_or_else(|| missing("otpId"))?,
            subject,
            version,
            sequence: event.sequence.as_deref().unwrap_or_default(),
            channel: data.channel.ok_or_else(|| missing("channel"))?,
            expires_at,
            event: serde_json::to_string(event).map_err(|error| error.to_string())?,
        };
        Ok(Self::Code(news, delivery))
    }
}
