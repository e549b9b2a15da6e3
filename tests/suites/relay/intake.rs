//! `POST /events`: what is taken, what is refused, and from whom.

use crate::{
    GENERATED, Otp, SOON, TOKEN, batch_of, codes, delivery, ends_up, hand_over, hand_over_one, id, ids,
    inbox, metric, post, post_as, shown,
};
use harness::{Client, Relay, eventually};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    net::{TcpStream, UdpSocket},
    slice::from_ref,
};

const MEBIBYTE: usize = 1024 * 1024;

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// Sends bytes as they are, and gives all that comes back.
fn raw(relay: &Relay, request: &str) -> String {
    let mut connection = TcpStream::connect(relay.address()).unwrap();
    connection.set_read_timeout(Some(SOON)).unwrap();
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}

/// The address by which other machines reach this one, if there is one. Nothing is sent.
fn own_address() -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // TEST-NET-1 of RFC 5737, where nobody is.
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback()).then(|| address.to_string())
}

#[test]
fn each_event_of_a_batch_is_accepted_or_rejected_by_its_id() {
    let relay = Relay::start();
    let (first, last) = (Otp::new(), Otp::new());
    let (good, also_good) = (first.event(GENERATED), last.event(GENERATED));
    let without = |field: &str| {
        let mut event = Otp::new().event(GENERATED);
        event.as_object_mut().unwrap().remove(field);
        event
    };
    let with = |field: &str, value: Value| {
        let mut event = Otp::new().event(GENERATED);
        event[field] = value;
        event
    };
    let bad = [
        json!("an event"),
        json!(null),
        without("id"),
        without("type"),
        without("source"),
        without("specversion"),
        with("specversion", json!("0.3")),
        with("id", json!("")),
        with("id", json!(7)),
        with("subject", json!("two\nlines")),
        with("type", json!("t".repeat(257))),
        with("Tenant", json!("acme")),
        with("tenant", json!({ "name": "acme" })),
    ];
    let batch = [from_ref(&good), &bad[..], from_ref(&also_good)].concat();
    let answer = post(&relay, &batch).expect(200);
    assert_eq!(answer["accepted"], json!([good["id"], also_good["id"]]));
    let rejected = answer["rejected"].as_array().unwrap();
    assert_eq!(rejected.len(), bad.len(), "{answer}");
    for (index, (rejected, event)) in rejected.iter().zip(&bad).enumerate() {
        assert_eq!(rejected["index"], index + 1, "{rejected}");
        assert_eq!(rejected["id"], json!(event["id"].as_str()), "{rejected}");
        let reason = rejected["reason"].as_str().unwrap();
        assert!(reason.len() > 10 && !reason.contains("acme") && !reason.contains("1212"), "{reason}");
    }
    for (otp, event) in [(first, good), (last, also_good)] {
        ends_up(&relay, &event, "delivered");
        assert_eq!(codes(&shown(&relay, &format!("/inbox?to={}", &otp.number[1..]))), [otp.code]);
    }
    assert_eq!(metric(&relay, "refused_total"), bad.len() as f64);
    assert_eq!(metric(&relay, "published_total"), 2.0);
}

#[test]
fn a_batch_of_nothing_is_accepted() {
    let answer = post(&Relay::start(), &[]).expect(200);
    assert_eq!(answer, json!({ "accepted": [], "rejected": [] }));
}

#[test]
fn who_does_not_know_the_token_is_turned_away() {
    let relay = Relay::builder().env("RELAY_TOKEN", TOKEN).start();
    let otp = Otp::new();
    let batch = batch_of(&[otp.event(GENERATED)]);
    let half = bearer(&TOKEN[..16]);
    let longer = bearer(&format!("{TOKEN}0"));
    let basic = format!("Basic {TOKEN}");
    for headers in [
        &[][..],
        &[("authorization", "Bearer wrong-word-of-a-stranger")],
        &[("authorization", &half)],
        &[("authorization", &longer)],
        &[("authorization", &basic)],
        &[("authorization", TOKEN)],
        &[("authorization", "Bearer ")],
        &[("x-token", TOKEN)],
    ] {
        let answer = post_as(&relay, headers, &batch);
        answer.expect_problem(401, "unauthorized");
        assert_eq!(answer.header("www-authenticate"), "Bearer", "{headers:?}");
    }
    assert_eq!(metric(&relay, "published_total"), 0.0);
    assert_eq!(metric(&relay, "turned_away_total{status=\"401\""), 8.0);
    post_as(&relay, &[("authorization", &bearer(TOKEN))], &batch).expect(200);
    eventually("the delivery", SOON, || codes(&inbox(&relay)) == [&*otp.code]);
}

#[test]
fn to_listen_beyond_this_machine_takes_a_token() {
    let (status, said) = Relay::builder().everywhere().refused();
    assert!(!status.success());
    assert!(
        said.contains("RELAY_LISTEN") && said.contains("RELAY_TOKEN") && said.contains("openssl"),
        "{said}"
    );

    let relay = Relay::builder().everywhere().env("RELAY_TOKEN", TOKEN).start();
    let token = bearer(TOKEN);
    let authorized = [("authorization", &*token)];
    let otp = Otp::new();
    let event = otp.event(GENERATED);
    post_as(&relay, &authorized, &batch_of(from_ref(&event))).expect(200);
    ends_up(&relay, &event, "delivered");
    // From outside: this machine has no such address where it has no network at all.
    let Some(own) = own_address() else { return };
    let port = relay.address().rsplit_once(':').unwrap().1;
    let outside = Client::new(format!("http://{own}:{port}"));
    outside.send("POST", "/events", &[], b"[]").expect_problem(401, "unauthorized");
    for path in ["/inbox".to_owned(), format!("/deliveries/{}", otp.otp_id)] {
        for headers in [&[][..], &[("host", "localhost")]] {
            outside.send("GET", &path, headers, b"").expect_problem(403, "forbidden");
        }
        let seen = outside.send("GET", &path, &authorized, b"").expect(200);
        assert_eq!(seen[0]["eventId"], event["id"]);
    }
    outside.get("/healthz").expect(200);
}

#[test]
fn what_is_no_batch_is_refused() {
    let relay = Relay::start();
    let event = Otp::new().event(GENERATED).to_string();
    let deep = "[".repeat(100_000);
    for body in ["", "no JSON", "{}", "null", "7", "\"[]\"", "[", "[{]", "[] []", &event, &deep] {
        post_as(&relay, &[], body).expect_problem(400, "invalid_batch");
    }
    let not_text = relay.client().send("POST", "/events", &[], b"[\"\xff\"]");
    not_text.expect_problem(400, "invalid_batch");
    assert_eq!(metric(&relay, "turned_away_total{status=\"400\""), 12.0);
    assert_eq!(metric(&relay, "published_total"), 0.0);
}

#[test]
fn a_batch_has_at_most_500_events_and_a_mebibyte() {
    let relay = Relay::start();
    let otp = Otp::new();
    let events: Vec<_> = (0..501).map(|_| otp.event("otp.limited.v1")).collect();
    post(&relay, &events).expect_problem(413, "payload_too_large");
    hand_over(&relay, &events[..500]);

    // White space is as good as anything to fill a batch with.
    let padded = |length: usize| {
        let event = Otp::new().event(GENERATED);
        let text = batch_of(from_ref(&event));
        (event, text.clone() + &" ".repeat(length - text.len()))
    };
    let (event, fits) = padded(MEBIBYTE);
    assert_eq!(ids(&post_as(&relay, &[], &fits).expect(200)["accepted"]), [id(&event).to_owned()].into());
    let (event, too_large) = padded(MEBIBYTE + 1);
    let answer = raw(
        &relay,
        &format!(
            "POST /events HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            too_large.len()
        ),
    );
    assert!(answer.starts_with("HTTP/1.1 413 "), "refused by its announcement: {answer}");
    let answer = raw(
        &relay,
        &format!(
            "POST /events HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n\
             {:x}\r\n{too_large}\r\n0\r\n\r\n",
            too_large.len()
        ),
    );
    assert!(answer.starts_with("HTTP/1.1 413 "), "refused by what came: {answer}");
    assert!(delivery(&relay, &event).is_none());
}

#[test]
fn an_event_of_more_than_256_kib_is_rejected_and_its_neighbours_are_kept() {
    let relay = Relay::start();
    let small = [Otp::new().event(GENERATED), Otp::new().event(GENERATED)];
    let mut large = Otp::new().event(GENERATED);
    large["data"]["note"] = json!("x".repeat(256 * 1024));
    let mut large_elsewhere = Otp::new().event(GENERATED);
    large_elsewhere["note"] = json!("x".repeat(256 * 1024));
    let answer = post(&relay, &[small[0].clone(), large.clone(), large_elsewhere.clone(), small[1].clone()])
        .expect(200);
    assert_eq!(answer["accepted"], json!([small[0]["id"], small[1]["id"]]));
    let rejected = answer["rejected"].as_array().unwrap();
    assert_eq!([&rejected[0]["id"], &rejected[1]["id"]], [&large["id"], &large_elsewhere["id"]]);
    for rejected in rejected {
        assert!(rejected["reason"].as_str().unwrap().contains("bytes"), "{rejected}");
    }
    small.iter().for_each(|event| drop(ends_up(&relay, event, "delivered")));
}

#[test]
fn a_type_and_fields_that_are_not_known_are_taken() {
    let relay = Relay::start();
    let mut of_a_newer_type = Otp::new().event(GENERATED);
    of_a_newer_type["type"] = json!("otp.generated.v2");
    let mut with_more = Otp::new().event(GENERATED);
    with_more["tenant"] = json!("acme");
    with_more["priority"] = json!(7);
    with_more["data"]["voice"] = json!({ "language": "en" });
    hand_over(&relay, &[of_a_newer_type.clone(), with_more.clone()]);
    ends_up(&relay, &with_more, "delivered");
    assert!(delivery(&relay, &of_a_newer_type).is_none(), "what it means is not known");
    assert_eq!(metric(&relay, "dead_total"), 0.0);
}

#[test]
fn without_a_token_only_who_calls_it_by_a_name_of_this_machine_is_heard() {
    let relay = Relay::start();
    let otp = Otp::new();
    let event = otp.event(GENERATED);
    hand_over_one(&relay, &event);
    ends_up(&relay, &event, "delivered");
    let port = relay.address().rsplit_once(':').unwrap().1;
    let foreign = [
        // A page whose name was made to lead here.
        format!("host: rebound.example:{port}"),
        "host: localhost.example".to_owned(),
        // What a proxy passes on.
        "host: localhost\r\nx-forwarded-for: 203.0.113.7".to_owned(),
        "host: localhost\r\nforwarded: for=203.0.113.7".to_owned(),
    ];
    let requests =
        ["POST /events".to_owned(), "GET /inbox".to_owned(), format!("GET /deliveries/{}", otp.otp_id)];
    for request in &requests {
        let ask = |headers: &str| {
            raw(
                &relay,
                &format!(
                    "{request} HTTP/1.1\r\n{headers}\r\nconnection: close\r\ncontent-length: 2\r\n\r\n[]"
                ),
            )
        };
        for headers in &foreign {
            let answer = ask(headers);
            assert!(answer.starts_with("HTTP/1.1 403 "), "{request}, {headers}: {answer}");
            assert!(answer.contains("\"code\":\"forbidden\"") && !answer.contains(&otp.code), "{answer}");
        }
        for host in [format!("localhost:{port}"), format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
            let answer = ask(&format!("host: {host}"));
            assert!(answer.starts_with("HTTP/1.1 200 "), "{request}, {host}: {answer}");
        }
    }
}

#[test]
fn every_answer_is_safe_in_a_browser_and_for_no_other_page() {
    let relay = Relay::builder().env("RELAY_TOKEN", TOKEN).start();
    let page = ("origin", "https://shop.example");
    let preflight = [page, ("access-control-request-method", "POST")];
    let token = bearer(TOKEN);
    let authorized = [("authorization", &*token)];
    let client = relay.client();
    for (method, path, headers, body, status) in [
        ("GET", "/healthz", &[page][..], "", 200),
        ("GET", "/metrics", &[], "", 200),
        ("GET", "/inbox", &authorized, "", 200),
        ("POST", "/events", &authorized, "[]", 200),
        ("GET", "/event", &[page], "", 404),
        ("GET", "/deliveries/none", &authorized, "", 404),
        ("POST", "/events", &[page], "[]", 401),
        ("GET", "/inbox", &[page], "", 403),
        ("POST", "/events", &authorized, "{}", 400),
        ("GET", "/inbox?limit=many", &authorized, "", 400),
        ("OPTIONS", "/events", &preflight, "", 405),
        ("GET", "/events", &[], "", 405),
    ] {
        let answer = client.send(method, path, headers, body.as_bytes());
        assert_eq!(answer.status, status, "{method} {path}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-store"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
            // Over plain HTTP, as it is in development, it would lock the developer out.
            ("strict-transport-security", ""),
        ] {
            assert_eq!(answer.header(name), value, "{name}: {method} {path}");
            assert!(answer.headers.get_all(name).iter().count() <= 1, "{name} twice: {method} {path}");
        }
        let allows = |name: &str| name.starts_with("access-control-");
        assert!(!answer.headers.keys().any(|name| allows(name.as_str())), "{:?}", answer.headers);
    }
}

#[test]
fn a_path_that_there_is_not_is_said_with_those_that_there_are() {
    let problem = Relay::start().client().get("/event").expect_problem(404, "not_found");
    assert!(problem["detail"].as_str().unwrap().contains("/events"), "{problem}");
}
