//! SQLite through Spin's interface. The statements stand in `sqlite/`, one file each, with reasons.

mod schema;
mod session;

use otp_core::ports::Unavailable;
pub(super) use session::Session;

/// How long SQLite itself waits for another writer, in milliseconds: less than the request's deadline,
/// so that a busy database is told from a silent one.
const BUSY_TIMEOUT: u32 = 2_000;

/// Opens the default database and brings its schema up to date.
pub(super) async fn open() -> Result<Session, Unavailable> {
    let database = Session::open().await?;
    database.run(&format!("PRAGMA busy_timeout = {BUSY_TIMEOUT}"), []).await?;
    // A commit survives the death of this process, of the host and of the system's other programs.
    // Only a loss of power may take the last moments; waiting for the disk at each commit would
    // cost most of the speed.
    database.run("PRAGMA synchronous = NORMAL", []).await?;
    schema::bring_up_to_date(&database).await?;
    Ok(database)
}
