//! Giving a code again.

use crate::{
    number::MobileNumber,
    ports::{Cache, CachedCode, Clock, Database, Random, StoredCode},
    service::{IssuedCode, OtpError, OtpService},
    timestamp::Timestamp,
};

impl<D: Database, C: Cache, E: Clock + Random> OtpService<'_, D, C, E> {
    /// Gives the same code again while it lives. Its life does not get longer.
    ///
    /// The code comes from the cache if the database confirms, in its one statement, that the cached
    /// version is the live one; else from the database itself. So no order of concurrent requests, and
    /// no cache that was restored from yesterday, can give out a code that was replaced.
    pub async fn resend(&self, number: &MobileNumber) -> Result<IssuedCode, OtpError> {
        let index = self.index.number(number.as_str());
        let cached = self.cache.get(&index).await;
        let version = cached.as_ref().map(|cached| cached.version);
        let mut stored = self.database.find(number, version).await?.ok_or(OtpError::NotFound)?;
        let now = self.environment.now();
        self.must_be_live(&stored, now)?;

        let confirmed = cached.filter(|_| stored.sealed.is_none());
        let code = match confirmed.and_then(|cached| self.open(&cached.sealed, &stored.otp_id, number)) {
            Some(code) => code,
            None => {
                if stored.sealed.is_none() {
                    // What is cached under the right version does not open: it is damaged.
                    self.cache.forget(index.clone(), stored.version);
                    stored = self.database.find(number, None).await?.ok_or(OtpError::NotFound)?;
                    self.must_be_live(&stored, now)?;
                }
                let sealed = stored.sealed.take().ok_or(OtpError::Expired)?;
                let code = self.open(&sealed, &stored.otp_id, number).ok_or(OtpError::Expired)?;
                self.cache.put(index, CachedCode { version: stored.version, sealed }, stored.expires_at);
                code
            }
        };
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
