//! Where a code goes.

use crate::email::EmailAddress;
use otp_terms::Channel;

/// Where a code is to go, beside the number itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipient {
    /// To the number, by text message. An address is only noted.
    Sms {
        /// The user's address, if the request told it.
        email: Option<EmailAddress>,
    },
    /// To this address.
    Email(EmailAddress),
}

impl Recipient {
    /// The channel that the code takes.
    pub fn channel(&self) -> Channel {
        match self {
            Self::Sms { .. } => Channel::Sms,
            Self::Email(_) => Channel::Email,
        }
    }

    /// The address that the request told, whether or not the code goes there.
    pub fn email(&self) -> Option<&EmailAddress> {
        match self {
            Self::Sms { email } => email.as_ref(),
            Self::Email(email) => Some(email),
        }
    }
}
