//! Whom a code is for, and where it goes.

use crate::{email::EmailAddress, number::MobileNumber};
use otp_terms::Channel;

/// Whom a code is for: what a request names an account by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipient {
    /// A mobile number.
    Mobile(MobileNumber),
    /// A mail address, in lower case.
    Mail(EmailAddress),
}

impl Recipient {
    /// The recipient that is a mail address. Providers do not tell upper from lower case in it, and people mix them.
    pub fn mail(address: &EmailAddress) -> Self {
        Self::Mail(address.to_lowercase())
    }

    /// The number in E.164, or the address.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Mobile(number) => number.as_str(),
            Self::Mail(address) => address.as_str(),
        }
    }

    /// The number, of one that is a number.
    pub fn number(&self) -> Option<&MobileNumber> {
        match self {
            Self::Mobile(number) => Some(number),
            Self::Mail(_) => None,
        }
    }

    /// The address, of one that is an address.
    pub fn address(&self) -> Option<&EmailAddress> {
        match self {
            Self::Mobile(_) => None,
            Self::Mail(address) => Some(address),
        }
    }

    /// The range of numbers that it belongs to, which can be suspended. Mails have none: sending one earns nobody money.
    pub fn range(&self) -> Option<&str> {
        self.number().map(MobileNumber::range)
    }
}

/// Where a new code is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// To the number, by text message. An address is only noted.
    Sms {
        /// The user's address, if the request told it.
        email: Option<EmailAddress>,
    },
    /// To this address.
    Email(EmailAddress),
}

impl Delivery {
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
