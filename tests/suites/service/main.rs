//! What the service promises over HTTP, whoever hosts it. One file a capability.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod api_keys;
mod bad_input;
mod cache;
mod cache_failures;
mod configuration;
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
mod profiles;
mod readme;
mod regenerate;
mod resend;
mod rotation;
mod schema;
mod secrets;
mod uniform;
mod verify;

use harness::Service;
use otp_seal::{Context, KeyRing};
use rusqlite::Connection;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The events that wait, oldest first.
fn outbox(service: &Service) -> Vec<Value> {
    let database = Connection::open(service.database()).unwrap();
    let mut query = database.prepare("SELECT event FROM outbox ORDER BY sequence").unwrap();
    let events = query.query_map([], |row| row.get::<_, String>(0)).unwrap();
    events.map(|event| serde_json::from_str(&event.unwrap()).unwrap()).collect()
}

/// The code that was last to be delivered to a number, as whoever delivers it opens it.
fn delivered(service: &Service, keys: &KeyRing, number: &str) -> String {
    let newest = "SELECT event FROM outbox WHERE event ->> '$.data.mobileNumber' = ?1
                  AND event ->> '$.data.sealedOtp' IS NOT NULL ORDER BY sequence DESC LIMIT 1";
    let database = Connection::open(service.database()).unwrap();
    let event: String = database.query_row(newest, [number], |row| row.get(0)).unwrap();
    let event: Value = serde_json::from_str(&event).unwrap();
    let [otp_id, sealed] = ["otpId", "sealedOtp"].map(|field| event["data"][field].as_str().unwrap());
    let context = Context { purpose: otp_seal::CODE, otp_id, number };
    let code = keys.open(&hex::decode(sealed).unwrap(), &context).unwrap();
    String::from_utf8(code.to_vec()).unwrap()
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
