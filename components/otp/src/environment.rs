//! Clock and randomness from the host.

use otp_core::{
    Timestamp,
    ports::{Clock, Random},
};
use spin_sdk::wasip3::random::random::get_random_bytes;
use std::{cell::RefCell, time::SystemTime};

/// The host's clock and its source of cryptographically secure random bytes (`wasi:random`).
#[derive(Debug)]
pub(crate) struct Environment;

impl Clock for Environment {
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_unix_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }
}

/// Random bytes that were drawn and not given yet: a request needs several times a few, and each draw is a call of the
/// host. What was given is overwritten.
struct Drawn {
    bytes: [u8; DRAWN],
    left: usize,
}

/// How many bytes are drawn at once: what a request needs a few times over.
const DRAWN: usize = 512;

thread_local! {
    static POOL: RefCell<Drawn> = const { RefCell::new(Drawn { bytes: [0; DRAWN], left: 0 }) };
}

impl Drawn {
    /// One more byte.
    fn next(&mut self) -> u8 {
        if self.left == 0 {
            let mut rest = &mut self.bytes[..];
            // The host may give fewer bytes than it is asked for.
            while !rest.is_empty() {
                let some = get_random_bytes(rest.len() as u64);
                let (filled, more) = rest.split_at_mut(some.len().min(rest.len()));
                filled.copy_from_slice(&some[..filled.len()]);
                rest = more;
            }
            self.left = DRAWN;
        }
        self.left -= 1;
        std::mem::take(&mut self.bytes[self.left])
    }
}

impl Random for Environment {
    fn fill(&self, bytes: &mut [u8]) {
        POOL.with_borrow_mut(|drawn| bytes.iter_mut().for_each(|byte| *byte = drawn.next()));
    }
}

/// An id for a request that brought none.
pub(crate) fn new_request_id() -> String {
    let mut bytes = [0; 16];
    Environment.fill(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}
