//! `number_locked`: who guesses on and on has to wait.

use crate::{other_than, outbox};
use harness::{Builder, Client, Response, Service, at_once, eventually, number};
use serde_json::{Value, json};
use std::{
    thread,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(30);

/// Locks a number after so many wrong codes.
fn locking_after(failures: u32) -> Builder {
    Service::builder()
        .without_limits()
        .variable("otp_length", "10")
        .variable("max_consecutive_failures", &failures.to_string())
}

fn make(client: &Client, number: &str) -> String {
    client.generate(number)["otp"].as_str().unwrap().to_owned()
}

fn remake(client: &Client, number: &str) -> String {
    client.regenerate(number).expect(201)["otp"].as_str().unwrap().to_owned()
}

#[track_caller]
fn guess_wrong(client: &Client, number: &str, otp: &str) -> Value {
    client.verify(number, &other_than(otp)).expect_problem(422, "otp_mismatch")
}

/// Refused because the number is locked; for how many seconds.
#[track_caller]
fn is_locked(answer: &Response) -> u64 {
    let problem = answer.expect_problem(429, "number_locked");
    let seconds = answer.header("retry-after");
    assert!(problem["detail"].as_str().unwrap().contains(seconds), "{problem}");
    assert!(problem.get("attemptsRemaining").is_none(), "{problem}");
    seconds.parse().unwrap()
}

#[track_caller]
fn all_calls_are_refused(client: &Client, number: &str, otp: &str) {
    let generate = || client.post("/generate-otp", &json!({ "mobileNumber": number }));
    for answer in [
        client.verify(number, otp),
        client.verify(number, &other_than(otp)),
        generate(),
        client.resend(number),
        client.regenerate(number),
    ] {
        is_locked(&answer);
    }
}

#[test]
fn the_wrong_code_too_many_is_told_so_and_then_every_call_is_refused() {
    let service = locking_after(3).start();
    let (client, number, other) = (service.client(), number(), number());
    let otp = make(&client, &number);
    for left in [4, 3, 2] {
        assert_eq!(guess_wrong(&client, &number, &otp)["attemptsRemaining"], left);
    }
    all_calls_are_refused(&client, &number, &otp);
    let seconds = is_locked(&client.verify(&number, &otp));
    assert!((3_590..=3_600).contains(&seconds), "{seconds}");
    // Nobody else has to do with it.
    let others = make(&client, &other);
    client.verify(&other, &others).expect(200);
}

#[test]
fn after_the_time_that_it_tells_the_same_code_is_good_and_not_before() {
    let service = locking_after(3).variable("lock_seconds", "2").start();
    let (client, number) = (service.client(), number());
    let otp = make(&client, &number);
    guess_wrong(&client, &number, &otp);
    guess_wrong(&client, &number, &otp);
    let start = Instant::now();
    guess_wrong(&client, &number, &otp);
    let seconds = is_locked(&client.verify(&number, &otp));
    assert!((1..=2).contains(&seconds), "{seconds}");
    let promised = Instant::now() + Duration::from_secs(seconds);
    let mut right = client.verify(&number, &otp);
    while right.status != 200 {
        let left = is_locked(&right);
        assert!(left <= 2);
        assert!(Instant::now() < promised + Duration::from_secs(5), "it never ends");
        let asked = Instant::now();
        right = client.verify(&number, &otp);
        // The promise is kept: whoever asks after it is let in.
        assert!(right.status == 200 || asked < promised + Duration::from_millis(20), "{:?}", right.status);
        thread::sleep(Duration::from_millis(10));
    }
    // Two clocks that are not quite the same.
    assert!(start.elapsed() > Duration::from_millis(1_980), "{:?}", start.elapsed());
}

#[test]
fn after_a_lock_the_count_starts_anew() {
    let service = locking_after(2).variable("lock_seconds", "1").start();
    let (client, number) = (service.client(), number());
    let mut otp = make(&client, &number);
    for _ in 0..2 {
        guess_wrong(&client, &number, &otp);
        client.resend(&number).expect(200);
        guess_wrong(&client, &number, &otp);
        is_locked(&client.resend(&number));
        eventually("the end of the lock", SOON, || client.resend(&number).status == 200);
        otp = remake(&client, &number);
    }
    guess_wrong(&client, &number, &otp);
    client.verify(&number, &otp).expect(200);
}

#[test]
fn a_right_code_resets_the_count() {
    let service = locking_after(3).start();
    let (client, number) = (service.client(), number());
    for _ in 0..3 {
        let otp = make(&client, &number);
        guess_wrong(&client, &number, &otp);
        guess_wrong(&client, &number, &otp);
        client.verify(&number, &otp).expect(200);
    }
    let otp = make(&client, &number);
    (0..3).for_each(|_| drop(guess_wrong(&client, &number, &otp)));
    all_calls_are_refused(&client, &number, &otp);
}

#[test]
fn wrong_codes_are_counted_across_codes() {
    let service = locking_after(3).start();
    let client = service.client();
    let by_regenerate = number();
    let otp = make(&client, &by_regenerate);
    guess_wrong(&client, &by_regenerate, &otp);
    let otp = remake(&client, &by_regenerate);
    guess_wrong(&client, &by_regenerate, &otp);
    let otp = remake(&client, &by_regenerate);
    assert_eq!(guess_wrong(&client, &by_regenerate, &otp)["attemptsRemaining"], 4);
    all_calls_are_refused(&client, &by_regenerate, &otp);

    let by_generate = number();
    for _ in 0..3 {
        let otp = make(&client, &by_generate);
        guess_wrong(&client, &by_generate, &otp);
    }
    all_calls_are_refused(&client, &by_generate, &otp);
}

#[test]
fn what_is_not_compared_does_not_count() {
    let service = locking_after(3).variable("max_verify_attempts", "2").start();
    let (client, number) = (service.client(), number());
    let old = make(&client, &number);
    client.verify(&number, &old).expect(200);
    // Used up already.
    (0..3).for_each(|_| drop(client.verify(&number, &old).expect_problem(410, "otp_used")));
    let otp = remake(&client, &number);
    for _ in 0..3 {
        client.verify(&number, "12345").expect_problem(422, "invalid_otp");
        let of_another = json!({ "mobileNumber": number, "otp": other_than(&otp), "otpId": "0198c7a4-0000-7000-8000-000000000000" });
        client.post("/verify-otp", &of_another).expect_problem(404, "otp_not_found");
    }
    guess_wrong(&client, &number, &otp);
    guess_wrong(&client, &number, &otp);
    (0..3).for_each(|_| {
        drop(client.verify(&number, &other_than(&otp)).expect_problem(429, "attempts_exceeded"))
    });
    let otp = remake(&client, &number);
    guess_wrong(&client, &number, &otp);
    all_calls_are_refused(&client, &number, &otp);
}

#[test]
fn of_40_wrong_codes_at_once_no_more_than_allowed_are_compared() {
    let service = locking_after(5).variable("max_verify_attempts", "100").start();
    let client = service.client();
    for _ in 0..5 {
        let number = number();
        let otp = make(&client, &number);
        let before = outbox(&service).len();
        let wrong = other_than(&otp);
        let answers = at_once(40, |index| {
            // Another wrong one each.
            client.verify(&number, &format!("{}{:02}", &wrong[..8], index))
        });
        let compared = answers.iter().filter(|answer| answer.status == 422).count();
        assert_eq!(compared, 5);
        for answer in answers.iter().filter(|answer| answer.status != 422) {
            is_locked(answer);
        }
        is_locked(&client.verify(&number, &otp));
        let reasons: Vec<_> =
            outbox(&service)[before..].iter().map(|event| event["data"]["reason"].clone()).collect();
        assert_eq!(reasons.iter().filter(|reason| *reason == "wrong").count(), 4, "{reasons:?}");
    }
}

#[test]
fn of_guesses_at_ever_new_codes_at_once_no_more_than_allowed_are_compared() {
    let service = locking_after(6).start();
    let client = service.client();
    for _ in 0..3 {
        let number = number();
        make(&client, &number);
        let answers = at_once(40, |index| {
            if index % 4 == 0 { client.regenerate(&number) } else { client.verify(&number, "0000000001") }
        });
        // Unless one of ten thousand million is the code, none was right.
        let compared = answers.iter().filter(|answer| answer.status == 422).count();
        assert!(compared <= 6, "{compared}");
        let refused = answers.iter().filter(|answer| answer.status == 429).count();
        assert!(refused > 0);
    }
}

#[test]
fn a_lock_outlives_the_host() {
    let mut service = locking_after(2).start();
    let (locked, once) = (number(), number());
    let client = service.client();
    let (otp, other) = (make(&client, &locked), make(&client, &once));
    guess_wrong(&client, &once, &other);
    guess_wrong(&client, &locked, &otp);
    guess_wrong(&client, &locked, &otp);
    service.kill();
    service.restart();
    let client = service.client();
    all_calls_are_refused(&client, &locked, &otp);
    guess_wrong(&client, &once, &other);
    all_calls_are_refused(&client, &once, &other);
}

#[test]
fn events_tell_of_a_lock() {
    let service = locking_after(2).variable("rate_limit_requests", "5").start();
    let (client, number) = (service.client(), number());
    let otp = make(&client, &number);
    guess_wrong(&client, &number, &otp);
    guess_wrong(&client, &number, &otp);
    is_locked(&client.verify(&number, &otp));
    is_locked(&client.resend(&number));
    is_locked(&client.regenerate(&number));
    is_locked(&client.post("/generate-otp", &json!({ "mobileNumber": number })));
    let events = outbox(&service);
    let told: Vec<_> = events
        .iter()
        .map(|event| (event["type"].as_str().unwrap(), event["data"]["reason"].as_str().unwrap_or_default()))
        .collect();
    assert_eq!(
        told,
        [
            ("otp.generated.v1", ""),
            ("otp.verification-failed.v1", "wrong"),
            ("otp.locked.v1", "number_locked"),
            ("otp.verification-failed.v1", "number_locked"),
            // The first of a window only.
            ("otp.limited.v1", "number_locked"),
        ]
    );
    let nothing_to_deliver = |event: &Value| event["data"].get("sealedOtp").is_none();
    assert!(events[1..].iter().all(nothing_to_deliver));
}

#[test]
fn a_refusal_for_a_lock_does_not_count_as_a_code_sent() {
    let service = locking_after(1).variable("lock_seconds", "1").variable("rate_limit_requests", "2").start();
    let (client, number) = (service.client(), number());
    let otp = make(&client, &number);
    guess_wrong(&client, &number, &otp);
    for _ in 0..3 {
        is_locked(&client.regenerate(&number));
    }
    eventually("the end of the lock", SOON, || client.verify(&number, &otp).status == 200);
    client.regenerate(&number).expect(201);
    client.regenerate(&number).expect_problem(429, "rate_limited");
}

#[test]
fn a_number_that_is_at_its_limit_too_is_said_to_be_locked() {
    let service = locking_after(1).variable("rate_limit_requests", "1").start();
    let (client, number) = (service.client(), number());
    let otp = make(&client, &number);
    client.resend(&number).expect_problem(429, "rate_limited");
    guess_wrong(&client, &number, &otp);
    // Who comes back when the limit lets it would be refused again.
    all_calls_are_refused(&client, &number, &otp);
}
