//! The domain of spin-otp, with no I/O, no HTTP and no Spin.
//!
//! [`OtpService`] is what can be done with a code: make it, give it again, replace it, check it, and erase what is known
//! of a recipient. What may happen is decided by pure functions: from an [`Account`] and a request to a [`Decision`]
//! ([`Case`]). The service loads what they go by and commits what they come to, again if somebody was quicker. What it
//! needs from outside stands in [`ports`]: a database that stores, compares and counts, a cache that may fail at any
//! time, a clock, a source of random bytes. The values are types that are right by construction: [`MobileNumber`],
//! [`EmailAddress`], [`Channel`], [`Code`], [`OtpId`].

mod account;
#[cfg(test)]
mod against_the_oracle;
mod caller;
mod code;
mod decision;
mod destinations;
mod email;
mod erase;
mod generate;
mod guard;
mod kept_answer;
mod meter;
mod number;
mod otp_id;
mod out_of_range;
mod policy;
pub mod ports;
mod random;
mod recipient;
mod refusal;
mod resend;
mod revision;
mod send;
mod send_limit;
mod service;
mod typed;
mod unavailable;
mod verify;

pub use account::{Account, AccountCode, Owner};
pub use caller::{Caller, Idempotency};
pub use code::{Code, CodeLength, InvalidCode};
pub use decision::{
    Answer, Case, Change, Charge, Counts, Decision, Draft, EventKind, IssuedCode, OtpEvent, Record, Verified,
};
pub use destinations::{Destinations, InvalidPrefix, NotServed};
pub use email::{EmailAddress, InvalidEmail};
pub use guard::{Guard, GuardSettings, Judgement, Tally};
pub use meter::{InvalidMeterLimit, Meter, MeterLimit};
pub use number::{
    InvalidMobileNumber, MobileNumber, NumberType, NumberTypes, Region, UnknownNumberType, UnknownRegion,
};
pub use otp_id::OtpId;
pub use otp_terms::{Breaker, Channel, InvalidChannel, Timestamp};
pub use out_of_range::OutOfRange;
pub use policy::{CodeLife, LockTime, MaxAttempts, MaxFailures, Policy};
pub use recipient::{Delivery, Recipient};
pub use refusal::Refusal;
pub use revision::Revision;
pub use send_limit::{Quota, SendLimit, SendWindow};
pub use service::{DECOYS, OtpService, Outcome};
pub use verify::Attempt;
