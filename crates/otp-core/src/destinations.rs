//! Where codes may go.

use crate::number::{MobileNumber, NumberTypes, Region, UnknownRegion};

/// Countries that are served, and ranges that are not.
#[derive(Debug, Clone)]
pub struct Destinations {
    /// None for all.
    allowed: Vec<Region>,
    /// In E.164, with the plus.
    blocked: Vec<String>,
    types: NumberTypes,
}

/// Territories that share their country's calling code, numbers and rates, each with the country that it goes with: to
/// send to one is to send to the other, and the metadata cannot always tell them apart. The countries behind +1 are not
/// among them: each has rates of its own.
const TERRITORIES: [(&str, &str); 13] = [
    ("GG", "GB"),
    ("IM", "GB"),
    ("JE", "GB"),
    ("AX", "FI"),
    ("SJ", "NO"),
    ("CC", "AU"),
    ("CX", "AU"),
    ("VA", "IT"),
    ("EH", "MA"),
    ("BL", "GP"),
    ("MF", "GP"),
    ("YT", "RE"),
    ("TA", "SH"),
];

/// Nothing is sent to this number. The messages do not repeat it.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum NotServed {
    /// Its country is not one of those that are served.
    #[error("numbers of this country are not served")]
    Country,
    /// It lies in a range that is not served.
    #[error("numbers of this range are not served")]
    Range,
    /// It is of a kind that is not served.
    #[error("mobileNumber is a {0} number, and the service sends no codes to those")]
    Kind(&'static str),
}

/// The text is no list of prefixes.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("entry {0} is not a plus and 1 to 15 digits, such as +1900")]
pub struct InvalidPrefix(usize);

impl Default for Destinations {
    /// Everywhere.
    fn default() -> Self {
        Self { allowed: Vec::new(), blocked: Vec::new(), types: NumberTypes::ALL }
    }
}

impl Destinations {
    /// Numbers of these kinds only.
    pub fn of_types(self, types: NumberTypes) -> Self {
        Self { types, ..self }
    }

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
        if !self.types.contains(number.kind()) {
            return Err(NotServed::Kind(number.kind().name()));
        }
        if self.blocked.iter().any(|prefix| number.as_str().starts_with(&**prefix)) {
            return Err(NotServed::Range);
        }
        // What a number's country is takes a look at all of its calling code: only where it is asked for.
        if self.allowed.is_empty() || number.region().is_some_and(|region| self.allows(region)) {
            Ok(())
        } else {
            Err(NotServed::Country)
        }
    }

    /// Whether a country is served, or the one that it goes with.
    fn allows(&self, region: Region) -> bool {
        let goes_with =
            TERRITORIES.iter().find(|(territory, _)| region.is(territory)).map(|(_, country)| *country);
        self.allowed
            .iter()
            .any(|allowed| *allowed == region || goes_with.is_some_and(|country| allowed.is(country)))
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
    fn a_territory_goes_with_its_country() {
        let britain = Destinations::default().allow("GB").unwrap();
        for (number, territory) in [("+447781123456", "GG"), ("+447624123456", "IM"), ("+447797123456", "JE")]
        {
            assert_eq!(MobileNumber::parse(number, None).unwrap().region(), Some(territory.parse().unwrap()));
            assert_eq!(check(&britain, number), Ok(()), "{territory}");
        }
        let jersey = Destinations::default().allow("JE").unwrap();
        assert_eq!(check(&jersey, "+447797123456"), Ok(()));
        assert_eq!(
            check(&jersey, "+447400123456"),
            Err(NotServed::Country),
            "Britain does not go with Jersey"
        );
        let america = Destinations::default().allow("US").unwrap();
        assert_eq!(
            check(&america, "+18765550123"),
            Err(NotServed::Country),
            "Jamaica is a country of its own"
        );
        for (territory, country) in TERRITORIES {
            let [territory, country] = [territory, country].map(|code| code.parse::<Region>().unwrap());
            assert_eq!(territory.calling_code(), country.calling_code(), "{territory:?}");
        }
    }

    #[test]
    fn numbers_of_other_kinds_are_not_served() {
        let mobiles = Destinations::default().of_types(NumberTypes::mobiles());
        assert_eq!(check(&mobiles, "+447911123456"), Ok(()));
        assert_eq!(check(&mobiles, "+14155550123"), Ok(()));
        for (number, kind) in [
            ("+447012345678", "personal"),
            ("+445612345678", "voip"),
            ("+881612345678", "satellite"),
            ("+883510012345", "non-geographic"),
        ] {
            assert_eq!(check(&mobiles, number), Err(NotServed::Kind(kind)), "{number}");
            assert_eq!(check(&Destinations::default(), number), Ok(()), "{number}");
        }
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
