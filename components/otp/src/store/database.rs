//! What the domain asks of the database, in the words of either: the statements stand in `sqlite/` and
//! `postgres/`, one file each, with reasons.

use super::{
    connection::Connection,
    row::{Row, Value},
    statement::{self, Statement},
};
use crate::{environment::Environment, event::Draft};
use otp_core::{
    Idempotency, MaxAttempts, Meter, MobileNumber, OtpVersion, Recipient, SendLimit, Timestamp,
    ports::{
        Checked, Clock, Database, Full, Guess, Judged, NewCode, Refusal, Reissued, Replay, Sent, StoredCode,
        Terms, Unavailable,
    },
};
use otp_events::EventType;
use serde_json::json;

/// After how long a statement that writes does nothing any more, in milliseconds: the request's deadline, and
/// a little.
const LATE: i64 = 2_600;

/// A connection, and the request that uses it: what it writes leaves that request's event.
#[derive(Debug)]
pub(crate) struct OnRecord<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) draft: Draft<'a>,
}

impl Database for OnRecord<'_> {
    async fn issue(
        &self,
        terms: &Terms<'_>,
        code: &NewCode<'_>,
        recipient: &Recipient,
    ) -> Result<Sent<OtpVersion>, Unavailable> {
        let email = recipient.email().map(|email| email.as_str());
        let address = match recipient {
            Recipient::Email(address) => Some(address.as_str()),
            Recipient::Sms { .. } => None,
        };
        let delivery = [recipient.channel().as_str().into(), address.into(), email.into()];
        // What was in the way may be gone when it is looked for, erased in between: again, then.
        for _ in 0..3 {
            let more = code_parameters(code).into_iter().chain(delivery.clone());
            let rows = self.send(statement::ISSUE, EventType::Generated, terms, more).await?;
            // An upsert leaves its row, unless something was in the way.
            if let Some(row) = rows.first() {
                return sent(row, |row| row.version(3));
            }
            if let Some(obstacle) = self.obstacle(terms).await? {
                return Ok(Sent::Refused(obstacle));
            }
            in_time(terms.now)?;
        }
        Err(busy())
    }

    async fn reissue(&self, terms: &Terms<'_>, code: &NewCode<'_>) -> Result<Sent<Reissued>, Unavailable> {
        let reissue = async || {
            let more = code_parameters(code);
            self.send(statement::REISSUE, EventType::Regenerated, terms, more).await
        };
        let mut rows = reissue().await?;
        if rows.is_empty() {
            match self.nothing_found(terms).await? {
                // The answer that was in the way may have been erased since: once more, then.
                Refusal::NotFound if terms.idempotency.is_some() => rows = reissue().await?,
                refusal => return Ok(Sent::Refused(refusal)),
            }
        }
        let Some(row) = rows.first() else { return Ok(Sent::Refused(self.nothing_found(terms).await?)) };
        sent(row, |row| Ok(Reissued { version: row.version(3)?, channel: row.channel(4)? }))
    }

    async fn resend(
        &self,
        terms: &Terms<'_>,
        cached: Option<OtpVersion>,
    ) -> Result<Sent<StoredCode>, Unavailable> {
        let more = [cached.map(OtpVersion::get).into(), terms.policy.max_attempts.get().into()];
        let rows = self.send(statement::RESEND, EventType::Resent, terms, more).await?;
        let Some(row) = rows.first() else { return Ok(Sent::Refused(self.nothing_found(terms).await?)) };
        sent(row, |row| stored_code(row, 3))
    }

    async fn find(&self, number: &MobileNumber) -> Result<Option<StoredCode>, Unavailable> {
        let rows = self.connection.run(statement::FIND, [number.as_str().into()]).await?;
        rows.first().map(|row| stored_code(row, 0)).transpose()
    }

    async fn check(&self, guess: &Guess<'_>) -> Result<Checked, Unavailable> {
        let request = self.request(guess.now, guess.meters, None);
        let parameters = [
            guess.number.as_str().into(),
            guess.now.unix_millis().into(),
            Value::Json(self.draft.json(EventType::Verified, guess.number, guess.now)),
            request.clone().map_or(Value::Null, Value::Json),
            i64::from(guess.policy.uniform).into(),
            guess.policy.max_failures.get().into(),
            guess.policy.lock.millis().into(),
            guess.otp_id.map(|id| id.as_str()).into(),
            guess.check.as_bytes().into(),
            guess.policy.max_attempts.get().into(),
            self.too_late(guess.now),
        ];
        let check = async || self.connection.run(statement::CHECK, parameters.clone()).await;
        let mut rows = check().await?;
        if rows.is_empty() && request.is_some() {
            if let Some(Refusal::Full(full)) = self.obstacle_of(guess.now, None, request.clone()).await? {
                return Ok(Checked::Full(full));
            }
            // A meter that was in the way may have room again: once more, then.
            rows = check().await?;
        }
        let Some(row) = rows.first() else {
            in_time(guess.now)?;
            return self.not_found(guess.now, request).await;
        };
        Ok(match row.text(0)? {
            // Of a user without a code the other columns are null.
            "not_found" => {
                // It left nothing on record, unless nobody shall be able to tell.
                let uncounted = request.filter(|_| !guess.policy.uniform);
                return self.not_found(guess.now, uncounted).await;
            }
            "number_locked" => Checked::NumberLocked { until: row.timestamp(1)? },
            verdict => Checked::Judged(Judged {
                verdict: verdict.parse()?,
                locked: row.optional_integer(1)?.is_some_and(|until| until > guess.now.unix_millis()),
                attempts: row.integer(2)?,
                otp_id: row.otp_id(3)?,
                version: row.version(4)?,
                channel: row.channel(5)?,
            }),
        })
    }

    async fn replay(
        &self,
        idempotency: &Idempotency,
        now: Timestamp,
        max_attempts: MaxAttempts,
    ) -> Result<Option<Replay>, Unavailable> {
        let parameters =
            [idempotency.id.as_str().into(), now.unix_millis().into(), max_attempts.get().into()];
        let rows = self.connection.run(statement::REPLAY, parameters).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some(Replay {
            same_request: row.text(0)? == idempotency.request.as_str(),
            otp_id: row.otp_id(1)?,
            sealed: row.optional_blob(2)?.unwrap_or_default(),
            channel: row.channel(3)?,
            created_at: row.timestamp(4)?,
            expires_at: row.timestamp(5)?,
            live: row.integer(6)? != 0,
        }))
    }

    async fn erase(&self, number: &MobileNumber, now: Timestamp) -> Result<(), Unavailable> {
        let event = self.draft.erasure(number, now);
        let parameters = [
            number.as_str().into(),
            now.unix_millis().into(),
            event.subject.as_deref().into(),
            // An event is a plain struct of strings, which always serialises.
            Value::Json(serde_json::to_string(&event).unwrap_or_default()),
            self.too_late(now),
        ];
        self.connection.run(statement::ERASE, parameters).await?;
        in_time(now)
    }
}

impl OnRecord<'_> {
    /// Runs a statement that sends a number a code, if the terms let it: its first eight parameters, `more`, and the
    /// last.
    async fn send(
        &self,
        statement: Statement,
        r#type: EventType,
        terms: &Terms<'_>,
        more: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<Row>, Unavailable> {
        let limit = terms.policy.sends;
        let parameters = [
            terms.number.as_str().into(),
            terms.now.unix_millis().into(),
            Value::Json(self.draft.json(r#type, terms.number, terms.now)),
            self.request(terms.now, terms.meters, terms.idempotency).map_or(Value::Null, Value::Json),
            i64::from(terms.policy.uniform).into(),
            limit.map_or(0, SendLimit::requests).into(),
            limit.map_or(HOUR, SendLimit::window_millis).into(),
            range(terms).into(),
        ];
        let parameters = parameters.into_iter().chain(more).chain([self.too_late(terms.now)]);
        self.connection.run(statement, parameters).await
    }

    /// What a request leaves on record beside its event; `None` for most.
    fn request(&self, now: Timestamp, meters: &[Meter], idempotency: Option<&Idempotency>) -> Option<String> {
        if meters.is_empty() && idempotency.is_none() {
            return None;
        }
        // Meters go by the database's clock.
        let micros = now.unix_micros() + self.ahead_micros();
        let meters: Vec<_> = meters
            .iter()
            .map(|Meter { name, key, limit }| {
                json!({ "name": name, "key": key, "now": micros, "share": limit.share(), "room": limit.room() })
            })
            .collect();
        let idempotency = idempotency.map(|Idempotency { id, request }| {
            let expires_at = now.unix_millis() + Idempotency::KEPT;
            json!({ "id": id.as_str(), "request": request.as_str(), "expiresAt": expires_at })
        });
        Some(json!({ "meters": meters, "idempotency": idempotency }).to_string())
    }

    /// The moment from which a statement of a request that began then does nothing any more, by the database's clock.
    fn too_late(&self, begun: Timestamp) -> Value {
        (begun.unix_millis() + LATE + self.connection.ahead()).into()
    }

    /// How far the database's clock is ahead of ours.
    fn ahead_micros(&self) -> i64 {
        self.connection.ahead() * 1_000
    }

    /// Counts a guess that left nothing on record, where the database counts. Others may have filled a meter since
    /// there was room.
    async fn not_found(&self, now: Timestamp, request: Option<String>) -> Result<Checked, Unavailable> {
        let Some(request) = request else { return Ok(Checked::NotFound) };
        for _ in 0..3 {
            let counted = self.connection.run(statement::COUNT, [Value::Json(request.clone())]).await?;
            if !counted.is_empty() {
                return Ok(Checked::NotFound);
            }
            if let Some(Refusal::Full(full)) = self.obstacle_of(now, None, Some(request.clone())).await? {
                return Ok(Checked::Full(full));
            }
        }
        Err(busy())
    }

    /// What no row means where the number may be unknown.
    async fn nothing_found(&self, terms: &Terms<'_>) -> Result<Refusal, Unavailable> {
        match self.obstacle(terms).await? {
            Some(obstacle) => Ok(obstacle),
            None => in_time(terms.now).map(|()| Refusal::NotFound),
        }
    }

    /// What was in the way of a statement that gave no row back.
    async fn obstacle(&self, terms: &Terms<'_>) -> Result<Option<Refusal>, Unavailable> {
        // A retry hears what was answered, whatever else is in the way by now.
        if let Some(idempotency) = terms.idempotency
            && let Some(replay) = self.replay(idempotency, terms.now, terms.policy.max_attempts).await?
        {
            return Ok(Some(Refusal::Replay(replay)));
        }
        self.obstacle_of(terms.now, range(terms), self.request(terms.now, terms.meters, None)).await
    }

    async fn obstacle_of(
        &self,
        now: Timestamp,
        range: Option<&str>,
        request: Option<String>,
    ) -> Result<Option<Refusal>, Unavailable> {
        if range.is_none() && request.is_none() {
            return Ok(None);
        }
        let parameters = [now.unix_millis().into(), range.into(), request.map_or(Value::Null, Value::Json)];
        let rows = self.connection.run(statement::OBSTACLE, parameters).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some(match row.text(0)? {
            "suspended" => Refusal::Suspended { until: row.timestamp(1)? },
            meter => {
                let free_at = row.integer(1)? - self.ahead_micros();
                Refusal::Full(Full { name: meter.to_owned(), free_at })
            }
        }))
    }
}

/// The window in which the first refusal of a number is put on record, where its sends have none.
const HOUR: i64 = 60 * 60 * 1_000;

/// The range of the number, where ranges can be suspended.
fn range<'a>(terms: &Terms<'a>) -> Option<&'a str> {
    terms.policy.guarded.then(|| terms.number.range())
}

/// A row of a statement that sends a number a code: what it did, or why it did not.
fn sent<T>(row: &Row, value: impl FnOnce(&Row) -> Result<T, Unavailable>) -> Result<Sent<T>, Unavailable> {
    Ok(Sent::Refused(match row.text(0)? {
        "done" => return Ok(Sent::Done { value: value(row)?, sends: row.timestamps(1)? }),
        "rate_limited" => Refusal::Limited { sends: row.timestamps(1)? },
        "number_locked" => Refusal::NumberLocked { until: row.timestamp(2)? },
        "not_found" => Refusal::NotFound,
        "used" => Refusal::Used,
        "expired" => Refusal::Expired,
        "locked" => Refusal::Locked,
        _ => return Err(Unavailable("database: a statement gave an unknown verdict".to_owned())),
    }))
}

/// The parameters 9 to 12 of `issue.sql` and `reissue.sql`.
fn code_parameters(code: &NewCode<'_>) -> [Value; 4] {
    [
        code.otp_id.as_str().into(),
        code.sealed.as_slice().into(),
        code.check.as_bytes().into(),
        code.expires_at.unix_millis().into(),
    ]
}

/// Whether a statement that began then was in time: if not, it did nothing.
fn in_time(begun: Timestamp) -> Result<(), Unavailable> {
    let took = Environment.now().unix_millis() - begun.unix_millis();
    if took < LATE { Ok(()) } else { Err(busy()) }
}

fn busy() -> Unavailable {
    Unavailable("database: busy for too long".to_owned())
}

/// The columns of a row that hold a code, from the `first` on.
fn stored_code(row: &Row, first: usize) -> Result<StoredCode, Unavailable> {
    Ok(StoredCode {
        otp_id: row.otp_id(first)?,
        version: row.version(first + 1)?,
        sealed: row.optional_blob(first + 2)?,
        channel: row.channel(first + 3)?,
        created_at: row.timestamp(first + 4)?,
        expires_at: row.timestamp(first + 5)?,
        attempts: row.integer(first + 6)?,
        used_at: row.optional_integer(first + 7)?.map(Timestamp::from_unix_millis),
    })
}
