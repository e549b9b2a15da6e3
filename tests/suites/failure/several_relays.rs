//! Two relays with one ledger: killed and paused in turn, and with them the database and the broker. Whatever
//! was accepted is on the topic, and in the inbox once.

use crate::{dice::Dice, setting};
use harness::{
    Client, Kafka, Postgres, Relay, RelayBuilder, Service, bulk_number, eventually, unused_address,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const TOKEN: &str = "token-of-the-failure-suite";

/// How long it may take until nothing is under way any more.
const SETTLE: Duration = Duration::from_secs(90);

/// How long partitions may be nobody's after a relay died.
const TAKEOVER: Duration = Duration::from_secs(10);

/// Longer than a lease.
const PAUSE: Duration = Duration::from_secs(8);

struct Pair {
    service: Service,
    relays: [Relay; 2],
    kafka: Kafka,
    postgres: Postgres,
}

/// What happens to it.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    Killed(usize),
    Paused(usize),
    Broker,
    Database,
}

impl Pair {
    fn start() -> Self {
        let (kafka, postgres) = (Kafka::start(), Postgres::start());
        let host = unused_address();
        let relay = |_| {
            let relay: RelayBuilder = Relay::builder().database(&postgres);
            relay
                .env("RELAY_TOKEN", TOKEN)
                .env("KAFKA_BROKERS", kafka.brokers())
                .env("RELAY_COMPONENT_URL", &format!("http://{host}"))
                .env("RELAY_FLUSH_SECONDS", "1")
                .start()
        };
        let relays = [0, 1].map(relay);
        let service = Service::builder()
            .without_limits()
            .listen(&host)
            .variable("otp_length", "10")
            .variable("relay_url", &relays[0].url())
            .variable("relay_token", TOKEN)
            .start();
        Self { service, relays, kafka, postgres }
    }

    fn makes(&mut self, trouble: Trouble, away: Duration) {
        match trouble {
            Trouble::Killed(index) => {
                self.relays[index].kill();
                let begun = Instant::now();
                let other = &self.relays[1 - index];
                eventually("owning all partitions", TAKEOVER, || owned(other) == 12);
                println!("every partition was owned again {:?} after a relay was killed", begun.elapsed());
                self.relays[index].restart();
            }
            Trouble::Paused(index) => {
                self.relays[index].signal("STOP");
                thread::sleep(PAUSE);
                self.relays[index].signal("CONT");
            }
            Trouble::Broker => {
                self.kafka.kill();
                thread::sleep(away);
                self.kafka.restart();
            }
            Trouble::Database => {
                self.postgres.kill();
                thread::sleep(away);
                self.postgres.restart();
            }
        }
        // Both are there and have their share before the next one: two at once may take longer.
        eventually("even shares", SETTLE, || self.relays.iter().all(|relay| owned(relay) == 6));
    }

    /// What is under way: in the outbox, on the topic, and among the deliveries.
    fn waiting(&self) -> [i64; 3] {
        let outbox = self.service.sql().number("SELECT count(*) FROM outbox", &[]);
        let ledger = self.relays[0].ledger();
        let read = ledger.number("SELECT coalesce(sum(next), 0)::bigint FROM offsets");
        let published = i64::try_from(self.kafka.records("otp-events").len()).unwrap();
        let undelivered = ledger.number("SELECT count(*) FROM deliveries WHERE state = 'waiting'");
        [outbox, published - read, undelivered]
    }

    /// Who has what is still under way, and what the relays say.
    fn state(&self) -> String {
        let ledger = self.relays[0].ledger();
        let rows = |of: &str, sql: &str| {
            let rows = ledger.pairs(sql).into_iter().map(|(id, what)| format!("{of} {id} {what}\n"));
            rows.collect::<String>()
        };
        let deliveries = rows(
            "delivery",
            "SELECT event_id, concat_ws(' ', 'claim', claim, 'of', claimed_by, 'attempts', attempts, 'due in',
                    next_at - relay.now_millis(), 'ms', reason)
             FROM relay.deliveries WHERE state = 'waiting' LIMIT 20",
        );
        let members = rows(
            "relay",
            "SELECT id, concat_ws(' ', 'alive for', alive_until - now(), id IN (SELECT id FROM relay.alive))
             FROM relay.members",
        );
        let sessions = rows(
            "session",
            "SELECT pid::text, concat_ws(' ', state, now() - state_change, wait_event, left(query, 100))
             FROM pg_stat_activity WHERE backend_type = 'client backend'",
        );
        let said = |relay: &Relay| {
            let metrics = relay.client().try_send("GET", "/metrics", &[], b"");
            let metrics = metrics.map(|answer| String::from_utf8_lossy(&answer.body).into_owned());
            let metrics: String = metrics.unwrap_or_default();
            let metrics: Vec<_> = metrics.lines().filter(|line| line.contains("deliver")).collect();
            let log = relay.log();
            let log: Vec<_> = log.lines().rev().take(40).collect();
            format!("{}\n{}\n", metrics.join("\n"), log.into_iter().rev().collect::<Vec<_>>().join("\n"))
        };
        [deliveries, members, sessions, said(&self.relays[0]), said(&self.relays[1])].concat()
    }
}

/// How many partitions a relay reads, by its own account.
fn owned(relay: &Relay) -> u64 {
    let Ok(answer) = relay.client().try_send("GET", "/metrics", &[], b"") else { return 0 };
    let text = String::from_utf8(answer.body).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("spin_otp_relay_partitions_owned "));
    line.map_or(0, |count| count.parse().unwrap())
}

/// Accepted requests that a load is worth the name with.
const LOAD: usize = 500;

/// Asks for codes until told to stop, and until enough were accepted: which requests were, and with which code.
fn load(service: &Client, loading: &AtomicBool) -> BTreeMap<String, String> {
    let accepted = Mutex::new(BTreeMap::new());
    let next = AtomicU32::new(0);
    let until = Instant::now() + 3 * SETTLE;
    let enough = || accepted.lock().unwrap().len() > LOAD || Instant::now() > until;
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while loading.load(Ordering::Relaxed) || !enough() {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let request = format!("several-{index}");
                    let body = json!({ "mobileNumber": bulk_number(index) }).to_string();
                    let headers = [("x-request-id", &*request)];
                    let answer =
                        service.try_send("POST", "/generate-otp", &headers, body.as_bytes()).unwrap();
                    if (200..300).contains(&answer.status) {
                        let otp = answer.json()["otp"].as_str().unwrap().to_owned();
                        accepted.lock().unwrap().insert(request, otp);
                    }
                    thread::sleep(Duration::from_millis(40));
                }
            });
        }
    });
    accepted.into_inner().unwrap()
}

#[test]
fn two_relays_that_share_a_ledger_lose_and_double_nothing_whatever_dies() {
    let mut pair = Pair::start();
    eventually("even shares", SETTLE, || pair.relays.iter().all(|relay| owned(relay) == 6));
    let mut dice = Dice::new(setting("FIRST_SEED", 1));
    let mut troubles = vec![
        Trouble::Killed(0),
        Trouble::Killed(1),
        Trouble::Paused(0),
        Trouble::Paused(1),
        Trouble::Broker,
        Trouble::Database,
    ];
    dice.shuffle(&mut troubles);
    let loading = AtomicBool::new(true);
    let service = pair.service.client();
    let accepted = thread::scope(|scope| {
        let posting = scope.spawn(|| load(&service, &loading));
        for trouble in troubles {
            thread::sleep(Duration::from_millis(500 + dice.below(700)));
            pair.makes(trouble, Duration::from_millis(500 + dice.below(2_000)));
        }
        loading.store(false, Ordering::Relaxed);
        posting.join().unwrap()
    });
    let mut last = [0; 3];
    let deadline = Instant::now() + SETTLE;
    while Instant::now() < deadline {
        last = pair.waiting();
        if last == [0; 3] {
            break;
        }
        thread::sleep(Duration::from_millis(200));
    }
    let rest = "outbox, topic and deliveries come to rest without help";
    assert_eq!(last, [0; 3], "{rest}:\n{}", if last == [0; 3] { String::new() } else { pair.state() });

    // The requests whose events are on the topic, and each event once, however often it lies there.
    let records = pair.kafka.records("otp-events");
    let mut events: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for record in &records {
        let header = |name: &str| record.header(name).unwrap().to_owned();
        events.entry(header("ce_requestid")).or_default().insert(header("ce_id"));
    }
    let messages = pair.relays[1].client();
    let messages =
        messages.send("GET", "/inbox?limit=10000", &[("authorization", &format!("Bearer {TOKEN}"))], b"");
    let mut shown: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for message in messages.expect(200).as_array().unwrap() {
        let text = |field: &str| Value::as_str(&message[field]).unwrap().to_owned();
        shown.entry(text("eventId")).or_default().push(text("otp"));
    }
    let (mut lost, mut doubled) = (Vec::new(), Vec::new());
    for (request, otp) in &accepted {
        match events.get(request).map(|ids| ids.iter().collect::<Vec<_>>()).as_deref() {
            Some([event]) => match shown.get(*event).map(Vec::as_slice) {
                Some([code]) if code == otp => {}
                Some([_]) => lost.push(format!("{request} was answered one code and delivered another")),
                Some(_) => doubled.push(format!("{event} is several times in the inbox")),
                None => lost.push(format!("{event} is not in the inbox")),
            },
            Some(_) => doubled.push(format!("{request} has several events")),
            None => lost.push(format!("{request} is not on the topic")),
        }
    }
    let ledger = pair.relays[0].ledger();
    let rounds = ledger.number("SELECT sum(attempts)::bigint FROM deliveries");
    println!(
        "accepted {}, on the topic {} records, delivered {}, rounds {rounds}, lost {}, doubled {}",
        accepted.len(),
        records.len(),
        shown.len(),
        lost.len(),
        doubled.len()
    );
    assert!(accepted.len() > LOAD, "hardly anything got through");
    assert!(lost.is_empty() && doubled.is_empty(), "{lost:?} {doubled:?}");
}
