//! SQLite through Spin's interface. The statements stand in `sqlite/`, one file each, with reasons.

mod outbox;
mod row;
mod schema;

use crate::{environment::Environment, event::Draft};
use otp_core::{
    MobileNumber, OtpVersion, Recipient, Timestamp,
    ports::{Again, Clock, Database, Guess, Judged, NewCode, Reissued, StoredCode, Unavailable, Verdict},
};
use otp_events::EventType;
use row::Row;
use spin_sdk::sqlite::{Connection, Error, Value};

/// How long SQLite itself waits for another writer, in milliseconds: less than the request's deadline,
/// so that a busy database is told from a silent one.
const BUSY_TIMEOUT: u32 = 2_000;

/// After how long a statement that writes does nothing any more, in milliseconds; see `issue.sql`.
const LATE: i64 = 2_600;

/// A connection with the schema in place.
pub(crate) struct Sqlite(Connection);

impl std::fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sqlite")
    }
}

impl Sqlite {
    /// Opens the default database and brings its schema up to date.
    pub(crate) async fn open() -> Result<Self, Unavailable> {
        let database = Self(Connection::open_default().await.map_err(unavailable)?);
        database.run(&format!("PRAGMA busy_timeout = {BUSY_TIMEOUT}"), []).await?;
        // A commit survives the death of this process, of the host and of the system's other programs.
        // Only a loss of power may take the last moments; waiting for the disk at each commit would
        // cost most of the speed.
        database.run("PRAGMA synchronous = NORMAL", []).await?;
        schema::bring_up_to_date(&database).await?;
        Ok(database)
    }

    /// Reads from the schema.
    pub(crate) async fn ping(&self) -> Result<(), Unavailable> {
        self.run("SELECT 1 FROM users LIMIT 1", []).await.map(drop)
    }

    /// Runs one statement to its end: only then is it committed, and only then are its errors known.
    async fn run(
        &self,
        statement: &str,
        parameters: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<Row>, Unavailable> {
        let result = self.0.execute(statement, parameters).await.map_err(unavailable)?;
        Ok(result.collect().await.map_err(unavailable)?.into_iter().map(Row::from).collect())
    }
}

/// A connection, and the request that uses it: what it writes leaves that request's event.
#[derive(Debug)]
pub(crate) struct OnRecord<'a> {
    pub(crate) sqlite: &'a Sqlite,
    pub(crate) draft: Draft<'a>,
}

impl Database for OnRecord<'_> {
    async fn issue(&self, code: &NewCode<'_>, recipient: &Recipient) -> Result<OtpVersion, Unavailable> {
        let email = recipient.email().map(|email| email.as_str());
        let address = match recipient {
            Recipient::Email(address) => Some(address.as_str()),
            Recipient::Sms { .. } => None,
        };
        let delivery = [recipient.channel().as_str().into(), address.into(), email.into()];
        let event = self.draft.json(EventType::Generated, code.number, code.created_at);
        let parameters = code_parameters(code).into_iter().chain(delivery).chain([event.into()]);
        let rows = self.sqlite.run(include_str!("sqlite/issue.sql"), parameters).await?;
        // An upsert leaves its row, unless it came too late.
        match rows.first() {
            Some(row) => row.version(0),
            None => Err(too_late()),
        }
    }

    async fn reissue(&self, code: &NewCode<'_>) -> Result<Option<Reissued>, Unavailable> {
        let event = self.draft.json(EventType::Regenerated, code.number, code.created_at);
        let parameters = code_parameters(code).into_iter().chain([event.into()]);
        let rows = self.sqlite.run(include_str!("sqlite/reissue.sql"), parameters).await?;
        let Some(row) = rows.first() else { return none_in_time(code.created_at) };
        Ok(Some(Reissued { version: row.version(0)?, channel: row.channel(1)? }))
    }

    async fn resend(&self, again: &Again<'_>) -> Result<Option<StoredCode>, Unavailable> {
        let parameters = [
            again.number.as_str().into(),
            again.cached.map(OtpVersion::get).into(),
            again.now.unix_millis().into(),
            again.max_attempts.get().into(),
            self.draft.json(EventType::Resent, again.number, again.now).into(),
        ];
        let rows = self.sqlite.run(include_str!("sqlite/resend.sql"), parameters).await?;
        let Some(row) = rows.first() else { return none_in_time(again.now) };
        stored_code(row).map(Some)
    }

    async fn find(&self, number: &MobileNumber) -> Result<Option<StoredCode>, Unavailable> {
        let rows = self.sqlite.run(include_str!("sqlite/find.sql"), [number.as_str().into()]).await?;
        rows.first().map(stored_code).transpose()
    }

    async fn check(&self, guess: &Guess<'_>) -> Result<Option<Judged>, Unavailable> {
        let parameters = [
            guess.number.as_str().into(),
            guess.otp_id.map(|id| id.as_str()).into(),
            guess.check.as_bytes().into(),
            guess.now.unix_millis().into(),
            guess.max_attempts.get().into(),
            self.draft.json(EventType::Verified, guess.number, guess.now).into(),
        ];
        let rows = self.sqlite.run(include_str!("sqlite/check.sql"), parameters).await?;
        let Some(row) = rows.first() else { return none_in_time(guess.now) };
        match row.text(0)?.parse()? {
            // Of a user without a code the other columns are null.
            Verdict::NotFound => Ok(None),
            verdict => Ok(Some(Judged {
                verdict,
                attempts: row.integer(1)?,
                otp_id: row.otp_id(2)?,
                version: row.version(3)?,
                channel: row.channel(4)?,
            })),
        }
    }
}

/// The first six parameters of `issue.sql` and `reissue.sql`.
fn code_parameters(code: &NewCode<'_>) -> [Value; 6] {
    [
        code.number.as_str().into(),
        code.otp_id.as_str().into(),
        code.sealed.clone().into(),
        code.check.as_bytes().into(),
        code.created_at.unix_millis().into(),
        code.expires_at.unix_millis().into(),
    ]
}

/// What no row means: nothing is known of the number, unless the statement came too late to do anything.
fn none_in_time<T>(begun: Timestamp) -> Result<Option<T>, Unavailable> {
    let took = Environment.now().unix_millis() - begun.unix_millis();
    if took < LATE { Ok(None) } else { Err(too_late()) }
}

fn too_late() -> Unavailable {
    Unavailable("SQLite: busy for too long".to_owned())
}

/// A row of `resend.sql` and `find.sql`.
fn stored_code(row: &Row) -> Result<StoredCode, Unavailable> {
    Ok(StoredCode {
        otp_id: row.otp_id(0)?,
        version: row.version(1)?,
        sealed: row.optional_blob(2)?,
        channel: row.channel(3)?,
        created_at: row.timestamp(4)?,
        expires_at: row.timestamp(5)?,
        attempts: row.integer(6)?,
        used_at: row.optional_integer(7)?.map(Timestamp::from_unix_millis),
    })
}

fn unavailable(error: Error) -> Unavailable {
    Unavailable(match error {
        Error::Io(reason) => format!("SQLite: {reason}"),
        other => format!("SQLite: {other}"),
    })
}
