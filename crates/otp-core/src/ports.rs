//! What the domain needs from outside.

use crate::{
    channel::Channel, number::MobileNumber, otp_id::OtpId, otp_version::OtpVersion, policy::MaxAttempts,
    recipient::Recipient, timestamp::Timestamp,
};
use otp_seal::{CheckValue, NumberIndex};

pub use crate::random::Random;

/// Tells the time.
pub trait Clock {
    /// This moment.
    fn now(&self) -> Timestamp;
}

/// The truth about users and codes.
///
/// What is accepted is on record: each operation that makes, gives or checks a code leaves the event that
/// says so in the very same step, for others to act on.
///
/// Each operation is one atomic step of the database, so that concurrent requests of any number of
/// instances leave one truth. Nothing is answered before its step is committed.
pub trait Database {
    /// Writes a code for a number, in the place of any other, and creates or updates its user.
    /// A verified address is not overwritten: another one is pending.
    fn issue(
        &self,
        code: &NewCode<'_>,
        recipient: &Recipient,
    ) -> impl Future<Output = Result<OtpVersion, Unavailable>>;

    /// Writes a code for a known number, in the place of any other, to the same channel and address.
    /// `None`: the number is not known, and nothing was written.
    fn reissue(&self, code: &NewCode<'_>) -> impl Future<Output = Result<Option<Reissued>, Unavailable>>;

    /// The newest code of a number, whatever has become of it. Without the sealed code itself if that is
    /// the version which is cached: then the cache has it right. That a live one is given again is put on
    /// record.
    fn resend(&self, again: &Again<'_>) -> impl Future<Output = Result<Option<StoredCode>, Unavailable>>;

    /// The newest code of a number, whatever has become of it, with the sealed code itself. Nothing is
    /// put on record.
    fn find(&self, number: &MobileNumber) -> impl Future<Output = Result<Option<StoredCode>, Unavailable>>;

    /// Judges a guess and writes down what follows from it: a right one uses the code up, a wrong one
    /// costs an attempt. `None`: the number is not known.
    fn check(&self, guess: &Guess<'_>) -> impl Future<Output = Result<Option<Judged>, Unavailable>>;
}

/// Holds sealed codes close by. It may be empty, stale or away at any time: whatever it says, the
/// database has the last word. So nothing here fails; a cache that is away has nothing, and takes nothing.
pub trait Cache {
    /// What is cached for a number.
    fn get(&self, number: &NumberIndex) -> impl Future<Output = Option<CachedCode>>;

    /// Caches a code for the rest of its life, unless a newer one is cached. Returns at once; it is done
    /// after the answer, if at all.
    fn put(&self, number: NumberIndex, code: CachedCode, expires_at: Timestamp);

    /// Drops a dead code, unless a newer one is cached. Returns at once; it is done after the answer, if
    /// at all.
    fn forget(&self, number: NumberIndex, version: OtpVersion);
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

/// What the database knew of a code that it has replaced.
#[derive(Debug)]
pub struct Reissued {
    /// The new code's version.
    pub version: OtpVersion,
    /// How the code is delivered, as the one before.
    pub channel: Channel,
}

/// A wish for the code that there is.
#[derive(Debug)]
pub struct Again<'a> {
    /// Whose code.
    pub number: &'a MobileNumber,
    /// The version that is cached, if any.
    pub cached: Option<OtpVersion>,
    /// The moment at which the code has to be live.
    pub now: Timestamp,
    /// Wrong values that are compared at most; a code that has had them is not live.
    pub max_attempts: MaxAttempts,
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
    /// Wrong values that are compared at most.
    pub max_attempts: MaxAttempts,
}

/// What became of a guess.
#[derive(Debug)]
pub struct Judged {
    /// The judgement.
    pub verdict: Verdict,
    /// Wrong values that were compared with this code, this one included.
    pub attempts: i64,
    /// The code's id.
    pub otp_id: OtpId,
    /// Which code of the number it is.
    pub version: OtpVersion,
    /// How it was delivered.
    pub channel: Channel,
}

/// How a guess is judged, in the order in which the conditions are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// There is no such code.
    NotFound,
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
            "not_found" => Self::NotFound,
            "used" => Self::Used,
            "expired" => Self::Expired,
            "locked" => Self::Locked,
            "wrong" => Self::Wrong,
            "right" => Self::Right,
            _ => return Err(Unavailable("the database gave an unknown verdict".to_owned())),
        })
    }
}
