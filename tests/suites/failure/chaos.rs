//! All the parts, and killing them.

use crate::{dice::Dice, load::Load};
use harness::{Kafka, Redis, Relay, Service, SmsProvider, unused_address};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

const TOKEN: &str = "token-of-the-failure-suite";

/// How long it may take until nothing is under way any more.
const SETTLE: Duration = Duration::from_secs(90);

/// Everything that takes part.
pub(crate) struct Stack {
    pub(crate) service: Service,
    pub(crate) relay: Relay,
    pub(crate) kafka: Kafka,
    pub(crate) redis: Redis,
    /// Plays the provider for mail; text messages go to the inbox.
    pub(crate) provider: SmsProvider,
}

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Host,
    Relay,
    Broker,
    Redis,
}

impl Stack {
    pub(crate) fn start() -> Self {
        let kafka = Kafka::start();
        let redis = Redis::start();
        let provider = SmsProvider::start();
        // So that a relay is often killed between a send and its writing that down.
        provider.delay(Duration::from_millis(60));
        let host = unused_address();
        let relay = Relay::builder()
            .env("RELAY_TOKEN", TOKEN)
            .env("KAFKA_BROKERS", kafka.brokers())
            .env("RELAY_COMPONENT_URL", &format!("http://{host}"))
            .env("RELAY_FLUSH_SECONDS", "1")
            .delivery(&format!(
                "[channels]\nsms = [\"inbox\"]\nemail = [\"provider\"]\n\n[providers.provider]\nkind = \
                 \"webhook\"\nurl = \"{}\"\nsecret = \"a secret of the failure suite\"\nbody = '{{\"to\": \
                 {{{{ to }}}}, \"code\": {{{{ code }}}}}}'\n",
                provider.url()
            ))
            .start();
        let service = Service::builder()
            .without_limits()
            .listen(&host)
            // So long that none is found in other text by chance.
            .variable("otp_length", "10")
            .variable("redis_endpoint", &redis.endpoint())
            .variable("relay_url", &relay.url())
            .variable("relay_token", TOKEN)
            .start();
        service.client().get("/readyz").expect(200);
        Self { service, relay, kafka, redis, provider }
    }

    /// Kills one part after the other, each at least twice, until the load is over, and leaves all of them
    /// running. How often each was killed.
    pub(crate) fn trouble(&mut self, dice: &mut Dice, loading: &AtomicBool) -> Vec<(String, usize)> {
        const PARTS: [Part; 4] = [Part::Host, Part::Relay, Part::Broker, Part::Redis];
        let mut kills = [0; PARTS.len()];
        while loading.load(Ordering::Relaxed) || kills.iter().any(|kills| *kills < 2) {
            let mut round: Vec<_> = PARTS.into_iter().enumerate().collect();
            dice.shuffle(&mut round);
            for (index, part) in round {
                thread::sleep(Duration::from_millis(dice.below(700)));
                let away = Duration::from_millis(dice.below(900));
                match part {
                    Part::Host => down(&mut self.service, Service::kill, away, Service::restart),
                    Part::Relay => down(&mut self.relay, Relay::kill, away, Relay::restart),
                    Part::Broker => down(&mut self.kafka, Kafka::kill, away, Kafka::restart),
                    Part::Redis => down(&mut self.redis, Redis::kill, away, Redis::restart),
                }
                kills[index] += 1;
            }
        }
        PARTS.iter().zip(kills).map(|(part, kills)| (format!("{part:?}"), kills)).collect()
    }

    /// Waits until nothing is under way: no event in the outbox, none on the topic that was not read, no
    /// delivery that waits. That it comes to this without help is part of what is tested.
    pub(crate) fn settle(&self, load: &Load) {
        let deadline = Instant::now() + SETTLE;
        loop {
            let waiting = self.waiting();
            if waiting.values().all(|count| *count == 0) {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "after {} accepted requests this never came to rest: {waiting:?}\n{}\n{}",
                load.accepted.len(),
                tail(&self.service.log()),
                tail(&self.relay.log())
            );
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn waiting(&self) -> std::collections::BTreeMap<&'static str, i64> {
        let count = |file: std::path::PathBuf, query: &str| -> i64 {
            let database = rusqlite::Connection::open(file).unwrap();
            database.query_row(query, [], |row| row.get(0)).unwrap()
        };
        let ledger = self.relay.state().join("ledger.db");
        let read = count(ledger.clone(), "SELECT coalesce(sum(next), 0) FROM offsets");
        let published = i64::try_from(self.kafka.records("otp-events").len()).unwrap();
        [
            ("outbox", count(self.service.database(), "SELECT count(*) FROM outbox")),
            ("unread", published - read),
            ("undelivered", count(ledger, "SELECT count(*) FROM deliveries WHERE state = 'waiting'")),
        ]
        .into()
    }
}

fn down<T>(part: &mut T, kill: fn(&mut T), away: Duration, restart: fn(&mut T)) {
    kill(part);
    thread::sleep(away);
    restart(part);
}

fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().rev().filter(|line| !line.contains("INFO request")).take(30).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
