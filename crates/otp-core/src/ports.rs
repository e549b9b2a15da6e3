//! What the domain needs from outside.

use crate::{
    caller::Idempotency,
    meter::Meter,
    number::MobileNumber,
    otp_id::OtpId,
    otp_version::OtpVersion,
    policy::{MaxAttempts, Policy},
    recipient::Recipient,
};
use otp_seal::{CheckValue, NumberIndex};
use otp_terms::{Channel, Timestamp};

pub use crate::random::Random;

/// Tells the time.
pub trait Clock {
    /// This moment.
    fn now(&self) -> Timestamp;
}

/// The truth about users and codes.
///
/// What is accepted is on record: each operation that makes, gives or checks a code leaves the event that
/// says so in the very same step, for others to act on. So it does with the limits and with the answer to a
/// retry: they are looked at and written in that step.
///
/// Each operation is one atomic step of the database, so that concurrent requests of any number of
/// instances leave one truth. Nothing is answered before its step is committed.
pub trait Database {
    /// Writes a code for a number, in the place of any other, and creates or updates its user.
    /// A verified address is not overwritten: another one is pending.
    fn issue(
        &self,
        terms: &Terms<'_>,
        code: &NewCode<'_>,
        recipient: &Recipient,
    ) -> impl Future<Output = Result<Sent<OtpVersion>, Unavailable>>;

    /// Writes a code for a known number, in the place of any other, to the same channel and address.
    fn reissue(
        &self,
        terms: &Terms<'_>,
        code: &NewCode<'_>,
    ) -> impl Future<Output = Result<Sent<Reissued>, Unavailable>>;

    /// The newest code of a number, if it is live. Without the sealed code itself if that is the version which
    /// is `cached`: then the cache has it right.
    fn resend(
        &self,
        terms: &Terms<'_>,
        cached: Option<OtpVersion>,
    ) -> impl Future<Output = Result<Sent<StoredCode>, Unavailable>>;

    /// The newest code of a number, whatever has become of it, with the sealed code itself. Nothing is
    /// put on record.
    fn find(&self, number: &MobileNumber) -> impl Future<Output = Result<Option<StoredCode>, Unavailable>>;

    /// Judges a guess and writes down what follows from it: a right one uses the code up, a wrong one
    /// costs an attempt.
    fn check(&self, guess: &Guess<'_>) -> impl Future<Output = Result<Checked, Unavailable>>;

    /// What was answered to the request before, if this one is a retry.
    fn replay(
        &self,
        idempotency: &Idempotency,
        now: Timestamp,
        max_attempts: MaxAttempts,
    ) -> impl Future<Output = Result<Option<Replay>, Unavailable>>;

    /// Removes all that is known of a number, known or not, and puts that on record.
    fn erase(&self, number: &MobileNumber, now: Timestamp) -> impl Future<Output = Result<(), Unavailable>>;
}

/// Holds sealed codes close by, and counts. It may be empty, stale or away at any time: whatever it says, the
/// database has the last word on codes and on the limit of a number. So nothing here fails; a cache that is
/// away has nothing, counts nothing, and takes nothing.
pub trait Cache {
    /// What is known of a number, its code only if that is `wanted`, and whether its caller's meters let the
    /// request in.
    fn look(
        &self,
        number: &NumberIndex,
        wanted: bool,
        now: Timestamp,
        meters: &[Meter],
    ) -> impl Future<Output = (Look, Metered)>;

    /// Whether these meters let a request in; if so, it is counted on all of them.
    fn count(&self, meters: &[Meter]) -> impl Future<Output = Metered>;

    /// Takes back what was counted for a request that was refused after all. Returns at once.
    fn uncount(&self, meters: &[Meter]);

    /// Notes that a number is at its limit until then. Returns at once.
    fn limited(&self, number: NumberIndex, until: Timestamp);

    /// Caches a code for the rest of its life, unless a newer one is cached. Returns at once; it is done
    /// after the answer, if at all.
    fn put(&self, number: NumberIndex, code: CachedCode, expires_at: Timestamp);

    /// Drops a dead code, unless a newer one is cached. Returns at once; it is done after the answer, if
    /// at all.
    fn forget(&self, number: NumberIndex, version: OtpVersion);

    /// Drops all that is known of a number, before the answer: what it said of the number is not true any more.
    fn erase(&self, number: NumberIndex) -> impl Future<Output = ()>;
}

/// What the cache knows of a number.
#[derive(Debug, Default)]
pub struct Look {
    /// Its code.
    pub cached: Option<CachedCode>,
    /// Until when it is at its limit, as the database has said.
    pub limited_until: Option<Timestamp>,
}

/// Whether a request is let in.
#[derive(Debug, Default)]
pub enum Metered {
    /// It is, and was counted.
    Counted,
    /// It is not: a meter is full.
    Full(Full),
    /// Nobody knows here: it is for the database to count.
    #[default]
    Unknown,
}

/// A meter that lets nobody in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Full {
    /// Which one.
    pub name: String,
    /// When it lets a request in again, in microseconds since the Unix epoch.
    pub free_at: i64,
}

/// A code as the cache holds it. Everything else about it is asked of the database anyway.
#[derive(Debug)]
pub struct CachedCode {
    /// Which code of the number it is.
    pub version: OtpVersion,
    /// The code, sealed.
    pub sealed: Vec<u8>,
}

/// The database did not do it in time, or at all. A write may have happened all the same.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(
    /// The reason, for the log.
    pub String,
);

/// A code on its way into the database.
#[derive(Debug)]
pub struct NewCode<'a> {
    /// Whose it is.
    pub number: &'a MobileNumber,
    /// Its id.
    pub otp_id: &'a OtpId,
    /// The code, sealed for purpose `code`, this id and this number.
    pub sealed: Vec<u8>,
    /// What a right guess is compared with.
    pub check: CheckValue,
    /// When it was made. Also the least value of its version.
    pub created_at: Timestamp,
    /// When it dies.
    pub expires_at: Timestamp,
}

/// Under which terms a number is sent a code.
#[derive(Debug)]
pub struct Terms<'a> {
    /// Whose code.
    pub number: &'a MobileNumber,
    /// The moment.
    pub now: Timestamp,
    /// What the operator has set.
    pub policy: &'a Policy,
    /// Meters that the cache has not counted.
    pub meters: &'a [Meter],
    /// How a retry is known.
    pub idempotency: Option<&'a Idempotency>,
}

/// Whether a number is sent a code.
#[derive(Debug)]
pub enum Sent<T> {
    /// It is.
    Done {
        /// What there is to know.
        value: T,
        /// When it was sent codes within the window, oldest first, this one included.
        sends: Vec<Timestamp>,
    },
    /// It is not, and nothing was counted.
    Refused(Refusal),
}

/// Why a number is not sent a code.
#[derive(Debug)]
pub enum Refusal {
    /// Nothing is known of it.
    NotFound,
    /// The code was used.
    Used,
    /// The code's life is over.
    Expired,
    /// Too many wrong values of the code were tried.
    Locked,
    /// Too many wrong values of its codes were tried, in a row.
    NumberLocked {
        /// When that is forgotten.
        until: Timestamp,
    },
    /// It was sent as many codes as it may be.
    Limited {
        /// When, oldest first.
        sends: Vec<Timestamp>,
    },
    /// Its range is suspended.
    Suspended {
        /// The end.
        until: Timestamp,
    },
    /// A meter of the caller's is full.
    Full(Full),
    /// The request was answered before.
    Replay(Replay),
}

/// What was answered before.
#[derive(Debug)]
pub struct Replay {
    /// Whether it was the same that was asked for.
    pub same_request: bool,
    /// Whether its code is still live.
    pub live: bool,
    /// The code's id.
    pub otp_id: OtpId,
    /// The code, sealed.
    pub sealed: Vec<u8>,
    /// How it was delivered.
    pub channel: Channel,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it dies.
    pub expires_at: Timestamp,
}

/// What the database knew of a code that it has replaced.
#[derive(Debug)]
pub struct Reissued {
    /// The new code's version.
    pub version: OtpVersion,
    /// How the code is delivered, as the one before.
    pub channel: Channel,
}

/// A code as the database holds it.
#[derive(Debug)]
pub struct StoredCode {
    /// Its id.
    pub otp_id: OtpId,
    /// Which code of the number it is.
    pub version: OtpVersion,
    /// The code, sealed, unless this version is cached.
    pub sealed: Option<Vec<u8>>,
    /// How it is delivered.
    pub channel: Channel,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it dies.
    pub expires_at: Timestamp,
    /// Wrong values that were compared with it.
    pub attempts: i64,
    /// When it was used up.
    pub used_at: Option<Timestamp>,
}

/// A guess at the code of a number.
#[derive(Debug)]
pub struct Guess<'a> {
    /// Whose code.
    pub number: &'a MobileNumber,
    /// Only this code will do, if given.
    pub otp_id: Option<&'a OtpId>,
    /// The check value of the guessed code.
    pub check: CheckValue,
    /// The moment at which the code has to be live.
    pub now: Timestamp,
    /// What the operator has set.
    pub policy: &'a Policy,
    /// Meters that the cache has not counted.
    pub meters: &'a [Meter],
}

/// Whether a guess was looked at.
#[derive(Debug)]
pub enum Checked {
    /// It was.
    Judged(Judged),
    /// There is no such code.
    NotFound,
    /// Too many wrong values of the number's codes were tried, in a row.
    NumberLocked {
        /// When that is forgotten.
        until: Timestamp,
    },
    /// A meter of the caller's is full.
    Full(Full),
}

/// What became of a guess.
#[derive(Debug)]
pub struct Judged {
    /// The judgement.
    pub verdict: Verdict,
    /// Whether the number is locked now: it was this guess that did it.
    pub locked: bool,
    /// Wrong values that were compared with this code, this one included.
    pub attempts: i64,
    /// The code's id.
    pub otp_id: OtpId,
    /// Which code of the number it is.
    pub version: OtpVersion,
    /// How it was delivered.
    pub channel: Channel,
}

/// How a guess at a known code is judged, in the order in which the conditions are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was right before, once.
    Used,
    /// Its life is over.
    Expired,
    /// Too many wrong values were compared; this one was not.
    Locked,
    /// Wrong, and counted.
    Wrong,
    /// Right, and used up by this very guess.
    Right,
}

impl std::str::FromStr for Verdict {
    type Err = Unavailable;

    /// Reads the word that the database's statement writes.
    fn from_str(word: &str) -> Result<Self, Unavailable> {
        Ok(match word {
            "used" => Self::Used,
            "expired" => Self::Expired,
            "locked" => Self::Locked,
            "wrong" => Self::Wrong,
            "right" => Self::Right,
            _ => return Err(Unavailable("the database gave an unknown verdict".to_owned())),
        })
    }
}
