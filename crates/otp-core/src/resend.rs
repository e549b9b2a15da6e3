//! Giving a code again.

use crate::{
    admit::Given,
    caller::Caller,
    number::MobileNumber,
    ports::{Cache, CachedCode, Clock, Database, Random, StoredCode},
    service::{IssuedCode, OtpError, OtpService},
};
use otp_terms::Timestamp;
use std::cell::RefCell;

impl<D: Database, C: Cache, E: Clock + Random> OtpService<'_, D, C, E> {
    /// Gives the same code again while it lives. Its life does not get longer.
    ///
    /// The code comes from the cache if the database confirms, in its one statement, that the cached
    /// version is the live one; else from the database itself. So no order of concurrent requests, and
    /// no cache that was restored from yesterday, can give out a code that was replaced.
    pub async fn resend(&self, number: &MobileNumber, caller: &Caller) -> Result<IssuedCode, OtpError> {
        let index = self.index.number(number.as_str());
        let at_hand = RefCell::new(None);
        let mut now = self.environment.now();
        let given = self
            .send(number, caller, now, true, async |terms, cached| {
                let version = cached.as_ref().map(|cached| cached.version);
                at_hand.replace(cached);
                self.database.resend(terms, version).await
            })
            .await?;
        let (mut stored, quota) = match given {
            Given::Before(answered) => return Ok(answered),
            Given::Now(stored, quota) => (stored, quota),
        };
        let cached = at_hand.take();
        // By the moment that the statement went by, too: what it has counted and put on record is not refused.
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
            code: Some(code),
            otp_id: stored.otp_id,
            channel: stored.channel,
            created_at: stored.created_at,
            expires_at: stored.expires_at,
            expires_in_seconds: now.seconds_until(stored.expires_at),
            quota,
            replayed: false,
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
        caller::Idempotency,
        meter::Meter,
        otp_id::OtpId,
        otp_version::OtpVersion,
        policy::MaxAttempts,
        policy::Policy,
        ports::{
            Checked, Guess, Look, Metered, NewCode, Refusal, Reissued, Replay, Sent, Terms, Unavailable,
        },
        random::seeded::Seeded,
        recipient::Recipient,
    };
    use otp_seal::{Context, IndexKey, KeyRing, NumberIndex};
    use otp_terms::Channel;
    use std::pin::pin;

    const NUMBER: &str = "+14155550123";
    const LIVE: OtpVersion = OtpVersion::from_stored(2);

    /// Holds one code, and gives it unless the caller has this version.
    struct OneRow;

    impl Database for OneRow {
        async fn issue(
            &self,
            _: &Terms<'_>,
            _: &NewCode<'_>,
            _: &Recipient,
        ) -> Result<Sent<OtpVersion>, Unavailable> {
            unreachable!("resend issues nothing")
        }

        async fn reissue(&self, _: &Terms<'_>, _: &NewCode<'_>) -> Result<Sent<Reissued>, Unavailable> {
            unreachable!("resend issues nothing")
        }

        async fn resend(
            &self,
            terms: &Terms<'_>,
            cached: Option<OtpVersion>,
        ) -> Result<Sent<StoredCode>, Unavailable> {
            let Some(stored) = self.find(terms.number).await? else {
                return Ok(Sent::Refused(Refusal::NotFound));
            };
            let known = cached == Some(LIVE);
            let value = StoredCode { sealed: stored.sealed.filter(|_| !known), ..stored };
            Ok(Sent::Done { value, sends: Vec::new() })
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

        async fn check(&self, _: &Guess<'_>) -> Result<Checked, Unavailable> {
            unreachable!("resend checks nothing")
        }

        async fn replay(
            &self,
            _: &Idempotency,
            _: Timestamp,
            _: MaxAttempts,
        ) -> Result<Option<Replay>, Unavailable> {
            unreachable!("resend has no Idempotency-Key")
        }

        async fn erase(&self, _: &MobileNumber, _: Timestamp) -> Result<(), Unavailable> {
            unreachable!("resend erases nothing")
        }
    }

    /// Holds a code of this version, if any.
    struct OneCode(Option<(i64, &'static [u8])>);

    impl Cache for OneCode {
        async fn look(&self, _: &NumberIndex, _: bool, _: Timestamp, _: &[Meter]) -> (Look, Metered) {
            let cached = self.0.map(|(version, code)| CachedCode {
                version: OtpVersion::from_stored(version),
                sealed: sealed(code),
            });
            (Look { cached, limited_until: None }, Metered::Unknown)
        }

        async fn count(&self, _: &[Meter]) -> Metered {
            Metered::Unknown
        }

        fn uncount(&self, _: &[Meter]) {}

        fn limited(&self, _: NumberIndex, _: Timestamp) {}

        fn put(&self, _: NumberIndex, code: CachedCode, _: Timestamp) {
            assert_eq!(code.version, LIVE, "only the database's own code is cached again");
        }

        fn forget(&self, _: NumberIndex, _: OtpVersion) {}

        async fn erase(&self, _: NumberIndex) {}
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
        match pin!(service.resend(&number, &Caller::default())).poll(&mut context) {
            std::task::Poll::Ready(answer) => answer.unwrap().code.unwrap().expose().to_owned(),
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
