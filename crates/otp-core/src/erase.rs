//! Erasing a recipient.

use crate::decision::{Answer, Case, Change, Charge, Decision, EventKind, OtpEvent, Record};
use crate::revision::Revision;

/// Longer than a request can be under way, in milliseconds, clocks of different hosts included.
const UNDER_WAY: i64 = 10_000;

impl Case<'_> {
    /// Removes all that is known of the recipient, known or not, and puts that on record.
    ///
    /// The event's version is the newest code that there ever was: whatever of it is still on its way is not delivered.
    /// Of an unknown recipient that is one of a moment before which no request can have begun that has not ended: an
    /// account that comes into being beside this is not meant.
    ///
    /// Both are as small as they can be: every new account, of any recipient, begins after them.
    pub fn erase(&self) -> Decision {
        let sequence = match self.account {
            Some(account) => account.revision.after(),
            None => Revision::from_stored(self.now.unix_millis() - UNDER_WAY),
        };
        let record = Record {
            account: Change::Erased { floor: sequence.max(self.floor) },
            event: OtpEvent { sequence, ..self.event(EventKind::Erased, None, None) },
            kept: None,
        };
        Decision { answer: Ok(Answer::Erased), record: Some(record), charged: Charge::Nothing, counts: None }
    }
}
