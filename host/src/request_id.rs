//! Request ids for logs: a client may send whatever it likes as one, its user's number or address too.

/// Digits of a short phone number: fewer in a row are none.
const LEAST_DIGITS: usize = 7;

/// The id, unless it could be a phone number or a mail address.
pub(crate) fn loggable(id: &str) -> &str {
    if is_made_up(id) || !(id.contains('@') || has_number(id)) { id } else { "(not shown)" }
}

/// Whether it is of a form in which programs make ids up, of which many have a row of digits: a UUID (RFC 9562), a trace id
/// (W3C Trace Context) or another long hexadecimal one, or a ULID. A number alone is none of these: it has no letter.
fn is_made_up(id: &str) -> bool {
    let plain = || id.bytes().filter(|byte| *byte != b'-');
    let letters = plain().any(|byte| byte.is_ascii_alphabetic());
    let hexadecimal = plain().count() >= 16 && plain().all(|byte| byte.is_ascii_hexdigit());
    let ulid = id.len() == 26 && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    letters && (hexadecimal || ulid)
}

/// Whether so many digits stand in a row, whatever people put between them.
fn has_number(id: &str) -> bool {
    let mut digits = 0;
    id.chars().any(|c| {
        match c {
            '0'..='9' => digits += 1,
            ' ' | '-' | '.' | '(' | ')' | '/' => {}
            _ => digits = 0,
        }
        digits >= LEAST_DIGITS
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_a_number_or_an_address_is_not_shown() {
        for id in [
            "01a22d2a-cad2-7e3e-bc99-a810bb1fa33d",
            "12345678-1234-1234-1234-12345678901a",
            "0af7651916cd43dd8448eb211c80319c",
            "01HZX3Q4N8S7T6V5W4X3Y2Z1A0",
            "signup-4711",
            "req_123456",
            "-",
            "",
        ] {
            assert_eq!(loggable(id), id);
        }
        for id in [
            "+14155550123",
            "14155550123",
            "req-+1 (415) 555-0123",
            "user/4155550123/signup",
            "ada@example.com",
            "1234567890123456",
            "signup-415-555-0123",
        ] {
            assert_eq!(loggable(id), "(not shown)", "{id}");
        }
    }
}
