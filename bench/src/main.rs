//! Measures the four calls against `/healthz`, the route of the same component that does nothing, without
//! and with a relay, Redis and Postgres; then how long a code takes to be delivered, and what the relay needs.
//!
//! Starts services of its own on free ports with empty databases, and talks to them over loopback on as
//! many connections as asked for. Each call gets the same number of requests, in rounds that take turns,
//! so that a drift of the machine's speed falls on all of them alike. What counts is the ratio to the
//! first line, not the numbers of this machine.
//!
//! `make bench`, or with numbers of one's own: `REQUESTS=20000 CONNECTIONS=32 EVENTS=5000 SECONDS=60 make
//! bench`. `BASELINE=other/checkout/spin.toml` measures another build in the same run.

mod relay;

use harness::{Builder, Postgres, Redis, Relay, Service, bulk_number, eventually};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

/// Rounds that the requests of a call are made in.
const ROUNDS: usize = 4;

/// One kept connection, with nothing in the way of the clock.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(address: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends one request and reads its answer: the status and the body.
    fn send(&mut self, request: &Request) -> std::io::Result<(u16, Vec<u8>)> {
        let Request { method, path, fields, body } = request;
        let bytes = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\n{fields}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0.get_mut().write_all(bytes.as_bytes())?;
        let (mut status, mut length) = (0, 0);
        let mut line = String::new();
        loop {
            line.clear();
            self.0.read_line(&mut line)?;
            let text = line.trim_end();
            if status == 0 {
                status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
            } else if let Some(value) = text.strip_prefix("content-length: ") {
                length = value.parse().unwrap_or(0);
            } else if text.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok((status, body))
    }
}

#[derive(Clone)]
struct Request {
    method: &'static str,
    path: &'static str,
    /// Header fields of its own, each with its line's end.
    fields: String,
    body: String,
}

/// What a call took.
#[derive(Default)]
struct Measured {
    /// Of every request, in order of time after [`report`](Self::report) has sorted it.
    latencies: Vec<Duration>,
    busy: Duration,
}

/// Sends all requests over that many connections and returns the bodies, in the order of the requests.
/// Panics if one has another status.
fn drive(
    address: &str,
    connections: usize,
    requests: &[Request],
    status: u16,
    into: &mut Measured,
) -> Vec<Vec<u8>> {
    let chunk = requests.len().div_ceil(connections);
    let start = Instant::now();
    let parts: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> = requests
            .chunks(chunk)
            .map(|requests| {
                scope.spawn(move || -> std::io::Result<_> {
                    let mut connection = Connection::open(address)?;
                    let mut done = Vec::with_capacity(requests.len());
                    for request in requests {
                        let start = Instant::now();
                        let (found, body) = connection.send(request)?;
                        assert_eq!(found, status, "{}: {}", request.path, String::from_utf8_lossy(&body));
                        done.push((start.elapsed(), body));
                    }
                    Ok(done)
                })
            })
            .collect();
        running
            .into_iter()
            .map(|thread| thread.join().expect("no request failed").expect("no connection failed"))
            .collect()
    });
    into.busy += start.elapsed();
    let mut bodies = Vec::with_capacity(requests.len());
    for (latency, body) in parts.into_iter().flatten() {
        into.latencies.push(latency);
        bodies.push(body);
    }
    bodies
}

impl Measured {
    fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.busy.as_secs_f64()
    }

    fn report(&mut self, name: &str, hello: f64) {
        self.latencies.sort_unstable();
        let at = |share: f64| {
            self.latencies[((self.latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3
        };
        println!(
            "{name:<12} {:>8.0} {:>8.2} {:>8.2} {:>8.2} {:>8.2}",
            self.rate(),
            self.rate() / hello,
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default).max(1)
}

/// The API key of whoever has one, and what the service knows of it.
const KEY: &str = "key of the bench";
const API_KEYS: &str = "bench:send+verify:c6a6ecf40759b04e6859e5403bb68d615b4204ea5c7be81cfcb69e7b250eeb88";

/// What a request carries beside its body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Carries {
    Nothing,
    /// An API key, and where it can be retried, an Idempotency-Key.
    Keys,
}

impl Carries {
    fn fields(self, path: &str, number: &str) -> String {
        let retried = matches!(path, "/generate-otp" | "/regenerate-otp");
        match self {
            Self::Nothing => String::new(),
            Self::Keys if retried => {
                format!("authorization: Bearer {KEY}\r\nidempotency-key: \"{path}{number}\"\r\n")
            }
            Self::Keys => format!("authorization: Bearer {KEY}\r\n"),
        }
    }
}

fn post(path: &'static str, numbers: &[String], carries: Carries) -> Vec<Request> {
    let request = |number: &String| Request {
        method: "POST",
        path,
        fields: carries.fields(path, number),
        body: format!("{{\"mobileNumber\":\"{number}\"}}"),
    };
    numbers.iter().map(request).collect()
}

/// The calls, in the order in which a round makes them; the first does nothing and is the measure.
const CALLS: [&str; 5] = ["hello", "generate", "resend", "regenerate", "verify"];

/// One way to run the service.
struct Variant {
    name: &'static str,
    service: Service,
    /// Who takes its events, if anybody does.
    relay: Option<Relay>,
    carries: Carries,
    measured: [Measured; CALLS.len()],
}

impl Variant {
    fn new(name: &'static str, builder: Builder) -> Self {
        Self {
            name,
            service: builder.start(),
            relay: None,
            carries: Carries::Nothing,
            measured: Default::default(),
        }
    }

    /// With a relay beside it, as `make run` has it.
    fn with_relay(name: &'static str, builder: Builder) -> Self {
        let relay = Relay::start();
        let builder = builder.variable("relay_url", &relay.url());
        Self { relay: Some(relay), ..Self::new(name, builder) }
    }

    /// With all that keeps abuse away: API keys, Idempotency-Keys, every limit and the guard, none of which has
    /// to refuse anything here.
    fn guarded(name: &'static str, builder: Builder) -> Self {
        let builder = builder
            .variable("api_keys", API_KEYS)
            .variable("rate_limit_requests", "100")
            .variable("client_rate_limit", "1000000/1")
            .variable("key_rate_limit", "1000000/1")
            .variable("global_rate_limit", "1000000/1")
            .variable("pumping_guard", "true")
            .variable("pumping_min_sends", "1000000");
        Self { carries: Carries::Keys, ..Self::new(name, builder) }
    }

    fn round(&mut self, connections: usize, numbers: &[String]) {
        let address = self.service.address();
        let carries = self.carries;
        let mut run = |call: usize, requests: &[Request], status| {
            drive(address, connections, requests, status, &mut self.measured[call])
        };
        run(
            0,
            &vec![
                Request { method: "GET", path: "/healthz", fields: String::new(), body: String::new() };
                numbers.len()
            ],
            200,
        );
        run(1, &post("/generate-otp", numbers, carries), 201);
        run(2, &post("/resend-otp", numbers, carries), 200);
        let made = run(3, &post("/regenerate-otp", numbers, carries), 201);
        let checks: Vec<_> = made
            .iter()
            .map(|body| {
                let made: Value = serde_json::from_slice(body).expect("the answer is JSON");
                let body = format!("{{\"mobileNumber\":{},\"otp\":{}}}", made["mobileNumber"], made["otp"]);
                let number = made["mobileNumber"].as_str().expect("a number is a string");
                let fields = carries.fields("/verify-otp", number);
                Request { method: "POST", path: "/verify-otp", fields, body }
            })
            .collect();
        run(4, &checks, 200);
        // What is still under way shall not be another variant's burden.
        if let Some(relay) = &self.relay {
            let consumed = || relay::metric(relay, "spin_otp_relay_consumed_total");
            eventually("taking all events", Duration::from_secs(60), || {
                // Whoever is idle leaves the rest to the next request.
                drop(self.service.client().resend(&numbers[0]));
                let before = consumed();
                thread::sleep(Duration::from_millis(300));
                consumed() == before
            });
        }
    }
}

fn main() {
    let connections = setting("CONNECTIONS", 32);
    let requests = setting("REQUESTS", 10_000) / ROUNDS;
    let redis = Redis::start();
    let on_sqlite = || Service::builder().variable("postgres_endpoint", "");
    let plain = || on_sqlite().variable("redis_endpoint", "");
    // The defaults, but for what the load itself would be refused for.
    let defaults = || plain().variable("rate_limit_requests", "100").variable("pumping_min_sends", "1000000");
    let cached = |builder: Builder| builder.variable("redis_endpoint", &redis.endpoint());
    let mut variants = vec![
        Variant::new("SQLite, no limits", plain().without_limits()),
        Variant::new("SQLite", defaults()),
        Variant::guarded("SQLite, with all limits, API keys and Idempotency-Keys", plain()),
        Variant::with_relay("SQLite, with a relay", defaults()),
        Variant::new("SQLite and Redis, no limits", cached(on_sqlite().without_limits())),
        Variant::new("SQLite and Redis", cached(defaults())),
        Variant::guarded(
            "SQLite and Redis, with all limits, API keys and Idempotency-Keys",
            cached(on_sqlite()),
        ),
    ];
    // A server each, that none finds the others' numbers. They do not wait for the disk, and neither does SQLite.
    let servers = [(); 3].map(|()| Postgres::start());
    let [alone, beside_redis, guarded] = &servers;
    variants.extend([
        Variant::new("Postgres", defaults().postgres(alone)),
        Variant::new("Postgres and Redis", cached(defaults()).postgres(beside_redis)),
        Variant::guarded(
            "Postgres and Redis, with all limits, API keys and Idempotency-Keys",
            cached(Service::builder()).postgres(guarded),
        ),
    ]);
    // Another build to compare with: the spin.toml of another checkout.
    if let Ok(manifest) = std::env::var("BASELINE") {
        // A host ends over a variable that its manifest does not declare.
        let text = std::fs::read_to_string(&manifest).expect("BASELINE names a spin.toml");
        let plain = if text.contains("rate_limit_requests") { plain().without_limits() } else { plain() };
        variants.push(Variant::new("SQLite, baseline", plain.manifest(manifest.as_ref())));
    }
    for round in 0..ROUNDS {
        let first = u32::try_from(round * requests).expect("a bounded number of requests");
        let numbers: Vec<_> = (first..).take(requests).map(bulk_number).collect();
        for variant in &mut variants {
            variant.round(connections, &numbers);
        }
        variants.reverse();
    }

    println!("{} requests a call, {connections} connections", requests * ROUNDS);
    for variant in &mut variants {
        println!("\n{}", variant.name);
        println!(
            "{:<12} {:>8} {:>8} {:>8} {:>8} {:>8}",
            "call", "req/s", "ratio", "p50 ms", "p99 ms", "max ms"
        );
        let hello = variant.measured[0].rate();
        for (name, measured) in CALLS.iter().zip(&mut variant.measured) {
            measured.report(name, hello);
        }
        if let Some(kib) = variant.service.resident_memory() {
            println!("resident memory of the host: {:.0} MB", kib as f64 / 1024.0);
        }
    }
    drop(variants);
    relay::time_to_delivery();
    relay::under_load(setting("EVENTS", 5_000), setting("SECONDS", 10));
}
