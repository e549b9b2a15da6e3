//! The limit of a number: at most so many codes in any window.

use crate::outbox_of;
use harness::{Client, Redis, Response, Service, at_once, eventually, number, temporary_folder};
use serde_json::json;
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(30);

/// What clocks of this machine may differ by.
const JITTER: Duration = Duration::from_millis(20);

fn limited(requests: u32, window_seconds: u32) -> harness::Builder {
    Service::builder()
        .variable("pumping_guard", "false")
        .variable("rate_limit_requests", &requests.to_string())
        .variable("rate_limit_window_seconds", &window_seconds.to_string())
}

/// Each of the calls that send a number a code.
fn send_by(client: &Client, call: usize, number: &str) -> Response {
    match call % 3 {
        0 => client.try_generate(number),
        1 => client.resend(number),
        _ => client.regenerate(number),
    }
}

#[track_caller]
fn refused(answer: &Response) {
    answer.expect_problem(429, "rate_limited");
}

/// How many of these went through; all others must have been refused for the limit.
#[track_caller]
fn accepted<'a>(answers: impl IntoIterator<Item = &'a Response>) -> usize {
    let mut accepted = 0;
    for answer in answers {
        match answer.status {
            200 | 201 => accepted += 1,
            _ => refused(answer),
        }
    }
    accepted
}

#[test]
fn of_thirty_requests_at_once_as_many_pass_as_the_limit_says() {
    let service = limited(5, 600).start();
    let client = service.client();
    for _ in 0..4 {
        let number = number();
        assert_eq!(accepted(&at_once(30, |_| client.try_generate(&number))), 5);
        assert_eq!(accepted(&at_once(6, |call| send_by(&client, call, &number))), 0);
    }
    // Mixed calls of a number that is known.
    let number = number();
    client.generate(&number);
    assert_eq!(accepted(&at_once(30, |call| send_by(&client, call, &number))), 4);
}

#[test]
fn services_that_share_a_database_share_the_limit() {
    let folder = temporary_folder();
    // With a Redis of its own each, where the suite runs with Redis: the database decides.
    let services = at_once(2, |_| limited(5, 600).state(folder.path()).start());
    let clients: Vec<_> = services.iter().map(Service::client).collect();
    for _ in 0..3 {
        let number = number();
        assert_eq!(accepted(&at_once(30, |index| clients[index % 2].try_generate(&number))), 5);
    }
}

#[test]
fn generate_resend_and_regenerate_count_together() {
    let service = limited(4, 600).start();
    let client = service.client();
    let known = number();
    client.generate(&known);
    client.resend(&known).expect(200);
    client.regenerate(&known).expect(201);
    client.resend(&known).expect(200);
    for call in 0..6 {
        refused(&send_by(&client, call, &known));
    }
    // Other numbers have their own.
    assert_eq!(accepted(&[client.try_generate(&number())]), 1);
}

#[test]
fn what_is_refused_or_fails_does_not_count() {
    let service = limited(4, 600).variable("otp_length", "10").variable("max_verify_attempts", "1").start();
    let (client, number) = (service.client(), number());
    let several = |call: &dyn Fn()| (0..6).for_each(|_| call());
    several(&|| drop(client.resend(&number).expect_problem(404, "otp_not_found")));
    several(&|| drop(client.regenerate(&number).expect_problem(404, "otp_not_found")));
    several(&|| {
        let body = json!({ "mobileNumber": number, "channel": "pigeon" });
        client.post("/generate-otp", &body).expect_problem(422, "invalid_channel");
    });
    let otp = client.generate(&number)["otp"].as_str().unwrap().to_owned();
    client.verify(&number, &otp).expect(200);
    several(&|| drop(client.resend(&number).expect_problem(410, "otp_used")));
    client.regenerate(&number).expect(201);
    client.verify(&number, "0000000000").expect(422);
    several(&|| drop(client.resend(&number).expect_problem(410, "otp_locked")));
    // Two of four.
    assert_eq!(accepted(&at_once(12, |_| client.try_generate(&number))), 2);
}

#[test]
fn a_code_that_has_expired_does_not_count_when_it_is_asked_for_again() {
    let service = limited(2, 600).variable("otp_ttl_seconds", "1").start();
    let (client, number) = (service.client(), number());
    client.generate(&number);
    thread::sleep(Duration::from_millis(1_100));
    for _ in 0..4 {
        client.resend(&number).expect_problem(410, "otp_expired");
    }
    client.regenerate(&number).expect(201);
    refused(&client.regenerate(&number));
}

#[test]
fn what_is_refused_is_not_done() {
    let service = limited(1, 600).start();
    let (client, number) = (service.client(), number());
    let made = client.generate(&number);
    (0..3).for_each(|call| refused(&send_by(&client, call, &number)));
    client.verify(&number, made["otp"].as_str().unwrap()).expect(200);
}

/// Has `send` refused at least once, and holds what it is told to against what happens then: until there is room
/// again, `wait` after the moment of the first request, every answer is a refusal, and who has waited as long as
/// `Retry-After` says is let in.
#[track_caller]
pub(crate) fn wait_is_true(requests: usize, wait: Duration, mut send: impl FnMut() -> Response) {
    let first_asked = Instant::now();
    let answer = send();
    assert!(answer.status < 300, "{answer:?}");
    let first_answered = Instant::now();
    for _ in 1..requests {
        let answer = send();
        assert!(answer.status < 300, "{answer:?}");
    }
    let asked = Instant::now();
    let answer = send();
    let answered = Instant::now();
    assert!(answered - first_asked < wait, "the machine is too slow for this test");
    refused(&answer);
    let told = Duration::from_secs(answer.retry_after());
    // The moments at which the service decided lie somewhere between question and answer.
    let whole = |left: Duration| Duration::from_secs(left.as_millis().div_ceil(1_000) as u64);
    let longest = whole(wait + JITTER - (asked - first_answered));
    let shortest = whole((wait - (answered - first_asked)).saturating_sub(JITTER));
    assert!((shortest..=longest).contains(&told), "told {told:?}: {shortest:?} to {longest:?}");
    let mut refusals = 0;
    loop {
        let asked = Instant::now();
        let answer = send();
        if asked >= answered + told {
            assert!(answer.status < 300, "waited {told:?} as told, and was refused: {answer:?}");
            break;
        }
        if first_asked + wait > Instant::now() + JITTER {
            refused(&answer);
            refusals += 1;
        } else if answer.status < 300 {
            break;
        }
        // Refusals in between put nothing off.
        thread::sleep(Duration::from_millis(50));
    }
    assert!(refusals > 0);
}

#[test]
fn who_has_waited_as_long_as_told_is_let_in_and_nobody_before() {
    let service = limited(2, 4).start();
    let (client, number) = (service.client(), number());
    wait_is_true(2, Duration::from_secs(4), || client.try_generate(&number));
}

#[test]
fn every_answer_that_counts_tells_how_much_is_left() {
    let service = limited(5, 600).start();
    let (client, number) = (service.client(), number());
    for call in 0..7 {
        let answer = send_by(&client, call, &number);
        let [(name, policy)] = &answer.quotas("ratelimit-policy")[..] else { panic!("{answer:?}") };
        assert_eq!((&**name, policy["q"], policy["w"]), ("number", 5, 600));
        let [(name, state)] = &answer.quotas("ratelimit")[..] else { panic!("{answer:?}") };
        assert_eq!((&**name, state["r"]), ("number", (4 - call as i64).max(0)));
        assert!((590..=600).contains(&state["t"]), "{state:?}");
        if call >= 5 {
            refused(&answer);
            assert_eq!(state["t"], answer.retry_after() as i64);
        } else {
            assert_eq!(answer.header("retry-after"), "");
        }
    }
    for answer in
        [client.verify(&number, "000000"), client.resend(&harness::number()), client.get("/healthz")]
    {
        assert_eq!(answer.header("ratelimit"), "", "does not count: {answer:?}");
    }
}

#[test]
fn zero_is_no_limit_and_nothing_is_said_of_one() {
    let service = limited(0, 600).start();
    let (client, number) = (service.client(), number());
    for call in 0..130 {
        let answer = send_by(&client, call, &number);
        assert!(answer.status < 300, "{answer:?}");
        for field in ["ratelimit", "ratelimit-policy", "retry-after"] {
            assert_eq!(answer.header(field), "");
        }
    }
}

#[test]
fn the_limit_can_be_lowered_and_raised_and_switched_off() {
    let folder = temporary_folder();
    let number = number();
    let sent = |requests, tries| {
        let service = limited(requests, 600).state(folder.path()).start();
        let client = service.client();
        accepted(&at_once(tries, |_| client.try_generate(&number)))
    };
    assert_eq!(sent(6, 10), 6);
    assert_eq!(sent(3, 3), 0);
    assert_eq!(sent(8, 10), 2);
    assert_eq!(sent(0, 10), 10);
}

#[test]
fn limits_that_make_no_sense_are_named() {
    for (variable, value) in [
        ("rate_limit_requests", "101"),
        ("rate_limit_requests", "-1"),
        ("rate_limit_requests", "five"),
        ("rate_limit_requests", "1.5"),
        ("rate_limit_requests", ""),
        ("rate_limit_window_seconds", "0"),
        ("rate_limit_window_seconds", "86401"),
        ("rate_limit_window_seconds", "10m"),
        ("rate_limit_window_seconds", ""),
    ] {
        let service = Service::builder().variable(variable, value).start();
        let problem = service.client().try_generate(&number()).expect_problem(503, "misconfigured");
        assert!(problem["detail"].as_str().unwrap().contains(variable), "{variable}={value}: {problem}");
    }
}

#[test]
fn the_first_refusal_of_a_window_is_put_on_record_and_no_other() {
    let service = limited(2, 600).start();
    let client = service.client();
    let one = number();
    client.generate(&one);
    client.resend(&one).expect(200);
    at_once(12, |call| refused(&send_by(&client, call, &one)));
    (0..3).for_each(|call| refused(&send_by(&client, call, &one)));
    let events_of_one = outbox_of(&service, "otp.limited.v1");
    let [event] = &events_of_one[..] else { panic!("{events_of_one:?}") };
    assert_eq!(event["data"]["reason"], "rate_limited");
    assert_eq!(event["data"]["mobileNumber"], one.as_str());
    assert!(event["data"].get("sealedOtp").is_none(), "nothing to deliver: {event}");
    assert_eq!(event["subject"], outbox_of(&service, "otp.generated.v1")[0]["subject"]);
    // Another number has its own.
    let other = number();
    assert_eq!(accepted(&at_once(4, |_| client.try_generate(&other))), 2);
    assert_eq!(outbox_of(&service, "otp.limited.v1").len(), 2);
}

#[test]
fn a_refusal_is_one_whatever_the_request_before_it_brought() {
    let service = limited(1, 600).start();
    let (client, number) = (service.client(), number());
    let body = json!({ "mobileNumber": number });
    let key = [("idempotency-key", "\"order-66\"")];
    let made = client.post_with("/generate-otp", &key, &body).expect(201);
    refused(&client.try_generate(&number));
    // And the retry hears what it heard.
    assert_eq!(client.post_with("/generate-otp", &key, &body).expect(201), made);
}

#[test]
fn the_first_refusal_of_the_next_window_is_put_on_record_again() {
    let service = limited(1, 2).start();
    let (client, number) = (service.client(), number());
    let until_refused = || eventually("a refusal", SOON, || client.try_generate(&number).status == 429);
    until_refused();
    let first = Instant::now();
    // What went through before that was slow, and left nothing.
    assert_eq!(outbox_of(&service, "otp.limited.v1").len(), 1);
    thread::sleep((first + Duration::from_millis(2_050)).saturating_duration_since(Instant::now()));
    until_refused();
    assert_eq!(outbox_of(&service, "otp.limited.v1").len(), 2);
}

#[test]
fn refusals_after_the_first_write_nothing() {
    let service = limited(2, 600).start();
    let client = service.client();
    let (one, other) = (number(), number());
    client.generate(&one);
    client.generate(&one);
    client.generate(&other);
    refused(&client.try_generate(&one));
    // So they wait for no other writer.
    let hold = service.hold_writes();
    for call in 0..6 {
        let answer = send_by(&client, call, &one);
        refused(&answer);
        assert!((590..=600).contains(&answer.retry_after()));
        assert_eq!(answer.quotas("ratelimit")[0].1["r"], 0);
        assert_eq!(answer.quotas("ratelimit-policy")[0].1["q"], 2);
    }
    client.regenerate(&other).expect_problem(503, "unavailable");
    hold.release();
}

#[test]
fn an_erased_number_can_be_sent_a_code_at_once() {
    let service = limited(1, 600).start();
    let client = service.client();
    for round in 0..20 {
        let number = number();
        client.generate(&number);
        refused(&client.try_generate(&number));
        assert_eq!(client.erase(&number).status, 204);
        let answer = client.try_generate(&number);
        assert_eq!(answer.status, 201, "round {round}: {answer:?}");
        assert_eq!(client.erase(&number).status, 204);
    }
}

#[test]
fn an_account_of_an_old_snapshot_refuses_nobody_whose_window_has_passed() {
    let mut redis = Redis::start();
    let service = limited(1, 3).variable("redis_endpoint", &redis.endpoint()).start();
    let (client, number) = (service.client(), number());
    eventually("a refusal", SOON, || client.try_generate(&number).status == 429);
    eventually("caching", SOON, || !redis.keys().is_empty());
    redis.save();
    let answer = client.try_generate(&number);
    let wait = if answer.status == 429 { answer.retry_after() } else { 3 };
    thread::sleep(Duration::from_secs(wait));
    redis.restart();
    let asked = Instant::now();
    let answer = client.try_generate(&number);
    assert_eq!(answer.status, 201, "{answer:?}");
    // And what Redis has forgotten, the database knows.
    redis.restart_empty();
    let again = client.try_generate(&number);
    if asked.elapsed() < Duration::from_secs(3) {
        refused(&again);
    }
}

/// Sends one number codes from several threads while `trouble` does its worst, and checks that no window ever
/// saw more than the limit: by the answers, and by the moments that the database keeps.
fn never_more_than_the_limit(service: &Service, limit: usize, window: Duration, trouble: impl FnOnce()) {
    let (number, stopped) = (number(), AtomicBool::new(false));
    let window_millis = window.as_millis() as i64;
    service.client().generate(&number);
    let (mut answers, moments) = thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|worker| {
                let (client, number, stopped) = (service.client(), &number, &stopped);
                scope.spawn(move || {
                    let mut accepted = Vec::new();
                    for call in worker.. {
                        if stopped.load(Ordering::Relaxed) {
                            break;
                        }
                        let asked = Instant::now();
                        let answer = send_by(&client, call, number);
                        match answer.status {
                            200 | 201 => accepted.push((asked, Instant::now())),
                            _ => refused(&answer),
                        }
                        thread::sleep(Duration::from_millis(2));
                    }
                    accepted
                })
            })
            .collect();
        let watcher = scope.spawn(|| {
            let database = service.sql();
            // Each moment, and how often it was seen at the same time.
            let mut moments = BTreeMap::<i64, usize>::new();
            while !stopped.load(Ordering::Relaxed) {
                let sends = database.text("SELECT sends FROM accounts WHERE recipient = ?1", &[&number]);
                let sends: Vec<i64> = serde_json::from_str(&sends).unwrap();
                for moment in &sends {
                    let times = sends.iter().filter(|other| *other == moment).count();
                    let known = moments.entry(*moment).or_default();
                    *known = times.max(*known);
                }
                thread::sleep(Duration::from_millis(20));
            }
            moments
        });
        trouble();
        stopped.store(true, Ordering::Relaxed);
        let answers: Vec<_> = workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect();
        (answers, watcher.join().unwrap())
    });
    for moment in moments.keys() {
        let within = moments.range(moment - window_millis + 1..=*moment);
        let sent: usize = within.map(|(_, times)| times).sum();
        assert!(sent <= limit, "{sent} codes within the window that ends at {moment}: {moments:?}");
    }
    answers.sort();
    for (start, _) in &answers {
        let surely_within =
            |(asked, answered): &&(Instant, Instant)| asked >= start && *answered + JITTER < *start + window;
        let sent = answers.iter().filter(surely_within).count();
        assert!(sent <= limit, "{sent} codes within one window");
    }
    assert!(answers.len() > limit, "more than one window was looked at: {}", answers.len());
}

#[test]
fn no_window_sees_more_than_the_limit() {
    let service = limited(3, 1).start();
    never_more_than_the_limit(&service, 3, Duration::from_secs(1), || {
        thread::sleep(Duration::from_millis(3_500));
    });
}

#[test]
fn no_window_sees_more_than_the_limit_while_redis_dies_and_comes_back_empty() {
    let mut redis = Redis::start();
    let service = limited(3, 1).variable("redis_endpoint", &redis.endpoint()).start();
    never_more_than_the_limit(&service, 3, Duration::from_secs(1), || {
        for _ in 0..3 {
            thread::sleep(Duration::from_millis(500));
            redis.kill();
            thread::sleep(Duration::from_millis(400));
            redis.restart_empty();
        }
        thread::sleep(Duration::from_millis(700));
    });
}

#[test]
fn no_window_sees_more_than_the_limit_while_redis_goes_back_to_an_old_snapshot() {
    let mut redis = Redis::start();
    let service = limited(3, 1).variable("redis_endpoint", &redis.endpoint()).start();
    never_more_than_the_limit(&service, 3, Duration::from_secs(1), || {
        thread::sleep(Duration::from_millis(400));
        redis.save();
        for _ in 0..4 {
            thread::sleep(Duration::from_millis(500));
            redis.restart();
        }
        thread::sleep(Duration::from_millis(500));
    });
}
