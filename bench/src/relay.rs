//! The relay: how long a code takes to be delivered, and what a steady stream of events costs.

use harness::{Kafka, Relay, Service, bulk_number, eventually};
use otp_events::{CodeData, Data, Event, EventType};
use otp_seal::{Context, EventKeys, KeyRing};
use serde_json::Value;
use std::{
    collections::HashMap,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Events in a batch, as a busy component has them.
const BATCH: usize = 100;

/// Who posts at once, as instances of a busy component do.
const CLIENTS: usize = 16;

/// The value of a metric; 0 where it is not there.
pub(crate) fn metric(relay: &Relay, name: &str) -> f64 {
    let text = String::from_utf8_lossy(&relay.client().get("/metrics").body).into_owned();
    let values = text.lines().filter(|line| line.starts_with(name) && !line.contains("_bucket"));
    values.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

fn millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    i64::try_from(since.as_millis()).expect("a clock before the year 292278994")
}

/// From a request's answer until its code is in the inbox, in the embedded default, for a client that
/// asks now and then.
pub(crate) fn time_to_delivery() {
    const REQUESTS: u32 = 500;
    let relay = Relay::start();
    let service = Service::builder()
        .without_limits()
        .variable("redis_endpoint", "")
        .variable("relay_url", &relay.url())
        .start();
    let client = service.client();
    let mut answered = HashMap::new();
    for index in 0..REQUESTS {
        let made = client.generate(&bulk_number(index));
        answered.insert(made["otpId"].to_string(), millis());
        thread::sleep(Duration::from_millis(u64::from(index * 7 % 40)));
    }
    let inbox = || relay.client().get("/inbox?limit=10000").expect(200);
    eventually("delivering", Duration::from_secs(30), || {
        inbox().as_array().is_some_and(|inbox| inbox.len() == answered.len())
    });
    let mut times: Vec<i64> = inbox()
        .as_array()
        .expect("a list")
        .iter()
        .map(|message| {
            let at =
                message["deliveredAt"].as_str().and_then(|at| chrono::DateTime::parse_from_rfc3339(at).ok());
            at.expect("a time").timestamp_millis() - answered[&message["otpId"].to_string()]
        })
        .collect();
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!(
        "\nfrom answer to delivery, {REQUESTS} requests one after the other: median {} ms, p99 {} ms, max {} ms",
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

/// Steady streams of events, each for that many seconds, in process and over Kafka.
pub(crate) fn under_load(rates: &[usize], seconds: usize) {
    println!("\nthe relay under a steady stream of events for {seconds} s");
    println!(
        "{:<12} {:>9} {:>9} {:>9} {:>9} {:>11} {:>9} {:>9}",
        "bus", "offered/s", "taken/s", "CPU %", "MB", "delivered", "behind s", "post p99"
    );
    let kafka = Kafka::for_a_load();
    let in_process = Relay::builder();
    let over_kafka = Relay::builder().env("KAFKA_BROKERS", kafka.brokers());
    let buses = [("in process", in_process), ("Kafka", over_kafka)];
    for ((name, builder), rate) in
        buses.into_iter().flat_map(|bus| rates.iter().map(move |rate| (bus.clone(), *rate)))
    {
        let batches = rate * seconds / BATCH;
        // Made before the clock runs: to seal and sign costs more than the relay may.
        let bodies: Vec<_> = (0..batches).map(events).collect();
        let relay = builder.start();
        eventually("being ready", Duration::from_secs(30), || relay.client().get("/readyz").status == 200);
        let (start, cpu) = (Instant::now(), relay.cpu_time().unwrap_or_default());
        let pace = Duration::from_secs_f64(BATCH as f64 / rate as f64);
        let mut latencies: Vec<Duration> = thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|client| {
                    let (relay, bodies) = (relay.client(), &bodies);
                    scope.spawn(move || {
                        let mut latencies = Vec::new();
                        for batch in (client..batches).step_by(CLIENTS) {
                            let due = start + pace * u32::try_from(batch).expect("a bounded number");
                            thread::sleep(due.saturating_duration_since(Instant::now()));
                            let begun = Instant::now();
                            let answer = relay.send("POST", "/events", &[], &bodies[batch]).expect(200);
                            assert_eq!(answer["accepted"].as_array().map(Vec::len), Some(BATCH), "{answer}");
                            latencies.push(begun.elapsed());
                        }
                        latencies
                    })
                })
                .collect();
            clients.into_iter().flat_map(|client| client.join().expect("no request failed")).collect()
        });
        let took = start.elapsed();
        let all = (batches * BATCH) as f64;
        let delivered = || metric(&relay, "spin_otp_relay_delivered_total");
        eventually("delivering all", Duration::from_secs(300), || delivered() >= all);
        let behind = start.elapsed() - took;
        let used = relay.cpu_time().unwrap_or_default() - cpu;
        latencies.sort_unstable();
        println!(
            "{name:<12} {rate:>9} {:>9.0} {:>9.0} {:>9.0} {:>11.0} {:>9.1} {:>6.1} ms",
            all / took.as_secs_f64(),
            used.as_secs_f64() / start.elapsed().as_secs_f64() * 100.0,
            relay.resident_memory().unwrap_or_default() as f64 / 1024.0,
            delivered(),
            behind.as_secs_f64(),
            latencies[(latencies.len() - 1) * 99 / 100].as_secs_f64() * 1e3
        );
    }
}

/// A batch of events, each of another number, as the component hands it over.
fn events(batch: usize) -> Vec<u8> {
    let (keys, event_keys) = (KeyRing::development(), EventKeys::development());
    let created = chrono::Utc::now();
    let event = |index: usize| {
        let unique = batch * BATCH + index;
        let number = bulk_number(u32::try_from(unique % 900_000).expect("a bounded number"));
        let otp_id = format!("01a20415-197b-76bf-a79a-{unique:012x}");
        let expires = created + chrono::TimeDelta::seconds(600);
        let context = Context {
            purpose: otp_seal::CODE,
            application: "default",
            recipient: &number,
            channel: "sms",
            address: "",
            otp_id: &otp_id,
            version: created.timestamp_millis(),
            expires_at: expires.timestamp_millis(),
        };
        // The nonce repeats from run to run, which matters to no secret: these codes are nobody's.
        let mut nonce = [0; otp_seal::NONCE_BYTES];
        nonce[..8].copy_from_slice(&unique.to_be_bytes());
        let sealed: String =
            keys.seal(b"042137", &context, nonce).iter().map(|byte| format!("{byte:02x}")).collect();
        let mut event = Event::new(format!("01a20415-197b-7fae-8cdb-{unique:012x}"), EventType::Generated);
        event.subject = Some(format!("{unique:032x}"));
        event.application = Some("default".to_owned());
        event.sequence = Some(format!("{:020}", created.timestamp_millis()));
        let data = CodeData {
            mobile_number: Some(number.clone()),
            channel: Some("sms".to_owned()),
            otp_id: Some(otp_id.clone()),
            version: Some(created.timestamp_millis()),
            sealed_otp: Some(sealed),
            created_at: Some(created.to_rfc3339()),
            expires_at: Some(expires.to_rfc3339()),
            ..CodeData::default()
        };
        // By way of a value, as the batch goes: that sorts its fields, and a signature is over their bytes.
        event.data = Some(Data::of(&serde_json::to_value(data).expect("data is JSON")));
        event.sign(&event_keys);
        serde_json::to_value(event).expect("an event is JSON")
    };
    (0..BATCH).map(event).collect::<Value>().to_string().into_bytes()
}
