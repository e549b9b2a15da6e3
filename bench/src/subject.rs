//! What is measured: a service with all that belongs to it, on servers of its own.

use crate::load::Request;
use base64ct::{Base64, Encoding};
use harness::{Builder, Client, Kafka, Postgres, Program, Redis, Relay, Server, Service, bulk_number};
use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// What a service keeps its state in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    Sqlite,
    SqliteRedis,
    PostgresRedis,
}

impl Store {
    pub(crate) const ALL: [(&'static str, Self); 3] = [
        ("sqlite", Self::Sqlite),
        ("sqlite+redis", Self::SqliteRedis),
        ("postgres+redis", Self::PostgresRedis),
    ];

    fn has_redis(self) -> bool {
        self != Self::Sqlite
    }
}

/// Who takes its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Events {
    None,
    InProcess,
    Kafka,
}

impl Events {
    pub(crate) const ALL: [(&'static str, Self); 3] =
        [("none", Self::None), ("in-process", Self::InProcess), ("kafka", Self::Kafka)];
}

/// The parts whose processor time is told apart.
pub(crate) const PARTS: [&str; 5] = ["host", "relay", "redis", "database", "kafka"];

/// The program that serves.
enum Host {
    Ours(Service),
    Spring(Server<Spring>),
    OtpGateway(Server<OtpGateway>),
}

/// A service that runs.
pub(crate) struct Subject {
    pub(crate) name: String,
    // First, so that they have ended before what they talk to.
    host: Host,
    relay: Option<Relay>,
    redis: Option<Redis>,
    postgres: Option<Postgres>,
    kafka: Option<Kafka>,
    /// Whether requests carry API keys and Idempotency-Keys.
    guarded: bool,
    /// The calls that it has.
    pub(crate) calls: &'static [Call],
}

/// One of the calls, or the route that does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Hello,
    Generate,
    Resend,
    Regenerate,
    Verify,
    /// Of twenty requests twelve generate, three resend, one regenerates, four verify.
    Mix,
}

impl Call {
    pub(crate) const ALL: [Self; 6] =
        [Self::Hello, Self::Generate, Self::Resend, Self::Regenerate, Self::Verify, Self::Mix];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Generate => "generate",
            Self::Resend => "resend",
            Self::Regenerate => "regenerate",
            Self::Verify => "verify",
            Self::Mix => "mix",
        }
    }
}

/// What the next Idempotency-Key is made of.
static NEXT_KEY: AtomicU64 = AtomicU64::new(0);

/// The API key that requests carry, and the service's `api_keys` entry for it.
const KEY: &str = "key of the bench";
const API_KEYS: &str = "bench:send+verify:c6a6ecf40759b04e6859e5403bb68d615b4204ea5c7be81cfcb69e7b250eeb88";

impl Subject {
    /// What was built in a checkout of this repository. With `guarded`, all that keeps abuse away is on, and has to
    /// refuse nothing: API keys, Idempotency-Keys, every limit and the guard.
    pub(crate) fn ours(name: String, checkout: &Path, store: Store, events: Events, guarded: bool) -> Self {
        let redis = store.has_redis().then(Redis::start);
        let postgres = (store == Store::PostgresRedis).then(Postgres::start);
        let kafka = (events == Events::Kafka).then(Kafka::for_a_load);
        let mut builder = Service::builder()
            .checkout(checkout)
            .variable("rate_limit_requests", "100")
            .variable("pumping_min_sends", "1000000")
            .variable("redis_endpoint", &redis.as_ref().map(Redis::endpoint).unwrap_or_default());
        builder = match &postgres {
            Some(postgres) => builder.postgres(postgres),
            None => builder.variable("postgres_endpoint", ""),
        };
        if guarded {
            builder = with_all_limits(builder);
        }
        let relay = (events != Events::None).then(|| {
            let brokers = kafka.as_ref().map(Kafka::brokers).unwrap_or_default();
            Relay::builder().checkout(checkout).on_a_file().env("KAFKA_BROKERS", brokers).start()
        });
        if let Some(relay) = &relay {
            harness::eventually("a relay", Duration::from_secs(60), || {
                relay.client().get("/readyz").status == 200
            });
            builder = builder.variable("relay_url", &relay.url());
        }
        let host = Host::Ours(builder.start());
        Self { name, host, relay, redis, postgres, kafka, guarded, calls: &Call::ALL }
    }

    /// The same service as it is written with Spring Boot (`bench/peers/spring`). `h2` says where H2 keeps its tables,
    /// where there is no Postgres.
    pub(crate) fn spring(name: String, store: Store, events: Events, h2: &'static str) -> Self {
        let redis = store.has_redis().then(Redis::start);
        let postgres = (store == Store::PostgresRedis).then(Postgres::start);
        let kafka = (events == Events::Kafka).then(Kafka::for_a_load);
        if let Some(kafka) = &kafka {
            // As many partitions as the relay makes for its own.
            kafka.create_topic("otp-events-peer", 12);
        }
        let program = Spring {
            database: postgres.as_ref().map_or_else(
                || vec![("DATABASE", h2.to_owned())],
                |postgres| {
                    vec![
                        ("DATABASE", "postgres".to_owned()),
                        (
                            "DATABASE_URL",
                            format!(
                                "jdbc:{}/{}",
                                postgres.endpoint().replace("postgres:", "postgresql:"),
                                postgres.database()
                            ),
                        ),
                        ("DATABASE_USER", postgres.user().to_owned()),
                        ("DATABASE_PASSWORD", postgres.password().to_owned()),
                    ]
                },
            ),
            redis: redis.as_ref().map(|redis| redis.address().to_owned()),
            kafka: kafka.as_ref().map(|kafka| kafka.brokers().to_owned()),
        };
        let host = Host::Spring(Server::launch(program));
        Self { name, host, relay: None, redis, postgres, kafka, guarded: false, calls: &Call::ALL }
    }

    /// otpgateway, a Go program that keeps everything in Redis, has no events and no regenerate.
    pub(crate) fn otpgateway(program: PathBuf) -> Self {
        let redis = Redis::start();
        let settings = OtpGateway { program, redis: redis.address().to_owned() };
        let host = Host::OtpGateway(Server::launch(settings));
        let calls = &[Call::Hello, Call::Generate, Call::Resend, Call::Verify];
        let name = "otpgateway, redis".to_owned();
        Self {
            name,
            host,
            relay: None,
            redis: Some(redis),
            postgres: None,
            kafka: None,
            guarded: false,
            calls,
        }
    }

    /// `host:port`
    pub(crate) fn address(&self) -> &str {
        match &self.host {
            Host::Ours(host) => host.address(),
            Host::Spring(host) => host.address(),
            Host::OtpGateway(host) => host.address(),
        }
    }

    /// Whether its speed takes a minute to settle.
    pub(crate) fn warms_up(&self) -> bool {
        matches!(self.host, Host::Spring(_))
    }

    /// Resident memory of host and relay, in KiB.
    pub(crate) fn memory(&self) -> (u64, Option<u64>) {
        let host = match &self.host {
            Host::Ours(host) => host.resident_memory(),
            Host::Spring(host) => host.resident_memory(),
            Host::OtpGateway(host) => host.resident_memory(),
        };
        (host.unwrap_or_default(), self.relay.as_ref().and_then(Relay::resident_memory))
    }

    /// The processor time that each of [`PARTS`] has had so far.
    pub(crate) fn cpu_times(&self) -> [Option<Duration>; PARTS.len()] {
        let host = match &self.host {
            Host::Ours(host) => host.cpu_time(),
            Host::Spring(host) => host.cpu_time(),
            Host::OtpGateway(host) => host.cpu_time(),
        };
        [
            host,
            self.relay.as_ref().and_then(Relay::cpu_time),
            self.redis.as_ref().and_then(Redis::cpu_time),
            self.postgres.as_ref().and_then(Postgres::cpu_time),
            self.kafka.as_ref().and_then(Kafka::cpu_time),
        ]
    }

    /// A request of one of the calls for a number; `otp` is what a verify checks.
    pub(crate) fn request(&self, call: Call, number: &str, otp: &str) -> Request {
        if let Host::OtpGateway(_) = self.host {
            return otpgateway_request(call, number, otp);
        }
        let (method, path, body) = match call {
            Call::Hello | Call::Mix => ("GET", "/healthz", String::new()),
            Call::Generate => ("POST", "/generate-otp", format!(r#"{{"mobileNumber":"{number}"}}"#)),
            Call::Resend => ("POST", "/resend-otp", format!(r#"{{"mobileNumber":"{number}"}}"#)),
            Call::Regenerate => ("POST", "/regenerate-otp", format!(r#"{{"mobileNumber":"{number}"}}"#)),
            Call::Verify => {
                ("POST", "/verify-otp", format!(r#"{{"mobileNumber":"{number}","otp":"{otp}"}}"#))
            }
        };
        let mut fields = vec![("content-type", "application/json".to_owned())];
        if self.guarded && call != Call::Hello {
            fields.push(("authorization", format!("Bearer {KEY}")));
            if matches!(call, Call::Generate | Call::Regenerate) {
                // Never the same twice: no request is a retry.
                let key = NEXT_KEY.fetch_add(1, Ordering::Relaxed);
                fields.push(("idempotency-key", format!("\"{key:x}\"")));
            }
        }
        Request { method, path: path.to_owned(), fields, body }
    }

    /// The number and the code that an answer gives.
    pub(crate) fn code(&self, body: &[u8]) -> Option<(String, String)> {
        let body: serde_json::Value = serde_json::from_slice(body).ok()?;
        let (number, otp) = match self.host {
            Host::OtpGateway(_) => (&body["data"]["id"], &body["data"]["otp"]),
            _ => (&body["mobileNumber"], &body["otp"]),
        };
        Some((format!("+{}", number.as_str()?.trim_start_matches('+')), otp.as_str()?.to_owned()))
    }
}

/// It knows no resend: to ask for the same id again is as near as it comes.
fn otpgateway_request(call: Call, number: &str, otp: &str) -> Request {
    let id = number.trim_start_matches('+');
    let (method, path, body) = match call {
        Call::Generate | Call::Resend => ("PUT", format!("/api/otp/{id}"), "provider=bench".to_owned()),
        Call::Verify => ("POST", format!("/api/otp/{id}"), format!("otp={otp}")),
        _ => ("GET", "/".to_owned(), String::new()),
    };
    let credentials = Base64::encode_string(format!("{NAMESPACE}:{SECRET}").as_bytes());
    let fields = vec![
        ("content-type", "application/x-www-form-urlencoded".to_owned()),
        ("authorization", format!("Basic {credentials}")),
    ];
    Request { method, path, fields, body }
}

fn with_all_limits(builder: Builder) -> Builder {
    builder
        .variable("api_keys", API_KEYS)
        .variable("client_rate_limit", "1000000/1")
        .variable("key_rate_limit", "1000000/1")
        .variable("global_rate_limit", "1000000/1")
}

/// The numbers that a subject has not been asked about, and those whose code is known.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    next: u32,
    pub(crate) known: Vec<(String, String)>,
}

impl Numbers {
    /// That many numbers, over and over: a thousand others each time it is asked, or new ones without end.
    pub(crate) fn fresh(&mut self, few: bool, most: usize) -> impl Iterator<Item = String> + use<> {
        let first = self.next;
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        let different = if few { 1000 } else { most.max(1) };
        self.next = (self.next + different) % 900_000;
        (0..most).map(move |index| bulk_number((first + index % different) % 900_000))
    }
}

/// `bench/peers/spring`.
pub(crate) struct Spring {
    database: Vec<(&'static str, String)>,
    redis: Option<String>,
    kafka: Option<String>,
}

impl Program for Spring {
    fn command(&self, address: &str, folder: &Path) -> Command {
        let mut java = Command::new("java");
        java.arg("-jar").arg(harness::repository().join("bench/peers/spring/target/otp-peer.jar"));
        let (_, port) = address.rsplit_once(':').unwrap_or_default();
        java.env("SERVER_PORT", port).env("STATE_DIR", folder);
        java.envs(self.database.iter().cloned());
        let (redis_host, redis_port) =
            self.redis.as_deref().and_then(|at| at.rsplit_once(':')).unwrap_or_default();
        java.env("REDIS_HOST", redis_host).env("REDIS_PORT", redis_port);
        java.env("KAFKA_BROKERS", self.kafka.as_deref().unwrap_or_default());
        java
    }

    fn own_state(&self) -> Option<&Path> {
        None
    }

    fn own_address(&self) -> Option<&str> {
        None
    }

    fn answers(client: &Client) -> bool {
        client.try_send("GET", "/healthz", &[], b"").is_ok_and(|answer| answer.status == 200)
    }
}

/// otpgateway, configured so that it sends no message.
pub(crate) struct OtpGateway {
    program: PathBuf,
    redis: String,
}

/// Who asks, in its configuration.
const NAMESPACE: &str = "bench";
const SECRET: &str = "secret-of-the-bench";

impl Program for OtpGateway {
    fn command(&self, address: &str, folder: &Path) -> Command {
        let (host, port) = self.redis.rsplit_once(':').unwrap_or_default();
        let config = format!(
            r#"[app]
address = "{address}"
server_timeout = "5s"
root_url = "http://{address}"
otp_ttl = 600
otp_max_attempts = 100000
otp_max_resends = 100000
otp_max_generate = 100000
[auth.bench]
namespace = "{NAMESPACE}"
secret = "{SECRET}"
[store.redis]
host = "{host}"
port = "{port}"
# Nothing is sent there: no request says to whom.
[webhooks.bench]
enabled = true
url = "http://127.0.0.1:9/"
"#
        );
        let file = folder.join("config.toml");
        std::fs::write(&file, config).expect("the configuration can be written");
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(file);
        command
    }

    fn own_state(&self) -> Option<&Path> {
        None
    }

    fn own_address(&self) -> Option<&str> {
        None
    }

    fn answers(client: &Client) -> bool {
        client.try_send("GET", "/api/health", &[], b"").is_ok_and(|answer| answer.status == 200)
    }
}
