//! The database, behind the domain's port: the one place that chooses it and bounds the wait for it.

pub(crate) mod sqlite;

use crate::deadline;
use otp_core::{
    MobileNumber, OtpVersion, Recipient,
    ports::{Database, Guess, Judged, NewCode, Reissued, StoredCode, Unavailable},
};
use sqlite::Sqlite;
use std::{cell::RefCell, rc::Rc, time::Duration};

/// The most that a request waits for the database, opening it included. A client hears in under 3 s.
const DEADLINE: Duration = Duration::from_millis(2_500);

thread_local! {
    /// The connection of this instance, opened by its first request.
    static SQLITE: RefCell<Option<Rc<Sqlite>>> = const { RefCell::new(None) };
}

/// The database of this instance.
#[derive(Debug)]
pub(crate) struct Store;

impl Store {
    /// Whether the database can be asked.
    pub(crate) async fn ping(&self) -> Result<(), Unavailable> {
        self.with(async |database| database.ping().await).await
    }

    /// What stands behind it, for the operator.
    pub(crate) fn kind(&self) -> &'static str {
        "sqlite"
    }

    /// Runs `work` on the connection, and forgets the connection if that fails: whatever is wrong with
    /// it, a new one may do.
    async fn with<T>(
        &self,
        work: impl AsyncFnOnce(&Sqlite) -> Result<T, Unavailable>,
    ) -> Result<T, Unavailable> {
        let opened_and_done = async { work(&*connection().await?).await };
        let outcome = deadline::within(DEADLINE, opened_and_done)
            .await
            .unwrap_or_else(|| Err(Unavailable(format!("no answer within {} ms", DEADLINE.as_millis()))));
        if outcome.is_err() {
            SQLITE.set(None);
        }
        outcome
    }
}

/// The connection that there is, or a new one with the schema in place. Two requests that find none at
/// the same time both open one, which does no harm.
async fn connection() -> Result<Rc<Sqlite>, Unavailable> {
    if let Some(connection) = SQLITE.with_borrow(Clone::clone) {
        return Ok(connection);
    }
    let connection = Rc::new(Sqlite::open().await?);
    SQLITE.set(Some(Rc::clone(&connection)));
    Ok(connection)
}

impl Database for Store {
    async fn issue(&self, code: &NewCode<'_>, recipient: &Recipient) -> Result<OtpVersion, Unavailable> {
        self.with(async |database| database.issue(code, recipient).await).await
    }

    async fn reissue(&self, code: &NewCode<'_>) -> Result<Option<Reissued>, Unavailable> {
        self.with(async |database| database.reissue(code).await).await
    }

    async fn find(
        &self,
        number: &MobileNumber,
        cached: Option<OtpVersion>,
    ) -> Result<Option<StoredCode>, Unavailable> {
        self.with(async |database| database.find(number, cached).await).await
    }

    async fn check(&self, guess: &Guess<'_>) -> Result<Option<Judged>, Unavailable> {
        self.with(async |database| database.check(guess).await).await
    }
}
