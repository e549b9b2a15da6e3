//! Sealing a code for storage and transit, and opening it again.

use crate::key::{self, KeyBytes, KeyError};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use zeroize::Zeroizing;

/// Length of the nonce that [`KeyRing::seal`] takes, in bytes. 192 bits: drawn at random, they do not
/// repeat in practice, so no counter has to be kept (draft-irtf-cfrg-xchacha-03, section 2.1).
pub const NONCE_BYTES: usize = 24;

/// Format of the sealed bytes: this one, the id's length, the id, the nonce, ciphertext and tag.
const FORMAT: u8 = 1;

/// What a sealed code belongs to. It is authenticated, not stored: a sealed code that was moved to
/// another number, another code or another use does not open.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// What the sealed bytes are for, such as `code`.
    pub purpose: &'a str,
    /// The code's id.
    pub otp_id: &'a str,
    /// The number in E.164.
    pub number: &'a str,
}

impl Context<'_> {
    /// Each field with its length in front, so that no two contexts read the same.
    fn associated_data(&self) -> Vec<u8> {
        let mut data = Vec::with_capacity(96);
        for field in [self.purpose, self.otp_id, self.number] {
            data.extend_from_slice(&(field.len() as u64).to_be_bytes());
            data.extend_from_slice(field.as_bytes());
        }
        data
    }
}

/// Why sealed bytes do not open.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum OpenError {
    /// Sealed with a key that is no longer configured. Whatever it was has outlived its key.
    #[error("sealed with a key that is not configured")]
    UnknownKey,
    /// Not the form that [`KeyRing::seal`] writes.
    #[error("not a sealed value")]
    Malformed,
    /// Changed since it was sealed, or sealed for another [`Context`].
    #[error("changed, or sealed for something else")]
    Refused,
}

/// The encryption keys, in the order of the configuration: the first seals, all open.
pub struct KeyRing {
    /// A list and not a map: there are one to three, and the order has a meaning.
    keys: Vec<(String, KeyBytes)>,
}

impl KeyRing {
    /// Reads `id:base64,id:base64`, each key 32 bytes. An id is 1 to 32 of `a-z A-Z 0-9 - _`.
    pub fn parse(list: &str) -> Result<Self, KeyError> {
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
            keys.push((id.to_owned(), key::parse(base64)?));
        }
        if keys.is_empty() { Err(KeyError::Empty) } else { Ok(Self { keys }) }
    }

    /// The public key for development. It protects nothing: everyone who reads this has it.
    pub fn development() -> Self {
        Self { keys: vec![("dev".to_owned(), KeyBytes::new(*b"spin-otp public development key."))] }
    }

    /// Whether the public key for development is among them: whoever has it opens what it sealed.
    pub fn has_development_key(&self) -> bool {
        let public = Self::development();
        self.keys.iter().any(|(_, key)| public.keys.iter().any(|(_, other)| **key == **other))
    }

    /// Seals `plain` for `context` with the first key.
    ///
    /// `nonce` comes from a CSPRNG and is used once.
    pub fn seal(&self, plain: &[u8], context: &Context<'_>, nonce: [u8; NONCE_BYTES]) -> Vec<u8> {
        let (id, key) = &self.keys[0];
        let ciphertext = cipher(key)
            .encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: &context.associated_data() })
            .expect("a message of a few bytes is within the cipher's limit of 256 GiB");
        let mut sealed = Vec::with_capacity(2 + id.len() + NONCE_BYTES + ciphertext.len());
        sealed.push(FORMAT);
        sealed.push(id.len() as u8);
        sealed.extend_from_slice(id.as_bytes());
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&ciphertext);
        sealed
    }

    /// Opens what [`seal`](Self::seal) made for the same `context`, with whichever key it names.
    /// What comes out is wiped from memory when dropped.
    pub fn open(&self, sealed: &[u8], context: &Context<'_>) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let [FORMAT, length, rest @ ..] = sealed else { return Err(OpenError::Malformed) };
        let (id, rest) = rest.split_at_checked(usize::from(*length)).ok_or(OpenError::Malformed)?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(OpenError::Malformed)?;
        let (_, key) =
            self.keys.iter().find(|(known, _)| known.as_bytes() == id).ok_or(OpenError::UnknownKey)?;
        cipher(key)
            .decrypt(&XNonce::from(*nonce), Payload { msg: ciphertext, aad: &context.associated_data() })
            .map(Zeroizing::new)
            .map_err(|_| OpenError::Refused)
    }
}

impl std::fmt::Debug for KeyRing {
    /// The ids, never the keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|(id, _)| id)).finish()
    }
}

fn cipher(key: &KeyBytes) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new((&**key).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OLD: &str = "old:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const NEW: &str = "new:Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";
    const NONCE: [u8; NONCE_BYTES] = [9; NONCE_BYTES];

    fn context<'a>(purpose: &'a str, otp_id: &'a str, number: &'a str) -> Context<'a> {
        Context { purpose, otp_id, number }
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_to_the_same(
            plain in prop::collection::vec(any::<u8>(), 0..64),
            nonce in prop::array::uniform24(any::<u8>()),
            otp_id in ".{0,40}",
            number in "\\+[0-9]{7,15}",
        ) {
            let keys = KeyRing::parse(OLD).unwrap();
            let context = context("code", &otp_id, &number);
            prop_assert_eq!(&*keys.open(&keys.seal(&plain, &context, nonce), &context).unwrap(), &plain);
        }

        #[test]
        fn a_changed_byte_anywhere_is_refused(position in 0usize..200, flip in 1u8..) {
            let keys = KeyRing::parse(OLD).unwrap();
            let context = context("code", "id", "+14155550123");
            let mut sealed = keys.seal(b"042137", &context, NONCE);
            let position = position % sealed.len();
            sealed[position] ^= flip;
            prop_assert!(keys.open(&sealed, &context).is_err());
        }

        #[test]
        fn a_cut_off_value_is_refused(length in 0usize..200) {
            let keys = KeyRing::parse(OLD).unwrap();
            let context = context("code", "id", "+14155550123");
            let sealed = keys.seal(b"042137", &context, NONCE);
            prop_assert!(keys.open(&sealed[..length % sealed.len()], &context).is_err());
        }

        #[test]
        fn bytes_of_any_kind_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..128)) {
            let keys = KeyRing::parse(OLD).unwrap();
            prop_assert!(keys.open(&bytes, &context("code", "id", "+14155550123")).is_err());
        }
    }

    #[test]
    fn the_development_key_is_known_under_any_id() {
        assert!(KeyRing::development().has_development_key());
        assert!(!KeyRing::parse(OLD).unwrap().has_development_key());
        // base64 of the key's 32 characters
        let disguised = format!("{OLD},mine:c3Bpbi1vdHAgcHVibGljIGRldmVsb3BtZW50IGtleS4=");
        assert!(KeyRing::parse(&disguised).unwrap().has_development_key());
    }

    #[test]
    fn another_context_is_refused() {
        let keys = KeyRing::parse(OLD).unwrap();
        let sealed = keys.seal(b"042137", &context("code", "id", "+14155550123"), NONCE);
        for other in [
            context("event", "id", "+14155550123"),
            context("code", "id2", "+14155550123"),
            context("code", "id", "+14155550124"),
            // The same bytes in a row, cut elsewhere: lengths in front tell them apart.
            context("code", "id+1", "4155550123"),
            context("codei", "d", "+14155550123"),
        ] {
            assert_eq!(keys.open(&sealed, &other), Err(OpenError::Refused), "{other:?}");
        }
    }

    #[test]
    fn rotation_opens_what_the_old_key_sealed_until_it_is_taken_away() {
        let context = context("code", "id", "+14155550123");
        let before = KeyRing::parse(OLD).unwrap();
        let added = KeyRing::parse(&format!("{OLD},{NEW}")).unwrap();
        let first = KeyRing::parse(&format!("{NEW}, {OLD}")).unwrap();
        let after = KeyRing::parse(NEW).unwrap();

        let with_old = before.seal(b"042137", &context, NONCE);
        assert_eq!(added.seal(b"042137", &context, NONCE), with_old, "the first key seals");
        assert_eq!(**first.open(&with_old, &context).unwrap(), *b"042137");
        let with_new = first.seal(b"042137", &context, NONCE);
        assert_eq!(**added.open(&with_new, &context).unwrap(), *b"042137");
        assert_eq!(**after.open(&with_new, &context).unwrap(), *b"042137");
        assert_eq!(after.open(&with_old, &context), Err(OpenError::UnknownKey));
    }

    #[test]
    fn the_sealed_value_shows_neither_code_nor_key() {
        let keys = KeyRing::parse(OLD).unwrap();
        let sealed = keys.seal(b"0421370421", &context("code", "id", "+14155550123"), NONCE);
        assert!(!sealed.windows(10).any(|window| window == b"0421370421"));
        assert_eq!(format!("{keys:?}"), "[\"old\"]");
    }

    #[test]
    fn what_is_wrong_with_keys_is_said_without_repeating_them() {
        let key = &OLD[4..];
        for (list, error) in [
            (String::new(), KeyError::Empty),
            (" , ".to_owned(), KeyError::Empty),
            (key.to_owned(), KeyError::Form(1)),
            (format!("a:{key},{key}"), KeyError::Form(2)),
            (format!(":{key}"), KeyError::Id(1)),
            (format!("a b:{key}"), KeyError::Id(1)),
            (format!("{}:{key}", "x".repeat(33)), KeyError::Id(1)),
            (format!("a:{key},a:{key}"), KeyError::DuplicateId("a".to_owned())),
            ("a:AAEC".to_owned(), KeyError::Key),
            (format!("a:{key}AAAA"), KeyError::Key),
            ("a:not base64".to_owned(), KeyError::Key),
        ] {
            let found = KeyRing::parse(&list).unwrap_err();
            assert_eq!(found, error, "{list}");
            assert!(!found.to_string().contains(key));
        }
    }
}
