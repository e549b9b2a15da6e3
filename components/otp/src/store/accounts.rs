//! The statements about accounts: what is known, what is written, and what is erased.

use super::{connection::Connection, statement};
use crate::{
    account_row::{self, COLUMNS},
    environment::Environment,
    row::{Row, Value},
};
use otp_core::{
    Change, Idempotency, Meter, Revision, Timestamp,
    ports::{Clock, Commit, Committed, KeptAnswer, Loaded, Request, Unavailable},
};
use serde_json::json;

/// After how long a statement that writes does nothing any more, in milliseconds: a little less than the request's
/// deadline. By then its caller hears that it may not have happened, and it had better not.
const LATE: i64 = 2_400;

/// Where the columns of a kept answer and of the account begin in the row of `load.sql`.
const KEPT: usize = 3;
const ACCOUNT: usize = 8;

impl Connection {
    /// What is known of an account, and of what a request about it depends on.
    pub(crate) async fn load(&self, request: &Request<'_>) -> Result<Loaded, Unavailable> {
        let parameters = [
            request.subject.as_str().into(),
            request.decoy.map(decoy).into(),
            request.idempotency.map(|idempotency| idempotency.id.as_str()).into(),
            request.owner.application.into(),
            request.range.into(),
            keys(request.meters),
        ];
        let rows = self.run(statement::LOAD, parameters).await?;
        let row = rows.first().ok_or_else(|| Unavailable("database: forgotten has no row".to_owned()))?;
        loaded(row, 0, request)
    }

    /// Writes down what was decided, with the event as it goes out.
    pub(crate) async fn commit(
        &self,
        request: &Request<'_>,
        commit: &Commit<'_>,
        event: Option<String>,
    ) -> Result<Committed, Unavailable> {
        let late = request.begun.unix_millis() + LATE + self.ahead();
        let expected = commit.expected.map_or(0, Revision::get);
        let (account, expected) = match commit.record.map(|record| &record.account) {
            None => (nothing(), Value::Null),
            Some(Change::To(account)) => {
                (account_row::values(request.subject.as_str(), &request.owner, account), expected.into())
            }
            Some(Change::Decoy(account)) => {
                let subject = decoy(request.decoy.unwrap_or_default());
                (account_row::values(&subject, &request.owner, account), Value::Null)
            }
            Some(Change::Erased { floor }) => {
                return self.erase(request, expected, *floor, late, event.unwrap_or_default()).await;
            }
        };
        let kept = commit.record.and_then(|record| record.kept.as_ref());
        let parameters = account
            .into_iter()
            .chain([expected, late.into(), event.into(), request.subject.as_str().into()])
            .chain([request.range.filter(|_| commit.record.is_some()).into()])
            .chain(answer(request.idempotency, kept, request.begun))
            .chain([meters(commit.meters)]);
        match self {
            Self::Postgres(postgres) if commit.tell => {
                let to_tell =
                    [request.decoy.map(decoy).into(), request.owner.application.into(), keys(request.meters)];
                let rows = postgres.run(statement::COMMIT_OR_TELL, parameters.chain(to_tell)).await?;
                match rows.first() {
                    Some(row) if row.integer(0)? == 1 => Ok(Committed::Yes),
                    Some(row) => Ok(Committed::Conflict(Some(Box::new(loaded(row, 1, request)?)))),
                    None => Ok(Committed::Conflict(None)),
                }
            }
            _ => Ok(committed(&self.run(statement::COMMIT, parameters).await?)),
        }
    }

    async fn erase(
        &self,
        request: &Request<'_>,
        expected: i64,
        floor: Revision,
        late: i64,
        event: String,
    ) -> Result<Committed, Unavailable> {
        let parameters =
            [request.subject.as_str().into(), expected.into(), floor.get().into(), late.into(), event.into()];
        Ok(committed(&self.run(statement::ERASE, parameters).await?))
    }
}

/// A statement that found something not as it was gives no row back.
fn committed(rows: &[Row]) -> Committed {
    if rows.is_empty() { Committed::Conflict(None) } else { Committed::Yes }
}

/// What `load.sql` gives, in the columns of a row from the `first` on.
fn loaded(row: &Row, first: usize, request: &Request<'_>) -> Result<Loaded, Unavailable> {
    // The database tells how long it takes by its own clock: that of others may differ.
    let now = Environment.now();
    let (kept_at, account_at) = (first + KEPT, first + ACCOUNT);
    let account = if row.is_null(account_at) { None } else { Some(account_row::read(row, account_at)?) };
    let suspended_until = row.optional_integer(first + 1)?.map(|left| now.unix_millis() + left);
    let meters = if row.is_null(first + 2) { Vec::new() } else { row.integers(first + 2)? };
    Ok(Loaded {
        // A decoy was read for the time that it takes.
        account: account
            .filter(|(subject, _)| *subject == request.subject.as_str())
            .map(|(_, account)| account),
        floor: row.revision(first)?,
        suspended_until: suspended_until.map(Timestamp::from_unix_millis),
        meters: meters.into_iter().map(|left| now.unix_micros() + left).collect(),
        kept: if row.is_null(kept_at) { None } else { Some(kept(row, kept_at)?) },
    })
}

/// The keys of meters that are looked at.
fn keys(meters: &[Meter]) -> Value {
    if meters.is_empty() {
        return Value::Null;
    }
    let keys: Vec<_> = meters.iter().map(|meter| &meter.key).collect();
    Value::Json(json!(keys).to_string())
}

/// The subject of a decoy.
fn decoy(number: u32) -> String {
    format!("decoy {number}")
}

/// No account is written.
fn nothing() -> [Value; COLUMNS] {
    std::array::from_fn(|_| Value::Null)
}

fn kept(row: &Row, at: usize) -> Result<KeptAnswer, Unavailable> {
    let code = if row.is_null(at + 1) {
        None
    } else {
        let (created_at, expires_at) = (row.timestamp(at + 3)?, row.timestamp(at + 4)?);
        Some((row.otp_id(at + 1)?, row.channel(at + 2)?, created_at, expires_at))
    };
    Ok(KeptAnswer { request: row.text(at)?.to_owned(), code })
}

/// The id under which no answer may be kept yet, and the columns of the one that is.
fn answer(idempotency: Option<&Idempotency>, kept: Option<&KeptAnswer>, begun: Timestamp) -> [Value; 7] {
    let code = kept.and_then(|kept| kept.code.as_ref());
    [
        idempotency.map(|idempotency| idempotency.id.as_str()).into(),
        kept.map(|kept| kept.request.as_str()).into(),
        code.map(|(otp_id, ..)| otp_id.as_str()).into(),
        code.map(|(_, channel, ..)| channel.as_str()).into(),
        code.map(|(_, _, created_at, _)| *created_at).into(),
        code.map(|(.., expires_at)| *expires_at).into(),
        kept.map(|_| begun.unix_millis() + Idempotency::KEPT).into(),
    ]
}

fn meters(meters: &[Meter]) -> Value {
    if meters.is_empty() {
        return Value::Null;
    }
    let wanted: Vec<_> =
        meters.iter().map(|Meter { key, limit, .. }| json!([key, limit.share(), limit.room()])).collect();
    Value::Json(json!(wanted).to_string())
}
