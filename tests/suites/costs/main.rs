//! What a call costs, as far as that can be counted: the same on every machine, fast or slow.
//!
//! What was counted stands in `recorded.json`. A call that costs a twentieth more fails here; a change that is worth that
//! says so in the difference of the file: `UPDATE=1 make suite-costs` writes it anew.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[cfg(target_os = "linux")]
mod instructions;

use harness::{Builder, Client, Redis, Service, bulk_number, repository};
use serde_json::{Map, Value, json};
use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

/// Requests that a cost is the mean of.
const REQUESTS: u32 = 50;

/// How much more than what is recorded passes.
const ROOM: f64 = 1.05;

/// Most bytes of the component, whatever is recorded.
const MOST_BYTES: u64 = 2_000_000;

const CALLS: [&str; 4] = ["generate", "resend", "regenerate", "verify"];

/// One test at a time writes the file.
static FILE: Mutex<()> = Mutex::new(());

fn file() -> PathBuf {
    repository().join("tests/suites/costs/recorded.json")
}

/// Holds what was counted against what is recorded, or records it.
fn hold(what: &str, counted: &Value) {
    let _alone = FILE.lock().unwrap_or_else(PoisonError::into_inner);
    let text = std::fs::read_to_string(file()).unwrap_or_else(|_| "{}".to_owned());
    let mut recorded: Map<String, Value> = serde_json::from_str(&text).unwrap();
    println!("{what}: {counted}");
    if std::env::var_os("UPDATE").is_some() {
        recorded.insert(what.to_owned(), counted.clone());
        std::fs::write(file(), format!("{:#}\n", Value::Object(recorded))).unwrap();
        return;
    }
    let numbers = |value: &Value| -> Vec<(String, f64)> {
        match value {
            Value::Object(each) => {
                each.iter().map(|(name, cost)| (name.clone(), cost.as_f64().unwrap())).collect()
            }
            one => vec![(String::new(), one.as_f64().unwrap())],
        }
    };
    let allowed = recorded.get(what).unwrap_or_else(|| panic!("{what} is not recorded: UPDATE=1"));
    for ((call, cost), (of, allowed)) in numbers(counted).into_iter().zip(numbers(allowed)) {
        assert_eq!(call, of, "other calls than recorded: UPDATE=1");
        assert!(
            cost <= allowed * ROOM,
            "{what} {call}: {cost}, and {allowed} is recorded; make it cheaper, or record it with UPDATE=1"
        );
    }
}

fn plain() -> Builder {
    Service::builder()
        .variable("redis_endpoint", "")
        .variable("postgres_endpoint", "")
        .variable("pumping_guard", "false")
}

/// Makes the requests of the first so many calls, one after the other, and tells after each call how far `meter` is.
fn after_each<T>(client: &Client, calls: usize, mut meter: impl FnMut() -> T) -> Vec<T> {
    let numbers: Vec<_> = (0..REQUESTS).map(bulk_number).collect();
    let mut codes = vec![String::new(); numbers.len()];
    // The schema is there, and the instance, and all statements are prepared.
    client.generate(&bulk_number(REQUESTS));
    client.regenerate(&bulk_number(REQUESTS)).expect(201);
    let mut seen = vec![meter()];
    for call in &CALLS[..calls] {
        for (number, code) in numbers.iter().zip(&mut codes) {
            match *call {
                "generate" => drop(client.generate(number)),
                "resend" => drop(client.resend(number).expect(200)),
                "regenerate" => {
                    *code = client.regenerate(number).expect(201)["otp"].as_str().unwrap().to_owned()
                }
                _ => drop(client.verify(number, code).expect(200)),
            }
        }
        seen.push(meter());
    }
    seen
}

/// What each call costs by a meter that was read before and after it.
fn each(seen: &[u64]) -> Value {
    // Two decimals: rounded down, half a script more a call would not be seen.
    let mean = |total: u64| (total as f64 / f64::from(REQUESTS) * 100.0).round() / 100.0;
    let costs = seen.windows(2).map(|pair| mean(pair[1] - pair[0]));
    CALLS
        .iter()
        .zip(costs)
        .map(|(call, cost)| ((*call).to_owned(), json!(cost)))
        .collect::<Map<_, _>>()
        .into()
}

#[test]
fn what_the_component_executes() {
    let fuel = |calls: usize| {
        let mut service = plain().env("SPIN_OTP_COUNT_FUEL", "true").start();
        after_each(&service.client(), calls, || ());
        service.terminate();
        let log = service.log();
        let line = log.lines().find_map(|line| line.strip_suffix(" units of fuel were used"));
        line.unwrap_or_else(|| panic!("the host tells no fuel: {log}")).parse::<u64>().unwrap()
    };
    let seen: Vec<_> = (0..=CALLS.len()).map(fuel).collect();
    hold("fuel", &each(&seen));
}

#[test]
fn what_is_written_to_the_log_of_the_database() {
    let service = plain().start();
    let log = service.database().with_extension("db-wal");
    let seen = after_each(&service.client(), CALLS.len(), || std::fs::metadata(&log).unwrap().len());
    hold("bytes of SQLite's log", &each(&seen));
}

#[test]
fn what_redis_is_asked() {
    let redis = Redis::start();
    let service = plain().variable("redis_endpoint", &redis.endpoint()).start();
    let mut connection = redis.connect();
    let seen = after_each(&service.client(), CALLS.len(), || {
        // What follows an answer comes a little later.
        thread::sleep(Duration::from_millis(200));
        let statistics: String = redis::cmd("INFO").arg("stats").query(&mut connection).unwrap();
        let count = statistics.lines().find_map(|line| line.strip_prefix("total_commands_processed:"));
        count.unwrap().trim().parse::<u64>().unwrap()
    });
    // Those of its scripts are among them.
    hold("commands of Redis", &each(&seen));
}

#[test]
fn how_large_the_component_is() {
    let component = repository().join("target/wasm32-wasip2/component/otp.wasm");
    let bytes = std::fs::metadata(component).unwrap().len();
    hold("bytes of the component", &json!(bytes));
    assert!(bytes < MOST_BYTES, "{bytes}");
}
