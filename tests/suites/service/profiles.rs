//! Whom each profile serves, and what the production profile insists on.

use crate::{api_key, bearer, delivered, destinations::OTHER_KINDS, other_than};
use base64ct::{Base64, Encoding};
use harness::{Builder, Client, Response, Service, number, unused_address};
use otp_seal::KeyRing;
use serde_json::json;
use std::net::{IpAddr, UdpSocket};

/// 32 bytes each, and nobody's.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const OTHER_KEY: &str = "Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";
const API_KEY: &str = "5a0c7be1-shops-own-key";

/// What everybody has, for it stands in the source.
const PUBLIC_ENCRYPTION_KEY: &[u8] = b"spin-otp public development key.";
const PUBLIC_INDEX_KEY: &[u8] = b"spin-otp public development idx.";
const PUBLIC_EVENT_KEY: &[u8] = b"spin-otp public development evt.";

/// `POST /generate-otp` with these fields, as they are, and no others.
fn generate_as(client: &Client, fields: &[&str]) -> Response {
    let head = [&["POST /generate-otp HTTP/1.1"], fields].concat().join("\n");
    client.raw(&head, &json!({ "mobileNumber": number() }).to_string())
}

/// The port that a client has to know.
fn port(service: &Service) -> &str {
    service.address().rsplit_once(':').unwrap().1
}

/// An address of this machine that is not the loopback one, if it has any.
fn own_address() -> Option<IpAddr> {
    // Connecting sends nothing, and tells from where it would be sent. (RFC 5737: addresses of nobody.)
    ["198.51.100.1:9", "192.0.2.1:9", "203.0.113.1:9"].into_iter().find_map(|far| {
        let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
        socket.connect(far).ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|own| !own.is_loopback() && !own.is_unspecified())
    })
}

fn users(service: &Service) -> i64 {
    // The first to need the database makes it.
    service.client().raw("GET /readyz HTTP/1.1\nhost: localhost", "").expect(200);
    service.sql().number("SELECT count(*) FROM accounts WHERE application <> ''", &[])
}

/// Names under which a page of somebody else's reaches this machine (DNS rebinding), or that are none.
const FOREIGN_HOSTS: [&str; 16] = [
    "evil.example",
    "evil.example:3000",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "127.0.0.1.nip.io:3000",
    "foo.localhost",
    "localhost@evil.example",
    "evil.example#localhost",
    "localhost:3000:3000",
    "0.0.0.0",
    "0.0.0.0:3000",
    "[::]",
    "192.0.2.7:3000",
    "[2001:db8::7]",
    "localhost evil.example",
    "",
];

/// What a browser adds when a page of another site sends a request.
const CROSS_SITE: [&str; 9] = [
    "origin: https://evil.example",
    "origin: null",
    "origin: http://localhost:1",
    "origin: http://localhost.evil.example",
    "origin: https://localhost",
    "origin: file://",
    "origin:",
    "sec-fetch-site: cross-site",
    "sec-fetch-site: same-site",
];

/// What proxies add when they pass on a request of somebody else's.
const FORWARDED: [&str; 9] = [
    "forwarded: for=203.0.113.9",
    "x-forwarded-for: 203.0.113.9",
    "x-forwarded-for: 127.0.0.1",
    "x-forwarded-host: otp.example",
    "x-forwarded-proto: https",
    "x-real-ip: 203.0.113.9",
    "via: 1.1 proxy",
    "cf-connecting-ip: 203.0.113.9",
    "true-client-ip: 203.0.113.9",
];

#[test]
fn in_development_this_machine_is_answered_under_its_own_names() {
    let service = Service::builder().without_limits().start();
    let client = service.client();
    let port = port(&service);
    for host in ["localhost", "127.0.0.1", "[::1]", "127.9.8.7", "LocalHost", "[0:0:0:0:0:0:0:1]"] {
        generate_as(&client, &[&format!("host: {host}")]).expect(201);
        generate_as(&client, &[&format!("host: {host}:{port}")]).expect(201);
        generate_as(&client, &[&format!("host: {host}:80")]).expect(201);
    }
    // Pages of its own, and whatever is typed in.
    for (host, fields) in [
        (format!("localhost:{port}"), vec![format!("origin: http://localhost:{port}")]),
        (format!("127.0.0.1:{port}"), vec![format!("origin: http://127.0.0.1:{port}")]),
        ("localhost".to_owned(), vec!["sec-fetch-site: none".to_owned()]),
        (
            format!("localhost:{port}"),
            vec![format!("origin: http://localhost:{port}"), "sec-fetch-site: same-origin".to_owned()],
        ),
    ] {
        let host = format!("host: {host}");
        let fields: Vec<_> =
            std::iter::once(host.as_str()).chain(fields.iter().map(String::as_str)).collect();
        generate_as(&client, &fields).expect(201);
    }
}

#[test]
fn in_development_a_name_that_others_can_have_is_refused() {
    let service = Service::builder().without_limits().start();
    let client = service.client();
    let body = json!({ "mobileNumber": number(), "otp": "000000" }).to_string();
    for host in FOREIGN_HOSTS {
        let answer = generate_as(&client, &[&format!("host: {host}")]);
        // What is no host at all need not get as far.
        assert!([400, 403].contains(&answer.status), "{host:?}: {}", answer.status);
    }
    for (method, path) in [
        ("POST", "/generate-otp"),
        ("POST", "/resend-otp"),
        ("POST", "/regenerate-otp"),
        ("POST", "/verify-otp"),
        ("DELETE", "/users/+14155550123"),
        ("GET", "/readyz"),
        ("GET", "/openapi.json"),
        ("OPTIONS", "/generate-otp"),
        ("POST", "/internal/purge"),
    ] {
        let head = format!("{method} {path} HTTP/1.1\nhost: evil.example:{}", port(&service));
        let problem = client.raw(&head, &body).expect_problem(403, "forbidden");
        assert!(problem["detail"].as_str().unwrap().contains("allow_remote_development"), "{problem}");
    }
    // What a request is for stands in its target, where that tells.
    let absolute = "POST http://evil.example/generate-otp HTTP/1.1\nhost: localhost";
    assert_ne!(client.raw(absolute, &body).status, 201);
    for two in [["host: localhost", "host: evil.example"], ["host: evil.example", "host: localhost"]] {
        assert_ne!(generate_as(&client, &two).status, 201);
    }
    assert_ne!(generate_as(&client, &[]).status, 201);
    assert_eq!(users(&service), 0);
    // Whether it lives, everybody may know.
    client.raw("GET /healthz HTTP/1.1\nhost: evil.example", "").expect(200);
}

#[test]
fn in_development_a_page_of_another_site_is_refused() {
    let service = Service::builder().without_limits().start();
    let client = service.client();
    let host = format!("host: localhost:{}", port(&service));
    for field in CROSS_SITE {
        generate_as(&client, &[&host, field]).expect_problem(403, "forbidden");
    }
    let own = format!("origin: http://localhost:{}", port(&service));
    generate_as(&client, &[&host, &own, "sec-fetch-site: cross-site"]).expect_problem(403, "forbidden");
    generate_as(&client, &[&host, &own, "origin: https://evil.example"]).expect_problem(403, "forbidden");
    // One loopback name is not the other: another page of this machine's may be behind it.
    let other = format!("origin: http://127.0.0.1:{}", port(&service));
    generate_as(&client, &[&host, &other]).expect_problem(403, "forbidden");
    assert_eq!(users(&service), 0);
}

#[test]
fn in_development_a_link_of_another_page_leads_to_what_can_be_read() {
    let service = Service::builder().without_limits().start();
    let host = format!("host: localhost:{}", port(&service));
    let link = ["sec-fetch-site: cross-site", "sec-fetch-mode: navigate", "sec-fetch-dest: document"];
    let ask = |line: &str, fields: &[&str]| {
        let head = [&[line, host.as_str()], fields].concat().join("\n");
        service.client().raw(&head, "")
    };
    for path in ["/openapi.json", "/readyz"] {
        ask(&format!("GET {path} HTTP/1.1"), &link).expect(200);
        // A page may not load it as a part of itself.
        let part = [link[0], link[1], "sec-fetch-dest: iframe"];
        ask(&format!("GET {path} HTTP/1.1"), &part).expect_problem(403, "forbidden");
    }
    // A form is sent like a link is followed.
    ask("POST /generate-otp HTTP/1.1", &link).expect_problem(403, "forbidden");
    ask("DELETE /users/+14155550123 HTTP/1.1", &link).expect_problem(403, "forbidden");
}

#[test]
fn in_development_what_a_proxy_passes_on_is_refused() {
    let service = Service::builder().without_limits().start();
    for field in FORWARDED {
        generate_as(&service.client(), &["host: localhost", field]).expect_problem(403, "forbidden");
    }
    assert_eq!(users(&service), 0);
}

#[test]
fn in_development_nobody_can_claim_to_be_on_this_machine() {
    let address = unused_address();
    let port = address.rsplit_once(':').unwrap().1;
    let service = Service::builder().without_limits().listen(&format!("0.0.0.0:{port}")).start();
    let here = Client::new(format!("http://127.0.0.1:{port}"));
    // What a client says of its own address is not believed, neither against it…
    generate_as(&here, &["host: localhost", "spin-client-addr: 203.0.113.9:4711"]).expect(201);
    assert_eq!(users(&service), 1);
    // …nor in its favour.
    let Some(own) = own_address() else { return };
    let there = Client::new(format!("http://{own}:{port}"));
    there.raw("GET /healthz HTTP/1.1\nhost: localhost", "").expect(200);
    for claim in ["", "spin-client-addr: 127.0.0.1:4711", "spin-client-addr: 127.0.0.1", "x-claim: none"] {
        let fields = ["host: localhost", claim];
        let fields = if claim.is_empty() { &fields[..1] } else { &fields[..] };
        generate_as(&there, fields).expect_problem(403, "forbidden");
    }
    assert_eq!(users(&service), 1);
}

#[test]
fn remote_development_can_be_allowed() {
    let address = unused_address();
    let port = address.rsplit_once(':').unwrap().1;
    let _service = Service::builder()
        .without_limits()
        .variable("allow_remote_development", "true")
        .listen(&format!("0.0.0.0:{port}"))
        .start();
    let own = own_address().map(|own| Client::new(format!("http://{own}:{port}")));
    for client in own.into_iter().chain([Client::new(format!("http://127.0.0.1:{port}"))]) {
        for host in ["localhost", "otp.example", "evil.example:3000", "192.0.2.7"] {
            generate_as(&client, &[&format!("host: {host}")]).expect(201);
        }
        for field in CROSS_SITE.iter().chain(&FORWARDED) {
            generate_as(&client, &["host: localhost", field]).expect(201);
        }
    }
}

/// All that the production profile insists on.
fn production() -> Vec<(&'static str, String)> {
    vec![
        ("profile", "production".to_owned()),
        ("encryption_keys", format!("k1:{KEY}")),
        ("index_key", OTHER_KEY.to_owned()),
        ("event_keys", format!("k1:{KEY}")),
        ("api_keys", api_key("shop", "send+verify+admin", API_KEY)),
        ("reveal_otp", "false".to_owned()),
        ("allowed_countries", "*".to_owned()),
        ("global_rate_limit", "off".to_owned()),
    ]
}

fn with(variables: &[(&str, String)]) -> Builder {
    variables
        .iter()
        .fold(Service::builder().without_limits(), |builder, (name, value)| builder.variable(name, value))
}

/// What a misconfigured service says of itself, on whatever it is asked.
fn complaint(service: &Service) -> String {
    let client = service.client();
    let authorization = bearer(API_KEY);
    let headers = [("authorization", authorization.as_str())];
    let body = json!({ "mobileNumber": number(), "otp": "000000" });
    let calls = ["/generate-otp", "/resend-otp", "/regenerate-otp", "/verify-otp"];
    let mut answers: Vec<_> = calls.iter().map(|path| client.post_with(path, &headers, &body)).collect();
    answers.push(client.send("DELETE", "/users/+14155550123", &headers, b""));
    answers.push(client.get("/readyz"));
    let details: Vec<_> = answers
        .iter()
        .map(|answer| answer.expect_problem(503, "misconfigured")["detail"].as_str().unwrap().to_owned())
        .collect();
    assert!(details.iter().all(|detail| *detail == details[0]), "{details:?}");
    client.get("/healthz").expect(200);
    details[0].clone()
}

const INSISTED_ON: [&str; 8] = [
    "encryption_keys",
    "index_key",
    "event_keys",
    "api_keys",
    "reveal_otp",
    "otp_length",
    "allowed_countries",
    "global_rate_limit",
];

#[test]
fn production_names_all_that_it_lacks_at_once_and_serves_nothing() {
    let service = Service::builder().variable("profile", "production").variable("otp_length", "5").start();
    let complaint = complaint(&service);
    for variable in INSISTED_ON {
        assert!(complaint.contains(variable), "{variable}: {complaint}");
        assert!(service.log().contains(variable), "{variable}: {}", service.log());
    }
}

#[test]
fn production_names_each_thing_that_it_lacks() {
    let public = Base64::encode_string(PUBLIC_ENCRYPTION_KEY);
    for (variable, value) in [
        ("encryption_keys", String::new()),
        ("encryption_keys", format!("k1:{public}")),
        // Whoever has it opens what it sealed, wherever it stands in the list.
        ("encryption_keys", format!("k1:{KEY},dev:{public}")),
        ("index_key", String::new()),
        ("index_key", Base64::encode_string(PUBLIC_INDEX_KEY)),
        ("event_keys", String::new()),
        ("event_keys", format!("k1:{}", Base64::encode_string(PUBLIC_EVENT_KEY))),
        ("api_keys", String::new()),
        ("reveal_otp", "true".to_owned()),
        ("otp_length", "5".to_owned()),
        ("otp_length", "4".to_owned()),
        ("allowed_countries", String::new()),
        ("global_rate_limit", " ".to_owned()),
    ] {
        let mut variables = production();
        variables.retain(|(name, _)| *name != variable);
        variables.push((variable, value.clone()));
        let service = with(&variables).start();
        let complaint = complaint(&service);
        assert!(complaint.contains(variable), "{variable}={value}: {complaint}");
        for other in INSISTED_ON.iter().filter(|other| **other != variable) {
            assert!(!complaint.contains(other), "{variable}={value}: {complaint}");
        }
        for secret in [KEY, OTHER_KEY, &public] {
            assert!(!complaint.contains(secret) && !service.log().contains(secret), "{complaint}");
        }
    }
}

#[test]
fn the_public_keys_are_those_of_the_development_profile() {
    // So that the tests above refuse what development seals with.
    let service = Service::builder()
        .variable("encryption_keys", &format!("dev:{}", Base64::encode_string(PUBLIC_ENCRYPTION_KEY)))
        .start();
    let number = number();
    let made = service.client().generate(&number);
    assert_eq!(delivered(&service, &KeyRing::development(), &number), made["otp"]);
}

#[test]
fn a_profile_that_is_none_is_named() {
    for profile in ["", "Production", "prod", "staging", "production development"] {
        let service = Service::builder().variable("profile", profile).start();
        let problem = service.client().get("/readyz").expect_problem(503, "misconfigured");
        assert!(problem["detail"].as_str().unwrap().contains("profile"), "{profile:?}: {problem}");
    }
    let service = Service::builder().variable("allow_remote_development", "maybe").start();
    let problem = service.client().get("/readyz").expect_problem(503, "misconfigured");
    assert!(problem["detail"].as_str().unwrap().contains("allow_remote_development"), "{problem}");
}

#[test]
fn production_serves_everybody_who_has_a_key_from_wherever() {
    let service = with(&production()).start();
    let client = service.client();
    let ready = client.get("/readyz").expect(200);
    assert_eq!(ready["warnings"], json!([]));
    let authorization = format!("authorization: {}", bearer(API_KEY));
    let number = number();
    let ask = |path: &str, fields: &[&str], body: &serde_json::Value| {
        let line = format!("POST {path} HTTP/1.1");
        let head = [&[line.as_str(), "host: otp.example", &authorization], fields].concat().join("\n");
        client.raw(&head, &body.to_string())
    };
    let body = json!({ "mobileNumber": number });
    for fields in [&[][..], &CROSS_SITE[..1], &CROSS_SITE[7..8], &FORWARDED[..2], &FORWARDED[5..]] {
        let made = ask("/generate-otp", fields, &body).expect(201);
        assert!(made.get("otp").is_none(), "{made}");
    }
    client.post("/generate-otp", &body).expect_problem(401, "unauthorized");
    // Numbers that are cheap to have by the thousand, or dear to send to, have to be asked for.
    for (other, kind) in OTHER_KINDS {
        let problem = ask("/generate-otp", &[], &json!({ "mobileNumber": other }));
        let problem = problem.expect_problem(422, "invalid_mobile_number");
        assert!(problem["detail"].as_str().unwrap().contains(kind), "{problem}");
    }
    let [resent, regenerated] = [("/resend-otp", 200), ("/regenerate-otp", 201)].map(|(path, status)| {
        let given = ask(path, &[], &body).expect(status);
        assert!(given.get("otp").is_none(), "{given}");
        given["otpId"].clone()
    });
    // Only the delivery has the code.
    let keys = KeyRing::parse(&format!("k1:{KEY}")).unwrap();
    let otp = delivered(&service, &keys, &number);
    let guess = |otp: &str, id: &serde_json::Value| {
        ask("/verify-otp", &[], &json!({ "mobileNumber": number, "otp": otp, "otpId": id }))
    };
    // Whoever knows the number alone, or a code of before, uses up no attempt of this one.
    for _ in 0..10 {
        let problem = guess(&other_than(&otp), &json!(null)).expect_problem(400, "missing_field");
        assert!(problem["detail"].as_str().unwrap().starts_with("otpId "), "{problem}");
        guess(&other_than(&otp), &resent).expect_problem(404, "otp_not_found");
    }
    let problem = guess(&other_than(&otp), &regenerated).expect_problem(422, "otp_mismatch");
    assert_eq!(problem["attemptsRemaining"], 4);
    guess(&otp, &regenerated).expect(200);
    assert!(!service.log().contains("warning"), "{}", service.log());
}

/// RFC 6797
const HSTS: &str = "strict-transport-security";

#[track_caller]
fn has_hsts(what: &str, answer: &Response) {
    let promise = answer.header(HSTS);
    let seconds = promise.split(';').find_map(|part| part.trim().strip_prefix("max-age="));
    let seconds = seconds.and_then(|seconds| seconds.parse::<u64>().ok());
    assert!(seconds >= Some(180 * 86_400), "{what} ({}): {promise:?}", answer.status);
}

#[test]
fn production_tells_browsers_so_from_its_first_answer_on() {
    // Not /healthz: that the process lives does not depend on its variables.
    for path in ["/openapi.json", "/nowhere"] {
        let service = with(&production()).start();
        // Nobody has asked for anything else yet.
        has_hsts(path, &service.client().get(path));
    }
}

#[test]
fn production_tells_browsers_to_come_by_https_only_and_development_does_not() {
    let authorization = bearer(API_KEY);
    let answers = |client: &Client| {
        let key = [("authorization", authorization.as_str())];
        let body = json!({ "mobileNumber": number() });
        vec![
            ("/readyz", client.get("/readyz")),
            ("/healthz", client.get("/healthz")),
            ("unknown path", client.get("/nowhere")),
            ("wrong method", client.get("/generate-otp")),
            ("/openapi.json", client.get("/openapi.json")),
            ("generate", client.post_with("/generate-otp", &key, &body)),
            ("unknown number", client.post_with("/resend-otp", &key, &json!({ "mobileNumber": number() }))),
            ("no JSON", client.send("POST", "/verify-otp", &key, b"{")),
            ("no key", client.post("/generate-otp", &body)),
            ("erasure", client.send("DELETE", "/users/+14155550123", &key, b"")),
        ]
    };
    let service = with(&production()).start();
    for (what, answer) in answers(&service.client()) {
        has_hsts(what, &answer);
    }
    let service = Service::builder().without_limits().start();
    for (what, answer) in answers(&service.client()) {
        assert_eq!(answer.header(HSTS), "", "{what}");
    }
}

#[test]
fn a_check_has_to_say_which_code_it_is_for_where_that_is_wanted() {
    let number = number();
    for (value, wanted) in [("true", true), ("false", false), ("", false)] {
        let service = Service::builder().without_limits().variable("require_otp_id", value).start();
        let client = service.client();
        let made = client.generate(&number);
        let otp = made["otp"].as_str().unwrap();
        if wanted {
            client.verify(&number, otp).expect_problem(400, "missing_field");
            let body = json!({ "mobileNumber": number, "otp": otp, "otpId": made["otpId"] });
            client.post("/verify-otp", &body).expect(200);
        } else {
            client.verify(&number, otp).expect(200);
        }
    }
    // In production it may be left to the caller.
    let relaxed = [&production()[..], &[("require_otp_id", "false".to_owned())]].concat();
    let service = with(&relaxed).start();
    let headers = [("authorization", bearer(API_KEY))];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let body = json!({ "mobileNumber": number, "otp": "000000" });
    service.client().post_with("/verify-otp", &headers, &body).expect_problem(404, "otp_not_found");
}

#[test]
fn production_bounds_what_one_address_and_one_name_of_keys_may_ask_for() {
    let policy = |more: &[(&'static str, String)]| {
        let service = with(&[&production()[..], more].concat()).variable("rate_limit_requests", "5").start();
        let authorization = bearer(API_KEY);
        let headers = [("authorization", authorization.as_str())];
        let body = json!({ "mobileNumber": number() });
        service.client().post_with("/generate-otp", &headers, &body).header("ratelimit-policy").to_owned()
    };
    let bounded = policy(&[]);
    assert!(
        bounded.contains("\"client\";q=3000;w=60") && bounded.contains("\"key\";q=30000;w=60"),
        "{bounded}"
    );
    let off = [("client_rate_limit", "off".to_owned()), ("key_rate_limit", "off".to_owned())];
    let unbounded = policy(&off);
    assert!(!unbounded.contains("client") && !unbounded.contains("key"), "{unbounded}");
}
