//! The fields of a request, one a line: `name: value`. Lines that begin with a colon are what the
//! configuration and the request's target say: `:host`, `:proxies`, `:origins`, `:keys`.
#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use otp_request::{
    ApiKeys, ClientAddress, Denied, IdempotencyKey, Origins, Scope, Stranger, TrustedProxies,
    is_loopback_host, near, peer, request_id, traceparent,
};
use std::net::IpAddr;

/// The key `s3cret`.
const KEYS: &str = "shop:send:1ec1c26b50d5d3c58d9583181af8076655fe00756bf7285940ba3670f99fcba0";
const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

/// What the client sends, and what is configured where it arrives.
#[derive(Default)]
struct Request {
    headers: HeaderMap,
    host: Option<String>,
    proxies: TrustedProxies,
    origins: Origins,
    keys: Option<ApiKeys>,
}

impl Request {
    fn read(bytes: &[u8]) -> Self {
        let mut request = Self::default();
        for line in bytes.split(|byte| *byte == b'\n') {
            // The name may have a colon in front.
            let Some(colon) = line.iter().skip(1).position(|byte| *byte == b':') else { continue };
            let (name, value) = (&line[..=colon], line[colon + 2..].trim_ascii());
            let text = String::from_utf8_lossy(value);
            match name {
                b":host" => request.host = Some(text.into_owned()),
                b":proxies" => request.proxies = text.parse().unwrap_or_default(),
                b":origins" => request.origins = text.parse().unwrap_or_default(),
                b":keys" => request.keys = text.parse().ok(),
                _ => {
                    if let (Ok(name), Ok(value)) =
                        (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
                    {
                        request.headers.append(name, value);
                    }
                }
            }
        }
        request
    }
}

fuzz_target!(|bytes: &[u8]| {
    let request = Request::read(bytes);
    trace(&request.headers);
    idempotency_key(&request.headers);
    keys(&request);
    address(&request);
    site(&request);
});

/// What is passed on fits into an event's attribute.
fn trace(headers: &HeaderMap) {
    for text in [request_id(headers), traceparent(headers)].into_iter().flatten() {
        assert!((1..=128).contains(&text.len()));
        assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    }
}

/// A key that is taken is the same key in quotes.
fn idempotency_key(headers: &HeaderMap) {
    let Ok(Some(key)) = IdempotencyKey::of(headers) else { return };
    assert!((1..=255).contains(&key.as_str().len()));
    let quoted = format!("\"{}\"", key.as_str().replace('\\', "\\\\").replace('"', "\\\""));
    let mut again = HeaderMap::new();
    again.insert("idempotency-key", quoted.parse().expect("a key is printable"));
    assert_eq!(IdempotencyKey::of(&again), Ok(Some(key)));
}

/// A key opens what its scopes say, and a second field next to it closes all of it.
fn keys(request: &Request) {
    for scope in [Scope::Send, Scope::Verify, Scope::Admin] {
        let _ = request.keys.as_ref().map(|keys| keys.authorise(&request.headers, scope));
    }
    let keys: ApiKeys = KEYS.parse().expect("the list is sound");
    let mut headers = request.headers.clone();
    let sent = headers.append("authorization", HeaderValue::from_static("Bearer s3cret"));
    assert_eq!(
        keys.authorise(&headers, Scope::Send),
        if sent { Err(Denied::UnknownKey) } else { Ok("shop") }
    );
    headers.insert("authorization", HeaderValue::from_static("Bearer s3cret"));
    assert_eq!(keys.authorise(&headers, Scope::Send), Ok("shop"));
    assert_eq!(keys.authorise(&headers, Scope::Admin), Err(Denied::Scope));
}

/// Whatever the client has written, what the trusted proxy adds to the right of it tells who it is. In the
/// other field it gets nothing but the proxy's own address.
fn address(request: &Request) {
    let _ = ClientAddress::of(&request.headers, &request.proxies);
    let client: IpAddr = "203.0.113.7".parse().expect("an address");
    let trusted: TrustedProxies = "10.0.0.0/24".parse().expect("a network");
    let mut sent = request.headers.clone();
    sent.append("spin-client-addr", HeaderValue::from_static("10.0.0.1:50000"));
    assert_eq!(peer(&sent), Some(PEER));
    assert_eq!(ClientAddress::of(&sent, &TrustedProxies::default()), Some(PEER.into()));
    for (field, other, hop) in [
        ("x-forwarded-for", "forwarded", "203.0.113.7"),
        ("forwarded", "x-forwarded-for", "for=203.0.113.7"),
        ("forwarded", "x-forwarded-for", "host=\"a,\\\"b\\\\\";for=\"203.0.113.7:80\""),
    ] {
        let mut in_a_line_of_its_own = sent.clone();
        in_a_line_of_its_own.append(field, hop.parse().expect("a value"));
        let mut in_the_last_line = sent.clone();
        let lines: Vec<_> = sent.get_all(field).iter().cloned().collect();
        in_the_last_line.remove(field);
        let (last, before) =
            lines.split_last().map_or((&b""[..], &[][..]), |(last, before)| (last.as_bytes(), before));
        for line in before {
            in_the_last_line.append(field, line.clone());
        }
        let joined = [last, b", ", hop.as_bytes()].concat();
        in_the_last_line.append(field, HeaderValue::from_bytes(&joined).expect("both parts are values"));
        for mut headers in [in_a_line_of_its_own, in_the_last_line] {
            let found = ClientAddress::of(&headers, &trusted).expect("the peer is known");
            assert!(found == client.into() || found == PEER.into() && headers.contains_key(other), "{found}");
            headers.remove(other);
            assert_eq!(ClientAddress::of(&headers, &trusted), Some(client.into()));
        }
    }
}

/// Whoever is near stops being so with another name, another peer, a proxy or a stranger's page.
fn site(request: &Request) {
    let Request { headers, host, origins, .. } = request;
    let _ = host.as_deref().map(is_loopback_host);
    let verdict = near(headers, host.as_deref(), origins);
    let mut from_here = headers.clone();
    from_here.append("spin-client-addr", HeaderValue::from_static("127.0.0.1:50000"));
    let nearer = near(&from_here, host.as_deref(), origins);
    if verdict.is_ok() {
        assert_eq!(nearer, Ok(()));
    }
    assert_eq!(near(&from_here, Some("shop.example"), origins), Err(Stranger::Remote));
    assert_eq!(near(&from_here, None, origins), Err(Stranger::Remote));

    let with = |name: &'static str, value: &'static str| {
        let mut headers = from_here.clone();
        headers.insert(name, HeaderValue::from_static(value));
        near(&headers, host.as_deref(), origins)
    };
    assert_eq!(with("spin-client-addr", "10.0.0.1:50000"), Err(Stranger::Remote));
    assert_eq!(with("x-forwarded-for", "127.0.0.1"), Err(Stranger::Remote));
    if !origins.allows("https://evil.example") {
        assert!(with("origin", "https://evil.example").is_err());
    }
    assert!(with("origin", "null").is_err());
    if headers.get("origin").is_none() {
        assert!(with("sec-fetch-site", "cross-site").is_err());
    }
}
