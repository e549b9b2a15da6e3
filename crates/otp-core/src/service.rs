//! What can be done, and what the calls share.

use crate::{
    code::Code,
    number::MobileNumber,
    otp_id::OtpId,
    policy::Policy,
    ports::{Cache, Clock, Database, Random, Unavailable},
    send_limit::Quota,
};
use otp_seal::{Context, IndexKey, KeyRing};
use otp_terms::{Channel, Timestamp};

/// The service: [`generate`](Self::generate), [`resend`](Self::resend),
/// [`regenerate`](Self::regenerate) and [`verify`](Self::verify).
///
/// It borrows what it works with and holds no state of its own, so it can be made anew for each request.
#[derive(Debug, Clone, Copy)]
pub struct OtpService<'a, D, C, E> {
    /// The truth.
    pub database: &'a D,
    /// A quicker place to look.
    pub cache: &'a C,
    /// Clock and randomness.
    pub environment: &'a E,
    /// Seal codes.
    pub keys: &'a KeyRing,
    /// Makes check values and the cache's keys.
    pub index: &'a IndexKey,
    /// What the operator has set.
    pub policy: &'a Policy,
}

/// A code that may be told to its requester.
#[derive(Debug)]
pub struct IssuedCode {
    /// The code; `None` for the retry of a request whose code is not live any more.
    pub code: Option<Code>,
    /// Its id.
    pub otp_id: OtpId,
    /// How it is delivered.
    pub channel: Channel,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it dies.
    pub expires_at: Timestamp,
    /// Whole seconds that it had left when it was given.
    pub expires_in_seconds: i64,
    /// What is left of the number's limit; `None` where there is none, or nothing was counted.
    pub quota: Option<Quota>,
    /// Whether this was answered before, and nothing was done now.
    pub replayed: bool,
}

/// Why a call was refused.
#[derive(Debug, thiserror::Error)]
pub enum OtpError {
    /// The number, or the code that the request names, is not known.
    #[error("no code is known for this number")]
    NotFound,
    /// The code's life is over, or it cannot be opened any more.
    #[error("the code has expired")]
    Expired,
    /// The code was verified already.
    #[error("the code was used already")]
    Used,
    /// Too many wrong values: the code is not given out again.
    #[error("the code is locked after too many wrong attempts")]
    Locked,
    /// Too many wrong values: nothing is compared any more.
    #[error("the attempts at this code are used up")]
    AttemptsExceeded,
    /// Not this code.
    #[error("this is not the code")]
    Mismatch {
        /// Wrong values that may still be tried.
        attempts_remaining: i64,
    },
    /// A limit is used up.
    #[error("a limit is used up")]
    RateLimited(Quota),
    /// Too many wrong values of the number's codes, in a row.
    #[error("the number is locked")]
    NumberLocked {
        /// Whole seconds until it is not.
        retry_after: i64,
    },
    /// Nothing is sent to the number's range for now.
    #[error("the range of the number is suspended")]
    Suspended {
        /// Whole seconds until it is not.
        retry_after: i64,
    },
    /// The Idempotency-Key was used for something else.
    #[error("the Idempotency-Key was used for another request")]
    KeyReused,
    /// The database could not be asked.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl<D: Database, C: Cache, E: Clock> OtpService<'_, D, C, E> {
    /// Removes all that is known of `number`, known or not.
    pub async fn erase(&self, number: &MobileNumber) -> Result<(), OtpError> {
        self.database.erase(number, self.environment.now()).await?;
        self.cache.erase(self.index.number(number.as_str())).await;
        Ok(())
    }
}

impl<D, C, E: Clock + Random> OtpService<'_, D, C, E> {
    pub(crate) fn seal(&self, code: &Code, otp_id: &OtpId, number: &MobileNumber) -> Vec<u8> {
        let mut nonce = [0; otp_seal::NONCE_BYTES];
        self.environment.fill(&mut nonce);
        self.keys.seal(code.expose().as_bytes(), &context(otp_id, number), nonce)
    }

    /// `None` for what does not open: its key is gone, so whatever it was has outlived its life.
    pub(crate) fn open(&self, sealed: &[u8], otp_id: &OtpId, number: &MobileNumber) -> Option<Code> {
        self.keys.open(sealed, &context(otp_id, number)).ok().and_then(Code::from_opened)
    }
}

fn context<'a>(otp_id: &'a OtpId, number: &'a MobileNumber) -> Context<'a> {
    Context { purpose: otp_seal::CODE, otp_id: otp_id.as_str(), number: number.as_str() }
}
