//! All the parts, and killing them.

use crate::{dice::Dice, load::Load};
use harness::{
    Kafka, Postgres, Redis, Relay, Service, SmsProvider, Sql, Store, store, unused_address, with_postgres,
};
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
    /// The service's database, unless that is a file, and the relay's ledger, likewise.
    pub(crate) postgres: Option<Postgres>,
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
    Postgres,
}

impl Stack {
    pub(crate) fn start() -> Self {
        let kafka = Kafka::start();
        let redis = Redis::start();
        let provider = SmsProvider::start();
        // So that a relay is often killed between a send and its writing that down.
        provider.delay(Duration::from_millis(60));
        let host = unused_address();
        let postgres = (store() == Store::Postgres).then(Postgres::start);
        let relay = match &postgres {
            // The ledger beside the outbox, to die with it.
            Some(postgres) if with_postgres() => Relay::builder().database(postgres),
            _ => Relay::builder(),
        };
        let relay = relay
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
        let service = Service::builder().without_limits();
        let service = match &postgres {
            Some(postgres) => service.postgres(postgres),
            None => service,
        };
        let service = service
            .listen(&host)
            // So long that none is found in other text by chance.
            .variable("otp_length", "10")
            .variable("redis_endpoint", &redis.endpoint())
            .variable("relay_url", &relay.url())
            .variable("relay_token", TOKEN)
            .start();
        service.client().get("/readyz").expect(200);
        Self { service, relay, kafka, redis, postgres, provider }
    }

    /// Kills one part after the other, each at least twice, until the load is over, and leaves all of them
    /// running. How often each was killed.
    pub(crate) fn trouble(&mut self, dice: &mut Dice, loading: &AtomicBool) -> Vec<(String, usize)> {
        let mut parts = vec![Part::Host, Part::Relay, Part::Broker, Part::Redis];
        parts.extend(self.postgres.is_some().then_some(Part::Postgres));
        let mut kills = vec![0; parts.len()];
        while loading.load(Ordering::Relaxed) || kills.iter().any(|kills| *kills < 2) {
            let mut round: Vec<_> = parts.iter().copied().enumerate().collect();
            dice.shuffle(&mut round);
            for (index, part) in round {
                thread::sleep(Duration::from_millis(dice.below(700)));
                let away = Duration::from_millis(dice.below(900));
                match part {
                    Part::Host => down(&mut self.service, Service::kill, away, Service::restart),
                    Part::Relay => down(&mut self.relay, Relay::kill, away, Relay::restart),
                    Part::Broker => down(&mut self.kafka, Kafka::kill, away, Kafka::restart),
                    Part::Redis => down(&mut self.redis, Redis::kill, away, Redis::restart),
                    Part::Postgres => {
                        let postgres = self.postgres.as_mut().unwrap();
                        down(postgres, Postgres::kill, away, Postgres::restart);
                    }
                }
                kills[index] += 1;
            }
        }
        parts.iter().zip(kills).map(|(part, kills)| (format!("{part:?}"), kills)).collect()
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
        let database = self.postgres.as_ref().map_or_else(|| self.service.sql(), Sql::postgres);
        let ledger = self.relay.ledger();
        let read = ledger.number("SELECT CAST(coalesce(sum(next), 0) AS bigint) FROM offsets");
        let published = i64::try_from(self.kafka.records("otp-events").len()).unwrap();
        [
            ("outbox", database.number("SELECT count(*) FROM outbox", &[])),
            ("unread", published - read),
            ("undelivered", ledger.number("SELECT count(*) FROM deliveries WHERE state = 'waiting'")),
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
