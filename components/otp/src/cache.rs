//! The cache, behind the domain's port: Redis where one is configured, or none.

pub(crate) mod redis;

use crate::{environment::Environment, log};
use otp_core::{
    OtpVersion, Timestamp,
    ports::{self, CachedCode, Clock},
};
use otp_seal::NumberIndex;
use redis::{Address, Command};
use std::{rc::Rc, time::Duration};

/// How long a request waits for the cache. The database answers a miss in a few milliseconds, so
/// waiting longer for the cache would defeat its purpose; with the database's own deadline a client
/// still hears in under 3 s.
const DEADLINE: Duration = Duration::from_millis(250);

/// How long what happens after the answer may take.
const BACKGROUND_DEADLINE: Duration = Duration::from_secs(1);

/// Shortest rest of a life that is worth caching, in milliseconds.
const LEAST_LIFE: i64 = 1_000;

/// The cache of this instance.
#[derive(Debug, Clone)]
pub(crate) struct Cache(Option<Rc<Address>>);

impl Cache {
    pub(crate) fn new(address: Option<Rc<Address>>) -> Self {
        Self(address)
    }

    /// Whether it can be asked; `None` where there is none.
    pub(crate) async fn ping(&self) -> Option<Result<(), String>> {
        let address = self.0.as_ref()?;
        Some(redis::ping(address, DEADLINE).await)
    }

    /// What stands behind it, for the operator.
    pub(crate) fn kind(&self) -> &'static str {
        "redis"
    }

    /// Does `command` after the answer.
    fn later(&self, command: impl FnOnce() -> Option<Command> + 'static) {
        if let Some(address) = self.0.clone() {
            spin_sdk::wasip3::spawn(async move {
                if let Some(command) = command() {
                    redis::call(&address, BACKGROUND_DEADLINE, true, &command).await;
                }
            });
        }
    }
}

impl ports::Cache for Cache {
    async fn get(&self, number: &NumberIndex) -> Option<CachedCode> {
        let address = self.0.as_ref()?;
        let reply = redis::call(address, DEADLINE, false, &Command::Read { key: key(number) }).await?;
        redis::cached_code(&reply)
    }

    fn put(&self, number: NumberIndex, code: CachedCode, expires_at: Timestamp) {
        self.later(move || {
            // Reckoned when it is sent: it may have waited.
            let life = expires_at.unix_millis() - Environment.now().unix_millis();
            let CachedCode { version, sealed } = code;
            (life >= LEAST_LIFE).then(|| Command::Put { key: key(&number), version, sealed, life })
        });
    }

    fn forget(&self, number: NumberIndex, version: OtpVersion) {
        self.later(move || Some(Command::Forget { key: key(&number), version }));
    }
}

/// The key of a number's code. It shows no number: the index is keyed.
fn key(number: &NumberIndex) -> String {
    format!("spin-otp:code:{number}")
}

/// Says that the cache is away. Whoever calls this sees to it that it is not said with every request.
fn away(reason: &str) {
    log::line(format_args!("cache unavailable: {reason}; the database is asked instead"));
}
