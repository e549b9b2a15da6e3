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

/// What a sealed value belongs to. It is authenticated, not stored: what was moved to another recipient, another
/// code, another delivery or another use does not open.
#[derive(Debug, Clone, Copy, Default)]
pub struct Context<'a> {
    /// What the sealed bytes are for, such as `code`.
    pub purpose: &'a str,
    /// Whose recipient it is.
    pub application: &'a str,
    /// The number in E.164, or the mail address.
    pub recipient: &'a str,
    /// How the code is delivered.
    pub channel: &'a str,
    /// The mail address that it is delivered to; empty where it goes to the number.
    pub address: &'a str,
    /// The code's id.
    pub otp_id: &'a str,
    /// The code's version.
    pub version: i64,
    /// When the code expires, in milliseconds since the Unix epoch.
    pub expires_at: i64,
}

impl Context<'_> {
    fn associated_data(&self) -> Vec<u8> {
        let Self { purpose, application, recipient, channel, address, otp_id, version, expires_at } = self;
        let (version, expires_at) = (version.to_be_bytes(), expires_at.to_be_bytes());
        let texts = [purpose, application, recipient, channel, address, otp_id].map(|text| text.as_bytes());
        let mut data = Vec::with_capacity(192);
        let fields = texts.into_iter().chain([version.as_slice(), expires_at.as_slice()]);
        key::framed(&fields.collect::<Vec<_>>(), |bytes| data.extend_from_slice(bytes));
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
        key::parse_list(list).map(|keys| Self { keys })
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

    fn context<'a>(purpose: &'a str, otp_id: &'a str, recipient: &'a str) -> Context<'a> {
        Context {
            purpose,
            otp_id,
            recipient,
            application: "shop",
            channel: "sms",
            address: "",
            version: 7,
            expires_at: 9,
        }
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
        let base = context("code", "id", "+14155550123");
        for other in [
            Context { purpose: "event", ..base },
            Context { application: "other", ..base },
            Context { recipient: "+14155550124", ..base },
            Context { channel: "email", ..base },
            Context { address: "ada@example.com", ..base },
            Context { otp_id: "id2", ..base },
            Context { version: 8, ..base },
            Context { expires_at: 10, ..base },
            // The same bytes in a row, cut elsewhere: lengths in front tell them apart.
            Context { channel: "sm", address: "s", ..base },
            Context { purpose: "codes", application: "hop", ..base },
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
