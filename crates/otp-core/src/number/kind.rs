//! Which kinds of numbers there are, and which of them are served.

use rlibphonenumber::PhoneNumberType;

/// The kind of a number that can receive a code, by libphonenumber's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NumberType {
    Mobile,
    /// Of a country whose mobiles cannot be told from its fixed lines, such as those behind +1.
    FixedLineOrMobile,
    Voip,
    /// One that is passed on to another number at its owner's choice, such as +44 70: often at a premium rate.
    Personal,
    /// Of a satellite network: +870 (Inmarsat) and +881 (the global mobile satellite system).
    Satellite,
    /// Of another calling code of no country, such as +882 and +883.
    NonGeographic,
}

/// No kind of number.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("entry {0} is none of {list}", list = names())]
pub struct UnknownNumberType(usize);

/// Each kind with its name in configuration and in messages.
const ALL: [(NumberType, &str); 6] = [
    (NumberType::Mobile, "mobile"),
    (NumberType::FixedLineOrMobile, "fixed-line-or-mobile"),
    (NumberType::Voip, "voip"),
    (NumberType::Personal, "personal"),
    (NumberType::Satellite, "satellite"),
    (NumberType::NonGeographic, "non-geographic"),
];

fn names() -> String {
    ALL.map(|(_, name)| name).join(", ")
}

impl NumberType {
    /// What the library says, if codes can be sent there. If not, what kind of number it is.
    pub(super) fn of(kind: PhoneNumberType, calling_code: i32) -> Result<Self, &'static str> {
        match kind {
            PhoneNumberType::FixedLine => Err("fixed-line"),
            PhoneNumberType::TollFree => Err("toll-free"),
            PhoneNumberType::PremiumRate => Err("premium-rate"),
            PhoneNumberType::SharedCost => Err("shared-cost"),
            PhoneNumberType::Pager => Err("pager"),
            PhoneNumberType::UAN => Err("company"),
            PhoneNumberType::VoiceMail => Err("voicemail"),
            _ if matches!(calling_code, 870 | 881) => Ok(Self::Satellite),
            // ITU-T E.164 assigned codes that belong to no country.
            _ if matches!(calling_code, 800 | 808 | 878 | 882 | 883 | 888 | 979) => Ok(Self::NonGeographic),
            PhoneNumberType::FixedLineOrMobile => Ok(Self::FixedLineOrMobile),
            PhoneNumberType::VoIP => Ok(Self::Voip),
            PhoneNumberType::PersonalNumber => Ok(Self::Personal),
            PhoneNumberType::Mobile | PhoneNumberType::Unknown => Ok(Self::Mobile),
        }
    }

    /// Its name in configuration.
    pub fn name(self) -> &'static str {
        ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NumberTypes(u8);

impl NumberTypes {
    /// All of them.
    pub const ALL: Self = Self(0x3f);

    /// What a person's mobile is, everywhere. Others are cheap to get by the thousand, or dear to send to.
    pub fn mobiles() -> Self {
        Self(NumberType::Mobile.bit() | NumberType::FixedLineOrMobile.bit())
    }

    /// Whether a kind is in it.
    pub fn contains(self, kind: NumberType) -> bool {
        self.0 & kind.bit() != 0
    }
}

impl std::str::FromStr for NumberTypes {
    type Err = UnknownNumberType;

    /// Reads a list such as `mobile,fixed-line-or-mobile,voip`.
    fn from_str(list: &str) -> Result<Self, UnknownNumberType> {
        let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        (1..).zip(entries).try_fold(Self(0), |types, (entry, name)| {
            let known = ALL.iter().find(|(_, known)| *known == name).ok_or(UnknownNumberType(entry))?;
            Ok(Self(types.0 | known.0.bit()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_kinds() {
        let types: NumberTypes = " mobile, voip,".parse().unwrap();
        assert!(types.contains(NumberType::Mobile) && types.contains(NumberType::Voip));
        assert!(!types.contains(NumberType::Personal));
        let named: NumberTypes = names().parse().unwrap();
        assert_eq!(named, NumberTypes::ALL);
        let error = "mobile,pager".parse::<NumberTypes>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "entry 2 is none of mobile, fixed-line-or-mobile, voip, personal, satellite, non-geographic"
        );
    }
}
