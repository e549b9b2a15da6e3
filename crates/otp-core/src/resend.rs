//! Giving a code again.

use crate::{
    account::{Account, AccountCode},
    code::Code,
    decision::{Answer, Case, Decision, EventKind},
    refusal::Refusal,
};

impl Case<'_> {
    /// Gives the same code again while it lives. Its life does not get longer. It goes where the last one went, or to the
    /// recipient itself, if that was an address which was not confirmed.
    pub fn resend(&self) -> Decision {
        if let Some(mut decision) = self.before_sending() {
            // A retry hears how long the code lives from now on, as every resend does.
            if let Ok(Answer::Issued(issued)) = &mut decision.answer {
                issued.expires_in_seconds = self.now.seconds_until(issued.expires_at);
            }
            return decision;
        }
        let spare = self.spare();
        match self.resent() {
            Ok((account, code)) => self.sent(EventKind::Resent, account, code),
            Err(refusal) => self.not_sent(refusal, spare),
        }
    }

    fn resent(&self) -> Result<(Account, Option<Code>), Refusal> {
        let account = self.account.ok_or(Refusal::NotFound)?;
        if let Some(locked) = account.refused_by_lock(self.now) {
            return Err(locked);
        }
        let code = account.code.as_ref().ok_or(Refusal::NotFound)?;
        if let Some(dead) = code.dead(self.policy, self.now) {
            return Err(dead);
        }
        let sends = self.admitted(account)?;
        let (channel, address) = account.route(self.owner.recipient);
        let moves = (code.channel, &code.address) != (channel, &address);
        // In uniform mode nobody is told, and it would only take time.
        let opened =
            if moves || !self.policy.uniform { Some(self.open(code).ok_or(Refusal::Expired)?) } else { None };
        let mut code = AccountCode { channel, address, ..code.clone() };
        if let Some(opened) = opened.as_ref().filter(|_| moves) {
            // What is sealed opens only for the way that it takes.
            code.sealed = self.seal(opened, &code);
        }
        Ok((Account { code: Some(code), sends, ..account.clone() }, opened))
    }
}
