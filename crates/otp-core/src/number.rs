//! Mobile numbers.

mod kind;
mod table;

pub use kind::{NumberType, NumberTypes, UnknownNumberType};

use crate::typed::{MAX_TEXT, Typed, typed};
use rlibphonenumber::{
    NumberLengthType, PHONE_NUMBER_UTIL, PhoneNumber, PhoneNumberFormat, PhoneNumberType, ValidationError,
};
use std::borrow::Cow;

/// A number in E.164 (`+14155550123`) that can be a mobile, by the metadata of libphonenumber.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct MobileNumber {
    e164: String,
    /// Digits of the country calling code (ITU-T E.164, section 6.2.1): 1 to 3.
    calling_code_digits: usize,
    kind: NumberType,
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
    /// Something else than digits and what people put around them: letters, an extension, a service code.
    #[error("mobileNumber has characters that no phone number has; write it in E.164, such as +14155550123")]
    NotANumber,
    /// A national number where no region is configured.
    #[error("mobileNumber has no country code; write it in E.164, such as +14155550123")]
    NoCountryCode,
    /// Its first digits are the calling code of no country.
    #[error(
        "mobileNumber begins with the calling code of no country; write it in E.164, such as +14155550123"
    )]
    UnknownCountryCode,
    #[error("mobileNumber has too few digits for its country; write it in E.164, such as +14155550123")]
    TooShort,
    #[error("mobileNumber has too many digits for its country; write it in E.164, such as +14155550123")]
    TooLong,
    /// As long as a number of its country, and given to no one there.
    #[error(
        "mobileNumber is not a valid phone number of its country; write it in E.164, such as +14155550123"
    )]
    Invalid,
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

impl Region {
    /// Whether it is this one.
    pub(crate) fn is(self, code: &str) -> bool {
        code.parse::<rlibphonenumber::Region>().is_ok_and(|region| region == self.0)
    }

    /// Its calling code (ITU-T E.164).
    #[cfg(test)]
    pub(crate) fn calling_code(self) -> Option<i32> {
        PHONE_NUMBER_UTIL.get_country_code_for_region(self.0)
    }
}

impl MobileNumber {
    /// Reads a number in E.164 or, with a `region`, as it is dialled in that country, `00` and the calling code included.
    /// It may be written in any way in which a person reads it: what stands between the digits does not matter, nor what
    /// cannot be seen, nor of which script the digits are. Old ways of writing the mobiles of Argentina and Mexico are
    /// understood. Letters, extensions and service codes are refused: a number that is guessed may be another person's.
    pub fn parse(text: &str, region: Option<Region>) -> Result<Self, InvalidMobileNumber> {
        let dialled = dialled(text).ok_or(InvalidMobileNumber::NotANumber)?;
        if let Some(digits) = dialled.strip_prefix('+') {
            if let Some((calling_code_digits, kind)) = table::look_up(digits.as_bytes()) {
                return Ok(Self { e164: dialled.into_owned(), calling_code_digits, kind });
            }
            return Self::parse_dialled(&dialled, None);
        }
        let Some(region) = region else { return Err(InvalidMobileNumber::NoCountryCode) };
        // Some countries dial something else than 00 before a number of another one, and the library knows it.
        Self::parse_dialled(&dialled, Some(region)).or_else(|reason| match dialled.strip_prefix("00") {
            Some(rest) if !rest.is_empty() => Self::parse_dialled(&format!("+{rest}"), None),
            _ => Err(reason),
        })
    }

    /// Asks the library.
    fn parse_dialled(dialled: &str, region: Option<Region>) -> Result<Self, InvalidMobileNumber> {
        let number =
            PHONE_NUMBER_UTIL.parse(dialled, region.map(|region| region.0)).map_err(|error| match error {
                rlibphonenumber::ParseError::InvalidCountryCode => InvalidMobileNumber::UnknownCountryCode,
                rlibphonenumber::ParseError::TooLongNsn => InvalidMobileNumber::TooLong,
                _ => InvalidMobileNumber::TooShort,
            })?;
        match number.get_type() {
            // A number is valid if it has a type: to ask is_valid as well would match it all over again.
            PhoneNumberType::Unknown => as_was_once_written(&number).ok_or_else(|| why_invalid(&number)),
            kind => match NumberType::of(kind, number.country_code) {
                Ok(kind) => Ok(Self::of(&number, kind)),
                Err(kind) => as_was_once_written(&number).ok_or(InvalidMobileNumber::NotMobile(kind)),
            },
        }
    }

    fn of(number: &PhoneNumber, kind: NumberType) -> Self {
        Self {
            e164: number.format_as(PhoneNumberFormat::E164).into_owned(),
            calling_code_digits: number.country_code.to_string().len(),
            kind,
        }
    }

    /// The number in E.164.
    pub fn as_str(&self) -> &str {
        &self.e164
    }

    /// What kind of number it is.
    pub fn kind(&self) -> NumberType {
        self.kind
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

/// The digits that a text shows, with a plus in front if there is one. `None` if it shows letters or anything else that
/// makes it more than one number, such as an extension: the library would take some of it, and may read another number
/// than the one that was meant.
fn dialled(text: &str) -> Option<Cow<'_, str>> {
    if text.len() > MAX_TEXT {
        return None;
    }
    let plain = text.strip_prefix('+').unwrap_or(text);
    if !plain.is_empty() && plain.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Cow::Borrowed(text));
    }
    let text = text.trim_start_matches(|c| typed(c) == Typed::Blank);
    // RFC 3966. Its parameters have letters, and are refused.
    let text = match text.get(..4) {
        Some(scheme) if scheme.eq_ignore_ascii_case("tel:") => &text[4..],
        _ => text,
    };
    let mut digits = String::new();
    let mut ended = false;
    for c in text.chars() {
        match typed(c) {
            Typed::Digit(_) if ended => return None,
            Typed::Digit(value) => digits.push(char::from(b'0' + value)),
            Typed::Blank | Typed::Dash => {}
            Typed::Other => match c {
                // However often: a form may have put one before the one that was typed.
                '+' | '\u{ff0b}' if !has_digit(&digits) => "+".clone_into(&mut digits),
                _ if stands_in_numbers(c) => {}
                // A quotation mark, a full stop, a picture of a telephone: before a number or after it, but not in it.
                _ if c.is_alphanumeric() || c.is_control() || matches!(c, '#' | '*' | '+' | '\u{ff0b}') => {
                    return None;
                }
                _ => ended = has_digit(&digits),
            },
        }
    }
    has_digit(&digits).then_some(Cow::Owned(digits))
}

fn has_digit(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_digit())
}

/// Beside spaces and dashes, what libphonenumber takes between the digits of a number (`VALID_PUNCTUATION`), except for the
/// letter x.
fn stands_in_numbers(c: char) -> bool {
    matches!(
        c,
        '.' | '/'
            | '('
            | ')'
            | '['
            | ']'
            | '~'
            | '\u{2053}'
            | '\u{223c}'
            | '\u{30fc}'
            | '\u{ff08}'
            | '\u{ff09}'
            | '\u{ff0e}'
            | '\u{ff0f}'
            | '\u{ff3b}'
            | '\u{ff3d}'
            | '\u{ff5e}'
    )
}

/// The mobile that a number is which is written as it was until its country changed that: in Argentina without the 9 after
/// the calling code, or with the 15 of a call within the country; in Mexico with a 1 after it. `None` for another one.
fn as_was_once_written(number: &PhoneNumber) -> Option<MobileNumber> {
    const ARGENTINA: i32 = 54;
    const MEXICO: i32 = 52;
    let national = number.get_national_significant_number();
    let today = match number.country_code {
        ARGENTINA if !national.starts_with('9') => format!("+549{national}"),
        MEXICO => format!("+52{}", national.strip_prefix('1')?),
        _ => return None,
    };
    let number = PHONE_NUMBER_UTIL.parse(&today, None).ok()?;
    let kind = NumberType::of(number.get_type(), number.country_code).ok()?;
    (number.get_type() != PhoneNumberType::Unknown).then(|| MobileNumber::of(&number, kind))
}

/// Why a number is none of its country.
fn why_invalid(number: &PhoneNumber) -> InvalidMobileNumber {
    match number.is_possible_with_reason() {
        Err(ValidationError::InvalidCountryCode) => InvalidMobileNumber::UnknownCountryCode,
        Err(ValidationError::TooShort) | Ok(NumberLengthType::IsPossibleLocalOnly) => {
            InvalidMobileNumber::TooShort
        }
        Err(ValidationError::TooLong) => InvalidMobileNumber::TooLong,
        _ => InvalidMobileNumber::Invalid,
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
            "++14155550123",
            "+1/415/555/0123",
            "+1~415~555~0123",
            "(+1) 415 555 0123",
            "tel:+14155550123",
            "TEL: +1-415-555-0123",
            // What contacts of a telephone, a browser and a word processor put around a number and into it.
            "\u{202a}+1\u{a0}415\u{a0}555\u{2011}0123\u{202c}",
            "\u{200e}+1 (415) 555-0123\u{200e}",
            "\u{feff}+1\u{2009}415\u{202f}555\u{3000}0123\u{200b}",
            "\u{2068}+1 415 555\u{ad}0123\u{2069}",
            "+1\t415\t555\t0123\r\n",
            "+1 415\u{2013}555\u{2014}0123",
            "+1\u{2212}415\u{2010}555\u{2015}0123",
            "+1 415 555 01\u{2060}23",
            "\u{ff0b}\u{ff11}\u{ff08}\u{ff14}\u{ff11}\u{ff15}\u{ff09}\u{ff15}\u{ff15}\u{ff15}\u{ff0d}\u{ff10}\u{ff11}\u{ff12}\u{ff13}",
            "+١٤١٥٥٥٥٠١٢٣",
            "+۱ ۴۱۵ ۵۵۵ ۰۱۲۳",
            "+१४१५५५५०१२३",
            "\u{201c}+1 415 555 0123\u{201d}",
            "\u{260e} +1 415 555 0123.",
            "+1 415 555 0123,",
            "<+14155550123>",
        ] {
            assert_eq!(parse(text).as_deref(), Ok("+14155550123"), "{text:?}");
        }
        assert_eq!(parse("+44 (0)7911 123456").unwrap(), "+447911123456");
        assert_eq!(parse("(+44) 7911 123456").unwrap(), "+447911123456");
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
    fn what_is_no_number_is_refused_with_the_reason() {
        use InvalidMobileNumber::{Invalid, NotANumber, TooLong, TooShort, UnknownCountryCode};
        let long = format!("+1{}4155550123", " ".repeat(MAX_TEXT));
        for (text, reason) in [
            ("", NotANumber),
            (" ", NotANumber),
            ("+", NotANumber),
            ("()", NotANumber),
            ("abc", NotANumber),
            ("+1415555O123", NotANumber),
            ("+1 415 555 0123 x9", NotANumber),
            ("+1 415 555 0123 ext. 9", NotANumber),
            ("+14155550123;ext=1", NotANumber),
            ("tel:+14155550123;phone-context=+1", NotANumber),
            ("tel:tel:+14155550123", NotANumber),
            ("Tel. +14155550123", NotANumber),
            ("+14155550123#", NotANumber),
            ("*31#+14155550123", NotANumber),
            ("1+4155550123", NotANumber),
            ("+1+4155550123", NotANumber),
            ("+1,415,555,0123", NotANumber),
            ("+14155550123, +14155550124", NotANumber),
            ("+1415555\u{b2}123", NotANumber),
            ("+1\u{435}14155550123", NotANumber),
            ("+14155550123\0", NotANumber),
            (&long, NotANumber),
            ("+1", TooShort),
            ("+1415555012", TooShort),
            ("+447911", TooShort),
            ("+141555501234", TooLong),
            ("+14155550123141555501", TooLong),
            ("+0000000000", UnknownCountryCode),
            ("+99912345678", UnknownCountryCode),
            ("+10005550123", Invalid),
        ] {
            assert_eq!(parse(text), Err(reason), "{text:?}");
        }
    }

    #[test]
    fn old_ways_of_writing_mobiles_are_understood() {
        for (text, number) in [
            ("+52 1 55 1234 5678", "+525512345678"),
            ("+52 1 (33) 1234-5678", "+523312345678"),
            ("+52 55 1234 5678", "+525512345678"),
            ("+54 9 11 2345-6789", "+5491123456789"),
            ("+54 11 15 2345-6789", "+5491123456789"),
            ("+54 11 2345-6789", "+5491123456789"),
            ("+54 (0)11 15-2345-6789", "+5491123456789"),
            ("+54 351 15 234 5678", "+5493512345678"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(number), "{text}");
        }
        let national = |text, region: &str| {
            MobileNumber::parse(text, Some(region.parse().unwrap())).map(|number| number.e164)
        };
        assert_eq!(national("011 15-2345-6789", "AR").unwrap(), "+5491123456789");
        assert_eq!(national("1 55 1234 5678", "MX").unwrap(), "+525512345678");
        // Another country's fixed line is one.
        assert_eq!(parse("+49301234567"), Err(InvalidMobileNumber::NotMobile("fixed-line")));
    }

    #[test]
    fn a_number_knows_its_kind() {
        for (number, kind) in [
            ("+447911123456", NumberType::Mobile),
            ("+14155550123", NumberType::FixedLineOrMobile),
            ("+447012345678", NumberType::Personal),
            ("+445612345678", NumberType::Voip),
            ("+881612345678", NumberType::Satellite),
            ("+870773111632", NumberType::Satellite),
            ("+883510012345", NumberType::NonGeographic),
        ] {
            assert_eq!(MobileNumber::parse(number, None).map(|number| number.kind), Ok(kind), "{number}");
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
    fn two_noughts_are_a_plus_where_there_is_a_region() {
        assert_eq!(parse("0014155550123"), Err(InvalidMobileNumber::NoCountryCode));
        // As Britain dials it, and as the United States do not.
        for (region, text) in
            [("GB", "00 1 415 555 0123"), ("US", "0014155550123"), ("US", "011 1 415 555 0123")]
        {
            let region = Some(region.parse().unwrap());
            assert_eq!(MobileNumber::parse(text, region).unwrap().e164, "+14155550123", "{text}");
        }
        let region = Some("US".parse().unwrap());
        assert!(MobileNumber::parse("00", region).is_err());
        assert_eq!(MobileNumber::parse("00 44 7911 123456", region).unwrap().e164, "+447911123456");
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
                prop_assert!(plain.is_err());
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
