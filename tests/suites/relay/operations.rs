//! What an operator meets: options, mistakes, health, metrics, logs, the timer, and the end.

use crate::{
    GENERATED, LOCKED, Otp, RESENT, SOON, TOKEN, VERIFIED, batch_of, brought_by, dead_letters, ends_up,
    hand_over, hand_over_one, id, ids, inbox, metric, post, requests_reach, text, webhook_table,
};
use harness::{Relay, RelayBuilder, SmsProvider, eventually, temporary_folder};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{TcpListener, TcpStream},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// Everything that can be set.
const VARIABLES: [&str; 26] = [
    "RELAY_LISTEN",
    "RELAY_TOKEN",
    "RELAY_ENCRYPTION_KEYS",
    "RELAY_EVENT_KEYS",
    "RELAY_PROFILE",
    "RELAY_DELIVERY_FILE",
    "RELAY_DRAIN_SECONDS",
    "RELAY_COMPONENT_URL",
    "RELAY_FLUSH_SECONDS",
    "RELAY_PURGE_SECONDS",
    "RELAY_MAX_ATTEMPTS",
    "RELAY_REMEMBER_HOURS",
    "RELAY_STATE_DIR",
    "RELAY_DATABASE_URL",
    "RELAY_LOG_FORMAT",
    "RELAY_LOG_LEVEL",
    "KAFKA_BROKERS",
    "KAFKA_TOPIC",
    "KAFKA_DLQ_TOPIC",
    "KAFKA_PARTITIONS",
    "KAFKA_REPLICATION",
    "KAFKA_TLS",
    "KAFKA_CA_FILE",
    "KAFKA_SASL_MECHANISM",
    "KAFKA_SASL_USERNAME",
    "KAFKA_SASL_PASSWORD",
];

#[test]
fn help_names_every_command_and_every_variable_and_shows_no_secret() {
    let key = "k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let relay = Relay::builder()
        .env("RELAY_TOKEN", TOKEN)
        .env("RELAY_ENCRYPTION_KEYS", key)
        .env("RELAY_EVENT_KEYS", key)
        .env("KAFKA_SASL_PASSWORD", "of-the-relay-at-kafka")
        .start();
    let help = |arguments: &[&str]| {
        let printed = relay.run(arguments);
        assert!(printed.status.success(), "{printed:?}");
        let printed = String::from_utf8(printed.stdout).unwrap();
        for secret in [TOKEN, key, "of-the-relay-at-kafka"] {
            assert!(!printed.contains(secret), "{printed}");
        }
        printed
    };
    let general = help(&["--help"]);
    assert!(general.contains("serve") && general.contains("dlq"), "{general}");
    let dead = help(&["dlq", "--help"]);
    assert!(dead.contains("list") && dead.contains("replay"), "{dead}");
    let serve = help(&["serve", "--help"]);
    for variable in VARIABLES {
        assert!(serve.contains(&format!("[env: {variable}")), "{variable}: {serve}");
    }
    let mentioned = serve.split("[env: ").skip(1).map(|rest| rest.split(['=', ']']).next().unwrap());
    assert_eq!(mentioned.collect::<BTreeSet<_>>(), VARIABLES.into(), "all of them are known here");
    for command in ["list", "replay"] {
        let printed = help(&["dlq", command, "--help"]);
        assert!(printed.contains("RELAY_STATE_DIR") && printed.contains("KAFKA_BROKERS"), "{printed}");
    }
    let version = relay.run(&["--version"]).stdout;
    assert!(String::from_utf8(version).unwrap().starts_with("relay 0."));
}

/// Variables of a start that is refused.
type Mistake<'a> = &'a [(&'a str, &'a str)];

/// Starts a relay with each, which has to end by itself and to name the first variable.
#[track_caller]
fn each_is_named(mistakes: &[Mistake<'_>]) {
    let mut unnamed = Vec::new();
    for mistake in mistakes {
        let relay = mistake.iter().fold(Relay::builder(), |relay, (name, value)| relay.env(name, value));
        let (status, said) = relay.refused();
        assert!(!status.success(), "{mistake:?}");
        assert!(!said.contains("hunter2") && !said.contains("panicked"), "{said}");
        if !said.lines().any(|line| line.contains(mistake[0].0)) {
            unnamed.push(format!("{mistake:?}: {said}"));
        }
    }
    assert!(unnamed.is_empty(), "{}", unnamed.join("\n"));
}

#[test]
fn a_value_that_cannot_be_one_ends_the_start_and_is_named() {
    each_is_named(&[
        &[("RELAY_LISTEN", "everywhere")],
        &[("RELAY_PROFILE", "staging")],
        &[("RELAY_COMPONENT_URL", "nowhere"), ("RELAY_TOKEN", TOKEN)],
        &[("RELAY_FLUSH_SECONDS", "0")],
        &[("RELAY_PURGE_SECONDS", "often")],
        &[("RELAY_MAX_ATTEMPTS", "0")],
        &[("RELAY_REMEMBER_HOURS", "-1")],
        &[("RELAY_LOG_FORMAT", "xml")],
        &[("RELAY_LOG_LEVEL", "chatty")],
        &[("KAFKA_PARTITIONS", "0")],
        &[("KAFKA_REPLICATION", "many")],
        &[("KAFKA_TLS", "perhaps")],
        &[("KAFKA_SASL_MECHANISM", "GSSAPI")],
    ]);
}

#[test]
fn a_mistake_ends_the_start_and_is_named() {
    let folder = temporary_folder();
    let file = folder.path().join("file");
    std::fs::write(&file, "no folder, no TOML").unwrap();
    let file = file.to_str().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    each_is_named(&[
        &[("RELAY_LISTEN", &taken)],
        &[("RELAY_LISTEN", "0.0.0.0:0")],
        &[("RELAY_TOKEN", "short")],
        &[("RELAY_ENCRYPTION_KEYS", "hunter2")],
        &[("RELAY_EVENT_KEYS", "hunter2")],
        &[("RELAY_DELIVERY_FILE", "missing.toml")],
        &[("RELAY_DELIVERY_FILE", file)],
        &[("RELAY_COMPONENT_URL", "http://127.0.0.1:3000/otp"), ("RELAY_TOKEN", TOKEN)],
        &[("RELAY_COMPONENT_URL", "http://127.0.0.1:3000")],
        &[("RELAY_STATE_DIR", file)],
        &[("KAFKA_BROKERS", "localhost")],
        &[("KAFKA_BROKERS", "localhost:port")],
    ]);
}

#[test]
fn a_mistake_about_kafka_ends_the_start_whether_the_brokers_are_there_or_not() {
    let folder = temporary_folder();
    let file = folder.path().join("file");
    std::fs::write(&file, "no certificate").unwrap();
    let brokers = ("KAFKA_BROKERS", "127.0.0.1:1");
    let tls = ("KAFKA_TLS", "true");
    each_is_named(&[
        &[("KAFKA_CA_FILE", "missing.pem"), tls, brokers],
        &[("KAFKA_CA_FILE", file.to_str().unwrap()), tls, brokers],
        &[
            ("KAFKA_SASL_USERNAME", ""),
            ("KAFKA_SASL_MECHANISM", "PLAIN"),
            ("KAFKA_SASL_PASSWORD", "hunter2"),
            brokers,
        ],
        // Each dead event would be an event again.
        &[("KAFKA_DLQ_TOPIC", "otp-events"), brokers],
        &[("KAFKA_TOPIC", "not a topic"), brokers],
    ]);
}

#[test]
fn a_variable_that_is_empty_is_as_good_as_none() {
    // As Compose and Kubernetes leave what nobody filled in. Where it listens is the harness's to say.
    let unset = VARIABLES.into_iter().filter(|name| *name != "RELAY_LISTEN");
    let relay = unset.fold(Relay::builder(), |relay, name| relay.env(name, "")).start();
    let event = Otp::new().event(GENERATED);
    hand_over_one(&relay, &event);
    ends_up(&relay, &event, "delivered");
    assert_eq!(relay.client().get("/readyz").expect(200)["dependencies"]["bus"]["kind"], "in-process");
}

#[test]
fn health_and_readiness_tell_of_ledger_and_bus() {
    let relay = Relay::start();
    assert_eq!(relay.client().get("/healthz").expect(200), json!({ "status": "ok" }));
    assert_eq!(
        relay.client().get("/readyz").expect(200),
        json!({
            "status": "ready",
            "dependencies": {
                "ledger": { "kind": relay.ledger().kind(), "status": "up" },
                "bus": { "kind": "in-process", "status": "up" },
            },
        })
    );
}

#[test]
fn metrics_tell_what_was_done_in_the_form_that_prometheus_reads() {
    let (main, spare) = (SmsProvider::start(), SmsProvider::start());
    main.answer_next(1, 500);
    spare.answer_next(1, 503);
    let relay = brought_by(&[("main", &main), ("spare", &spare)]).start();
    let put_off = Otp::new().event(GENERATED);
    hand_over_one(&relay, &put_off);
    ends_up(&relay, &put_off, "delivered");
    let refused = Otp::new().event(GENERATED);
    main.answer_all(400);
    spare.answer_all(400);
    hand_over_one(&relay, &refused);
    ends_up(&relay, &refused, "failed");
    let expired = Otp::new().lives(Duration::ZERO).event(GENERATED);
    let by_mail = Otp::new().by_mail().event(GENERATED);
    hand_over(&relay, &[expired.clone(), by_mail.clone(), by_mail.clone()]);
    ends_up(&relay, &expired, "expired");
    ends_up(&relay, &by_mail, "delivered");
    post(&relay, &[json!({})]).expect(200);

    let answer = relay.client().get("/metrics");
    assert!(answer.header("content-type").starts_with("text/plain; version=0.0.4"));
    let text = String::from_utf8(answer.body).unwrap();
    let mut types = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            types.extend(rest.split_once(' '));
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').unwrap();
            value.parse::<f64>().unwrap();
            let name = name.split('{').next().unwrap();
            let known = |suffix: &str| name.strip_suffix(suffix).is_some_and(|name| types.contains_key(name));
            assert!(["", "_bucket", "_sum", "_count"].into_iter().any(known), "{line}");
            let ours =
                ["spin_otp_relay_", "http_server_request_duration_seconds", "process_start_time_seconds"];
            assert!(ours.iter().any(|ours| name.starts_with(ours)), "{line}");
        }
    }
    for (name, least) in [
        ("published_total", 5.0),
        ("consumed_total", 4.0),
        ("events_total", 4.0),
        ("duplicates_total", 1.0),
        ("refused_total", 1.0),
        ("delivered_total{channel=\"sms\"", 1.0),
        ("delivered_total{channel=\"email\",provider=\"inbox\"", 1.0),
        ("failed_total{channel=\"sms\",provider=\"main\"", 2.0),
        ("undelivered_total{state=\"failed\"", 1.0),
        ("undelivered_total{state=\"expired\"", 1.0),
        ("retries_total", 1.0),
        ("dead_total", 1.0),
        ("bus_up", 1.0),
        ("publish_duration_seconds_count", 4.0),
        ("delivery_duration_seconds_count", 2.0),
        ("send_duration_seconds_count", 4.0),
    ] {
        assert!(metric(&relay, name) >= least, "{name}: {text}");
    }
    assert!(metric(&relay, "delivery_duration_seconds_sum") >= 0.4, "the one that was put off: {text}");
}

#[test]
fn events_are_counted_once_by_type_and_application() {
    let relay = Relay::start();
    let with = |kind: &str, application: Option<&str>| {
        let mut event = Otp::new().event(kind);
        match application {
            Some(application) => event["application"] = json!(application),
            None => drop(event.as_object_mut().unwrap().remove("application")),
        }
        event
    };
    let counted = |kind: &str, key: &str| {
        metric(&relay, &format!("events_total{{application=\"{key}\",type=\"{kind}\"}}"))
    };
    let mut events = vec![
        with(GENERATED, Some("web")),
        with(GENERATED, Some("web")),
        with(RESENT, Some("Mobile_App-2")),
        with(VERIFIED, None),
        with("otp.limited.v1", None),
        with("otp.forwarded.v3", Some("web")),
        with("com.example.order.v1", Some("web")),
        // No name that an application can have.
        with(LOCKED, Some("+14155550123")),
        with(LOCKED, Some(&"k".repeat(65))),
    ];
    events.push(events[0].clone());
    hand_over(&relay, &events);
    for (kind, key, count) in [
        (GENERATED, "web", 2.0),
        (RESENT, "Mobile_App-2", 1.0),
        (VERIFIED, "", 1.0),
        ("otp.limited.v1", "", 1.0),
        ("other", "web", 2.0),
        (LOCKED, "other", 2.0),
    ] {
        assert_eq!(counted(kind, key), count, "{kind} {key}");
    }
    // Two names have been seen; 62 more are told apart.
    hand_over(&relay, &(0..100).map(|key| with(VERIFIED, Some(&format!("key-{key}")))).collect::<Vec<_>>());
    assert_eq!(counted(VERIFIED, "key-61"), 1.0);
    assert_eq!(counted(VERIFIED, "key-62"), 0.0);
    assert_eq!(counted(VERIFIED, "other"), 38.0);
    hand_over_one(&relay, &with(VERIFIED, Some("web")));
    assert_eq!(counted(VERIFIED, "web"), 1.0, "one that is known stays so");
    assert_eq!(metric(&relay, "events_total"), metric(&relay, "consumed_total"));
}

#[test]
fn a_range_that_is_suspended_is_told_to_the_operator_and_nothing_is_delivered() {
    let relay = Relay::start();
    let suspended = |data: Value| {
        let mut event = Otp::new().event("destination.suspended.v1");
        event["subject"] = json!("+99291");
        event["data"] = data;
        event
    };
    let until = "2026-11-22T08:41:42.123Z";
    let told = suspended(json!({ "prefix": "+99291", "sent": 40, "verified": 1, "suspendedUntil": until }));
    hand_over(&relay, &[told.clone(), told.clone()]);
    let lines = |event: &Value| -> Vec<Value> {
        let log = relay.log();
        let lines = log.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.filter(|line: &Value| line["event_id"] == event["id"]).collect()
    };
    let [line] = lines(&told).try_into().unwrap();
    assert_eq!(line["level"], "WARN", "{line}");
    for (field, value) in
        [("prefix", json!("+99291")), ("until", json!(until)), ("sent", json!(40)), ("verified", json!(1))]
    {
        assert_eq!(line[field], value, "{line}");
    }
    // Whatever does not look like it is not repeated.
    for data in [
        json!("none"),
        json!({ "prefix": "+14155550123", "suspendedUntil": "+14155550123" }),
        json!({ "prefix": 14_155_550_123_i64 }),
    ] {
        let odd = suspended(data);
        hand_over_one(&relay, &odd);
        let [line] = lines(&odd).try_into().unwrap();
        assert_eq!(line["level"], "WARN", "{line}");
    }
    assert!(!relay.log().contains("4155550123"), "{}", relay.log());
    assert_eq!(metric(&relay, "events_total{application=\"shop\",type=\"destination.suspended.v1\""), 4.0);
    assert!(inbox(&relay).is_empty() && dead_letters(&relay).is_empty());
}

#[test]
fn neither_log_nor_metrics_hold_a_code_or_a_whole_number() {
    let (main, spare) = (SmsProvider::start(), SmsProvider::start());
    main.answer_next(3, 503);
    main.answer_next(3, 422);
    spare.answer_next(4, 422);
    let log_too = format!(
        "[channels]\nsms = [\"main\", \"spare\"]\nemail = [\"log\", \"inbox\"]\n{}{}",
        webhook_table("main", &main.url()),
        webhook_table("spare", &spare.url())
    );
    let relay = Relay::builder().delivery(&log_too).env("RELAY_LOG_LEVEL", "debug").start();
    let mut otps = Vec::new();
    let mut events = Vec::new();
    for index in 0..40 {
        let otp = if index % 4 == 0 { Otp::new().by_mail() } else { Otp::new() };
        events.extend([otp.event(GENERATED), otp.event(RESENT)]);
        otps.push(otp);
    }
    // What is wrong about these is said, and they are not repeated.
    let mut bad: Vec<_> = (0..3).map(|_| Otp::new().event(GENERATED)).collect();
    bad[0]["data"]["sealedOtp"] = json!(otps[1].code);
    bad[1]["data"]["expiresAt"] = json!(otps[1].number);
    bad[2]["data"]["channel"] = json!(otps[1].number);
    events.extend(bad);
    events.extend([otps[2].event(VERIFIED), otps[3].event(LOCKED)]);
    hand_over(&relay, &events);
    let mut not_taken = otps[1].event(GENERATED);
    not_taken["id"] = json!(format!("{}\n", otps[1].code));
    let mut not_taken_either = otps[1].event(GENERATED);
    not_taken_either[otps[1].number.clone()] = json!("x");
    let rejected = post(&relay, &[not_taken, not_taken_either]).expect(200);
    assert_eq!(rejected["rejected"].as_array().unwrap().len(), 2);
    eventually("all outcomes", SOON, || {
        metric(&relay, "delivered_total") + metric(&relay, "undelivered_total") >= 82.0
            && dead_letters(&relay).len() >= 3
    });
    relay.client().get(&format!("/inbox?to={}", otps[0].number)).expect(200);
    relay.client().get(&format!("/deliveries/{}", otps[0].number)).expect_problem(404, "not_found");
    relay.client().get(&format!("/{}", otps[0].number)).expect_problem(404, "not_found");

    let metrics = String::from_utf8(relay.client().get("/metrics").body).unwrap();
    let letters = json!(dead_letters(&relay)).to_string();
    for (name, text) in [("log", relay.log()), ("metrics", metrics), ("dead letters", letters)] {
        for otp in &otps {
            for secret in [&otp.code, &otp.number[1..], otp.to()] {
                assert!(!text.contains(secret), "{secret} is in the {name}: {text}");
            }
        }
    }
    assert!(relay.log().contains("\"DEBUG\""), "it said all that it has to say");
}

#[test]
fn the_log_is_lines_of_json_or_text_for_people() {
    let provider = SmsProvider::start();
    provider.answer_all(400);
    let run = |format: &str| {
        let mut relay = brought_by(&[("main", &provider)])
            .env("RELAY_LOG_LEVEL", "debug")
            .env("RELAY_LOG_FORMAT", format)
            .start();
        let event = Otp::new().event(GENERATED);
        hand_over_one(&relay, &event);
        ends_up(&relay, &event, "failed");
        assert!(relay.terminate().success());
        relay.log()
    };
    let log = run("json");
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() >= 4, "{log}");
    for line in &lines {
        for field in ["timestamp", "level", "target", "message"] {
            assert!(text(line, field).len() > 3, "{line}");
        }
    }
    let failure = lines.iter().find(|line| line["level"] == "ERROR").unwrap();
    assert!(text(failure, "message").contains("relay dlq list"), "{failure}");
    let log = run("text");
    assert!(log.contains("ERROR") && log.lines().all(|line| !line.starts_with('{')), "{log}");
    // A mistake at the start is a line like the others.
    let (_, said) = Relay::builder().env("RELAY_TOKEN", "short").refused();
    let line: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!(line["level"], "ERROR");
}

/// How many requests for a path a component has had.
fn times_asked(component: &SmsProvider, path: &str) -> usize {
    component.sent().iter().filter(|sent| sent.path == path).count()
}

#[test]
fn the_component_is_asked_to_push_and_to_clean_up() {
    let component = SmsProvider::start();
    let relay = Relay::builder()
        .env("RELAY_COMPONENT_URL", &component.url())
        .env("RELAY_TOKEN", TOKEN)
        .env("RELAY_FLUSH_SECONDS", "1")
        .env("RELAY_PURGE_SECONDS", "2")
        .start();
    let count = |path| times_asked(&component, path);
    eventually("both", SOON, || count("/internal/outbox/flush") >= 3 && count("/internal/purge") >= 2);
    for sent in component.sent() {
        assert_eq!(sent.method, "POST");
        assert_eq!(sent.header("authorization"), Some(&*format!("Bearer {TOKEN}")), "{}", sent.path);
    }
    component.answer_all(401);
    eventually("a word about the token", SOON, || relay.log().contains("relay_token must be RELAY_TOKEN"));
    assert!(!relay.log().contains(TOKEN));
}

/// What it takes from the system depends on it, and nothing else would tell if jemalloc looked for it by another name.
#[test]
#[cfg(target_os = "linux")]
fn its_allocator_is_set_up_as_it_ought_to_be() {
    let (_, said) =
        Relay::builder().env("RELAY_TOKEN", "short").env("MALLOC_CONF", "stats_print:true").refused();
    for setting in
        ["opt.narenas: 1", "opt.dirty_decay_ms: 500", "opt.muzzy_decay_ms: 0", "opt.tcache_max: 4096"]
    {
        assert!(said.lines().any(|line| line.trim_start().starts_with(setting)), "{setting}: {said}");
    }
}

/// A component leaves an event of the last moment to its writer, which may not try again.
#[test]
fn at_the_start_the_component_is_asked_more_than_once_however_rarely_it_is_later() {
    let component = SmsProvider::start();
    let _relay = Relay::builder()
        .env("RELAY_COMPONENT_URL", &component.url())
        .env("RELAY_TOKEN", TOKEN)
        .env("RELAY_FLUSH_SECONDS", "3600")
        .start();
    let asked = || times_asked(&component, "/internal/outbox/flush");
    eventually("being asked again", SOON, || asked() >= 5);
    thread::sleep(Duration::from_secs(6));
    assert_eq!(asked(), 5);
}

#[test]
fn what_never_ends_to_be_pushed_holds_up_no_cleaning() {
    let component = SmsProvider::start();
    component.answer_with(json!({ "published": 500, "waiting": 500, "oldestSeconds": 9 }));
    let _relay =
        Relay::builder().env("RELAY_COMPONENT_URL", &component.url()).env("RELAY_TOKEN", TOKEN).start();
    let count = |path| times_asked(&component, path);
    eventually("both", SOON, || count("/internal/outbox/flush") >= 5 && count("/internal/purge") >= 5);
}

#[test]
fn told_to_end_it_finishes_what_is_under_way_and_takes_no_more() {
    let provider = SmsProvider::start();
    provider.delay(Duration::from_secs(2));
    let mut relay = brought_by(&[("main", &provider)]).start();
    let event = Otp::new().event(GENERATED);
    hand_over_one(&relay, &event);
    requests_reach(&provider, 1);
    relay.signal("TERM");
    eventually("closing its door", Duration::from_millis(1_500), || {
        TcpStream::connect(relay.address()).is_err()
    });
    assert!(!relay.log().contains("not sent"), "{}", relay.log());
    let status = relay.wait();
    assert_eq!(status.code(), Some(0), "{}", relay.log());
    relay.restart();
    let told = ends_up(&relay, &event, "delivered");
    assert_eq!(told["attempts"], 1);
    assert_eq!(provider.sent().len(), 1);
}

#[test]
fn told_to_end_it_does_not_wait_for_what_is_not_due_yet() {
    let provider = SmsProvider::start();
    provider.answer_all(503);
    let mut relay = brought_by(&[("main", &provider)]).start();
    let event = Otp::new().event(GENERATED);
    hand_over_one(&relay, &event);
    requests_reach(&provider, 3);
    let begun = std::time::Instant::now();
    assert_eq!(relay.terminate().code(), Some(0), "{}", relay.log());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    provider.answer_all(200);
    relay.restart();
    ends_up(&relay, &event, "delivered");
}

/// Ends a relay under load and starts it again: whatever was accepted is in the inbox once.
pub(crate) fn ended_under_load_it_loses_nothing(builder: RelayBuilder) {
    let mut relay = builder.start();
    eventually("readiness", SOON, || relay.client().get("/readyz").status == 200);
    let accepted = Mutex::new(BTreeSet::new());
    let ended = AtomicBool::new(false);
    let address = relay.url();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let client = harness::Client::new(&address);
                while !ended.load(Ordering::Relaxed) {
                    let events: Vec<_> = (0..20).map(|_| Otp::new().event(GENERATED)).collect();
                    let body = batch_of(&events);
                    let Ok(answer) = client.try_send("POST", "/events", &[], body.as_bytes()) else { return };
                    if answer.status == 200 {
                        accepted.lock().unwrap().extend(ids(&answer.json()["accepted"]));
                    }
                }
            });
        }
        eventually("some load", SOON, || accepted.lock().unwrap().len() > 1_000);
        let status = relay.terminate();
        ended.store(true, Ordering::Relaxed);
        assert_eq!(status.code(), Some(0), "{}", relay.log());
    });
    let accepted = accepted.into_inner().unwrap();
    relay.restart();
    // Some may have been taken whose answer did not arrive any more.
    let mut seen = Vec::new();
    eventually("all deliveries", SOON, || {
        seen = inbox(&relay).iter().map(|message| text(message, "eventId").to_owned()).collect();
        let seen: BTreeSet<_> = seen.iter().cloned().collect();
        accepted.is_subset(&seen)
    });
    let once: BTreeSet<_> = seen.iter().collect();
    assert_eq!(once.len(), seen.len(), "something is there twice");
}

#[test]
fn told_to_end_under_load_it_loses_nothing_that_it_accepted() {
    ended_under_load_it_loses_nothing(Relay::builder());
}

#[test]
fn an_address_in_use_or_a_ledger_of_another_program_is_said() {
    let first = Relay::start();
    let second = Relay::builder().env("RELAY_LISTEN", first.address());
    let (status, said) = second.refused();
    assert!(!status.success() && said.contains("RELAY_LISTEN") && said.contains(first.address()), "{said}");
    let folder = temporary_folder();
    std::fs::write(folder.path().join("ledger.db"), "this is no database ".repeat(500)).unwrap();
    let (status, said) = Relay::builder().state(folder.path()).refused();
    assert!(!status.success() && said.contains("ledger.db"), "{said}");
    // It is left as it was.
    let left = std::fs::read_to_string(folder.path().join("ledger.db")).unwrap();
    assert!(left.starts_with("this is no database"));
}

#[test]
fn a_second_relay_does_not_share_the_ledger_of_the_first() {
    // It would take the first one's deliveries for those of a relay that died, and send them again.
    let provider = SmsProvider::start();
    provider.delay(Duration::from_secs(2));
    let first = brought_by(&[("main", &provider)]).on_a_file().start();
    let event = Otp::new().event(GENERATED);
    hand_over_one(&first, &event);
    requests_reach(&provider, 1);
    let (status, said) = brought_by(&[("main", &provider)]).state(&first.state()).refused();
    assert!(!status.success() && said.contains("RELAY_STATE_DIR"), "{said}");
    ends_up(&first, &event, "delivered");
    assert_eq!(
        provider.sent().iter().map(|sent| sent.header("webhook-id").unwrap().to_owned()).collect::<Vec<_>>(),
        [id(&event)]
    );
}
