//! Requests that a proxy in front might read otherwise than the host: none of them hides another one.

use crate::conversation::{Conversation, connect};
use harness::{Service, number};
use serde_json::json;
use std::{io::Write, time::Duration};

/// What is to be smuggled in: it must never be answered.
const HIDDEN: &str = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// Each of these gets one answer, of this status, and the connection ends there.
#[track_caller]
fn refused(status: u16, requests: &[&str]) {
    let service = Service::start();
    for request in requests {
        for hidden in ["", HIDDEN] {
            let conversation = Conversation::with(service.address(), format!("{request}{hidden}").as_bytes());
            let text = conversation.text();
            assert_eq!(conversation.statuses(), [status], "{request:?}: {text}");
            assert!(conversation.closed, "{request:?}: {text}");
            assert!(text.to_lowercase().contains("\r\nconnection: close\r\n"), "{request:?}: {text}");
        }
        // Nor where it comes after an honest one.
        let conversation =
            Conversation::with(service.address(), format!("{HIDDEN}{request}{HIDDEN}").as_bytes());
        assert_eq!(conversation.statuses(), [200, status], "{request:?}: {}", conversation.text());
    }
    service.client().get("/healthz").expect(200);
}

/// A request with these fields, and this in the place of its body.
fn post(fields: &str, body: &str) -> String {
    format!("POST /generate-otp HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n\r\n{body}")
}

fn each<'a>(requests: impl IntoIterator<Item = &'a String>) -> Vec<&'a str> {
    requests.into_iter().map(String::as_str).collect()
}

#[test]
fn a_length_beside_a_transfer_encoding_is_refused() {
    let requests = [
        "content-length: 5\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 5",
        "Transfer-Encoding: chunked\r\nContent-Length: 0",
        "content-length: x\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: x",
    ]
    .map(|fields| post(fields, "0\r\n\r\n"));
    refused(400, &each(&requests));
}

#[test]
fn a_length_that_is_not_one_clear_number_is_refused() {
    let values = [
        "+5",
        "-5",
        "5, 5",
        "5,6",
        "5 5",
        "0x5",
        "5.0",
        "5;",
        "",
        "\"5\"",
        "99999999999999999999",
        "18446744073709551616",
    ];
    let mut requests: Vec<_> =
        values.iter().map(|value| post(&format!("content-length: {value}"), "hello")).collect();
    requests.push(post("content-length: 5\r\ncontent-length: 5", "hello"));
    requests.push(post("content-length: 5\r\ncontent-length: 6", "hello"));
    requests.push(post("content-length: 0\r\nContent-Length: 41", ""));
    refused(400, &each(&requests));
}

#[test]
fn a_transfer_encoding_other_than_chunked_is_refused() {
    let values = [
        "chunked, identity",
        "identity, chunked",
        "gzip, chunked",
        "xchunked",
        "chunkedx",
        "identity",
        "\"chunked\"",
        "chunked;q=1",
        "chunked,",
        "\u{b}chunked",
        "",
    ];
    let mut requests: Vec<_> =
        values.iter().map(|value| post(&format!("transfer-encoding: {value}"), "0\r\n\r\n")).collect();
    requests.push(post("transfer-encoding: chunked\r\ntransfer-encoding: chunked", "0\r\n\r\n"));
    requests.push(post("transfer-encoding: chunked\r\ntransfer-encoding: identity", "0\r\n\r\n"));
    requests.push(post("transfer-encoding: identity\r\ntransfer-encoding: chunked", "0\r\n\r\n"));
    requests.push(post("transfer-encoding: chunked", "0\r\n\r\n").replace("HTTP/1.1", "HTTP/1.0"));
    refused(400, &each(&requests));
}

#[test]
fn a_head_whose_lines_can_be_read_in_two_ways_is_refused() {
    refused(
        400,
        &[
            "GET /healthz HTTP/1.1\nhost: localhost\n\n",
            "GET /healthz HTTP/1.1\r\nhost: localhost\nx: y\r\n\r\n",
            "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\n",
            "GET /healthz HTTP/1.1\r\nhost: localhost\rx: y\r\n\r\n",
            "GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: y\r\r\n\r\n",
            "GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: a\r\n b\r\n\r\n",
            "GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: a\r\n\tb\r\n\r\n",
            "GET /healthz HTTP/1.1\r\n host: localhost\r\n\r\n",
            "GET /healthz HTTP/1.1\r\nhost: localhost\r\nx : y\r\n\r\n",
            "POST /generate-otp HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n",
            "POST /generate-otp HTTP/1.1\r\nhost: localhost\r\ncontent-length\t: 5\r\n\r\nhello",
            "GET /healthz HTTP/1.1\r\nhost: localhost\r\nx\r\n\r\n",
            "GET /healthz HTTP/1.1\r\nhost: localhost\r\n: y\r\n\r\n",
            "GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: y\0z\r\n\r\n",
            "GET /healthz HTTP/1.1\r\nhost: localhost\r\nx\0: y\r\n\r\n",
            "GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: \u{1b}[31m\r\n\r\n",
            "GET /health\0z HTTP/1.1\r\nhost: localhost\r\n\r\n",
            "GET /healthz?\u{7f} HTTP/1.1\r\nhost: localhost\r\n\r\n",
            "GET /\u{e9} HTTP/1.1\r\nhost: localhost\r\n\r\n",
            "GET  /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n",
            "GET\t/healthz HTTP/1.1\r\nhost: localhost\r\n\r\n",
            "GET /healthz HTTP/1.1 \r\nhost: localhost\r\n\r\n",
            "GET /health z HTTP/1.1\r\nhost: localhost\r\n\r\n",
            "GET /healthz HTTP/1.2\r\nhost: localhost\r\n\r\n",
            "GET /healthz HTTP/2.0\r\nhost: localhost\r\n\r\n",
            "GET /healthz\r\n\r\n",
            "G@T /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "nonsense\r\n\r\n",
            "\r\n\r\nGET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n",
        ],
    );
}

#[test]
fn a_request_that_names_another_place_is_refused() {
    refused(
        400,
        &[
            "GET /healthz HTTP/1.1\r\n\r\n",
            "GET /healthz HTTP/1.1\r\nhost: localhost\r\nhost: b\r\n\r\n",
            "GET /healthz HTTP/1.1\r\nhost: localhost\r\nHost: a\r\n\r\n",
            "GET /healthz HTTP/1.1\r\nhost:\r\n\r\n",
            "GET /healthz HTTP/1.1\r\nhost: a b\r\n\r\n",
            "GET /healthz HTTP/1.1\r\nhost: user@a\r\n\r\n",
            "GET http://localhost/healthz HTTP/1.1\r\nhost: b\r\n\r\n",
            "GET http://a/.well-known/spin/health HTTP/1.1\r\nhost: b\r\n\r\n",
            "GET http://user@a/healthz HTTP/1.1\r\nhost: localhost\r\n\r\n",
            "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nhost: localhost\r\n\r\n",
            "GET a HTTP/1.1\r\nhost: localhost\r\n\r\n",
        ],
    );
}

#[test]
fn chunks_that_can_be_read_in_two_ways_are_refused() {
    let extension = format!("0;{}\r\n\r\n", "x".repeat(300));
    let bodies = [
        "x\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5;a\0\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\n\n",
        "5\r\nhello\r\n0\r\n\n",
        "5\r\nhello\r\n0\r\nx : y\r\n\r\n",
        "5\r\nhello\r\n0\r\nx: y\n\r\n",
        "5\r\nhello\r\n0\r\n x\r\n\r\n",
        "5\r\nhello\r\n0\r\ncontent-length: 5\r\n\r\n",
        "5\r\nhello\r\n0\r\ntransfer-encoding: chunked\r\n\r\n",
        "5\r\nhello\r\n0\r\nGET /healthz HTTP/1.1\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        &extension,
    ];
    let requests = bodies.map(|body| post("transfer-encoding: chunked", body));
    refused(400, &each(&requests));
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let long = format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "x".repeat(32 * 1024));
    let endless = format!("GET /{}", "x".repeat(200 * 1024));
    let many = format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "x: y\r\n".repeat(65));
    refused(431, &[&long, &endless, &many]);
}

#[test]
fn what_follows_a_body_that_nobody_reads_is_no_request() {
    let service = Service::start();
    let hidden = HIDDEN.repeat(60_000);
    let length = format!("content-length: {}", hidden.len());
    let mut chunked = String::new();
    for _ in 0..600 {
        chunked += &format!("{:x}\r\n{}\r\n", HIDDEN.len() * 100, HIDDEN.repeat(100));
    }
    for (request, status) in [
        // More than the component reads of it.
        (post(&length, &hidden), 413),
        (post("transfer-encoding: chunked", &(chunked.clone() + "0\r\n\r\n")), 413),
        // And calls that take none.
        (post(&length, &hidden).replace("/generate-otp", "/nowhere"), 404),
        (post(&length, &hidden).replace("POST /generate-otp", "GET /.well-known/spin/health"), 200),
        (post(&length, &hidden).replace("host: localhost", "host: local host"), 400),
        (post("content-length: 5", "hello").replace("host: localhost", "host: local host"), 400),
    ] {
        let conversation = Conversation::with(service.address(), format!("{request}{HIDDEN}").as_bytes());
        let statuses = conversation.statuses();
        assert_eq!(statuses.len(), 1, "{:?}: {}", &request[..60], conversation.text());
        assert_eq!(statuses, [status], "{:?}", &request[..60]);
        assert!(conversation.closed, "{:?}", &request[..60]);
    }
    // A body that was read along is over where it says, and its contents were none of the host's business.
    let short =
        post(&format!("content-length: {}", HIDDEN.len()), HIDDEN).replace("/generate-otp", "/nowhere");
    let conversation = Conversation::with(
        service.address(),
        format!("{short}GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes(),
    );
    assert_eq!(conversation.statuses(), [404, 200], "{}", conversation.text());
}

#[test]
fn what_is_clear_is_answered() {
    let service = Service::start();
    let last = HIDDEN.replace("host: localhost", "host: localhost\r\nconnection: close");
    let body = || json!({ "mobileNumber": number() }).to_string();
    let sized = || {
        let body = body();
        post(&format!("content-length: {}", body.len()), &body)
    };
    let in_chunks = |fields: &str, extension: &str, trailers: &str| {
        let body = body();
        let (a, b) = body.split_at(7);
        let chunks = format!("7{extension}\r\n{a}\r\n{:X}\r\n{b}\r\n0\r\n{trailers}\r\n", b.len());
        post(&format!("transfer-encoding: chunked{fields}"), &chunks)
    };
    for (requests, statuses) in [
        (HIDDEN.to_owned(), &[200, 200][..]),
        (sized(), &[201, 200]),
        (sized() + &sized(), &[201, 201, 200]),
        (in_chunks("", "", ""), &[201, 200]),
        (in_chunks("", "", "") + &sized() + &in_chunks("", "", ""), &[201, 201, 201, 200]),
        (in_chunks("", ";a=\"b c\"", "x: y\r\nz:\r\n"), &[201, 200]),
        (in_chunks("\r\nexpect: 100-continue", "", ""), &[100, 201, 200]),
        (in_chunks("", "", "").replace(": chunked", ":\tChunked "), &[201, 200]),
        (format!("\r\n{HIDDEN}"), &[200, 200]),
        (HIDDEN.replace("/healthz", "http://localhost/healthz"), &[200, 200]),
        (HIDDEN.replace("host: localhost", "host: localhost\r\ncontent-length: 0"), &[200, 200]),
        (HIDDEN.replace("host: localhost", "host: localhost\r\nx: caf\u{e9}"), &[200, 200]),
        // Another protocol is offered, and not taken.
        (HIDDEN.replace("host: localhost", "host: localhost\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__"), &[200, 200]),
        (HIDDEN.replace("HTTP/1.1", "HTTP/1.0").replace("host: localhost", "host: localhost\r\nconnection: keep-alive"), &[200, 200]),
    ] {
        let conversation = Conversation::with(service.address(), format!("{requests}{last}").as_bytes());
        assert_eq!(conversation.statuses(), statuses, "{requests:?}: {}", conversation.text());
        assert!(conversation.closed);
        // The same, as if the network had cut it into pieces.
        let mut stream = connect(service.address());
        let requests = requests.replace("+1415555", "+1415554") + &last;
        for piece in requests.as_bytes().chunks(requests.len() / 7) {
            stream.write_all(piece).unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
        let conversation = Conversation::rest_of(&mut stream);
        assert_eq!(conversation.statuses(), statuses, "{requests:?}: {}", conversation.text());
    }
}
