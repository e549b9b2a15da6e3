//! An account as a row: what the database has in its columns, and the cache in its snapshots. A new field of the account
//! is a column here, in the schema, and in `commit.sql`.

use crate::row::{Row, Value, unexpected};
use otp_core::{Account, AccountCode, Owner, ports::Unavailable};
use otp_seal::CheckValue;
use serde_json::json;

/// How many columns there are.
pub(crate) const COLUMNS: usize = 22;

/// Where the account itself begins, after whose it is.
const FIRST: usize = 3;

/// The columns of an account, in the order of the schema.
pub(crate) fn values(subject: &str, owner: &Owner<'_>, account: &Account) -> [Value; COLUMNS] {
    let Account {
        revision,
        email,
        email_verified_at,
        pending_email,
        sends,
        refused_at,
        failures,
        locked_until,
        check_refused,
        code,
    } = account;
    let sends: Vec<_> = sends.iter().map(|send| send.unix_millis()).collect();
    let code = code.as_ref();
    [
        subject.into(),
        owner.application.into(),
        owner.recipient.as_str().into(),
        revision.get().into(),
        email.as_deref().into(),
        (*email_verified_at).into(),
        pending_email.as_deref().into(),
        json!(sends).to_string().into(),
        (*refused_at).into(),
        (*failures).into(),
        (*locked_until).into(),
        check_refused.as_deref().into(),
        code.map(|code| code.otp_id.as_str()).into(),
        code.map(|code| code.version.get()).into(),
        code.map(|code| code.sealed.as_slice()).into(),
        code.map(|code| code.check.as_bytes()).into(),
        code.map(|code| code.channel.as_str()).into(),
        code.and_then(|code| code.address.as_deref()).into(),
        code.map(|code| code.created_at).into(),
        code.map(|code| code.expires_at).into(),
        code.map(|code| code.attempts).into(),
        code.and_then(|code| code.used_at).into(),
    ]
}

/// The account in the columns of a row, from the `first` on; and the subject that stands before it.
pub(crate) fn read(row: &Row, first: usize) -> Result<(&str, Account), Unavailable> {
    let at = first + FIRST;
    let code = if row.is_null(at + 9) { None } else { Some(code(row, at + 9)?) };
    let account = Account {
        revision: row.revision(at)?,
        email: row.optional_text(at + 1)?,
        email_verified_at: row.optional_timestamp(at + 2)?,
        pending_email: row.optional_text(at + 3)?,
        sends: row.timestamps(at + 4)?,
        refused_at: row.optional_timestamp(at + 5)?,
        failures: row.integer(at + 6)?,
        locked_until: row.optional_timestamp(at + 7)?,
        check_refused: row.optional_text(at + 8)?,
        code,
    };
    Ok((row.text(first)?, account))
}

fn code(row: &Row, at: usize) -> Result<AccountCode, Unavailable> {
    Ok(AccountCode {
        otp_id: row.otp_id(at)?,
        version: row.revision(at + 1)?,
        sealed: row.optional_blob(at + 2)?.unwrap_or_default(),
        check: row
            .optional_blob(at + 3)?
            .and_then(|bytes| CheckValue::from_stored(&bytes))
            .ok_or_else(|| unexpected(at + 3))?,
        channel: row.channel(at + 4)?,
        address: row.optional_text(at + 5)?,
        created_at: row.timestamp(at + 6)?,
        expires_at: row.timestamp(at + 7)?,
        attempts: row.integer(at + 8)?,
        used_at: row.optional_timestamp(at + 9)?,
    })
}
