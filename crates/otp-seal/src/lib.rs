//! What keys do in spin-otp, and nothing else: no I/O, no clock, no randomness of its own.
//!
//! * [`KeyRing`] seals a code so that it can be given again, and opens it (XChaCha20-Poly1305).
//!   Its keys rotate.
//! * [`IndexKey`] makes the keyed index of a recipient and the check value of a code (HMAC-SHA-256).
//!   It does not rotate: a new one would move every Kafka key and forget every code.
//! * [`EventKeys`] sign events and check their signatures (HMAC-SHA-256). They rotate.
//!
//! ```
//! use otp_seal::{Context, IndexKey, KeyRing};
//!
//! let keys = KeyRing::parse("k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")?;
//! let context = Context { purpose: "code", otp_id: "0198c7a4", recipient: "+14155550123", ..Context::default() };
//! let nonce = [7; otp_seal::NONCE_BYTES]; // from a CSPRNG, never used twice
//! let sealed = keys.seal(b"042137", &context, nonce);
//! assert_eq!(*keys.open(&sealed, &context)?, *b"042137");
//!
//! let index = IndexKey::development();
//! assert_ne!(index.recipient("shop", "+14155550123"), index.recipient("bank", "+14155550123"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

/// The purpose for which a code is sealed, wherever it goes: [`Context::purpose`].
pub const CODE: &str = "code";

/// The purpose for which an account is sealed for the cache: [`Context::purpose`].
pub const ACCOUNT: &str = "account";

mod index;
mod key;
mod seal;
mod sign;

pub use index::{CheckValue, Fingerprint, IndexKey, RecipientIndex};
pub use key::{KEY_BYTES, KeyError};
pub use seal::{Context, KeyRing, NONCE_BYTES, OpenError};
pub use sign::{EventKeys, SignatureError};
