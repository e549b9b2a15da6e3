//! Bringing the schema up to date.

use super::session::Session;
use crate::row::Row;
use otp_core::ports::Unavailable;
use std::time::Duration;

/// The steps, oldest first (`migrations/README.md`); SQLite's `user_version` counts those that were taken.
const STEPS: [&str; 1] = [include_str!("../../../../../migrations/sqlite/0001_baseline.sql")];

/// What stands between two statements of a step, on a line of its own: Spin takes one a call.
const SEPARATOR: &str = "\n--;\n";

/// Takes the steps that are missing, all or none, on a connection that nobody else uses yet: only there
/// is a transaction over several calls one.
///
/// Several instances and hosts may start on the same empty file. One takes the write lock, the others
/// wait for it and find the work done. A file that a newer version has brought further is left alone.
pub(super) async fn bring_up_to_date(database: &Session) -> Result<(), Unavailable> {
    if steps_taken(database).await? >= STEPS.len() {
        return is_ours(database).await;
    }
    enter_wal(database).await?;
    database.run("BEGIN IMMEDIATE", []).await?;
    // Whoever was first may have committed since. On an error the connection is dropped, and SQLite
    // rolls back what it had begun.
    let taken = steps_taken(database).await?;
    for step in STEPS.iter().skip(taken) {
        for statement in step.split(SEPARATOR) {
            database.run(statement, []).await?;
        }
    }
    if taken < STEPS.len() {
        database.run(&format!("PRAGMA user_version = {}", STEPS.len()), []).await?;
    }
    database.run("COMMIT", []).await?;
    Ok(())
}

/// A file from before the baseline counted other steps, and nothing of it can be taken over.
async fn is_ours(database: &Session) -> Result<(), Unavailable> {
    let accounts = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'accounts'";
    if database.run(accounts, []).await?.is_empty() {
        return Err(Unavailable(
            "SQLite: the file is of a version before 0.1.0; remove it, and start again".to_owned(),
        ));
    }
    Ok(())
}

async fn steps_taken(database: &Session) -> Result<usize, Unavailable> {
    let rows = database.run("PRAGMA user_version", []).await?;
    let version = rows.first().map(|row: &Row| row.integer(0)).transpose()?.unwrap_or_default();
    usize::try_from(version).map_err(|_| Unavailable("SQLite: user_version is negative".to_owned()))
}

/// Readers and one writer at the same time, and commits that do not wait for the disk. The file keeps
/// the mode. SQLite does not wait for its lock here but refuses at once, so this tries again until the
/// request's deadline ends it.
async fn enter_wal(database: &Session) -> Result<(), Unavailable> {
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
