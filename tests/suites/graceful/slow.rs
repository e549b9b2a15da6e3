//! What the service depends on is slow, silent or cut: every answer comes in time and is right, nothing piles up, and
//! when the trouble is over nobody notices any more.

use crate::line::{Answer, Line};
use harness::{Builder, IN_TIME, Mode, Postgres, Proxy, Redis, Service, bulk_number, eventually};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Clients at the same time.
const CLIENTS: usize = 32;

/// How long a trouble lasts.
const TROUBLE: Duration = Duration::from_millis(2_500);

/// How soon after it all is well again. On a machine that does nothing else it takes less than a tenth of that.
const RECOVERY: Duration = Duration::from_secs(10);

/// What an answer takes that waits for nothing. Less than any deadline of the component's.
const QUICK: Duration = Duration::from_millis(200);

/// Connections that may be there beside those that were there before: instances that end when they are idle.
const SOME_MORE: usize = 40;

/// Threads that a host may have: its own, and those that run SQLite's statements, however many wait for one.
pub(crate) const MOST_THREADS: usize = 128;

/// Most that the memory may grow over all troubles, in KiB: what allocators keep, and no more.
const GROWTH: u64 = 128 * 1024;

/// All that a network may do to a dependency.
const TROUBLES: [(&str, Mode); 9] = [
    ("0.2 s late each way", Mode::Delay(Duration::from_millis(200))),
    ("1 s late each way", Mode::Delay(Duration::from_secs(1))),
    ("3 s late each way", Mode::Delay(Duration::from_secs(3))),
    ("a black hole", Mode::BlackHole),
    ("half open", Mode::HalfOpen),
    ("cut", Mode::Cut),
    ("reset", Mode::Reset),
    ("cut in the middle of an answer", Mode::CutAfter(20)),
    ("dripping", Mode::Drip(Duration::from_millis(100))),
];

/// What the service can lose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// It is slower without, and as right.
    Speed,
    /// It cannot answer without, and says so.
    Service,
}

/// What came of the requests of one trouble.
#[derive(Debug, Default)]
struct Heard {
    statuses: BTreeMap<u16, usize>,
    slowest: Duration,
}

/// One number, and what it must hear as long as every answer is known.
struct Customer<'a> {
    line: &'a mut Line,
    number: String,
    loss: Loss,
    heard: &'a mut Heard,
}

/// A request that was not carried out, as far as anybody knows.
struct Refused;

impl Customer<'_> {
    /// All calls, one after the other, up to the first one that is refused.
    fn all_calls(&mut self) -> Result<(), Refused> {
        self.probe();
        let first = self.code("/generate-otp", 201)?;
        assert_eq!(self.code("/resend-otp", 200)?, first);
        let second = self.code("/regenerate-otp", 201)?;
        assert_ne!(second, first);
        assert_eq!(self.code("/resend-otp", 200)?, second);
        self.verify(&first, 422, "otp_mismatch")?;
        self.verify(&second, 200, "")?;
        self.call("/resend-otp", json!({ "mobileNumber": self.number }), 410, "otp_used")?;
        self.expect("DELETE", &format!("/users/{}", self.number), Value::Null, 204, "")?;
        self.call("/resend-otp", json!({ "mobileNumber": self.number }), 404, "otp_not_found")?;
        Ok(())
    }

    fn probe(&mut self) {
        assert_eq!(self.ask("GET", "/healthz", &Value::Null).status, 200);
        let ready = self.ask("GET", "/readyz", &Value::Null);
        let state = ready.json()["status"].as_str().unwrap_or_default().to_owned();
        match ready.status {
            200 => assert!(["ready", "degraded"].contains(&&*state), "{ready:?}"),
            _ => {
                assert_eq!(self.loss, Loss::Service, "{ready:?}");
                ready.is_unavailable();
            }
        }
    }

    fn code(&mut self, path: &str, status: u16) -> Result<String, Refused> {
        let answer = self.call(path, json!({ "mobileNumber": self.number }), status, "")?;
        Ok(answer.json()["otp"].as_str().unwrap().to_owned())
    }

    fn verify(&mut self, otp: &str, status: u16, code: &str) -> Result<(), Refused> {
        let body = json!({ "mobileNumber": self.number, "otp": otp });
        self.call("/verify-otp", body, status, code).map(drop)
    }

    fn call(&mut self, path: &str, body: Value, status: u16, code: &str) -> Result<Answer, Refused> {
        self.expect("POST", path, body, status, code)
    }

    fn expect(
        &mut self,
        method: &str,
        path: &str,
        body: Value,
        status: u16,
        code: &str,
    ) -> Result<Answer, Refused> {
        let answer = self.ask(method, path, &body);
        if self.loss == Loss::Service && answer.status == 503 {
            answer.is_unavailable();
            return Err(Refused);
        }
        assert_eq!((answer.status, &*answer.code()), (status, code), "{method} {path}: {answer:?}");
        Ok(answer)
    }

    /// Whatever the answer is, it comes in time.
    fn ask(&mut self, method: &str, path: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let start = Instant::now();
        let answer = self.line.send(method, path, &body);
        let took = start.elapsed();
        let answer = answer.unwrap_or_else(|error| panic!("{method} {path}: {error} after {took:?}"));
        assert!(took < IN_TIME, "{method} {path}: {} after {took:?}", answer.status);
        *self.heard.statuses.entry(answer.status).or_default() += 1;
        self.heard.slowest = self.heard.slowest.max(took);
        answer
    }
}

/// A number that no other customer has.
pub(crate) fn fresh_number() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    bulk_number(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Clients that call all there is to call while that trouble lasts.
fn in_trouble(service: &Service, loss: Loss) -> Heard {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let over = &over;
                scope.spawn(move || {
                    let mut line = Line::to(service.address());
                    let mut heard = Heard::default();
                    while !over.load(Ordering::SeqCst) {
                        let number = fresh_number();
                        let mut customer = Customer { line: &mut line, number, loss, heard: &mut heard };
                        // One that is refused leaves open what has happened; the next one begins anew.
                        let _ = customer.all_calls();
                        // So that the load is one of waiting and not of working.
                        thread::sleep(Duration::from_millis(50));
                    }
                    heard
                })
            })
            .collect();
        thread::sleep(TROUBLE);
        over.store(true, Ordering::SeqCst);
        let mut all = Heard::default();
        for client in clients {
            let heard = client.join().unwrap();
            all.slowest = all.slowest.max(heard.slowest);
            for (status, count) in heard.statuses {
                *all.statuses.entry(status).or_default() += count;
            }
        }
        all
    })
}

/// A customer whom nothing is refused and who waits for nothing.
pub(crate) fn all_is_well(service: &Service) -> bool {
    let mut heard = Heard::default();
    let mut line = Line::to(service.address());
    let mut customer =
        Customer { line: &mut line, number: fresh_number(), loss: Loss::Service, heard: &mut heard };
    customer.all_calls().is_ok() && heard.slowest < QUICK
}

/// Puts the service behind that network through all troubles.
fn all_troubles(service: &Service, proxy: &Proxy, loss: Loss) {
    // With all that it keeps.
    in_trouble(service, loss);
    let (files, memory) = (service.open_files(), service.resident_memory());
    let (threads, open) = (service.threads(), proxy.open());
    println!("before: {open} connections, {files:?} files, {memory:?} KiB, {threads:?} threads");
    for (name, mode) in TROUBLES {
        proxy.set(mode);
        let heard = in_trouble(service, loss);
        let (left, left_files) = (proxy.open(), service.open_files());
        proxy.set(Mode::Pass);
        let start = Instant::now();
        eventually(&format!("recovery from {name}"), RECOVERY, || all_is_well(service));
        let recovery = start.elapsed();
        eventually(&format!("the end of connections from {name}"), Duration::from_secs(10), || {
            proxy.open() <= open + SOME_MORE
                && files.zip(service.open_files()).is_none_or(|(before, now)| now <= before + SOME_MORE)
        });
        println!(
            "{name}: {:?}, the slowest after {:?}; well again {recovery:?} later; {left} connections and {left_files:?} \
             files at the end of it, {} and {:?} after, {:?} KiB, {:?} threads",
            heard.statuses,
            heard.slowest,
            proxy.open(),
            service.open_files(),
            service.resident_memory(),
            service.threads()
        );
        assert!(service.threads().is_none_or(|threads| threads < MOST_THREADS), "{name}");
        if loss == Loss::Service && matches!(mode, Mode::BlackHole | Mode::HalfOpen | Mode::Cut | Mode::Reset)
        {
            assert!(heard.statuses.contains_key(&503), "{name} did no harm");
        }
    }
    if let (Some(before), Some(now)) = (memory, service.resident_memory()) {
        assert!(now <= before + GROWTH, "{before} KiB are now {now}");
    }
    if let Some(before) = threads {
        // How many there are under load is chance; the runtime keeps one for ten seconds after its last work.
        eventually("the end of threads", Duration::from_secs(20), || service.threads().unwrap() <= before);
    }
    let log = service.log();
    assert!(!log.contains("an instance of the component failed") && !log.contains("gave no answer"), "{log}");
}

#[test]
fn a_slow_or_cut_redis_makes_nothing_wrong_and_nobody_wait() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.address());
    let service = Service::builder()
        .without_limits()
        // All that Redis is asked for: codes, the limit of a number, and meters.
        .variable("rate_limit_requests", "100")
        .variable("client_rate_limit", "1000000/1")
        .variable("redis_endpoint", &format!("redis://{}", proxy.address()))
        .start();
    all_troubles(&service, &proxy, Loss::Speed);
    eventually("a cached code", RECOVERY, || {
        service.client().generate(&fresh_number());
        redis.keys().iter().any(|key| key.starts_with("spin-otp:account:"))
    });
}

/// A service whose codes are in that Postgres, behind that proxy.
pub(crate) fn on_postgres(postgres: &Postgres, proxy: &Proxy) -> Builder {
    let endpoint = format!("postgres://{}", proxy.address());
    Service::builder().without_limits().postgres(postgres).variable("postgres_endpoint", &endpoint)
}

#[test]
fn a_slow_or_cut_postgres_is_a_503_in_time_and_nothing_piles_up() {
    let postgres = Postgres::start();
    let proxy = Proxy::to(postgres.address());
    let service = on_postgres(&postgres, &proxy).start();
    all_troubles(&service, &proxy, Loss::Service);
}
