//! The authority of a URI, without credentials.

use std::net::Ipv6Addr;

/// Splits `host[:port]` (RFC 3986, section 3.2; RFC 9110, section 7.2). An IPv6 address keeps its brackets;
/// `None` for what has not that form. The host itself is not looked into.
pub(crate) fn split(authority: &str) -> Option<(&str, Option<u16>)> {
    let end = match authority.strip_prefix('[') {
        Some(rest) => rest.find(']')? + 2,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(end);
    match rest.strip_prefix(':') {
        Some(digits) => Some((host, Some(decimal(digits)?))),
        None if rest.is_empty() => Some((host, None)),
        None => None,
    }
}

/// A number such as a port, in digits alone: `u16` would also take a sign in front.
pub(crate) fn decimal(text: &str) -> Option<u16> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// The IPv6 address between brackets.
pub(crate) fn bracketed(host: &str) -> Option<Ipv6Addr> {
    host.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_port_is_told_from_the_colons_of_an_address() {
        for (authority, parts) in [
            ("localhost", Some(("localhost", None))),
            ("localhost:3000", Some(("localhost", Some(3000)))),
            ("[::1]", Some(("[::1]", None))),
            ("[::1]:3000", Some(("[::1]", Some(3000)))),
            ("", Some(("", None))),
            ("localhost:", None),
            ("localhost:+80", None),
            ("localhost:65536", None),
            ("localhost:80:80", None),
            ("::1", None),
            ("[::1", None),
            ("[::1]x", None),
            ("[::1]3000", None),
        ] {
            assert_eq!(split(authority), parts, "{authority}");
        }
        assert_eq!(bracketed("[::1]"), Some(Ipv6Addr::LOCALHOST));
        for no in ["::1", "[::1", "[[::1]]", "[127.0.0.1]", "[]"] {
            assert_eq!(bracketed(no), None, "{no}");
        }
    }

    proptest! {
        #[test]
        fn what_is_split_can_be_joined(authority in "[a-z\\[\\]:0-9é.]{0,12}") {
            match split(&authority) {
                Some((host, None)) => prop_assert_eq!(host, &authority),
                Some((host, Some(port))) => {
                    let digits = authority.strip_prefix(host).and_then(|rest| rest.strip_prefix(':'));
                    prop_assert_eq!(digits.unwrap().parse(), Ok(port));
                }
                None => {}
            }
        }
    }
}
