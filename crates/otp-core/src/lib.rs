//! The domain of spin-otp, with no I/O, no HTTP and no Spin.
//!
//! [`OtpService`] is the four things that can be done with a code: make it, give it again, replace it
//! and check it. What it needs from outside stands in [`ports`]: a database that does each of its
//! operations atomically, a cache that may fail at any time, a clock, a source of random bytes. The values are types that are right by
//! construction: [`MobileNumber`], [`EmailAddress`], [`Channel`], [`Code`], [`OtpId`].

mod admit;
mod caller;
mod code;
mod destinations;
mod email;
mod guard;
mod issue;
mod meter;
mod number;
mod otp_id;
mod otp_version;
mod out_of_range;
mod policy;
pub mod ports;
mod random;
mod recipient;
mod resend;
mod send_limit;
mod service;
mod verify;

pub use caller::{Caller, Idempotency};
pub use code::{Code, CodeLength, InvalidCode};
pub use destinations::{Destinations, InvalidPrefix, NotServed};
pub use email::{EmailAddress, InvalidEmail};
pub use guard::{Guard, GuardSettings, Judgement, Tally};
pub use meter::{InvalidMeterLimit, Meter, MeterLimit};
pub use number::{InvalidMobileNumber, MobileNumber, Region, UnknownRegion};
pub use otp_id::OtpId;
pub use otp_terms::{Breaker, Channel, InvalidChannel, Timestamp};
pub use otp_version::OtpVersion;
pub use out_of_range::OutOfRange;
pub use policy::{CodeLife, LockTime, MaxAttempts, MaxFailures, Policy};
pub use recipient::Recipient;
pub use send_limit::{Quota, SendLimit, SendWindow};
pub use service::{IssuedCode, OtpError, OtpService};
pub use verify::{Attempt, Verified};
