//! What people type and paste, character by character.

use icu_properties::{
    CodePointMapData, CodePointSetData,
    props::{DefaultIgnorableCodePoint, GeneralCategory},
};

/// Longest text that is looked at, in bytes; libphonenumber reads no more of one, either.
pub(crate) const MAX_TEXT: usize = 250;

/// What a reader sees in a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Typed {
    /// A decimal digit of any script, by its value.
    Digit(u8),
    /// Nothing: white space, line ends, and marks that only steer how text is set.
    Blank,
    Dash,
    Other,
}

/// What a reader sees in `c`.
pub(crate) fn typed(c: char) -> Typed {
    match c {
        '0'..='9' => return Typed::Digit(c as u8 - b'0'),
        // A mathematical symbol, and what a word processor makes of a hyphen before a digit.
        '-' | '\u{2212}' => return Typed::Dash,
        _ if c.is_whitespace() => return Typed::Blank,
        _ if c.is_ascii() => return Typed::Other,
        _ => {}
    }
    match category(c) {
        GeneralCategory::DecimalNumber => Typed::Digit(digit(c)),
        GeneralCategory::DashPunctuation => Typed::Dash,
        GeneralCategory::Format => Typed::Blank,
        _ if CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c) => Typed::Blank,
        _ => Typed::Other,
    }
}

fn category(c: char) -> GeneralCategory {
    CodePointMapData::<GeneralCategory>::new().get(c)
}

/// The value of a decimal digit. Those of a script stand one after the other from zero on (The Unicode Standard, section
/// 4.6), and where several sets are neighbours, each has its ten.
fn digit(c: char) -> u8 {
    let before = (0..u32::from(c)).rev().map_while(char::from_u32);
    let before = before.take_while(|c| category(*c) == GeneralCategory::DecimalNumber).count();
    (before % 10) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_of_every_script_have_their_value() {
        let mut sets = 0;
        let digits = ('\0'..=char::MAX).filter(|c| matches!(typed(*c), Typed::Digit(_)));
        for (index, c) in digits.enumerate() {
            assert_eq!(typed(c), Typed::Digit((index % 10) as u8), "{c:?}");
            sets = index / 10 + 1;
        }
        assert!(sets >= 76, "Unicode 16 has 76 sets of digits, and here are {sets}");
        for (digits, script) in [
            ("0123456789", "ASCII"),
            ("٠١٢٣٤٥٦٧٨٩", "Arabic"),
            ("۰۱۲۳۴۵۶۷۸۹", "Persian"),
            ("०१२३४५६७८९", "Devanagari"),
            ("০১২৩৪৫৬৭৮৯", "Bengali"),
            ("๐๑๒๓๔๕๖๗๘๙", "Thai"),
            ("０１２３４５６７８９", "full width"),
            ("𝟘𝟙𝟚𝟛𝟜𝟝𝟞𝟟𝟠𝟡", "mathematical, the second of five sets in a row"),
        ] {
            for (value, c) in (0..).zip(digits.chars()) {
                assert_eq!(typed(c), Typed::Digit(value), "{script}");
            }
        }
    }

    #[test]
    fn what_cannot_be_seen_is_blank() {
        for c in " \t\r\n\u{a0}\u{ad}\u{2009}\u{202f}\u{3000}\u{2028}\u{85}\u{61c}\u{200b}\u{200c}\u{200d}\u{200e}\u{200f}\
                  \u{202a}\u{202c}\u{2060}\u{2066}\u{2069}\u{feff}\u{fe0f}\u{34f}"
            .chars()
        {
            assert_eq!(typed(c), Typed::Blank, "{c:?}");
        }
    }

    #[test]
    fn dashes_are_dashes_and_the_rest_is_something_else() {
        for c in "-\u{2010}\u{2011}\u{2012}\u{2013}\u{2014}\u{2015}\u{2212}\u{fe63}\u{ff0d}\u{58a}".chars() {
            assert_eq!(typed(c), Typed::Dash, "{c:?}");
        }
        // Numbers that are no decimal digits, letters that look like some, and what only a program would send.
        for c in "\0\u{7f}aO²½⅓Ⅳ①〇五.,+_/#*☎\u{301}".chars() {
            assert_eq!(typed(c), Typed::Other, "{c:?}");
        }
    }
}
