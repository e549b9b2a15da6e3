//! The one-time code itself.

use crate::{
    out_of_range::OutOfRange,
    random::Random,
    typed::{MAX_TEXT, Typed, typed},
};
use zeroize::Zeroizing;

/// How many digits a code has: 4 to 10.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeLength(u8);

impl CodeLength {
    /// Fails outside 4 to 10. Below six digits a code is for development only
    /// (NIST SP 800-63B-4, section 3.1.3.2: at least six decimal digits).
    pub fn new(digits: u64) -> Result<Self, OutOfRange> {
        OutOfRange::check(digits, 4..=10).map(|digits| Self(digits as u8))
    }

    /// The number of digits.
    pub const fn digits(self) -> usize {
        self.0 as usize
    }
}

impl Default for CodeLength {
    fn default() -> Self {
        Self(6)
    }
}

/// A one-time code: decimal digits, wiped from memory when dropped.
///
/// It has no `Display`, its `Debug` shows nothing of it, and it cannot be cloned: whoever wants the
/// digits says so with [`expose`](Self::expose).
pub struct Code(Zeroizing<Vec<u8>>);

/// The text is not of a code's form. The message does not repeat it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a code is exactly {0} digits")]
pub struct InvalidCode(usize);

impl Code {
    /// Draws a code of `length` digits, each of the 10^length values equally likely.
    ///
    /// A byte of 250 and more is thrown away, so that every digit has the same 25 of 250 bytes: no
    /// modulo bias (OWASP ASVS 5.0, 6.6.3 and 11.5.1: unpredictable, from a CSPRNG).
    pub fn generate(length: CodeLength, random: &impl Random) -> Self {
        let mut digits = Zeroizing::new(Vec::with_capacity(length.digits()));
        while digits.len() < length.digits() {
            let mut bytes = Zeroizing::new([0; 16]);
            random.fill(bytes.as_mut_slice());
            let drawn = bytes.iter().filter(|byte| **byte < 250).map(|byte| b'0' + byte % 10);
            let missing = length.digits() - digits.len();
            digits.extend(drawn.take(missing));
        }
        Self(digits)
    }

    /// Reads a code that a user typed or pasted: spaces, dashes, line ends and what cannot be seen do not matter, nor of
    /// which script the digits are.
    pub fn parse(text: &str, length: CodeLength) -> Result<Self, InvalidCode> {
        let invalid = InvalidCode(length.digits());
        if text.len() > MAX_TEXT {
            return Err(invalid);
        }
        // It never grows: nothing of the code stays behind in memory.
        let mut digits = Zeroizing::new(Vec::with_capacity(length.digits()));
        for c in text.chars() {
            match typed(c) {
                Typed::Digit(value) if digits.len() < length.digits() => digits.push(b'0' + value),
                Typed::Blank | Typed::Dash => {}
                Typed::Digit(_) | Typed::Other => return Err(invalid),
            }
        }
        if digits.len() == length.digits() { Ok(Self(digits)) } else { Err(invalid) }
    }

    /// What was sealed and is now open again. `None` if it is no code.
    pub(crate) fn from_opened(digits: Zeroizing<Vec<u8>>) -> Option<Self> {
        (!digits.is_empty() && digits.iter().all(u8::is_ascii_digit)).then_some(Self(digits))
    }

    /// The same digits once more. There is no `Clone`, so that copies are not made by accident.
    pub(crate) fn again(&self) -> Self {
        Self(Zeroizing::new(self.0.to_vec()))
    }

    /// The digits, for an answer, a delivery, or to seal them.
    pub fn expose(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a code is ASCII digits")
    }
}

impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Code")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::seeded::Seeded;
    use proptest::prelude::*;

    /// Pearson's chi-square of counts that should be equal.
    fn chi_square(counts: &[u64]) -> f64 {
        let expected = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
        counts.iter().map(|count| (*count as f64 - expected).powi(2) / expected).sum()
    }

    /// One in a million of fair sources would be above: the quantile by Wilson and Hilferty (1931),
    /// with 4.7534 the normal quantile of 1 - 10^-6.
    fn limit(degrees: f64) -> f64 {
        degrees * (1.0 - 2.0 / (9.0 * degrees) + 4.7534 * (2.0 / (9.0 * degrees)).sqrt()).powi(3)
    }

    #[test]
    fn every_code_is_equally_likely() {
        let random = Seeded::new(2026);
        let mut whole = vec![0; 10_000];
        let mut positions = vec![[0; 10]; 4];
        for _ in 0..1_000_000 {
            let code = Code::generate(CodeLength::new(4).unwrap(), &random);
            whole[code.expose().parse::<usize>().unwrap()] += 1;
            for (position, digit) in code.expose().bytes().enumerate() {
                positions[position][usize::from(digit - b'0')] += 1;
            }
        }
        assert!(chi_square(&whole) < limit(9_999.0), "whole codes: {}", chi_square(&whole));
        for counts in positions {
            assert!(chi_square(&counts) < limit(9.0), "digits: {counts:?}");
        }
    }

    #[test]
    fn the_test_of_uniformity_would_notice_modulo_bias() {
        // A digit as byte % 10 over all 256 bytes: 0 to 5 get 26 bytes each, 6 to 9 get 25.
        let mut counts = [0; 10];
        let random = Seeded::new(2026);
        let mut byte = [0];
        for _ in 0..4_000_000 {
            random.fill(&mut byte);
            counts[usize::from(byte[0] % 10)] += 1;
        }
        assert!(chi_square(&counts) > limit(9.0));
    }

    proptest! {
        #[test]
        fn a_code_has_its_length_and_reads_back(digits in 4u64..=10, seed: u64) {
            let length = CodeLength::new(digits).unwrap();
            let code = Code::generate(length, &Seeded::new(seed));
            prop_assert_eq!(code.expose().len(), length.digits());
            let parsed = Code::parse(code.expose(), length).unwrap();
            prop_assert_eq!(parsed.expose(), code.expose());
        }

        #[test]
        fn only_the_right_number_of_digits_is_a_code(text in "[ -~]{0,12}") {
            let text: String = text.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
            let form = text.len() == 6 && text.chars().all(|c| c.is_ascii_digit());
            prop_assert_eq!(Code::parse(&text, CodeLength::default()).is_ok(), form);
        }

        #[test]
        fn whatever_is_taken_shows_the_digits(text in any::<String>()) {
            if let Ok(code) = Code::parse(&text, CodeLength::default()) {
                let shown = text.chars().filter_map(|c| match typed(c) {
                    Typed::Digit(value) => Some(char::from(b'0' + value)),
                    _ => None,
                });
                prop_assert_eq!(shown.collect::<String>(), code.expose());
            }
        }
    }

    #[test]
    fn a_code_is_what_its_reader_sees() {
        for text in [
            "513 441",
            "513-441",
            "513441\n",
            "\r\n  513441\t",
            "5 1 3 4 4 1",
            "\u{200e}513\u{a0}441\u{200b}",
            "\u{feff}513\u{2011}441",
            "513\u{2013}441",
            "513\u{2212}441",
            "\u{ff15}\u{ff11}\u{ff13}\u{ff14}\u{ff14}\u{ff11}",
            "٥١٣٤٤١",
            "۵۱۳ ۴۴۱",
            "५१३४४१",
            "513٤٤١",
        ] {
            let code = Code::parse(text, CodeLength::default());
            assert_eq!(code.as_ref().map(Code::expose), Ok("513441"), "{text:?}");
        }
        let long = format!("513{}441", " ".repeat(MAX_TEXT));
        for text in [
            "",
            "-",
            "51344",
            "5134411",
            "513.441",
            "513,441",
            "51344l",
            "51344O",
            "+513441",
            "513\u{b2}41",
            "\u{0}513441",
            &long,
        ] {
            assert!(Code::parse(text, CodeLength::default()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn lengths_outside_4_to_10_are_refused() {
        assert!(CodeLength::new(3).is_err());
        assert!(CodeLength::new(11).is_err());
    }

    #[test]
    fn nothing_prints_a_code() {
        let code = Code::parse("042137", CodeLength::default()).unwrap();
        assert_eq!(format!("{code:?}"), "Code");
        let error = Code::parse("04213", CodeLength::default()).unwrap_err();
        assert_eq!(error.to_string(), "a code is exactly 6 digits");
    }
}
