//! Giving a code again.

use crate::{
    account::{Account, AccountCode},
    code::Code,
    decision::{Case, Decision, EventKind},
    refusal::Refusal,
};

impl Case<'_> {
    /// Gives the same code again while it lives. Its life does not get longer. It goes where the last one went, or to the
    /// recipient itself, if that was an address which was not confirmed.
    pub fn resend(&self) -> Decision {
        if let Some(decision) = self.before_sending() {
            return decision;
        }
        match self.resent() {
            Ok((account, code)) => self.sent(EventKind::Resent, account, code),
            Err(refusal) => self.not_sent(refusal),
        }
    }

    fn resent(&self) -> Result<(Account, Code), Refusal> {
        let account = self.account.ok_or(Refusal::NotFound)?;
        if let Some(locked) = account.refused_by_lock(self.now) {
            return Err(locked);
        }
        let code = account.code.as_ref().ok_or(Refusal::NotFound)?;
        if let Some(dead) = code.dead(self.policy, self.now) {
            return Err(dead);
        }
        let sends = self.admitted(account)?;
        let opened = self.open(code).ok_or(Refusal::Expired)?;
        let (channel, address) = account.route(self.owner.recipient);
        let mut code = AccountCode { channel, address, ..code.clone() };
        if account.code.as_ref().is_some_and(|old| (old.channel, &old.address) != (channel, &code.address)) {
            // What is sealed opens only for the way that it takes.
            code.sealed = self.seal(&opened, &code);
        }
        Ok((Account { code: Some(code), sends, ..account.clone() }, opened))
    }
}
