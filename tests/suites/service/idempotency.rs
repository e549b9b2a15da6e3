//! `Idempotency-Key`: a retry hears what was answered, and nothing happens twice.

use crate::{api_key, bearer, files_below, other_than, outbox, suspend, ten_digits};
use harness::{
    Builder, Client, Redis, Response, Service, at_once, eventually, number, temporary_folder, unused_address,
    with_redis,
};
use serde_json::{Value, json};
use std::{path::Path, thread, time::Duration};

const TOKEN: &str = "a-token-that-nobody-else-has";
const SOON: Duration = Duration::from_secs(30);

fn generate(client: &Client, key: &str, number: &str) -> Response {
    client.post_with("/generate-otp", &[("idempotency-key", key)], &json!({ "mobileNumber": number }))
}

fn regenerate(client: &Client, key: &str, number: &str) -> Response {
    client.post_with("/regenerate-otp", &[("idempotency-key", key)], &json!({ "mobileNumber": number }))
}

/// That this is `first` again, to the byte.
#[track_caller]
fn replays(again: &Response, first: &Response) {
    let text = |answer: &Response| String::from_utf8_lossy(&answer.body).into_owned();
    assert_eq!(text(again), text(first));
    assert_eq!((again.status, first.status), (201, 201));
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(again.header("content-type"), first.header("content-type"));
}

/// That this was done just now.
#[track_caller]
fn is_new(answer: &Response) -> Value {
    let body = answer.expect(201);
    assert_eq!(answer.header("idempotent-replayed"), "", "{body}");
    body
}

/// That this is `first` again, without its code.
#[track_caller]
fn replays_without_the_code(again: &Response, first: &Response) {
    let mut expected = first.expect(201);
    assert!(expected.as_object_mut().unwrap().remove("otp").is_some());
    assert_eq!(again.expect(201), expected);
    assert_eq!(again.header("idempotent-replayed"), "true");
}

fn otp(answer: &Response) -> String {
    answer.json()["otp"].as_str().unwrap().to_owned()
}

fn id(answer: &Response) -> String {
    answer.json()["otpId"].as_str().unwrap().to_owned()
}

/// Has what is kept for retries end so much earlier, and says how many of those there are.
fn age(service: &Service, seconds: i64) -> usize {
    service.sql().execute("UPDATE idempotency SET expires_at = expires_at - ?1", &[&(seconds * 1000)])
}

#[test]
fn a_retry_hears_the_same_answer_and_nothing_happens_twice() {
    let service = Service::builder().variable("rate_limit_requests", "3").start();
    let (client, number) = (service.client(), number());
    let first = generate(&client, "\"order-7\"", &number);
    is_new(&first);
    // A clock that has gone on shows in no field.
    thread::sleep(Duration::from_millis(1_100));
    for _ in 0..5 {
        replays(&generate(&client, "\"order-7\"", &number), &first);
    }
    let second = regenerate(&client, "\"order-8\"", &number);
    is_new(&second);
    assert_ne!(id(&second), id(&first));
    for _ in 0..5 {
        replays(&regenerate(&client, "\"order-8\"", &number), &second);
    }
    assert_eq!(outbox(&service).len(), 2);
    // Of three codes there is one left.
    assert!(client.resend(&number).header("ratelimit").contains("r=0"));
    client.verify(&number, &otp(&second)).expect(200);
}

#[test]
fn without_a_key_every_request_is_one_of_its_own() {
    let service = Service::builder().without_limits().start();
    let (client, number) = (service.client(), number());
    let ids = [(); 3].map(|()| {
        let answer = client.post("/generate-otp", &json!({ "mobileNumber": number }));
        is_new(&answer)["otpId"].as_str().unwrap().to_owned()
    });
    assert!(ids[0] != ids[1] && ids[1] != ids[2]);
    assert_eq!(outbox(&service).len(), 3);
}

#[test]
fn however_it_is_written_the_same_request_is_the_same() {
    let service = Service::builder().without_limits().variable("default_region", "US").start();
    let client = service.client();
    let number = number();
    let ask = |body: &str| client.send("POST", "/generate-otp", &[("idempotency-key", "k")], body.as_bytes());
    let first = ask(&format!("{{\"mobileNumber\":\"{number}\"}}"));
    is_new(&first);
    let (area, rest) = number[2..].split_at(3);
    let (exchange, line) = rest.split_at(3);
    for same in [
        format!("{{\"mobileNumber\":\"{number}\",\"channel\":\"sms\"}}"),
        format!("{{ \"channel\" : \"sms\" ,\n \"mobileNumber\" : \"+1 ({area}) {exchange}-{line}\" }}"),
        format!("{{\"mobileNumber\":\"{}\"}}", &number[2..]),
        format!("{{\"mobileNumber\":\"\\u002b{}\",\"email\":null}}", &number[1..]),
    ] {
        replays(&ask(&same), &first);
    }
    assert_eq!(outbox(&service).len(), 1);
}

#[test]
fn a_key_quoted_or_bare_is_the_same() {
    let service = Service::builder().without_limits().start();
    let (client, number) = (service.client(), number());
    for [one, two] in [
        ["8e03978e-40d5", "\"8e03978e-40d5\""],
        ["\"quoted first\"", " \"quoted first\" "],
        ["\"back\\\\slash\"", "back\\slash"],
    ] {
        let first = generate(&client, one, &number);
        is_new(&first);
        replays(&generate(&client, two, &number), &first);
    }
    // Letters are what they are.
    let lower = generate(&client, "abc", &number);
    assert_ne!(is_new(&generate(&client, "ABC", &number))["otpId"], id(&lower));
}

#[test]
fn the_key_of_another_request_is_refused_and_nothing_happens() {
    let service = Service::builder().without_limits().start();
    let (client, known, other) = (service.client(), number(), number());
    let ask = |body: &Value| client.post_with("/generate-otp", &[("idempotency-key", "k")], body);
    let by_mail = json!({ "mobileNumber": known, "channel": "email", "email": "user@example.com" });
    let first = ask(&by_mail);
    is_new(&first);
    for another in [
        json!({ "mobileNumber": other, "channel": "email", "email": "user@example.com" }),
        json!({ "mobileNumber": known, "channel": "email", "email": "other@example.com" }),
        json!({ "mobileNumber": known, "channel": "sms", "email": "user@example.com" }),
        json!({ "mobileNumber": known, "channel": "sms" }),
        json!({ "mobileNumber": known }),
    ] {
        let answer = ask(&another);
        answer.expect_problem(422, "idempotency_key_reused");
        assert_eq!(answer.header("idempotent-replayed"), "");
    }
    client.resend(&other).expect_problem(404, "otp_not_found");
    replays(&ask(&by_mail), &first);
    assert_eq!(outbox(&service).len(), 1);

    let again = regenerate(&client, "r", &known);
    is_new(&again);
    client.generate(&other);
    regenerate(&client, "r", &other).expect_problem(422, "idempotency_key_reused");
    replays(&regenerate(&client, "r", &known), &again);
}

#[test]
fn a_key_is_its_routes_own() {
    let service = Service::builder().without_limits().start();
    let (client, number) = (service.client(), number());
    let made = generate(&client, "k", &number);
    let again = regenerate(&client, "k", &number);
    is_new(&made);
    is_new(&again);
    assert_ne!(id(&made), id(&again));
    replays(&regenerate(&client, "k", &number), &again);
    replays_without_the_code(&generate(&client, "k", &number), &made);
}

#[test]
fn a_key_is_its_callers_own_with_whichever_of_its_api_keys() {
    let keys = [api_key("shop", "send", "old"), api_key("shop", "send", "new"), api_key("bank", "send", "b")];
    let service = Service::builder().without_limits().variable("api_keys", &keys.join(",")).start();
    let (client, number) = (service.client(), number());
    let ask = |api_key: &str, number: &str| {
        let headers = [("authorization", &*bearer(api_key)), ("idempotency-key", "k")];
        client.post_with("/generate-otp", &headers, &json!({ "mobileNumber": number }))
    };
    let shops = ask("old", &number);
    is_new(&shops);
    replays(&ask("new", &number), &shops);
    let banks = ask("b", &harness::number());
    is_new(&banks);
    replays(&ask("new", &number), &shops);
}

#[test]
fn a_resend_that_is_repeated_is_counted_and_sent_once() {
    let service =
        Service::builder().variable("pumping_guard", "false").variable("rate_limit_requests", "3").start();
    let (client, number) = (service.client(), number());
    let made = client.generate(&number);
    let resend = |key: &str, number: &str| {
        client.post_with("/resend-otp", &[("idempotency-key", key)], &json!({ "mobileNumber": number }))
    };
    let first = resend("k", &number);
    assert_eq!(
        (first.expect(200)["otp"].clone(), first.header("idempotent-replayed")),
        (made["otp"].clone(), "")
    );
    for again in [resend("k", &number), resend("\"k\"", &number), resend("k", &number)] {
        let (mut given, mut expected) = (again.expect(200), first.expect(200));
        assert_eq!(again.header("idempotent-replayed"), "true");
        // This goes by.
        let [left, before] = [&mut given, &mut expected]
            .map(|body| body.as_object_mut().unwrap().remove("expiresInSeconds").unwrap().as_i64().unwrap());
        assert!((before - 60..=before).contains(&left), "{left} after {before}");
        assert_eq!(given, expected);
    }
    assert_eq!(outbox(&service).len(), 2, "it was sent once");
    resend("k", &harness::number()).expect_problem(422, "idempotency_key_reused");
    // A key is of one call.
    is_new(&regenerate(&client, "k", &number));
    // It counts once: of three there is none left now.
    resend("l", &number).expect_problem(429, "rate_limited");
    // What the code has become is told as on the other calls.
    let again = resend("k", &number);
    assert!(again.expect(200).get("otp").is_none());
    resend("\"broken", &number).expect_problem(400, "invalid_idempotency_key");
}

#[test]
fn a_right_check_that_is_repeated_hears_that_it_was_right() {
    let service = Service::builder().without_limits().start();
    let (client, number) = (service.client(), number());
    let made = client.generate(&number);
    let otp = made["otp"].as_str().unwrap();
    let verify = |otp: &str, key: &str| {
        let body = json!({ "mobileNumber": number, "otp": otp });
        client.post_with("/verify-otp", &[("idempotency-key", key)], &body)
    };
    // Each wrong one is a guess of its own.
    for left in [4, 3] {
        let problem = verify(&other_than(otp), "w").expect_problem(422, "otp_mismatch");
        assert_eq!(problem["attemptsRemaining"], left);
    }
    let first = verify(otp, "v");
    assert_eq!(
        (first.expect(200)["verified"].clone(), first.header("idempotent-replayed")),
        (true.into(), "")
    );
    thread::sleep(Duration::from_millis(1_100));
    for spelling in [otp.to_owned(), format!("{} {}", &otp[..3], &otp[3..])] {
        let again = verify(&spelling, "v");
        assert_eq!(again.expect(200), first.expect(200));
        assert_eq!(again.header("idempotent-replayed"), "true");
    }
    // It is good once all the same.
    verify(otp, "w").expect_problem(410, "otp_used");
    client.verify(&number, otp).expect_problem(410, "otp_used");
    verify(&other_than(otp), "v").expect_problem(422, "idempotency_key_reused");
    verify(otp, "\"broken").expect_problem(400, "invalid_idempotency_key");
    let verified =
        |service: &Service| outbox(service).iter().filter(|event| event["type"] == "otp.verified.v1").count();
    assert_eq!(verified(&service), 1);
}

#[test]
fn of_the_same_right_check_many_times_at_once_all_hear_that_it_was_right() {
    let service = Service::builder().without_limits().start();
    let (client, number) = (service.client(), number());
    let made = client.generate(&number);
    let body = json!({ "mobileNumber": number, "otp": made["otp"] });
    let answers = at_once(16, |_| client.post_with("/verify-otp", &[("idempotency-key", "v")], &body));
    let first = answers[0].expect(200);
    assert!(answers.iter().all(|answer| answer.expect(200) == first));
    let replayed = answers.iter().filter(|answer| answer.header("idempotent-replayed") == "true").count();
    assert_eq!(replayed, 15, "one of them did it");
    let verified = outbox(&service).iter().filter(|event| event["type"] == "otp.verified.v1").count();
    assert_eq!(verified, 1);
}

#[test]
fn what_is_no_key_is_refused_and_nothing_happens() {
    let service = Service::builder().without_limits().start();
    let (client, number) = (service.client(), number());
    client.generate(&number);
    let too_long = "x".repeat(256);
    for bad in [
        "",
        " ",
        "\"\"",
        "\"unclosed",
        "unopened\"",
        "\"one\" \"two\"",
        "\"one\", \"two\"",
        "one, two",
        "two words",
        "\"bad \\escape\"",
        "\"key\";p=1",
        "key;p=1",
        "\"t\tab\"",
        "\u{e9}t\u{e9}",
        "\"\u{e9}t\u{e9}\"",
        &too_long,
        &format!("\"{too_long}\""),
    ] {
        for answer in [generate(&client, bad, &number), regenerate(&client, bad, &number)] {
            let problem = answer.expect_problem(400, "invalid_idempotency_key");
            assert!(problem["detail"].as_str().unwrap().contains("Idempotency-Key"), "{bad:?}: {problem}");
        }
    }
    let body = json!({ "mobileNumber": number });
    let twice = [("idempotency-key", "k"), ("idempotency-key", "k")];
    client.post_with("/generate-otp", &twice, &body).expect_problem(400, "invalid_idempotency_key");
    assert_eq!(outbox(&service).len(), 1);
    let longest = "x".repeat(255);
    let first = generate(&client, &longest, &number);
    is_new(&first);
    replays(&generate(&client, &format!("\"{longest}\""), &number), &first);
}

/// Services that share all that they know.
fn two_on(folder: &Path, redis: Option<&Redis>, builder: &Builder) -> [Service; 2] {
    [(); 2].map(|()| {
        let builder = builder.clone().state(folder);
        redis
            .iter()
            .fold(builder, |builder, redis| builder.variable("redis_endpoint", &redis.endpoint()))
            .start()
    })
}

#[test]
fn of_16_at_once_with_one_key_one_happens_and_all_hear_of_it() {
    let folder = temporary_folder();
    let redis = with_redis().then(Redis::start);
    let limited = Service::builder().variable("rate_limit_requests", "1").variable("pumping_guard", "false");
    let services = two_on(folder.path(), redis.as_ref(), &limited);
    let mut made = 0;
    for round in 0..5 {
        let number = number();
        let key = format!("round-{round}");
        // A connection each, so that no instance need wait for another.
        let answers = at_once(16, |index| generate(&services[index % 2].client(), &key, &number));
        for answer in &answers {
            assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
            assert_eq!(answer.body, answers[0].body);
        }
        let new = answers.iter().filter(|answer| answer.header("idempotent-replayed").is_empty()).count();
        assert_eq!(new, 1);
        made += 1;
        assert_eq!(outbox(&services[0]).len(), made);
        for service in &services {
            let client = service.client();
            client
                .post("/generate-otp", &json!({ "mobileNumber": number }))
                .expect_problem(429, "rate_limited");
            replays(&generate(&client, &key, &number), &answers[0]);
        }
        // A refusal leaves an event, too: that it was refused, once.
        made = outbox(&services[0]).len();
        services[0].client().verify(&number, &otp(&answers[0])).expect(200);
        made += 1;
    }
}

#[test]
fn of_16_regenerations_at_once_with_one_key_one_happens() {
    let folder = temporary_folder();
    let redis = with_redis().then(Redis::start);
    let services = two_on(folder.path(), redis.as_ref(), &Service::builder().without_limits());
    for _ in 0..5 {
        let number = number();
        services[0].client().generate(&number);
        let before = outbox(&services[0]).len();
        let answers = at_once(16, |index| regenerate(&services[index % 2].client(), &number[1..], &number));
        for answer in &answers {
            assert_eq!(answer.status, 201);
            assert_eq!(answer.body, answers[0].body);
        }
        assert_eq!(outbox(&services[0]).len(), before + 1);
        services[1].client().verify(&number, &otp(&answers[0])).expect(200);
    }
}

#[test]
fn a_retry_is_answered_while_the_number_is_at_its_limit() {
    let service = Service::builder().variable("rate_limit_requests", "2").start();
    let (client, number) = (service.client(), number());
    let first = generate(&client, "one", &number);
    let second = regenerate(&client, "two", &number);
    is_new(&first);
    is_new(&second);
    generate(&client, "elsewhere", &harness::number()).expect(201);
    for _ in 0..2 {
        generate(&client, "three", &number).expect_problem(429, "rate_limited");
        regenerate(&client, "three", &number).expect_problem(429, "rate_limited");
        replays(&regenerate(&client, "two", &number), &second);
        replays_without_the_code(&generate(&client, "one", &number), &first);
        generate(&client, "elsewhere", &number).expect_problem(422, "idempotency_key_reused");
    }
}

#[test]
fn a_retry_is_answered_while_a_meter_is_full() {
    for meter in ["client_rate_limit", "key_rate_limit", "global_rate_limit"] {
        let service = Service::builder()
            .without_limits()
            .variable(meter, "2/3600")
            .variable("api_keys", &api_key("shop", "send+verify", "key"))
            .start();
        let (client, number) = (service.client(), number());
        let authorization = bearer("key");
        let ask = |path: &str, key: &str| {
            let headers = [("authorization", authorization.as_str()), ("idempotency-key", key)];
            client.post_with(path, &headers, &json!({ "mobileNumber": number }))
        };
        let made = ask("/generate-otp", "one");
        let again = ask("/regenerate-otp", "two");
        is_new(&made);
        is_new(&again);
        for _ in 0..3 {
            ask("/regenerate-otp", "three").expect_problem(429, "rate_limited");
            replays(&ask("/regenerate-otp", "two"), &again);
            replays_without_the_code(&ask("/generate-otp", "one"), &made);
        }
    }
}

#[test]
fn a_retry_counts_on_no_meter() {
    for meter in ["client_rate_limit", "global_rate_limit"] {
        let service = Service::builder().without_limits().variable(meter, "2/3600").start();
        let client = service.client();
        let number = number();
        let first = generate(&client, "one", &number);
        for _ in 0..5 {
            replays(&generate(&client, "one", &number), &first);
        }
        // With Redis it is taken back after the answer.
        eventually("a second code", SOON, || generate(&client, "two", &number).status == 201);
        generate(&client, "three", &number).expect_problem(429, "rate_limited");
    }
}

#[test]
fn a_retry_is_answered_while_its_range_is_suspended() {
    let service = Service::start();
    let (client, number) = (service.client(), number());
    let made = generate(&client, "one", &number);
    let again = regenerate(&client, "two", &number);
    is_new(&made);
    is_new(&again);
    suspend(&service, &number[..5]);
    generate(&client, "three", &number).expect_problem(429, "destination_suspended");
    regenerate(&client, "three", &number).expect_problem(429, "destination_suspended");
    replays(&regenerate(&client, "two", &number), &again);
    replays_without_the_code(&generate(&client, "one", &number), &made);
}

#[test]
fn a_code_that_is_used_is_not_told_again() {
    let service = Service::builder().without_limits().start();
    let (client, number) = (service.client(), number());
    let made = generate(&client, "k", &number);
    client.verify(&number, &otp(&made)).expect(200);
    replays_without_the_code(&generate(&client, "k", &number), &made);
    client.verify(&number, &otp(&made)).expect_problem(410, "otp_used");
}

#[test]
fn a_code_that_was_replaced_is_not_told_again() {
    let service = Service::builder().without_limits().start();
    let (client, number) = (service.client(), number());
    let made = generate(&client, "one", &number);
    let again = regenerate(&client, "two", &number);
    replays_without_the_code(&generate(&client, "one", &number), &made);
    client.generate(&number);
    replays_without_the_code(&regenerate(&client, "two", &number), &again);
    replays_without_the_code(&generate(&client, "one", &number), &made);
}

#[test]
fn a_code_that_is_locked_is_not_told_again() {
    let service = Service::builder().without_limits().variable("max_verify_attempts", "2").start();
    let (client, number) = (service.client(), number());
    let made = generate(&client, "k", &number);
    client.verify(&number, &other_than(&otp(&made))).expect(422);
    replays(&generate(&client, "k", &number), &made);
    client.verify(&number, &other_than(&otp(&made))).expect(422);
    replays_without_the_code(&generate(&client, "k", &number), &made);
}

#[test]
fn a_code_that_has_expired_is_not_told_again() {
    let service = Service::builder().without_limits().variable("otp_ttl_seconds", "1").start();
    let (client, number) = (service.client(), number());
    let made = generate(&client, "k", &number);
    is_new(&made);
    eventually("expiring", SOON, || client.resend(&number).status == 410);
    replays_without_the_code(&generate(&client, "k", &number), &made);
}

#[test]
fn while_its_number_is_locked_no_code_is_told_again() {
    let service = Service::builder().without_limits().variable("max_consecutive_failures", "1").start();
    let (client, number) = (service.client(), number());
    let made = generate(&client, "k", &number);
    client.verify(&number, &other_than(&otp(&made))).expect(422);
    client.resend(&number).expect_problem(429, "number_locked");
    let answer = generate(&client, "k", &number);
    // Whether the retry is refused, as every call for this number, or answered.
    assert!([201, 429].contains(&answer.status), "{}", answer.status);
    assert!(answer.json().get("otp").is_none(), "{}", answer.json());
}

#[test]
fn an_answer_is_kept_for_a_day() {
    let service = Service::builder().without_limits().start();
    let (client, number) = (service.client(), number());
    let made = generate(&client, "one", &number);
    let again = regenerate(&client, "two", &number);
    assert_eq!(age(&service, 24 * 3600 - 60), 2);
    replays(&regenerate(&client, "two", &number), &again);
    replays_without_the_code(&generate(&client, "one", &number), &made);
    // A minute more, and it is a request like any other.
    age(&service, 61);
    let fresh = regenerate(&client, "two", &number);
    assert_ne!(is_new(&fresh)["otpId"], id(&again));
    replays(&regenerate(&client, "two", &number), &fresh);
    let other = harness::number();
    assert_eq!(is_new(&generate(&client, "one", &other))["mobileNumber"], other.as_str());
}

#[test]
fn a_purge_removes_what_has_had_its_day_and_nothing_else() {
    let service = Service::builder()
        .without_limits()
        .variable("relay_url", &format!("http://{}", unused_address()))
        .variable("relay_token", TOKEN)
        .start();
    let client = service.client();
    let purge =
        || client.send("POST", "/internal/purge", &[("authorization", &bearer(TOKEN))], b"").expect(200);
    let kept = || service.sql().number("SELECT count(*) FROM idempotency", &[]);
    (0..3).for_each(|index| drop(is_new(&generate(&client, &format!("old-{index}"), &number()))));
    age(&service, 24 * 3600 + 1);
    let number = number();
    let live = generate(&client, "live", &number);
    assert_eq!(kept(), 4);
    purge();
    assert_eq!(kept(), 1);
    replays(&generate(&client, "live", &number), &live);
}

#[test]
fn what_was_refused_is_tried_anew() {
    let service = Service::builder()
        .variable("rate_limit_requests", "1")
        .variable("rate_limit_window_seconds", "2")
        .start();
    let (client, number) = (service.client(), number());
    regenerate(&client, "r", &number).expect_problem(404, "otp_not_found");
    client
        .post_with("/generate-otp", &[("idempotency-key", "g")], &json!({}))
        .expect_problem(400, "missing_field");
    generate(&client, "g", "+1").expect_problem(422, "invalid_mobile_number");
    let made = generate(&client, "g", &number);
    is_new(&made);
    let refused = regenerate(&client, "r", &number);
    refused.expect_problem(429, "rate_limited");
    thread::sleep(Duration::from_secs(refused.header("retry-after").parse().unwrap()));
    let again = regenerate(&client, "r", &number);
    is_new(&again);
    replays(&regenerate(&client, "r", &number), &again);
}

#[test]
fn after_an_answer_that_the_database_was_away_a_retry_makes_one_code() {
    let service = Service::builder().without_limits().start();
    let (client, number) = (service.client(), number());
    client.get("/readyz").expect(200);
    let hold = service.hold_writes();
    generate(&client, "k", &number).expect_problem(503, "unavailable");
    hold.release();
    // What was given up on may have happened since; then this is its answer.
    let made = generate(&client, "k", &number);
    made.expect(201);
    let again = generate(&client, "k", &number);
    replays(&again, &made);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(outbox(&service).len(), 1);
    client.verify(&number, &otp(&made)).expect(200);
}

#[test]
fn an_answer_outlives_the_host() {
    let mut service = Service::builder().without_limits().start();
    let (one, two) = (number(), number());
    let client = service.client();
    client.generate(&two);
    let again = regenerate(&client, "two", &two);
    let made = generate(&client, "one", &one);
    service.kill();
    service.restart();
    let client = service.client();
    replays(&generate(&client, "one", &one), &made);
    replays(&regenerate(&client, "two", &two), &again);
    client.verify(&one, &otp(&made)).expect(200);
    assert_eq!(outbox(&service).len(), 4);
}

#[test]
fn nothing_on_disk_tells_a_code_that_was_kept_for_a_retry() {
    let mut service = Service::builder().without_limits().variable("otp_length", "10").start();
    let client = service.client();
    let mut codes = Vec::new();
    for index in 0..20 {
        let number = number();
        let key = format!("an-unmistakable-key-{index}");
        for answer in [generate(&client, &key, &number), regenerate(&client, &key, &number)] {
            is_new(&answer);
            codes.push(otp(&answer));
        }
        generate(&client, &key, &number).expect(201);
        regenerate(&client, &key, &number).expect(201);
    }
    let scan = |service: &Service| {
        for (name, bytes) in files_below(&service.state()) {
            let digits = ten_digits(&bytes);
            assert!(!codes.iter().any(|code| digits.contains(code.as_bytes())), "a code stands in {name}");
        }
        assert!(!codes.iter().any(|code| service.log().contains(code.as_str())));
        // Whoever knows it can have an answer given again.
        assert!(!service.log().contains("an-unmistakable-key"));
    };
    scan(&service);
    service.terminate();
    scan(&service);
}

#[test]
fn where_answers_reveal_no_code_a_retry_reveals_none() {
    let service = Service::builder().without_limits().variable("reveal_otp", "false").start();
    let (client, number) = (service.client(), number());
    let made = generate(&client, "one", &number);
    let again = regenerate(&client, "two", &number);
    assert!(is_new(&made).get("otp").is_none() && is_new(&again).get("otp").is_none());
    replays(&generate(&client, "one", &number), &made);
    replays(&regenerate(&client, "two", &number), &again);
}
