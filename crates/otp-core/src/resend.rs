//! Giving a code again.

use crate::{
    number::MobileNumber,
    ports::{Clock, Database, Random, StoredCode},
    service::{IssuedCode, OtpError, OtpService},
    timestamp::Timestamp,
};

impl<D: Database, E: Clock + Random> OtpService<'_, D, E> {
    /// Gives the same code again while it lives. Its life does not get longer.
    pub async fn resend(&self, number: &MobileNumber) -> Result<IssuedCode, OtpError> {
        let stored = self.database.find(number).await?.ok_or(OtpError::NotFound)?;
        let now = self.environment.now();
        self.must_be_live(&stored, now)?;
        let code = self.open(&stored.sealed, &stored.otp_id, number).ok_or(OtpError::Expired)?;
        Ok(IssuedCode {
            code,
            otp_id: stored.otp_id,
            channel: stored.channel,
            created_at: stored.created_at,
            expires_at: stored.expires_at,
            expires_in_seconds: now.seconds_until(stored.expires_at),
        })
    }

    /// In the order in which a check looks at the same conditions.
    fn must_be_live(&self, stored: &StoredCode, now: Timestamp) -> Result<(), OtpError> {
        if stored.used_at.is_some() {
            Err(OtpError::Used)
        } else if stored.expires_at <= now {
            Err(OtpError::Expired)
        } else if stored.attempts >= self.policy.max_attempts.get() {
            Err(OtpError::Locked)
        } else {
            Ok(())
        }
    }
}
