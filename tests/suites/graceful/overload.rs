//! More requests than can be worked on, because all of them wait for something that hangs: everybody hears so in
//! time, and whoever only asks whether the service lives is answered.

use crate::{
    line::{Line, request},
    slow::{MOST_THREADS, all_is_well, fresh_number, on_postgres},
};
use harness::{IN_TIME, Mode, Postgres, Proxy, Redis, Service, at_once, eventually};
use serde_json::json;
use std::{
    thread,
    time::{Duration, Instant},
};

/// More than twice the places inside the component.
const CROWD: usize = 600;

/// How long the crowd keeps coming.
const RUSH: Duration = Duration::from_secs(6);

/// What nobody waits, though the machine has to make room for all of them at once: one wait for the dependency and
/// not one after the other.
const TOO_LONG: Duration = Duration::from_secs(6);

fn body() -> String {
    json!({ "mobileNumber": fresh_number() }).to_string()
}

/// Asks on a new connection whether the service lives, as long as the crowd comes; the longest that it took.
fn probe(service: &Service) -> Duration {
    let begun = Instant::now();
    let mut slowest = Duration::ZERO;
    while begun.elapsed() < RUSH {
        let start = Instant::now();
        let alive = Line::to(service.address()).get("/healthz").unwrap();
        slowest = slowest.max(start.elapsed());
        assert_eq!(alive.status, 200, "{alive:?}");
        thread::sleep(Duration::from_millis(100));
    }
    slowest
}

/// Sends a crowd while the database hangs, and looks whether all of it is gone afterwards.
fn crowd<T>(service: &Service, hang: impl FnOnce() -> T, go_on: impl FnOnce(T)) {
    eventually("a good start", TOO_LONG, || all_is_well(service));
    let (files, threads) = (service.open_files(), service.threads());
    let hanging = hang();
    let (heard, slowest_probe) = thread::scope(|scope| {
        let probing = scope.spawn(|| probe(service));
        let heard = at_once(CROWD, |_| {
            let mut line = Line::to(service.address());
            let start = Instant::now();
            let (mut busy, mut waited, mut slowest) = (0, Vec::new(), Duration::ZERO);
            while start.elapsed() < RUSH {
                let asked = Instant::now();
                let answer = line.send("POST", "/generate-otp", &body()).unwrap();
                let took = asked.elapsed();
                answer.is_unavailable();
                assert!(took < TOO_LONG, "{took:?}: {answer:?}");
                slowest = slowest.max(took);
                // Who found no place heard so from the host, and not from the component.
                match answer.json()["type"].as_str() {
                    Some("about:blank") => busy += 1,
                    _ => waited.push(took),
                }
                thread::sleep(Duration::from_millis(100));
            }
            (busy, waited, slowest)
        });
        (heard, probing.join().unwrap())
    });
    go_on(hanging);
    let start = Instant::now();
    eventually("recovery", TOO_LONG, || all_is_well(service));
    let busy: usize = heard.iter().map(|(busy, _, _)| busy).sum();
    let mut waited: Vec<_> = heard.iter().flat_map(|(_, waited, _)| waited).copied().collect();
    waited.sort();
    println!(
        "{CROWD} connections: {} heard 503 after waiting, half of them after {:?}, and {busy} because all places were \
         taken, the slowest after {:?}; the slowest probe {slowest_probe:?}; well again {:?} later",
        waited.len(),
        waited[waited.len() / 2],
        heard.iter().map(|(_, _, slowest)| slowest).max().unwrap(),
        start.elapsed()
    );
    assert!(busy > 0 && waited[waited.len() / 2] < IN_TIME);
    assert!(slowest_probe < TOO_LONG, "{slowest_probe:?}");
    if let (Some(files), Some(threads)) = (files, threads) {
        // Connections are kept by the pool, and threads for ten seconds by the runtime.
        eventually("the end of what was begun", Duration::from_secs(20), || {
            service.open_files().unwrap() <= files + 64 + 40 && service.threads().unwrap() <= threads + 40
        });
    }
}

#[test]
fn a_crowd_before_a_locked_database_hears_503_in_time() {
    let service = Service::builder().without_limits().start();
    crowd(&service, || service.hold_writes(), drop);
}

#[test]
fn a_crowd_before_a_postgres_that_swallows_everything_hears_503_in_time() {
    let postgres = Postgres::start();
    let proxy = Proxy::to(postgres.address());
    let service = on_postgres(&postgres, &proxy).start();
    crowd(&service, || proxy.set(Mode::BlackHole), |()| proxy.set(Mode::Pass));
}

#[test]
fn clients_that_leave_make_no_room_for_more_than_can_be_worked_on() {
    let service = Service::builder().without_limits().start();
    eventually("a good start", TOO_LONG, || all_is_well(&service));
    let hold = service.hold_writes();
    let mut most = 0;
    // More than once, for a machine that is so busy that the first have given up when the last ones come.
    let kept = (0..4).any(|_| {
        let mut lines: Vec<_> = (0..CROWD).map(|_| Line::to(service.address())).collect();
        for line in &mut lines {
            line.write(request("POST", "/generate-otp", &body()).as_bytes()).unwrap();
        }
        // The last one hears that there is no place: all are taken by those before it.
        let last = lines.last_mut().unwrap().answer().unwrap();
        most = most.max(service.threads().unwrap_or_default());
        drop(lines);
        // What they have asked for is still at work, whoever waits for it.
        let next = Line::to(service.address()).send("POST", "/generate-otp", &body()).unwrap();
        next.is_unavailable();
        [last, next].iter().all(|answer| answer.json()["type"] == "about:blank")
    });
    assert_eq!(Line::to(service.address()).get("/healthz").unwrap().status, 200);
    hold.release();
    let start = Instant::now();
    eventually("recovery", TOO_LONG, || all_is_well(&service));
    println!("{CROWD} clients that left: at most {most} threads; well again {:?} later", start.elapsed());
    assert!(kept, "their places were given to others");
    assert!(most < MOST_THREADS, "{most} threads");
}

#[test]
fn a_crowd_before_a_redis_that_swallows_everything_is_served() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.address());
    let service = Service::builder()
        .without_limits()
        .variable("redis_endpoint", &format!("redis://{}", proxy.address()))
        .start();
    eventually("a good start", TOO_LONG, || all_is_well(&service));
    // How many codes are made for a crowd, and the slowest answer. Each answer comes in time, and is a code or a 503.
    let served = |crowd: usize| {
        let heard = at_once(crowd, |_| {
            let mut line = Line::to(service.address());
            let (mut made, mut slowest) = (0, Duration::ZERO);
            for _ in 0..5 {
                let asked = Instant::now();
                let answer = line.send("POST", "/generate-otp", &body()).unwrap();
                slowest = slowest.max(asked.elapsed());
                match answer.status {
                    201 => made += 1,
                    _ => answer.is_unavailable(),
                }
            }
            (made, slowest)
        });
        let slowest = heard.iter().map(|(_, slowest)| *slowest).max().unwrap();
        assert!(slowest < TOO_LONG, "{slowest:?}");
        (heard.iter().map(|(made, _)| made).sum::<usize>(), slowest)
    };
    for mode in [Mode::BlackHole, Mode::HalfOpen] {
        proxy.set(mode);
        // The more the machine has to do beside, the smaller is the crowd that it has time for.
        let whole = [200, 100, 50].into_iter().any(|crowd| {
            let (made, slowest) = served(crowd);
            println!("{crowd} connections, {mode:?}: {made} times 201, the slowest after {slowest:?}");
            made == 5 * crowd
        });
        assert!(whole, "{mode:?}: not even a small crowd was served");
        proxy.set(Mode::Pass);
        eventually("recovery", TOO_LONG, || all_is_well(&service));
    }
}
