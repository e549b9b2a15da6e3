//! Bringing the schema up to date.

use super::Sqlite;
use crate::store::row::Row;
use otp_core::ports::Unavailable;
use std::time::Duration;

/// The steps, oldest first, each one statement. A step that has landed is never changed; SQLite's
/// `user_version` counts those that were taken.
const STEPS: [&str; 40] = [
    include_str!("../../../../../migrations/sqlite/0001_users.sql"),
    include_str!("../../../../../migrations/sqlite/0002_outbox.sql"),
    include_str!("../../../../../migrations/sqlite/0003_outbox_dead.sql"),
    include_str!("../../../../../migrations/sqlite/0004_idempotency.sql"),
    include_str!("../../../../../migrations/sqlite/0005_event_sequence.sql"),
    include_str!("../../../../../migrations/sqlite/0006_event.sql"),
    include_str!("../../../../../migrations/sqlite/0007_user_events.sql"),
    include_str!("../../../../../migrations/sqlite/0008_event_of_a_new_user.sql"),
    include_str!("../../../../../migrations/sqlite/0009_event_of_a_user.sql"),
    include_str!("../../../../../migrations/sqlite/0010_outbox_dead_moves.sql"),
    include_str!("../../../../../migrations/sqlite/0011_no_event_of_a_new_user.sql"),
    include_str!("../../../../../migrations/sqlite/0012_no_event_of_a_user.sql"),
    include_str!("../../../../../migrations/sqlite/0013_no_idempotency.sql"),
    include_str!("../../../../../migrations/sqlite/0014_request.sql"),
    include_str!("../../../../../migrations/sqlite/0015_refused_at.sql"),
    include_str!("../../../../../migrations/sqlite/0016_idempotency.sql"),
    include_str!("../../../../../migrations/sqlite/0017_idempotency_of_a_user.sql"),
    include_str!("../../../../../migrations/sqlite/0018_meters.sql"),
    include_str!("../../../../../migrations/sqlite/0019_destinations.sql"),
    include_str!("../../../../../migrations/sqlite/0020_suspensions.sql"),
    include_str!("../../../../../migrations/sqlite/0021_outbox_user.sql"),
    include_str!("../../../../../migrations/sqlite/0022_outbox_of_a_user.sql"),
    include_str!("../../../../../migrations/sqlite/0023_outbox_dead_of_a_user.sql"),
    include_str!("../../../../../migrations/sqlite/0024_event_of_a_new_user.sql"),
    include_str!("../../../../../migrations/sqlite/0025_event_of_a_user.sql"),
    include_str!("../../../../../migrations/sqlite/0026_records.sql"),
    include_str!("../../../../../migrations/sqlite/0027_record.sql"),
    include_str!("../../../../../migrations/sqlite/0028_record_of_a_new_user.sql"),
    include_str!("../../../../../migrations/sqlite/0029_record_of_a_user.sql"),
    include_str!("../../../../../migrations/sqlite/0030_event_of_a_suspension.sql"),
    include_str!("../../../../../migrations/sqlite/0031_erasures.sql"),
    include_str!("../../../../../migrations/sqlite/0032_erasure.sql"),
    include_str!("../../../../../migrations/sqlite/0033_decoy.sql"),
    include_str!("../../../../../migrations/sqlite/0034_idempotency_by_age.sql"),
    include_str!("../../../../../migrations/sqlite/0035_meters_by_age.sql"),
    include_str!("../../../../../migrations/sqlite/0036_destinations_by_age.sql"),
    include_str!("../../../../../migrations/sqlite/0037_forgotten.sql"),
    include_str!("../../../../../migrations/sqlite/0038_nothing_forgotten.sql"),
    include_str!("../../../../../migrations/sqlite/0039_no_erasure.sql"),
    include_str!("../../../../../migrations/sqlite/0040_erasure.sql"),
];

/// Takes the steps that are missing, all or none, on a connection that nobody else uses yet: only there
/// is a transaction over several calls one.
///
/// Several instances and hosts may start on the same empty file. One takes the write lock, the others
/// wait for it and find the work done. A file that a newer version has brought further is left alone.
pub(super) async fn bring_up_to_date(database: &Sqlite) -> Result<(), Unavailable> {
    if steps_taken(database).await? >= STEPS.len() {
        return Ok(());
    }
    enter_wal(database).await?;
    database.run("BEGIN IMMEDIATE", []).await?;
    // Whoever was first may have committed since. On an error the connection is dropped, and SQLite
    // rolls back what it had begun.
    let taken = steps_taken(database).await?;
    for step in STEPS.iter().skip(taken) {
        database.run(step, []).await?;
    }
    if taken < STEPS.len() {
        database.run(&format!("PRAGMA user_version = {}", STEPS.len()), []).await?;
    }
    database.run("COMMIT", []).await?;
    Ok(())
}

async fn steps_taken(database: &Sqlite) -> Result<usize, Unavailable> {
    let rows = database.run("PRAGMA user_version", []).await?;
    let version = rows.first().map(|row: &Row| row.integer(0)).transpose()?.unwrap_or_default();
    usize::try_from(version).map_err(|_| Unavailable("SQLite: user_version is negative".to_owned()))
}

/// Readers and one writer at the same time, and commits that do not wait for the disk. The file keeps
/// the mode. SQLite does not wait for its lock here but refuses at once, so this tries again until the
/// request's deadline ends it.
async fn enter_wal(database: &Sqlite) -> Result<(), Unavailable> {
    loop {
        match database.run("PRAGMA journal_mode = WAL", []).await {
            Ok(_) => return Ok(()),
            Err(Unavailable(reason)) if reason.contains("locked") => {
                spin_sdk::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => return Err(error),
        }
    }
}
