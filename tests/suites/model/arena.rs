//! A running service, and what all machines that run at it share.

use crate::{
    coverage::Coverage,
    wire::{KEY, VERIFIER},
};
use harness::{Builder, Client, Service, bulk_number};
use otp_oracle::Rules;
use sha2::{Digest, Sha256};
use std::{
    collections::HashSet,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

/// A service, or two of them on one state.
pub(crate) struct Arena {
    pub(crate) name: &'static str,
    pub(crate) rules: Rules,
    /// Whether callers need an API key.
    pub(crate) with_keys: bool,
    pub(crate) coverage: Coverage,
    clients: Vec<Client>,
    services: Vec<Service>,
    sequences: AtomicU32,
    ids: Mutex<HashSet<String>>,
    codes: Mutex<Vec<String>>,
    numbers: Mutex<Vec<String>>,
}

/// What the host says when the component does not answer as it should.
const FAILURES: [&str; 4] = ["gave no answer", "trap", "panicked", "an instance of the component failed"];

/// What it says when a machine under load was too slow for a deadline. That may be, and is answered 503.
const SLOW: [&str; 6] = [
    "busy for too long",
    "database is locked",
    "in time",
    "the database is asked instead",
    "no answer within",
    "statement timeout",
];

impl Arena {
    /// Everything passes quickly: lives, windows and locks end while a sequence runs.
    pub(crate) fn quick() -> Self {
        Self::start(
            "quick",
            Rules { length: 6, life: 2_000, lock: 2_000, window: 3_000, ..lasting() },
            false,
            1,
        )
    }

    /// Nothing passes, so that nothing is uncertain. With API keys.
    pub(crate) fn lasting() -> Self {
        Self::start("lasting", lasting(), true, 1)
    }

    /// Two hosts share one database, and one cache.
    pub(crate) fn shared() -> Self {
        Self::start("shared", Rules { life: 3_000, lock: 1_000, window: 4_000, ..lasting() }, false, 2)
    }

    fn start(name: &'static str, rules: Rules, with_keys: bool, hosts: usize) -> Self {
        let mut services = vec![settings(&rules, with_keys).start()];
        for _ in 1..hosts {
            let mut builder = settings(&rules, with_keys).state(&services[0].state());
            if let Some(cache) = services[0].cache() {
                builder = builder.variable("redis_endpoint", &cache.endpoint());
            }
            services.push(builder.start());
        }
        Self {
            name,
            rules,
            with_keys,
            coverage: Coverage::default(),
            clients: services.iter().map(Service::client).collect(),
            services,
            sequences: AtomicU32::new(0),
            ids: Mutex::default(),
            codes: Mutex::default(),
            numbers: Mutex::default(),
        }
    }

    /// Whether it is worth to wait for what passes.
    pub(crate) fn is_quick(&self) -> bool {
        self.rules.life < 60_000
    }

    /// The host that a request goes to: each in turn.
    pub(crate) fn client(&self, request: usize) -> &Client {
        &self.clients[request % self.clients.len()]
    }

    /// A number that nobody else has.
    pub(crate) fn new_number(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = bulk_number(NEXT.fetch_add(1, Ordering::Relaxed));
        self.numbers.lock().unwrap().push(number.clone());
        number
    }

    /// Tells one sequence from the others, and hints at no number.
    pub(crate) fn next_sequence(&self) -> u32 {
        self.sequences.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether no code had this id before.
    pub(crate) fn is_new_id(&self, id: &str) -> bool {
        self.ids.lock().unwrap().insert(id.to_owned())
    }

    /// Remembers a code, which no log may show.
    pub(crate) fn told(&self, code: &str) {
        self.codes.lock().unwrap().push(code.to_owned());
    }

    /// Why requests were not served, as the hosts' logs have it, where it is not that somebody was slow.
    pub(crate) fn bad_reasons(&self) -> Vec<String> {
        let mut reasons: Vec<_> = self.services.iter().flat_map(|service| reasons(&service.log())).collect();
        reasons.sort_unstable();
        reasons.dedup();
        reasons
    }

    /// What stands in the hosts' logs and must not.
    pub(crate) fn faults(&self) -> Vec<String> {
        let logs: Vec<_> = self.services.iter().map(Service::log).collect();
        let lines = logs.iter().flat_map(|log| log.lines());
        let failed = lines.filter(|line| FAILURES.iter().any(|failure| line.contains(failure)));
        let mut faults: Vec<_> = failed.map(str::to_owned).collect();
        let shown = |what: &str, secrets: &[String]| {
            let words: HashSet<_> =
                logs.iter().flat_map(|log| log.split(|c: char| !c.is_ascii_digit())).collect();
            let found =
                secrets.iter().filter(|secret| words.contains(secret.trim_start_matches('+'))).count();
            let example = logs
                .iter()
                .flat_map(|log| log.lines())
                .find(|line| secrets.iter().any(|secret| line.contains(secret.trim_start_matches('+'))));
            (found > 0).then(|| format!("{found} {what} stand in the log, such as in {example:?}"))
        };
        let codes = self.codes.lock().unwrap();
        // A short code is found in other text by chance.
        if self.rules.length == 10 {
            faults.extend(shown("codes", &codes));
        }
        faults.extend(shown("numbers", &self.numbers.lock().unwrap()));
        faults.into_iter().map(|fault| format!("{}: {fault}", self.name)).collect()
    }
}

fn reasons(log: &str) -> Vec<String> {
    let reasons = log.lines().filter_map(|line| line.split_once("unavailable: ")).map(|(_, reason)| reason);
    reasons.filter(|reason| SLOW.iter().all(|slow| !reason.contains(slow))).map(str::to_owned).collect()
}

fn lasting() -> Rules {
    Rules { length: 10, life: 600_000, attempts: 3, failures: 7, lock: 3_600_000, limit: 4, window: 600_000 }
}

fn settings(rules: &Rules, with_keys: bool) -> Builder {
    let builder = Service::builder()
        .variable("pumping_guard", "false")
        .variable("otp_length", &rules.length.to_string())
        .variable("otp_ttl_seconds", &(rules.life / 1_000).to_string())
        .variable("max_verify_attempts", &rules.attempts.to_string())
        .variable("max_consecutive_failures", &rules.failures.to_string())
        .variable("lock_seconds", &(rules.lock / 1_000).to_string())
        .variable("rate_limit_requests", &rules.limit.to_string())
        .variable("rate_limit_window_seconds", &(rules.window / 1_000).to_string());
    if !with_keys {
        return builder;
    }
    let hash = |key: &str| hex::encode(Sha256::digest(key));
    builder.variable(
        "api_keys",
        &format!("app:send+verify+admin:{},verifier:verify:{}", hash(KEY), hash(VERIFIER)),
    )
}
