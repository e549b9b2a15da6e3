//! The cache, behind the domain's port: Redis where one is configured, or none.

pub(crate) mod redis;
mod snapshot;

use crate::environment::Environment;
use otp_core::{
    Account, Meter, Revision,
    ports::{self, Clock, Full, Metered, Request},
};
use otp_seal::{KeyRing, RecipientIndex};
use redis::{Address, Command, Looked};
use snapshot::Snapshot;
use std::{rc::Rc, time::Duration};

/// How long a request waits for the cache. The database answers a miss in a few milliseconds, so
/// waiting longer for the cache would defeat its purpose; with the database's own deadline a client
/// still hears in under 3 s.
const DEADLINE: Duration = Duration::from_millis(250);

/// How long what happens after the answer may take.
const BACKGROUND_DEADLINE: Duration = Duration::from_secs(1);

/// Shortest rest of a life that is worth caching, in milliseconds.
const LEAST_LIFE: i64 = 1_000;

/// For how long it is known that an account was erased, in milliseconds: longer than a request and what follows it.
const ERASED_FOR: i64 = 5_000;

/// The cache of this instance.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    address: Option<Rc<Address>>,
    /// Seal what is cached.
    keys: Rc<KeyRing>,
}

impl Cache {
    pub(crate) fn new(address: Option<Rc<Address>>, keys: Rc<KeyRing>) -> Self {
        Self { address, keys }
    }

    /// Whether it can be asked; `None` where there is none.
    pub(crate) async fn probe(&self) -> Option<Result<(), &'static str>> {
        let address = self.address.as_ref()?;
        Some(redis::probe(address, DEADLINE).await)
    }

    /// What stands behind it, for the operator.
    pub(crate) fn kind(&self) -> &'static str {
        "redis"
    }

    /// Does `command` after the answer.
    fn later(&self, command: impl FnOnce(&KeyRing) -> Option<Command> + 'static) {
        if let Some(address) = self.address.clone() {
            let keys = Rc::clone(&self.keys);
            spin_sdk::wasip3::spawn(async move {
                if let Some(command) = command(&keys) {
                    redis::call(&address, BACKGROUND_DEADLINE, true, &command).await;
                }
            });
        }
    }
}

/// The key of an account. It shows no number: the index is keyed. What stands in brackets decides where a cluster keeps
/// it: all in one place, for a request looks at its account and its meters in one step.
fn account_key(subject: &RecipientIndex) -> String {
    format!("spin-otp:account:{subject}:{{otp}}")
}

/// The keys of meters.
fn meter_keys(meters: &[Meter]) -> Vec<String> {
    meters.iter().map(|meter| format!("spin-otp:meter:{}:{{otp}}", meter.key)).collect()
}

impl ports::Cache for Cache {
    async fn look(&self, request: &Request<'_>, wanted: bool) -> (Option<Account>, Metered) {
        let meters = request.meters;
        let without = || (None, if meters.is_empty() { Metered::Counted } else { Metered::Unknown });
        let Some(address) = self.address.as_ref().filter(|_| wanted || !meters.is_empty()) else {
            return without();
        };
        let command = Command::Look {
            account: wanted.then(|| account_key(request.subject)),
            meters: meter_keys(meters),
            limits: meters.iter().map(|meter| (meter.limit.share(), meter.limit.room())).collect(),
        };
        // Who has to be counted waits until somebody else has opened the connection; what is cached is not worth it.
        let reply = redis::call(address, DEADLINE, !meters.is_empty(), &command).await;
        let Some(looked) = reply.and_then(|reply| redis::looked(&reply)) else { return without() };
        let Looked { account, full } = looked;
        let metered = match full {
            None => Metered::Counted,
            Some((place, wait)) => match meters.get(place) {
                Some(meter) => Metered::Full(Full {
                    name: meter.name,
                    free_at: Environment.now().unix_micros().saturating_add(wait),
                }),
                None => Metered::Unknown,
            },
        };
        let opened = account.and_then(|(revision, sealed)| {
            snapshot::open(&self.keys, &request.owner, Revision::from_stored(revision), &sealed)
        });
        (opened, metered)
    }

    fn uncount(&self, meters: &[Meter]) {
        if !meters.is_empty() {
            let shares = meters.iter().map(|meter| meter.limit.share()).collect();
            let keys = meter_keys(meters);
            self.later(move |_| Some(Command::Uncount { keys, shares }));
        }
    }

    fn put(&self, request: &Request<'_>, account: &Account) {
        let Some(code) = account.code.as_ref().filter(|_| self.address.is_some()) else { return };
        let (key, revision, expires_at) = (account_key(request.subject), account.revision, code.expires_at);
        let snapshot = Snapshot::of(request, account);
        self.later(move |keys| {
            // Reckoned when it is sent: it may have waited.
            let life = expires_at.unix_millis() - Environment.now().unix_millis();
            (life >= LEAST_LIFE).then(|| Command::Put { key, revision, account: snapshot.sealed(keys), life })
        });
    }

    async fn erase(&self, request: &Request<'_>, floor: Revision) {
        let Some(address) = &self.address else { return };
        // An empty account in its place keeps out what was seen before.
        let key = account_key(request.subject);
        let command = Command::Put { key, revision: floor, account: Vec::new(), life: ERASED_FOR };
        redis::call(address, DEADLINE, true, &command).await;
    }
}
