//! Who may ask for what.

use crate::{problem::Problem, provider::is_loopback};
use axum::http::{HeaderMap, header};
use std::net::SocketAddr;
use subtle::ConstantTimeEq;

/// Tells callers apart by the token, and by where they are.
#[derive(Clone)]
pub(crate) struct Callers {
    token: Option<String>,
}

impl std::fmt::Debug for Callers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Callers")
    }
}

impl Callers {
    pub(crate) fn new(token: Option<String>) -> Self {
        Self { token }
    }

    /// Whoever knows the token. Without a token, whoever is on this machine: the relay then listens
    /// nowhere else.
    pub(crate) fn trusted(&self, headers: &HeaderMap, peer: SocketAddr) -> Result<(), Problem> {
        match &self.token {
            Some(_) if self.knows_token(headers) => Ok(()),
            Some(_) => Err(Problem::Unauthorized),
            None => on_this_machine(headers, peer, false),
        }
    }

    /// A caller that knows the token or is on this machine, for requests that change nothing: a browser there may have
    /// followed another page's link.
    pub(crate) fn near(&self, headers: &HeaderMap, peer: SocketAddr) -> Result<(), Problem> {
        if self.knows_token(headers) {
            Ok(())
        } else {
            on_this_machine(headers, peer, follows_a_link(headers))
        }
    }

    /// Takes the same time whatever is wrong with the token.
    fn knows_token(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.split_once(' '));
        match (&self.token, given) {
            (Some(token), Some((scheme, given))) if scheme.eq_ignore_ascii_case("bearer") => {
                given.trim().as_bytes().ct_eq(token.as_bytes()).into()
            }
            _ => false,
        }
    }
}

/// By its address, and by the name that it calls the relay: a page in a browser can have a name of its own
/// lead to this machine, and a proxy passes on what comes from elsewhere.
fn on_this_machine(headers: &HeaderMap, peer: SocketAddr, by_a_link: bool) -> Result<(), Problem> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let forwarded = headers.contains_key("x-forwarded-for") || headers.contains_key(header::FORWARDED);
    // A page of somebody else's, in a browser on this machine.
    let page = headers.contains_key(header::ORIGIN)
        || (!by_a_link
            && headers.get("sec-fetch-site").is_some_and(|site| site != "none" && site != "same-origin"));
    let near = peer.ip().to_canonical().is_loopback() && is_loopback(name) && !forwarded && !page;
    if near { Ok(()) } else { Err(Problem::Forbidden) }
}

/// Whether a browser follows a link and shows where it leads in the place of the page with the link, which sees nothing of
/// it (W3C Fetch Metadata, sections 2.1 and 2.2).
fn follows_a_link(headers: &HeaderMap) -> bool {
    let only = |name, value: &str| {
        let mut fields = headers.get_all(name).iter();
        fields.next().is_some_and(|field| field == value) && fields.next().is_none()
    };
    only("sec-fetch-mode", "navigate") && only("sec-fetch-dest", "document")
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    fn peer(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    #[test]
    fn a_caller_is_near_by_address_and_by_name() {
        let callers = Callers::new(None);
        for host in ["localhost:3100", "127.0.0.1:3100", "[::1]:3100", "localhost"] {
            callers.near(&headers(&[("host", host)]), peer("127.0.0.1:5")).unwrap();
        }
        for (fields, address) in [
            (&[("host", "localhost")][..], "10.0.0.1:5"),
            (&[("host", "evil.example:3100")], "127.0.0.1:5"),
            (&[], "127.0.0.1:5"),
            (&[("host", "localhost"), ("x-forwarded-for", "10.0.0.1")], "127.0.0.1:5"),
            (&[("host", "localhost"), ("origin", "https://evil.example")], "127.0.0.1:5"),
            (&[("host", "localhost"), ("sec-fetch-site", "cross-site")], "127.0.0.1:5"),
        ] {
            assert!(matches!(callers.near(&headers(fields), peer(address)), Err(Problem::Forbidden)));
            assert!(callers.trusted(&headers(fields), peer(address)).is_err());
        }
    }

    #[test]
    fn a_link_may_lead_to_what_can_be_read() {
        let callers = Callers::new(None);
        let link = |dest| {
            headers(&[
                ("host", "localhost:3100"),
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", "navigate"),
                ("sec-fetch-dest", dest),
            ])
        };
        callers.near(&link("document"), peer("127.0.0.1:5")).unwrap();
        assert!(callers.near(&link("iframe"), peer("127.0.0.1:5")).is_err());
        assert!(callers.near(&link("document"), peer("10.0.0.1:5")).is_err());
        assert!(callers.trusted(&link("document"), peer("127.0.0.1:5")).is_err());
    }

    #[test]
    fn where_there_is_a_token_it_is_what_trust_takes() {
        let callers = Callers::new(Some("0123456789abcdef".to_owned()));
        let with = |value| headers(&[("host", "localhost"), ("authorization", value)]);
        callers.trusted(&with("Bearer 0123456789abcdef"), peer("10.0.0.1:5")).unwrap();
        callers.trusted(&with("bearer 0123456789abcdef"), peer("10.0.0.1:5")).unwrap();
        for wrong in ["Bearer 0123456789abcdeg", "Bearer ", "Basic 0123456789abcdef", "0123456789abcdef"] {
            assert!(matches!(callers.trusted(&with(wrong), peer("127.0.0.1:5")), Err(Problem::Unauthorized)));
        }
    }
}
