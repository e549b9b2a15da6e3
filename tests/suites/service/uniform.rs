//! `uniform_responses`: nobody can tell a known number from an unknown one, not even by a watch.

use crate::{delivered, other_than, outbox, suspend};
use harness::{Builder, Client, Response, Service, bulk_number, number, temporary_folder};
use otp_seal::KeyRing;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Instant};

const SENDS: [&str; 3] = ["/generate-otp", "/resend-otp", "/regenerate-otp"];

fn uniform() -> Builder {
    Service::builder()
        .variable("uniform_responses", "true")
        .variable("reveal_otp", "false")
        .variable("pumping_guard", "false")
        .variable("otp_length", "10")
}

fn send(client: &Client, path: &str, number: &str) -> Response {
    client.post(path, &json!({ "mobileNumber": number }))
}

/// Any of the four calls; a check is a wrong guess.
fn ask(client: &Client, path: &str, number: &str) -> Response {
    match path {
        "/verify-otp" => client.verify(number, "0123456789"),
        _ => send(client, path, number),
    }
}

/// All of an answer but what is different in every one: number, id and moment.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    status: u16,
    fields: BTreeMap<String, Vec<String>>,
    body: String,
}

fn seen(answer: &Response, number: &str) -> Seen {
    let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in &answer.headers {
        fields.entry(name.to_string()).or_default().push(value.to_str().unwrap().to_owned());
    }
    fields.remove("x-request-id");
    fields.remove("date");
    let body = String::from_utf8(answer.body.clone()).unwrap().replace(number, "NUMBER");
    Seen { status: answer.status, fields, body }
}

fn change(service: &Service, statement: &str, number: &str) {
    assert_eq!(service.sql().execute(statement, &[&number]), 1);
}

fn code_of(service: &Service, number: &str) -> String {
    delivered(service, &KeyRing::development(), number)
}

/// What a number can be like, and what brings it there.
const STATES: [&str; 8] =
    ["unknown", "known", "wrongly guessed", "used", "expired", "limited", "no attempts left", "locked"];

/// Two codes in a window, two guesses a code, three wrong ones in a row.
fn with_states() -> Service {
    uniform()
        .variable("rate_limit_requests", "2")
        .variable("max_verify_attempts", "2")
        .variable("max_consecutive_failures", "3")
        .start()
}

fn number_that_is(state: &str, service: &Service) -> String {
    let (client, number) = (service.client(), number());
    if state == "unknown" {
        return number;
    }
    send(&client, "/generate-otp", &number).expect(202);
    let guess_wrong = || client.verify(&number, &other_than(&code_of(service, &number))).expect(422);
    match state {
        "known" => {}
        "wrongly guessed" => drop(guess_wrong()),
        "used" => drop(client.verify(&number, &code_of(service, &number)).expect(200)),
        "expired" => {
            change(service, "UPDATE accounts SET expires_at = created_at WHERE recipient = ?1", &number)
        }
        "limited" => drop(send(&client, "/regenerate-otp", &number).expect(202)),
        "no attempts left" => (0..2).for_each(|_| drop(guess_wrong())),
        "locked" => {
            (0..2).for_each(|_| drop(guess_wrong()));
            send(&client, "/regenerate-otp", &number).expect(202);
            guess_wrong();
        }
        other => panic!("no such state: {other}"),
    }
    number
}

#[test]
fn it_needs_answers_without_codes() {
    let service = Service::builder().variable("uniform_responses", "true").start();
    let client = service.client();
    for answer in [client.get("/readyz"), client.resend(&number())] {
        let problem = answer.expect_problem(503, "misconfigured");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("uniform_responses") && detail.contains("reveal_otp"), "{detail}");
    }
    let service = Service::builder().variable("uniform_responses", "perhaps").start();
    let problem = service.client().get("/readyz").expect_problem(503, "misconfigured");
    assert!(problem["detail"].as_str().unwrap().contains("uniform_responses"), "{problem}");
}

#[test]
fn whoever_asks_for_a_code_hears_the_same_of_every_number() {
    let service = with_states();
    let client = service.client();
    for path in SENDS {
        let mut expected = None;
        for state in STATES {
            let number = number_that_is(state, &service);
            for attempt in 0..3 {
                let answer = send(&client, path, &number);
                assert_eq!(answer.expect(202), json!({ "mobileNumber": number, "accepted": true }));
                let seen = seen(&answer, &number);
                let expected = expected.get_or_insert_with(|| format!("{seen:?}"));
                assert_eq!(format!("{seen:?}"), *expected, "{path}, {state}, attempt {attempt}");
            }
        }
    }
    // None of the three paths is told from the others, either.
    let bodies = SENDS.map(|path| send(&client, path, "+14155559999").body);
    assert!(bodies.iter().all(|body| *body == bodies[0]));
}

#[test]
fn whoever_guesses_hears_the_same_of_every_number() {
    let service = with_states();
    let client = service.client();
    let mut expected = None;
    let mut alike = |what: &str, number: &str, answer: &Response| {
        let problem = answer.expect_problem(422, "otp_mismatch");
        assert!(problem.get("attemptsRemaining").is_none(), "{what}: {problem}");
        let seen = seen(answer, number);
        let expected = expected.get_or_insert_with(|| format!("{seen:?}"));
        assert_eq!(format!("{seen:?}"), *expected, "{what}");
    };
    for state in STATES {
        let number = number_that_is(state, &service);
        let wrong = match state {
            "unknown" => "0123456789".to_owned(),
            _ => other_than(&code_of(&service, &number)),
        };
        (0..4).for_each(|_| alike(state, &number, &client.verify(&number, &wrong)));
        for id in ["0198c7a4-0000-7000-8000-000000000000", "no id"] {
            let body = json!({ "mobileNumber": number, "otp": wrong, "otpId": id });
            alike(
                &format!("{state}, with the id of another code"),
                &number,
                &client.post("/verify-otp", &body),
            );
        }
    }
    for state in ["used", "expired", "no attempts left", "locked"] {
        let number = number_that_is(state, &service);
        let right = code_of(&service, &number);
        alike(&format!("{state}, guessed right"), &number, &client.verify(&number, &right));
    }
}

#[test]
fn the_code_is_sent_all_the_same_and_good_once() {
    let service = uniform().start();
    let (client, number) = (service.client(), number());
    for path in SENDS {
        send(&client, path, &number).expect(202);
    }
    let otp = code_of(&service, &number);
    assert_eq!(client.verify(&number, &otp).expect(200)["verified"], true);
    client.verify(&number, &otp).expect_problem(422, "otp_mismatch");
    // Nobody is sent a code whose number nobody has made one for.
    let unknown = harness::number();
    send(&client, "/resend-otp", &unknown).expect(202);
    send(&client, "/regenerate-otp", &unknown).expect(202);
    let sent = outbox(&service);
    let for_unknown = |event: &&Value| event["data"]["mobileNumber"] == unknown.as_str();
    assert!(sent.iter().filter(for_unknown).all(|event| event["data"].get("sealedOtp").is_none()));
}

#[test]
fn what_is_wrong_with_the_request_itself_is_said() {
    let service = uniform().start();
    let client = service.client();
    for path in SENDS {
        send(&client, path, "+1").expect_problem(422, "invalid_mobile_number");
        client.post(path, &json!({})).expect_problem(400, "missing_field");
    }
    client.verify(&number(), "12").expect_problem(422, "invalid_otp");
}

#[test]
fn the_operator_learns_from_events_what_became_of_each_request() {
    let service = with_states();
    let client = service.client();
    client.get("/readyz").expect(200);
    let newest = |number: &str| {
        let events = outbox(&service);
        let of_number = |event: &&Value| event["data"]["mobileNumber"] == number;
        let newest = events.iter().rfind(of_number).unwrap_or_else(|| panic!("no event: {events:?}")).clone();
        (
            newest["type"].as_str().unwrap().to_owned(),
            newest["data"]["reason"].as_str().unwrap_or("").to_owned(),
        )
    };
    let limited = |reason: &str| ("otp.limited.v1".to_owned(), reason.to_owned());
    let failed = |reason: &str| ("otp.verification-failed.v1".to_owned(), reason.to_owned());
    for (state, path, event) in [
        ("unknown", "/resend-otp", limited("not_found")),
        ("unknown", "/regenerate-otp", limited("not_found")),
        ("used", "/resend-otp", limited("used")),
        ("expired", "/resend-otp", limited("expired")),
        ("limited", "/generate-otp", limited("rate_limited")),
        ("limited", "/resend-otp", limited("rate_limited")),
        ("limited", "/regenerate-otp", limited("rate_limited")),
        ("no attempts left", "/resend-otp", limited("locked")),
        ("locked", "/generate-otp", limited("number_locked")),
        ("unknown", "/verify-otp", failed("not_found")),
        ("used", "/verify-otp", failed("used")),
        ("expired", "/verify-otp", failed("expired")),
        ("no attempts left", "/verify-otp", failed("locked")),
        ("locked", "/verify-otp", failed("number_locked")),
    ] {
        let number = number_that_is(state, &service);
        let before = outbox(&service).len();
        for round in 1..=2 {
            ask(&client, path, &number);
            assert_eq!(outbox(&service).len(), before + round, "{state}, {path}: each is on record");
            assert_eq!(newest(&number), event, "{state}, {path}");
        }
    }
}

#[test]
fn a_key_that_is_tried_on_another_number_does_not_tell_of_the_first() {
    let service = with_states();
    let client = service.client();
    for path in ["/generate-otp", "/regenerate-otp"] {
        let told = STATES.map(|state| {
            let (number, other) = (number_that_is(state, &service), number());
            let key = [("idempotency-key", number.as_str())];
            let first = client.post_with(path, &key, &json!({ "mobileNumber": number }));
            let retry = client.post_with(path, &key, &json!({ "mobileNumber": number }));
            let another = client.post_with(path, &key, &json!({ "mobileNumber": other }));
            (state, [seen(&first, &number), seen(&retry, &number), seen(&another, &other)])
        });
        let expected = told[0].1.each_ref().map(|seen| seen.status);
        for (state, told_of_it) in &told {
            assert_eq!(told_of_it.each_ref().map(|seen| seen.status), expected, "{path}, {state}");
            assert_eq!(*told_of_it, told[0].1, "{path}, {state}");
        }
    }
}

#[test]
fn what_is_left_of_the_callers_own_limit_does_not_tell() {
    for (path, state) in [
        ("/resend-otp", "unknown"),
        ("/regenerate-otp", "unknown"),
        ("/generate-otp", "limited"),
        ("/resend-otp", "used"),
        ("/verify-otp", "unknown"),
        ("/verify-otp", "used"),
    ] {
        let statuses = ["known", state].map(|state| {
            let folder = temporary_folder();
            // Brought there without the limit, and asked with it.
            let sends = if state == "limited" { "2" } else { "100" };
            let limits = uniform().variable("rate_limit_requests", sends).state(folder.path());
            let number = number_that_is(state, &limits.clone().start());
            let service = limits.variable("client_rate_limit", "6/3600").start();
            let client = service.client();
            (0..9)
                .map(|_| {
                    // What is taken back is taken back after the answer.
                    std::thread::sleep(std::time::Duration::from_millis(20));
                    ask(&client, path, &number).status
                })
                .collect::<Vec<_>>()
        });
        assert_eq!(statuses[1], statuses[0], "{path}: {state} and known");
    }
}

#[test]
fn a_suspended_range_does_not_tell() {
    let service = uniform().variable("pumping_guard", "true").variable("rate_limit_requests", "1").start();
    let client = service.client();
    let known = number();
    send(&client, "/generate-otp", &known).expect(202);
    suspend(&service, &known[..5]);
    for path in SENDS {
        let unknown = number();
        let answers = [&known, &unknown].map(|number| {
            let mut seen = seen(&send(&client, path, number), number);
            // The seconds go by.
            let left = seen.fields.remove("retry-after");
            seen.body = seen
                .body
                .replace(&format!("{} s", left.map_or_else(String::new, |left| left.concat())), "n s");
            seen
        });
        assert_eq!(answers[0], answers[1], "{path}");
    }
}

/// Numbers of each kind in a round.
const SAMPLES: u32 = 150;

/// How often each one is asked for at first. The shortest time counts, as an attacker would have it: what a
/// machine does beside only ever adds to it.
const TRIES: u32 = 4;

/// Where the probability lies if the times tell nothing.
const NOTHING: std::ops::Range<f64> = 0.35..0.65;

/// The probability that a request of `ones` takes longer than one of `others`: the area under the curve of
/// the best test that there is of a single time (Mann and Whitney). One half if the times tell nothing.
fn longer(ones: &[f64], others: &[f64]) -> f64 {
    let mut sorted = others.to_vec();
    sorted.sort_by(f64::total_cmp);
    let below: usize = ones.iter().map(|one| sorted.partition_point(|other| other < one)).sum();
    let up_to: usize = ones.iter().map(|one| sorted.partition_point(|other| other <= one)).sum();
    (below + up_to) as f64 / 2.0 / (ones.len() * others.len()) as f64
}

/// Middle of three rounds of [`longer`], of what `ask` takes for the numbers of the one kind and the other,
/// which come in no order over one connection.
fn told_by_the_clock(
    what: &str,
    tries: u32,
    numbers: impl Fn(u32) -> [String; 2],
    ask: impl Fn(&str) -> Response,
) -> f64 {
    let mut dice: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut round = |round: u32| {
        let mut times = [Vec::new(), Vec::new()];
        for index in 0..SAMPLES {
            let mut shortest = [f64::MAX; 2];
            for again in 0..tries {
                let pair = numbers((round * SAMPLES + index) * tries + again);
                // Which one comes first: whatever a request leaves behind falls on both kinds alike.
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let first = usize::from(dice >> 63 == 1);
                for kind in [first, 1 - first] {
                    let start = Instant::now();
                    drop(ask(&pair[kind]));
                    shortest[kind] = shortest[kind].min(start.elapsed().as_secs_f64());
                }
            }
            times[0].push(shortest[0]);
            times[1].push(shortest[1]);
        }
        let told = longer(&times[0], &times[1]);
        let [one, other] = times.map(|mut times| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2] * 1e6
        });
        println!("{what}: {one:.0} and {other:.0} µs, {told:.3}");
        told
    };
    // The first is to warm up.
    let [_, one, two, three] = [0, 1, 2, 3].map(&mut round);
    let mut rounds = [one, two, three];
    rounds.sort_by(f64::total_cmp);
    println!("{what}: {rounds:.3?}");
    rounds[1]
}

/// Asks for numbers that are known, and for ones that are not.
fn known_or_not(what: &str, builder: Builder, path: &str, tries: u32) -> f64 {
    let service = builder
        .without_limits()
        .variable("max_verify_attempts", "100")
        .variable("max_consecutive_failures", "100")
        .start();
    let client = service.client();
    for index in 0..SAMPLES {
        let made = send(&client, "/generate-otp", &bulk_number(index));
        assert!([201, 202].contains(&made.status));
    }
    // An unknown one each time: having been asked for once, it may be known.
    let numbers = |turn: u32| [bulk_number(turn / tries % SAMPLES), bulk_number(10_000 + turn)];
    told_by_the_clock(what, tries, numbers, |number| {
        let answer = ask(&client, path, number);
        // One that is refused for its form tells nothing for another reason.
        assert_ne!(answer.status, 400);
        answer
    })
}

#[track_caller]
fn tells_nothing(what: &str, path: &str) {
    let auc = known_or_not(what, uniform(), path, TRIES);
    assert!(NOTHING.contains(&auc), "the time that an answer takes tells who is known: {auc:.3}");
}

#[test]
fn how_long_a_resend_takes_does_not_tell() {
    tells_nothing("resend, uniform", "/resend-otp");
}

#[test]
fn how_long_a_regeneration_takes_does_not_tell() {
    tells_nothing("regenerate, uniform", "/regenerate-otp");
}

#[test]
fn how_long_a_check_takes_does_not_tell() {
    tells_nothing("verify, uniform", "/verify-otp");
}

#[test]
fn how_long_a_generation_takes_does_not_tell() {
    tells_nothing("generate, uniform", "/generate-otp");
}

/// The less a machine has to spare, the more tries it takes.
#[test]
fn the_same_measurement_sees_a_difference_where_there_is_one() {
    // In a file, whatever the suites run with: a look there is so much quicker than a new code that few tries show it.
    let without = || Service::builder().variable("otp_length", "10").variable("postgres_endpoint", "");
    let measure = |tries| known_or_not("regenerate, not uniform", without(), "/regenerate-otp", tries);
    assert!([TRIES, 4 * TRIES, 16 * TRIES].into_iter().any(|tries| !NOTHING.contains(&measure(tries))));
}
