//! Every way in which a request can be wrong, and what it hears.

use harness::{Client, Service, number};
use serde_json::json;

const CALLS: [&str; 4] = ["/generate-otp", "/resend-otp", "/regenerate-otp", "/verify-otp"];

fn post(client: &Client, path: &str, body: &[u8]) -> harness::Response {
    client.send("POST", path, &[], body)
}

#[test]
fn what_is_no_json_object_is_invalid_json() {
    let service = Service::start();
    let client = service.client();
    let deep = "[".repeat(2_000);
    for path in CALLS {
        for body in [
            "",
            " ",
            "{",
            "}",
            "null",
            "true",
            "7",
            "\"+14155550123\"",
            "[]",
            "[\"+14155550123\"]",
            "{'a':1}",
            "{\"mobileNumber\":\"+14155550123\"} x",
            "mobileNumber=%2B14155550123",
            "{\"mobileNumber\":\"\\ud800\"}",
            "{\"mobileNumber\":\"+14155550123\",}",
            &deep,
        ] {
            let problem = post(&client, path, body.as_bytes()).expect_problem(400, "invalid_json");
            assert!(problem["detail"].as_str().unwrap().contains("JSON object"), "{problem}");
        }
        post(&client, path, b"{\"mobileNumber\":\"\xff\xfe\"}").expect_problem(400, "invalid_json");
    }
}

#[test]
fn a_field_of_the_wrong_type_is_named() {
    let service = Service::start();
    let client = service.client();
    for path in CALLS {
        for value in [json!(14155550123_i64), json!(true), json!([]), json!({}), json!(1.5)] {
            let problem =
                client.post(path, &json!({ "mobileNumber": value })).expect_problem(400, "invalid_json");
            assert!(problem["detail"].as_str().unwrap().contains("mobileNumber"), "{problem}");
        }
    }
    for (path, field) in [
        ("/generate-otp", "email"),
        ("/generate-otp", "channel"),
        ("/verify-otp", "otp"),
        ("/verify-otp", "otpId"),
    ] {
        let mut body = json!({ "mobileNumber": number() });
        if path == "/verify-otp" {
            body["otp"] = json!("123456");
        }
        body[field] = json!(1);
        let problem = client.post(path, &body).expect_problem(400, "invalid_json");
        assert!(problem["detail"].as_str().unwrap().contains(field), "{problem}");
    }
    // A number that would have been the right code is still no string, and is not repeated.
    let answer = client.post("/verify-otp", &json!({ "mobileNumber": number(), "otp": 918_273 }));
    answer.expect_problem(400, "invalid_json");
    assert!(!String::from_utf8_lossy(&answer.body).contains("918273"));
}

#[test]
fn a_missing_field_is_named() {
    let service = Service::start();
    let client = service.client();
    for path in CALLS {
        for body in [json!({}), json!({ "mobileNumber": null })] {
            let problem = client.post(path, &body).expect_problem(400, "missing_field");
            assert!(problem["detail"].as_str().unwrap().contains("mobileNumber"), "{problem}");
        }
    }
    let problem =
        client.post("/verify-otp", &json!({ "mobileNumber": number() })).expect_problem(400, "missing_field");
    assert!(problem["detail"].as_str().unwrap().starts_with("otp "), "{problem}");
    let body = json!({ "mobileNumber": number(), "channel": "email" });
    let problem = client.post("/generate-otp", &body).expect_problem(400, "missing_field");
    assert!(problem["detail"].as_str().unwrap().starts_with("email "), "{problem}");
}

#[test]
fn what_is_no_mobile_number_is_refused_and_not_repeated() {
    let service = Service::start();
    let client = service.client();
    for path in CALLS {
        for bad in [
            "",
            " ",
            "+",
            "x",
            "+1",
            "2125550100",
            "+1212555010",
            "+121255501001234",
            "+99912345678",
            "+442079460018",
            "+18005550123",
            "+19005550123",
            "+12125550100#",
            "+1212555O100",
            "+12125550100 ext 5",
        ] {
            let mut body = json!({ "mobileNumber": bad });
            if path == "/verify-otp" {
                body["otp"] = json!("123456");
            }
            let problem = client.post(path, &body).expect_problem(422, "invalid_mobile_number");
            let detail = problem["detail"].as_str().unwrap();
            assert!(bad.len() < 3 || !detail.contains(bad), "{detail}");
        }
    }
}

#[test]
fn what_is_no_address_or_channel_is_refused() {
    let service = Service::start();
    let client = service.client();
    for bad in
        ["", "ada", "ada@", "ada@localhost", "Ada <ada@example.com>", "ada@example.com\r\nBcc: e@example.com"]
    {
        for channel in ["sms", "email"] {
            let body = json!({ "mobileNumber": number(), "email": bad, "channel": channel });
            client.post("/generate-otp", &body).expect_problem(422, "invalid_email");
        }
    }
    for bad in ["", "SMS", "voice", "e-mail"] {
        let body = json!({ "mobileNumber": number(), "email": "ada@example.com", "channel": bad });
        client.post("/generate-otp", &body).expect_problem(422, "invalid_channel");
    }
}

#[test]
fn a_body_may_have_4_kib_and_no_byte_more() {
    let service = Service::start();
    let client = service.client();
    let sized = |bytes: usize| {
        let body = json!({ "mobileNumber": number() }).to_string();
        format!("{body}{}", " ".repeat(bytes - body.len()))
    };
    assert_eq!(sized(4096).len(), 4096);
    for path in CALLS {
        assert_ne!(post(&client, path, sized(4096).as_bytes()).status, 413);
        post(&client, path, sized(4097).as_bytes()).expect_problem(413, "payload_too_large");
        post(&client, path, &[b'x'; 200_000]).expect_problem(413, "payload_too_large");
    }
    // Also where nobody said beforehand how long it is.
    let chunked = post_in_chunks(service.address(), &sized(5_000));
    assert!(chunked.starts_with("HTTP/1.1 413"), "{chunked}");
    post(&client, "/generate-otp", sized(4096).as_bytes()).expect(201);
}

/// Sends a body in chunks, without a content-length.
fn post_in_chunks(address: &str, body: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(
        stream,
        "POST /generate-otp HTTP/1.1\r\nhost: {address}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    for chunk in body.as_bytes().chunks(1_000) {
        write!(stream, "{:x}\r\n", chunk.len()).unwrap();
        stream.write_all(chunk).unwrap();
        stream.write_all(b"\r\n").unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn an_unknown_path_is_not_found() {
    let service = Service::start();
    let client = service.client();
    for path in
        ["/", "/generate-otp/", "/Generate-otp", "/generate-otp/x", "/users", "/index.html", "//generate-otp"]
    {
        for method in ["GET", "POST", "DELETE"] {
            client.send(method, path, &[], b"").expect_problem(404, "not_found");
        }
    }
}

#[test]
fn a_wrong_method_hears_which_one_is_right() {
    let service = Service::start();
    let client = service.client();
    for path in CALLS {
        for method in ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let answer = client.send(method, path, &[], b"");
            answer.expect_problem(405, "method_not_allowed");
            assert_eq!(answer.header("allow"), "POST");
        }
        assert_eq!(client.send("HEAD", path, &[], b"").status, 405);
    }
    for path in ["/healthz", "/readyz", "/openapi.json"] {
        let answer = client.send("POST", path, &[], b"{}");
        answer.expect_problem(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), "GET, HEAD");
    }
}

#[test]
fn a_field_that_the_call_does_not_have_is_refused_with_what_was_meant() {
    let service = Service::start();
    let client = service.client();
    for path in CALLS {
        for (name, meant) in
            [("mobile_number", "Did you mean mobileNumber?"), ("ttl", "It has mobileNumber, email")]
        {
            let mut body = json!({ "mobileNumber": number() });
            body[name] = json!("600");
            let problem = client.post(path, &body).expect_problem(400, "unknown_field");
            assert!(problem["detail"].as_str().unwrap().contains(meant), "{problem}");
        }
    }
    // A code that nobody looks at would be one that is not checked.
    let body = json!({ "mobileNumber": number(), "OTP": "123456" });
    let problem = client.post("/verify-otp", &body).expect_problem(400, "unknown_field");
    assert!(problem["detail"].as_str().unwrap().contains("Did you mean otp?"), "{problem}");
    // What stands where a name should may be a number.
    let body = json!({ "+12125550100": "x" });
    let answer = client.post("/generate-otp", &body);
    answer.expect_problem(400, "unknown_field");
    assert!(!String::from_utf8_lossy(&answer.body).contains("2125550100"));
}

#[test]
fn a_refused_number_is_told_the_true_reason() {
    let service = Service::start();
    let client = service.client();
    for (number, reason) in [
        ("+1212555010", "too few digits"),
        ("+12125550100123", "too many digits"),
        ("+99912345678", "calling code of no country"),
        ("2125550100", "no country code"),
        ("+12125550100 ext 5", "characters"),
        ("+442079460018", "fixed-line"),
        ("+18005550123", "toll-free"),
    ] {
        let problem = client.try_generate(number).expect_problem(422, "invalid_mobile_number");
        assert!(problem["detail"].as_str().unwrap().contains(reason), "{number}: {problem}");
    }
}
