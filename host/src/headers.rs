//! What Spin's HTTP trigger tells the component about a request, in its headers.

use crate::{framing::Refusal, manifest::ROUTE};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header, uri::PathAndQuery};
use std::net::SocketAddr;

/// The request's URI with scheme and authority, which an origin-form request carries in `Host` only.
/// RFC 9112, section 3.2: exactly one `Host`, and not another one than the URI names.
pub(crate) fn absolute_uri(uri: &Uri, headers: &HeaderMap) -> Result<Uri, Refusal> {
    const BAD_TARGET: Refusal = Refusal::bad("the request's target is not valid");
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(Refusal::bad("exactly one Host header is needed"));
    };
    let authority: http::uri::Authority = host
        .to_str()
        .ok()
        // An authority may name a user, a Host may not.
        .filter(|host| !host.contains('@'))
        .and_then(|host| host.parse().ok())
        .ok_or(Refusal::bad("the Host header is not valid"))?;
    if uri.authority().is_some_and(|named| *named != authority) {
        return Err(Refusal::bad("the Host header names another host than the request"));
    }
    // `CONNECT a:1` and `OPTIONS *` ask a proxy or a whole server; a component has only paths.
    let path = match uri.path_and_query() {
        Some(path) if path.path().starts_with('/') => path.clone(),
        None | Some(_) if uri.scheme().is_some() => PathAndQuery::from_static("/"),
        None | Some(_) => return Err(BAD_TARGET),
    };
    let uri = Uri::builder().scheme("http").authority(authority).path_and_query(path);
    uri.build().map_err(|_| BAD_TARGET)
}

/// Appends what Spin appends. Values that the client sent under the same names stay in front, so the
/// last one is always the host's.
pub(crate) fn append_spin_headers(headers: &mut HeaderMap, uri: &Uri, client: SocketAddr) {
    // Transport only, and in the way of a guest that forwards the request.
    headers.remove(header::CONNECTION);
    let mut append = |name: &'static str, value: &str| {
        // All of these come from a URI or an address: they are valid values.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.append(HeaderName::from_static(name), value);
        }
    };
    append("spin-path-info", uri.path());
    append("spin-full-url", &uri.to_string());
    append("spin-matched-route", ROUTE);
    append("spin-base-path", "/");
    append("spin-raw-component-route", ROUTE);
    append("spin-component-route", ROUTE.trim_end_matches("/..."));
    append("spin-client-addr", &client.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (header::HOST, HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn the_uri_takes_its_authority_from_the_host_header() {
        let uri = absolute_uri(&Uri::from_static("/a?b=c"), &host(&["example.com:3000"])).unwrap();
        assert_eq!(uri, "http://example.com:3000/a?b=c");
        let absolute = Uri::from_static("http://example.com/a");
        assert_eq!(absolute_uri(&absolute, &host(&["example.com"])).unwrap(), absolute);
    }

    #[test]
    fn a_request_without_one_clear_host_is_refused() {
        for (uri, hosts) in [
            ("/", &[][..]),
            ("/", &["a", "b"]),
            ("/", &["a b"]),
            ("/", &[""]),
            ("/", &["user@a"]),
            ("http://a/", &["b"]),
            ("http://user@a/", &["a"]),
            ("a:1", &["a:1"]),
            ("*", &["a"]),
        ] {
            assert!(absolute_uri(&Uri::from_static(uri), &host(hosts)).is_err(), "{uri} {hosts:?}");
        }
    }

    #[test]
    fn spins_headers_come_after_what_the_client_claims() {
        let mut headers = host(&["localhost:3000"]);
        headers.insert("spin-client-addr", HeaderValue::from_static("1.2.3.4:5"));
        headers.insert("connection", HeaderValue::from_static("keep-alive"));
        let uri = absolute_uri(&Uri::from_static("/otp/x?y"), &headers).unwrap();
        append_spin_headers(&mut headers, &uri, "127.0.0.1:50000".parse().unwrap());
        let last =
            |name: &str| headers.get_all(name).iter().next_back().unwrap().to_str().unwrap().to_owned();
        assert_eq!(last("spin-client-addr"), "127.0.0.1:50000");
        assert_eq!(headers.get_all("spin-client-addr").iter().count(), 2);
        assert_eq!(last("spin-path-info"), "/otp/x");
        assert_eq!(last("spin-full-url"), "http://localhost:3000/otp/x?y");
        assert_eq!(last("spin-matched-route"), "/...");
        assert_eq!(last("spin-raw-component-route"), "/...");
        assert_eq!(last("spin-component-route"), "");
        assert_eq!(last("spin-base-path"), "/");
        assert!(!headers.contains_key("connection"));
    }
}
