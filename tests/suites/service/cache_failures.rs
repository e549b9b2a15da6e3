//! Redis dies, comes back empty or stale, hangs, forgets, evicts and refuses, under a load whose every
//! answer is held against a small model of the contract.

use harness::{Client, IN_TIME, Redis, Response, Service, bulk_number};
use std::{
    ops::Range,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

const WORKERS: u32 = 6;
const NUMBERS_A_WORKER: u32 = 12;

/// Most steps of a worker: a bound, whatever the time says.
const MOST_STEPS: u32 = 4_000;

/// Numbers that nobody else drew: SplitMix64 (Steele, Lea and Flood, 2014).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

/// What the contract says of one number, as far as its requests come one after the other.
#[derive(Default)]
struct Model {
    number: String,
    code: String,
    /// Replaced ones.
    dead: Vec<String>,
    used: bool,
    attempts: i64,
}

impl Model {
    /// One random request, and whether its answer is the right one.
    fn step(&mut self, client: &Client, dice: &mut Dice) {
        let start = Instant::now();
        match dice.roll(10) {
            _ if self.code.is_empty() => self.replace(&client.post("/generate-otp", &self.body())),
            0 => self.replace(&client.post("/generate-otp", &self.body())),
            1 | 2 => self.replace(&client.regenerate(&self.number)),
            3..=6 => self.resend(&client.resend(&self.number)),
            7 => self.verify(&client.verify(&self.number, &self.code), true),
            8 if !self.dead.is_empty() => {
                let dead = &self.dead[dice.roll(self.dead.len() as u64) as usize];
                let answer = client.verify(&self.number, dead);
                self.verify(&answer, false);
            }
            _ => self.verify(&client.verify(&self.number, "0000000000"), false),
        }
        assert!(start.elapsed() < IN_TIME, "{:?}", start.elapsed());
    }

    fn body(&self) -> serde_json::Value {
        serde_json::json!({ "mobileNumber": self.number })
    }

    #[track_caller]
    fn replace(&mut self, answer: &Response) {
        let made = answer.expect(201)["otp"].as_str().unwrap().to_owned();
        assert!(made != self.code && !self.dead.contains(&made));
        if !self.code.is_empty() {
            self.dead.push(std::mem::take(&mut self.code));
        }
        *self = Self { code: made, used: false, attempts: 0, ..std::mem::take(self) };
    }

    #[track_caller]
    fn resend(&self, answer: &Response) {
        if self.used {
            answer.expect_problem(410, "otp_used");
        } else if self.attempts >= 5 {
            answer.expect_problem(410, "otp_locked");
        } else {
            assert_eq!(answer.expect(200)["otp"], self.code.as_str());
        }
    }

    #[track_caller]
    fn verify(&mut self, answer: &Response, right: bool) {
        if self.used {
            answer.expect_problem(410, "otp_used");
        } else if self.attempts >= 5 {
            answer.expect_problem(429, "attempts_exceeded");
        } else if right {
            answer.expect(200);
            self.used = true;
        } else {
            self.attempts += 1;
            let problem = answer.expect_problem(422, "otp_mismatch");
            assert_eq!(problem["attemptsRemaining"], 5 - self.attempts);
        }
    }
}

/// Requests that a load is worth the name with.
const LOAD: u32 = 300;

/// Runs the load while `trouble` does its worst, and a little longer.
fn under_load(service: &Service, trouble: impl FnOnce()) {
    let (stopped, all) = (AtomicBool::new(false), AtomicU32::new(0));
    let steps: u32 = thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let (client, stopped, all) = (service.client(), &stopped, &all);
                let numbers: Range<u32> = worker * NUMBERS_A_WORKER..(worker + 1) * NUMBERS_A_WORKER;
                scope.spawn(move || {
                    let mut dice = Dice(u64::from(worker));
                    let mut models: Vec<_> = numbers
                        .map(|index| Model { number: bulk_number(index), ..Model::default() })
                        .collect();
                    let mut steps = 0;
                    while !stopped.load(Ordering::Relaxed) && steps < MOST_STEPS {
                        let model = dice.roll(models.len() as u64) as usize;
                        models[model].step(&client, &mut dice);
                        steps += 1;
                        all.fetch_add(1, Ordering::Relaxed);
                    }
                    // In the end each number is as the model says.
                    models.iter().filter(|model| !model.code.is_empty()).for_each(|model| {
                        model.resend(&client.resend(&model.number));
                    });
                    steps
                })
            })
            .collect();
        // A worker that found something wrong ends early; the others need not go on for long.
        thread::sleep(Duration::from_millis(300));
        trouble();
        thread::sleep(Duration::from_millis(700));
        let until = Instant::now() + Duration::from_secs(60);
        while all.load(Ordering::Relaxed) <= LOAD && Instant::now() < until {
            thread::sleep(Duration::from_millis(10));
        }
        stopped.store(true, Ordering::Relaxed);
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    println!("{steps} requests, each answered as the contract says");
    assert!(steps > LOAD, "that was no load: {steps}");
}

fn cached_by(redis: &Redis) -> Service {
    Service::builder()
        .without_limits()
        .variable("redis_endpoint", &redis.endpoint())
        .variable("otp_length", "10")
        .start()
}

fn pause() {
    thread::sleep(Duration::from_millis(400));
}

#[test]
fn killed_and_brought_back_empty() {
    let mut redis = Redis::start();
    let service = cached_by(&redis);
    under_load(&service, || {
        for _ in 0..2 {
            redis.kill();
            pause();
            redis.restart_empty();
            pause();
        }
    });
}

#[test]
fn killed_and_brought_back_with_an_old_snapshot() {
    let mut redis = Redis::start();
    let service = cached_by(&redis);
    under_load(&service, || {
        redis.save();
        for _ in 0..3 {
            pause();
            // Every code that was replaced or used since the snapshot is back in the cache.
            redis.restart();
        }
    });
    assert!(!redis.keys().is_empty());
}

#[test]
fn stopped_and_continued() {
    let redis = Redis::start();
    let service = cached_by(&redis);
    under_load(&service, || {
        for _ in 0..2 {
            redis.signal("STOP");
            thread::sleep(Duration::from_millis(800));
            redis.signal("CONT");
            pause();
        }
    });
}

#[test]
fn emptied_again_and_again() {
    let redis = Redis::start();
    let service = cached_by(&redis);
    under_load(&service, || {
        for _ in 0..20 {
            let () = redis::cmd("FLUSHALL").query(&mut redis.connect()).unwrap();
            thread::sleep(Duration::from_millis(50));
        }
    });
}

#[test]
fn connections_cut_again_and_again() {
    let redis = Redis::start();
    let service = cached_by(&redis);
    under_load(&service, || {
        for _ in 0..20 {
            let kill: Result<i64, _> = redis::cmd("CLIENT")
                .arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"])
                .query(&mut redis.connect());
            kill.unwrap();
            thread::sleep(Duration::from_millis(50));
        }
    });
}

#[test]
fn full_and_evicting_or_refusing() {
    let redis = Redis::start();
    let service = cached_by(&redis);
    let set = |name: &str, value: &str| {
        let () = redis::cmd("CONFIG").arg(&["SET", name, value]).query(&mut redis.connect()).unwrap();
    };
    under_load(&service, || {
        for policy in ["allkeys-random", "volatile-ttl", "noeviction"] {
            set("maxmemory-policy", policy);
            // Less than it needs for itself: whatever is written is evicted at once, or refused.
            set("maxmemory", "1mb");
            pause();
            set("maxmemory", "0");
            pause();
        }
    });
}

#[test]
fn suddenly_asking_for_a_password() {
    let redis = Redis::start();
    let service = cached_by(&redis);
    let mut connection = redis.connect();
    let mut password = |password: &str| {
        let () = redis::cmd("CONFIG").arg(&["SET", "requirepass", password]).query(&mut connection).unwrap();
        if !password.is_empty() {
            let () = redis::cmd("AUTH").arg(password).query(&mut connection).unwrap();
            // Those that are in stay in: out with them.
            let _: i64 = redis::cmd("CLIENT")
                .arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"])
                .query(&mut connection)
                .unwrap();
        }
    };
    under_load(&service, || {
        password("another-word");
        pause();
        password("");
        pause();
    });
}

#[test]
fn two_services_share_a_cache_that_is_restored_from_an_old_snapshot() {
    let mut redis = Redis::start();
    let one = cached_by(&redis);
    let two = Service::builder()
        .without_limits()
        .variable("redis_endpoint", &redis.endpoint())
        .variable("otp_length", "10")
        .state(&one.state())
        .start();
    let clients = [one.client(), two.client()];
    let mut dice = Dice(7);
    let mut models: Vec<_> =
        (500_000..500_040).map(|index| Model { number: bulk_number(index), ..Model::default() }).collect();
    for round in 0..3 {
        for step in 0..200 {
            let model = dice.roll(40) as usize;
            models[model].step(&clients[step % 2], &mut dice);
        }
        if round == 0 {
            redis.save();
        } else {
            redis.restart();
        }
    }
}
