//! Several relays: who is alive, and whose a partition is. `relay` is the name of this one.

use super::access::Access;
use crate::ledger::{
    lease::{LEASE, Share},
    not_now::NotNow,
    reading::Position,
};
use anyhow::Result;
use sqlx::Transaction;

pub(super) async fn renew(access: &Access, relay: &str) -> Result<()> {
    // Of those that died nobody needs to know for long. While the server was away nobody could say anything.
    let renewing = sqlx::query(
        "WITH dead AS (
           DELETE FROM relay.members
           WHERE greatest(alive_until, pg_postmaster_start_time()) < clock_timestamp() - interval '1 minute'
             AND id <> $1
         )
         INSERT INTO relay.members (id, alive_until)
         VALUES ($1, clock_timestamp() + $2 * interval '1 millisecond')
         ON CONFLICT (id) DO UPDATE SET alive_until = excluded.alive_until",
    );
    access.beat(renewing.bind(relay).bind(millis())).await
}

pub(super) async fn leave(access: &Access, relay: &str) -> Result<()> {
    let leaving = async {
        let mut transaction = access.begin().await?;
        for statement in [
            "UPDATE relay.leases SET owner = NULL WHERE owner = $1",
            "UPDATE relay.deliveries SET claimed_by = NULL, next_at = relay.now_millis()
             WHERE state = 'waiting' AND claimed_by = $1",
            "DELETE FROM relay.members WHERE id = $1",
        ] {
            sqlx::query(statement).bind(relay).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(())
    };
    access.bounded(leaving).await
}

pub(super) async fn share(
    access: &Access,
    relay: &str,
    topic: &str,
    partitions: i32,
    reads: bool,
) -> Result<Share> {
    access.bounded(take_share(access, relay, topic, partitions, reads)).await
}

async fn take_share(
    access: &Access,
    relay: &str,
    topic: &str,
    partitions: i32,
    reads: bool,
) -> Result<Share> {
    let pool = access.ready().await?;
    sqlx::query(
        "INSERT INTO relay.members (id, topic, alive_until)
         VALUES ($1, $2, clock_timestamp() + $3 * interval '1 millisecond')
         ON CONFLICT (id) DO UPDATE SET topic = excluded.topic, alive_until = excluded.alive_until",
    )
    .bind(relay)
    .bind(reads.then_some(topic))
    .bind(millis())
    .execute(&pool)
    .await?;
    if !reads {
        // What is being written down by one of them is waited for.
        sqlx::query("UPDATE relay.leases SET owner = NULL WHERE topic = $1 AND owner = $2")
            .bind(topic)
            .bind(relay)
            .execute(&pool)
            .await?;
        return Ok(Share::default());
    }
    sqlx::query(
        "INSERT INTO relay.leases (topic, partition)
         SELECT $1, partition FROM generate_series(0, $2 - 1) AS partition
         WHERE (SELECT count(*) FROM relay.leases WHERE topic = $1) < $2
         ON CONFLICT DO NOTHING",
    )
    .bind(topic)
    .bind(partitions)
    .execute(&pool)
    .await?;
    let (relays, before_this): (i64, i64) =
        sqlx::query_as("SELECT count(*), count(*) FILTER (WHERE id < $2) FROM relay.alive WHERE topic = $1")
            .bind(topic)
            .bind(relay)
            .fetch_one(&pool)
            .await?;
    let aim = fair_share(partitions.into(), relays, before_this);
    sqlx::query(
        "UPDATE relay.leases SET owner = $2, epoch = epoch + 1
         FROM (
           SELECT partition FROM relay.leases
           WHERE topic = $1 AND partition < $3
             AND (owner IS NULL OR NOT EXISTS (SELECT FROM relay.alive WHERE id = owner))
           ORDER BY partition
           LIMIT greatest($4 - (SELECT count(*) FROM relay.leases WHERE topic = $1 AND owner = $2), 0)
           FOR UPDATE SKIP LOCKED
         ) AS free
         WHERE topic = $1 AND leases.partition = free.partition",
    )
    .bind(topic)
    .bind(relay)
    .bind(partitions)
    .bind(aim)
    .execute(&pool)
    .await?;
    let held = sqlx::query_as(
        "SELECT partition, epoch FROM relay.leases
         WHERE topic = $1 AND owner = $2 AND partition < $3 ORDER BY partition",
    )
    .bind(topic)
    .bind(relay)
    .bind(partitions)
    .fetch_all(&pool)
    .await?;
    Ok(Share { held, aim: usize::try_from(aim).unwrap_or_default() })
}

pub(super) async fn release(
    access: &Access,
    relay: &str,
    topic: &str,
    partition: i32,
    epoch: i64,
) -> Result<()> {
    let releasing = async {
        sqlx::query(
            "UPDATE relay.leases SET owner = NULL
             WHERE topic = $1 AND partition = $2 AND owner = $3 AND epoch = $4",
        )
        .bind(topic)
        .bind(partition)
        .bind(relay)
        .bind(epoch)
        .execute(&access.ready().await?)
        .await?;
        Ok(())
    };
    access.bounded(releasing).await
}

/// Keeps partitions this relay's until the end of a transaction, or tells that one of them is another's.
pub(super) async fn hold(
    relay: &str,
    transaction: &mut Transaction<'static, sqlx::Postgres>,
    positions: &[Position<'_>],
) -> Result<()> {
    let held = sqlx::query(
        "SELECT FROM relay.leases
         WHERE owner = $4
           AND (topic, partition, epoch) IN (SELECT * FROM unnest($1::text[], $2::int[], $3::bigint[]))
         ORDER BY topic, partition FOR SHARE",
    )
    .bind(positions.iter().map(|position| position.topic).collect::<Vec<_>>())
    .bind(positions.iter().map(|position| position.partition).collect::<Vec<_>>())
    .bind(positions.iter().map(|position| position.epoch).collect::<Vec<_>>())
    .bind(relay)
    .fetch_all(&mut **transaction)
    .await?;
    if held.len() == positions.len() { Ok(()) } else { Err(NotNow::LeaseLost.into()) }
}

fn millis() -> f64 {
    LEASE.as_secs_f64() * 1_000.0
}

/// How many of the partitions are one relay's: as many as any other's, and one more for the first ones where
/// they cannot be split evenly. Together they are all of them.
fn fair_share(partitions: i64, relays: i64, before_this: i64) -> i64 {
    let relays = relays.max(1);
    partitions / relays + i64::from(before_this < partitions % relays)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_as_even_as_they_can_be_and_leave_nothing() {
        for partitions in 0..30 {
            for relays in 1..15 {
                let shares: Vec<_> =
                    (0..relays).map(|before| fair_share(partitions, relays, before)).collect();
                assert_eq!(shares.iter().sum::<i64>(), partitions);
                assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1, "{shares:?}");
            }
        }
        assert_eq!(fair_share(12, 0, 0), 12, "whoever cannot see itself is alone");
    }
}
