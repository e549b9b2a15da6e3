//! What was tried and heard, so that the suite cannot pass by testing nothing.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

/// Counts of what came up.
#[derive(Debug, Default)]
pub(crate) struct Coverage {
    steps: Mutex<BTreeMap<String, u64>>,
    outcomes: Mutex<BTreeMap<String, u64>>,
    requests: AtomicU64,
    most_worlds: AtomicUsize,
}

/// What comes up in every run of 500 steps.
const COMMON: [&str; 14] = [
    "erase: 204",
    "generate: 201",
    "generate: 201 replayed",
    "generate: 429 rate_limited",
    "regenerate: 201",
    "regenerate: 404 otp_not_found",
    "regenerate: 429 rate_limited",
    "resend: 200",
    "resend: 429 rate_limited",
    "verify: 200",
    "verify: 422 otp_mismatch",
    "verify: 404 otp_not_found",
    "verify: 410 otp_used",
    "verify: 429 attempts_exceeded",
];

/// What comes up in every run of 5000; "generate" stands for "regenerate", too.
const RARE: [&str; 22] = [
    "generate: 201 replayed without its code",
    "generate: 422 idempotency_key_reused",
    "generate: 429 number_locked",
    "invalid or reading: 200",
    "invalid or reading: 400 invalid_idempotency_key",
    "invalid or reading: 400 invalid_json",
    "invalid or reading: 400 missing_field",
    "invalid or reading: 401 unauthorized",
    "invalid or reading: 403 forbidden",
    "invalid or reading: 404 not_found",
    "invalid or reading: 405 method_not_allowed",
    "invalid or reading: 413 payload_too_large",
    "invalid or reading: 422 invalid_channel",
    "invalid or reading: 422 invalid_email",
    "invalid or reading: 422 invalid_mobile_number",
    "invalid or reading: 422 invalid_otp",
    "regenerate: 201 replayed",
    "resend: 404 otp_not_found",
    "resend: 410 otp_expired",
    "resend: 410 otp_used",
    "verify: 410 otp_expired",
    "verify: 429 number_locked",
];

impl Coverage {
    pub(crate) fn step(&self, what: String) {
        *self.steps.lock().unwrap().entry(what).or_default() += 1;
    }

    pub(crate) fn outcome(&self, call: &str, outcome: &str) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        *self.outcomes.lock().unwrap().entry(format!("{call}: {outcome}")).or_default() += 1;
    }

    pub(crate) fn worlds(&self, count: usize) {
        self.most_worlds.fetch_max(count, Ordering::Relaxed);
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(crate) fn steps(&self) -> u64 {
        self.steps.lock().unwrap().values().sum()
    }

    /// Adds what another one has.
    pub(crate) fn add(&self, other: &Self) {
        for (all, more) in [(&self.steps, &other.steps), (&self.outcomes, &other.outcomes)] {
            let mut all = all.lock().unwrap();
            for (what, count) in &*more.lock().unwrap() {
                *all.entry(what.clone()).or_default() += count;
            }
        }
        self.requests.fetch_add(other.requests(), Ordering::Relaxed);
        self.worlds(other.most_worlds.load(Ordering::Relaxed));
    }

    /// What should have come up in so many steps and did not.
    pub(crate) fn missing(&self, steps: u64) -> Vec<&'static str> {
        let outcomes = self.outcomes.lock().unwrap();
        let expected = COMMON.iter().filter(|_| steps >= 500).chain(RARE.iter().filter(|_| steps >= 5_000));
        expected
            .copied()
            .filter(|expected| !outcomes.keys().any(|outcome| outcome.ends_with(*expected)))
            .collect()
    }

    /// The share of requests that the service could not serve.
    pub(crate) fn unavailable(&self) -> f64 {
        let outcomes = self.outcomes.lock().unwrap();
        let unavailable =
            outcomes.iter().filter(|(outcome, _)| outcome.contains(": 503")).map(|(_, count)| count);
        unavailable.sum::<u64>() as f64 / self.requests().max(1) as f64
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for all in [&self.steps, &self.outcomes] {
            for (what, count) in &*all.lock().unwrap() {
                writeln!(f, "  {count:6} {what}")?;
            }
        }
        write!(f, "  at most {} worlds at once", self.most_worlds.load(Ordering::Relaxed))
    }
}
