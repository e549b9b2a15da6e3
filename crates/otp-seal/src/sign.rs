//! Signing events, so that whoever can write them but has no key can have nothing done.

use crate::key::{self, KeyBytes, KeyError};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The keys that events are signed with, in the order of the configuration: the first signs, all check.
pub struct EventKeys {
    /// The keyed states rather than the keys: it saves two of the four hash blocks of each HMAC.
    keys: Vec<(String, Hmac<Sha256>)>,
}

/// Why a signature does not hold.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum SignatureError {
    /// There is none.
    #[error("it is not signed")]
    Missing,
    /// Made with a key that is not configured here.
    #[error("it is signed with a key that is not among the event keys")]
    UnknownKey,
    /// Not the signature of what it stands on.
    #[error("its signature does not hold: it was changed, or made by somebody without the key")]
    Refused,
}

impl EventKeys {
    /// Reads `id:base64,id:base64`, each key 32 bytes. An id is 1 to 32 of `a-z A-Z 0-9 - _`.
    pub fn parse(list: &str) -> Result<Self, KeyError> {
        let keys = key::parse_list(list)?;
        Ok(Self { keys: keys.into_iter().map(|(id, key)| (id, keyed(&key))).collect() })
    }

    /// The public key for development. It protects nothing: everyone who reads this has it.
    pub fn development() -> Self {
        Self { keys: vec![("dev".to_owned(), keyed(&KeyBytes::new(*b"spin-otp public development evt.")))] }
    }

    /// Whether the public key for development is among them.
    pub fn has_development_key(&self) -> bool {
        let public = mac(&Self::development().keys[0].1, &[]).finalize().into_bytes();
        self.keys.iter().any(|(_, key)| mac(key, &[]).finalize().into_bytes() == public)
    }

    /// Signs `fields` with the first key: its id, a colon, and HMAC-SHA-256 (RFC 2104) over the fields, each with
    /// its length in front as eight bytes, big-endian, in hexadecimal digits.
    pub fn sign(&self, fields: &[&[u8]]) -> String {
        use std::fmt::Write;
        let (id, key) = &self.keys[0];
        let mut signature = String::with_capacity(id.len() + 65);
        signature.push_str(id);
        signature.push(':');
        for byte in mac(key, fields).finalize().into_bytes() {
            write!(signature, "{byte:02x}").expect("a String takes whatever is written");
        }
        signature
    }

    /// Whether `signature` is one of these keys' over `fields`. Takes the same time whatever is different.
    pub fn check(&self, signature: Option<&str>, fields: &[&[u8]]) -> Result<(), SignatureError> {
        let (id, digits) =
            signature.ok_or(SignatureError::Missing)?.split_once(':').ok_or(SignatureError::Refused)?;
        let (_, key) = self.keys.iter().find(|(known, _)| known == id).ok_or(SignatureError::UnknownKey)?;
        let tag = bytes(digits).ok_or(SignatureError::Refused)?;
        mac(key, fields).verify_slice(&tag).map_err(|_| SignatureError::Refused)
    }
}

fn keyed(key: &KeyBytes) -> Hmac<Sha256> {
    Hmac::new_from_slice(&**key).expect("HMAC takes keys of any length")
}

fn mac(key: &Hmac<Sha256>, fields: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = key.clone();
    key::framed(fields, |bytes| mac.update(bytes));
    mac
}

/// 32 bytes from their hexadecimal digits.
fn bytes(digits: &str) -> Option<[u8; 32]> {
    let digits = digits.as_bytes();
    let mut bytes = [0; 32];
    if digits.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
    }
    Some(bytes)
}

impl std::fmt::Debug for EventKeys {
    /// The ids, never the keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|(id, _)| id)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OLD: &str = "old:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const NEW: &str = "new:Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";

    #[test]
    fn the_signature_is_the_hmac_that_another_language_would_compute() {
        // printf '\0\0\0\0\0\0\0\1a\0\0\0\0\0\0\0\2bc' | openssl dgst -sha256 -mac HMAC -macopt hexkey:000102…1f
        let signature = EventKeys::parse(OLD).unwrap().sign(&[b"a", b"bc"]);
        assert_eq!(signature, "old:3bddf4bc854ae05364f6353a7ec018de74fb1fe6bb599207f172368d9490b9dd");
    }

    #[test]
    fn a_signature_holds_for_what_was_signed_with_a_key_that_is_known() {
        let (old, both) =
            (EventKeys::parse(OLD).unwrap(), EventKeys::parse(&format!("{NEW},{OLD}")).unwrap());
        let signature = old.sign(&[b"a", b"b"]);
        assert_eq!(both.check(Some(&signature), &[b"a", b"b"]), Ok(()));
        assert!(both.sign(&[]).starts_with("new:"));
        assert_eq!(old.check(Some(&both.sign(&[b"a"])), &[b"a"]), Err(SignatureError::UnknownKey));
        assert_eq!(old.check(None, &[]), Err(SignatureError::Missing));
        let moved = signature.replace("old:", "new:");
        for (bad, fields) in [
            (&*signature, &[b"ab".as_slice(), b""]),
            (&signature, &[b"a", b"c"]),
            (&moved, &[b"a", b"b"]),
            (&signature[..signature.len() - 2], &[b"a", b"b"]),
            ("old:", &[b"a", b"b"]),
            ("nonsense", &[b"a", b"b"]),
        ] {
            assert_eq!(both.check(Some(bad), fields), Err(SignatureError::Refused), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn text_of_any_kind_is_refused(signature in ".{0,80}") {
            prop_assert!(EventKeys::development().check(Some(&signature), &[b"a"]).is_err());
        }
    }

    #[test]
    fn the_development_key_is_known_under_any_id() {
        assert!(EventKeys::development().has_development_key());
        assert!(!EventKeys::parse(OLD).unwrap().has_development_key());
        // base64 of the key's 32 characters
        let disguised = format!("{OLD},mine:c3Bpbi1vdHAgcHVibGljIGRldmVsb3BtZW50IGV2dC4=");
        assert!(EventKeys::parse(&disguised).unwrap().has_development_key());
        assert_eq!(format!("{:?}", EventKeys::parse(OLD).unwrap()), "[\"old\"]");
    }
}
