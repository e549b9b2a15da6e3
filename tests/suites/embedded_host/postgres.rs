//! How the host's connections to Postgres fare with a server that hangs, goes away or lets nobody in.

use harness::{Builder, IN_TIME, Postgres, Service, at_once, eventually, number};
use serde_json::json;
use std::time::{Duration, Instant};

fn on(server: &Postgres, password: &str) -> Builder {
    Service::builder()
        .without_limits()
        .variable("postgres_endpoint", &server.endpoint())
        .variable("postgres_user", server.user())
        .variable("postgres_password", password)
        .variable("postgres_database", server.database())
}

/// The status of a request for a code, and how long it took.
fn generate(service: &Service) -> (u16, Duration) {
    let start = Instant::now();
    let body = json!({ "mobileNumber": number() }).to_string();
    let answer = service.client().send("POST", "/generate-otp", &[], body.as_bytes());
    (answer.status, start.elapsed())
}

/// How many of the server's processes there are for others than the one that asks, of those that the condition
/// holds for.
fn connections(server: &Postgres, condition: &str) -> i64 {
    let others = "backend_type = 'client backend' AND pid <> pg_backend_pid()";
    let statement = format!("SELECT count(*) FROM pg_stat_activity WHERE {others} AND {condition}");
    server.connect().query_one(&statement, &[]).unwrap().get(0)
}

#[test]
fn requests_share_a_few_connections_and_their_prepared_statements() {
    let server = Postgres::start();
    let service = on(&server, server.password()).start();
    for _ in 0..50 {
        assert_eq!(generate(&service).0, 201);
    }
    // What is done after an answer may meet the next request.
    let few = connections(&server, "true");
    assert!((1..=8).contains(&few), "{few}");
    let statuses = at_once(32, |_| (0..5).map(|_| generate(&service).0).collect::<Vec<_>>());
    assert_eq!(statuses.concat(), [201; 160]);
    let at_once = connections(&server, "true");
    assert!(at_once <= 64, "{at_once}");
}

#[test]
fn a_server_that_hangs_leaves_no_pile_and_the_first_request_after_it_is_served() {
    let server = Postgres::start();
    let service = on(&server, server.password()).start();
    assert_eq!(generate(&service).0, 201);
    server.freeze();
    for (status, took) in at_once(80, |_| generate(&service)) {
        assert_eq!(status, 503);
        assert!(took < IN_TIME, "{took:?}");
    }
    server.thaw();
    let (status, took) = generate(&service);
    assert_eq!(status, 201);
    assert!(took < IN_TIME, "{took:?}");
    eventually("an end of what was given up", Duration::from_secs(10), || {
        connections(&server, "state IS DISTINCT FROM 'idle'") == 0 && connections(&server, "true") <= 64
    });
}

#[test]
fn after_a_restart_the_first_request_is_served() {
    let mut server = Postgres::start();
    let service = on(&server, server.password()).start();
    let many = || at_once(16, |_| generate(&service).0);
    assert_eq!(many(), [201; 16]);
    server.restart();
    assert_eq!(many(), [201; 16]);
    server.kill();
    assert_eq!(generate(&service).0, 503);
    server.restart();
    assert_eq!(generate(&service).0, 201);
}

#[test]
fn a_refused_password_is_in_no_log_and_no_answer() {
    let server = Postgres::start();
    let service = on(&server, "open sesame'\\ p@ss").start();
    let body = json!({ "mobileNumber": number() }).to_string();
    let answer = service.client().send("POST", "/generate-otp", &[], body.as_bytes());
    assert_eq!(answer.status, 503);
    assert!(server.log().contains("password authentication failed"), "{}", server.log());
    for text in [String::from_utf8_lossy(&answer.body).into_owned(), service.log()] {
        assert!(!text.contains("sesame") && !text.contains("p@ss"), "{text}");
    }
}
