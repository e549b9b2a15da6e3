//! The cache, behind the domain's port: Redis where one is configured, or none.

pub(crate) mod redis;

use crate::{environment::Environment, log};
use otp_core::{
    Meter, OtpVersion, SendLimit, Timestamp,
    ports::{self, CachedCode, Clock, Full, Look, Metered},
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
pub(crate) struct Cache {
    address: Option<Rc<Address>>,
    /// The limit of a number: what is noted of one is of no use under another.
    limit: Option<SendLimit>,
    /// Whether codes are cached: where no answer carries one, nobody would read them.
    codes: bool,
}

impl Cache {
    pub(crate) fn new(address: Option<Rc<Address>>, limit: Option<SendLimit>, codes: bool) -> Self {
        Self { address, limit, codes }
    }

    /// Whether it can be asked; `None` where there is none.
    pub(crate) async fn ping(&self) -> Option<Result<(), String>> {
        let address = self.address.as_ref()?;
        Some(redis::ping(address, DEADLINE).await)
    }

    /// What stands behind it, for the operator.
    pub(crate) fn kind(&self) -> &'static str {
        "redis"
    }

    /// Does `command` after the answer.
    fn later(&self, command: impl FnOnce() -> Option<Command> + 'static) {
        if let Some(address) = self.address.clone() {
            spin_sdk::wasip3::spawn(async move {
                if let Some(command) = command() {
                    redis::call(&address, BACKGROUND_DEADLINE, true, &command).await;
                }
            });
        }
    }

    /// The reply, before the answer. Who is `patient` waits until somebody else has opened the connection.
    async fn ask(&self, patient: bool, command: &Command) -> Option<Vec<spin_sdk::redis::RedisResult>> {
        redis::call(self.address.as_ref()?, DEADLINE, patient, command).await
    }

    /// The keys of a number: its code, and until when it is at its limit. They show no number: the index is
    /// keyed. In brackets stands what decides where a cluster keeps them, which is one place for both.
    fn keys(&self, number: &NumberIndex) -> [String; 2] {
        let limit = self.limit.map(|limit| format!("{}/{}", limit.requests(), limit.window_millis()));
        let limit = limit.unwrap_or_default();
        [format!("spin-otp:code:{{{number}}}"), format!("spin-otp:limited:{{{number}}}:{limit}")]
    }
}

/// The keys of meters, kept in one place by a cluster.
fn meter_keys(meters: &[Meter]) -> Vec<String> {
    meters.iter().map(|meter| format!("spin-otp:{{meters}}:{}", meter.key)).collect()
}

impl ports::Cache for Cache {
    async fn look(
        &self,
        number: &NumberIndex,
        wanted: bool,
        now: Timestamp,
        meters: &[Meter],
    ) -> (Look, Metered) {
        let look = async {
            if !(wanted && self.codes) && self.limit.is_none() {
                return None;
            }
            let reply = self.ask(false, &Command::Look { keys: self.keys(number) }).await?;
            let look = redis::look(&reply);
            // What lies further ahead than a window was written by a wrong clock.
            let furthest = now.unix_millis() + self.limit.map_or(0, SendLimit::window_millis);
            Some(Look {
                limited_until: look.limited_until.filter(|until| until.unix_millis() <= furthest),
                ..look
            })
        };
        // Both at once, on one connection: it takes as long as one of them.
        let (look, metered) = futures::join!(look, self.count(meters));
        (look.unwrap_or_default(), metered)
    }

    async fn count(&self, meters: &[Meter]) -> Metered {
        if meters.is_empty() {
            return Metered::Counted;
        }
        let limits = meters.iter().map(|meter| (meter.limit.share(), meter.limit.room())).collect();
        let command = Command::Count { keys: meter_keys(meters), limits };
        // Whoever is not counted here is counted by the database, on other meters.
        match self.ask(true, &command).await.and_then(|reply| redis::full(&reply)) {
            None => Metered::Unknown,
            Some(None) => Metered::Counted,
            Some(Some((index, wait))) => match meters.get(index) {
                Some(meter) => Metered::Full(Full {
                    name: meter.name.to_owned(),
                    free_at: Environment.now().unix_micros().saturating_add(wait),
                }),
                None => Metered::Unknown,
            },
        }
    }

    fn uncount(&self, meters: &[Meter]) {
        if !meters.is_empty() {
            let shares = meters.iter().map(|meter| meter.limit.share()).collect();
            let keys = meter_keys(meters);
            self.later(move || Some(Command::Uncount { keys, shares }));
        }
    }

    fn limited(&self, number: NumberIndex, until: Timestamp) {
        let [_, key] = self.keys(&number);
        self.later(move || {
            let life = until.unix_millis() - Environment.now().unix_millis();
            (life > 0).then_some(Command::Note { key, until: until.unix_millis(), life })
        });
    }

    fn put(&self, number: NumberIndex, code: CachedCode, expires_at: Timestamp) {
        if !self.codes {
            return;
        }
        let keys = self.keys(&number);
        self.later(move || {
            // Reckoned when it is sent: it may have waited.
            let life = expires_at.unix_millis() - Environment.now().unix_millis();
            let CachedCode { version, sealed } = code;
            (life >= LEAST_LIFE).then_some(Command::Put { keys, version, sealed, life })
        });
    }

    fn forget(&self, number: NumberIndex, version: OtpVersion) {
        if !self.codes {
            return;
        }
        let [key, _] = self.keys(&number);
        self.later(move || Some(Command::Forget { key, version }));
    }

    async fn erase(&self, number: NumberIndex) {
        let command = Command::Erase { keys: self.keys(&number) };
        self.ask(true, &command).await;
    }
}

/// Says that the cache is away. Whoever calls this sees to it that it is not said with every request.
fn away(reason: &str) {
    log::line(format_args!("cache unavailable: {reason}; the database is asked instead"));
}
