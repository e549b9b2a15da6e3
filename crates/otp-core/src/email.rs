//! A mail address.

use email_address::Options;
use idna::AsciiDenyList;

/// A mail address (RFC 5321 and 5322): local part, `@`, and a domain of at least two labels.
/// The domain is in lower case and ASCII, an internationalised one in its A-labels (RFC 5890): it is not case
/// sensitive, and every mail server reads it so. The local part is as it was given.
#[derive(Clone, PartialEq, Eq)]
pub struct EmailAddress(String);

impl std::fmt::Debug for EmailAddress {
    /// No address ends up in a log by accident.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EmailAddress")
    }
}

/// The text is no mail address that a code could be sent to. The messages do not repeat it.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum InvalidEmail {
    /// Not of the form of an address.
    #[error("email is not a mail address such as ada@example.com")]
    Form,
    /// `"ada lovelace"@example.com` is an address to RFC 5321, and to few mail servers.
    #[error(
        "email has a local part in quotes, which few mail servers take; write it without, such as ada@example.com"
    )]
    Quoted,
    /// `ada@[192.0.2.1]`
    #[error("email names a machine by its number; write the domain, such as ada@example.com")]
    Literal,
    /// A domain that is none, also in another script.
    #[error("email has a domain that cannot exist; write it as in ada@example.com")]
    Domain,
}

impl EmailAddress {
    /// The address as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// All of it in lower case.
    pub(crate) fn to_lowercase(&self) -> Self {
        Self(self.0.to_lowercase())
    }
}

impl std::str::FromStr for EmailAddress {
    type Err = InvalidEmail;

    fn from_str(text: &str) -> Result<Self, InvalidEmail> {
        let (local, domain) = text.trim().rsplit_once('@').ok_or(InvalidEmail::Form)?;
        if local.starts_with('"') {
            return Err(InvalidEmail::Quoted);
        }
        if domain.starts_with('[') {
            return Err(InvalidEmail::Literal);
        }
        // Most are ASCII, and need no tables. The others are mapped as browsers do (UTS #46).
        let domain = if domain.is_ascii() {
            domain.to_ascii_lowercase()
        } else {
            let ascii = idna::domain_to_ascii_cow(domain.as_bytes(), AsciiDenyList::STD3);
            ascii.map_err(|_| InvalidEmail::Domain)?.into_owned()
        };
        // "Ada <ada@example.com>" is no place to send a code to.
        let options = Options::default().with_required_tld().without_display_text().without_domain_literal();
        let address = email_address::EmailAddress::parse_with_options(&format!("{local}@{domain}"), options)
            .map_err(|_| InvalidEmail::Form)?;
        Ok(Self(address.to_string()))
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
            ("ada@Bücher.example", "ada@xn--bcher-kva.example"),
            ("ada@xn--bcher-kva.example", "ada@xn--bcher-kva.example"),
            ("ada@例え.テスト", "ada@xn--r8jz45g.xn--zckzah"),
            ("ada@ｅｘａｍｐｌｅ。com", "ada@example.com"),
        ] {
            assert_eq!(text.parse::<EmailAddress>().unwrap().as_str(), address);
        }
    }

    #[test]
    fn what_no_mail_reaches_is_refused() {
        let long = format!("{}@example.com", "a".repeat(65));
        for (text, reason) in [
            ("\"ada lovelace\"@example.com", InvalidEmail::Quoted),
            ("ada@[192.0.2.1]", InvalidEmail::Literal),
            ("ada@[IPv6:2001:db8::1]", InvalidEmail::Literal),
            ("ada@bü cher.example", InvalidEmail::Domain),
            ("ada@\u{200d}.example", InvalidEmail::Domain),
        ] {
            assert_eq!(text.parse::<EmailAddress>(), Err(reason), "{text}");
        }
        for text in [
            "",
            "ada",
            "ada@",
            "@example.com",
            "ada@localhost",
            "ada@@example.com",
            "a b@example.com",
            "Ada <ada@example.com>",
            "ada@exa mple.com",
            "ada@example..com",
            "ada@example.com\r\nBcc: eve@example.com",
            &long,
        ] {
            assert_eq!(text.parse::<EmailAddress>(), Err(InvalidEmail::Form), "{text}");
        }
    }

    #[test]
    fn of_a_recipient_all_is_in_lower_case() {
        let address: EmailAddress = "Ada.L@Example.com".parse().unwrap();
        assert_eq!(address.to_lowercase().as_str(), "ada.l@example.com");
    }
}
