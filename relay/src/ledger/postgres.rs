//! A Postgres, shared by as many relays as there are: rows are claimed, and what comes of a claim or of a
//! lease that another relay has by now is not written.

mod access;
mod sharing;

use super::{
    history::{Delivered, Delivery},
    lease::Share,
    reading::{Part, Position, Taken},
    round::{Due, EXPIRED, Outcome, Round, SUPERSEDED},
    said::{NewDelivery, News},
    writing::{self, Known, Reach, Writing},
};
use crate::{
    database::Database,
    dead::Dead,
    erasure::Erasure,
    moment::{now, rfc3339},
};
use access::Access;
use anyhow::Result;
use otp_events::{Event, Record};
use sqlx::{Row, Transaction, postgres::PgRow};
use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a round through the providers may take before it counts as lost: longer than ten providers that
/// do not answer. What a relay that died had in hand is not waited for, see [`Postgres::recover`].
const ROUND: Duration = Duration::from_secs(120);

/// Whoever forgets a number waits for those who are putting letters away among the dead, and they for it:
/// one that comes too late for the one and too early for the other would stay for ever.
const FORGETTING: i64 = 0x7370_696e_6f74_7066;

/// The database, as one of its relays sees it.
#[derive(Debug, Clone)]
pub(crate) struct Postgres {
    access: Arc<Access>,
    /// This relay's name among the others: another one for each start.
    relay: Arc<str>,
}

impl Postgres {
    /// Opens the ledger in this database, or makes one.
    pub(super) async fn open(database: Database) -> Result<Self> {
        let access = Access::new(database);
        access.open().await?;
        let relay = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        Ok(Self { access: Arc::new(access), relay: relay.into() })
    }

    pub(super) async fn ping(&self) -> Result<()> {
        self.access
            .bounded(async {
                let pool = self.access.ready().await?;
                // What has become a standby answers, and takes nothing.
                sqlx::query("SELECT 1 FROM relay.migrations LIMIT 1 FOR KEY SHARE").execute(&pool).await?;
                Ok(())
            })
            .await
    }

    pub(super) async fn renew(&self) -> Result<()> {
        sharing::renew(&self.access, &self.relay).await
    }

    pub(super) async fn leave(&self) -> Result<()> {
        sharing::leave(&self.access, &self.relay).await
    }

    pub(super) async fn share(&self, topic: &str, partitions: i32, reads: bool) -> Result<Share> {
        sharing::share(&self.access, &self.relay, topic, partitions, reads).await
    }

    pub(super) async fn release(&self, topic: &str, partition: i32, epoch: i64) -> Result<()> {
        sharing::release(&self.access, &self.relay, topic, partition, epoch).await
    }

    pub(super) async fn recover(&self, in_hand: &[&str]) -> Result<u64> {
        self.access
            .bounded(async {
                let recovered = sqlx::query(
                    "UPDATE relay.deliveries SET claimed_by = NULL, next_at = relay.now_millis()
                     WHERE event_id IN (
                       SELECT event_id FROM relay.deliveries
                       WHERE state = 'waiting' AND claimed_by IS NOT NULL
                         AND CASE WHEN claimed_by = $1 THEN event_id <> ALL ($2)
                                  ELSE NOT EXISTS (SELECT FROM relay.alive WHERE id = claimed_by) END
                       FOR UPDATE SKIP LOCKED)",
                )
                .bind(&*self.relay)
                .bind(in_hand)
                .execute(&self.access.ready().await?)
                .await?;
                Ok(recovered.rows_affected())
            })
            .await
    }

    pub(super) async fn next_offset(&self, topic: &str, partition: i32) -> Result<Option<i64>> {
        self.access
            .bounded(async {
                let next =
                    sqlx::query_scalar("SELECT next FROM relay.offsets WHERE topic = $1 AND partition = $2")
                        .bind(topic)
                        .bind(partition)
                        .fetch_optional(&self.access.ready().await?)
                        .await?;
                Ok(next)
            })
            .await
    }

    pub(super) async fn take<'a>(&self, parts: &[Part<'a>]) -> Result<Taken<'a>> {
        self.access
            .bounded(async {
                let mut transaction = PostgresWriting(self.access.begin().await?);
                let positions: Vec<_> = parts.iter().filter_map(|part| part.position).collect();
                if !positions.is_empty() {
                    sharing::hold(&self.relay, &mut transaction.0, &positions).await?;
                }
                // Before any row is locked, so that nobody who has this waits for who has not.
                transaction.wait_for_forgetting(Reach::of(parts)).await?;
                let taken = writing::take(&mut transaction, parts).await?;
                transaction.0.commit().await?;
                Ok(taken)
            })
            .await
    }

    pub(super) async fn due(&self, most: usize) -> Result<Round> {
        let claimed_at = Instant::now();
        let due = async {
            let rows = sqlx::query(
                "WITH due AS (
                   SELECT event_id, subject, version, expires_at FROM relay.deliveries
                   WHERE state = 'waiting' AND next_at <= relay.now_millis()
                     AND EXISTS (SELECT FROM relay.alive WHERE id = $1)
                   ORDER BY next_at LIMIT $2 FOR UPDATE OF deliveries SKIP LOCKED
                 ), judged AS (
                   SELECT event_id,
                          CASE WHEN due.version < coalesce(numbers.version, 0)
                                 OR due.version <= coalesce(numbers.ended, 0) THEN 'superseded'
                               WHEN expires_at <= relay.now_millis() THEN 'expired'
                               ELSE 'waiting' END AS state
                   FROM due LEFT JOIN relay.numbers USING (subject)
                 ), dropped AS (
                   DELETE FROM relay.contents USING judged
                   WHERE contents.event_id = judged.event_id AND judged.state <> 'waiting'
                 ), claimed AS (
                   UPDATE relay.deliveries SET
                     state      = judged.state,
                     reason     = CASE judged.state WHEN 'superseded' THEN $4 WHEN 'expired' THEN $5
                                                    ELSE reason END,
                     attempts   = attempts + (judged.state = 'waiting')::int,
                     claim      = claim + 1,
                     claimed_by = CASE judged.state WHEN 'waiting' THEN $1 END,
                     next_at    = relay.now_millis() + $3,
                     updated_at = relay.now_millis()
                   FROM judged WHERE deliveries.event_id = judged.event_id
                   RETURNING deliveries.event_id, deliveries.state, attempts, expires_at, created_at, claim
                 )
                 SELECT claimed.*, contents.event FROM claimed LEFT JOIN relay.contents USING (event_id)",
            )
            .bind(&*self.relay)
            .bind(i64::try_from(most).unwrap_or(i64::MAX))
            .bind(i64::try_from(ROUND.as_millis()).unwrap_or(i64::MAX))
            .bind(SUPERSEDED)
            .bind(EXPIRED)
            .fetch_all(&self.access.ready().await?)
            .await?;
            let mut round = Round::default();
            for row in &rows {
                match row.try_get(1)? {
                    "superseded" => round.superseded += 1,
                    "expired" => round.expired += 1,
                    _ => round.due.push(Due {
                        event_id: row.try_get(0)?,
                        attempts: row.try_get(2)?,
                        expires_at: row.try_get(3)?,
                        created_at: row.try_get(4)?,
                        claim: row.try_get(5)?,
                        event: row.try_get::<Option<_>, _>(6)?.unwrap_or_default(),
                        claimed_at,
                    }),
                }
            }
            Ok(round)
        };
        self.access.bounded(due).await
    }

    pub(super) async fn settle(&self, outcomes: &[Outcome]) -> Result<()> {
        self.access.bounded(self.write_outcomes(outcomes)).await
    }

    async fn write_outcomes(&self, outcomes: &[Outcome]) -> Result<()> {
        let failed: Vec<_> = outcomes.iter().filter(|outcome| outcome.state == "failed").collect();
        let mut transaction = PostgresWriting(self.access.begin().await?);
        if !failed.is_empty() {
            transaction.wait_for_forgetting(Reach { buries: true, erases: false }).await?;
            let ids: Vec<_> = failed.iter().map(|outcome| &*outcome.event_id).collect();
            let claims: Vec<_> = failed.iter().map(|outcome| outcome.claim).collect();
            let rows = sqlx::query(
                "SELECT event_id, subject, event FROM relay.deliveries JOIN relay.contents USING (event_id)
                 WHERE state = 'waiting'
                   AND (event_id, claim) IN (SELECT * FROM unnest($1::text[], $2::bigint[]))
                 ORDER BY event_id FOR UPDATE OF deliveries",
            )
            .bind(ids)
            .bind(claims)
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
                dead.push(Dead::new(record, reason, now()));
            }
            transaction.bury(&dead).await?;
        }
        let now = now();
        fn column<'a, T>(outcomes: &'a [Outcome], of: impl Fn(&'a Outcome) -> T) -> Vec<T> {
            outcomes.iter().map(of).collect()
        }
        sqlx::query(
            "WITH settled AS (
               SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::bigint[],
                                    $7::bool[], $8::bool[])
                 AS settled (event_id, claim, state, provider, reason, pause, keep, tried)
             ), held AS (
               SELECT event_id, claim FROM relay.deliveries
               WHERE state = 'waiting' AND (event_id, claim) IN (SELECT event_id, claim FROM settled)
               ORDER BY event_id FOR UPDATE
             ), dropped AS (
               DELETE FROM relay.contents USING held JOIN settled USING (event_id, claim)
               WHERE contents.event_id = held.event_id AND NOT keep
             )
             UPDATE relay.deliveries SET
               state      = settled.state,
               claimed_by = NULL,
               attempts   = attempts - (NOT settled.tried)::int,
               next_at    = relay.now_millis() + settled.pause,
               provider   = settled.provider,
               reason     = settled.reason,
               updated_at = relay.now_millis()
             FROM held JOIN settled USING (event_id, claim) WHERE deliveries.event_id = held.event_id",
        )
        .bind(column(outcomes, |outcome| &*outcome.event_id))
        .bind(column(outcomes, |outcome| outcome.claim))
        .bind(column(outcomes, |outcome| outcome.state))
        .bind(column(outcomes, |outcome| outcome.provider.as_deref()))
        .bind(column(outcomes, |outcome| outcome.reason.as_deref().map(text)))
        // Its clock may be another than this relay's.
        .bind(column(outcomes, |outcome| outcome.next_at - now))
        .bind(column(outcomes, |outcome| outcome.keep))
        .bind(column(outcomes, |outcome| outcome.tried))
        .execute(&mut *transaction.0)
        .await?;
        transaction.0.commit().await?;
        Ok(())
    }

    pub(super) async fn is_live(&self, event_id: &str, claim: i64) -> Result<bool> {
        self.access
            .bounded(async {
                let live: Option<bool> = sqlx::query_scalar(
                    "SELECT state = 'waiting' AND claim = $2
                        AND deliveries.version >= coalesce(numbers.version, 0)
                        AND deliveries.version > coalesce(numbers.ended, 0)
                     FROM relay.deliveries LEFT JOIN relay.numbers USING (subject) WHERE event_id = $1",
                )
                .bind(event_id)
                .bind(claim)
                .fetch_optional(&self.access.ready().await?)
                .await?;
                Ok(live.unwrap_or(false))
            })
            .await
    }

    pub(super) async fn next_due(&self) -> Result<Option<i64>> {
        self.access
            .bounded(async {
                let wait: Option<i64> = sqlx::query_scalar(
                    "SELECT min(next_at) - relay.now_millis() FROM relay.deliveries WHERE state = 'waiting'",
                )
                .fetch_one(&self.access.ready().await?)
                .await?;
                Ok(wait.map(|wait| now() + wait))
            })
            .await
    }

    pub(super) async fn deliveries(&self, otp_id: &str) -> Result<Vec<Delivery>> {
        let deliveries = async {
            let rows = sqlx::query(
                "SELECT event_id, otp_id, channel, state, attempts, provider, reason, created_at, updated_at
                 FROM relay.deliveries WHERE otp_id = $1 ORDER BY sequence DESC LIMIT 100",
            )
            .bind(text(otp_id))
            .fetch_all(&self.access.ready().await?)
            .await?;
            let delivery = |row: &PgRow| -> Result<Delivery> {
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
        };
        self.access.bounded(deliveries).await
    }

    pub(super) async fn inbox(&self, most: i64) -> Result<Vec<Delivered>> {
        let inbox = async {
            let rows = sqlx::query(
                "SELECT event, updated_at FROM relay.deliveries JOIN relay.contents USING (event_id)
                 WHERE state = 'delivered' AND provider = 'inbox'
                 ORDER BY updated_at DESC, sequence DESC LIMIT $1",
            )
            .bind(most)
            .fetch_all(&self.access.ready().await?)
            .await?;
            rows.iter().map(|row| Ok(Delivered { event: row.try_get(0)?, at: row.try_get(1)? })).collect()
        };
        self.access.bounded(inbox).await
    }

    pub(super) async fn dead(&self, most: i64, parked: bool) -> Result<Vec<(i64, Dead)>> {
        let dead = async {
            let rows = sqlx::query(
                "SELECT id, key, headers, value, reason, died_at FROM relay.dead
                 WHERE parked <= $2 ORDER BY id LIMIT $1",
            )
            .bind(most)
            .bind(parked)
            .fetch_all(&self.access.ready().await?)
            .await?;
            let dead = |row: &PgRow| -> Result<(i64, Dead)> {
                let headers = serde_json::from_str(row.try_get(2)?)?;
                let record = Record { key: row.try_get(1)?, headers, value: row.try_get(3)? };
                Ok((row.try_get(0)?, Dead::new(record, row.try_get::<String, _>(4)?, row.try_get(5)?)))
            };
            rows.iter().map(dead).collect()
        };
        self.access.bounded(dead).await
    }

    pub(super) async fn park(&self, id: i64) -> Result<()> {
        self.access
            .bounded(async {
                sqlx::query("UPDATE relay.dead SET parked = true WHERE id = $1")
                    .bind(id)
                    .execute(&self.access.ready().await?)
                    .await?;
                Ok(())
            })
            .await
    }

    pub(super) async fn drop_dead(&self, ids: &[i64]) -> Result<()> {
        self.access
            .bounded(async {
                sqlx::query("DELETE FROM relay.dead WHERE id = ANY ($1)")
                    .bind(ids)
                    .execute(&self.access.ready().await?)
                    .await?;
                Ok(())
            })
            .await
    }

    /// Several relays clean at once; each passes over what another has in hand.
    pub(super) async fn clean(&self, age: i64, most: i64) -> Result<bool> {
        let mut more = false;
        for statement in [
            "DELETE FROM relay.events WHERE id IN (SELECT id FROM relay.events
               WHERE seen_at < relay.now_millis() - $1 LIMIT $2 FOR UPDATE SKIP LOCKED)",
            "DELETE FROM relay.numbers WHERE subject IN (SELECT subject FROM relay.numbers
               WHERE seen_at < relay.now_millis() - $1 LIMIT $2 FOR UPDATE SKIP LOCKED)",
            "DELETE FROM relay.dead WHERE id IN (SELECT id FROM relay.dead
               WHERE died_at < relay.now_millis() - $1 LIMIT $2 FOR UPDATE SKIP LOCKED)",
            "DELETE FROM relay.deliveries WHERE event_id IN (SELECT event_id FROM relay.deliveries
               WHERE updated_at < relay.now_millis() - $1 AND state <> 'waiting' LIMIT $2
               FOR UPDATE SKIP LOCKED)",
        ] {
            let cleaning = async {
                let pool = self.access.ready().await?;
                let done = sqlx::query(statement).bind(age).bind(most).execute(&pool).await?;
                Ok(done.rows_affected() >= most.unsigned_abs())
            };
            more |= self.access.bounded(cleaning).await?;
        }
        Ok(more)
    }

    /// What is deleted stays on its page until it is vacuumed, and in the server's log and its backups until
    /// those are replaced. Whoever vacuums just now does so for all relays.
    pub(super) async fn rewrite(&self) -> Result<()> {
        let vacuuming = async {
            let mut connection = self.access.ready().await?.acquire().await?;
            // Its settings shall be nobody else's.
            connection.close_on_drop();
            sqlx::raw_sql("SET statement_timeout = 0").execute(&mut *connection).await?;
            sqlx::raw_sql("VACUUM (SKIP_LOCKED) relay.contents, relay.dead")
                .execute(&mut *connection)
                .await?;
            Ok(())
        };
        self.access.unhurried(vacuuming).await
    }

    pub(super) async fn close(&self) {
        self.access.close().await;
    }
}

/// Postgres takes every character in a text but one.
fn text(text: &str) -> Cow<'_, str> {
    match text.contains('\0') {
        true => text.replace('\0', "\u{fffd}").into(),
        false => text.into(),
    }
}

/// A transaction. Whatever takes several rows at once takes them in the order of their keys, so that no two
/// relays wait for each other.
struct PostgresWriting(Transaction<'static, sqlx::Postgres>);

impl PostgresWriting {
    async fn wait_for_forgetting(&mut self, reach: Reach) -> Result<()> {
        let wait = match reach {
            Reach { erases: true, .. } => "SELECT pg_advisory_xact_lock($1)",
            Reach { buries: true, .. } => "SELECT pg_advisory_xact_lock_shared($1)",
            _ => return Ok(()),
        };
        sqlx::query(wait).bind(FORGETTING).execute(&mut *self.0).await?;
        Ok(())
    }
}

impl Writing for PostgresWriting {
    async fn remember(&mut self, ids: &[&str]) -> Result<HashSet<String>> {
        let new = sqlx::query_scalar(
            "INSERT INTO relay.events (id, seen_at)
             SELECT id, relay.now_millis() FROM unnest($1::text[]) AS id ORDER BY id COLLATE \"C\"
             ON CONFLICT DO NOTHING RETURNING id",
        )
        .bind(ids)
        .fetch_all(&mut *self.0)
        .await?;
        Ok(new.into_iter().collect())
    }

    async fn newest(&mut self, subject: &str) -> Result<i64> {
        let version = sqlx::query_scalar("SELECT version FROM relay.numbers WHERE subject = $1")
            .bind(subject)
            .fetch_optional(&mut *self.0)
            .await?;
        Ok(version.unwrap_or_default())
    }

    async fn note(&mut self, news: &[News<'_>]) -> Result<()> {
        sqlx::query(
            "INSERT INTO relay.numbers AS known (subject, version, ended, erased, erased_sequence, seen_at)
             SELECT subject COLLATE \"C\", max(version), max(ended), max(erased),
                    max(erased_sequence COLLATE \"C\"), relay.now_millis()
             FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[])
               AS news (subject, version, ended, erased, erased_sequence)
             GROUP BY 1 ORDER BY 1
             ON CONFLICT (subject) DO UPDATE SET
               version         = greatest(known.version, excluded.version),
               ended           = greatest(known.ended, excluded.ended),
               erased          = greatest(known.erased, excluded.erased),
               erased_sequence = greatest(known.erased_sequence, excluded.erased_sequence),
               seen_at         = excluded.seen_at",
        )
        .bind(news.iter().map(|news| news.subject).collect::<Vec<_>>())
        .bind(news.iter().map(|news| news.version).collect::<Vec<_>>())
        .bind(news.iter().map(|news| news.ended).collect::<Vec<_>>())
        .bind(news.iter().map(|news| news.erased).collect::<Vec<_>>())
        .bind(news.iter().map(|news| &*news.erased_sequence).collect::<Vec<_>>())
        .execute(&mut *self.0)
        .await?;
        Ok(())
    }

    async fn tombstones(&mut self, subjects: &HashSet<&str>) -> Result<HashMap<String, Erasure>> {
        let rows = sqlx::query(
            "SELECT subject, erased, erased_sequence FROM relay.numbers
             WHERE subject = ANY ($1) AND (erased > 0 OR erased_sequence <> '')",
        )
        .bind(subjects.iter().map(|subject| text(subject)).collect::<Vec<_>>())
        .fetch_all(&mut *self.0)
        .await?;
        let tombstone = |row: &PgRow| -> Result<(String, Erasure)> {
            Ok((row.try_get(0)?, Erasure { version: row.try_get(1)?, sequence: row.try_get(2)? }))
        };
        rows.iter().map(tombstone).collect()
    }

    async fn deliveries_of(&mut self, subjects: &HashSet<&str>) -> Result<Vec<Known>> {
        let rows = sqlx::query(
            "SELECT event_id, subject, version, sequence FROM relay.deliveries
             WHERE subject = ANY ($1) ORDER BY event_id FOR UPDATE",
        )
        .bind(subjects.iter().copied().collect::<Vec<_>>())
        .fetch_all(&mut *self.0)
        .await?;
        let known = |row: &PgRow| -> Result<Known> {
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
        let rows =
            sqlx::query("SELECT id, headers, value, key FROM relay.dead WHERE key = ANY ($1) ORDER BY id")
                .bind(subjects.iter().copied().collect::<Vec<_>>())
                .fetch_all(&mut *self.0)
                .await?;
        let dead = |row: &PgRow| -> Result<(i64, Record)> {
            let headers = serde_json::from_str(row.try_get(1)?)?;
            Ok((row.try_get(0)?, Record { key: row.try_get(3)?, headers, value: row.try_get(2)? }))
        };
        rows.iter().map(dead).collect()
    }

    async fn forget(&mut self, deliveries: &[String], dead: &[i64]) -> Result<()> {
        // Their contents go with them.
        sqlx::query("DELETE FROM relay.deliveries WHERE event_id = ANY ($1)")
            .bind(deliveries)
            .execute(&mut *self.0)
            .await?;
        sqlx::query("DELETE FROM relay.dead WHERE id = ANY ($1)").bind(dead).execute(&mut *self.0).await?;
        Ok(())
    }

    async fn deliver(&mut self, deliveries: &[NewDelivery<'_>]) -> Result<()> {
        // An event that is there twice, and wanted again both times, counts once.
        let rows: HashMap<_, _> = deliveries.iter().map(|delivery| (delivery.event_id, delivery)).collect();
        let mut rows: Vec<_> = rows.into_values().collect();
        rows.sort_unstable_by_key(|delivery| delivery.event_id);
        let ids: Vec<_> = rows.iter().map(|delivery| delivery.event_id).collect();
        sqlx::query(
            "INSERT INTO relay.deliveries AS known
               (event_id, otp_id, subject, version, sequence, channel, expires_at, next_at, created_at,
                updated_at)
             SELECT *, relay.now_millis(), relay.now_millis(), relay.now_millis()
             FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::bigint[])
             ON CONFLICT (event_id) DO UPDATE SET
               state = 'waiting', attempts = 0, next_at = excluded.next_at, reason = NULL,
               updated_at = excluded.updated_at
             WHERE known.state = 'failed'",
        )
        .bind(&ids)
        .bind(rows.iter().map(|delivery| text(&delivery.otp_id)).collect::<Vec<_>>())
        .bind(rows.iter().map(|delivery| delivery.subject).collect::<Vec<_>>())
        .bind(rows.iter().map(|delivery| delivery.version).collect::<Vec<_>>())
        .bind(rows.iter().map(|delivery| delivery.sequence).collect::<Vec<_>>())
        .bind(rows.iter().map(|delivery| text(&delivery.channel)).collect::<Vec<_>>())
        .bind(rows.iter().map(|delivery| delivery.expires_at).collect::<Vec<_>>())
        .execute(&mut *self.0)
        .await?;
        // One that waits already has it.
        sqlx::query(
            "INSERT INTO relay.contents (event_id, event)
             SELECT event_id, event FROM unnest($1::text[], $2::text[]) AS new (event_id, event)
             JOIN relay.deliveries USING (event_id) WHERE state = 'waiting'
             ON CONFLICT DO NOTHING",
        )
        .bind(&ids)
        .bind(rows.iter().map(|delivery| text(&delivery.event)).collect::<Vec<_>>())
        .execute(&mut *self.0)
        .await?;
        Ok(())
    }

    async fn bury(&mut self, dead: &[Dead]) -> Result<()> {
        let headers: serde_json::Result<Vec<_>> =
            dead.iter().map(|dead| serde_json::to_string(&dead.record.headers)).collect();
        sqlx::query(
            "INSERT INTO relay.dead (key, headers, value, reason, died_at)
             SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::text[], $5::bigint[])",
        )
        .bind(dead.iter().map(|dead| text(&dead.record.key)).collect::<Vec<_>>())
        .bind(headers?)
        .bind(dead.iter().map(|dead| &*dead.record.value).collect::<Vec<&[u8]>>())
        .bind(dead.iter().map(|dead| text(&dead.reason)).collect::<Vec<_>>())
        .bind(dead.iter().map(|dead| dead.died_at).collect::<Vec<_>>())
        .execute(&mut *self.0)
        .await?;
        Ok(())
    }

    async fn go_on(&mut self, positions: &[Position<'_>]) -> Result<()> {
        sqlx::query(
            "INSERT INTO relay.offsets (topic, partition, next)
             SELECT * FROM unnest($1::text[], $2::int[], $3::bigint[]) AS place (topic, partition, next)
             ORDER BY topic, partition
             ON CONFLICT (topic, partition) DO UPDATE SET next = excluded.next",
        )
        .bind(positions.iter().map(|position| position.topic).collect::<Vec<_>>())
        .bind(positions.iter().map(|position| position.partition).collect::<Vec<_>>())
        .bind(positions.iter().map(|position| position.next).collect::<Vec<_>>())
        .execute(&mut *self.0)
        .await?;
        Ok(())
    }
}
