//! Requests that meet in the database at the same moment: whichever it is, each is as if it were alone.

use crate::bearer;
use harness::{Client, Response, Service, at_once, number, temporary_folder, unused_address};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Mutex};

/// With the database counting, also where the suite runs with a cache.
fn without_cache() -> harness::Builder {
    Service::builder()
        .variable("redis_endpoint", "")
        .variable("pumping_guard", "false")
        .variable("rate_limit_requests", "0")
}

fn keyed(client: &Client, path: &str, key: &str, number: &str) -> Response {
    client.post_with(path, &[("idempotency-key", key)], &json!({ "mobileNumber": number }))
}

fn statuses<'a>(answers: impl IntoIterator<Item = &'a Response>) -> BTreeMap<u16, usize> {
    let mut statuses = BTreeMap::new();
    answers.into_iter().for_each(|answer| *statuses.entry(answer.status).or_default() += 1);
    statuses
}

#[test]
fn the_database_lets_exactly_as_many_through_as_a_meter_says() {
    for (limit, code) in [("client_rate_limit", "rate_limited"), ("global_rate_limit", "rate_limited")] {
        let folder = temporary_folder();
        let hosts = at_once(2, |_| without_cache().variable(limit, "7/3600").state(folder.path()).start());
        let clients: Vec<_> = hosts.iter().map(Service::client).collect();
        let answers = at_once(40, |index| clients[index % 2].try_generate(&number()));
        assert_eq!(statuses(&answers), [(201, 7), (429, 33)].into(), "{limit}");
        answers.iter().filter(|answer| answer.status == 429).for_each(|answer| {
            answer.expect_problem(429, code);
        });
        let events = hosts[0]
            .sql()
            .number("SELECT count(*) FROM outbox WHERE event ->> '$.type' = ?1", &[&"otp.generated.v1"]);
        assert_eq!(events, 7);
    }
}

#[test]
fn with_two_meters_at_once_the_smaller_one_decides_and_the_other_charges_for_no_more() {
    let service = without_cache()
        .variable("client_rate_limit", "9/3600")
        .variable("global_rate_limit", "6/3600")
        .start();
    let client = service.client();
    let answers = at_once(30, |_| client.try_generate(&number()));
    assert_eq!(statuses(&answers), [(201, 6), (429, 24)].into());
    // The client has three left, for calls that everybody's meter does not count.
    let guesses = at_once(10, |_| client.verify(&number(), "000000"));
    assert_eq!(statuses(&guesses), [(404, 3), (429, 7)].into());
}

#[test]
fn of_one_key_for_two_numbers_at_once_one_number_has_it_and_the_other_hears_so() {
    let folder = temporary_folder();
    let hosts = at_once(2, |_| Service::builder().without_limits().state(folder.path()).start());
    for round in 0..10 {
        let (numbers, key) = ([number(), number()], format!("round-{round}"));
        // Sometimes both numbers are known, and sometimes neither.
        if round % 2 == 1 {
            numbers.iter().for_each(|number| drop(hosts[0].client().generate(number)));
        }
        let answers = at_once(16, |index| {
            keyed(&hosts[index / 2 % 2].client(), "/generate-otp", &key, &numbers[index % 2])
        });
        let of = |winner: usize| answers.iter().skip(winner).step_by(2);
        let winner = usize::from(of(0).all(|answer| answer.status != 201));
        assert_eq!(statuses(of(winner)), [(201, 8)].into());
        of(1 - winner).for_each(|answer| drop(answer.expect_problem(422, "idempotency_key_reused")));
        let first = of(winner).next().unwrap();
        assert!(of(winner).all(|answer| answer.body == first.body));
        let new = of(winner).filter(|answer| answer.header("idempotent-replayed").is_empty()).count();
        assert_eq!(new, 1);
        // And it has left no trace of the other.
        let sent = "SELECT count(*) FROM outbox WHERE event ->> '$.data.mobileNumber' = ?1";
        let sent = |number: &String| hosts[0].sql().number(sent, &[number]);
        let before = i64::from(round % 2);
        assert_eq!((sent(&numbers[winner]), sent(&numbers[1 - winner])), (before + 1, before));
    }
}

/// The number of an event.
fn sequence(event: &Value) -> String {
    event["sequence"].as_str().unwrap().to_owned()
}

#[test]
fn while_a_number_is_erased_again_and_again_its_codes_and_events_only_ever_grow() {
    let service = Service::builder().without_limits().start();
    for _ in 0..3 {
        let number = number();
        let answers = at_once(24, |index| {
            let client = service.client();
            (0..4)
                .map(|_| match index % 3 {
                    0 => client.erase(&number),
                    1 => client.try_generate(&number),
                    _ => client.regenerate(&number),
                })
                .collect::<Vec<_>>()
        });
        for answer in answers.iter().flatten() {
            assert!([201, 204, 404].contains(&answer.status), "{answer:?}");
        }
        // What is there is newer than all that was erased.
        let client = service.client();
        let made = client.generate(&number);
        assert_eq!(client.resend(&number).expect(200)["otp"], made["otp"]);
        let newest = "SELECT event FROM outbox ORDER BY sequence DESC LIMIT 1";
        let before = service.sql().documents(newest, &[]).remove(0);
        assert_eq!(client.erase(&number).status, 204);
        let erased = service.sql().documents(newest, &[]).remove(0);
        assert_eq!(erased["type"], "user.erased.v1");
        assert!(sequence(&erased) > sequence(&before), "{erased} after {before}");
        client.generate(&number);
        let after = service.sql().documents(newest, &[]).remove(0);
        assert!(sequence(&after) > sequence(&erased), "{after} after {erased}");
        assert!(after["data"]["version"].as_i64() > erased["data"]["version"].as_i64());
        assert_eq!(client.erase(&number).status, 204);
    }
}

/// Requests of each worker, of whatever kind.
const ROUNDS: usize = 100;

#[test]
fn whatever_meets_nobody_hears_that_the_service_failed() {
    let nobody = format!("http://{}", unused_address());
    let folder = temporary_folder();
    let hosts = at_once(2, |_| {
        without_cache()
            .variable("client_rate_limit", "1000000/1")
            .variable("global_rate_limit", "1000000/1")
            .variable("pumping_guard", "true")
            .variable("pumping_min_sends", "1000000")
            // Nobody is there, so events are claimed and given up all the time.
            .variable("relay_url", &nobody)
            .variable("relay_token", "a-token-of-the-purge")
            .state(folder.path())
            .start()
    });
    // Few numbers and few keys, so that much meets.
    let numbers: Vec<_> = (0..4).map(|_| number()).collect();
    let failed = Mutex::new(Vec::new());
    let authorization = bearer("a-token-of-the-purge");
    at_once(24, |worker| {
        let client = hosts[worker % 2].client();
        for round in 0..ROUNDS {
            // No two workers in step.
            let step = worker * 7 + round * 5 + round / 3;
            let number = &numbers[step % numbers.len()];
            let key = format!("key-{}", step % 6 + round / 20 * 6);
            let answer = match step % 11 {
                0 | 1 => keyed(&client, "/generate-otp", &key, number),
                2 | 3 => keyed(&client, "/regenerate-otp", &key, number),
                4 => client.try_generate(number),
                5 => client.resend(number),
                6 | 7 => client.verify(number, "000000"),
                8 => client.erase(number),
                9 => client.regenerate(number),
                _ => client.send("POST", "/internal/purge", &[("authorization", &authorization)], b""),
            };
            if answer.status >= 500 {
                failed.lock().unwrap().push(format!("{} {}", step % 11, answer.json()));
            }
        }
    });
    let failed = failed.into_inner().unwrap();
    let logs: String = hosts.iter().map(Service::log).collect();
    let reasons: Vec<_> = logs.lines().filter(|line| line.contains("unavailable")).take(5).collect();
    assert!(failed.is_empty(), "{}: {:?}\n{reasons:?}", failed.len(), &failed[..failed.len().min(5)]);
    // And all is as it was: guessed at too often, some number may be locked.
    for number in &numbers {
        assert_eq!(hosts[0].client().erase(number).status, 204);
        hosts[1].client().generate(number);
    }
}
