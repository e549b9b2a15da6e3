//! Where a request comes from, behind proxies too.
//!
//! Only the peer of the connection is known for sure. A proxy in between can tell whom it speaks for, in
//! `X-Forwarded-For` or `Forwarded` (RFC 7239): each proxy adds the address of its own peer at the right end.
//! So that the client gets nowhere by writing into these fields itself, an address counts only if the hop
//! that wrote it is trusted:
//!
//! * The peer wrote the rightmost address. If that is a trusted proxy again, it wrote the one to its left,
//!   and so on. The first address that is not a trusted proxy is the client, and nothing to the left of it
//!   is looked at: the client has written that.
//! * Both fields are read from the right end, so that no quote or comma which a client has opened at the left
//!   changes how the rest reads.
//! * What is no address (`unknown`, an obfuscated identifier, garbage, nothing) ends the walk, and so does
//!   the field's end. Then the last trusted hop stands for the client: it has vouched for no one else.
//! * A proxy most often knows one of the fields and passes on the other as the client has written it. If both
//!   are there and lead to different addresses, nothing tells which one the client has written, and the peer
//!   stands for the client. So a client that writes the other field can have its own address, or the peer's,
//!   and no third one.
//!
//! This holds **if each trusted proxy adds its peer to at least one field, the same one on the whole way, and
//! nothing is trusted but proxies**. A proxy that adds to neither lets the client's own word stand in its
//! place; a client within a trusted network may say of itself what it likes. So list proxies by their own
//! addresses or a network of their own, and have the outermost one remove the field that it does not write:
//! then nobody can end up under the peer's address on purpose.

use crate::authority;
use http::HeaderMap;
use std::{
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

/// The proxies whose word counts. None by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<Network>);

/// A range of addresses (RFC 4632, RFC 4291).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    /// The first one.
    address: IpAddr,
    /// How many leading bits all of them share.
    prefix: u32,
}

/// Why a list of proxies cannot be used. Entries are counted from 1, and not repeated.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum InvalidTrustedProxies {
    /// Neither an address nor a network.
    #[error("entry {0} is neither an IP address nor a network such as 10.0.0.0/24 or 2001:db8::/64")]
    Entry(usize),
    /// A network of everyone, in which every client could choose its address.
    #[error("entry {0} would trust every client; list the addresses of the proxies alone")]
    Everyone(usize),
    /// An address with a prefix that does not cover all of it: one of the two is a mistake.
    #[error("entry {0} has an address that is not the first one of its network, such as 10.0.0.0/24")]
    NotTheFirst(usize),
}

impl FromStr for TrustedProxies {
    type Err = InvalidTrustedProxies;

    /// Reads addresses and networks separated by commas: `10.0.0.7, 10.1.0.0/16, 2001:db8::/64`. An empty
    /// list trusts none.
    fn from_str(list: &str) -> Result<Self, InvalidTrustedProxies> {
        let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        (1..)
            .zip(entries)
            .map(|(number, entry)| Network::parse(number, entry))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl TrustedProxies {
    fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

impl Network {
    fn parse(number: usize, entry: &str) -> Result<Self, InvalidTrustedProxies> {
        let form = InvalidTrustedProxies::Entry(number);
        let (address, prefix) = match entry.split_once('/') {
            None => (entry, None),
            Some((address, digits)) => (address, Some(authority::decimal(digits).ok_or(form)?.into())),
        };
        let address: IpAddr = address.parse().map_err(|_| form)?;
        let prefix = prefix.unwrap_or(bits(address).1);
        if prefix > bits(address).1 {
            return Err(form);
        }
        // The whole of IPv4, too, where it stands for IPv6's part of it.
        let (address, prefix) = match address.to_canonical() {
            mapped @ IpAddr::V4(_) if address.is_ipv6() => (mapped, prefix.saturating_sub(96)),
            address => (address, prefix),
        };
        if prefix == 0 {
            return Err(InvalidTrustedProxies::Everyone(number));
        }
        let network = Self { address, prefix };
        if network.shared(bits(address).0) == bits(address).0 {
            Ok(network)
        } else {
            Err(InvalidTrustedProxies::NotTheFirst(number))
        }
    }

    fn contains(self, address: IpAddr) -> bool {
        let (number, length) = bits(address);
        length == bits(self.address).1 && self.shared(number) == bits(self.address).0
    }

    /// The bits of an address that all of the network share, and zeros.
    fn shared(self, address: u128) -> u128 {
        let rest = bits(self.address).1 - self.prefix;
        address >> rest << rest
    }
}

/// An address as a number, and how many bits it has.
fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(address) => (u32::from(address).into(), u32::BITS),
        IpAddr::V6(address) => (address.into(), u128::BITS),
    }
}

/// Whom a request comes from, as far as addresses tell people apart: an IPv4 address, or the /64 of an IPv6
/// one. A subscriber has at least that much (RFC 6177, section 2), and could take another address in it for
/// every request (RFC 8981).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientAddress(IpAddr);

impl From<IpAddr> for ClientAddress {
    /// An IPv4 address that is written as an IPv6 one (RFC 4291, section 2.5.5.2) is the same client.
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
            }
            address => Self(address),
        }
    }
}

impl std::fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(f, "{address}"),
            IpAddr::V6(address) => write!(f, "{address}/64"),
        }
    }
}

impl ClientAddress {
    /// The client, if the peer is known at all. See the module on what is believed.
    pub fn of(headers: &HeaderMap, proxies: &TrustedProxies) -> Option<Self> {
        let peer = peer(headers)?;
        Some(client(headers, peer, proxies).into())
    }
}

/// The other end of the connection: the **last** value of `spin-client-addr`, `ip:port`. Spin appends it
/// behind those that the client sends. If that one cannot be read there is none: an earlier one is the
/// client's own word.
pub fn peer(headers: &HeaderMap) -> Option<IpAddr> {
    let last = headers.get_all("spin-client-addr").iter().next_back()?;
    let address = last.to_str().ok()?.parse::<std::net::SocketAddr>().ok()?;
    Some(address.ip().to_canonical())
}

fn client(headers: &HeaderMap, peer: IpAddr, proxies: &TrustedProxies) -> IpAddr {
    if !proxies.contains(peer) {
        return peer;
    }
    let lines = |name| headers.get_all(name).iter().rev().map(http::HeaderValue::as_bytes);
    let x_forwarded_for = headers.contains_key("x-forwarded-for").then(|| {
        let hops = lines("x-forwarded-for").flat_map(|line| line.rsplit(|byte| *byte == b','));
        walk(peer, proxies, hops.map(|hop| node(std::str::from_utf8(hop).ok()?.trim_matches([' ', '\t']))))
    });
    let forwarded = headers.contains_key("forwarded").then(|| {
        let hops = lines("forwarded").flat_map(Elements::of);
        walk(peer, proxies, hops.map(|hop| node(&forwarded_for(std::str::from_utf8(hop).ok()?)?)))
    });
    match (x_forwarded_for, forwarded) {
        (Some(one), Some(other)) if one != other => peer,
        (Some(client), _) | (None, Some(client)) => client,
        (None, None) => peer,
    }
}

/// From hop to hop, nearest first, as long as the hop that names the next one is trusted.
fn walk(peer: IpAddr, proxies: &TrustedProxies, hops: impl Iterator<Item = Option<IpAddr>>) -> IpAddr {
    let mut last = peer;
    for hop in hops {
        let Some(address) = hop else { break };
        last = address;
        if !proxies.contains(address) {
            break;
        }
    }
    last
}

/// The address of a node (RFC 7239, section 6), with or without a port, which may be obfuscated. An IPv6
/// address may stand without brackets, as most proxies write it in `X-Forwarded-For`.
fn node(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let (address, rest) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']')?;
            (IpAddr::V6(address.parse().ok()?), rest)
        }
        None => {
            let (address, _) = text.split_once(':')?;
            (IpAddr::V4(address.parse().ok()?), &text[address.len()..])
        }
    };
    let port = |port: &str| match port.strip_prefix('_') {
        Some(name) => !name.is_empty() && name.bytes().all(is_obfuscated),
        None => authority::decimal(port).is_some(),
    };
    let sound = rest.is_empty() || rest.strip_prefix(':').is_some_and(port);
    sound.then(|| address.to_canonical())
}

/// What an obfuscated identifier is made of (RFC 7239, section 6.3).
fn is_obfuscated(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// The elements of a line of `Forwarded`, from right to left, each one a hop.
///
/// A quoted string is entered at its closing quote. Its opening one is the next to the left that has no
/// backslash in front: in a sound element an equals sign stands there. So what stands to the left of an
/// element does not change how the element reads, however unbalanced it is.
struct Elements<'a>(Option<&'a [u8]>);

impl<'a> Elements<'a> {
    fn of(line: &'a [u8]) -> Self {
        Self(Some(line))
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let line = self.0?;
        let mut quoted = false;
        for (at, byte) in line.iter().enumerate().rev() {
            match byte {
                b'"' if !quoted => quoted = true,
                b'"' => {
                    let backslashes = line[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
                    quoted = backslashes % 2 == 1;
                }
                b',' if !quoted => {
                    self.0 = Some(&line[..at]);
                    return Some(&line[at + 1..]);
                }
                _ => {}
            }
        }
        self.0.take()
    }
}

/// The value of `for` in an element (RFC 7239, section 4), without quotes. `None` if the element is malformed,
/// or has not exactly one.
fn forwarded_for(element: &str) -> Option<String> {
    let mut found = None;
    let mut rest = element;
    loop {
        let (name, after) = rest.split_once('=')?;
        let (value, after) = match after.strip_prefix('"') {
            Some(after) => quoted(after)?,
            None => {
                let end = after.find([';', '"']).unwrap_or(after.len());
                (after[..end].trim_end_matches([' ', '\t']).to_owned(), &after[end..])
            }
        };
        let name = name.trim_matches([' ', '\t']);
        if name.is_empty() || !name.bytes().all(is_token) {
            return None;
        }
        if name.eq_ignore_ascii_case("for") && found.replace(value).is_some() {
            return None;
        }
        let after = after.trim_start_matches([' ', '\t']);
        match after.strip_prefix(';') {
            Some(more) => rest = more,
            None if after.is_empty() => return found,
            None => return None,
        }
    }
}

/// What stands up to the closing quote, and what comes behind it (RFC 9110, section 5.6.4).
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::with_capacity(text.len());
    let mut characters = text.chars();
    loop {
        match characters.next()? {
            '"' => return Some((value, characters.as_str())),
            '\\' => value.push(characters.next()?),
            other => value.push(other),
        }
    }
}

/// What a token is made of (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field_line::sent;
    use proptest::prelude::*;

    const PROXIES: &str = "10.0.0.0/24, 2001:db8:ff::/48";
    const PEER: (&str, &str) = ("spin-client-addr", "10.0.0.1:50000");

    fn client_of(fields: &[(&str, &str)]) -> String {
        let proxies = PROXIES.parse().unwrap();
        ClientAddress::of(&sent::lines(&[&[PEER], fields].concat()), &proxies).unwrap().to_string()
    }

    #[test]
    fn the_peer_is_what_spin_says_last() {
        let peer_of = |values: &[&str]| {
            peer(&sent::lines(&values.iter().map(|value| ("spin-client-addr", value)).collect::<Vec<_>>()))
        };
        assert_eq!(peer_of(&["192.0.2.1:80"]), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(peer_of(&["198.51.100.9:1", "192.0.2.1:80"]), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(peer_of(&["[2001:db8::1]:80"]), Some("2001:db8::1".parse().unwrap()));
        assert_eq!(peer_of(&["[::ffff:192.0.2.1]:80"]), Some("192.0.2.1".parse().unwrap()));
        for last in ["", "192.0.2.1", "localhost:80", "2001:db8::1:80", "192.0.2.1:80, 192.0.2.2:80", "é"] {
            assert_eq!(peer_of(&["192.0.2.1:80", last]), None, "{last}");
        }
        assert_eq!(peer_of(&[]), None);
        assert_eq!(ClientAddress::of(&HeaderMap::new(), &TrustedProxies::default()), None);
    }

    #[test]
    fn a_peer_that_is_not_trusted_speaks_for_nobody() {
        let fields = [("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=192.0.2.1")];
        let headers = sent::lines(&[&[PEER], &fields[..]].concat());
        for proxies in ["", "10.0.0.2", "10.0.1.0/24", "192.0.2.0/24", "2001:db8::/32"] {
            let client = ClientAddress::of(&headers, &proxies.parse().unwrap()).unwrap();
            assert_eq!(client.to_string(), "10.0.0.1", "{proxies}");
        }
    }

    #[test]
    fn behind_trusted_proxies_the_client_is_the_rightmost_other() {
        for (value, client) in [
            ("192.0.2.1", "192.0.2.1"),
            ("198.51.100.9, 192.0.2.1", "192.0.2.1"),
            ("192.0.2.1,10.0.0.2", "192.0.2.1"),
            ("192.0.2.1 ,\t10.0.0.3, 10.0.0.2 ", "192.0.2.1"),
            ("10.0.0.9, 192.0.2.1, 10.0.0.2", "192.0.2.1"),
            ("192.0.2.1, 2001:db8:ff::2", "192.0.2.1"),
            ("192.0.2.1, ::ffff:10.0.0.2", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("192.0.2.1:50000", "192.0.2.1"),
            ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
            ("[2001:db8:1:2:3::4]", "2001:db8:1:2::/64"),
            ("[2001:db8:1:2:3::4]:50000", "2001:db8:1:2::/64"),
            // Nobody but proxies: the request starts at the last of them.
            ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
            // What is no address is vouched for by nobody, and nothing to the left of it is.
            ("192.0.2.1, unknown", "10.0.0.1"),
            ("192.0.2.1, unknown, 10.0.0.2", "10.0.0.2"),
            ("192.0.2.1,, 10.0.0.2", "10.0.0.2"),
            ("192.0.2.1, ", "10.0.0.1"),
            ("", "10.0.0.1"),
            ("192.0.2.1:+5", "10.0.0.1"),
            ("192.0.2.1:65536", "10.0.0.1"),
            ("192.0.2.1 x", "10.0.0.1"),
            ("192.0.2.01", "10.0.0.1"),
            ("[192.0.2.1]", "10.0.0.1"),
            ("[2001:db8::1", "10.0.0.1"),
            ("fe80::1%eth0", "10.0.0.1"),
            ("\"192.0.2.1\"", "10.0.0.1"),
            ("shop.example", "10.0.0.1"),
            ("é", "10.0.0.1"),
        ] {
            assert_eq!(client_of(&[("x-forwarded-for", value)]), client, "{value}");
        }
        let lines = [("x-forwarded-for", "198.51.100.9, 192.0.2.1"), ("x-forwarded-for", "10.0.0.2")];
        assert_eq!(client_of(&lines), "192.0.2.1", "the last line is the nearest hop's");
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_writes_it() {
        for (value, client) in [
            ("for=192.0.2.1", "192.0.2.1"),
            ("For=\"192.0.2.1\"", "192.0.2.1"),
            ("for=192.0.2.1;proto=https;by=203.0.113.43", "192.0.2.1"),
            ("proto=https ; FOR=\"192.0.2.1:50000\"", "192.0.2.1"),
            ("for=\"192.0.2.1:_p0rt\"", "192.0.2.1"),
            ("for=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::/64"),
            ("for=\"\\192.0.2.1\"", "192.0.2.1"),
            ("for=198.51.100.9, for=192.0.2.1", "192.0.2.1"),
            ("for=192.0.2.1, for=10.0.0.3;by=\"_a,b;for=198.51.100.9\", for=10.0.0.2", "192.0.2.1"),
            ("for=192.0.2.1;host=\"a\\\"b,c\"", "192.0.2.1"),
            ("for=192.0.2.1;host=\"\\\\\"", "192.0.2.1"),
            ("for=192.0.2.1;host=\"\"", "192.0.2.1"),
            ("for=198.51.100.9;x=\", for=192.0.2.1", "192.0.2.1"),
            ("for=198.51.100.9;x=\", for=\"192.0.2.1\"", "192.0.2.1"),
            ("for=198.51.100.9;x=\"\\, for=\"192.0.2.1\"", "192.0.2.1"),
            ("for=192.0.2.1, for=unknown", "10.0.0.1"),
            ("for=192.0.2.1, for=_hidden, for=10.0.0.2", "10.0.0.2"),
            ("for=192.0.2.1, proto=https", "10.0.0.1"),
            ("for=192.0.2.1, for=10.0.0.2;for=10.0.0.2", "10.0.0.1"),
            ("for=192.0.2.1, ", "10.0.0.1"),
            ("", "10.0.0.1"),
            ("for", "10.0.0.1"),
            ("for=", "10.0.0.1"),
            ("=192.0.2.1", "10.0.0.1"),
            ("192.0.2.1", "10.0.0.1"),
            ("for=\"192.0.2.1", "10.0.0.1"),
            ("for=192.0.2.1\"", "10.0.0.1"),
            ("for=\"192.0.2.1\"x", "10.0.0.1"),
            ("for=192.0.2.1;", "10.0.0.1"),
            ("x y=1;for=192.0.2.1", "10.0.0.1"),
        ] {
            assert_eq!(client_of(&[("forwarded", value)]), client, "{value}");
        }
        let lines = [("forwarded", "for=192.0.2.1;x=\""), ("forwarded", "for=10.0.0.2")];
        assert_eq!(client_of(&lines), "10.0.0.2", "a quote does not reach into the next line");
    }

    #[test]
    fn where_both_fields_disagree_the_peer_stands_for_the_client() {
        for (x_forwarded_for, forwarded, client) in [
            ("192.0.2.1", "for=192.0.2.1", "192.0.2.1"),
            ("198.51.100.9, 192.0.2.1", "for=192.0.2.1:80;proto=https", "192.0.2.1"),
            ("192.0.2.1", "for=198.51.100.9", "10.0.0.1"),
            ("192.0.2.1, 10.0.0.2", "for=198.51.100.9, for=10.0.0.2", "10.0.0.1"),
            ("192.0.2.1", "nonsense", "10.0.0.1"),
            ("192.0.2.1", "", "10.0.0.1"),
            ("unknown", "for=192.0.2.1", "10.0.0.1"),
            ("unknown", "for=unknown", "10.0.0.1"),
        ] {
            let fields = [("x-forwarded-for", x_forwarded_for), ("forwarded", forwarded)];
            assert_eq!(client_of(&fields), client, "{fields:?}");
        }
    }

    #[test]
    fn a_subscriber_of_ipv6_is_one_client() {
        let address = |text: &str| ClientAddress::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(address("2001:db8:1:2::1"), address("2001:db8:1:2:ffff::"));
        assert_ne!(address("2001:db8:1:2::1"), address("2001:db8:1:3::1"));
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
        assert_ne!(address("192.0.2.1"), address("192.0.2.2"));
        assert_eq!(address("2001:db8:1:2:3:4:5:6").to_string(), "2001:db8:1:2::/64");
        assert_eq!(address("::1").to_string(), "::/64");
    }

    #[test]
    fn a_network_trusts_what_is_in_it() {
        for (list, inside, outside) in [
            ("10.0.0.7", "10.0.0.7", "10.0.0.6"),
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("10.0.0.0/31", "10.0.0.1", "10.0.0.2"),
            ("10.0.0.7/32", "10.0.0.7", "10.0.0.8"),
            ("128.0.0.0/1", "255.0.0.0", "127.0.0.1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::1", "::1", "::2"),
            ("::1/128", "::1", "::"),
            ("::ffff:10.0.0.0/104", "10.1.2.3", "11.0.0.0"),
            ("::ffff:10.0.0.7", "10.0.0.7", "10.0.0.8"),
            (" 192.0.2.1,, 10.0.0.0/24 ,", "10.0.0.1", "192.0.2.2"),
            ("8000::/1", "ffff::1", "255.0.0.0"),
        ] {
            let proxies: TrustedProxies = list.parse().unwrap();
            assert!(proxies.contains(inside.parse().unwrap()), "{list}");
            assert!(!proxies.contains(outside.parse().unwrap()), "{list}");
        }
        for none in ["", " ", ","] {
            assert_eq!(none.parse(), Ok(TrustedProxies::default()));
        }
    }

    #[test]
    fn what_is_wrong_with_the_list_is_said_by_its_place() {
        use InvalidTrustedProxies::{Entry, Everyone, NotTheFirst};
        for (list, error) in [
            ("proxy.example", Entry(1)),
            ("10.0.0.1, 10.0.0.0/24/8", Entry(2)),
            ("10.0.0.1 10.0.0.2", Entry(1)),
            ("10.0.0.0/", Entry(1)),
            ("10.0.0.0/+8", Entry(1)),
            ("10.0.0.0/33", Entry(1)),
            ("10.0.0.0/255.0.0.0", Entry(1)),
            ("2001:db8::/129", Entry(1)),
            ("[2001:db8::1]", Entry(1)),
            ("10.0.0.1:80", Entry(1)),
            ("*", Entry(1)),
            ("10.0.0.1,, 0.0.0.0/0", Everyone(2)),
            ("::/0", Everyone(1)),
            ("::ffff:0:0/96", Everyone(1)),
            ("10.0.0.1/8", NotTheFirst(1)),
            ("2001:db8::1/64", NotTheFirst(1)),
        ] {
            assert_eq!(list.parse::<TrustedProxies>(), Err(error), "{list}");
        }
    }

    /// A client that is no proxy, and the proxies between it and the peer, farthest first.
    fn path(proxies: std::ops::Range<usize>) -> impl Strategy<Value = (IpAddr, Vec<IpAddr>)> {
        let v4 = any::<u32>().prop_map(|bits| IpAddr::V4(bits.into()));
        let v6 = any::<u128>().prop_map(|bits| IpAddr::V6(bits.into()).to_canonical());
        let trusted: TrustedProxies = PROXIES.parse().unwrap();
        let client = prop_oneof![v4, v6].prop_filter("no proxy", move |client| !trusted.contains(*client));
        let proxy = prop_oneof![
            any::<u8>().prop_map(|host| IpAddr::from([10, 0, 0, host])),
            any::<u16>().prop_map(|host| IpAddr::from([0x2001, 0xdb8, 0xff, 0, 0, 0, 0, host])),
        ];
        (client, prop::collection::vec(proxy, proxies))
    }

    /// How a proxy writes an address, which is `style`'s choice: most of them do it in one of these ways.
    fn written(field: &str, address: IpAddr, style: u8) -> String {
        let bracketed = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
        match (field, style % 4) {
            ("x-forwarded-for", 0) => format!("{bracketed}:443"),
            ("x-forwarded-for", _) => address.to_string(),
            (_, 0) => format!("for=\"{bracketed}:443\""),
            (_, 1) => format!("by=_us;For=\"{bracketed}\";proto=https"),
            (_, 2) => format!("host=\"a,\\\"b\\\\\";for=\"{bracketed}\""),
            (_, _) => format!("proto=http;for=\"{bracketed}\";host=\"shop.example:80\""),
        }
    }

    proptest! {
        /// Each proxy adds its peer to one field, in the last line or in a line of its own. Whatever stands
        /// there already, the client is found; whatever stands in the other field, it is the client or
        /// the peer.
        #[test]
        fn no_client_chooses_its_address(
            (client, proxies) in path(0..4),
            field in prop::sample::select(&["x-forwarded-for", "forwarded"][..]),
            styles in prop::collection::vec(any::<u8>(), 4),
            own in prop::collection::vec(sent::value(), 0..3),
            other in prop::collection::vec(sent::value(), 0..3),
            spoofed_peer in prop::option::of(sent::value()),
        ) {
            let mut lines = own;
            for (address, style) in std::iter::once(&client).chain(&proxies).zip(styles) {
                let hop = written(field, *address, style);
                match lines.last_mut() {
                    Some(line) if style >= 128 => {
                        line.extend_from_slice(if style % 2 == 0 { b", " } else { b"," });
                        line.extend_from_slice(hop.as_bytes());
                    }
                    _ => lines.push(hop.into_bytes()),
                }
            }
            let elsewhere = if field == "forwarded" { "x-forwarded-for" } else { "forwarded" };
            let spoofed = spoofed_peer.iter().map(|value| ("spin-client-addr", &**value));
            let peer = std::iter::once((PEER.0, PEER.1.as_bytes()));
            let lines = lines.iter().map(|line| (field, &**line));
            let all: Vec<_> = spoofed.chain(peer).chain(lines).collect();
            let trusted = PROXIES.parse().unwrap();
            let found = ClientAddress::of(&sent::lines(&all), &trusted).unwrap();
            prop_assert_eq!(found, ClientAddress::from(client));

            let all: Vec<_> = all.into_iter().chain(other.iter().map(|line| (elsewhere, &**line))).collect();
            let found = ClientAddress::of(&sent::lines(&all), &trusted).unwrap();
            prop_assert!(
                found == client.into() || (!other.is_empty() && found == IpAddr::from([10, 0, 0, 1]).into()),
                "{}", found
            );
        }

        /// However the proxies share the two fields among them, it takes both to agree.
        #[test]
        fn a_client_gains_nothing_where_proxies_write_different_fields(
            (client, proxies) in path(1..4),
            styles in prop::collection::vec(any::<u8>(), 4),
            own in sent::value(),
            other in sent::value(),
        ) {
            // The outermost proxy writes one field, all others write the other.
            let mut first = own;
            first.extend_from_slice(format!(", {}", written("x-forwarded-for", client, styles[0])).as_bytes());
            let mut second = other;
            for (address, style) in proxies.iter().zip(&styles[1..]) {
                second.extend_from_slice(format!(", {}", written("forwarded", *address, *style)).as_bytes());
            }
            let headers = sent::lines(&[
                (PEER.0, PEER.1.as_bytes()), ("x-forwarded-for", &first), ("forwarded", &second),
            ]);
            let found = ClientAddress::of(&headers, &PROXIES.parse().unwrap()).unwrap();
            prop_assert!(found == client.into() || found == IpAddr::from([10, 0, 0, 1]).into(), "{}", found);
        }

        #[test]
        fn fields_of_any_kind_never_panic(
            fields in prop::collection::vec(
                (prop::sample::select(&["x-forwarded-for", "forwarded", "spin-client-addr"][..]), sent::value()),
                0..6,
            ),
        ) {
            let _ = ClientAddress::of(&sent::lines(&fields), &PROXIES.parse().unwrap());
            let fields = [fields, vec![(PEER.0, PEER.1.into())]].concat();
            prop_assert!(ClientAddress::of(&sent::lines(&fields), &PROXIES.parse().unwrap()).is_some());
        }

        #[test]
        fn an_address_is_in_its_network_of_any_size(bits: u128, prefix in 1u32..=128, flip in 0u32..128) {
            let first = IpAddr::V6((bits >> (128 - prefix) << (128 - prefix)).into());
            prop_assume!(first.to_canonical().is_ipv6());
            let proxies: TrustedProxies = format!("{first}/{prefix}").parse().unwrap();
            prop_assert!(proxies.contains(IpAddr::V6(bits.into())));
            let changed = IpAddr::V6((bits ^ (1 << (127 - flip))).into());
            prop_assert_eq!(proxies.contains(changed), flip >= prefix);
        }

        #[test]
        fn lists_of_any_kind_never_panic(list in "([0-9a-f:./,]|10.0.0.0/|2001:db8::|.){0,16}") {
            let _ = list.parse::<TrustedProxies>();
        }
    }
}
