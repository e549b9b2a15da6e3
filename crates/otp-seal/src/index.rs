//! The keyed index of a recipient, the check value of a code, and what else one key gives that does not rotate.

use crate::key::{self, KeyBytes, KeyError};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// Identifies a recipient of an application without showing it: cache key, Kafka key, subject of an event, logs.
/// 128 bits of HMAC-SHA-256 in 32 hexadecimal digits; not to be reversed by trying all numbers
/// without the key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RecipientIndex(String);

impl RecipientIndex {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for RecipientIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Stands for something of a request that is compared or counted and need not be known: a client's address,
/// an Idempotency-Key, what was asked for. 32 hexadecimal digits, as a [`RecipientIndex`].
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

/// Stands for a code where it is stored, to be compared with that of a guess.
#[derive(Clone, Copy)]
pub struct CheckValue([u8; 32]);

impl CheckValue {
    /// What was stored. `None` if that is no check value.
    pub fn from_stored(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes to store.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for CheckValue {
    /// Takes the same time whatever is different.
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for CheckValue {}

impl std::fmt::Debug for CheckValue {
    /// Nothing of it: with the key, a million tries turn it into the code.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CheckValue")
    }
}

/// The key behind [`RecipientIndex`], [`CheckValue`] and [`Fingerprint`]. It does not rotate, and is only the root from
/// which a subkey for each of them is derived (HKDF, RFC 5869, a label each).
pub struct IndexKey {
    // The keyed states rather than the keys: it saves two of the four hash blocks of each HMAC.
    recipients: Hmac<Sha256>,
    codes: Hmac<Sha256>,
    decoys: Hmac<Sha256>,
    fingerprints: Hmac<Sha256>,
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

    fn new(root: &KeyBytes) -> Self {
        let root = Hkdf::<Sha256>::new(None, &**root);
        let subkey = |label: &str| {
            let mut key = KeyBytes::new([0; key::KEY_BYTES]);
            root.expand(label.as_bytes(), key.as_mut_slice())
                .expect("32 bytes are one block of HKDF-SHA-256");
            Hmac::new_from_slice(&*key).expect("HMAC takes keys of any length")
        };
        Self {
            recipients: subkey("spin-otp recipient"),
            codes: subkey("spin-otp code"),
            decoys: subkey("spin-otp decoy"),
            fingerprints: subkey("spin-otp fingerprint"),
        }
    }

    /// The keyed index of a recipient: a number in E.164 or a mail address. It differs between applications.
    pub fn recipient(&self, application: &str, recipient: &str) -> RecipientIndex {
        RecipientIndex(half(&tag(&self.recipients, &[application, recipient])))
    }

    /// The fingerprint of `fields` for one `usage`; those of other usages are others.
    pub fn fingerprint(&self, usage: &str, fields: &[&str]) -> Fingerprint {
        let fields: Vec<_> = std::iter::once(&usage).chain(fields).copied().collect();
        Fingerprint(half(&tag(&self.fingerprints, &fields)))
    }

    /// Whether this is the public key for development.
    pub fn is_development(&self) -> bool {
        self.recipient("", "") == Self::development().recipient("", "")
    }

    /// The check value of a code, good for this code of this recipient only.
    pub fn check(&self, application: &str, otp_id: &str, recipient: &str, code: &str) -> CheckValue {
        CheckValue(tag(&self.codes, &[application, otp_id, recipient, code]))
    }

    /// Which one of `count` decoys stands for a recipient that is not known. Without the key, it cannot be told who
    /// shares one.
    pub fn decoy(&self, application: &str, recipient: &str, count: u32) -> u32 {
        let [a, b, c, d, ..] = tag(&self.decoys, &[application, recipient]);
        u32::from_be_bytes([a, b, c, d]) % count.max(1)
    }
}

/// HMAC-SHA-256 (RFC 2104) over the fields, each with its length in front.
fn tag(key: &Hmac<Sha256>, fields: &[&str]) -> [u8; 32] {
    let mut mac = key.clone();
    let fields: Vec<_> = fields.iter().map(|field| field.as_bytes()).collect();
    key::framed(&fields, |bytes| mac.update(bytes));
    mac.finalize().into_bytes().into()
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
        // openssl kdf -keylen 32 -kdfopt digest:SHA256 -kdfopt hexkey:000102…1f -kdfopt info:"spin-otp recipient" HKDF
        // printf '\0\0\0\0\0\0\0\7default\0\0\0\0\0\0\0\14+14155550123' |
        //   openssl dgst -sha256 -mac HMAC -macopt hexkey:…
        let index = IndexKey::parse(KEY).unwrap().recipient("default", "+14155550123");
        assert_eq!(index.to_string(), "9476f18dd1ef83f87583128cd5d4c331");
    }

    proptest! {
        #[test]
        fn recipients_applications_and_codes_apart_have_values_apart(
            a in "\\+[0-9]{7,15}", b in "\\+[0-9]{7,15}", code in "[0-9]{4,10}",
        ) {
            prop_assume!(a != b);
            let key = IndexKey::parse(KEY).unwrap();
            prop_assert_ne!(key.recipient("x", &a), key.recipient("x", &b));
            prop_assert_ne!(key.recipient("x", &a), key.recipient("y", &a));
            let check = |application: &str, id: &str, recipient: &str, code: &str| key.check(application, id, recipient, code);
            let one = check("x", "1", &a, &code);
            prop_assert_eq!(one, check("x", "1", &a, &code));
            prop_assert_eq!(CheckValue::from_stored(one.as_bytes()), Some(one));
            for other in [check("y", "1", &a, &code), check("x", "2", &a, &code), check("x", "1", &b, &code), check("x", "1", &a, &code[1..])] {
                prop_assert_ne!(one, other);
            }
            prop_assert!(key.decoy("x", &a, 64) < 64);
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
        assert_ne!(
            one.recipient("a", "+14155550123"),
            IndexKey::development().recipient("a", "+14155550123")
        );
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
        assert_eq!(format!("{key:?} {:?}", key.check("a", "1", "+1", "042137")), "IndexKey CheckValue");
    }
}
