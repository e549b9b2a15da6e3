//! What a call costs the database: counted on a server that tells of every statement.

use crate::other_than;
use harness::{Postgres, Redis, Relay, Service, Sql, at_once, eventually, number};
use serde_json::json;
use std::{thread, time::Duration};

/// Loads, commits, and all statements of the service.
type Counts = [usize; 3];

struct Counted {
    postgres: Postgres,
    service: Service,
}

impl Counted {
    fn start(redis: Option<&Redis>) -> Self {
        let postgres = Postgres::start();
        let database = Sql::postgres(&postgres);
        database.batch("ALTER SYSTEM SET log_statement = 'all'");
        database.batch("SELECT pg_reload_conf()");
        let service = Service::builder()
            .postgres(&postgres)
            .variable("pumping_guard", "false")
            .variable("redis_endpoint", &redis.map(Redis::endpoint).unwrap_or_default())
            .variable("rate_limit_requests", "8")
            .variable("otp_length", "10")
            .start();
        let counted = Self { postgres, service };
        // The schema is there, the connection open, the scripts known.
        counted.service.client().generate(&number());
        thread::sleep(Duration::from_millis(200));
        counted
    }

    fn of(&self, what: &str, expected: Counts, work: impl FnOnce()) {
        let before = self.postgres.log().len();
        work();
        // The log may come a little later, and so may what follows an answer.
        thread::sleep(Duration::from_millis(150));
        let said = self.postgres.log().split_off(before);
        let count = |part: &str| said.matches(part).count();
        let commits = count("WHERE commit_record(") + count("SELECT commit_record(");
        let found = [count("SELECT * FROM known_record("), commits, count("LOG:  execute ")];
        assert_eq!(found, expected, "{what}: {said}");
    }
}

#[test]
fn without_a_cache_a_call_costs_a_load_and_a_commit_and_a_refusal_that_leaves_nothing_a_load() {
    let counted = Counted::start(None);
    let (client, known) = (counted.service.client(), number());
    let mut otp = String::new();
    counted.of("generate, of somebody unknown", [0, 1, 1], || drop(client.generate(&known)));
    // The first commit tells what is known.
    counted.of("generate", [0, 2, 2], || {
        otp = client.generate(&known)["otp"].as_str().unwrap().to_owned();
    });
    counted.of("resend", [1, 1, 2], || drop(client.resend(&known).expect(200)));
    counted.of("a wrong check", [1, 1, 2], || drop(client.verify(&known, &other_than(&otp)).expect(422)));
    counted.of("the right one", [1, 1, 2], || drop(client.verify(&known, &otp).expect(200)));
    counted.of("a used code, the first time", [1, 1, 2], || drop(client.verify(&known, &otp).expect(410)));
    counted.of("a used code after that", [1, 0, 1], || drop(client.verify(&known, &otp).expect(410)));
    counted.of("a resend of it", [1, 0, 1], || drop(client.resend(&known).expect(410)));
    counted.of("regenerate", [1, 1, 2], || drop(client.regenerate(&known).expect(201)));
    counted.of("somebody unknown", [1, 0, 1], || drop(client.resend(&number()).expect(404)));
    counted.of("a check of somebody unknown", [1, 0, 1], || drop(client.verify(&number(), &otp).expect(404)));
    let keyed = |number: &str| {
        let body = json!({ "mobileNumber": number });
        client.post_with("/generate-otp", &[("idempotency-key", "k")], &body).expect(201);
    };
    counted.of("with an Idempotency-Key", [0, 2, 2], || keyed(&known));
    counted.of("its retry", [0, 1, 1], || keyed(&known));
    (0..3).for_each(|_| drop(client.generate(&known)));
    client.try_generate(&known).expect_problem(429, "rate_limited");
    counted.of("a number at its limit", [0, 1, 1], || {
        client.try_generate(&known).expect_problem(429, "rate_limited");
    });
}

#[test]
fn with_a_warm_cache_a_call_costs_one_statement() {
    let redis = Redis::start();
    let counted = Counted::start(Some(&redis));
    let (client, known) = (counted.service.client(), number());
    let mut otp = String::new();
    counted.of("generate, of somebody unknown", [0, 1, 1], || drop(client.generate(&known)));
    counted.of("generate", [0, 1, 1], || {
        otp = client.generate(&known)["otp"].as_str().unwrap().to_owned();
    });
    counted.of("resend", [0, 1, 1], || drop(client.resend(&known).expect(200)));
    counted.of("regenerate", [0, 1, 1], || {
        otp = client.regenerate(&known).expect(201)["otp"].as_str().unwrap().to_owned();
    });
    counted.of("a wrong check", [0, 1, 1], || drop(client.verify(&known, &other_than(&otp)).expect(422)));
    counted.of("the right one", [0, 1, 1], || drop(client.verify(&known, &otp).expect(200)));
    counted.of("a used code, the first time", [0, 1, 1], || drop(client.verify(&known, &otp).expect(410)));
    // What the cache says alone refuses nobody.
    counted.of("a used code after that", [1, 0, 1], || drop(client.verify(&known, &otp).expect(410)));
    counted.of("a resend of it", [1, 0, 1], || drop(client.resend(&known).expect(410)));
}

#[test]
fn to_hand_events_over_costs_a_statement_a_batch_and_rewrites_none_of_them() {
    let relay = Relay::start();
    let postgres = Postgres::start();
    let database = Sql::postgres(&postgres);
    let service = Service::builder()
        .postgres(&postgres)
        .without_limits()
        .variable("pumping_guard", "false")
        .variable("relay_url", &relay.url())
        .start();
    let client = service.client();
    let handed_over = || database.number("SELECT count(*) FROM outbox", &[]) == 0;
    let batches = || -> f64 {
        let metrics = String::from_utf8(relay.client().get("/metrics").body).unwrap();
        let of_batches = |line: &&str| line.contains("_seconds_count{") && line.contains("\"/events\"");
        let counts = metrics.lines().filter(of_batches).filter_map(|line| line.rsplit_once(' '));
        counts.map(|(_, count)| count.parse::<f64>().unwrap()).sum()
    };
    client.generate(&number());
    eventually("handing the first one over", Duration::from_secs(30), handed_over);
    database.batch("ALTER SYSTEM SET log_statement = 'all'");
    database.batch("SELECT pg_reload_conf()");
    thread::sleep(Duration::from_millis(200));
    let (before, batches_before) = (postgres.log().len(), batches());
    const EVENTS: usize = 200;
    let numbers: Vec<_> = (0..EVENTS).map(|_| number()).collect();
    at_once(8, |client| {
        let service = service.client();
        numbers.iter().skip(client).step_by(8).for_each(|number| drop(service.generate(number)));
    });
    eventually("handing all over", Duration::from_secs(30), handed_over);
    let said = postgres.log().split_off(before);
    let count = |part: &str| said.matches(part).count();
    assert_eq!(count("SELECT commit_record("), EVENTS);
    let (batches, dropped) =
        ((batches() - batches_before) as usize, count("DELETE FROM outbox USING jsonb_array_elements"));
    assert!((1..=batches).contains(&dropped), "{dropped} statements for {batches} batches");
    // On a machine so slow that one is still there after its youth, it is claimed.
    let claimed = count("UPDATE outbox");
    assert!(4 * claimed <= batches, "{claimed} claims for {batches} batches: {said}");
}
