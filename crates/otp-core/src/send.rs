//! Whether a recipient is sent a code: what generate, resend and regenerate have in common.

use crate::{
    account::{Account, AccountCode, seconds_between},
    code::Code,
    decision::{Answer, Case, Change, Charge, Counts, Decision, EventKind, IssuedCode, Record},
    kept_answer::KeptAnswer,
    refusal::Refusal,
    send_limit::{Quota, SendLimit},
};
use otp_terms::Timestamp;

/// The window in which the first refusal of a recipient is put on record, where its sends have none, in milliseconds.
const HOUR: i64 = 60 * 60 * 1_000;

impl Case<'_> {
    /// What comes before the account is looked at: a retry hears what was answered, whatever else is in the way by now.
    pub(crate) fn before_sending(&self) -> Option<Decision> {
        if let Some(kept) = self.kept {
            return Some(self.replayed(kept));
        }
        if let Some(until) = self.suspended_until {
            let retry_after = seconds_between(self.now, until);
            return Some(Decision::refused(Refusal::Suspended { retry_after }));
        }
        self.full.map(|quota| Decision::refused(Refusal::RateLimited(quota)))
    }

    /// The moments of sends with this one in it, or the refusal of it.
    ///
    /// Exact: no window of its length ever sees more than the limit. A refused request does not count.
    pub(crate) fn admitted(&self, account: &Account) -> Result<Vec<Timestamp>, Refusal> {
        if let Some(locked) = account.refused_by_lock(self.now) {
            return Err(locked);
        }
        let Some(limit) = self.policy.sends else { return Ok(Vec::new()) };
        limit
            .admit(&account.sends, self.now)
            .ok_or_else(|| Refusal::RateLimited(limit.quota(&account.sends, self.now)))
    }

    /// A code is sent: `account` has it already.
    pub(crate) fn sent(&self, kind: EventKind, mut account: Account, code: Option<Code>) -> Decision {
        account.revision = self.next_revision();
        let Some(of) = account.code.clone() else { return Decision::refused(Refusal::NotFound) };
        let answer = match self.policy.uniform {
            true => Answer::Accepted,
            false => Answer::Issued(IssuedCode {
                code,
                otp_id: of.otp_id.clone(),
                channel: of.channel,
                created_at: of.created_at,
                expires_at: of.expires_at,
                expires_in_seconds: self.now.seconds_until(of.expires_at),
                quota: self.quota(&account),
                replayed: false,
            }),
        };
        let record = Record {
            event: self.event(kind, None, Some(&of)),
            kept: self.answer_to_keep(Some(&of)),
            account: Change::To(Box::new(account)),
        };
        Decision {
            answer: Ok(answer),
            record: Some(record),
            charged: Charge::Whole,
            counts: Some(Counts::Sent),
        }
    }

    /// A code is not sent, for the recipient's sake.
    ///
    /// In uniform mode that is answered, counted and put on record as if it had been. Else a lock or a limit is put on
    /// record the first time in a window, and what is wrong with the code itself is not.
    ///
    /// `spare` is the code that was made for it.
    pub(crate) fn not_sent(&self, refusal: Refusal, spare: Option<AccountCode>) -> Decision {
        if self.policy.uniform {
            let record = self.shadow(EventKind::Limited, &refusal, spare, self.answer_to_keep(None));
            return Decision {
                answer: Ok(Answer::Accepted),
                record: Some(record),
                charged: Charge::Whole,
                counts: Some(Counts::Sent),
            };
        }
        let says = matches!(refusal, Refusal::RecipientLocked { .. } | Refusal::RateLimited(_));
        let record =
            self.account.filter(|account| says && self.is_first_refusal(account)).map(|account| Record {
                event: self.event(EventKind::Limited, refusal.reason(), account.code.as_ref()),
                account: Change::To(Box::new(Account {
                    revision: self.next_revision(),
                    refused_at: Some(self.now),
                    ..account.clone()
                })),
                kept: None,
            });
        let looked_up =
            matches!(refusal, Refusal::NotFound | Refusal::Expired | Refusal::Used | Refusal::Locked);
        let charged = if looked_up { Charge::LookUp } else { Charge::Nothing };
        Decision { record, charged, ..Decision::refused(refusal) }
    }

    /// A moment that lies further ahead than a window was written by a wrong clock.
    fn is_first_refusal(&self, account: &Account) -> bool {
        let window = self.policy.sends.map_or(HOUR, SendLimit::window_millis);
        let apart = |at: Timestamp| self.now.unix_millis().abs_diff(at.unix_millis());
        account.refused_at.is_none_or(|at| apart(at) >= window.unsigned_abs())
    }

    fn quota(&self, account: &Account) -> Option<Quota> {
        self.policy.sends.map(|limit| limit.quota(&account.sends, self.now))
    }

    fn answer_to_keep(&self, code: Option<&AccountCode>) -> Option<KeptAnswer> {
        self.idempotency.map(|idempotency| KeptAnswer {
            request: idempotency.request.as_str().to_owned(),
            code: code.map(|code| (code.otp_id.clone(), code.channel, code.created_at, code.expires_at)),
        })
    }

    /// The answer that was given before. The code is told as long as it is live, and not after that.
    fn replayed(&self, kept: &KeptAnswer) -> Decision {
        if self.idempotency.is_none_or(|idempotency| idempotency.request.as_str() != kept.request) {
            return Decision::refused(Refusal::KeyReused);
        }
        let answer = match &kept.code {
            Some((otp_id, channel, created_at, expires_at)) if !self.policy.uniform => {
                let live = self.account.filter(|account| account.refused_by_lock(self.now).is_none());
                let live = live.and_then(|account| account.code.as_ref());
                let live =
                    live.filter(|code| code.otp_id == *otp_id && code.dead(self.policy, self.now).is_none());
                Answer::Issued(IssuedCode {
                    code: live.and_then(|code| self.open(code)),
                    otp_id: otp_id.clone(),
                    channel: *channel,
                    created_at: *created_at,
                    expires_at: *expires_at,
                    expires_in_seconds: created_at.seconds_until(*expires_at),
                    quota: None,
                    replayed: true,
                })
            }
            _ => Answer::Accepted,
        };
        Decision { answer: Ok(answer), record: None, charged: Charge::Nothing, counts: None }
    }
}
