//! Mobile numbers.

mod table;

use rlibphonenumber::{PHONE_NUMBER_UTIL, PhoneNumberFormat, PhoneNumberType};
use std::borrow::Cow;

/// A number in E.164 (`+14155550123`) that can be a mobile, by the metadata of libphonenumber.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct MobileNumber {
    e164: String,
    /// Digits of the country calling code (ITU-T E.164, section 6.2.1): 1 to 3.
    calling_code_digits: usize,
}

/// The country whose national numbers are taken: an ISO 3166-1 alpha-2 code such as `GB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region(rlibphonenumber::Region);

/// No country that libphonenumber knows.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not an ISO 3166-1 country code of two capital letters such as GB")]
pub struct UnknownRegion;

/// The text is no number that a code could be sent to. The messages do not repeat it.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum InvalidMobileNumber {
    /// Not a number at all, or not one of its country's.
    #[error("mobileNumber is not a valid phone number; write it in E.164, such as +14155550123")]
    Invalid,
    /// A national number where no region is configured.
    #[error("mobileNumber has no country code; write it in E.164, such as +14155550123")]
    NoCountryCode,
    /// Valid, and of a kind that surely is no mobile.
    #[error("mobileNumber is a {0} number and cannot receive a code")]
    NotMobile(&'static str),
}

impl std::str::FromStr for Region {
    type Err = UnknownRegion;

    fn from_str(code: &str) -> Result<Self, UnknownRegion> {
        let region = code.parse::<rlibphonenumber::Region>().map_err(|_| UnknownRegion)?;
        // The library takes any two letters. A country is one whose calling code it knows.
        match PHONE_NUMBER_UTIL.get_country_code_for_region(region) {
            Some(_) if region.to_string() == code => Ok(Self(region)),
            _ => Err(UnknownRegion),
        }
    }
}

impl MobileNumber {
    /// Longest text that is looked at, in bytes: 15 digits (ITU-T E.164, section 6) leave plenty of
    /// room for spaces and brackets.
    const MAX_TEXT: usize = 64;

    /// Reads a number in E.164 or, with a `region`, in that country's national form. Spaces, dots,
    /// dashes and brackets between the digits do not matter.
    pub fn parse(text: &str, region: Option<Region>) -> Result<Self, InvalidMobileNumber> {
        let digits = dialled(text).ok_or(InvalidMobileNumber::Invalid)?;
        if !digits.starts_with('+') && region.is_none() {
            return Err(InvalidMobileNumber::NoCountryCode);
        }
        if let Some(calling_code_digits) =
            digits.strip_prefix('+').and_then(|digits| table::calling_code_digits(digits.as_bytes()))
        {
            return Ok(Self { e164: digits.into_owned(), calling_code_digits });
        }
        let number = PHONE_NUMBER_UTIL
            .parse(&digits, region.map(|region| region.0))
            .map_err(|_| InvalidMobileNumber::Invalid)?;
        match number.get_type() {
            // A number is valid if it has a type: to ask is_valid as well would match it all over again.
            PhoneNumberType::Unknown => Err(InvalidMobileNumber::Invalid),
            kind => match no_mobile(kind) {
                Some(kind) => Err(InvalidMobileNumber::NotMobile(kind)),
                None => Ok(Self {
                    e164: number.format_as(PhoneNumberFormat::E164).into_owned(),
                    calling_code_digits: number.country_code.to_string().len(),
                }),
            },
        }
    }

    /// The number in E.164.
    pub fn as_str(&self) -> &str {
        &self.e164
    }

    /// The range that the number belongs to: its calling code and the first three digits after that, such as
    /// `+44791` or `+1415`. Operators are given their numbers in blocks about as large, and whoever pumps
    /// messages for money does it with the numbers of one.
    pub fn range(&self) -> &str {
        let end = 1 + self.calling_code_digits + 3;
        // No number is that short; if one ever is, it is a range of its own.
        self.e164.get(..end).unwrap_or(&self.e164)
    }

    /// The country that the number is assigned to; `None` for one of no country, such as a satellite phone's.
    /// Costs as much as reading the number.
    pub fn region(&self) -> Option<Region> {
        PHONE_NUMBER_UTIL.parse(&self.e164, None).ok()?.get_region_code().map(Region)
    }
}

impl std::fmt::Debug for MobileNumber {
    /// No whole number ends up in a log by accident.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MobileNumber")
    }
}

/// The digits of `text` with the plus in front, if there is one. `None` if anything else stands in it
/// than digits and what people put between them. libphonenumber itself would take letters, extensions
/// and several kinds of digits, and read another number than the one that was meant.
fn dialled(text: &str) -> Option<Cow<'_, str>> {
    let text = text.trim();
    if text.len() > MobileNumber::MAX_TEXT {
        return None;
    }
    let (plus, rest) = match text.strip_prefix('+') {
        Some(rest) => ("+", rest),
        None => ("", text),
    };
    if rest.bytes().all(|byte| byte.is_ascii_digit()) {
        return (!rest.is_empty()).then_some(Cow::Borrowed(text));
    }
    let mut digits = String::from(plus);
    for c in rest.chars() {
        match c {
            '0'..='9' => digits.push(c),
            ' ' | '.' | '-' | '(' | ')' | '[' | ']' => {}
            _ => return None,
        }
    }
    (digits.len() > plus.len()).then_some(Cow::Owned(digits))
}

/// What a number is, if it is surely no mobile. VoIP and personal numbers may well take messages.
fn no_mobile(kind: PhoneNumberType) -> Option<&'static str> {
    match kind {
        PhoneNumberType::FixedLine => Some("fixed-line"),
        PhoneNumberType::TollFree => Some("toll-free"),
        PhoneNumberType::PremiumRate => Some("premium-rate"),
        PhoneNumberType::SharedCost => Some("shared-cost"),
        PhoneNumberType::Pager => Some("pager"),
        PhoneNumberType::UAN => Some("company"),
        PhoneNumberType::VoiceMail => Some("voicemail"),
        PhoneNumberType::Mobile
        | PhoneNumberType::FixedLineOrMobile
        | PhoneNumberType::VoIP
        | PhoneNumberType::PersonalNumber
        | PhoneNumberType::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<String, InvalidMobileNumber> {
        MobileNumber::parse(text, None).map(|number| number.e164)
    }

    #[test]
    fn one_number_however_it_is_written() {
        for text in [
            "+14155550123",
            "+1 415 555 0123",
            "+1.415.555.0123",
            "+1-415-555-0123",
            "+1 (415) 555-0123",
            "  +1 [415] 555 0123  ",
            "+ 1 415 5550123",
        ] {
            assert_eq!(parse(text).unwrap(), "+14155550123", "{text}");
        }
        assert_eq!(parse("+44 (0)7911 123456").unwrap(), "+447911123456");
    }

    #[test]
    fn mobiles_of_many_countries_are_taken() {
        for number in [
            "+447911123456",
            "+4915112345678",
            "+33612345678",
            "+919876543210",
            "+8613812345678",
            "+5511961234567",
            "+2348021234567",
            "+61412345678",
            "+819012345678",
            "+393123456789",
            "+41781234567",
            "+6591234567",
        ] {
            assert_eq!(parse(number).unwrap(), number);
        }
    }

    #[test]
    fn a_number_knows_its_range_and_its_country() {
        for (number, range, region) in [
            ("+14155550123", "+1415", "US"),
            ("+16135550123", "+1613", "CA"),
            ("+447400123456", "+44740", "GB"),
            ("+992901234567", "+992901", "TJ"),
            ("+6591234567", "+65912", "SG"),
        ] {
            let number = MobileNumber::parse(number, None).unwrap();
            assert_eq!(number.range(), range);
            assert_eq!(number.region(), Some(region.parse().unwrap()), "{range}");
        }
    }

    #[test]
    fn what_is_no_number_is_invalid() {
        let long = "+1".repeat(40);
        for text in [
            "",
            " ",
            "+",
            "()",
            "abc",
            "+1",
            "+1415555012",
            "+141555501234",
            "+0000000000",
            "+99912345678",
            "+1415555O123",
            "+1 415 555 0123 x9",
            "tel:+14155550123",
            "+14155550123;ext=1",
            "1+4155550123",
            "++14155550123",
            "+1/415/555/0123",
            "+1\u{ff14}155550123",
            "+١٤١٥٥٥٥٠١٢٣",
            "+14155550123\0",
            &long,
        ] {
            assert_eq!(parse(text), Err(InvalidMobileNumber::Invalid), "{text:?}");
        }
    }

    #[test]
    fn what_is_surely_no_mobile_is_refused_by_its_kind() {
        for (number, kind) in [
            ("+442079460018", "fixed-line"),
            ("+49301234567", "fixed-line"),
            ("+18005550123", "toll-free"),
            ("+19005550123", "premium-rate"),
            ("+491803123456", "shared-cost"),
        ] {
            assert_eq!(parse(number), Err(InvalidMobileNumber::NotMobile(kind)), "{number}");
        }
    }

    #[test]
    fn a_national_number_needs_a_region() {
        let region = "GB".parse().unwrap();
        assert_eq!(parse("07911 123456"), Err(InvalidMobileNumber::NoCountryCode));
        assert_eq!(MobileNumber::parse("07911 123456", Some(region)).unwrap().e164, "+447911123456");
        assert_eq!(MobileNumber::parse("+14155550123", Some(region)).unwrap().e164, "+14155550123");
    }

    #[test]
    fn a_region_is_a_country_that_has_numbers() {
        for code in ["", "gb", "GBR", "XX", "ZZ", "G1", "Großbritannien"] {
            assert_eq!(code.parse::<Region>(), Err(UnknownRegion), "{code}");
        }
    }

    proptest! {
        #[test]
        fn normalisation_is_idempotent_and_blind_to_punctuation(
            line in 2_000_000u32..9_999_999, gaps in prop::collection::vec(0usize..6, 11),
        ) {
            let digits = format!("1415{line}");
            let mut text = String::from("+");
            for (digit, gap) in digits.chars().zip(&gaps) {
                text.push(digit);
                text.push_str(["", " ", ".", "-", ") ", " ["][*gap]);
            }
            if let Ok(number) = MobileNumber::parse(&text, None) {
                prop_assert_eq!(&number.e164, &format!("+{digits}"));
                prop_assert_eq!(MobileNumber::parse(&number.e164, None).unwrap().e164, number.e164);
            } else {
                let plain = MobileNumber::parse(&format!("+{digits}"), None);
                prop_assert_eq!(plain, Err(InvalidMobileNumber::Invalid));
            }
        }

        #[test]
        fn whatever_is_taken_is_e164_and_stays_as_it_is(text in "\\+?[0-9 .()-]{4,20}") {
            if let Ok(number) = MobileNumber::parse(&text, Some("DE".parse().unwrap())) {
                prop_assert!(number.e164.len() <= 16 && number.e164.starts_with('+'));
                prop_assert!(number.e164[1..].bytes().all(|byte| byte.is_ascii_digit()));
                prop_assert_eq!(MobileNumber::parse(&number.e164, None).unwrap().e164, number.e164);
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,80}") {
            let _ = MobileNumber::parse(&text, Some("US".parse().unwrap()));
        }
    }
}
