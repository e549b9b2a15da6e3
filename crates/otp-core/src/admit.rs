//! Whether a number is sent a code: what comes before and after the statement that decides it.

use crate::{
    caller::Caller,
    meter::Meter,
    number::MobileNumber,
    ports::{
        Cache, CachedCode, Clock, Database, Full, Look, Metered, Random, Refusal, Replay, Sent, Terms,
        Unavailable,
    },
    send_limit::{Quota, seconds_rounded_up},
    service::{IssuedCode, OtpError, OtpService},
};
use otp_terms::Timestamp;

/// What came of a statement that sends a code.
pub(crate) enum Given<T> {
    /// It did, and this is left of the number's limit.
    Now(T, Option<Quota>),
    /// It was answered before.
    Before(IssuedCode),
}

impl<D: Database, C: Cache, E: Clock + Random> OtpService<'_, D, C, E> {
    /// Sends `number` a code by `statement`, if all limits let it.
    ///
    /// The cache looks first, in one round trip: it counts what is the caller's own, and remembers numbers that
    /// the database has found at their limit. Where it cannot, the statement does it all by itself. What was
    /// counted for a request that is refused then is taken back; a retry that was answered before hears that
    /// answer, whatever the limits say by now.
    pub(crate) async fn send<T>(
        &self,
        number: &MobileNumber,
        caller: &Caller,
        now: Timestamp,
        wants_cached: bool,
        statement: impl AsyncFnOnce(&Terms<'_>, Option<CachedCode>) -> Result<Sent<T>, Unavailable>,
    ) -> Result<Given<T>, OtpError> {
        let index = self.index.number(number.as_str());
        let (Look { cached, limited_until }, metered) =
            self.cache.look(&index, wants_cached, now, &caller.meters).await;
        let counted = matches!(metered, Metered::Counted);
        let known = match (metered, self.policy.sends, limited_until.filter(|until| *until > now)) {
            (Metered::Full(full), ..) => Some(full_meter(&full, &caller.meters, now)),
            // Where nobody shall be able to tell, every number costs the statement.
            (_, Some(limit), Some(until)) if !self.policy.uniform => {
                Some(OtpError::RateLimited(limit.used_up(until, now)))
            }
            _ => None,
        };
        if let Some(refusal) = known {
            self.take_back(counted, caller);
            let Some(idempotency) = &caller.idempotency else { return Err(refusal) };
            let replay = self.database.replay(idempotency, now, self.policy.max_attempts).await?;
            return replay.map_or(Err(refusal), |replay| self.replayed(replay, number).map(Given::Before));
        }
        let terms = Terms {
            number,
            now,
            policy: self.policy,
            meters: if counted { &[] } else { &caller.meters },
            idempotency: caller.idempotency.as_ref(),
        };
        let sent = statement(&terms, cached).await;
        if sent.is_err() {
            self.take_back(counted, caller);
        }
        let refusal = match sent? {
            Sent::Done { value, sends } => {
                let quota = self.policy.sends.map(|limit| limit.quota(&sends, now));
                return Ok(Given::Now(value, quota));
            }
            Sent::Refused(refusal) => refusal,
        };
        // Where nobody shall be able to tell, a refusal for the number's sake counts as what was accepted does.
        let of_the_number =
            !matches!(refusal, Refusal::Suspended { .. } | Refusal::Full(_) | Refusal::Replay(_));
        self.take_back(counted && !(self.policy.uniform && of_the_number), caller);
        // From this moment on: what stands in the way may have begun while this request was on its way.
        let seconds_until = |until: Timestamp| {
            seconds_rounded_up(until.unix_millis() - self.environment.now().unix_millis()).max(1)
        };
        Err(match refusal {
            Refusal::Replay(replay) => return self.replayed(replay, number).map(Given::Before),
            Refusal::NotFound => OtpError::NotFound,
            Refusal::Used => OtpError::Used,
            Refusal::Expired => OtpError::Expired,
            Refusal::Locked => OtpError::Locked,
            Refusal::NumberLocked { until } => OtpError::NumberLocked { retry_after: seconds_until(until) },
            Refusal::Suspended { until } => OtpError::Suspended { retry_after: seconds_until(until) },
            Refusal::Full(full) => full_meter(&full, &caller.meters, now),
            Refusal::Limited { sends } => match self.policy.sends {
                Some(limit) => {
                    if !self.policy.uniform {
                        self.cache.limited(index, limit.free_at(&sends, now));
                    }
                    OtpError::RateLimited(limit.quota(&sends, now))
                }
                // Nobody refuses for a limit that is not set.
                None => OtpError::Unavailable(Unavailable("a limit that is not set was reached".to_owned())),
            },
        })
    }

    fn take_back(&self, counted: bool, caller: &Caller) {
        if counted {
            self.cache.uncount(&caller.meters);
        }
    }

    /// The answer that was given before. The code is told as long as it is live, and not after that.
    fn replayed(&self, replay: Replay, number: &MobileNumber) -> Result<IssuedCode, OtpError> {
        let Replay { same_request, live, otp_id, sealed, channel, created_at, expires_at } = replay;
        if !same_request {
            return Err(OtpError::KeyReused);
        }
        Ok(IssuedCode {
            code: live.then(|| self.open(&sealed, &otp_id, number)).flatten(),
            otp_id,
            channel,
            created_at,
            expires_at,
            expires_in_seconds: created_at.seconds_until(expires_at),
            quota: None,
            replayed: true,
        })
    }
}

/// What is said of a meter that is full.
pub(crate) fn full_meter(full: &Full, meters: &[Meter], now: Timestamp) -> OtpError {
    let Some(Meter { name, limit, .. }) = meters.iter().find(|meter| meter.name == full.name) else {
        return OtpError::Unavailable(Unavailable("a meter that was not asked for is full".to_owned()));
    };
    OtpError::RateLimited(Quota {
        name,
        remaining: 0,
        seconds: limit.wait(full.free_at.saturating_add(limit.room()), now),
    })
}
