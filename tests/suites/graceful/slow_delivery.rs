//! A relay, or a Kafka behind it, that is slow, silent or cut: requests do not notice, and every event arrives once.

use crate::{line::Line, slow::fresh_number};
use harness::{IN_TIME, Kafka, Mode, Proxy, Relay, Service, at_once, eventually, unused_address};
use serde_json::json;
use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

const TOKEN: &str = "token-of-the-graceful-suite";

/// Clients at the same time.
const CLIENTS: usize = 16;

/// How long a trouble lasts.
const TROUBLE: Duration = Duration::from_millis(2_000);

/// What half of the requests take longer at most than without a trouble: less than the shortest wait for a relay.
const QUICK: Duration = Duration::from_millis(200);

/// How long it may take until all events have arrived after the last trouble: pauses grow while something is away,
/// and what was under way then is left alone for a while.
const SETTLE: Duration = Duration::from_secs(60);

const TROUBLES: [(&str, Mode); 6] = [
    ("0.3 s late each way", Mode::Delay(Duration::from_millis(300))),
    ("a black hole", Mode::BlackHole),
    ("half open", Mode::HalfOpen),
    ("cut", Mode::Cut),
    ("cut in the middle of an answer", Mode::CutAfter(20)),
    ("dripping", Mode::Drip(Duration::from_millis(50))),
];

/// A host that listens there, and hands its events over there.
fn service(address: &str, relay: &str) -> Service {
    Service::builder()
        .without_limits()
        .listen(address)
        .variable("relay_url", &format!("http://{relay}"))
        .variable("relay_token", TOKEN)
        .start()
}

fn relay(component: &str, brokers: &str) -> Relay {
    Relay::builder()
        .env("RELAY_TOKEN", TOKEN)
        .env("RELAY_COMPONENT_URL", &format!("http://{component}"))
        .env("RELAY_FLUSH_SECONDS", "1")
        .env("KAFKA_BROKERS", brokers)
        .start()
}

/// Codes that are made meanwhile, by their ids. All requests are answered, and soon.
fn requests(service: &Service) -> (Vec<String>, Vec<Duration>) {
    let made = at_once(CLIENTS, |_| {
        let mut line = Line::to(service.address());
        let start = Instant::now();
        let (mut ids, mut took) = (Vec::new(), Vec::new());
        while start.elapsed() < TROUBLE {
            let asked = Instant::now();
            let answer = line.post("/generate-otp", &json!({ "mobileNumber": fresh_number() })).unwrap();
            took.push(asked.elapsed());
            assert_eq!(answer.status, 201, "{answer:?}");
            ids.push(answer.json()["otpId"].as_str().unwrap().to_owned());
            let asked = Instant::now();
            let ready = line.get("/readyz").unwrap();
            assert_eq!(ready.status, 200, "{ready:?}");
            assert!(asked.elapsed() < IN_TIME, "{:?}", asked.elapsed());
            thread::sleep(Duration::from_millis(50));
        }
        (ids, took)
    });
    let (ids, took): (Vec<_>, Vec<_>) = made.into_iter().unzip();
    let mut took = took.concat();
    took.sort();
    (ids.concat(), took)
}

fn all_troubles(service: &Service, relay: &Relay, proxy: &Proxy) {
    eventually("readiness", SETTLE, || relay.client().get("/readyz").status == 200);
    let (mut made, took) = requests(service);
    let usual = took[took.len() / 2];
    let memory = [service.resident_memory(), relay.resident_memory()];
    for (name, mode) in TROUBLES {
        proxy.set(mode);
        let (ids, took) = requests(service);
        let (half, most) = (took[took.len() / 2], took[took.len() - 1]);
        // Whoever asks the relay is answered, too.
        let start = Instant::now();
        let alive = Line::to(relay.address()).get("/healthz").unwrap();
        assert_eq!(alive.status, 200, "{alive:?}");
        let ready = Line::to(relay.address()).get("/readyz").unwrap();
        assert!(matches!(ready.status, 200 | 503), "{ready:?}");
        assert!(start.elapsed() < IN_TIME, "{:?}", start.elapsed());
        println!(
            "{name}: {} codes made, half after {half:?}, all after {most:?}; the relay says {}; {} connections",
            ids.len(),
            ready.json()["status"],
            proxy.open()
        );
        assert!(half < usual + QUICK && most < IN_TIME, "{half:?}, {most:?}; usually {usual:?}");
        made.extend(ids);
        proxy.set(Mode::Pass);
        thread::sleep(Duration::from_millis(500));
    }
    let start = Instant::now();
    let mut delivered: BTreeMap<String, usize> = BTreeMap::new();
    eventually("all deliveries", SETTLE, || {
        delivered.clear();
        for message in relay.client().get("/inbox?limit=10000").expect(200).as_array().unwrap() {
            *delivered.entry(message["otpId"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        thread::sleep(Duration::from_millis(200));
        made.iter().all(|id| delivered.contains_key(id))
    });
    let doubled = delivered.values().filter(|times| **times > 1).count();
    println!(
        "{} codes made, {} delivered {:?} after the last trouble, lost 0, doubled {doubled}; memory of host and relay \
         {memory:?}, now {:?} KiB",
        made.len(),
        delivered.len(),
        start.elapsed(),
        [service.resident_memory(), relay.resident_memory()]
    );
    assert_eq!(doubled, 0);
    let database = service.sql();
    eventually("an empty outbox", SETTLE, || database.number("SELECT count(*) FROM outbox", &[]) == 0);
    // Connections end with what they were for; Kafka's are kept.
    eventually("the end of connections", SETTLE, || proxy.open() < 40);
}

#[test]
fn a_slow_or_cut_relay_holds_up_no_request_and_loses_no_event() {
    let host = unused_address();
    let relay = relay(&host, "");
    let proxy = Proxy::to(relay.address());
    let service = service(&host, proxy.address());
    all_troubles(&service, &relay, &proxy);
}

#[test]
fn a_slow_or_cut_kafka_holds_up_no_request_and_loses_no_event() {
    let (kafka, proxy) = Kafka::behind_a_proxy();
    let host = unused_address();
    let relay = relay(&host, proxy.address());
    let service = service(&host, relay.address());
    assert_ne!(kafka.brokers(), proxy.address());
    all_troubles(&service, &relay, &proxy);
    assert!(proxy.taken() > 0, "the relay went past it");
}
