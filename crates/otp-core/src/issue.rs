//! Making a code, and replacing it.

use crate::{
    admit::Given,
    caller::Caller,
    code::Code,
    number::MobileNumber,
    otp_id::OtpId,
    otp_version::OtpVersion,
    ports::{Cache, CachedCode, Clock, Database, NewCode, Random, Reissued},
    recipient::Recipient,
    send_limit::Quota,
    service::{IssuedCode, OtpError, OtpService},
};
use otp_terms::{Channel, Timestamp};

/// A code that was drawn and is not written yet.
struct Draft {
    code: Code,
    otp_id: OtpId,
    created_at: Timestamp,
    expires_at: Timestamp,
}

impl Draft {
    fn issued(self, channel: Channel, quota: Option<Quota>) -> IssuedCode {
        IssuedCode {
            code: Some(self.code),
            otp_id: self.otp_id,
            channel,
            created_at: self.created_at,
            expires_at: self.expires_at,
            expires_in_seconds: self.created_at.seconds_until(self.expires_at),
            quota,
            replayed: false,
        }
    }
}

impl<D: Database, C: Cache, E: Clock + Random> OtpService<'_, D, C, E> {
    /// Makes a code for `number`, in the place of any that lives, and creates or updates its user.
    pub async fn generate(
        &self,
        number: &MobileNumber,
        recipient: &Recipient,
        caller: &Caller,
    ) -> Result<IssuedCode, OtpError> {
        let draft = self.draft();
        let code = self.new_code(&draft, number);
        let given = self
            .send(number, caller, draft.created_at, false, async |terms, _| {
                self.database.issue(terms, &code, recipient).await
            })
            .await?;
        match given {
            Given::Before(answered) => Ok(answered),
            Given::Now(version, quota) => {
                self.cache(code, version);
                Ok(draft.issued(recipient.channel(), quota))
            }
        }
    }

    /// Replaces the code of a known number; the old one is dead at once. Same channel and address.
    pub async fn regenerate(&self, number: &MobileNumber, caller: &Caller) -> Result<IssuedCode, OtpError> {
        let draft = self.draft();
        let code = self.new_code(&draft, number);
        let given = self
            .send(number, caller, draft.created_at, false, async |terms, _| {
                self.database.reissue(terms, &code).await
            })
            .await?;
        match given {
            Given::Before(answered) => Ok(answered),
            Given::Now(Reissued { version, channel }, quota) => {
                self.cache(code, version);
                Ok(draft.issued(channel, quota))
            }
        }
    }

    fn cache(&self, code: NewCode<'_>, version: OtpVersion) {
        let NewCode { number, sealed, expires_at, .. } = code;
        self.cache.put(self.index.number(number.as_str()), CachedCode { version, sealed }, expires_at);
    }

    fn draft(&self) -> Draft {
        let created_at = self.environment.now();
        Draft {
            code: Code::generate(self.policy.length, self.environment),
            otp_id: OtpId::generate(created_at, self.environment),
            created_at,
            expires_at: created_at.plus_seconds(self.policy.life.seconds()),
        }
    }

    fn new_code<'d>(&self, draft: &'d Draft, number: &'d MobileNumber) -> NewCode<'d> {
        NewCode {
            number,
            otp_id: &draft.otp_id,
            sealed: self.seal(&draft.code, &draft.otp_id, number),
            check: self.index.check(number.as_str(), draft.code.expose().as_bytes()),
            created_at: draft.created_at,
            expires_at: draft.expires_at,
        }
    }
}
