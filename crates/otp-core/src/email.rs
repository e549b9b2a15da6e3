//! A user's mail address.

use email_address::Options;

/// A mail address (RFC 5321 and 5322): local part, `@`, and a domain of at least two labels.
/// The domain is in lower case, for it is not case sensitive; the local part is as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmailAddress(String);

/// The text is no mail address that a code could be sent to. The message does not repeat it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("email is not a mail address such as ada@example.com")]
pub struct InvalidEmail;

impl EmailAddress {
    /// The address as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for EmailAddress {
    type Err = InvalidEmail;

    fn from_str(text: &str) -> Result<Self, InvalidEmail> {
        // "Ada <ada@example.com>" and user@[192.0.2.1] are no places to send a code to.
        let options = Options::default().with_required_tld().without_display_text().without_domain_literal();
        let address = email_address::EmailAddress::parse_with_options(text.trim(), options)
            .map_err(|_| InvalidEmail)?;
        Ok(Self(format!("{}@{}", address.local_part(), address.domain().to_lowercase())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_their_domain_lowered() {
        for (text, address) in [
            ("ada@example.com", "ada@example.com"),
            (" Ada.L+otp@Mail.Example.COM ", "Ada.L+otp@mail.example.com"),
            ("ø@example.com", "ø@example.com"),
        ] {
            assert_eq!(text.parse::<EmailAddress>().unwrap().as_str(), address);
        }
    }

    #[test]
    fn what_no_mail_reaches_is_refused() {
        let long = format!("{}@example.com", "a".repeat(65));
        for text in [
            "",
            "ada",
            "ada@",
            "@example.com",
            "ada@localhost",
            "ada@@example.com",
            "a b@example.com",
            "Ada <ada@example.com>",
            "ada@[192.0.2.1]",
            "ada@exa mple.com",
            "ada@example..com",
            "ada@example.com\r\nBcc: eve@example.com",
            &long,
        ] {
            assert_eq!(text.parse::<EmailAddress>(), Err(InvalidEmail), "{text}");
        }
    }
}
