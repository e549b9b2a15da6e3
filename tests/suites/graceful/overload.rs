//! More requests than can be worked on, because all of them wait for something that hangs: everybody hears so in
//! time, and whoever only asks whether the service lives is answered.

use crate::{
    line::{Line, request},
    slow::{PATIENCE, all_is_well, fresh_number, on_postgres},
};
use harness::{Mode, Postgres, Proxy, Redis, Service, at_once, eventually};
use rusqlite::Connection;
use serde_json::json;
use std::{
    thread,
    time::{Duration, Instant},
};

/// More than twice the places inside the component.
const CROWD: usize = 600;

/// How long the crowd keeps coming.
const RUSH: Duration = Duration::from_secs(6);

/// What a probe waits at most: less than Kubernetes' own patience, but for a busy machine.
const PROBE: Duration = Duration::from_secs(1);

/// The threads that a host may have beside one for each place in the component.
const OTHER_THREADS: usize = 96;

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
fn crowd(service: &Service, hang: impl FnOnce(), go_on: impl FnOnce()) {
    assert!(all_is_well(service));
    let (files, threads) = (service.open_files(), service.threads());
    hang();
    let (heard, slowest_probe) = thread::scope(|scope| {
        let probing = scope.spawn(|| probe(service));
        let heard = at_once(CROWD, |_| {
            let mut line = Line::to(service.address());
            let start = Instant::now();
            let (mut heard, mut slowest) = (0, Duration::ZERO);
            while start.elapsed() < RUSH {
                let asked = Instant::now();
                let answer = line.send("POST", "/generate-otp", &body()).unwrap();
                let took = asked.elapsed();
                answer.is_unavailable();
                assert!(took < PATIENCE, "{took:?}: {answer:?}");
                (heard, slowest) = (heard + 1, slowest.max(took));
                thread::sleep(Duration::from_millis(100));
            }
            (heard, slowest)
        });
        (heard, probing.join().unwrap())
    });
    go_on();
    let start = Instant::now();
    eventually("recovery", PATIENCE, || all_is_well(service));
    println!(
        "{CROWD} connections: {} times 503, the slowest after {:?}; the slowest probe {slowest_probe:?}; well again \
         {:?} later",
        heard.iter().map(|(heard, _)| heard).sum::<usize>(),
        heard.iter().map(|(_, slowest)| slowest).max().unwrap(),
        start.elapsed()
    );
    assert!(slowest_probe < PROBE, "{slowest_probe:?}");
    if let (Some(files), Some(threads)) = (files, threads) {
        // The threads that waited are kept for ten seconds by the runtime, connections for others by the pool.
        eventually("the end of what was begun", Duration::from_secs(20), || {
            service.open_files().unwrap() <= files + 64 + 40 && service.threads().unwrap() <= threads + 40
        });
    }
}

#[test]
fn a_crowd_before_a_locked_database_hears_503_in_time() {
    let service = Service::builder().without_limits().start();
    let other = Connection::open(service.database()).unwrap();
    let run = |statement: &str| other.execute_batch(statement).unwrap();
    crowd(&service, || run("BEGIN IMMEDIATE"), || run("ROLLBACK"));
}

#[test]
fn a_crowd_before_a_postgres_that_swallows_everything_hears_503_in_time() {
    let postgres = Postgres::start();
    let proxy = Proxy::to(postgres.address());
    let service = on_postgres(&postgres, &proxy).start();
    crowd(&service, || proxy.set(Mode::BlackHole), || proxy.set(Mode::Pass));
}

#[test]
fn clients_that_leave_make_no_room_for_more_than_can_be_worked_on() {
    let service = Service::builder().without_limits().start();
    assert!(all_is_well(&service));
    let other = Connection::open(service.database()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut most = 0;
    for _ in 0..8 {
        let mut lines: Vec<_> = (0..200).map(|_| Line::to(service.address())).collect();
        for line in &mut lines {
            line.write(request("POST", "/generate-otp", &body()).as_bytes()).unwrap();
        }
        thread::sleep(Duration::from_millis(150));
        most = most.max(service.threads().unwrap_or_default());
    }
    assert_eq!(Line::to(service.address()).get("/healthz").unwrap().status, 200);
    other.execute_batch("ROLLBACK").unwrap();
    let start = Instant::now();
    eventually("recovery", PATIENCE, || all_is_well(&service));
    println!("1600 clients that left: at most {most} threads; well again {:?} later", start.elapsed());
    assert!(most < 256 + OTHER_THREADS, "{most} threads");
}

#[test]
fn a_crowd_before_a_redis_that_swallows_everything_is_served() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.address());
    let service = Service::builder()
        .without_limits()
        .variable("redis_endpoint", &format!("redis://{}", proxy.address()))
        .start();
    assert!(all_is_well(&service));
    for mode in [Mode::BlackHole, Mode::HalfOpen] {
        proxy.set(mode);
        let took = at_once(200, |_| {
            let mut line = Line::to(service.address());
            let mut slowest = Duration::ZERO;
            for _ in 0..5 {
                let asked = Instant::now();
                let answer = line.send("POST", "/generate-otp", &body()).unwrap();
                slowest = slowest.max(asked.elapsed());
                assert_eq!(answer.status, 201, "{answer:?}");
            }
            slowest
        });
        let slowest = took.into_iter().max().unwrap();
        println!("200 connections, {mode:?}: 1000 times 201, the slowest after {slowest:?}");
        assert!(slowest < PATIENCE, "{slowest:?}");
        proxy.set(Mode::Pass);
        eventually("recovery", PATIENCE, || all_is_well(&service));
    }
}
