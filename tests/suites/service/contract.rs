//! What holds for every answer.

use harness::{Service, number};
use serde_json::json;
use std::io::{Read, Write};

#[test]
fn every_answer_has_a_length_an_id_and_is_not_stored() {
    let service = Service::start();
    let client = service.client();
    let number = number();
    let body = json!({ "mobileNumber": number }).to_string();
    let mut ids = Vec::new();
    for (method, path, body) in [
        ("GET", "/healthz", ""),
        ("GET", "/readyz", ""),
        ("GET", "/openapi.json", ""),
        ("GET", "/nowhere", ""),
        ("GET", "/generate-otp", ""),
        ("POST", "/generate-otp", "{"),
        ("POST", "/generate-otp", &body),
        ("POST", "/resend-otp", &body),
        ("POST", "/regenerate-otp", &body),
        ("POST", "/verify-otp", &body),
    ] {
        let answer = client.send(method, path, &[], body.as_bytes());
        assert_eq!(answer.header("content-length"), answer.body.len().to_string(), "{method} {path}");
        assert_eq!(answer.header("cache-control"), "no-store", "{method} {path}");
        let kind = if answer.status < 400 { "application/json" } else { "application/problem+json" };
        assert_eq!(answer.header("content-type"), kind, "{method} {path}");
        ids.push(answer.header("x-request-id").to_owned());
    }
    assert!(ids.iter().all(|id| id.len() == 36), "{ids:?}");
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 10);
}

#[test]
fn a_sane_request_id_is_kept_and_another_is_replaced() {
    let service = Service::start();
    let client = service.client();
    let longest = "x".repeat(128);
    for id in ["a", "order 7/42 ~", &longest] {
        let answer = client.send("GET", "/healthz", &[("x-request-id", id)], b"");
        assert_eq!(answer.header("x-request-id"), id);
    }
    let too_long = "x".repeat(129);
    for id in ["", "\u{e9}t\u{e9}", "a\tb", &too_long] {
        let answer = client.send("GET", "/healthz", &[("x-request-id", id)], b"");
        assert_eq!(answer.header("x-request-id").len(), 36, "{id:?}");
    }
}

#[test]
fn head_answers_like_get_without_the_body() {
    let service = Service::start();
    let client = service.client();
    for path in ["/healthz", "/readyz", "/openapi.json"] {
        let answer = client.send("HEAD", path, &[], b"");
        assert_eq!(answer.status, 200);
        assert!(answer.body.is_empty());
    }
}

#[test]
fn one_connection_serves_many_requests() {
    let service = Service::start();
    let mut stream = std::net::TcpStream::connect(service.address()).unwrap();
    let body = json!({ "mobileNumber": number() }).to_string();
    for _ in 0..5 {
        write!(
            stream,
            "POST /generate-otp HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = Vec::new();
        let mut byte = [0];
        while !answer.ends_with(b"}") {
            stream.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 201"), "{}", String::from_utf8_lossy(&answer));
    }
}
