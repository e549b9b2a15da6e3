//! What the service promises over HTTP, whoever hosts it. One file a capability.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod api_keys;
mod applications;
mod at_once;
mod bad_input;
mod cache;
mod cache_failures;
mod configuration;
mod contention;
mod contract;
mod cors;
mod delivery_address;
mod destinations;
mod durability;
mod erasure;
mod events;
mod expiry;
mod generate;
mod headers;
mod health;
mod idempotency;
mod limits;
mod lock;
mod meters;
mod openapi;
mod outage;
mod postgres_server;
mod profiles;
mod readme;
mod recipients;
mod regenerate;
mod resend;
mod rotation;
mod schema;
mod secrets;
mod sqlite_file;
mod statements;
mod uniform;
mod verify;

use harness::{Service, Sql};
use otp_seal::{Context, KeyRing};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{
    collections::HashSet,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

/// The events that wait, oldest first.
fn outbox(service: &Service) -> Vec<Value> {
    service.sql().documents("SELECT event FROM outbox ORDER BY sequence", &[])
}

/// Those of one type.
fn outbox_of(service: &Service, r#type: &str) -> Vec<Value> {
    let of_type = "SELECT event FROM outbox WHERE event ->> '$.type' = ?1 ORDER BY sequence";
    service.sql().documents(of_type, &[&r#type])
}

/// The code that was last to be delivered to a number, as whoever delivers it opens it.
fn delivered(service: &Service, keys: &KeyRing, number: &str) -> String {
    let newest = "SELECT event FROM outbox WHERE event ->> '$.data.mobileNumber' = ?1
                  AND event ->> '$.data.sealedOtp' IS NOT NULL ORDER BY sequence DESC LIMIT 1";
    let event: Value = serde_json::from_str(&service.sql().text(newest, &[&number])).unwrap();
    let text = |field: &str| event["data"][field].as_str().unwrap_or_default();
    let context = Context {
        purpose: otp_seal::CODE,
        application: event["application"].as_str().unwrap(),
        recipient: number,
        channel: text("channel"),
        address: text("email"),
        otp_id: text("otpId"),
        version: event["data"]["version"].as_i64().unwrap(),
        expires_at: chrono::DateTime::parse_from_rfc3339(text("expiresAt")).unwrap().timestamp_millis(),
    };
    let code = keys.open(&hex::decode(text("sealedOtp")).unwrap(), &context).unwrap();
    String::from_utf8(code.to_vec()).unwrap()
}

/// Suspends a range for a minute.
fn suspend(service: &Service, range: &str) {
    let suspend = Sql::either(
        "INSERT INTO suspensions (application, prefix, since, until, strikes, event)
         VALUES ('default', ?1, ?2, ?2 + 60000, 1, '{}')",
        "INSERT INTO suspensions (application, prefix, since, until, strikes)
         VALUES ('default', ?1, ?2, ?2 + 60000, 1)",
    );
    assert_eq!(service.sql().execute(suspend, &[&range, &now()]), 1);
}

/// Milliseconds since the Unix epoch.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// All files below a folder, each with its name.
fn files_below(folder: &Path) -> Vec<(String, Vec<u8>)> {
    std::fs::read_dir(folder)
        .unwrap()
        .flat_map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() {
                return files_below(&path);
            }
            match std::fs::read(&path) {
                Ok(bytes) => vec![(path.display().to_string(), bytes)],
                // Servers put files of the moment there and take them away.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
                Err(error) => panic!("{}: {error}", path.display()),
            }
        })
        .collect()
}

fn holds(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// All that could be a code of ten digits: there is much to look through, and many to look for.
fn ten_digits(bytes: &[u8]) -> HashSet<&[u8]> {
    let digits = bytes.split(|byte| !byte.is_ascii_digit());
    digits.flat_map(|digits| digits.windows(10)).collect()
}

/// A code that is not this one.
fn other_than(otp: &str) -> String {
    let changed = if otp.starts_with('0') { "1" } else { "0" };
    format!("{changed}{}", &otp[1..])
}

/// An entry of `api_keys`.
fn api_key(name: &str, scopes: &str, key: &str) -> String {
    format!("{name}:{scopes}:{}", hex::encode(Sha256::digest(key)))
}

fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}
