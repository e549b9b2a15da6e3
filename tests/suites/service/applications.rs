//! Applications: the products behind the API keys of one deployment, which are strangers to each other.

use crate::{api_key, bearer, other_than, outbox, outbox_of};
use harness::{Builder, Client, Response, Service, at_once, eventually, number};
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};

const SOON: Duration = Duration::from_secs(30);

/// Two products, one of them with an old and a new key.
fn two_products() -> Builder {
    let keys = [
        api_key("login", "send+verify+admin", "login's"),
        api_key("login", "send+verify", "login's next"),
        api_key("pay", "send+verify+admin", "pay's"),
    ];
    Service::builder().variable("api_keys", &keys.join(",")).variable("otp_length", "10")
}

fn call(client: &Client, key: &str, path: &str, body: &Value) -> Response {
    client.post_with(path, &[("authorization", &bearer(key))], body)
}

fn send(client: &Client, key: &str, path: &str, number: &str) -> Response {
    call(client, key, path, &json!({ "mobileNumber": number }))
}

fn verify(client: &Client, key: &str, number: &str, otp: &Value) -> Response {
    call(client, key, "/verify-otp", &json!({ "mobileNumber": number, "otp": otp }))
}

fn erase(client: &Client, key: &str, number: &str) -> Response {
    client.send("DELETE", &format!("/users/{number}"), &[("authorization", &bearer(key))], b"")
}

#[test]
fn two_that_ask_for_one_number_at_the_same_time_have_a_code_each() {
    let service = two_products().start();
    let client = service.client();
    for _ in 0..5 {
        let number = number();
        let made = at_once(2, |index| {
            send(&service.client(), ["login's", "pay's"][index], "/generate-otp", &number).expect(201)
        });
        let [login, pay] = [&made[0]["otp"], &made[1]["otp"]];
        verify(&client, "login's", &number, pay).expect_problem(422, "otp_mismatch");
        verify(&client, "pay's", &number, login).expect_problem(422, "otp_mismatch");
        // Its own, by id, it does not even see in the other one.
        let named = json!({ "mobileNumber": number, "otp": login, "otpId": made[0]["otpId"] });
        call(&client, "pay's", "/verify-otp", &named).expect_problem(404, "otp_not_found");
        assert_eq!(send(&client, "pay's", "/resend-otp", &number).expect(200)["otp"], *pay);
        let again = send(&client, "login's", "/regenerate-otp", &number).expect(201);
        assert_eq!(send(&client, "pay's", "/resend-otp", &number).expect(200)["otp"], *pay);

        assert_eq!(erase(&client, "login's", &number).status, 204);
        verify(&client, "login's", &number, &again["otp"]).expect_problem(404, "otp_not_found");
        verify(&client, "pay's", &number, pay).expect(200);
    }
}

#[test]
fn one_does_not_know_the_users_of_the_other() {
    let service = two_products().start();
    let (client, number) = (service.client(), number());
    send(&client, "login's", "/generate-otp", &number).expect(201);
    for path in ["/resend-otp", "/regenerate-otp"] {
        send(&client, "pay's", path, &number).expect_problem(404, "otp_not_found");
    }
    verify(&client, "pay's", &number, &json!("0123456789")).expect_problem(404, "otp_not_found");
    // Two keys of one name are one product's.
    send(&client, "login's next", "/resend-otp", &number).expect(200);
}

#[test]
fn limits_and_locks_are_their_own() {
    let service =
        two_products().variable("rate_limit_requests", "2").variable("max_consecutive_failures", "2").start();
    let (client, number) = (service.client(), number());
    let made = send(&client, "login's", "/generate-otp", &number).expect(201);
    let wrong = json!(other_than(made["otp"].as_str().unwrap()));
    (0..2).for_each(|_| drop(verify(&client, "login's", &number, &wrong).expect(422)));
    verify(&client, "login's next", &number, &wrong).expect_problem(429, "number_locked");
    for _ in 0..2 {
        send(&client, "pay's", "/generate-otp", &number).expect(201);
    }
    send(&client, "pay's", "/generate-otp", &number).expect_problem(429, "rate_limited");
}

#[test]
fn idempotency_keys_are_their_own() {
    let service = two_products().variable("rate_limit_requests", "0").start();
    let client = service.client();
    let ask = |key: &str, number: &str| {
        let authorization = bearer(key);
        let headers = [("authorization", authorization.as_str()), ("idempotency-key", "order-66")];
        client.post_with("/generate-otp", &headers, &json!({ "mobileNumber": number }))
    };
    let (one, other) = (number(), number());
    let login = ask("login's", &one).expect(201);
    let pay = ask("pay's", &other).expect(201);
    assert_eq!(ask("login's next", &one).expect(201), login, "of one product's keys it is the same");
    assert_eq!(ask("pay's", &other).expect(201), pay);
    ask("pay's", &one).expect_problem(422, "idempotency_key_reused");
}

#[test]
fn one_number_has_another_index_in_each_and_events_name_the_application() {
    let service = two_products().start();
    let (client, number) = (service.client(), number());
    send(&client, "login's", "/generate-otp", &number).expect(201);
    send(&client, "login's next", "/resend-otp", &number).expect(200);
    send(&client, "pay's", "/generate-otp", &number).expect(201);
    let events = outbox(&service);
    let named: Vec<_> = events.iter().map(|event| event["application"].as_str().unwrap()).collect();
    assert_eq!(named, ["login", "login", "pay"]);
    assert_eq!(events[0]["subject"], events[1]["subject"]);
    assert_ne!(events[0]["subject"], events[2]["subject"]);
    if let Some(redis) = service.cache() {
        eventually("caching both", SOON, || {
            let keys: BTreeSet<_> = redis.keys().into_iter().collect();
            events.iter().all(|event| keys.iter().any(|key| key.contains(event["subject"].as_str().unwrap())))
        });
    }
}

#[test]
fn what_one_is_pumped_with_suspends_nothing_of_the_other() {
    let service = two_products()
        .variable("pumping_min_sends", "10")
        .variable("pumping_suspend_seconds", "3600")
        .start();
    let client = service.client();
    // Five times the least number, and a moment to count them.
    eventually("the suspension", Duration::from_secs(30), || {
        let answers = at_once(8, |_| send(&client, "login's", "/generate-otp", &number()).status);
        answers.contains(&429)
    });
    send(&client, "login's", "/generate-otp", &number()).expect_problem(429, "destination_suspended");
    send(&client, "pay's", "/generate-otp", &number()).expect(201);
    let events = outbox_of(&service, "destination.suspended.v1");
    assert_eq!(events.iter().map(|event| &event["application"]).collect::<Vec<_>>(), ["login"]);
}
