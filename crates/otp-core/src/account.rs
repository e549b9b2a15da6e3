//! All that is known of one recipient of one application.

use crate::{
    otp_id::OtpId, policy::Policy, recipient::Recipient, refusal::Refusal, revision::Revision,
    send_limit::seconds_rounded_up,
};
use otp_seal::CheckValue;
use otp_terms::{Channel, Timestamp};

/// All that is known of one recipient of one application. One that is not known has none of it but a revision.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// Which state of it this is. Of one that is not known, what all that was ever erased had at most.
    pub revision: Revision,
    /// The user's mail address, verified or not.
    pub email: Option<String>,
    /// When a code that went to it was verified.
    pub email_verified_at: Option<Timestamp>,
    /// Another address, which waits until a code that was sent to it has been verified: a verified one is not
    /// overwritten.
    pub pending_email: Option<String>,
    /// When codes were lately sent, oldest first: an exact limit needs the moments themselves.
    pub sends: Vec<Timestamp>,
    /// When a refusal to send was last put on record: the first of a window is enough.
    pub refused_at: Option<Timestamp>,
    /// Wrong guesses in a row, across codes.
    pub failures: i64,
    /// Until when it is refused because of them.
    pub locked_until: Option<Timestamp>,
    /// Why a check was last refused without comparing, since the code or the lock is what it is. It is on record once:
    /// or guessing at a code that is dead would cost an event each time.
    pub check_refused: Option<String>,
    /// Its newest code, whatever has become of that.
    pub code: Option<AccountCode>,
}

/// A code of an account.
#[derive(Clone, PartialEq, Eq)]
pub struct AccountCode {
    /// Its id.
    pub otp_id: OtpId,
    /// The revision at which it was made: tells which of two codes is the newer one.
    pub version: Revision,
    /// The code, sealed. Empty once it was used: a used code is never given again.
    pub sealed: Vec<u8>,
    /// What a guess is compared with.
    pub check: CheckValue,
    /// How it is delivered.
    pub channel: Channel,
    /// The mail address that it went to, if it went to one: a right guess verifies this address and no other.
    pub address: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it dies.
    pub expires_at: Timestamp,
    /// Wrong values that were compared with it.
    pub attempts: i64,
    /// When it was used up.
    pub used_at: Option<Timestamp>,
}

impl std::fmt::Debug for Account {
    /// No address ends up in a log by accident.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Account({})", self.revision.get())
    }
}

impl std::fmt::Debug for AccountCode {
    /// Its id, and nothing of the code.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AccountCode({})", self.otp_id.as_str())
    }
}

/// Whose account it is.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// The application. Those of different ones are strangers.
    pub application: &'a str,
    /// The recipient.
    pub recipient: &'a Recipient,
}

impl Account {
    /// One that is not known. `floor` is what all that was ever erased had at most: its revisions begin after it.
    pub fn unknown(floor: Revision) -> Self {
        Self { revision: floor, ..Self::default() }
    }

    /// The refusal of all calls while it is locked (OWASP ASVS 5.0, 6.3.1; NIST SP 800-63B-4, 3.2.2).
    pub(crate) fn refused_by_lock(&self, now: Timestamp) -> Option<Refusal> {
        let until = self.locked_until.filter(|until| *until > now)?;
        Some(Refusal::RecipientLocked { retry_after: seconds_between(now, until) })
    }

    /// Channel and address of a code whose request names none: those of the last code, but never an e-mail address that
    /// is not confirmed. An address told beside a number does not turn that number's later codes into mails.
    pub(crate) fn route(&self, recipient: &Recipient) -> (Channel, Option<String>) {
        if let Some(address) = recipient.address() {
            return (Channel::Email, Some(address.as_str().to_owned()));
        }
        let by_mail = self.code.as_ref().is_some_and(|code| code.channel == Channel::Email);
        let confirmed = self.email.as_ref().filter(|_| by_mail && self.email_verified_at.is_some());
        confirmed.map_or((Channel::Sms, None), |address| (Channel::Email, Some(address.clone())))
    }

    /// Notes an address that a request told. A verified one is not overwritten: another one is pending.
    pub(crate) fn note_email(&mut self, told: &str) {
        if self.email_verified_at.is_none() {
            self.email = Some(told.to_owned());
            self.pending_email = None;
        } else {
            self.pending_email = Some(told.to_owned()).filter(|_| self.email.as_deref() != Some(told));
        }
    }

    /// Notes that a code which went to this address was verified: that proves the address.
    pub(crate) fn prove(&mut self, address: &str, now: Timestamp) {
        if self.pending_email.as_deref() == Some(address) {
            self.email = self.pending_email.take();
            self.email_verified_at = Some(now);
        } else if self.email.as_deref() == Some(address) {
            self.email_verified_at = self.email_verified_at.or(Some(now));
        }
    }
}

impl AccountCode {
    /// Why it cannot be used, if it cannot, in the order of the contract.
    pub(crate) fn dead(&self, policy: &Policy, now: Timestamp) -> Option<Refusal> {
        if self.used_at.is_some() {
            Some(Refusal::Used)
        } else if self.expires_at <= now {
            Some(Refusal::Expired)
        } else if self.attempts >= policy.max_attempts.get() {
            Some(Refusal::Locked)
        } else {
            None
        }
    }
}

/// Whole seconds until a moment that lies ahead: waiting that long is enough. At least one.
pub(crate) fn seconds_between(now: Timestamp, until: Timestamp) -> i64 {
    seconds_rounded_up(until.unix_millis().saturating_sub(now.unix_millis())).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{email::EmailAddress, number::MobileNumber};

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_unix_millis(millis)
    }

    fn code(channel: Channel, address: Option<&str>) -> AccountCode {
        AccountCode {
            otp_id: OtpId::from_stored("id".to_owned()),
            version: Revision::from_stored(1),
            sealed: vec![1],
            check: CheckValue::from_stored(&[0; 32]).unwrap(),
            channel,
            address: address.map(str::to_owned),
            created_at: at(0),
            expires_at: at(600_000),
            attempts: 0,
            used_at: None,
        }
    }

    #[test]
    fn only_a_confirmed_address_is_sent_codes_that_did_not_ask_for_it() {
        let number = Recipient::Mobile(MobileNumber::parse("+14155550123", None).unwrap());
        let mut account = Account { code: Some(code(Channel::Email, Some("a@x.org"))), ..Account::default() };
        account.note_email("a@x.org");
        assert_eq!(account.route(&number), (Channel::Sms, None), "told, and proved by nothing");
        account.prove("a@x.org", at(5));
        assert_eq!(account.route(&number), (Channel::Email, Some("a@x.org".to_owned())));
        account.note_email("b@x.org");
        account.code = Some(code(Channel::Email, Some("b@x.org")));
        assert_eq!(account.route(&number), (Channel::Email, Some("a@x.org".to_owned())), "the confirmed one");
        account.code = Some(code(Channel::Sms, None));
        assert_eq!(account.route(&number), (Channel::Sms, None), "the channel of the last code");
        let mail = Recipient::mail(&"Ada@Example.com".parse::<EmailAddress>().unwrap());
        assert_eq!(Account::default().route(&mail), (Channel::Email, Some("ada@example.com".to_owned())));
    }

    #[test]
    fn a_verified_address_is_replaced_by_one_that_was_proved_only() {
        let mut account = Account::default();
        account.note_email("a@x.org");
        account.note_email("b@x.org");
        assert_eq!((account.email.as_deref(), account.pending_email.as_deref()), (Some("b@x.org"), None));
        account.prove("a@x.org", at(1));
        assert_eq!(account.email_verified_at, None, "a former address proves nothing");
        account.prove("b@x.org", at(2));
        account.note_email("c@x.org");
        assert_eq!(account.pending_email.as_deref(), Some("c@x.org"));
        account.note_email("b@x.org");
        assert_eq!(account.pending_email, None, "the user has come back to the verified one");
        account.note_email("c@x.org");
        account.prove("c@x.org", at(3));
        assert_eq!((account.email.as_deref(), account.pending_email.as_deref()), (Some("c@x.org"), None));
        assert_eq!(account.email_verified_at, Some(at(3)));
    }
}
