//! Who may do what.

use crate::field_line;
use http::{HeaderMap, header::AUTHORIZATION};
use sha2::{Digest, Sha256};
use std::str::FromStr;
use subtle::{ConditionallySelectable, ConstantTimeEq};

/// Longest name of a key, in characters.
const MAX_NAME: usize = 64;

/// What a key lets its holder do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Have codes made and sent.
    Send,
    /// Have codes checked.
    Verify,
    /// Erase users, and look after the service.
    Admin,
}

const SCOPES: [(Scope, &str); 3] =
    [(Scope::Send, "send"), (Scope::Verify, "verify"), (Scope::Admin, "admin")];

/// The keys that callers may come with. The configuration holds their SHA-256 alone, so whoever reads it has
/// no key. That is enough for keys that were drawn at random; a word that somebody thought of would be found
/// by trying.
#[derive(Clone)]
pub struct ApiKeys(Vec<Entry>);

#[derive(Clone)]
struct Entry {
    /// Of the key's holder. Several entries may share it, so that an old key and a new one are good together
    /// for a while.
    name: String,
    /// None of them twice.
    scopes: Vec<Scope>,
    /// The key's SHA-256.
    hash: [u8; 32],
}

/// Why a list of keys cannot be used. Entries are counted from 1. No message repeats a hash, which might be
/// a key that was put there by mistake.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum InvalidApiKeys {
    /// No entry at all.
    #[error("no key is given; write name:scopes:sha256, several separated by commas")]
    Empty,
    /// Not three parts.
    #[error("entry {0} is not of the form name:scopes:sha256, such as shop:send+verify:9f86…")]
    Form(usize),
    /// A name that is empty, too long, or has other characters.
    #[error("the name of entry {0} is not 1 to {MAX_NAME} letters, digits, '-' or '_'")]
    Name(usize),
    /// A scope that is none, or that stands twice.
    #[error("the scopes of entry {0} are not send, verify and admin, each at most once, joined by '+'")]
    Scopes(usize),
    /// Not a SHA-256.
    #[error(
        "entry {0} does not end in 64 hexadecimal digits, the SHA-256 of the key; make a key with: openssl \
         rand -hex 32, and its hash with: printf %s \"$KEY\" | openssl dgst -sha256 -r"
    )]
    Hash(usize),
    /// The SHA-256 of nothing, or of a line end: the key was not set when it was hashed.
    #[error(
        "entry {0} has the hash of an empty key; set KEY to the key first, then hash it with: printf %s \
         \"$KEY\" | openssl dgst -sha256 -r"
    )]
    EmptyKey(usize),
    /// One key in two entries, so that it would not be known whose it is.
    #[error("entries {0} and {1} have the same key; make one of its own for each with: openssl rand -hex 32")]
    DuplicateKey(usize, usize),
}

/// Why a caller may not do what it asked for.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum Denied {
    /// No key was sent.
    #[error("send the field Authorization: Bearer, with a key of this service")]
    NoKey,
    /// A key was sent, and it is none of these; or several were.
    #[error("the key in the field Authorization is none of this service's")]
    UnknownKey,
    /// The key is good, for other calls.
    #[error("the key has not the scope that this call needs")]
    Scope,
}

impl FromStr for ApiKeys {
    type Err = InvalidApiKeys;

    /// Reads `name:scopes:sha256,name:scopes:sha256`. A name is 1 to 64 of `a-z A-Z 0-9 - _`; scopes are
    /// joined by `+`.
    fn from_str(list: &str) -> Result<Self, InvalidApiKeys> {
        let mut keys: Vec<Entry> = Vec::new();
        let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        for (number, entry) in (1..).zip(entries) {
            let entry = Entry::parse(number, entry)?;
            if let Some(other) = keys.iter().position(|other| other.hash == entry.hash) {
                return Err(InvalidApiKeys::DuplicateKey(other + 1, number));
            }
            keys.push(entry);
        }
        if keys.is_empty() { Err(InvalidApiKeys::Empty) } else { Ok(Self(keys)) }
    }
}

impl Entry {
    fn parse(number: usize, entry: &str) -> Result<Self, InvalidApiKeys> {
        let mut parts = entry.split(':');
        let (Some(name), Some(scopes), Some(hash), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(InvalidApiKeys::Form(number));
        };
        let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if !(1..=MAX_NAME).contains(&name.len()) || !name.bytes().all(known) {
            return Err(InvalidApiKeys::Name(number));
        }
        let mut granted = Vec::with_capacity(SCOPES.len());
        for scope in scopes.split('+') {
            match SCOPES.iter().find(|(_, name)| *name == scope) {
                Some((scope, _)) if !granted.contains(scope) => granted.push(*scope),
                _ => return Err(InvalidApiKeys::Scopes(number)),
            }
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(hash, &mut bytes).map_err(|_| InvalidApiKeys::Hash(number))?;
        let empty = ["", "\n", "\r\n"].iter().any(|nothing| sha256(nothing.as_bytes()) == bytes);
        if empty {
            return Err(InvalidApiKeys::EmptyKey(number));
        }
        Ok(Self { name: name.to_owned(), scopes: granted, hash: bytes })
    }
}

impl ApiKeys {
    /// The name of the key in `Authorization: Bearer` (RFC 6750, section 2.1), if it has the scope.
    ///
    /// The sent key is hashed and compared with every entry, in a time that does not depend on which one it
    /// is, nor on how much of a hash is the same.
    pub fn authorise<'a>(&'a self, headers: &HeaderMap, scope: Scope) -> Result<&'a str, Denied> {
        let hash = sha256(sent(headers)?);
        let none = self.0.len() as u64;
        let found = (0..).zip(&self.0).fold(none, |found, (index, entry)| {
            u64::conditional_select(&found, &index, entry.hash.ct_eq(&hash))
        });
        let entry =
            usize::try_from(found).ok().and_then(|found| self.0.get(found)).ok_or(Denied::UnknownKey)?;
        if entry.scopes.contains(&scope) { Ok(&entry.name) } else { Err(Denied::Scope) }
    }
}

impl std::fmt::Debug for ApiKeys {
    /// The names, never the hashes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|entry| &entry.name)).finish()
    }
}

/// The key that was sent. Another scheme is as if nothing had been sent (RFC 6750, section 3.1).
fn sent(headers: &HeaderMap) -> Result<&[u8], Denied> {
    let line = match field_line::single(headers, AUTHORIZATION.as_str()) {
        Ok(line) => line.ok_or(Denied::NoKey)?,
        Err(field_line::Repeated) => return Err(Denied::UnknownKey),
    };
    let (scheme, key) = line.split_at(line.iter().position(|byte| *byte == b' ').unwrap_or(line.len()));
    match key.trim_ascii() {
        key if scheme.eq_ignore_ascii_case(b"bearer") && !key.is_empty() => Ok(key),
        _ => Err(Denied::NoKey),
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field_line::sent;
    use proptest::prelude::*;

    fn hash(key: &str) -> String {
        hex::encode(sha256(key.as_bytes()))
    }

    fn keys(list: &str) -> ApiKeys {
        list.parse().unwrap()
    }

    /// What a caller hears that sends this in `Authorization`.
    fn ask<'a>(keys: &'a ApiKeys, authorization: &str, scope: Scope) -> Result<&'a str, Denied> {
        keys.authorise(&sent::lines(&[("authorization", authorization)]), scope)
    }

    #[test]
    fn a_key_does_what_its_scopes_let_it() {
        let keys = keys(&format!("shop:send+verify:{},ops:admin:{}", hash("s3cret"), hash("0ther")));
        assert_eq!(ask(&keys, "Bearer s3cret", Scope::Send), Ok("shop"));
        assert_eq!(ask(&keys, "Bearer s3cret", Scope::Verify), Ok("shop"));
        assert_eq!(ask(&keys, "Bearer s3cret", Scope::Admin), Err(Denied::Scope));
        assert_eq!(ask(&keys, "Bearer 0ther", Scope::Admin), Ok("ops"));
        assert_eq!(
            ask(&keys, "Bearer 0ther", Scope::Send),
            Err(Denied::Scope),
            "admin is a scope beside them"
        );
    }

    #[test]
    fn the_hash_is_what_sha256sum_prints() {
        // printf %s correct-horse | sha256sum
        let printed = "9dca666eb54730714630d1519264a7bf1eeaad00b8f2edc90d3ecbfad928d163";
        for digits in [printed, &printed.to_uppercase()] {
            let keys = keys(&format!("shop:send:{digits}"));
            assert_eq!(ask(&keys, "Bearer correct-horse", Scope::Send), Ok("shop"));
        }
    }

    #[test]
    fn while_a_key_rotates_both_are_good_under_one_name() {
        let both = keys(&format!("shop:send:{}, shop:send+verify:{}", hash("old"), hash("new")));
        assert_eq!(ask(&both, "Bearer old", Scope::Send), Ok("shop"));
        assert_eq!(ask(&both, "Bearer new", Scope::Verify), Ok("shop"));
        assert_eq!(ask(&both, "Bearer old", Scope::Verify), Err(Denied::Scope), "each with its own scopes");
    }

    #[test]
    fn a_key_is_read_as_rfc_6750_writes_it() {
        let keys = keys(&format!("shop:send:{}", hash("s3cret")));
        for authorization in ["Bearer s3cret", "bearer s3cret", "BEARER  s3cret", "Bearer s3cret "] {
            assert_eq!(ask(&keys, authorization, Scope::Send), Ok("shop"), "{authorization}");
        }
        for authorization in
            ["", " ", "Bearer", "Bearer ", "s3cret", "Basic czNjcmV0", "Bearers3cret", "Bearer\ts3cret"]
        {
            assert_eq!(ask(&keys, authorization, Scope::Send), Err(Denied::NoKey), "{authorization}");
        }
        for authorization in
            ["Bearer s3cre", "Bearer S3CRET", "Bearer s3cret, Bearer s3cret", "Bearer \"s3cret\"", "Bearer é"]
        {
            assert_eq!(ask(&keys, authorization, Scope::Send), Err(Denied::UnknownKey), "{authorization}");
        }
        assert_eq!(keys.authorise(&HeaderMap::new(), Scope::Send), Err(Denied::NoKey));
        let twice = sent::lines(&[("authorization", "Bearer s3cret"), ("authorization", "Bearer s3cret")]);
        assert_eq!(keys.authorise(&twice, Scope::Send), Err(Denied::UnknownKey));
        assert_eq!(ask(&keys, &format!("Bearer {}", hash("s3cret")), Scope::Send), Err(Denied::UnknownKey));
    }

    #[test]
    fn what_is_wrong_with_the_list_is_said_without_repeating_it() {
        use InvalidApiKeys::{DuplicateKey, Empty, EmptyKey, Form, Hash, Name, Scopes};
        let (one, two) = (&*hash("one"), &*hash("two"));
        for (list, error) in [
            (String::new(), Empty),
            (" , ".to_owned(), Empty),
            (one.to_owned(), Form(1)),
            (format!("shop:{one}"), Form(1)),
            (format!("shop:send:{one}:"), Form(1)),
            (format!("a:send:{one},{two}"), Form(2)),
            (format!(":send:{one}"), Name(1)),
            (format!("a b:send:{one}"), Name(1)),
            (format!("é:send:{one}"), Name(1)),
            (format!("{}:send:{one}", "x".repeat(65)), Name(1)),
            (format!("a::{one}"), Scopes(1)),
            (format!("a:send+:{one}"), Scopes(1)),
            (format!("a:SEND:{one}"), Scopes(1)),
            (format!("a:send,verify:{one}"), Form(1)),
            (format!("a:send+send:{one}"), Scopes(1)),
            (format!("a:all:{one}"), Scopes(1)),
            (format!("a:send:{one},b:send:{}", &two[1..]), Hash(2)),
            (format!("a:send:{one}0"), Hash(1)),
            ("a:send:s3cret".to_owned(), Hash(1)),
            (format!("a:send:{}", "g".repeat(64)), Hash(1)),
            (format!("a:send:{}", "é".repeat(32)), Hash(1)),
            (format!("a:send:{}", hash("")), EmptyKey(1)),
            (format!("a:send:{one},b:send:{}", hash("\n")), EmptyKey(2)),
            (format!("a:send:{one},b:send:{two},c:verify:{}", one.to_uppercase()), DuplicateKey(1, 3)),
        ] {
            let found = list.parse::<ApiKeys>().unwrap_err();
            assert_eq!(found, error, "{list}");
            let text = found.to_string();
            assert!(!text.contains(one) && !text.contains(two) && !text.contains("s3cret"), "{text}");
        }
        let hint = InvalidApiKeys::Hash(2).to_string();
        assert!(
            hint.starts_with("entry 2 ") && hint.contains("printf %s \"$KEY\" | openssl dgst -sha256 -r"),
            "{hint}"
        );
    }

    #[test]
    fn only_names_are_printable() {
        let keys = keys(&format!("shop:send:{}", hash("s3cret")));
        assert_eq!(format!("{keys:?}"), "[\"shop\"]");
    }

    proptest! {
        #[test]
        fn each_key_is_known_by_its_name_and_no_other_key_is(
            known in prop::collection::btree_set("[!-~]{1,24}", 1..8), other in "[!-~]{1,24}",
        ) {
            let list: Vec<_> =
                known.iter().enumerate().map(|(i, key)| format!("k{i}:verify:{}", hash(key))).collect();
            let keys = keys(&list.join(","));
            for (i, key) in known.iter().enumerate() {
                prop_assert_eq!(ask(&keys, &format!("Bearer {key}"), Scope::Verify), Ok(&*format!("k{i}")));
                prop_assert_eq!(ask(&keys, &format!("Bearer {key}"), Scope::Send), Err(Denied::Scope));
            }
            if !known.contains(&other) {
                let denied = ask(&keys, &format!("Bearer {other}"), Scope::Verify);
                prop_assert_eq!(denied, Err(Denied::UnknownKey));
            }
        }

        #[test]
        fn fields_of_any_kind_never_panic_nor_open_anything(value in sent::value()) {
            let keys = keys(&format!("shop:send:{}", hash("a key that was drawn at random")));
            let headers = sent::lines(&[("authorization", value)]);
            prop_assert!(keys.authorise(&headers, Scope::Send).is_err());
        }

        #[test]
        fn lists_of_any_kind_never_panic(list in "([a-z:+,]|send|[0-9a-f]{64}|.){0,20}") {
            let _ = list.parse::<ApiKeys>();
        }
    }
}
