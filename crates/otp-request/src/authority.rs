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
