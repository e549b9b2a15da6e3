//! Many requests at once about one recipient: each is decided on what the one before it has left, and none is turned away
//! because of the others.

use harness::{Builder, Redis, Service, at_once, number};
use std::time::{Duration, Instant};

/// With and without a cache, whatever the suite runs with.
fn with_and_without_redis(builder: impl Fn() -> Builder, check: impl Fn(&Service)) {
    let redis = Redis::start();
    for endpoint in [String::new(), redis.endpoint()] {
        check(&builder().variable("pumping_guard", "false").variable("redis_endpoint", &endpoint).start());
    }
}

/// What each heard, and how long the slowest took.
fn crowd(size: usize, ask: impl Fn() -> u16 + Sync) -> (Vec<u16>, Duration) {
    let answers = at_once(size, |_| {
        let begun = Instant::now();
        (ask(), begun.elapsed())
    });
    let slowest = answers.iter().map(|(_, took)| *took).max().unwrap();
    (answers.into_iter().map(|(status, _)| status).collect(), slowest)
}

fn count(statuses: &[u16], status: u16) -> usize {
    statuses.iter().filter(|heard| **heard == status).count()
}

#[test]
fn of_30_that_ask_for_a_code_at_once_five_have_one_where_the_limit_is_five() {
    with_and_without_redis(
        || Service::builder().variable("rate_limit_requests", "5"),
        |service| {
            for _ in 0..3 {
                let number = number();
                let (heard, slowest) = crowd(30, || service.client().try_generate(&number).status);
                println!("30 at once: the slowest after {slowest:?}");
                assert_eq!((count(&heard, 201), count(&heard, 429)), (5, 25), "{heard:?}");
            }
        },
    );
}

#[test]
fn of_200_right_checks_at_once_one_wins() {
    with_and_without_redis(
        || Service::builder().variable("otp_length", "10"),
        |service| {
            let number = number();
            let made = service.client().generate(&number);
            let otp = made["otp"].as_str().unwrap();
            let (heard, slowest) = crowd(200, || service.client().verify(&number, otp).status);
            println!("200 at once: the slowest after {slowest:?}");
            assert_eq!((count(&heard, 200), count(&heard, 410)), (1, 199), "{heard:?}");
        },
    );
}

#[test]
fn of_60_wrong_checks_at_once_no_more_than_allowed_are_compared() {
    with_and_without_redis(
        || Service::builder().variable("otp_length", "10").variable("max_verify_attempts", "3"),
        |service| {
            let number = number();
            service.client().generate(&number);
            let (heard, _) = crowd(60, || service.client().verify(&number, "0000000000").status);
            assert_eq!((count(&heard, 422), count(&heard, 429)), (3, 57), "{heard:?}");
        },
    );
}
