//! What makes a retry the same request.

use crate::field_line::{self, is_printable};
use http::HeaderMap;

/// Longest key, in characters. The draft sets no limit; 255 is what the services that had the field before
/// it take.
const MAX_KEY: usize = 255;

/// The key of the `Idempotency-Key` field (draft-ietf-httpapi-idempotency-key-header-07, section 2): 1 to 255
/// printable ASCII characters.
///
/// The draft wants a string of Structured Fields, which stands in quotes (RFC 9651, section 3.3.3). Many
/// clients leave the quotes away, so characters without them are taken too, as they are. Both ways of writing
/// the same characters are the same key.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

/// Why an `Idempotency-Key` field cannot be used. It does not repeat the key.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum InvalidIdempotencyKey {
    /// More than one field, or more than one key in it.
    #[error("More than one Idempotency-Key was sent. Send one, such as Idempotency-Key: \"8e03978e-40d5\".")]
    Repeated,
    /// Neither a quoted string nor a bare one, or with something behind it.
    #[error(
        "Idempotency-Key must be one string in quotes, with \\ before \" and \\ inside it and nothing after \
         it, such as Idempotency-Key: \"8e03978e-40d5\"."
    )]
    Form,
    /// Empty or too long.
    #[error("Idempotency-Key must have 1 to {MAX_KEY} characters.")]
    Length,
}

impl IdempotencyKey {
    /// Reads the field, if it is there.
    pub fn of(headers: &HeaderMap) -> Result<Option<Self>, InvalidIdempotencyKey> {
        match field_line::single(headers, "idempotency-key") {
            Ok(None) => Ok(None),
            Ok(Some(line)) => Self::parse(line).map(Some),
            Err(field_line::Repeated) => Err(InvalidIdempotencyKey::Repeated),
        }
    }

    fn parse(line: &[u8]) -> Result<Self, InvalidIdempotencyKey> {
        let text = std::str::from_utf8(line).map_err(|_| InvalidIdempotencyKey::Form)?;
        // An item may have spaces around it (RFC 9651, section 4.2).
        let text = text.trim_matches([' ', '\t']);
        if !is_printable(text) {
            return Err(InvalidIdempotencyKey::Form);
        }
        let key = match text.strip_prefix('"') {
            Some(rest) => unquoted(rest)?,
            None => bare(text)?.to_owned(),
        };
        if (1..=MAX_KEY).contains(&key.len()) { Ok(Self(key)) } else { Err(InvalidIdempotencyKey::Length) }
    }

    /// The key's characters, without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What stands up to the closing quote (RFC 9651, section 4.2.5), if nothing stands behind that: the draft
/// defines no parameters.
fn unquoted(text: &str) -> Result<String, InvalidIdempotencyKey> {
    let mut key = String::with_capacity(text.len());
    let mut characters = text.chars();
    loop {
        match characters.next().ok_or(InvalidIdempotencyKey::Form)? {
            '"' => break,
            '\\' => match characters.next() {
                Some(escaped @ ('"' | '\\')) => key.push(escaped),
                _ => return Err(InvalidIdempotencyKey::Form),
            },
            other => key.push(other),
        }
    }
    let rest = characters.as_str().trim_start_matches(' ');
    match rest.as_bytes().first() {
        None => Ok(key),
        Some(b',') => Err(InvalidIdempotencyKey::Repeated),
        Some(_) => Err(InvalidIdempotencyKey::Form),
    }
}

/// Characters without quotes, if they cannot be taken for anything else: two keys, or one with a parameter.
fn bare(text: &str) -> Result<&str, InvalidIdempotencyKey> {
    if text.contains(',') {
        Err(InvalidIdempotencyKey::Repeated)
    } else if text.contains([' ', '"', ';']) {
        Err(InvalidIdempotencyKey::Form)
    } else {
        Ok(text)
    }
}

impl std::fmt::Debug for IdempotencyKey {
    /// Nothing of it: who knows it can have an answer given again.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IdempotencyKey")
    }
}
