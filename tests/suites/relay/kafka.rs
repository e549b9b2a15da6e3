//! With Kafka: what lies in the topic, how it is read, and who may come in.
//!
//! The broker takes seconds to start, so the tests that run at the same time share one. Each has topics of
//! its own.

use crate::{
    GENERATED, Otp, REGENERATED, RESENT, SOON, TRACEPARENT, VERIFICATION_FAILED, VERIFIED, brought_by, codes,
    dead_letters, delivery, ends_up, hand_over, hand_over_one, id, inbox, keys_of, metric, metric_becomes,
    operations, post, replay, requests_reach, signed, text, unique,
};
use harness::{Kafka, Mode, Proxy, Record, Relay, RelayBuilder, SmsProvider, at_once, eventually, number};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Deref,
    process::Command,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

/// The broker that the tests share. The last of those that run together stops it.
fn shared() -> Arc<Kafka> {
    static SHARED: Mutex<Weak<Kafka>> = Mutex::new(Weak::new());
    // A test that failed while it held the broker says nothing about the broker.
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let kafka = Arc::new(Kafka::secured());
        *shared = Arc::downgrade(&kafka);
        kafka
    })
}

/// Two topics of a broker, for one test.
pub(crate) struct Topics<K: Deref<Target = Kafka>> {
    pub(crate) kafka: K,
    pub(crate) events: String,
    pub(crate) dead: String,
}

impl Topics<Arc<Kafka>> {
    pub(crate) fn new() -> Self {
        Self::at(shared())
    }
}

impl<K: Deref<Target = Kafka>> Topics<K> {
    /// Names that no other test has.
    pub(crate) fn at(kafka: K) -> Self {
        let unique = unique();
        Self { kafka, events: format!("events-{unique}"), dead: format!("dead-{unique}") }
    }

    /// A relay with these topics.
    pub(crate) fn relay(&self) -> RelayBuilder {
        self.of(Relay::builder())
    }

    /// The same relay, with these topics.
    pub(crate) fn of(&self, relay: RelayBuilder) -> RelayBuilder {
        relay
            .env("KAFKA_BROKERS", self.kafka.brokers())
            .env("KAFKA_TOPIC", &self.events)
            .env("KAFKA_DLQ_TOPIC", &self.dead)
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        self.kafka.records(&self.events)
    }

    fn partitions(&self, topic: &str) -> usize {
        let listed = Command::new("kcat")
            .args(["-L", "-J", "-b", self.kafka.brokers(), "-t", topic])
            .output()
            .unwrap();
        let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
        listed["topics"][0]["partitions"].as_array().unwrap().len()
    }

    /// Writes an event to the topic, past the relay.
    pub(crate) fn produce(&self, event: &Value) {
        self.produce_with(event, &event["data"].to_string());
    }

    /// The same with other data, for which a signature does not hold.
    pub(crate) fn produce_with(&self, event: &Value, payload: &str) {
        let headers = headers(event);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.kafka.produce(&self.events, text(event, "subject"), &headers, payload);
    }
}

/// An event's attributes as a record has them.
fn headers(event: &Value) -> BTreeMap<String, String> {
    let attributes = event.as_object().unwrap().iter().filter(|(name, _)| *name != "data");
    let header = |(name, value): (&String, &Value)| {
        let name = if name == "datacontenttype" { "content-type".to_owned() } else { format!("ce_{name}") };
        (name, value.as_str().map_or(value.to_string(), str::to_owned))
    };
    attributes.map(header).collect()
}

/// Waits until the relay has its brokers.
pub(crate) fn ready(relay: Relay) -> Relay {
    wait_until_ready(&relay);
    relay
}

#[track_caller]
pub(crate) fn wait_until_ready(relay: &Relay) {
    eventually("readiness", SOON, || relay.client().get("/readyz").status == 200);
}

#[test]
fn an_event_lies_in_the_topic_as_cloudevents_has_it_and_shows_no_code() {
    let topics = Topics::new();
    let relay = ready(topics.relay().start());
    let otps: Vec<_> =
        (0..30).map(|index| if index % 3 == 0 { Otp::new().by_mail() } else { Otp::new() }).collect();
    let mut events = Vec::new();
    for otp in &otps {
        events.extend([
            otp.event(GENERATED),
            otp.event(RESENT),
            otp.event(VERIFICATION_FAILED),
            otp.event(VERIFIED),
        ]);
    }
    events[1]["tenant"] = json!("acme");
    events[1]["priority"] = json!(7);
    events[1]["data"]["voice"] = json!({ "language": "en" });
    events[2]["type"] = json!("otp.forwarded.v3");
    events[3]["type"] = json!("destination.suspended.v1");
    events[3]["subject"] = json!("+99291");
    let events: Vec<_> = events.iter().map(signed).collect();
    hand_over(&relay, &events);

    let records = topics.records();
    assert_eq!(records.len(), events.len());
    for event in &events {
        let record = records.iter().find(|record| record.header("ce_id") == Some(id(event))).unwrap();
        assert_eq!(record.key, text(event, "subject"));
        let found: BTreeMap<_, _> = record.headers.iter().cloned().collect();
        assert_eq!(found.len(), record.headers.len(), "none is there twice: {record:?}");
        assert_eq!(found["content-type"], "application/json");
        assert_eq!(found, headers(event));
        assert_eq!(serde_json::from_str::<Value>(&record.payload).unwrap(), event["data"]);
    }
    let all = format!("{records:?}");
    assert!(all.contains("sealedOtp") && all.contains(TRACEPARENT), "there is something to scan");
    for otp in &otps {
        assert!(!all.contains(&otp.code), "a code is in clear");
    }
}

#[test]
fn events_of_a_number_keep_their_order_and_their_partition() {
    let topics = Topics::new();
    let relay = ready(topics.relay().start());
    let otps: Vec<_> = (0..8).map(|_| Otp::new()).collect();
    let mut sent: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for round in 0..12 {
        let batch: Vec<_> =
            (0..40).map(|step| otps[(step * 7 + round) % 8].event("otp.limited.v1")).collect();
        hand_over(&relay, &batch);
        for event in batch {
            sent.entry(text(&event, "subject").to_owned()).or_default().push(id(&event).to_owned());
        }
    }
    let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut partitions: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
    for record in topics.records() {
        seen.entry(record.key.clone()).or_default().push(record.header("ce_id").unwrap().to_owned());
        partitions.entry(record.key).or_default().insert(record.partition);
    }
    assert_eq!(seen, sent);
    assert!(partitions.values().all(|partitions| partitions.len() == 1), "{partitions:?}");
}

#[test]
fn a_numbers_partition_is_the_one_that_kafkas_own_client_chooses() {
    let topics = Topics::new();
    topics.kafka.create_topic("by-java", 12);
    let relay = ready(topics.relay().start());
    let mut events: Vec<_> = (0..300).map(|_| Otp::new().event("otp.limited.v1")).collect();
    // Keys of every length, for the hash treats the last bytes apart; one without a subject has its id.
    for (index, event) in events.iter_mut().take(40).enumerate() {
        event["subject"] = json!(&"a key of some length, and not of any other"[..=index]);
    }
    events[40].as_object_mut().unwrap().remove("subject");
    hand_over(&relay, &events);
    let partitions = |topic: &str| -> BTreeMap<String, i32> {
        topics.kafka.records(topic).into_iter().map(|record| (record.key, record.partition)).collect()
    };
    let ours = partitions(&topics.events);
    assert_eq!(ours.len(), 300);
    assert!(ours.contains_key(id(&events[40])));
    topics.kafka.produce_as_java("by-java", &ours.keys().cloned().collect::<Vec<_>>());
    assert_eq!(partitions("by-java"), ours);
    assert_eq!(ours.values().collect::<BTreeSet<_>>().len(), 12, "all partitions are used");
}

#[test]
fn topics_that_are_missing_are_created_with_a_word_about_their_retention() {
    let topics = Topics::new();
    let relay = ready(topics.relay().start());
    assert_eq!([topics.partitions(&topics.events), topics.partitions(&topics.dead)], [12, 12]);
    let warnings: Vec<Value> = relay
        .log()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| line["level"] == "WARN" && text(line, "message").contains("retention.ms"))
        .collect();
    let named: BTreeSet<_> = warnings.iter().map(|line| text(line, "topic")).collect();
    assert_eq!(named, [&*topics.events, &topics.dead].into());

    let own = Topics::at(Arc::clone(&topics.kafka));
    own.kafka.create_topic(&own.events, 3);
    let relay = ready(own.relay().env("KAFKA_PARTITIONS", "5").start());
    assert_eq!(
        [own.partitions(&own.events), own.partitions(&own.dead)],
        [3, 5],
        "what is there is taken as it is"
    );
    let named = relay.log().lines().filter(|line| line.contains("retention.ms")).count();
    assert_eq!(named, 1, "{}", relay.log());
}

#[test]
fn an_event_is_delivered_once_though_it_is_in_the_topic_twice() {
    let topics = Topics::new();
    let relay = ready(topics.relay().start());
    let otp = Otp::new();
    let event = otp.event(GENERATED);
    hand_over_one(&relay, &event);
    hand_over_one(&relay, &event);
    metric_becomes(&relay, "duplicates_total", 1.0);
    ends_up(&relay, &event, "delivered");
    assert_eq!(topics.records().len(), 2);
    assert_eq!(codes(&inbox(&relay)), [otp.code]);
    assert_eq!([metric(&relay, "published_total"), metric(&relay, "consumed_total")], [2.0, 1.0]);
    // The application's name has come through the topic.
    assert_eq!(metric(&relay, "events_total{application=\"shop\",type=\"otp.generated.v1\""), 1.0);
}

#[test]
fn a_trace_goes_from_the_event_through_kafka_to_the_provider() {
    let topics = Topics::new();
    let provider = SmsProvider::start();
    let relay = ready(topics.of(brought_by(&[("main", &provider)])).start());
    let event = Otp::new().event(GENERATED);
    hand_over_one(&relay, &event);
    requests_reach(&provider, 1);
    assert_eq!(provider.sent()[0].header("traceparent"), Some(TRACEPARENT));
    assert_eq!(keys_of(&provider), [id(&event)]);
}

#[test]
fn a_newer_code_takes_the_place_of_an_older_one_whatever_their_order_in_the_topic() {
    let topics = Topics::new();
    let relay = ready(topics.relay().start());
    let older = Otp::new();
    let newer = older.next();
    let (late, fresh) = (older.event(GENERATED), newer.event(REGENERATED));
    hand_over_one(&relay, &fresh);
    ends_up(&relay, &fresh, "delivered");
    hand_over_one(&relay, &late);
    ends_up(&relay, &late, "superseded");
    assert_eq!(codes(&inbox(&relay)), [newer.code]);
}

#[test]
fn reading_goes_on_where_it_was_after_the_relay_was_killed() {
    let topics = Topics::new();
    let mut relay = ready(topics.relay().start());
    let events: Vec<_> = (0..300).map(|_| Otp::new().event(GENERATED)).collect();
    let (seen, not_seen) = events.split_at(200);
    hand_over(&relay, seen);
    seen.iter().for_each(|event| drop(ends_up(&relay, event, "delivered")));
    hand_over(&relay, not_seen);
    relay.kill();
    relay.restart();
    eventually("all deliveries", SOON, || inbox(&relay).len() >= 300);
    let ids: BTreeSet<_> = inbox(&relay).iter().map(|message| text(message, "eventId").to_owned()).collect();
    assert_eq!(ids, events.iter().map(|event| id(event).to_owned()).collect());
    assert_eq!(inbox(&relay).len(), 300);
    assert_eq!(metric(&relay, "duplicates_total"), 0.0, "nothing was read twice");
    assert!(metric(&relay, "consumed_total") <= 100.0);
}

#[test]
fn what_the_relay_missed_is_read_when_it_is_back_and_its_lag_is_shown() {
    let topics = Topics::new();
    let mut relay = ready(topics.relay().start());
    let event = Otp::new().event(GENERATED);
    hand_over_one(&relay, &event);
    ends_up(&relay, &event, "delivered");
    eventually("no lag", SOON, || metric(&relay, "consumer_lag") == 0.0);
    assert!(
        String::from_utf8(relay.client().get("/metrics").body)
            .unwrap()
            .contains("consumer_lag{partition=\"11\"}")
    );
    relay.kill();
    let missed: Vec<_> = (0..3).map(|_| Otp::new().event(GENERATED)).collect();
    missed.iter().for_each(|event| topics.produce(&signed(event)));
    relay.restart();
    missed.iter().for_each(|event| drop(ends_up(&relay, event, "delivered")));
    assert_eq!(metric(&relay, "duplicates_total"), 0.0);
}

#[test]
fn an_offset_that_the_topic_does_not_have_is_counted_and_reading_begins_at_the_earliest() {
    let topics = Topics::new();
    topics.kafka.create_topic(&topics.events, 1);
    let mut relay = ready(topics.relay().start());
    let (old, new) = (Otp::new(), Otp::new());
    let (delivered, to_come) = (old.event(GENERATED), new.event(GENERATED));
    hand_over_one(&relay, &delivered);
    ends_up(&relay, &delivered, "delivered");
    assert!(relay.terminate().success());
    // As if the ledger were that of another broker.
    assert_eq!(relay.ledger().execute("UPDATE offsets SET next = 1000000"), 1);
    relay.restart();
    wait_until_ready(&relay);
    metric_becomes(&relay, "offsets_lost_total", 1.0);
    hand_over_one(&relay, &to_come);
    ends_up(&relay, &to_come, "delivered");
    assert_eq!(codes(&inbox(&relay)), [new.code, old.code], "what was delivered is not delivered again");
    assert_eq!(metric(&relay, "duplicates_total"), 1.0);
    assert!(relay.log().contains("reading from the earliest"), "{}", relay.log());
}

#[test]
fn what_cannot_be_processed_goes_to_the_dead_letters_and_holds_nobody_up() {
    let topics = Topics::new();
    topics.kafka.create_topic(&topics.events, 1);
    let relay = ready(topics.relay().start());
    topics.kafka.produce(&topics.events, "a-key", &[("x-from", "elsewhere")], "what is this?");
    topics.kafka.produce(&topics.events, "", &[], "without a key");
    let otp = Otp::new();
    let (no_json, mut incomplete) = (otp.event(GENERATED), otp.event(GENERATED));
    incomplete["data"] = json!({ "version": 1 });
    topics.produce_with(&no_json, "{");
    topics.produce(&signed(&incomplete));
    let good = Otp::new().event(GENERATED);
    hand_over_one(&relay, &good);
    ends_up(&relay, &good, "delivered");

    eventually("the dead letters", SOON, || topics.kafka.records(&topics.dead).len() >= 4);
    let dead = topics.kafka.records(&topics.dead);
    assert_eq!(dead.len(), 4, "{dead:?}");
    for record in &dead {
        assert!(record.header("spin-otp-reason").is_some_and(|reason| reason.len() > 5), "{record:?}");
        assert!(record.header("spin-otp-died-at").is_some_and(|moment| moment.ends_with('Z')), "{record:?}");
    }
    let foreign = dead.iter().find(|record| record.key == "a-key").unwrap();
    assert_eq!((foreign.payload.as_str(), foreign.header("x-from")), ("what is this?", Some("elsewhere")));
    for (event, payload, word) in [(&no_json, "{", "JSON"), (&incomplete, "{\"version\":1}", "expiresAt")] {
        let letter = dead.iter().find(|record| record.header("ce_id") == Some(id(event))).unwrap();
        assert_eq!((letter.key.as_str(), letter.payload.as_str()), (text(event, "subject"), payload));
        assert!(letter.header("spin-otp-reason").unwrap().contains(word), "{letter:?}");
    }
    assert_eq!(metric(&relay, "dead_total"), 4.0);
    let listed: BTreeSet<_> =
        dead_letters(&relay).iter().map(|letter| text(letter, "diedAt").to_owned()).collect();
    assert_eq!(
        listed,
        dead.iter().map(|record| record.header("spin-otp-died-at").unwrap().to_owned()).collect()
    );
}

#[test]
fn a_dead_event_is_delivered_once_when_it_is_replayed() {
    let topics = Topics::new();
    let provider = SmsProvider::start();
    provider.answer_all(400);
    let relay = ready(topics.of(brought_by(&[("main", &provider)])).start());
    let otp = Otp::new();
    let event = otp.event(GENERATED);
    hand_over_one(&relay, &event);
    ends_up(&relay, &event, "failed");
    eventually("the dead letter", SOON, || !topics.kafka.records(&topics.dead).is_empty());
    let [letter] = topics.kafka.records(&topics.dead).try_into().unwrap();
    assert_eq!(letter.header("spin-otp-reason"), Some("main: HTTP 400"));
    assert_eq!(letter.key, otp.subject());
    assert!(!format!("{letter:?}").contains(&otp.code));
    let [listed] = dead_letters(&relay).try_into().unwrap();
    assert_eq!([&listed["id"], &listed["reason"]], [&event["id"], &json!("main: HTTP 400")]);
    assert!(!listed.to_string().contains(&otp.number[1..]), "{listed}");

    provider.answer_all(200);
    assert_eq!(replay(&relay, &["--id", id(&event)]), 1);
    ends_up(&relay, &event, "delivered");
    assert_eq!(replay(&relay, &[]), 1, "it still lies in its topic");
    eventually("the second replay", SOON, || {
        topics.records().len() == 3 && metric(&relay, "consumer_lag") == 0.0
    });
    assert_eq!(keys_of(&provider), [id(&event); 2], "the refused one and one more");
    assert_eq!(metric(&relay, "delivered_total"), 1.0);
}

#[test]
fn an_event_of_a_type_that_is_not_known_is_passed_over_quietly() {
    let topics = Topics::new();
    topics.kafka.create_topic(&topics.events, 1);
    let relay = ready(topics.relay().env("RELAY_LOG_LEVEL", "warn").start());
    let quiet = relay.log();
    let mut foreign = Otp::new().event(GENERATED);
    foreign["type"] = json!("com.example.order.v1");
    foreign["source"] = json!("/shop");
    foreign["data"] = json!({ "order": 7 });
    topics.produce(&signed(&foreign));
    let good = Otp::new().event(GENERATED);
    hand_over_one(&relay, &good);
    ends_up(&relay, &good, "delivered");
    assert_eq!(metric(&relay, "dead_total"), 0.0);
    assert!(topics.kafka.records(&topics.dead).is_empty());
    assert_eq!(relay.log(), quiet);
}

#[test]
fn compressed_records_of_other_producers_are_read() {
    let topics = Topics::new();
    topics.kafka.create_topic(&topics.events, 1);
    let relay = ready(topics.relay().start());
    for codec in ["gzip", "snappy", "lz4", "zstd"] {
        let mut event = Otp::new().event(GENERATED);
        let file = tempfile::NamedTempFile::new().unwrap();
        // Enough for a codec to be worth its while.
        event["data"]["note"] = json!("as before ".repeat(200));
        let event = signed(&event);
        std::fs::write(file.path(), event["data"].to_string()).unwrap();
        let mut kcat = Command::new("kcat");
        kcat.args([
            "-P",
            "-b",
            topics.kafka.brokers(),
            "-t",
            &topics.events,
            "-z",
            codec,
            "-k",
            text(&event, "subject"),
        ]);
        for (name, value) in headers(&event) {
            kcat.args(["-H", &format!("{name}={value}")]);
        }
        assert!(kcat.arg(file.path()).status().unwrap().success());
        let told = ends_up(&relay, &event, "delivered");
        assert_eq!(told["provider"], "inbox", "{codec}");
    }
}

#[test]
fn what_the_transactions_of_other_producers_leave_costs_no_event() {
    let topics = Topics::new();
    topics.kafka.create_topic(&topics.events, 1);
    let mut relay = ready(topics.relay().start());
    let events: Vec<_> = (0..5).map(|_| Otp::new().event(GENERATED)).collect();
    let write = |event: &Value| topics.produce(&signed(event));
    hand_over(&relay, &events[..1]);
    ends_up(&relay, &events[0], "delivered");
    // All that it missed comes at once, the mark of the transaction's end in the middle.
    relay.kill();
    events[1..3].iter().for_each(write);
    topics.kafka.produce_in_transaction(&topics.events, 3);
    events[3..4].iter().for_each(write);
    relay.restart();
    events[..4].iter().for_each(|event| drop(ends_up(&relay, event, "delivered")));
    // What the transaction wrote was no event, and lies among the dead as it was.
    eventually("the dead letters", SOON, || topics.kafka.records(&topics.dead).len() >= 3);
    let whole = topics.kafka.records(&topics.dead).iter().filter(|record| record.payload.len() == 10).count();
    assert_eq!(whole, 3);
    wait_until_ready(&relay);
    hand_over(&relay, &events[4..]);
    ends_up(&relay, &events[4], "delivered");
    assert_eq!(inbox(&relay).len(), 5);
}

#[test]
fn a_dead_letter_that_is_too_large_for_its_topic_holds_no_other_up() {
    let topics = Topics::new();
    topics.kafka.create_topic(&topics.events, 1);
    topics.kafka.create_topic(&topics.dead, 1);
    topics.kafka.set_topic_config(&topics.dead, "max.message.bytes", "2000");
    let relay = ready(topics.relay().start());
    topics.kafka.produce(&topics.events, "large", &[], &"x".repeat(3_000));
    topics.kafka.produce(&topics.events, "small", &[], "x");
    let dead = || topics.kafka.records(&topics.dead);
    eventually("the small one", SOON, || dead().iter().any(|record| record.key == "small"));
    assert_eq!(dead().len(), 1);
    assert_eq!(dead_letters(&relay).len(), 2, "nor is the large one lost");
    assert!(relay.log().contains("stays in the ledger"), "{}", relay.log());
}

#[test]
fn brokers_that_want_tls_and_a_login_get_both() {
    let topics = Topics::new();
    let secure = |mechanism: &str| {
        topics
            .relay()
            .env("KAFKA_BROKERS", topics.kafka.secure_brokers())
            .env("KAFKA_TLS", "true")
            .env("KAFKA_CA_FILE", topics.kafka.ca_file().to_str().unwrap())
            .env("KAFKA_SASL_MECHANISM", mechanism)
            .env("KAFKA_SASL_USERNAME", topics.kafka.username())
            .env("KAFKA_SASL_PASSWORD", topics.kafka.password())
    };
    for mechanism in ["SCRAM-SHA-256", "PLAIN"] {
        let relay = ready(secure(mechanism).start());
        let event = Otp::new().event(GENERATED);
        hand_over_one(&relay, &event);
        ends_up(&relay, &event, "delivered");
        assert!(dead_letters(&relay).is_empty(), "the commands log in, too");
        assert!(!relay.log().contains(topics.kafka.password()));
    }
    assert_eq!(topics.records().len(), 2);
}

#[test]
fn a_login_or_a_certificate_that_is_no_good_is_said_and_shows_in_readiness() {
    let topics = Topics::new();
    let secure =
        || topics.relay().env("KAFKA_BROKERS", topics.kafka.secure_brokers()).env("KAFKA_TLS", "true");
    let trusting = || secure().env("KAFKA_CA_FILE", topics.kafka.ca_file().to_str().unwrap());
    let login = |relay: RelayBuilder, mechanism: &str, password: &str| {
        relay
            .env("KAFKA_SASL_MECHANISM", mechanism)
            .env("KAFKA_SASL_USERNAME", topics.kafka.username())
            .env("KAFKA_SASL_PASSWORD", password)
    };
    // So slow that several tries take longer than one may.
    let slow = Proxy::to(topics.kafka.secure_brokers());
    slow.set(Mode::Delay(Duration::from_millis(300)));
    let slowly = trusting().env("KAFKA_BROKERS", slow.address());
    let cases = [
        (login(slowly, "SCRAM-SHA-256", "another-word"), "authentication"),
        (login(trusting(), "SCRAM-SHA-256", "another-word"), "authentication"),
        (login(trusting(), "PLAIN", "another-word"), "authentication"),
        (login(secure(), "PLAIN", topics.kafka.password()), "certificate"),
    ];
    // At once: it takes the relay seconds to give a try up.
    at_once(cases.len(), |index| {
        let (relay, word) = &cases[index];
        let relay = relay.clone().start();
        let complaint = || {
            let log = relay.log();
            log.lines()
                .map(|line| serde_json::from_str::<Value>(line).unwrap())
                .find(|line| text(line, "message").to_lowercase().contains(word))
        };
        eventually(word, SOON, || complaint().is_some());
        assert!(["WARN", "ERROR"].contains(&text(&complaint().unwrap(), "level")));
        let ready = relay.client().get("/readyz").expect(503);
        assert_eq!(ready["dependencies"]["bus"], json!({ "kind": "kafka", "status": "down" }));
        let answer = post(&relay, &[Otp::new().event(GENERATED)]);
        answer.expect_problem(503, "unavailable");
        assert_eq!(answer.header("retry-after"), "1");
        for password in ["another-word", topics.kafka.password()] {
            assert!(!relay.log().contains(password), "{}", relay.log());
        }
    });
}

#[test]
fn an_event_that_is_too_large_for_the_topic_is_rejected_and_the_others_are_accepted() {
    let topics = Topics::new();
    topics.kafka.create_topic(&topics.events, 2);
    topics.kafka.set_topic_config(&topics.events, "max.message.bytes", "4000");
    let relay = ready(topics.relay().start());
    let mut events: Vec<_> = (0..40).map(|_| Otp::new().event(GENERATED)).collect();
    events[17]["data"]["note"] = json!("x".repeat(5_000));
    let answer = post(&relay, &events).expect(200);
    let rejected = answer["rejected"].as_array().unwrap();
    assert_eq!(rejected.len(), 1, "{answer}");
    assert_eq!([&rejected[0]["id"], &rejected[0]["index"]], [&events[17]["id"], &json!(17)]);
    assert!(text(&rejected[0], "reason").contains("broker"), "{answer}");
    let too_large = events.remove(17);
    let accepted: BTreeSet<_> =
        answer["accepted"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    assert_eq!(accepted, events.iter().map(id).collect());
    events.iter().for_each(|event| drop(ends_up(&relay, event, "delivered")));
    assert!(delivery(&relay, &too_large).is_none());
    assert_eq!(topics.records().len(), 39, "each once");
    relay.client().get("/readyz").expect(200);
}

#[test]
fn a_number_has_its_own_way_beside_a_dead_one() {
    // One partition: the slow number's events lie in front of the other's.
    let topics = Topics::new();
    topics.kafka.create_topic(&topics.events, 1);
    let provider = SmsProvider::start();
    provider.delay(Duration::from_secs(8));
    let relay = ready(topics.of(brought_by(&[("main", &provider)])).start());
    let (slow, quick) = (Otp::of(number()), Otp::of(number()).by_mail());
    let events = [slow.event(GENERATED), quick.event(GENERATED)];
    hand_over(&relay, &events);
    requests_reach(&provider, 1);
    eventually("the other's delivery", Duration::from_secs(7), || codes(&inbox(&relay)) == [&*quick.code]);
}

#[test]
fn told_to_end_under_load_it_loses_nothing_that_kafka_has() {
    let topics = Topics::new();
    operations::ended_under_load_it_loses_nothing(topics.relay());
}
