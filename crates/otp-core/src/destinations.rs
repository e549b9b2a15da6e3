//! Where codes may go.

use crate::number::{MobileNumber, Region, UnknownRegion};

/// Countries that are served, and ranges that are not.
#[derive(Debug, Clone, Default)]
pub struct Destinations {
    /// None for all.
    allowed: Vec<Region>,
    /// In E.164, with the plus.
    blocked: Vec<String>,
}

/// Nothing is sent to this number. The messages do not repeat it.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum NotServed {
    /// Its country is not one of those that are served.
    #[error("numbers of this country are not served")]
    Country,
    /// It lies in a range that is not served.
    #[error("numbers of this range are not served")]
    Range,
}

/// The text is no list of prefixes.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("entry {0} is not a plus and 1 to 15 digits, such as +1900")]
pub struct InvalidPrefix(usize);

impl Destinations {
    /// Reads a list of countries, such as `GB,DE`; an empty one is for all.
    pub fn allow(mut self, list: &str) -> Result<Self, UnknownRegion> {
        self.allowed = entries(list).map(str::parse).collect::<Result<_, _>>()?;
        Ok(self)
    }

    /// Reads a list of prefixes, such as `+1900,+88213`.
    pub fn block(mut self, list: &str) -> Result<Self, InvalidPrefix> {
        let digits =
            |text: &str| (1..=15).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        let prefix = |(entry, text): (usize, &str)| match text.strip_prefix('+') {
            Some(rest) if digits(rest) => Ok(text.to_owned()),
            _ => Err(InvalidPrefix(entry)),
        };
        self.blocked = (1..).zip(entries(list)).map(prefix).collect::<Result<_, _>>()?;
        Ok(self)
    }

    /// Whether codes go to `number`.
    pub fn check(&self, number: &MobileNumber) -> Result<(), NotServed> {
        if self.blocked.iter().any(|prefix| number.as_str().starts_with(&**prefix)) {
            return Err(NotServed::Range);
        }
        // What a number's country is takes a look at all of its calling code: only where it is asked for.
        if self.allowed.is_empty() || number.region().is_some_and(|region| self.allowed.contains(&region)) {
            Ok(())
        } else {
            Err(NotServed::Country)
        }
    }
}

fn entries(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(destinations: &Destinations, number: &str) -> Result<(), NotServed> {
        destinations.check(&MobileNumber::parse(number, None).unwrap())
    }

    #[test]
    fn everything_is_served_unless_it_is_said_otherwise() {
        assert_eq!(check(&Destinations::default(), "+14155550123"), Ok(()));
    }

    #[test]
    fn other_countries_are_not_served_where_some_are_named() {
        let some = Destinations::default().allow("US, GB").unwrap();
        assert_eq!(check(&some, "+14155550123"), Ok(()));
        assert_eq!(check(&some, "+447400123456"), Ok(()));
        assert_eq!(check(&some, "+4915112345678"), Err(NotServed::Country));
        assert_eq!(
            check(&some, "+16135550123"),
            Err(NotServed::Country),
            "Canada, behind the same calling code"
        );
        assert!(Destinations::default().allow("US,XX").is_err());
    }

    #[test]
    fn blocked_ranges_are_not_served_in_any_country() {
        let some = Destinations::default().allow("US").unwrap().block("+1415555, +44").unwrap();
        assert_eq!(check(&some, "+14155550123"), Err(NotServed::Range));
        assert_eq!(check(&some, "+14156660123"), Ok(()));
        assert_eq!(Destinations::default().block("+44,1900").unwrap_err(), InvalidPrefix(2));
        assert!(Destinations::default().block("+").is_err());
    }
}
