//! The database, behind the domain's port: the one place that chooses it and bounds the wait for it.

pub(crate) mod sqlite;

use crate::deadline;
use otp_core::{
    MobileNumber, OtpVersion, Recipient,
    ports::{Database, Guess, Judged, NewCode, Reissued, StoredCode, Unavailable},
};
use sqlite::Sqlite;
use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, Instant},
};

/// The most that a request waits for the database, opening it and all statements included. A client
/// hears in under 3 s. The statements that write know it too: they do nothing when they come later.
const DEADLINE: Duration = Duration::from_millis(2_500);

thread_local! {
    /// The connection of this instance, opened by its first request.
    static SQLITE: RefCell<Option<Rc<Sqlite>>> = const { RefCell::new(None) };
}

/// The database, for one request.
#[derive(Debug)]
pub(crate) struct Store {
    until: Instant,
}

impl Store {
    /// For a request that begins now.
    pub(crate) fn new() -> Self {
        Self { until: Instant::now() + DEADLINE }
    }

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
        let used = RefCell::new(None);
        let opened_and_done = async {
            let connection = connection().await?;
            used.replace(Some(Rc::clone(&connection)));
            work(&*connection).await
        };
        let left = self.until.saturating_duration_since(Instant::now());
        let outcome = deadline::within(left, opened_and_done)
            .await
            .unwrap_or_else(|| Err(Unavailable(format!("no answer within {} ms", DEADLINE.as_millis()))));
        if let (Err(_), Some(used)) = (&outcome, used.take()) {
            forget(&used);
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

/// Forgets this connection, not one that another request has opened in its place.
fn forget(used: &Rc<Sqlite>) {
    SQLITE.with_borrow_mut(|current| {
        if current.as_ref().is_some_and(|current| Rc::ptr_eq(current, used)) {
            *current = None;
        }
    });
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
