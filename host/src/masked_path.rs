//! Paths for logs and traces: their digits may be a phone number or a code.

/// Most characters of a path that are kept.
const MAX_LENGTH: usize = 256;

/// The path without its digits, plain or percent-encoded, and not longer than a log can bear.
pub(crate) fn masked(path: &str) -> String {
    // Characters that still belong to a %XX.
    let mut encoded = 0;
    let masked = path.chars().take(MAX_LENGTH).map(|c| {
        let masked = c.is_numeric() || encoded > 0;
        encoded = if c == '%' { 2 } else { encoded - i32::from(encoded > 0) };
        if masked { '*' } else { c }
    });
    masked.chain((path.len() > MAX_LENGTH).then_some('…')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_shows_no_number_of_a_path() {
        assert_eq!(masked("/users/+14155550123"), "/users/+***********");
        assert_eq!(masked("/users/+1-415-555-0123"), "/users/+*-***-***-****");
        assert_eq!(masked("/users/+١٤١٥۵۵۵"), "/users/+*******");
        assert_eq!(masked("/users/%2B%31%34x/generate-otp"), "/users/%**%**%**x/generate-otp");
    }

    #[test]
    fn a_path_fills_no_log() {
        assert_eq!(masked(&"/x".repeat(128)), "/x".repeat(128));
        assert_eq!(masked(&"/x".repeat(8000)), "/x".repeat(128) + "…");
    }
}
