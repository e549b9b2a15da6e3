//! What a decision is made of, and what it comes to.

use crate::{
    account::{Account, AccountCode, Owner},
    caller::Idempotency,
    code::Code,
    kept_answer::KeptAnswer,
    meter::Meter,
    otp_id::OtpId,
    policy::Policy,
    random::Random,
    refusal::Refusal,
    revision::Revision,
    send_limit::Quota,
};
use otp_seal::{Context, IndexKey, KeyRing, NONCE_BYTES};
use otp_terms::{Channel, Timestamp};

/// All that a decision goes by, beside the request itself.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// Whose account it is.
    pub owner: Owner<'a>,
    /// What is known of it; `None` where nothing is.
    pub account: Option<&'a Account>,
    /// What all accounts that were ever erased had at most.
    pub floor: Revision,
    /// What was answered under the request's Idempotency-Key.
    pub kept: Option<&'a KeptAnswer>,
    /// How a retry of the request is known.
    pub idempotency: Option<&'a Idempotency>,
    /// Until when nothing is sent to the recipient's range.
    pub suspended_until: Option<Timestamp>,
    /// A meter that lets nobody in.
    pub full: Option<Quota>,
    /// What the operator has set.
    pub policy: &'a Policy,
    /// Seal codes.
    pub keys: &'a KeyRing,
    /// Makes check values.
    pub index: &'a IndexKey,
    /// What was drawn for it.
    pub draft: &'a Draft,
    /// The moment.
    pub now: Timestamp,
}

/// What is drawn at random before a decision, so that the decision itself draws nothing. Drawn anew for each.
#[derive(Debug)]
pub struct Draft {
    /// A code that is not written yet.
    pub(crate) code: Code,
    pub(crate) otp_id: OtpId,
    pub(crate) event_id: OtpId,
    nonce: [u8; NONCE_BYTES],
}

impl Draft {
    /// Draws.
    pub fn draw(policy: &Policy, now: Timestamp, random: &impl Random) -> Self {
        let mut nonce = [0; NONCE_BYTES];
        random.fill(&mut nonce);
        Self {
            code: Code::generate(policy.length, random),
            otp_id: OtpId::generate(now, random),
            event_id: OtpId::generate(now, random),
            nonce,
        }
    }
}

/// What a request comes to.
#[derive(Debug)]
pub struct Decision {
    /// What the caller hears, once what is to be on record is.
    pub answer: Result<Answer, Refusal>,
    /// What is put on record with it, if anything is.
    pub record: Option<Record>,
    /// On which of its caller's meters the request counts.
    pub charged: Charge,
    /// What the pumping guard counts.
    pub counts: Option<Counts>,
}

/// What a request counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charge {
    /// Nothing: a limit refused it, or it is told again what was told before.
    Nothing,
    /// A look at whether a recipient has a code: on the limits of address and key, or they would not bound who goes through
    /// numbers.
    LookUp,
    /// What it was asked for.
    Whole,
}

impl Charge {
    /// Those of a caller's meters that it counts on, and the others.
    pub(crate) fn split(self, meters: &[Meter]) -> (&[Meter], &[Meter]) {
        let of_the_caller = meters.iter().position(Meter::counts_sends).unwrap_or(meters.len());
        meters.split_at(match self {
            Self::Nothing => 0,
            Self::LookUp => of_the_caller,
            Self::Whole => meters.len(),
        })
    }
}

/// What is put on record: all of it or nothing.
#[derive(Debug)]
pub struct Record {
    /// What becomes of the account.
    pub account: Change,
    /// What others hear of it.
    pub event: OtpEvent,
    /// The answer that a retry is to hear.
    pub kept: Option<KeptAnswer>,
}

/// What becomes of an account.
#[derive(Debug)]
pub enum Change {
    /// It is this from now on, if it still is what the decision went by.
    To(Box<Account>),
    /// Nothing. A row of nobody's is written in its place, so that the request takes the time that it would have taken.
    Decoy(Box<Account>),
    /// It is gone, if it still is what the decision went by.
    Erased {
        /// What all that comes after it is newer than.
        floor: Revision,
    },
}

/// What others hear of a call.
#[derive(Debug)]
pub struct OtpEvent {
    /// The same for every copy of it, and for no other.
    pub id: OtpId,
    /// What it says.
    pub kind: EventKind,
    /// Grows with every event of the recipient.
    pub sequence: Revision,
    /// When it happened.
    pub at: Timestamp,
    /// Why, for a check or a request that was refused.
    pub reason: Option<&'static str>,
    /// The code that it is about. It goes out sealed, and only where it is to be delivered.
    pub code: Option<AccountCode>,
}

/// What an event says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// A code was made.
    Generated,
    /// The same code was asked for again.
    Resent,
    /// A new code took the place of another.
    Regenerated,
    /// The right code was given.
    Verified,
    /// A check failed.
    VerificationFailed,
    /// A wrong guess used up the last attempt.
    Locked,
    /// A request was refused.
    Limited,
    /// The account was erased.
    Erased,
}

/// What the pumping guard counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counts {
    /// A code that was sent.
    Sent,
    /// A code that was verified.
    Verified,
}

/// What the caller hears of a call that was not refused.
#[derive(Debug)]
pub enum Answer {
    /// A code.
    Issued(IssuedCode),
    /// That the request was accepted, and no more: in uniform mode, known or not.
    Accepted,
    /// That the code was right.
    Verified(Verified),
    /// That it was done.
    Erased,
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
    /// What is left of the recipient's limit; `None` where there is none, or nothing was counted.
    pub quota: Option<Quota>,
    /// Whether this was answered before, and nothing was done now.
    pub replayed: bool,
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
    /// Whether this is told again to a retry.
    pub replayed: bool,
}

impl Decision {
    /// Refused, with nothing on record.
    pub(crate) fn refused(refusal: Refusal) -> Self {
        Self { answer: Err(refusal), record: None, charged: Charge::Nothing, counts: None }
    }

    /// Whether it is put on record only if the account still is what the decision went by. Any other has to go by what
    /// the database itself has said.
    pub(crate) fn is_conditional(&self) -> bool {
        self.record.as_ref().is_some_and(|record| !matches!(record.account, Change::Decoy(_)))
    }
}

impl Case<'_> {
    /// The revision that comes next.
    pub(crate) fn next_revision(&self) -> Revision {
        self.account.map_or(self.floor, |account| account.revision).next(self.now)
    }

    pub(crate) fn event(
        &self,
        kind: EventKind,
        reason: Option<&'static str>,
        code: Option<&AccountCode>,
    ) -> OtpEvent {
        OtpEvent {
            id: self.draft.event_id.clone(),
            kind,
            sequence: self.next_revision(),
            at: self.now,
            reason,
            code: code.cloned(),
        }
    }

    /// What a refusal leaves in uniform mode: as much as what it refuses would have left, and the same answer. Nothing of
    /// the account is in it: it may be erased before this is written.
    pub(crate) fn shadow(
        &self,
        kind: EventKind,
        refusal: &Refusal,
        spare: Option<AccountCode>,
        kept: Option<KeptAnswer>,
    ) -> Record {
        let decoy =
            Account { revision: Revision::default().next(self.now), code: spare, ..Account::default() };
        Record {
            account: Change::Decoy(Box::new(decoy)),
            event: self.event(kind, refusal.reason(), None),
            kept,
        }
    }

    /// In uniform mode, a code that stands for one: whether there is any takes the same time.
    pub(crate) fn spare(&self) -> Option<AccountCode> {
        let make = || self.new_code(Revision::default().next(self.now), Channel::Sms, None);
        self.policy.uniform.then(make)
    }

    /// The code that was drawn, made now.
    pub(crate) fn new_code(
        &self,
        version: Revision,
        channel: Channel,
        address: Option<String>,
    ) -> AccountCode {
        let otp_id = self.draft.otp_id.clone();
        let (application, recipient) = (self.owner.application, self.owner.recipient.as_str());
        let check = self.index.check(application, otp_id.as_str(), recipient, self.draft.code.expose());
        let mut code = AccountCode {
            otp_id,
            version,
            sealed: Vec::new(),
            check,
            channel,
            address,
            created_at: self.now,
            expires_at: self.now.plus_seconds(self.policy.life.seconds()),
            attempts: 0,
            used_at: None,
        };
        code.sealed = self.seal(&self.draft.code, &code);
        code
    }

    /// Seals a code for what it is by now.
    pub(crate) fn seal(&self, code: &Code, of: &AccountCode) -> Vec<u8> {
        self.keys.seal(code.expose().as_bytes(), &self.context(of), self.draft.nonce)
    }

    /// `None` for what does not open: its key is gone, so whatever it was has outlived its life.
    pub(crate) fn open(&self, code: &AccountCode) -> Option<Code> {
        self.keys.open(&code.sealed, &self.context(code)).ok().and_then(Code::from_opened)
    }

    fn context<'c>(&'c self, code: &'c AccountCode) -> Context<'c> {
        Context {
            purpose: otp_seal::CODE,
            application: self.owner.application,
            recipient: self.owner.recipient.as_str(),
            channel: code.channel.as_str(),
            address: code.address.as_deref().unwrap_or_default(),
            otp_id: code.otp_id.as_str(),
            version: code.version.get(),
            expires_at: code.expires_at.unix_millis(),
        }
    }
}
