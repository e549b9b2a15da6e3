//! What the service promises over HTTP, whoever hosts it. One file a capability.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bad_input;
mod cache;
mod cache_failures;
mod configuration;
mod contract;
mod delivery_address;
mod durability;
mod events;
mod expiry;
mod generate;
mod health;
mod openapi;
mod outage;
mod readme;
mod regenerate;
mod resend;
mod schema;
mod secrets;
mod verify;
