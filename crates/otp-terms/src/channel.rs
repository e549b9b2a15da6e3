//! How a code reaches its user.

/// The way a code is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Channel {
    /// A text message to the mobile number.
    #[default]
    Sms,
    /// A mail to the user's address.
    Email,
}

/// The text names no channel.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("channel is either \"sms\" or \"email\"")]
pub struct InvalidChannel;

impl Channel {
    /// The name in requests, answers and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sms => "sms",
            Self::Email => "email",
        }
    }
}

impl std::str::FromStr for Channel {
    type Err = InvalidChannel;

    fn from_str(name: &str) -> Result<Self, InvalidChannel> {
        [Self::Sms, Self::Email].into_iter().find(|channel| channel.as_str() == name).ok_or(InvalidChannel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_nothing_else_is() {
        for channel in [Channel::Sms, Channel::Email] {
            assert_eq!(channel.as_str().parse(), Ok(channel));
        }
        for other in ["", "SMS", "sms ", "voice"] {
            assert_eq!(other.parse::<Channel>(), Err(InvalidChannel));
        }
    }
}
