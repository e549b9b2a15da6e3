//! Numbers that are read without the library.
//!
//! Nearly all numbers come in E.164, and can be mobiles. What the library finds out about them with some twenty regular
//! expressions, a table tells that is made of the same metadata (`tests/number_table.rs`), one digit after the other. It
//! knows only numbers that are plainly what they are. Whatever else there is, the library is asked.

use super::kind::NumberType;

/// Of each state: the next one after each of the ten digits, as numbers of two bytes, low byte first; and what it says.
/// The first state leads nowhere, and in the last one all numbers begin.
static STATES: &[u8] = include_bytes!("table.bin");

/// Bytes of a state.
const STATE: usize = 21;

/// What a state says: whether the national number begins after it, and what kind of number ends in it, if any.
const NATIONAL_NUMBER_BEGINS: u8 = 0x80;
const KIND: u8 = 0x7f;

/// Digits of the country calling code, and the kind, if the digits of this number in E.164, without the plus, are those of
/// one that can be a mobile. `None` if that is not known.
pub(super) fn look_up(number: &[u8]) -> Option<(usize, NumberType)> {
    let mut state = STATES.len() / STATE - 1;
    let mut calling_code = None;
    for (read, digit) in (1..).zip(number) {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        let at = state * STATE + 2 * usize::from(digit);
        state = usize::from(u16::from_le_bytes([*STATES.get(at)?, *STATES.get(at + 1)?]));
        if state == 0 {
            return None;
        }
        if says(state)? & NATIONAL_NUMBER_BEGINS != 0 {
            calling_code = Some(read);
        }
    }
    // As tests/number_table.rs numbers them.
    let kind = match says(state)? & KIND {
        1 => NumberType::Mobile,
        2 => NumberType::FixedLineOrMobile,
        3 => NumberType::Voip,
        4 => NumberType::Personal,
        _ => return None,
    };
    Some((calling_code?, kind))
}

fn says(state: usize) -> Option<u8> {
    STATES.get(state * STATE + STATE - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_numbers_are_in_it() {
        for (number, digits) in [
            ("14155550123", Some(1)),
            ("447911123456", Some(2)),
            ("4915112345678", Some(2)),
            ("919876543210", Some(2)),
            ("992901234567", Some(3)),
            // Of a fixed line, too short, with a national prefix, of no country.
            ("442079460018", None),
            ("1415555012", None),
            ("4407911123456", None),
            ("99912345678", None),
            ("1415555O123", None),
            ("", None),
        ] {
            assert_eq!(look_up(number.as_bytes()).map(|(digits, _)| digits), digits, "{number}");
        }
    }
}
