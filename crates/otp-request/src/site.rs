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
use http::{HeaderMap, Method};
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
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

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

/// Whether a browser follows a link to what it asks for, and shows it in the place of the page with the link (W3C Fetch
/// Metadata, sections 2.1 and 2.2): that page sees nothing of it. Requests that change something are none of these.
pub fn follows_a_link(method: &Method, headers: &HeaderMap) -> bool {
    let only = |name, value: &str| {
        field_line::single(headers, name).is_ok_and(|field| field == Some(value.as_bytes()))
    };
    matches!(*method, Method::GET | Method::HEAD)
        && !headers.contains_key("origin")
        && only("sec-fetch-mode", "navigate")
        && only("sec-fetch-dest", "document")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field_line::sent;
    use Stranger::{CrossSite, Remote};
    use proptest::prelude::*;

    const PEER: (&str, &str) = ("spin-client-addr", "127.0.0.1:50000");

    fn origins(list: &str) -> Origins {
        list.parse().unwrap()
    }

    /// What somebody on this machine hears who sends these fields to `localhost:3000`.
    fn ask(fields: &[(&str, &str)], origins: &Origins) -> Result<(), Stranger> {
        near(&sent::lines(&[&[PEER], fields].concat()), Some("localhost:3000"), origins)
    }

    #[test]
    fn whoever_calls_this_machine_by_its_own_name_is_near() {
        let none = Origins::default();
        for host in
            ["localhost", "LOCALHOST:3000", "127.0.0.1:3000", "127.8.9.1", "[::1]:3000", "[0:0:0:0:0:0:0:1]"]
        {
            assert_eq!(near(&sent::lines(&[PEER]), Some(host), &none), Ok(()), "{host}");
        }
        for host in [
            "",
            ":3000",
            "shop.example",
            "shop.example:3000",
            "localhost.shop.example",
            "shop.localhost",
            "localhost.",
            "10.0.0.1",
            "0.0.0.0",
            "::1",
            "[::2]",
            "[::1",
            "user@localhost",
            "localhost:x",
            "localhost:3000:3000",
            "localhost/",
            "localhost,localhost",
            "2130706433",
            "127.1",
            "é",
        ] {
            assert_eq!(near(&sent::lines(&[PEER]), Some(host), &none), Err(Remote), "{host}");
        }
        assert_eq!(near(&sent::lines(&[PEER]), None, &none), Err(Remote));
    }

    #[test]
    fn whoever_connects_from_elsewhere_is_not() {
        let none = Origins::default();
        for peer in ["[::1]:5", "127.0.0.2:5", "[::ffff:127.0.0.1]:5"] {
            assert_eq!(near(&sent::lines(&[("spin-client-addr", peer)]), Some("localhost"), &none), Ok(()));
        }
        for peer in ["10.0.0.1:5", "[2001:db8::1]:5", "0.0.0.0:5", "localhost:5", ""] {
            let headers = sent::lines(&[PEER, ("spin-client-addr", peer)]);
            assert_eq!(near(&headers, Some("localhost"), &none), Err(Remote), "{peer}");
        }
        assert_eq!(near(&HeaderMap::new(), Some("localhost"), &none), Err(Remote));
    }

    #[test]
    fn what_a_proxy_passes_on_is_not() {
        for field in [
            "Forwarded",
            "X-Forwarded-For",
            "X-Forwarded-Host",
            "X-Forwarded-Proto",
            "X-Forwarded",
            "Via",
            "X-Real-IP",
            "CF-Connecting-IP",
            "CDN-Loop",
        ] {
            assert_eq!(ask(&[(field, "")], &Origins::default()), Err(Remote), "{field}");
            let allowed = [(field, "127.0.0.1"), ("origin", "https://shop.example")];
            assert_eq!(ask(&allowed, &origins("https://shop.example")), Err(Remote), "{field}");
        }
    }

    #[test]
    fn a_page_of_another_site_is_a_stranger() {
        let none = Origins::default();
        let origin = |origin| ask(&[("origin", origin)], &none);
        for own in ["http://localhost:3000", "https://localhost:3000", "HTTP://LocalHost:3000"] {
            assert_eq!(origin(own), Ok(()), "{own}");
        }
        for other in [
            "https://evil.example",
            "http://localhost",
            "http://localhost:5173",
            "http://127.0.0.1:3000",
            "http://localhost:3000.evil.example",
            "http://evil.example#localhost:3000",
            "null",
            "",
            "*",
            "localhost:3000",
            "file://",
            "chrome-extension://abc",
            "http://localhost:3000/",
            "http://user@localhost:3000",
            "http://localhost:3000 http://localhost:3000",
            "é",
        ] {
            assert_eq!(origin(other), Err(CrossSite), "{other}");
        }
        let own = ("origin", "http://localhost:3000");
        assert_eq!(ask(&[own, own], &none), Err(CrossSite), "one origin, or none");
    }

    #[test]
    fn a_host_without_a_port_has_that_of_the_scheme() {
        let ask =
            |host, origin| near(&sent::lines(&[PEER, ("origin", origin)]), Some(host), &Origins::default());
        for (host, origin) in [
            ("localhost", "http://localhost"),
            ("localhost", "https://localhost"),
            ("localhost:80", "http://localhost"),
            ("localhost", "http://localhost:80"),
            ("[::1]:3000", "http://[::1]:3000"),
        ] {
            assert_eq!(ask(host, origin), Ok(()), "{host} {origin}");
        }
        assert_eq!(ask("localhost", "http://localhost:443"), Err(CrossSite));
    }

    #[test]
    fn a_link_is_followed_by_a_browser_that_shows_where_it_leads() {
        let link = [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        let follows = |method, fields: &[(&str, &str)]| follows_a_link(&method, &sent::lines(fields));
        assert!(follows(Method::GET, &link) && follows(Method::HEAD, &link));
        // A form may be sent like this, too.
        assert!(!follows(Method::POST, &link) && !follows(Method::DELETE, &link));
        assert!(!follows(Method::GET, &[&link[..], &[("origin", "https://evil.example")]].concat()));
        for (field, value) in
            [("sec-fetch-dest", "iframe"), ("sec-fetch-dest", "script"), ("sec-fetch-mode", "no-cors")]
        {
            let mut other = link;
            other.iter_mut().filter(|(name, _)| *name == field).for_each(|line| line.1 = value);
            assert!(!follows(Method::GET, &other), "{field}: {value}");
            assert!(!follows(Method::GET, &[&link[..], &[(field, value)]].concat()), "twice");
        }
        assert!(!follows(Method::GET, &[]));
    }

    #[test]
    fn what_the_browser_says_of_the_site_counts_where_the_origin_is_not_told() {
        let none = Origins::default();
        for site in ["none", "same-origin"] {
            assert_eq!(ask(&[("sec-fetch-site", site)], &none), Ok(()));
        }
        let own = ("origin", "http://localhost:3000");
        for site in ["cross-site", "same-site", "", "None", "other"] {
            assert_eq!(ask(&[("sec-fetch-site", site)], &none), Err(CrossSite), "{site}");
            assert_eq!(ask(&[own, ("sec-fetch-site", site)], &none), Err(CrossSite), "{site}");
        }
        let both = [("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")];
        assert_eq!(ask(&both, &none), Err(CrossSite));
    }

    #[test]
    fn an_origin_that_may_call_may_call_from_another_site() {
        let allowed = origins("https://shop.example, http://localhost:5173");
        for origin in ["https://shop.example", "https://shop.example:443", "http://localhost:5173"] {
            let fields = [("origin", origin), ("sec-fetch-site", "cross-site")];
            assert_eq!(ask(&fields, &allowed), Ok(()), "{origin}");
        }
        for origin in ["http://shop.example", "https://evil.shop.example", "http://localhost:5174", "null"] {
            assert_eq!(ask(&[("origin", origin)], &allowed), Err(CrossSite), "{origin}");
        }
        let twice = [("origin", "https://shop.example"), ("origin", "https://evil.example")];
        assert_eq!(ask(&twice, &allowed), Err(CrossSite));
    }

    #[test]
    fn origins_are_written_as_browsers_write_them() {
        let list = origins(" https://Shop.example ,, http://[2001:DB8::1]:8080, HTTPS://b-c_d.example:8443,");
        for origin in [
            "https://shop.example",
            "http://[2001:db8::1]:8080",
            "https://b-c_d.example:8443",
            "https://shop.example:443",
        ] {
            assert!(list.allows(origin), "{origin}");
        }
        for origin in ["", "null", "shop.example", "http://shop.example", "https://shop.example:80"] {
            assert!(!list.allows(origin), "{origin}");
        }
        assert_eq!("".parse(), Ok(Origins::default()));
        assert!(!Origins::default().allows("https://shop.example"));
    }

    #[test]
    fn what_is_wrong_with_the_list_is_said_by_its_place() {
        use InvalidOrigins::{Entry, Wildcard};
        for (list, error) in [
            ("*", Wildcard(1)),
            ("https://a.example, https://*.shop.example", Wildcard(2)),
            ("shop.example", Entry(1)),
            ("null", Entry(1)),
            ("ftp://shop.example", Entry(1)),
            ("https://shop.example/", Entry(1)),
            ("https://shop.example/a?b#c", Entry(1)),
            ("https://user@shop.example", Entry(1)),
            ("https://", Entry(1)),
            ("https://:443", Entry(1)),
            ("https://shop.example:", Entry(1)),
            ("https://shop.example:x", Entry(1)),
            ("https://shop..example", Entry(1)),
            ("https://shop.example.", Entry(1)),
            ("https://größe.example", Entry(1)),
            ("https://2001:db8::1", Entry(1)),
            ("https://[2001:db8::1", Entry(1)),
            ("https://a.example https://b.example", Entry(1)),
        ] {
            assert_eq!(list.parse::<Origins>(), Err(error), "{list}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.8.9.1", "::1", "[::1]"] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in [
            "",
            "shop.example",
            "localhost.shop.example",
            "10.0.0.1",
            "0.0.0.0",
            "[::2]",
            "[localhost]",
            "[[::1]]",
        ] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }

    proptest! {
        /// A browser puts its page's origin into what it sends. Nothing else that a page can have sent
        /// makes up for it.
        #[test]
        fn a_strangers_page_is_refused_whatever_else_it_sends(
            stranger in "https?://[a-z0-9.-]{0,12}[a-z](:[0-9]{1,4})?",
            fields in prop::collection::vec(("x-[a-z]{1,8}|accept|content-type", sent::value()), 0..4),
            site in prop::sample::select(&["cross-site", "same-site", "none", "same-origin"][..]),
        ) {
            prop_assume!(stranger != "http://localhost:3000" && stranger != "https://localhost:3000");
            let page = [PEER, ("origin", &stranger), ("sec-fetch-site", site)];
            let page = page.map(|(name, value)| (name, value.as_bytes()));
            let fields = fields.iter().map(|(name, value)| (&**name, &**value));
            let headers = sent::lines(&page.into_iter().chain(fields).collect::<Vec<_>>());
            prop_assert!(near(&headers, Some("localhost:3000"), &origins("https://shop.example.org")).is_err());
        }

        #[test]
        fn fields_of_any_kind_never_panic(
            origin in sent::value(), site in sent::value(), host in any::<String>(), list in any::<String>(),
        ) {
            let headers =
                sent::lines(&[(PEER.0, PEER.1.as_bytes()), ("origin", &origin), ("sec-fetch-site", &site)]);
            let allowed = list.parse().unwrap_or_default();
            let _ = near(&headers, Some(&host), &allowed);
            if std::str::from_utf8(&origin).is_ok_and(|origin| allowed.allows(origin)) {
                prop_assert_eq!(near(&headers, Some("localhost"), &allowed), Ok(()));
            }
        }

        #[test]
        fn an_origin_is_allowed_as_it_is_listed(
            scheme in "https?", host in "[a-z0-9_-]{1,8}(\\.[a-z0-9_-]{1,8}){0,3}", port in prop::option::of(any::<u16>()),
        ) {
            let port = port.map(|port| format!(":{port}")).unwrap_or_default();
            let origin = format!("{scheme}://{host}{port}");
            prop_assert!(origins(&origin).allows(&origin));
            prop_assert!(origins(&origin.to_uppercase()).allows(&origin));
            let deeper = format!("{}://a.{}{}", scheme, host, port);
            prop_assert!(!origins(&origin).allows(&deeper));
        }
    }
}
