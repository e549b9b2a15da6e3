//! Giving a code again.

use crate::{
    number::MobileNumber,
    ports::{Again, Cache, CachedCode, Clock, Database, Random, StoredCode},
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
        let again = Again {
            number,
            cached: cached.as_ref().map(|cached| cached.version),
            now: self.environment.now(),
            max_attempts: self.policy.max_attempts,
        };
        let mut stored = self.database.resend(&again).await?.ok_or(OtpError::NotFound)?;
        let mut now = self.environment.now();
        self.must_be_live(&stored, now)?;

        let confirmed = cached.filter(|_| stored.sealed.is_none());
        let code = match confirmed.and_then(|cached| self.open(&cached.sealed, &stored.otp_id, number)) {
            Some(code) => code,
            None => {
                if stored.sealed.is_none() {
                    // What is cached under the right version does not open: it is damaged.
                    self.cache.forget(index.clone(), stored.version);
                    stored = self.database.find(number).await?.ok_or(OtpError::NotFound)?;
                    now = self.environment.now();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        channel::Channel,
        otp_id::OtpId,
        otp_version::OtpVersion,
        policy::Policy,
        ports::{Guess, Judged, NewCode, Reissued, Unavailable},
        random::seeded::Seeded,
        recipient::Recipient,
    };
    use otp_seal::{Context, IndexKey, KeyRing, NumberIndex};
    use std::pin::pin;

    const NUMBER: &str = "+14155550123";
    const LIVE: OtpVersion = OtpVersion::from_stored(2);

    /// Holds one code, and gives it unless the caller has this version.
    struct OneRow;

    impl Database for OneRow {
        async fn issue(&self, _: &NewCode<'_>, _: &Recipient) -> Result<OtpVersion, Unavailable> {
            unreachable!("resend issues nothing")
        }

        async fn reissue(&self, _: &NewCode<'_>) -> Result<Option<Reissued>, Unavailable> {
            unreachable!("resend issues nothing")
        }

        async fn resend(&self, again: &Again<'_>) -> Result<Option<StoredCode>, Unavailable> {
            let stored = self.find(again.number).await?;
            let known = again.cached == Some(LIVE);
            Ok(stored.map(|stored| StoredCode { sealed: stored.sealed.filter(|_| !known), ..stored }))
        }

        async fn find(&self, _: &MobileNumber) -> Result<Option<StoredCode>, Unavailable> {
            Ok(Some(StoredCode {
                otp_id: OtpId::from_stored("id".to_owned()),
                version: LIVE,
                sealed: Some(sealed(b"222222")),
                channel: Channel::Sms,
                created_at: Timestamp::from_unix_millis(0),
                expires_at: Timestamp::from_unix_millis(600_000),
                attempts: 0,
                used_at: None,
            }))
        }

        async fn check(&self, _: &Guess<'_>) -> Result<Option<Judged>, Unavailable> {
            unreachable!("resend checks nothing")
        }
    }

    /// Holds a code of this version, if any.
    struct OneCode(Option<(i64, &'static [u8])>);

    impl Cache for OneCode {
        async fn get(&self, _: &NumberIndex) -> Option<CachedCode> {
            let (version, code) = self.0?;
            Some(CachedCode { version: OtpVersion::from_stored(version), sealed: sealed(code) })
        }

        fn put(&self, _: NumberIndex, code: CachedCode, _: Timestamp) {
            assert_eq!(code.version, LIVE, "only the database's own code is cached again");
        }

        fn forget(&self, _: NumberIndex, _: OtpVersion) {}
    }

    struct Noon(Seeded);

    impl Clock for Noon {
        fn now(&self) -> Timestamp {
            Timestamp::from_unix_millis(1_000)
        }
    }

    impl Random for Noon {
        fn fill(&self, bytes: &mut [u8]) {
            self.0.fill(bytes);
        }
    }

    /// Sealed for the same id, whatever the version: so that only the version can tell codes apart.
    fn sealed(code: &[u8]) -> Vec<u8> {
        let context = Context { purpose: "code", otp_id: "id", number: NUMBER };
        KeyRing::development().seal(code, &context, [1; otp_seal::NONCE_BYTES])
    }

    fn resent(cached: Option<(i64, &'static [u8])>) -> String {
        let service = OtpService {
            database: &OneRow,
            cache: &OneCode(cached),
            environment: &Noon(Seeded::new(1)),
            keys: &KeyRing::development(),
            index: &IndexKey::development(),
            policy: &Policy::default(),
        };
        let number = MobileNumber::parse(NUMBER, None).unwrap();
        // Nothing here waits, so one poll is all it takes.
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match pin!(service.resend(&number)).poll(&mut context) {
            std::task::Poll::Ready(answer) => answer.unwrap().code.expose().to_owned(),
            std::task::Poll::Pending => panic!("something waits"),
        }
    }

    #[test]
    fn only_the_version_that_the_database_confirms_is_given_out() {
        assert_eq!(resent(None), "222222");
        assert_eq!(resent(Some((2, b"222222"))), "222222");
        assert_eq!(resent(Some((1, b"111111"))), "222222", "a replaced code");
        assert_eq!(resent(Some((3, b"333333"))), "222222", "one that the database lost");
        assert_eq!(resent(Some((2, b"no code"))), "222222", "a damaged one");
    }
}
