//! Which pages may call from a browser.

use crate::{api_key, bearer};
use base64ct::{Base64, Encoding};
use harness::{Builder, Client, Response, Service, number};
use serde_json::json;

const SHOP: &str = "https://shop.example";
const LOCAL: &str = "http://localhost:5173";
const API_KEY: &str = "5a0c7be1-shops-own-key";

/// What each path takes.
const PATHS: [(&str, &str); 5] = [
    ("POST", "/generate-otp"),
    ("POST", "/resend-otp"),
    ("POST", "/regenerate-otp"),
    ("POST", "/verify-otp"),
    ("DELETE", "/users/+14155550123"),
];

/// As good as the allowed ones at a glance.
const OTHERS: [&str; 9] = [
    "https://evil.example",
    "http://shop.example",
    "https://shop.example:8443",
    "https://shop.example.evil.example",
    "https://evil-shop.example",
    "https://pay.shop.example",
    "http://localhost:5174",
    "http://localhost",
    "null",
];

fn with_origins() -> Builder {
    Service::builder().without_limits().variable("cors_origins", &format!("{SHOP}, {LOCAL}"))
}

fn in_production() -> Builder {
    with_origins()
        .variable("profile", "production")
        .variable("reveal_otp", "false")
        .variable("allowed_countries", "*")
        .variable("global_rate_limit", "off")
        .variable("encryption_keys", &format!("k1:{}", Base64::encode_string(&[7; 32])))
        .variable("index_key", &Base64::encode_string(&[8; 32]))
        .variable("event_keys", &format!("k1:{}", Base64::encode_string(&[9; 32])))
        .variable("api_keys", &api_key("shop", "send+verify+admin", API_KEY))
}

/// What a browser asks before it lets a page of `origin` send JSON, or a key.
fn preflight(client: &Client, origin: &str, method: &str, path: &str) -> Response {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", method),
        ("access-control-request-headers", "authorization,content-type,idempotency-key"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-mode", "cors"),
    ];
    client.send("OPTIONS", path, &headers, b"")
}

/// What is said to browsers.
fn said(answer: &Response) -> Vec<(&str, &str)> {
    let headers = answer.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap()));
    headers.filter(|(name, _)| name.starts_with("access-control-")).collect()
}

fn lists(answer: &Response, field: &str, item: &str) -> bool {
    answer.header(field).split(',').any(|listed| listed.trim().eq_ignore_ascii_case(item))
}

#[track_caller]
fn lets_in(answer: &Response, origin: &str) {
    assert_eq!(answer.header("access-control-allow-origin"), origin);
    assert!(lists(answer, "vary", "origin"), "a cache in between must not mix origins up");
    assert_eq!(answer.headers.get_all("access-control-allow-origin").iter().count(), 1);
    for (name, value) in said(answer) {
        assert_ne!(value, "*", "{name}");
    }
    assert_eq!(answer.header("access-control-allow-credentials"), "");
}

#[test]
fn by_default_no_page_of_another_site_is_let_in() {
    for service in [
        Service::builder().without_limits().start(),
        Service::builder().without_limits().variable("allow_remote_development", "true").start(),
    ] {
        let client = service.client();
        let own = service.url();
        for origin in [SHOP, LOCAL, own.as_str(), "null"] {
            for (method, path) in PATHS {
                let asked = preflight(&client, origin, method, path);
                assert_eq!(said(&asked), [], "{origin} {path}");
                assert!([403, 405].contains(&asked.status), "{origin} {path}: {}", asked.status);
            }
            let body = json!({ "mobileNumber": number() });
            let answers = [
                client.post_with("/generate-otp", &[("origin", origin)], &body),
                client.post_with("/resend-otp", &[("origin", origin)], &body),
                client.send("GET", "/openapi.json", &[("origin", origin)], b""),
                client.send("GET", "/readyz", &[("origin", origin)], b""),
                client.send("GET", "/nowhere", &[("origin", origin)], b""),
                client.send("GET", "/healthz", &[("origin", origin)], b""),
            ];
            assert!(answers.iter().all(|answer| said(answer).is_empty()), "{origin}");
        }
        for (method, path) in PATHS {
            let answer = client.send("OPTIONS", path, &[], b"");
            answer.expect_problem(405, "method_not_allowed");
            assert_eq!(answer.header("allow"), method);
        }
    }
}

#[test]
fn a_page_that_may_call_is_told_all_that_its_browser_needs() {
    for service in [with_origins().start(), in_production().start()] {
        let client = service.client();
        for origin in [SHOP, LOCAL] {
            for (method, path) in PATHS {
                // No key: a browser sends none with this.
                let answer = preflight(&client, origin, method, path);
                assert_eq!(answer.status, 204, "{origin} {path}");
                assert!(answer.body.is_empty());
                lets_in(&answer, origin);
                assert!(lists(&answer, "access-control-allow-methods", method), "{:?}", said(&answer));
                for field in ["authorization", "content-type", "idempotency-key"] {
                    assert!(lists(&answer, "access-control-allow-headers", field), "{:?}", said(&answer));
                }
            }
        }
        // An OPTIONS that is no preflight is no method of any path.
        let plain = client.send("OPTIONS", "/generate-otp", &[("origin", SHOP)], b"");
        plain.expect_problem(405, "method_not_allowed");
    }
}

#[test]
fn a_page_that_may_call_can_read_every_answer() {
    let service = in_production().variable("rate_limit_requests", "2").start();
    let client = service.client();
    let authorization = bearer(API_KEY);
    let page =
        |origin| [("origin", origin), ("sec-fetch-site", "cross-site"), ("authorization", &authorization)];
    for origin in [SHOP, LOCAL] {
        let number = number();
        let ask = |path: &str| client.post_with(path, &page(origin), &json!({ "mobileNumber": number }));
        for (path, status) in [
            ("/resend-otp", 404),
            ("/generate-otp", 201),
            ("/resend-otp", 200),
            ("/regenerate-otp", 429),
            ("/verify-otp", 400),
        ] {
            let answer = ask(path);
            assert_eq!(answer.status, status, "{path}");
            lets_in(&answer, origin);
            // Scripts read no other fields than these.
            for field in
                ["retry-after", "ratelimit", "ratelimit-policy", "idempotent-replayed", "x-request-id"]
            {
                assert!(
                    lists(&answer, "access-control-expose-headers", field),
                    "{field}: {:?}",
                    said(&answer)
                );
            }
        }
        let keyless = client.post_with("/generate-otp", &[("origin", origin)], &json!({}));
        keyless.expect_problem(401, "unauthorized");
        lets_in(&keyless, origin);
        let erased = client.send("DELETE", &format!("/users/{number}"), &page(origin), b"");
        assert_eq!(erased.status, 204);
        lets_in(&erased, origin);
    }
}

#[test]
fn in_development_a_page_that_may_call_is_no_stranger_and_any_other_is() {
    let service = with_origins().start();
    let client = service.client();
    let body = json!({ "mobileNumber": number() });
    let made =
        client.post_with("/generate-otp", &[("origin", SHOP), ("sec-fetch-site", "cross-site")], &body);
    made.expect(201);
    lets_in(&made, SHOP);
    for origin in OTHERS {
        let answer = client.post_with("/generate-otp", &[("origin", origin)], &body);
        answer.expect_problem(403, "forbidden");
        assert_eq!(said(&answer), [], "{origin}");
        let asked = preflight(&client, origin, "POST", "/generate-otp");
        asked.expect_problem(403, "forbidden");
        assert_eq!(said(&asked), [], "{origin}");
    }
    // Its origin lets a page in, and nothing else: not under another name of this machine.
    let head = format!("POST /generate-otp HTTP/1.1\nhost: evil.example\norigin: {SHOP}");
    client.raw(&head, &body.to_string()).expect_problem(403, "forbidden");
    // Who is no page needs no origin.
    let plain = client.post("/generate-otp", &body);
    plain.expect(201);
    assert_eq!(plain.header("access-control-allow-origin"), "");
    assert!(lists(&plain, "vary", "origin"), "what a cache keeps of this is not for a page");
}

#[test]
fn in_production_any_other_page_gets_nothing_that_its_browser_would_show_it() {
    let service = in_production().start();
    let client = service.client();
    let authorization = bearer(API_KEY);
    for origin in OTHERS {
        let headers = [("origin", origin), ("authorization", authorization.as_str())];
        let answer = client.post_with("/generate-otp", &headers, &json!({ "mobileNumber": number() }));
        answer.expect(201);
        assert_eq!(said(&answer), [], "{origin}");
        let asked = preflight(&client, origin, "POST", "/generate-otp");
        assert_eq!(asked.status, 405, "{origin}");
        assert_eq!(said(&asked), [], "{origin}");
    }
}

#[test]
fn origins_that_make_no_sense_are_named() {
    for bad in [
        "*",
        "https://*",
        "https://*.shop.example",
        "shop.example",
        "//shop.example",
        "https://shop.example/",
        "https://shop.example/checkout",
        "https://shop.example?x",
        "https://user@shop.example",
        "https://shop.example:port",
        "https://",
        "null",
        "file://",
        "ftp://shop.example",
        "https://shop.example https://other.example",
        "https://shop.example, *",
    ] {
        let service = Service::builder().variable("cors_origins", bad).start();
        let client = service.client();
        for answer in [client.get("/readyz"), client.resend(&number())] {
            let problem = answer.expect_problem(503, "misconfigured");
            assert!(problem["detail"].as_str().unwrap().contains("cors_origins"), "{bad}: {problem}");
        }
    }
}
