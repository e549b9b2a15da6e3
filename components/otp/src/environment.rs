//! Clock and randomness from the host.

use otp_core::{
    Timestamp,
    ports::{Clock, Random},
};
use spin_sdk::wasip3::random::random::get_random_bytes;
use std::time::SystemTime;

/// The host's clock and its source of cryptographically secure random bytes (`wasi:random`).
#[derive(Debug)]
pub(crate) struct Environment;

impl Clock for Environment {
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_unix_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }
}

impl Random for Environment {
    fn fill(&self, mut bytes: &mut [u8]) {
        // The host may give fewer bytes than it is asked for.
        while !bytes.is_empty() {
            let some = get_random_bytes(bytes.len() as u64);
            let (filled, rest) = bytes.split_at_mut(some.len().min(bytes.len()));
            filled.copy_from_slice(&some[..filled.len()]);
            bytes = rest;
        }
    }
}

/// An id for a request that brought none.
pub(crate) fn new_request_id() -> String {
    let mut bytes = [0; 16];
    Environment.fill(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}
