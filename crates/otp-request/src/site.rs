//! Whether a request comes from this very machine, and from a page that may call it.
//!
//! Without keys of its own, the service answers only whoever sits at the machine. A browser there runs the
//! pages of strangers, which can reach every port of it; so the address alone says nothing:
//!
//! * A page can have a name of its own lead to 127.0.0.1 (DNS rebinding). The browser then sends that name as
//!   the host, so the host has to be one that only this machine has.
//! * A page can send a request to `localhost` itself. The browser then says so in `Origin` (RFC 6454,
//!   section 7) and in `Sec-Fetch-Site` (W3C Fetch Metadata, section 2), which no page can change.
//! * A proxy on this machine passes on what comes from elsewhere, and says so in one of many fields.

use crate::{authority, client_address::peer, field_line};
use http::HeaderMap;
use std::{net::IpAddr, str::FromStr};

/// Origins of pages that may call, beside the service's own. None by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(Vec<Origin>);

/// `scheme://host[:port]` (RFC 6454, section 4), always with the port that is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    https: bool,
    /// In lower case.
    host: String,
    port: u16,
}

/// Why a list of origins cannot be used. Entries are counted from 1, and not repeated.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum InvalidOrigins {
    /// Not the form that a browser sends.
    #[error(
        "entry {0} is not an origin such as https://shop.example or http://localhost:5173: a scheme, a host \
         and maybe a port, without a path"
    )]
    Entry(usize),
    /// An asterisk, which would open the service to every page.
    #[error("entry {0} has an asterisk; list each origin by itself, such as https://shop.example")]
    Wildcard(usize),
}

/// Why a request is not from here.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum Stranger {
    /// It comes from another machine, through a proxy, or under a name that others can have too.
    #[error("only callers on this machine are answered, directly and under the name localhost or 127.0.0.1")]
    Remote,
    /// A page of another site sends it.
    #[error("a page of another site sent it, and its origin is not among those that may call")]
    CrossSite,
}

impl FromStr for Origins {
    type Err = InvalidOrigins;

    /// Reads origins separated by commas: `https://shop.example, http://localhost:5173`. An empty list
    /// allows none.
    fn from_str(list: &str) -> Result<Self, InvalidOrigins> {
        let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let read = |(number, entry): (usize, &str)| match Origin::parse(entry) {
            Some(origin) => Ok(origin),
            None if entry.contains('*') => Err(InvalidOrigins::Wildcard(number)),
            None => Err(InvalidOrigins::Entry(number)),
        };
        (1..).zip(entries).map(read).collect::<Result<_, _>>().map(Self)
    }
}

impl Origins {
    /// Whether the value of an `Origin` field is one of them.
    pub fn allows(&self, origin: &str) -> bool {
        Origin::parse(origin).is_some_and(|origin| self.0.contains(&origin))
    }
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let https = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let (host, port) = authority::split(authority)?;
        let host = if host.starts_with('[') {
            format!("[{}]", authority::bracketed(host)?)
        } else {
            let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            let label = |label: &str| !label.is_empty() && label.bytes().all(known);
            host.split('.').all(label).then(|| host.to_ascii_lowercase())?
        };
        Some(Self { https, host, port: port.unwrap_or(if https { 443 } else { 80 }) })
    }

    /// Whether it is a page of the service itself, which the client calls `host`. The service does not know
    /// by which scheme it is called, so a host without a port has the one of the page's scheme.
    fn has_authority(&self, host: &str) -> bool {
        let scheme = if self.https { "https" } else { "http" };
        Self::parse(&format!("{scheme}://{host}")).is_some_and(|own| own == *self)
    }
}

/// Whether a request comes from this machine and from no stranger's page. `host` is the authority that it was
/// sent to, `name[:port]`, from the request's target or its `Host` field.
pub fn near(headers: &HeaderMap, host: Option<&str>, origins: &Origins) -> Result<(), Stranger> {
    let local = |host: &str| authority::split(host).is_some_and(|(name, _)| is_loopback_host(name));
    let Some(host) = host.filter(|host| local(host)) else { return Err(Stranger::Remote) };
    if !peer(headers).is_some_and(|peer| peer.is_loopback()) || came_through_a_proxy(headers) {
        return Err(Stranger::Remote);
    }
    let own = match field_line::single(headers, "origin") {
        Ok(None) => true,
        Ok(Some(origin)) => match std::str::from_utf8(origin) {
            Ok(origin) if origins.allows(origin) => return Ok(()),
            // `null`, of a page that hides where it is from, is no origin of anybody's.
            Ok(origin) => Origin::parse(origin).is_some_and(|origin| origin.has_authority(host)),
            Err(_) => false,
        },
        Err(field_line::Repeated) => false,
    };
    // `same-site` is another port of this machine, where anything may run.
    let same = |site: &http::HeaderValue| site == "none" || site == "same-origin";
    if own && headers.get_all("sec-fetch-site").iter().all(same) { Ok(()) } else { Err(Stranger::CrossSite) }
}

/// Whether a host, a name or an address without a port, is this very machine: `localhost`, 127.0.0.0/8 or
/// ::1. Other names below `localhost` are not taken, though they should lead here (RFC 6761, section 6.3): not
/// every resolver knows, and nobody needs them.
pub fn is_loopback_host(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || authority::bracketed(host).is_some_and(|address| address.is_loopback())
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether any of the fields is there by which proxies say that they pass a request on. A proxy that sends
/// none of them cannot be told from a caller.
fn came_through_a_proxy(headers: &HeaderMap) -> bool {
    // RFC 7239, RFC 9110 section 7.6.3, RFC 8586, and what products made up before and beside them.
    const FIELDS: [&str; 14] = [
        "forwarded",
        "via",
        "cdn-loop",
        "x-real-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-original-forwarded-for",
        "x-envoy-external-address",
        "x-proxyuser-ip",
        "true-client-ip",
        "cf-connecting-ip",
        "fastly-client-ip",
        "fly-client-ip",
        "x-azure-clientip",
    ];
    let names = || headers.keys().map(http::HeaderName::as_str);
    names().any(|name| name == "x-forwarded" || name.starts_with("x-forwarded-") || FIELDS.contains(&name))
}
