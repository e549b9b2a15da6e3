//! An SQLite file. One writer at a time; readers beside it.

use super::{
    history::{Delivered, Delivery},
    reading::{Part, Position, Taken},
    round::{Due, EXPIRED, Outcome, Round, SUPERSEDED},
    said::{NewDelivery, News},
    schema::{self, Step},
    writing::{self, Known, Writing},
};
use crate::{
    dead::Dead,
    erasure::Erasure,
    moment::{now, rfc3339},
};
use anyhow::{Context, Result};
use otp_events::{Event, Record};
use serde_json::json;
use sqlx::{
    Connection, Row, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};
use std::{
    collections::{HashMap, HashSet},
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::{Duration, Instant},
};

const SCHEMA: [Step; 1] = [("ledger", include_str!("../../../migrations/relay/0001_ledger.sql"))];

const FILE: &str = "ledger.db";

/// How long a connection waits for another writer: a `relay dlq` beside the relay.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the log is waited for before it is left as it is: longer would keep events waiting, too.
const LOG_TIMEOUT: Duration = Duration::from_millis(200);

/// How long a round through the providers may take before it counts as lost: longer than a code lives. A
/// relay that starts does not wait for that, see [`Sqlite::recover`].
const ROUND: Duration = Duration::from_secs(15 * 60);

/// The file.
#[derive(Debug, Clone)]
pub(crate) struct Sqlite {
    writer: SqlitePool,
    readers: SqlitePool,
}

impl Sqlite {
    /// Whether there is a ledger in this folder.
    pub(super) fn is_in(folder: &Path) -> bool {
        folder.join(FILE).exists()
    }

    /// Opens the ledger in this folder, or makes one.
    pub(super) async fn open(folder: &Path) -> Result<Self> {
        let file = folder.join(FILE);
        let say = || format!("cannot open the ledger {}", file.display());
        std::fs::create_dir_all(folder).with_context(say)?;
        // For its owner alone; SQLite gives its log the same rights. One that is there keeps those that it has.
        let _ = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file);
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
        // A relay and its `relay dlq` may begin at once: the second waits, and finds the tables made.
        let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await.with_context(say)?;
        schema::apply(&SCHEMA, "migrations", &mut *transaction).await.with_context(say)?;
        transaction.commit().await.with_context(say)?;
        let readers = pool(4).connect_with(options.read_only(true)).await.with_context(say)?;
        Ok(Self { writer, readers })
    }

    pub(super) async fn ping(&self) -> Result<()> {
        let transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        transaction.rollback().await?;
        Ok(())
    }

    /// There is one relay: whatever it does not have in hand, nobody has.
    pub(super) async fn recover(&self, in_hand: &[&str]) -> Result<u64> {
        let recovered = sqlx::query(
            "UPDATE deliveries SET attempting = 0, next_at = ?1
             WHERE state = 'waiting' AND attempting = 1
               AND event_id NOT IN (SELECT value FROM json_each(?2))",
        )
        .bind(now())
        .bind(json!(in_hand).to_string())
        .execute(&self.writer)
        .await?;
        Ok(recovered.rows_affected())
    }

    pub(super) async fn next_offset(&self, topic: &str, partition: i32) -> Result<Option<i64>> {
        let next = sqlx::query_scalar("SELECT next FROM offsets WHERE topic = ?1 AND partition = ?2")
            .bind(topic)
            .bind(partition)
            .fetch_optional(&self.readers)
            .await?;
        Ok(next)
    }

    pub(super) async fn take<'a>(&self, parts: &[Part<'a>]) -> Result<Taken<'a>> {
        let mut transaction = SqliteWriting(self.writer.begin_with("BEGIN IMMEDIATE").await?);
        let taken = writing::take(&mut transaction, parts).await?;
        transaction.0.commit().await?;
        Ok(taken)
    }

    pub(super) async fn due(&self, most: usize) -> Result<Round> {
        let (now, claimed_at) = (now(), Instant::now());
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
                // One that is under way is not claimed again: there is one relay.
                round.due.push(Due {
                    event_id,
                    event,
                    attempts,
                    expires_at,
                    created_at,
                    claim: 0,
                    claimed_at,
                });
            }
        }
        let end = "UPDATE deliveries SET state = ?2, attempting = 0, updated_at = ?3, reason = ?4
                   WHERE event_id IN (SELECT value FROM json_each(?1))";
        let drop_contents = "DELETE FROM contents WHERE event_id IN (SELECT value FROM json_each(?1))";
        for (ids, state, reason) in [(&superseded, "superseded", SUPERSEDED), (&expired, "expired", EXPIRED)]
        {
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

    pub(super) async fn settle(&self, outcomes: &[Outcome]) -> Result<()> {
        let now = now();
        let mut transaction = SqliteWriting(self.writer.begin_with("BEGIN IMMEDIATE").await?);
        let failed: Vec<_> = outcomes.iter().filter(|outcome| outcome.state == "failed").collect();
        if !failed.is_empty() {
            let ids: Vec<_> = failed.iter().map(|outcome| &*outcome.event_id).collect();
            let rows = sqlx::query(
                "SELECT event_id, subject, event FROM deliveries JOIN contents USING (event_id)
                 WHERE event_id IN (SELECT value FROM json_each(?1))",
            )
            .bind(json!(ids).to_string())
            .fetch_all(&mut *transaction.0)
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
            transaction.bury(&dead).await?;
        }
        let settled = serde_json::to_string(outcomes)?;
        sqlx::query(
            "DELETE FROM contents WHERE event_id IN (
               SELECT value ->> '$.event_id'
               FROM json_each(?1) JOIN deliveries ON deliveries.event_id = value ->> '$.event_id'
               WHERE state = 'waiting' AND NOT value ->> '$.keep')",
        )
        .bind(&settled)
        .execute(&mut *transaction.0)
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
        .execute(&mut *transaction.0)
        .await?;
        transaction.0.commit().await?;
        Ok(())
    }

    pub(super) async fn is_live(&self, event_id: &str, _: i64) -> Result<bool> {
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

    pub(super) async fn next_due(&self) -> Result<Option<i64>> {
        let next = sqlx::query_scalar("SELECT min(next_at) FROM deliveries WHERE state = 'waiting'")
            .fetch_one(&self.readers)
            .await?;
        Ok(next)
    }

    pub(super) async fn deliveries(&self, otp_id: &str) -> Result<Vec<Delivery>> {
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

    pub(super) async fn inbox(&self, most: i64) -> Result<Vec<Delivered>> {
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

    pub(super) async fn dead(&self, most: i64, parked: bool) -> Result<Vec<(i64, Dead)>> {
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

    pub(super) async fn park(&self, id: i64) -> Result<()> {
        sqlx::query("UPDATE dead SET parked = 1 WHERE id = ?1").bind(id).execute(&self.writer).await?;
        Ok(())
    }

    pub(super) async fn drop_dead(&self, ids: &[i64]) -> Result<()> {
        sqlx::query("DELETE FROM dead WHERE id IN (SELECT value FROM json_each(?1))")
            .bind(json!(ids).to_string())
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    pub(super) async fn clean(&self, age: i64, most: i64) -> Result<bool> {
        let before = now() - age;
        let mut more = false;
        for statement in [
            "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE seen_at < ?1 LIMIT ?2)",
            "DELETE FROM numbers WHERE subject IN (SELECT subject FROM numbers WHERE seen_at < ?1 LIMIT ?2)",
            "DELETE FROM dead WHERE id IN (SELECT id FROM dead WHERE died_at < ?1 LIMIT ?2)",
            "DELETE FROM deliveries WHERE event_id IN (SELECT event_id FROM deliveries
               WHERE updated_at < ?1 AND state <> 'waiting' LIMIT ?2)",
        ] {
            let done = sqlx::query(statement).bind(before).bind(most).execute(&self.writer).await?;
            more |= done.rows_affected() >= most.unsigned_abs();
        }
        Ok(more)
    }

    /// Writes the tables anew in which numbers stand. Where SQLite has split or joined pages, old copies of
    /// rows may be left in them that no statement reaches, and that go only with the whole page: to delete
    /// all rows of a table frees its pages, and `secure_delete` overwrites those.
    pub(super) async fn rewrite(&self) -> Result<()> {
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
    pub(super) async fn empty_log(&self) -> Result<bool> {
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

    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// The file's one transaction.
struct SqliteWriting(Transaction<'static, sqlx::Sqlite>);

impl Writing for SqliteWriting {
    async fn remember(&mut self, ids: &[&str]) -> Result<HashSet<String>> {
        let new = sqlx::query_scalar(
            "INSERT INTO events (id, seen_at) SELECT value, ?2 FROM json_each(?1) WHERE true
             ON CONFLICT DO NOTHING RETURNING id",
        )
        .bind(json!(ids).to_string())
        .bind(now())
        .fetch_all(&mut *self.0)
        .await?;
        Ok(new.into_iter().collect())
    }

    async fn newest(&mut self, subject: &str) -> Result<i64> {
        let version = sqlx::query_scalar("SELECT version FROM numbers WHERE subject = ?1")
            .bind(subject)
            .fetch_optional(&mut *self.0)
            .await?;
        Ok(version.unwrap_or_default())
    }

    async fn note(&mut self, news: &[News<'_>]) -> Result<()> {
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
        .bind(serde_json::to_string(news)?)
        .bind(now())
        .execute(&mut *self.0)
        .await?;
        Ok(())
    }

    async fn tombstones(&mut self, subjects: &HashSet<&str>) -> Result<HashMap<String, Erasure>> {
        let rows = sqlx::query(
            "SELECT subject, erased, erased_sequence FROM numbers
             WHERE subject IN (SELECT value FROM json_each(?1)) AND (erased > 0 OR erased_sequence <> '')",
        )
        .bind(json!(subjects).to_string())
        .fetch_all(&mut *self.0)
        .await?;
        let tombstone = |row: &SqliteRow| -> Result<(String, Erasure)> {
            Ok((row.try_get(0)?, Erasure { version: row.try_get(1)?, sequence: row.try_get(2)? }))
        };
        rows.iter().map(tombstone).collect()
    }

    async fn deliveries_of(&mut self, subjects: &HashSet<&str>) -> Result<Vec<Known>> {
        let rows = sqlx::query(
            "SELECT event_id, subject, version, sequence FROM deliveries
             WHERE subject IN (SELECT value FROM json_each(?1))",
        )
        .bind(json!(subjects).to_string())
        .fetch_all(&mut *self.0)
        .await?;
        let known = |row: &SqliteRow| -> Result<Known> {
            Ok(Known {
                event_id: row.try_get(0)?,
                subject: row.try_get(1)?,
                version: row.try_get(2)?,
                sequence: row.try_get(3)?,
            })
        };
        rows.iter().map(known).collect()
    }

    async fn dead_of(&mut self, subjects: &HashSet<&str>) -> Result<Vec<(i64, Record)>> {
        let rows = sqlx::query(
            "SELECT id, headers, value, key FROM dead WHERE key IN (SELECT value FROM json_each(?1))",
        )
        .bind(json!(subjects).to_string())
        .fetch_all(&mut *self.0)
        .await?;
        let dead = |row: &SqliteRow| -> Result<(i64, Record)> {
            let headers = serde_json::from_str(&row.try_get::<String, _>(1)?)?;
            Ok((row.try_get(0)?, Record { key: row.try_get(3)?, headers, value: row.try_get(2)? }))
        };
        rows.iter().map(dead).collect()
    }

    async fn forget(&mut self, deliveries: &[String], dead: &[i64]) -> Result<()> {
        // Their contents go with them, see the trigger.
        sqlx::query("DELETE FROM deliveries WHERE event_id IN (SELECT value FROM json_each(?1))")
            .bind(json!(deliveries).to_string())
            .execute(&mut *self.0)
            .await?;
        sqlx::query("DELETE FROM dead WHERE id IN (SELECT value FROM json_each(?1))")
            .bind(json!(dead).to_string())
            .execute(&mut *self.0)
            .await?;
        Ok(())
    }

    async fn deliver(&mut self, deliveries: &[NewDelivery<'_>]) -> Result<()> {
        let rows = serde_json::to_string(deliveries)?;
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
        .bind(now())
        .execute(&mut *self.0)
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
        .execute(&mut *self.0)
        .await?;
        Ok(())
    }

    async fn bury(&mut self, dead: &[Dead]) -> Result<()> {
        for Dead { record, reason, died_at } in dead {
            sqlx::query(
                "INSERT INTO dead (key, headers, value, reason, died_at) VALUES (?1, ?2, ?3, ?4, ?5)",
            )
            .bind(&record.key)
            .bind(serde_json::to_string(&record.headers)?)
            .bind(&record.value)
            .bind(reason)
            .bind(died_at)
            .execute(&mut *self.0)
            .await?;
        }
        Ok(())
    }

    async fn go_on(&mut self, positions: &[Position<'_>]) -> Result<()> {
        let places: Vec<_> = positions.iter().map(|at| json!([at.topic, at.partition, at.next])).collect();
        sqlx::query(
            "INSERT INTO offsets (topic, partition, next)
             SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?1) WHERE true
             ON CONFLICT DO UPDATE SET next = excluded.next",
        )
        .bind(json!(places).to_string())
        .execute(&mut *self.0)
        .await?;
        Ok(())
    }
}
