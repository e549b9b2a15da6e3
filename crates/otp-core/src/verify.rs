//! Checking a code.

use crate::{
    admit::full_meter,
    caller::Caller,
    code::Code,
    number::MobileNumber,
    otp_id::OtpId,
    ports::{Cache, Checked, Clock, Database, Guess, Metered, Random, Verdict},
    send_limit::seconds_rounded_up,
    service::{OtpError, OtpService},
};
use otp_terms::{Channel, Timestamp};

/// What a user typed, and for which code.
#[derive(Debug)]
pub struct Attempt {
    /// Whose code.
    pub number: MobileNumber,
    /// The guess.
    pub code: Code,
    /// Only this code will do, if given.
    pub otp_id: Option<OtpId>,
}

/// A code that was right, once and now.
#[derive(Debug)]
pub struct Verified {
    /// Its id.
    pub otp_id: OtpId,
    /// How it had been delivered.
    pub channel: Channel,
    /// When it was used up.
    pub verified_at: Timestamp,
}

impl<D: Database, C: Cache, E: Clock + Random> OtpService<'_, D, C, E> {
    /// Checks a code; a right one is used up. The database compares, in one atomic step, so of any
    /// number of right guesses at once one wins, and no more wrong ones are compared than allowed.
    pub async fn verify(&self, attempt: &Attempt, caller: &Caller) -> Result<Verified, OtpError> {
        let now = self.environment.now();
        let max_attempts = self.policy.max_attempts;
        let metered = self.cache.count(&caller.meters).await;
        let guess = Guess {
            number: &attempt.number,
            otp_id: attempt.otp_id.as_ref(),
            check: self.index.check(attempt.number.as_str(), attempt.code.expose().as_bytes()),
            now,
            policy: self.policy,
            meters: match &metered {
                Metered::Full(full) => return Err(full_meter(full, &caller.meters, now)),
                Metered::Counted => &[],
                Metered::Unknown => &caller.meters,
            },
        };
        let judged = match self.database.check(&guess).await? {
            Checked::Judged(judged) => judged,
            Checked::NotFound => return Err(OtpError::NotFound),
            Checked::Full(full) => return Err(full_meter(&full, &caller.meters, now)),
            Checked::NumberLocked { until } => {
                let retry_after = seconds_rounded_up(until.unix_millis() - now.unix_millis()).max(1);
                return Err(OtpError::NumberLocked { retry_after });
            }
        };
        let locked_by_this = judged.verdict == Verdict::Wrong && judged.attempts >= max_attempts.get();
        if judged.verdict == Verdict::Right || locked_by_this {
            self.cache.forget(self.index.number(attempt.number.as_str()), judged.version);
        }
        // Where all answers are alike, nothing is noted there of a number, and this one has to come as soon as any.
        if judged.locked && !self.policy.uniform {
            // Whatever is noted of the number there, it is locked first.
            self.cache.erase(self.index.number(attempt.number.as_str())).await;
        }
        match judged.verdict {
            Verdict::Right => {
                Ok(Verified { otp_id: judged.otp_id, channel: judged.channel, verified_at: now })
            }
            Verdict::Used => Err(OtpError::Used),
            Verdict::Expired => Err(OtpError::Expired),
            Verdict::Locked => Err(OtpError::AttemptsExceeded),
            Verdict::Wrong => {
                Err(OtpError::Mismatch { attempts_remaining: (max_attempts.get() - judged.attempts).max(0) })
            }
        }
    }
}
