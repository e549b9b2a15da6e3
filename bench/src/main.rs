//! Measures the four calls against `/healthz`, the route of the same component that does nothing.
//!
//! Starts a service of its own on a free port with an empty database, and talks to it over loopback on
//! as many connections as asked for. Each call gets the same number of requests, in two rounds of
//! alternating order, so that a drift of the machine's speed falls on all of them alike. What counts is
//! the ratio to the first line, not the numbers of this machine.
//!
//! `make bench`, or with numbers of one's own: `REQUESTS=20000 CONNECTIONS=32 make bench`

use harness::{Service, bulk_number};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

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
        let Request { method, path, body } = request;
        let bytes = format!(
            "{method} {path} HTTP/1.1\r\nhost: bench\r\ncontent-length: {}\r\n\r\n{body}",
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

fn post(path: &'static str, numbers: &[String]) -> Vec<Request> {
    let body = |number: &String| format!("{{\"mobileNumber\":\"{number}\"}}");
    numbers.iter().map(|number| Request { method: "POST", path, body: body(number) }).collect()
}

fn main() {
    let connections = setting("CONNECTIONS", 32);
    let requests = setting("REQUESTS", 10_000) / 2;
    let service = Service::start();
    let address = service.address();
    let names = ["hello", "generate", "resend", "regenerate", "verify"];
    let mut measured: [Measured; 5] = Default::default();

    for round in 0..2 {
        let first = u32::try_from(round * requests).expect("a bounded number of requests");
        let numbers: Vec<_> = (first..).take(requests).map(bulk_number).collect();
        let hello = vec![Request { method: "GET", path: "/healthz", body: String::new() }; requests];
        let mut run = |call: usize, requests: &[Request], status| {
            drive(address, connections, requests, status, &mut measured[call])
        };
        if round == 0 {
            run(0, &hello, 200);
        }
        run(1, &post("/generate-otp", &numbers), 201);
        run(2, &post("/resend-otp", &numbers), 200);
        let made = run(3, &post("/regenerate-otp", &numbers), 201);
        let checks: Vec<_> = made
            .iter()
            .map(|body| {
                let made: Value = serde_json::from_slice(body).expect("the answer is JSON");
                let body = format!("{{\"mobileNumber\":{},\"otp\":{}}}", made["mobileNumber"], made["otp"]);
                Request { method: "POST", path: "/verify-otp", body }
            })
            .collect();
        run(4, &checks, 200);
        if round == 1 {
            run(0, &hello, 200);
        }
    }

    println!("{} requests a call, {connections} connections\n", requests * 2);
    println!("{:<12} {:>8} {:>8} {:>8} {:>8} {:>8}", "call", "req/s", "ratio", "p50 ms", "p99 ms", "max ms");
    let hello = measured[0].rate();
    for (name, measured) in names.iter().zip(&mut measured) {
        measured.report(name, hello);
    }
    match service.resident_memory() {
        Some(kib) => println!("\nresident memory of the host afterwards: {:.0} MB", kib as f64 / 1024.0),
        None => println!("\nresident memory of the host: not known on this system"),
    }
}
