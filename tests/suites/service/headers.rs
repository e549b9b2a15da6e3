//! The fields that every answer has, whatever it says.

use crate::{api_key, bearer};
use harness::{Client, Response, Service, number};
use serde_json::json;
use std::collections::BTreeSet;

const KEY: &str = "5a0c7be1-shops-own-key";

#[track_caller]
fn once<'a>(answer: &'a Response, field: &str) -> &'a str {
    assert_eq!(answer.headers.get_all(field).iter().count(), 1, "{field}: {:?}", answer.headers);
    answer.header(field)
}

/// What holds for all of them.
#[track_caller]
fn is_safe_in_a_browser(what: &str, answer: &Response) {
    assert_eq!(once(answer, "x-content-type-options"), "nosniff", "{what}");
    assert_eq!(
        once(answer, "content-security-policy"),
        "default-src 'none'; frame-ancestors 'none'",
        "{what}"
    );
    assert_eq!(once(answer, "cache-control"), "no-store", "{what}");
    assert!(!once(answer, "x-request-id").is_empty(), "{what}");
    if answer.status == 204 {
        // RFC 9110, section 8.6
        assert!(!answer.headers.contains_key("content-length"), "{what}");
        assert!(!answer.headers.contains_key("content-type"), "{what}");
        assert!(answer.body.is_empty(), "{what}");
    } else {
        assert_eq!(once(answer, "content-length"), answer.body.len().to_string(), "{what}");
        let kind = if answer.status < 400 { "application/json" } else { "application/problem+json" };
        assert_eq!(once(answer, "content-type"), kind, "{what}");
        assert!(!answer.headers.contains_key("transfer-encoding"), "{what}");
    }
}

#[test]
fn every_answer_has_the_fields_that_keep_it_where_it_belongs() {
    let service = Service::builder()
        .variable("rate_limit_requests", "4")
        .variable("max_verify_attempts", "1")
        .variable("api_keys", &api_key("shop", "send+verify+admin", KEY))
        .start();
    let client = service.client();
    let (number, other) = (number(), number());
    let authorization = bearer(KEY);
    let keyed = [("authorization", authorization.as_str())];
    let post = |path: &str, body: serde_json::Value| client.post_with(path, &keyed, &body);
    let known = json!({ "mobileNumber": number });
    let mut statuses = BTreeSet::new();
    let mut see = |what: &str, answer: &Response, status: u16| {
        assert_eq!(answer.status, status, "{what}: {}", String::from_utf8_lossy(&answer.body));
        is_safe_in_a_browser(what, answer);
        statuses.insert(status);
    };
    see("healthz", &client.get("/healthz"), 200);
    see("readyz", &client.get("/readyz"), 200);
    see("openapi", &client.get("/openapi.json"), 200);
    see("unknown path", &client.get("/nowhere"), 404);
    see("wrong method", &client.get("/generate-otp"), 405);
    see("OPTIONS", &client.send("OPTIONS", "/verify-otp", &[], b""), 405);
    see("no key", &client.post("/generate-otp", &known), 401);
    see("no JSON", &client.send("POST", "/generate-otp", &keyed, b"{"), 400);
    see("too large", &client.send("POST", "/generate-otp", &keyed, &[b' '; 5_000]), 413);
    see("no number", &post("/generate-otp", json!({ "mobileNumber": "+1" })), 422);
    see("unknown number", &post("/resend-otp", json!({ "mobileNumber": other })), 404);
    see("relay only", &client.send("POST", "/internal/purge", &keyed, b""), 404);
    let made = post("/generate-otp", known.clone());
    see("generate", &made, 201);
    see("resend", &post("/resend-otp", known.clone()), 200);
    let otp = post("/regenerate-otp", known.clone());
    see("regenerate", &otp, 201);
    let otp = otp.json()["otp"].clone();
    see("verify", &post("/verify-otp", json!({ "mobileNumber": number, "otp": otp })), 200);
    see("used", &post("/resend-otp", known.clone()), 410);
    let otp = post("/generate-otp", known.clone()).json()["otp"].as_str().unwrap().to_owned();
    let wrong = json!({ "mobileNumber": number, "otp": crate::other_than(&otp) });
    see("mismatch", &post("/verify-otp", wrong.clone()), 422);
    see("no attempts", &post("/verify-otp", wrong), 429);
    see("limited", &post("/generate-otp", known), 429);
    see("erasure", &client.send("DELETE", &format!("/users/{number}"), &keyed, b""), 204);
    see("erasure of nobody", &client.send("DELETE", "/users/x", &keyed, b""), 422);
    assert_eq!(
        statuses.into_iter().collect::<Vec<_>>(),
        [200, 201, 204, 400, 401, 404, 405, 410, 413, 422, 429]
    );
}

#[test]
fn so_have_the_answers_of_a_service_that_does_not_serve() {
    let misconfigured = Service::builder().variable("otp_length", "99").start();
    let client = misconfigured.client();
    for (what, answer, status) in [
        ("misconfigured", client.resend(&number()), 503),
        ("misconfigured readyz", client.get("/readyz"), 503),
        ("misconfigured healthz", client.get("/healthz"), 200),
    ] {
        assert_eq!(answer.status, status, "{what}");
        is_safe_in_a_browser(what, &answer);
    }
    let service = Service::start();
    let client = service.client();
    let stranger = client.raw("POST /generate-otp HTTP/1.1\nhost: evil.example", "{}");
    stranger.expect_problem(403, "forbidden");
    // It answers and closes, as it was asked to.
    is_safe_in_a_browser("stranger", &stranger);
    client.get("/readyz").expect(200);
    let _hold = service.hold_writes();
    let answer = client.post("/generate-otp", &json!({ "mobileNumber": number() }));
    answer.expect_problem(503, "unavailable");
    is_safe_in_a_browser("unavailable", &answer);
}

#[test]
fn head_has_the_fields_of_get() {
    let service = Service::start();
    let client: Client = service.client();
    for path in ["/healthz", "/readyz", "/openapi.json"] {
        client.get("/readyz").expect(200);
        let (get, head) = (client.get(path), client.send("HEAD", path, &[], b""));
        assert!(head.body.is_empty());
        let fields = |answer: &Response| -> BTreeSet<(String, String)> {
            let fields = answer
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
            fields.filter(|(name, _)| !["x-request-id", "date"].contains(&name.as_str())).collect()
        };
        assert_eq!(fields(&head), fields(&get), "{path}");
    }
}

#[test]
fn the_callers_request_id_comes_back_with_refusals_too() {
    let service = Service::start();
    let client = service.client();
    let id = [("x-request-id", "order 7/42")];
    for (method, path) in
        [("GET", "/nowhere"), ("GET", "/generate-otp"), ("POST", "/verify-otp"), ("DELETE", "/users/x")]
    {
        let answer = client.send(method, path, &id, b"");
        assert!(answer.status >= 400, "{method} {path}");
        assert_eq!(answer.header("x-request-id"), "order 7/42", "{method} {path}");
    }
    let body = json!({ "mobileNumber": number() });
    assert_eq!(client.post_with("/generate-otp", &id, &body).header("x-request-id"), "order 7/42");
    let erased = client.send("DELETE", "/users/+14155550123", &id, b"");
    assert_eq!((erased.status, erased.header("x-request-id")), (204, "order 7/42"));
}
