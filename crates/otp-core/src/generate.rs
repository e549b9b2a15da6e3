//! Making a code, and replacing it.

use crate::{
    account::Account,
    decision::{Case, Decision, EventKind},
    recipient::Delivery,
    refusal::Refusal,
};

impl Case<'_> {
    /// Makes a code, in the place of any that lives, and creates or updates the account. The old one is dead at once.
    pub fn generate(&self, delivery: &Delivery) -> Decision {
        if let Some(decision) = self.before_sending() {
            return decision;
        }
        let mut account = self.account.cloned().unwrap_or_default();
        let address = match delivery {
            Delivery::Email(address) => Some(address.as_str().to_owned()),
            Delivery::Sms { .. } => None,
        };
        let code = self.new_code(self.next_revision(), delivery.channel(), address);
        match self.admitted(&account) {
            Err(refusal) => self.not_sent(refusal, Some(code)),
            Ok(sends) => {
                if let Some(told) = delivery.email() {
                    account.note_email(told.as_str());
                }
                self.sent_new(EventKind::Generated, Account { code: Some(code), sends, ..account })
            }
        }
    }

    /// Makes a code for a known account in the place of its last one, which is dead at once: by the same channel, to
    /// the recipient itself or an address that was confirmed.
    pub fn regenerate(&self) -> Decision {
        if let Some(decision) = self.before_sending() {
            return decision;
        }
        // In uniform mode an unknown recipient takes as long as a known one.
        let nothing = Account::default();
        let account = self.account.unwrap_or(&nothing);
        let (channel, address) = account.route(self.owner.recipient);
        let code = self.new_code(self.next_revision(), channel, address);
        let admitted = self.account.map_or(Err(Refusal::NotFound), |account| self.admitted(account));
        match admitted {
            Err(refusal) => self.not_sent(refusal, Some(code)),
            Ok(sends) => {
                self.sent_new(EventKind::Regenerated, Account { code: Some(code), sends, ..account.clone() })
            }
        }
    }

    fn sent_new(&self, kind: EventKind, account: Account) -> Decision {
        let account = Account { check_refused: None, ..account };
        self.sent(kind, account, Some(self.draft.code.again()))
    }
}
