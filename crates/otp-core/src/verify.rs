//! Checking a code.

use crate::{
    account::{Account, AccountCode},
    code::Code,
    decision::{Answer, Case, Change, Charge, Counts, Decision, EventKind, Record, Verified},
    kept_answer::KeptAnswer,
    otp_id::OtpId,
    refusal::Refusal,
};

/// What a user typed, and for which code.
#[derive(Debug)]
pub struct Attempt {
    /// The guess.
    pub code: Code,
    /// Only this code will do, if given.
    pub otp_id: Option<OtpId>,
}

impl Case<'_> {
    /// Checks a code; a right one is used up. Every check counts on its caller's meters.
    ///
    /// Whatever a guess changes is written only if the account still is what the guess was compared with: of any number
    /// of right guesses at once one wins, and no more wrong ones are compared than allowed.
    pub fn verify(&self, attempt: &Attempt) -> Decision {
        // A retry hears what was answered, whatever else is in the way by now.
        if let Some(kept) = self.kept {
            return self.verified_before(kept);
        }
        if let Some(quota) = self.full {
            return Decision::refused(Refusal::RateLimited(quota));
        }
        let right = self.is_right(attempt);
        let spare = self.spare();
        let decision = match self.refused_unseen(attempt) {
            Some(refusal) => self.not_compared(refusal, spare),
            // What may be compared has a code.
            None => self.account.map_or_else(
                || self.not_compared(Refusal::NotFound, spare),
                |account| {
                    if right { self.right(account.clone()) } else { self.wrong(account.clone()) }
                },
            ),
        };
        Decision { charged: Charge::Whole, ..decision }
    }

    /// Whether it is the code, compared in constant time. Of an unknown recipient as well: it takes as long.
    fn is_right(&self, attempt: &Attempt) -> bool {
        let code = self.account.and_then(|account| account.code.as_ref());
        let otp_id = code.map_or("", |code| code.otp_id.as_str());
        let (application, recipient) = (self.owner.application, self.owner.recipient.as_str());
        let guess = self.index.check(application, otp_id, recipient, attempt.code.expose());
        code.is_some_and(|code| code.check == guess)
    }

    /// Why a guess is not even compared, in the order of the contract.
    fn refused_unseen(&self, attempt: &Attempt) -> Option<Refusal> {
        let Some(account) = self.account else { return Some(Refusal::NotFound) };
        if let Some(locked) = account.refused_by_lock(self.now) {
            return Some(locked);
        }
        let named = |otp_id: &OtpId| attempt.otp_id.as_ref().is_none_or(|named| named == otp_id);
        let Some(code) = account.code.as_ref().filter(|code| named(&code.otp_id)) else {
            return Some(Refusal::NotFound);
        };
        match code.dead(self.policy, self.now) {
            // Waiting does not help: it takes a new code.
            Some(Refusal::Locked) => Some(Refusal::AttemptsExceeded),
            dead => dead,
        }
    }

    fn right(&self, mut account: Account) -> Decision {
        account.revision = self.next_revision();
        account.failures = 0;
        account.check_refused = None;
        let Some(code) = &mut account.code else { return Decision::refused(Refusal::NotFound) };
        code.used_at = Some(self.now);
        // It is never given out again.
        code.sealed.clear();
        let (code, proved) = (code.clone(), code.address.clone());
        if let Some(proved) = proved {
            account.prove(&proved, self.now);
        }
        let answer = Verified {
            otp_id: code.otp_id.clone(),
            channel: code.channel,
            verified_at: self.now,
            replayed: false,
        };
        // Its moment is the one at which the code was used, at both ends.
        let kept = self.idempotency.map(|idempotency| KeptAnswer {
            request: idempotency.request.as_str().to_owned(),
            code: Some((code.otp_id.clone(), code.channel, self.now, self.now)),
        });
        let event = self.event(EventKind::Verified, None, Some(&code));
        let record = Record { account: Change::To(Box::new(account)), event, kept };
        Decision {
            answer: Ok(Answer::Verified(answer)),
            record: Some(record),
            charged: Charge::Whole,
            counts: Some(Counts::Verified),
        }
    }

    /// The right code was told so before.
    fn verified_before(&self, kept: &KeptAnswer) -> Decision {
        let same = self.idempotency.is_some_and(|idempotency| idempotency.request.as_str() == kept.request);
        match &kept.code {
            Some((otp_id, channel, verified_at, _)) if same => Decision {
                answer: Ok(Answer::Verified(Verified {
                    otp_id: otp_id.clone(),
                    channel: *channel,
                    verified_at: *verified_at,
                    replayed: true,
                })),
                record: None,
                charged: Charge::Nothing,
                counts: None,
            },
            _ => Decision::refused(Refusal::KeyReused),
        }
    }

    /// A wrong guess costs an attempt of its code; so many in a row, of all codes, lock the recipient.
    fn wrong(&self, mut account: Account) -> Decision {
        account.revision = self.next_revision();
        let Some(code) = &mut account.code else { return Decision::refused(Refusal::NotFound) };
        code.attempts += 1;
        let attempts_remaining = (self.policy.max_attempts.get() - code.attempts).max(0);
        account.failures += 1;
        let locks = account.failures >= self.policy.max_failures.get();
        if locks {
            // After a lock they are counted anew.
            account.failures = 0;
            account.locked_until = Some(otp_terms::Timestamp::from_unix_millis(
                self.now.unix_millis() + self.policy.lock.millis(),
            ));
            account.check_refused = None;
        }
        let kind =
            if locks || attempts_remaining == 0 { EventKind::Locked } else { EventKind::VerificationFailed };
        let refusal = Refusal::Mismatch { attempts_remaining };
        let reason = if locks { Some("number_locked") } else { refusal.reason() };
        let event = self.event(kind, reason, account.code.as_ref());
        let record = Record { account: Change::To(Box::new(account)), event, kept: None };
        let heard = if self.policy.uniform { Refusal::NotTheCode } else { refusal };
        Decision { record: Some(record), ..Decision::refused(heard) }
    }

    /// Nothing was compared. In uniform mode that looks like a wrong guess. Else it is on record once, and what is not
    /// known at all leaves nothing.
    fn not_compared(&self, refusal: Refusal, spare: Option<AccountCode>) -> Decision {
        let kind = EventKind::VerificationFailed;
        if self.policy.uniform {
            let record = self.shadow(kind, &refusal, spare, None);
            return Decision { record: Some(record), ..Decision::refused(Refusal::NotTheCode) };
        }
        let reason = refusal.reason().filter(|_| refusal != Refusal::NotFound);
        let told = |account: &&Account| reason.is_some() && account.check_refused.as_deref() != reason;
        let record = self.account.filter(told).map(|account| Record {
            event: self.event(kind, reason, account.code.as_ref()),
            account: Change::To(Box::new(Account {
                revision: self.next_revision(),
                check_refused: reason.map(str::to_owned),
                ..account.clone()
            })),
            kept: None,
        });
        Decision { record, ..Decision::refused(refusal) }
    }
}
