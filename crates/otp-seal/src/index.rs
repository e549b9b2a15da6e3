//! The keyed index of a number, and the check value of a code.

use crate::key::{self, KeyBytes, KeyError};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Identifies a number without showing it: cache key, Kafka key, subject of an event, logs.
/// 128 bits of HMAC-SHA-256 in 32 hexadecimal digits; not to be reversed by trying all numbers
/// without the key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NumberIndex(String);

impl std::fmt::Display for NumberIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Stands for something of a request that is compared or counted and need not be known: a client's address,
/// an Idempotency-Key, what was asked for. 32 hexadecimal digits, as a [`NumberIndex`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Stands for a code in the database, so that the database itself can compare it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CheckValue([u8; 32]);

impl CheckValue {
    /// The bytes to store or to compare with what is stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for CheckValue {
    /// Nothing of it: with the key, a million tries turn it into the code.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CheckValue")
    }
}

/// The key behind [`NumberIndex`] and [`CheckValue`]. It does not rotate.
pub struct IndexKey {
    /// The keyed state rather than the key: it saves two of the four hash blocks of each HMAC.
    mac: Hmac<Sha256>,
}

impl IndexKey {
    /// Reads 32 bytes in base64.
    pub fn parse(base64: &str) -> Result<Self, KeyError> {
        key::parse(base64.trim()).map(|key| Self::new(&key))
    }

    /// The public key for development. It protects nothing: everyone who reads this has it.
    pub fn development() -> Self {
        Self::new(&KeyBytes::new(*b"spin-otp public development idx."))
    }

    fn new(key: &KeyBytes) -> Self {
        Self { mac: Hmac::new_from_slice(&**key).expect("HMAC takes keys of any length") }
    }

    /// The keyed index of a number in E.164.
    pub fn number(&self, number: &str) -> NumberIndex {
        NumberIndex(half(&self.tag("number", &[number.as_bytes()])))
    }

    /// The fingerprint of `fields` for one `usage`; those of other usages are others.
    pub fn fingerprint(&self, usage: &str, fields: &[&str]) -> Fingerprint {
        let fields: Vec<_> = fields.iter().map(|field| field.as_bytes()).collect();
        // No usage reads as one of the other uses of this key.
        Fingerprint(half(&self.tag(&format!("fingerprint of {usage}"), &fields)))
    }

    /// Whether this is the public key for development.
    pub fn is_development(&self) -> bool {
        self.number("").0 == Self::development().number("").0
    }

    /// The check value of `code`, good for this number only. It does not depend on the code's id, for
    /// a check need not name one, and the database shall compare without being asked for it first.
    pub fn check(&self, number: &str, code: &[u8]) -> CheckValue {
        CheckValue(self.tag("check", &[number.as_bytes(), code]))
    }

    /// HMAC-SHA-256 (RFC 2104) over the use and the fields, each with its length in front, so that no
    /// two inputs read the same.
    fn tag(&self, usage: &str, fields: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.mac.clone();
        for field in std::iter::once(&usage.as_bytes()).chain(fields) {
            mac.update(&(field.len() as u64).to_be_bytes());
            mac.update(field);
        }
        mac.finalize().into_bytes().into()
    }
}

/// The first 128 bits, in hexadecimal.
fn half(tag: &[u8; 32]) -> String {
    use std::fmt::Write;
    tag[..16].iter().fold(String::with_capacity(32), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes whatever is written");
        text
    })
}

impl std::fmt::Debug for IndexKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IndexKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    #[test]
    fn the_index_is_the_hmac_that_another_language_would_compute() {
        // printf '\0\0\0\0\0\0\0\6number\0\0\0\0\0\0\0\14+14155550123' |
        //   openssl dgst -sha256 -mac HMAC -macopt hexkey:000102…1f
        let index = IndexKey::parse(KEY).unwrap().number("+14155550123");
        assert_eq!(index.to_string(), "9eeec548fe31b7e38fcb0f946ea5c649");
    }

    proptest! {
        #[test]
        fn numbers_and_codes_apart_have_values_apart(
            a in "\\+[0-9]{7,15}", b in "\\+[0-9]{7,15}", code in "[0-9]{4,10}",
        ) {
            prop_assume!(a != b);
            let key = IndexKey::parse(KEY).unwrap();
            prop_assert_ne!(key.number(&a), key.number(&b));
            prop_assert_ne!(key.check(&a, code.as_bytes()), key.check(&b, code.as_bytes()));
            prop_assert_ne!(key.check(&a, code.as_bytes()), key.check(&a, &code.as_bytes()[1..]));
            prop_assert_eq!(key.check(&a, code.as_bytes()), key.check(&a, code.as_bytes()));
        }
    }

    #[test]
    fn fingerprints_differ_by_usage_and_by_where_fields_end() {
        let key = IndexKey::parse(KEY).unwrap();
        let all = [
            key.fingerprint("client", &["ab", "c"]),
            key.fingerprint("client", &["a", "bc"]),
            key.fingerprint("client", &["abc"]),
            key.fingerprint("request", &["abc"]),
            IndexKey::development().fingerprint("client", &["abc"]),
        ];
        let different: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
        assert_eq!(key.fingerprint("client", &["abc"]), all[2]);
        assert_eq!(all[0].as_str().len(), 32);
    }

    #[test]
    fn the_development_key_is_known_as_such() {
        assert!(IndexKey::development().is_development());
        assert!(!IndexKey::parse(KEY).unwrap().is_development());
    }

    #[test]
    fn another_key_makes_another_index() {
        let one = IndexKey::parse(KEY).unwrap();
        assert_ne!(one.number("+14155550123"), IndexKey::development().number("+14155550123"));
    }

    #[test]
    fn a_key_of_another_length_is_refused() {
        for bad in ["", "AAEC", "not base64", &format!("{KEY}AAAA")] {
            assert_eq!(IndexKey::parse(bad).unwrap_err(), KeyError::Key, "{bad}");
        }
    }

    #[test]
    fn nothing_secret_is_printable() {
        let key = IndexKey::parse(KEY).unwrap();
        assert_eq!(format!("{key:?} {:?}", key.check("+1", b"042137")), "IndexKey CheckValue");
    }
}
