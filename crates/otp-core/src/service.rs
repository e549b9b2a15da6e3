//! What can be done: each call is decided on what is known, and committed if that is still so.

use crate::{
    account::{Account, Owner},
    caller::Caller,
    decision::{Answer, Case, Change, Charge, Counts, Decision, Draft},
    meter::Meter,
    policy::Policy,
    ports::{Cache, Clock, Commit, Committed, Database, Loaded, Metered, Random, Request},
    recipient::{Delivery, Recipient},
    refusal::Refusal,
    send_limit::Quota,
    verify::Attempt,
};
use otp_seal::{IndexKey, KeyRing};
use otp_terms::Timestamp;

/// The rows of nobody's that stand for unknown recipients in uniform mode. There are several, so that not everybody who
/// asks for unknown ones waits for one row.
pub const DECOYS: u32 = 64;

/// The service: [`generate`](Self::generate), [`resend`](Self::resend), [`regenerate`](Self::regenerate),
/// [`verify`](Self::verify) and [`erase`](Self::erase).
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
    /// Makes check values and what stands for a recipient.
    pub index: &'a IndexKey,
    /// What the operator has set.
    pub policy: &'a Policy,
}

/// Whether a call has a code sent, which a suspended range is spared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sends {
    /// To somebody who need not be known.
    AFirstCode,
    ACode,
    Nothing,
}

/// What became of a call.
#[derive(Debug)]
pub struct Outcome {
    /// What the caller hears.
    pub answer: Result<Answer, Refusal>,
    /// What the pumping guard counts.
    pub counts: Option<Counts>,
}

impl<D: Database, C: Cache, E: Clock + Random> OtpService<'_, D, C, E> {
    /// Makes a code, in the place of any that lives, and creates or updates the account.
    pub async fn generate(&self, recipient: &Recipient, delivery: &Delivery, caller: &Caller) -> Outcome {
        self.run(recipient, caller, Sends::AFirstCode, |case| case.generate(delivery)).await
    }

    /// Gives the same code again while it lives.
    pub async fn resend(&self, recipient: &Recipient, caller: &Caller) -> Outcome {
        self.run(recipient, caller, Sends::ACode, |case| case.resend()).await
    }

    /// Replaces the code of a known recipient; the old one is dead at once.
    pub async fn regenerate(&self, recipient: &Recipient, caller: &Caller) -> Outcome {
        self.run(recipient, caller, Sends::ACode, |case| case.regenerate()).await
    }

    /// Checks a code; a right one is used up.
    pub async fn verify(&self, recipient: &Recipient, attempt: &Attempt, caller: &Caller) -> Outcome {
        self.run(recipient, caller, Sends::Nothing, |case| case.verify(attempt)).await
    }

    /// Removes all that is known of a recipient, known or not.
    pub async fn erase(&self, recipient: &Recipient, caller: &Caller) -> Outcome {
        self.run(recipient, caller, Sends::Nothing, |case| case.erase()).await
    }

    async fn run(
        &self,
        recipient: &Recipient,
        caller: &Caller,
        sends: Sends,
        decide: impl Fn(&Case<'_>) -> Decision,
    ) -> Outcome {
        let owner = Owner { application: &caller.application, recipient };
        let subject = self.index.recipient(owner.application, recipient.as_str());
        let decoy = || self.index.decoy(owner.application, recipient.as_str(), DECOYS);
        let request = Request {
            owner,
            subject: &subject,
            decoy: self.policy.uniform.then(decoy),
            range: recipient.range().filter(|_| self.policy.guarded && sends != Sends::Nothing),
            idempotency: caller.idempotency.as_ref(),
            meters: &caller.meters,
            begun: self.environment.now(),
        };
        // In uniform mode every recipient costs the database the same.
        let (cached, metered) = self.cache.look(&request, !self.policy.uniform).await;
        let counted = matches!(metered, Metered::Counted);
        let (outcome, charged) = match self.settle(&request, sends, cached, metered, decide).await {
            Ok(decision) => (Outcome { answer: decision.answer, counts: decision.counts }, decision.charged),
            Err(refusal) => (Outcome { answer: Err(refusal), counts: None }, Charge::Nothing),
        };
        if counted {
            let (_, not_charged) = charged.split(&caller.meters);
            self.cache.uncount(not_charged);
        }
        outcome
    }

    /// Decides and commits until what was decided is what is on record. What the cache has is as good as what the
    /// database has if it is committed under its revision; a refusal that commits nothing needs the database's word.
    async fn settle(
        &self,
        request: &Request<'_>,
        sends: Sends,
        cached: Option<Account>,
        metered: Metered,
        decide: impl Fn(&Case<'_>) -> Decision,
    ) -> Result<Decision, Refusal> {
        let (full_here, meters) = match metered {
            Metered::Full(full) => {
                let quota = Quota::of_meter(&full, request.meters, request.begun)?;
                // A retry hears what was answered, whatever is full by now.
                if request.idempotency.is_none() {
                    return Err(Refusal::RateLimited(quota));
                }
                (Some(quota), &[][..])
            }
            Metered::Counted => (None, &[][..]),
            Metered::Unknown => (None, request.meters),
        };
        let request = &Request { meters, ..*request };
        // What the cache has says nothing of meters that are the database's to count.
        let mut hearsay = cached
            .filter(|_| full_here.is_none())
            .map(|account| Loaded { account: Some(account), ..Loaded::default() });
        // Most that a code is made for are not known. If the database tells of one that is, it costs nothing to try.
        let mut blindly = hearsay.is_none()
            && full_here.is_none()
            && sends == Sends::AFirstCode
            && !self.policy.uniform
            && self.database.tells();
        if blindly {
            hearsay = Some(Loaded::default());
        }
        let mut told = None;
        loop {
            let is_hearsay = hearsay.is_some();
            let loaded = match (hearsay.take(), told.take()) {
                (Some(loaded), _) => loaded,
                (None, Some(told)) => told,
                (None, None) => self.database.load(request).await?,
            };
            let now = self.environment.now();
            let draft = Draft::draw(self.policy, now, self.environment);
            let decision = decide(&Case {
                owner: request.owner,
                account: loaded.account.as_ref(),
                floor: loaded.floor,
                kept: loaded.kept.as_ref(),
                idempotency: request.idempotency,
                suspended_until: loaded.suspended_until,
                full: full_here.or_else(|| full_meter(request.meters, &loaded.meters, now)),
                policy: self.policy,
                keys: self.keys,
                index: self.index,
                draft: &draft,
                now,
            });
            if is_hearsay && !decision.is_conditional() {
                continue;
            }
            let commit = Commit {
                expected: loaded.account.as_ref().map(|account| account.revision),
                record: decision.record.as_ref(),
                meters: decision.charged.split(request.meters).0,
                tell: std::mem::take(&mut blindly),
            };
            if (commit.record.is_some() || !commit.meters.is_empty())
                && let Committed::Conflict(known) = self.database.commit(request, &commit).await?
            {
                told = known.map(|known| *known);
                continue;
            }
            match decision.record.as_ref().map(|record| &record.account) {
                Some(Change::To(account)) if !self.policy.uniform => self.cache.put(request, account),
                Some(Change::Erased { floor }) => self.cache.erase(request, *floor).await,
                _ => {}
            }
            return Ok(decision);
        }
    }
}

/// The first meter that lets nobody in, by when each is empty.
fn full_meter(meters: &[Meter], empty_at: &[i64], now: Timestamp) -> Option<Quota> {
    let full = |(meter, empty_at): (&Meter, &i64)| meter.full(*empty_at, now);
    meters.iter().zip(empty_at).find_map(full)
}
