//! With the ledger in Postgres: the way to it, and a server that is away, hangs, or is killed.

use crate::{
    GENERATED, Otp, SOON, codes, dead_letters, delivery, ends_up, hand_over, hand_over_one, id, ids, inbox,
    kafka::{Topics, ready, wait_until_ready},
    metric, post, text,
};
use harness::{Mode, Postgres, Proxy, Relay, RelayBuilder, eventually};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    process::Output,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// How long anybody may wait for a word about an event.
const PATIENCE: Duration = Duration::from_secs(7);

fn at(url: &str) -> RelayBuilder {
    Relay::builder().env("RELAY_DATABASE_URL", url)
}

/// The password as it stands in the URL and as it is.
fn shows_password(text: &str, postgres: &Postgres) -> bool {
    text.contains(postgres.password()) || text.contains(&postgres.password().replace(' ', "%20"))
}

#[test]
fn what_stands_in_the_way_to_the_database_ends_the_start_with_the_next_step() {
    let (postgres, tls) = (Postgres::start(), Postgres::with_tls());
    let url = postgres.url();
    let with_user =
        |user: &str| format!("postgres://{user}:hunter2@{}/{}", postgres.address(), postgres.database());
    for (url, words) in [
        ("hunter2".to_owned(), ["postgres://", "%40"]),
        (format!("{url}?sslmod=disable"), ["sslmod", "sslmode"]),
        (with_user(postgres.user()), ["password authentication failed", "check user and password"]),
        (url.replace("/postgres", "/absent"), ["absent", "CREATE DATABASE"]),
        (format!("{url}?sslmode=require"), ["TLS", "sslmode=disable"]),
        (format!("{}?sslmode=disable", tls.url()), ["encryption", "sslmode"]),
        (format!("{}?sslmode=verify-full", tls.url()), ["certificate", "sslrootcert"]),
        (format!("{}?sslrootcert=missing.pem", tls.url()), ["sslrootcert", "missing.pem"]),
    ] {
        let (status, said) = at(&url).refused();
        assert!(!status.success(), "{said}");
        assert!(said.contains("RELAY_DATABASE_URL"), "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {said}");
        assert!(!said.contains("hunter2") && !shows_password(&said, &postgres), "{said}");
    }
}

#[test]
fn a_password_is_taken_from_the_environment_alone_and_shown_nowhere() {
    let postgres = Postgres::start();
    let relay = Relay::builder().database(&postgres).env("RELAY_LOG_LEVEL", "debug").start();
    let said = |output: &Output| {
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
    };
    for command in [&["serve"][..], &["dlq", "list"]] {
        let refused = relay.run(&[command, &["--database-url", &postgres.url()]].concat());
        assert!(!refused.status.success());
        assert!(said(&refused).contains("RELAY_DATABASE_URL instead"), "{refused:?}");
        let help = said(&relay.run(&[command, &["--help"]].concat()));
        assert!(help.contains("RELAY_DATABASE_URL"), "{help}");
        assert!(!shows_password(&help, &postgres) && !shows_password(&said(&refused), &postgres));
    }
    let event = Otp::new().event(GENERATED);
    hand_over_one(&relay, &event);
    ends_up(&relay, &event, "delivered");
    assert!(!shows_password(&relay.log(), &postgres), "{}", relay.log());
}

#[test]
fn the_database_is_spoken_to_over_tls_and_has_to_show_whose_it_is() {
    let postgres = Postgres::with_tls();
    let authority = postgres.authority();
    for parameters in ["sslmode=verify-full&", ""] {
        let url = format!("{}?{parameters}sslrootcert={}", postgres.url(), authority.display());
        let relay = at(&url).start();
        let event = Otp::new().event(GENERATED);
        hand_over_one(&relay, &event);
        ends_up(&relay, &event, "delivered");
        relay.client().get("/readyz").expect(200);
        assert!(dead_letters(&relay).is_empty(), "the commands find it, too");
    }
}

#[test]
fn a_database_that_comes_later_is_waited_for() {
    let mut postgres = Postgres::start();
    postgres.kill();
    let relay = Relay::builder().database(&postgres).start();
    relay.client().get("/healthz").expect(200);
    eventually("a reason", SOON, || {
        let ledger = relay.client().get("/readyz").expect(503)["dependencies"]["ledger"].clone();
        ledger["status"] == "down" && ledger["reason"].to_string().contains("refused")
    });
    let event = Otp::new().event(GENERATED);
    let begun = Instant::now();
    let refused = post(&relay, std::slice::from_ref(&event));
    refused.expect_problem(503, "unavailable");
    assert_eq!(refused.header("retry-after"), "1");
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    thread::sleep(Duration::from_secs(3));
    postgres.restart();
    let back = Instant::now();
    wait_until_ready(&relay);
    println!("ready {:?} after the database was there", back.elapsed());
    hand_over_one(&relay, &event);
    ends_up(&relay, &event, "delivered");
    let log = relay.log();
    assert!(log.lines().count() < 15, "tried many times, said once: {log}");
    assert!(log.contains("the ledger is away") && log.contains("the ledger is there"), "{log}");
}

/// Hands events over until told to stop; those that were accepted.
fn load(relay: &Relay, loading: &AtomicBool) -> BTreeSet<String> {
    let mut accepted = BTreeSet::new();
    while loading.load(Ordering::Relaxed) {
        let events: Vec<_> = (0..10).map(|_| Otp::new().event(GENERATED)).collect();
        let begun = Instant::now();
        let answer = post(relay, &events);
        assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
        if answer.status == 200 {
            accepted.extend(ids(&answer.json()["accepted"]));
        } else {
            answer.expect_problem(503, "unavailable");
        }
        thread::sleep(Duration::from_millis(20));
    }
    accepted
}

/// What a relay delivers when its database goes away twice under load.
fn goes_away_under_load(relay: &Relay, mut go: impl FnMut()) {
    let loading = AtomicBool::new(true);
    let accepted = thread::scope(|scope| {
        let posting = scope.spawn(|| load(relay, &loading));
        for _ in 0..2 {
            let before = metric(relay, "published_total");
            eventually("some load", SOON, || metric(relay, "published_total") > before + 200.0);
            go();
            let back = Instant::now();
            wait_until_ready(relay);
            println!("ready {:?} after the database was back", back.elapsed());
        }
        loading.store(false, Ordering::Relaxed);
        posting.join().unwrap()
    });
    let seen = || -> Vec<String> {
        inbox(relay).iter().map(|message| text(message, "eventId").to_owned()).collect()
    };
    eventually("all deliveries", SOON, || accepted.is_subset(&seen().into_iter().collect()));
    let seen = seen();
    assert_eq!(seen.len(), seen.iter().collect::<BTreeSet<_>>().len(), "something is there twice");
    println!("accepted {}, in the inbox {}", accepted.len(), seen.len());
    // What nobody heard of may have been taken as well; none of it waits for ever.
    let waiting = || relay.ledger().number("SELECT count(*) FROM deliveries WHERE state = 'waiting'");
    eventually("rest", SOON, || waiting() == 0);
    assert!(!relay.log().contains("panicked"), "{}", relay.log());
}

#[test]
fn a_database_that_is_killed_under_load_costs_nothing_that_was_accepted() {
    let mut postgres = Postgres::start();
    let relay = Relay::builder().database(&postgres).start();
    goes_away_under_load(&relay, || {
        postgres.kill();
        thread::sleep(Duration::from_secs(2));
        eventually("being said", SOON, || relay.client().get("/readyz").status == 503);
        relay.client().get("/healthz").expect(200);
        postgres.restart();
    });
}

#[test]
fn a_database_that_hangs_holds_no_answer_up_and_costs_nothing() {
    let postgres = Postgres::start();
    let relay = Relay::builder().database(&postgres).start();
    goes_away_under_load(&relay, || {
        postgres.freeze();
        eventually("being said", SOON, || {
            let answer = relay.client().get("/readyz");
            answer.status == 503
                && answer.json()["dependencies"]["ledger"]["reason"].to_string().contains("time")
        });
        thread::sleep(Duration::from_secs(5));
        postgres.thaw();
    });
}

#[test]
fn a_transaction_whose_beginning_nobody_waits_for_any_more_is_ended() {
    let postgres = Postgres::start();
    let proxy = Proxy::to(postgres.address());
    let relay = at(&postgres.url().replace(postgres.address(), proxy.address())).start();
    hand_over_one(&relay, &Otp::new().event(GENERATED));
    let event = Otp::new().event(GENERATED);
    proxy.set(Mode::HoldBack("BEGIN"));
    let answer = post(&relay, std::slice::from_ref(&event));
    assert_eq!(answer.status, 503);
    proxy.set(Mode::Pass);
    let left_open = "SELECT count(*) FROM pg_stat_activity
                     WHERE state LIKE 'idle in transaction%' AND state_change < now() - interval '1 s'";
    let mut client = postgres.connect();
    // The server ends them only after 5 s, and only those that nobody uses.
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        let left_open: i64 = client.query_one(left_open, &[]).unwrap().get(0);
        assert_eq!(left_open, 0);
        thread::sleep(Duration::from_millis(50));
    }
    hand_over_one(&relay, &event);
    ends_up(&relay, &event, "delivered");
}

#[test]
fn with_kafka_events_wait_on_the_topic_while_the_database_is_away() {
    let topics = Topics::new();
    let mut postgres = Postgres::start();
    let relay = ready(topics.relay().database(&postgres).start());
    let first = Otp::new().event(GENERATED);
    hand_over_one(&relay, &first);
    ends_up(&relay, &first, "delivered");
    postgres.kill();
    eventually("being said", SOON, || relay.client().get("/readyz").status == 503);
    let not_ready = relay.client().get("/readyz").expect(503);
    assert_eq!(not_ready["dependencies"]["bus"]["status"], "up", "{not_ready}");
    let events: Vec<_> = (0..50).map(|_| Otp::new().event(GENERATED)).collect();
    hand_over(&relay, &events);
    thread::sleep(Duration::from_secs(3));
    postgres.restart();
    wait_until_ready(&relay);
    events.iter().for_each(|event| drop(ends_up(&relay, event, "delivered")));
    assert_eq!(inbox(&relay).len(), 51);
    assert_eq!(metric(&relay, "leases_lost_total"), 0.0, "nobody could say that he is alive");
}

#[test]
fn what_no_column_takes_as_it_is_holds_nobody_up() {
    let topics = Topics::new();
    topics.kafka.create_topic(&topics.events, 1);
    let postgres = Postgres::start();
    let relay = ready(topics.relay().database(&postgres).start());
    topics.kafka.produce(&topics.events, &"k".repeat(9_000), &[("x-nul", "\u{1}")], "what is this?");
    let mut odd: Vec<_> = (0..3).map(|_| Otp::new().event(GENERATED)).collect();
    odd[0]["data"]["otpId"] = json!("with \0 in it");
    odd[1]["data"]["otpId"] = json!("x".repeat(9_000));
    odd[2]["data"]["channel"] = json!("by\0pigeon");
    let good = Otp::new();
    let event = good.event(GENERATED);
    hand_over(&relay, &odd);
    hand_over_one(&relay, &event);
    ends_up(&relay, &event, "delivered");
    eventually("the dead", SOON, || dead_letters(&relay).len() >= 4);
    let states = "SELECT count(*) FROM deliveries WHERE state IN ('failed', 'delivered')";
    eventually("all outcomes", SOON, || relay.ledger().number(states) == 4);
    assert_eq!(codes(&inbox(&relay)), [good.code]);
    let named: BTreeSet<_> =
        dead_letters(&relay).iter().filter_map(|letter| letter["id"].as_str().map(str::to_owned)).collect();
    assert!(odd.iter().all(|event| named.contains(id(event))), "{named:?}");
}

#[test]
fn what_was_erased_is_vacuumed() {
    let postgres = Postgres::start();
    let relay = Relay::builder().database(&postgres).start();
    let otp = Otp::new();
    let event = otp.event(GENERATED);
    hand_over_one(&relay, &event);
    ends_up(&relay, &event, "delivered");
    let vacuumed = || -> i64 {
        let query = "SELECT sum(vacuum_count)::bigint FROM pg_stat_user_tables
                     WHERE schemaname = 'relay' AND relname IN ('contents', 'dead')";
        postgres.connect().query_one(query, &[]).unwrap().get(0)
    };
    eventually("the one at the start", SOON, || vacuumed() == 2);
    hand_over_one(&relay, &otp.erased());
    assert!(delivery(&relay, &event).is_none());
    eventually("another one", SOON, || vacuumed() >= 4);
}

#[test]
fn the_ledger_stands_beside_what_else_is_in_the_database() {
    let postgres = Postgres::start();
    let mut client = postgres.connect();
    for table in ["events", "offsets", "deliveries", "numbers", "dead", "migrations"] {
        client.batch_execute(&format!("CREATE TABLE {table} (other TEXT)")).unwrap();
    }
    let relay = Relay::builder().database(&postgres).start();
    let event = Otp::new().event(GENERATED);
    hand_over_one(&relay, &event);
    let told: Value = ends_up(&relay, &event, "delivered");
    assert_eq!(told["attempts"], 1);
    for table in ["events", "offsets", "deliveries", "numbers", "dead", "migrations"] {
        let rows: i64 = client.query_one(&format!("SELECT count(*) FROM {table}"), &[]).unwrap().get(0);
        assert_eq!(rows, 0, "{table}");
    }
}
