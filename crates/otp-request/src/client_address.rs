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
