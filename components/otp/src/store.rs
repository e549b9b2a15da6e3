//! The database, behind the domain's port: the one place that chooses it and bounds the wait for it.

pub(crate) mod sqlite;

use crate::{deadline, instance};
use otp_core::{
    MobileNumber, OtpVersion, Recipient,
    ports::{Database, Guess, Judged, NewCode, Reissued, StoredCode, Unavailable},
};
use sqlite::Sqlite;
use std::time::Duration;

/// The most that a request waits for the database, opening it included. A client hears in under 3 s.
const DEADLINE: Duration = Duration::from_millis(2_500);

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
        let opened_and_done = async { work(&*instance::sqlite().await?).await };
        let outcome = deadline::within(DEADLINE, opened_and_done)
            .await
            .unwrap_or_else(|| Err(Unavailable(format!("no answer within {} ms", DEADLINE.as_millis()))));
        if outcome.is_err() {
            instance::forget_sqlite();
        }
        outcome
    }
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
