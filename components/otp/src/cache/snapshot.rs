//! An account as the cache holds it: its row, sealed for whose it is and for its revision.

use crate::{
    account_row::{self, COLUMNS},
    environment::Environment,
    row::{Row, Value},
};
use otp_core::{
    Account, Owner, Revision,
    ports::{Random, Request},
};
use otp_seal::{Context, KeyRing, NONCE_BYTES};

/// What can be sealed later, when the request is gone.
pub(super) struct Snapshot {
    values: [Value; COLUMNS],
    application: String,
    recipient: String,
    revision: Revision,
}

impl Snapshot {
    pub(super) fn of(request: &Request<'_>, account: &Account) -> Self {
        Self {
            values: account_row::values(request.subject.as_str(), &request.owner, account),
            application: request.owner.application.to_owned(),
            recipient: request.owner.recipient.as_str().to_owned(),
            revision: account.revision,
        }
    }

    pub(super) fn sealed(&self, keys: &KeyRing) -> Vec<u8> {
        let mut nonce = [0; NONCE_BYTES];
        Environment.fill(&mut nonce);
        keys.seal(&encoded(&self.values), &context(&self.application, &self.recipient, self.revision), nonce)
    }
}

/// Opens a snapshot. `None` for what is of another revision or another owner, damaged, or of another version of this
/// program: the database has it right.
pub(super) fn open(keys: &KeyRing, owner: &Owner<'_>, revision: Revision, sealed: &[u8]) -> Option<Account> {
    let context = context(owner.application, owner.recipient.as_str(), revision);
    let opened = keys.open(sealed, &context).ok()?;
    let (_, account) = account_row::read(&decoded(&opened)?, 0).ok()?;
    Some(account).filter(|account| account.revision == revision)
}

fn context<'a>(application: &'a str, recipient: &'a str, revision: Revision) -> Context<'a> {
    Context {
        purpose: otp_seal::ACCOUNT,
        application,
        recipient,
        version: revision.get(),
        ..Context::default()
    }
}

/// Each value as its kind and what it is: a number in eight bytes, text and bytes with their length in two.
fn encoded(values: &[Value]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    for value in values {
        let (kind, content) = match value {
            Value::Null => (0, &[][..]),
            Value::Integer(integer) => {
                bytes.push(1);
                bytes.extend_from_slice(&integer.to_be_bytes());
                continue;
            }
            Value::Text(text) | Value::Json(text) => (2, text.as_bytes()),
            Value::Blob(content) => (3, content.as_slice()),
        };
        bytes.push(kind);
        if kind > 0 {
            // Nothing of an account is that long; if it ever is, it does not open.
            bytes.extend_from_slice(&u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes());
            bytes.extend_from_slice(content);
        }
    }
    bytes
}

fn decoded(mut bytes: &[u8]) -> Option<Row> {
    fn take<'b>(bytes: &mut &'b [u8], count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = bytes.split_at_checked(count)?;
        *bytes = rest;
        Some(taken)
    }
    let mut values = Vec::with_capacity(COLUMNS);
    while let Some((kind, rest)) = bytes.split_first() {
        bytes = rest;
        values.push(match kind {
            0 => Value::Null,
            1 => Value::Integer(i64::from_be_bytes(take(&mut bytes, 8)?.try_into().ok()?)),
            2 | 3 => {
                let length = u16::from_be_bytes(take(&mut bytes, 2)?.try_into().ok()?);
                let content = take(&mut bytes, length.into())?.to_vec();
                if *kind == 2 { Value::Text(String::from_utf8(content).ok()?) } else { Value::Blob(content) }
            }
            _ => return None,
        });
    }
    (values.len() == COLUMNS).then(|| values.into_iter().collect())
}
