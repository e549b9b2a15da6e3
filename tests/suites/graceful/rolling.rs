//! A rolling restart under load: each part is told to end, ends, and is started again, while requests go on.

use crate::balancer::{Balancer, ENOUGH, Load};
use harness::{Kafka, Postgres, Redis, Relay, Service, SmsProvider, Sql, eventually, unused_address};
use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

const TOKEN: &str = "token-of-the-graceful-suite";

/// How long it may take until nothing is under way any more.
const SETTLE: Duration = Duration::from_secs(60);

/// Two hosts on the same state, a relay, and whoever sends the codes.
struct Stack {
    // In the order in which they end.
    hosts: [Service; 2],
    relay: Relay,
    provider: SmsProvider,
    kafka: Option<Kafka>,
    /// With a Redis beside it.
    postgres: Option<(Postgres, Redis)>,
}

impl Stack {
    fn start(kafka: Option<Kafka>, postgres: Option<(Postgres, Redis)>) -> Self {
        let provider = SmsProvider::start();
        let addresses = [(); 2].map(|()| unused_address());
        let relay = Relay::builder()
            .env("RELAY_TOKEN", TOKEN)
            .env("RELAY_COMPONENT_URL", &format!("http://{}", addresses[0]))
            .env("RELAY_FLUSH_SECONDS", "1")
            .env("KAFKA_BROKERS", kafka.as_ref().map_or("", Kafka::brokers))
            .delivery(&format!(
                "[channels]\nsms = [\"provider\"]\n\n[providers.provider]\nkind = \"webhook\"\nurl = \"{}\"\nsecret = \
                 \"a secret of the graceful suite\"\nbody = '{{\"otpId\": {{{{ otp_id }}}}, \"code\": {{{{ code }}}}}}'\n",
                provider.url()
            ))
            .start();
        eventually("the relay's readiness", SETTLE, || relay.client().get("/readyz").status == 200);
        let mut builder = Service::builder()
            .without_limits()
            .variable("relay_url", &relay.url())
            .variable("relay_token", TOKEN)
            .env("SPIN_OTP_DRAIN_SECONDS", "1");
        if let Some((postgres, redis)) = &postgres {
            builder = builder.postgres(postgres).variable("redis_endpoint", &redis.endpoint());
        }
        let first = builder.clone().listen(&addresses[0]).start();
        let second = builder.listen(&addresses[1]).state(&first.state()).start();
        Self { hosts: [first, second], relay, provider, kafka, postgres }
    }

    fn balancer(&self) -> Balancer {
        Balancer::new(&[self.hosts[0].address(), self.hosts[1].address()])
    }

    /// Events that wait for the relay.
    fn waiting(&self) -> i64 {
        let database = match &self.postgres {
            Some((postgres, _)) => Sql::postgres(postgres),
            None => self.hosts[0].sql(),
        };
        database.number("SELECT count(*) FROM outbox", &[])
    }

    /// Waits until nothing is under way, and tells what came of it.
    #[track_caller]
    fn account(&self, load: &Load, restarts: &str) {
        let ledger = Sql::sqlite(&self.relay.state().join("ledger.db"));
        let known = "SELECT count(*) FROM deliveries";
        let settled = Instant::now();
        eventually("rest", SETTLE, || {
            let undelivered = ledger.number(format!("{known} WHERE state = 'waiting'"), &[]);
            let taken = ledger.number(known, &[]);
            self.waiting() == 0 && undelivered == 0 && taken >= i64::try_from(load.accepted.len()).unwrap()
        });
        let settled = settled.elapsed();
        let mut delivered: BTreeMap<String, usize> = BTreeMap::new();
        for sent in self.provider.sent() {
            *delivered.entry(sent.json()["otpId"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        let lost = load.accepted.iter().filter(|id| !delivered.contains_key(*id)).count();
        let doubled = delivered.values().filter(|times| **times > 1).count();
        println!(
            "{restarts}: sent {}, accepted {}, failed {}, delivered {}, lost {lost}, doubled {doubled}; half took {:?}, \
             99 % {:?}, all {:?}; at rest after {settled:?}",
            load.sent,
            load.accepted.len(),
            load.failed.len(),
            delivered.len(),
            load.took(50),
            load.took(99),
            load.took(100)
        );
        assert_eq!(load.failed.len(), 0, "{:#?}", load.failed.iter().take(5).collect::<Vec<_>>());
        assert_eq!((lost, doubled), (0, 0));
        assert!(load.accepted.len() > ENOUGH, "that was no load");
    }
}

/// Tells it to end, and starts it again.
fn restart(service: &mut Service) {
    assert_eq!(service.terminate().code(), Some(0), "{}", service.log());
    service.restart();
}

fn restart_relay(relay: &mut Relay) {
    assert_eq!(relay.terminate().code(), Some(0), "{}", relay.log());
    thread::sleep(Duration::from_millis(200));
    relay.restart();
}

#[test]
fn hosts_and_relay_restarted_in_turn_under_load_fail_no_request_and_lose_nothing() {
    all_restart(Stack::start(None, None), "SQLite");
}

#[test]
fn on_postgres_redis_and_kafka_they_do_not_either() {
    let postgres = (Postgres::start(), Redis::start());
    all_restart(Stack::start(Some(Kafka::start()), Some(postgres)), "Postgres, Redis and Kafka");
}

fn all_restart(mut stack: Stack, on: &str) {
    const ROUNDS: usize = 2;
    let balancer = stack.balancer();
    let load = balancer.under_load(|| {
        for _ in 0..ROUNDS {
            for host in 0..2 {
                restart(&mut stack.hosts[host]);
                balancer.wait_for(host);
                thread::sleep(Duration::from_millis(300));
            }
            restart_relay(&mut stack.relay);
        }
    });
    stack.account(&load, &format!("on {on}, each of two hosts and the relay restarted {ROUNDS} times"));
}

#[test]
fn a_relay_restarted_under_load_loses_and_doubles_nothing() {
    relay_restarts(Stack::start(None, None));
}

#[test]
fn a_relay_with_kafka_restarted_under_load_loses_and_doubles_nothing() {
    relay_restarts(Stack::start(Some(Kafka::start()), None));
}

fn relay_restarts(mut stack: Stack) {
    let load = stack.balancer().under_load(|| {
        for _ in 0..4 {
            restart_relay(&mut stack.relay);
            thread::sleep(Duration::from_millis(700));
        }
    });
    let bus = if stack.kafka.is_some() { "with Kafka" } else { "without Kafka" };
    stack.account(&load, &format!("a relay {bus} restarted 4 times"));
}
