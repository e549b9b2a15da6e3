//! Reading keys from configuration.

use base64ct::{Base64, Encoding};
use zeroize::Zeroizing;

/// Length of every key, in bytes: 256 bits, what XChaCha20-Poly1305 takes and HMAC-SHA-256 deserves.
pub const KEY_BYTES: usize = 32;

/// A key's bytes, wiped from memory when dropped.
pub(crate) type KeyBytes = Zeroizing<[u8; KEY_BYTES]>;

/// Why keys in the configuration cannot be used. No message repeats a key.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// The list holds no key at all.
    #[error("no key is given; write id:base64, several separated by commas")]
    Empty,
    /// An entry has no `id:` in front.
    #[error("entry {0} is not of the form id:base64")]
    Form(usize),
    /// An id is empty, too long, or has characters other than `a-z A-Z 0-9 - _`.
    #[error("the id of entry {0} is not 1 to 32 letters, digits, '-' or '_'")]
    Id(usize),
    /// Two entries carry the same id, so that a sealed code could not tell which one it needs.
    #[error("two keys have the id {0:?}")]
    DuplicateId(String),
    /// The key itself is not 32 bytes in standard base64.
    #[error("a key is not {KEY_BYTES} bytes in base64; make one with: openssl rand -base64 {KEY_BYTES}")]
    Key,
}

/// One key from its base64 form (RFC 4648 section 4, with padding), in constant time.
pub(crate) fn parse(base64: &str) -> Result<KeyBytes, KeyError> {
    let mut key = KeyBytes::new([0; KEY_BYTES]);
    let length = Base64::decode(base64, key.as_mut_slice()).map_err(|_| KeyError::Key)?.len();
    if length == KEY_BYTES { Ok(key) } else { Err(KeyError::Key) }
}

/// Keys from their list `id:base64,id:base64`, in its order. An id is 1 to 32 of `a-z A-Z 0-9 - _`.
pub(crate) fn parse_list(list: &str) -> Result<Vec<(String, KeyBytes)>, KeyError> {
    let mut keys: Vec<(String, KeyBytes)> = Vec::new();
    let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    for (number, entry) in (1..).zip(entries) {
        let (id, base64) = entry.split_once(':').ok_or(KeyError::Form(number))?;
        let known = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
        if !(1..=32).contains(&id.len()) || !id.bytes().all(known) {
            return Err(KeyError::Id(number));
        }
        if keys.iter().any(|(other, _)| other == id) {
            return Err(KeyError::DuplicateId(id.to_owned()));
        }
        keys.push((id.to_owned(), parse(base64)?));
    }
    if keys.is_empty() { Err(KeyError::Empty) } else { Ok(keys) }
}

/// Each field with its length in front, so that no two lists of fields read the same.
pub(crate) fn framed(fields: &[&[u8]], mut put: impl FnMut(&[u8])) {
    for field in fields {
        put(&(field.len() as u64).to_be_bytes());
        put(field);
    }
}
