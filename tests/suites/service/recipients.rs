//! A recipient is a mobile number or a mail address.

use crate::outbox;
use harness::{Client, Relay, Response, Service, eventually, number, unused_address};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

fn ask(client: &Client, path: &str, email: &str) -> Response {
    client.post(path, &json!({ "email": email }))
}

fn erase(client: &Client, path: &str) -> Response {
    client.send("DELETE", &format!("/users/{path}"), &[], b"")
}

/// How many accounts there are.
fn accounts(service: &Service) -> i64 {
    service.sql().number("SELECT count(*) FROM accounts WHERE application <> ''", &[])
}

#[test]
fn an_address_alone_is_sent_its_code_by_mail_on_all_calls() {
    let service = Service::builder().without_limits().start();
    let client = service.client();
    let made = ask(&client, "/generate-otp", "ada@example.com").expect(201);
    assert_eq!((&made["email"], &made["channel"]), (&json!("ada@example.com"), &json!("email")));
    assert!(made.get("mobileNumber").is_none(), "{made}");
    let again = ask(&client, "/resend-otp", "ada@example.com").expect(200);
    assert_eq!((&again["otp"], &again["channel"]), (&made["otp"], &json!("email")));
    let new = ask(&client, "/regenerate-otp", "ada@example.com").expect(201);
    assert_eq!((&new["email"], &new["channel"]), (&json!("ada@example.com"), &json!("email")));
    let verify = |otp: &Value, id: &Value| {
        client.post("/verify-otp", &json!({ "email": "ada@example.com", "otp": otp, "otpId": id }))
    };
    verify(&made["otp"], &made["otpId"]).expect_problem(404, "otp_not_found");
    let verified = verify(&new["otp"], &new["otpId"]).expect(200);
    assert_eq!((&verified["email"], &verified["channel"]), (&json!("ada@example.com"), &json!("email")));
    verify(&new["otp"], &Value::Null).expect_problem(410, "otp_used");

    let events = outbox(&service);
    for event in &events {
        assert_eq!(event["data"]["email"], "ada@example.com");
        assert!(event["data"].get("mobileNumber").is_none(), "{event}");
    }
    // The address of such a user is confirmed by its own code.
    let confirmed = "SELECT count(*) FROM accounts WHERE recipient = ?1 AND email_verified_at IS NOT NULL";
    assert_eq!(service.sql().number(confirmed, &[&"ada@example.com"]), 1);
    assert_eq!(erase(&client, "ada@example.com").status, 204);
    ask(&client, "/resend-otp", "ada@example.com").expect_problem(404, "otp_not_found");
    assert_eq!(accounts(&service), 0);
}

#[test]
fn one_address_however_it_is_written() {
    let service = Service::builder().without_limits().start();
    let client = service.client();
    let made = ask(&client, "/generate-otp", " Ada@Bücher.Example ").expect(201);
    assert_eq!(made["email"], "ada@xn--bcher-kva.example");
    for written in [
        "ada@bücher.example",
        "ADA@XN--BCHER-KVA.EXAMPLE",
        "ada@b\u{fc}cher.example",
        "ada@bu\u{308}cher.example",
    ] {
        assert_eq!(ask(&client, "/resend-otp", written).expect(200)["otp"], made["otp"], "{written}");
    }
    assert_eq!(accounts(&service), 1);
    for path in ["Ada%40b%C3%BCcher.example", "ada@xn--bcher-kva.example"] {
        ask(&client, "/generate-otp", "ada@bücher.example").expect(201);
        assert_eq!(erase(&client, path).status, 204);
        assert_eq!(accounts(&service), 0, "{path}");
    }
}

#[test]
fn an_address_that_no_mail_reaches_is_refused_with_the_reason() {
    let service = Service::start();
    let client = service.client();
    client.get("/readyz").expect(200);
    for (email, reason) in [
        ("\"ada lovelace\"@example.com", "in quotes"),
        ("ada@[192.0.2.1]", "by its number"),
        ("ada@exa\u{200d}mple..com", "cannot exist"),
        ("ada", "such as ada@example.com"),
        ("", "such as ada@example.com"),
    ] {
        for path in ["/generate-otp", "/resend-otp", "/regenerate-otp", "/verify-otp"] {
            let body = match path {
                "/verify-otp" => json!({ "email": email, "otp": "000000" }),
                _ => json!({ "email": email }),
            };
            let problem = client.post(path, &body).expect_problem(422, "invalid_email");
            assert!(problem["detail"].as_str().unwrap().contains(reason), "{email:?}: {problem}");
        }
        let beside = json!({ "mobileNumber": number(), "email": email });
        client.post("/generate-otp", &beside).expect_problem(422, "invalid_email");
    }
    erase(&client, "%22ada%22@example.com").expect_problem(422, "invalid_email");
    assert!(outbox(&service).is_empty());
}

#[test]
fn what_names_nobody_or_goes_nowhere_is_refused() {
    let service = Service::start();
    let client = service.client();
    for path in ["/generate-otp", "/resend-otp", "/regenerate-otp", "/verify-otp"] {
        for mut body in [json!({}), json!({ "mobileNumber": null, "email": null })] {
            if path == "/verify-otp" {
                body["otp"] = json!("000000");
            }
            let problem = client.post(path, &body).expect_problem(400, "missing_field");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains("mobileNumber") && detail.contains("email"), "{detail}");
        }
    }
    let body = json!({ "email": "ada@example.com", "channel": "sms" });
    let problem = client.post("/generate-otp", &body).expect_problem(422, "invalid_channel");
    assert!(problem["detail"].as_str().unwrap().contains("mobileNumber"), "{problem}");
    client.post("/generate-otp", &json!({ "email": "ada@example.com", "channel": "email" })).expect(201);
}

#[test]
fn a_number_and_an_address_are_two_users_also_where_the_number_has_that_address() {
    let service = Service::builder().without_limits().start();
    let (client, number) = (service.client(), number());
    let body = json!({ "mobileNumber": number, "email": "ada@example.com", "channel": "email" });
    let of_number = client.post("/generate-otp", &body).expect(201);
    ask(&client, "/resend-otp", "ada@example.com").expect_problem(404, "otp_not_found");
    let of_address = ask(&client, "/generate-otp", "ada@example.com").expect(201);
    let verify = |body: Value| client.post("/verify-otp", &body);
    let by_address = json!({ "email": "ada@example.com", "otp": of_address["otp"] });
    // An address beside a number describes that user.
    let by_number = json!({ "mobileNumber": number, "email": "ada@example.com", "otp": of_number["otp"] });
    assert_eq!(verify(by_number).expect(200)["mobileNumber"], number.as_str());
    verify(by_address).expect(200);
    assert_eq!(erase(&client, &number).status, 204);
    ask(&client, "/resend-otp", "ada@example.com").expect_problem(410, "otp_used");
}

#[test]
fn limits_and_idempotency_hold_for_an_address_too() {
    let service = Service::builder().variable("rate_limit_requests", "2").start();
    let client = service.client();
    let keyed = |email: &str| {
        client.post_with("/generate-otp", &[("idempotency-key", "k")], &json!({ "email": email }))
    };
    let first = keyed("ada@example.com").expect(201);
    assert_eq!(keyed("Ada@Example.com").expect(201), first);
    keyed("eve@example.com").expect_problem(422, "idempotency_key_reused");
    ask(&client, "/regenerate-otp", "ada@example.com").expect(201);
    let answer = ask(&client, "/resend-otp", "ada@example.com");
    answer.expect_problem(429, "rate_limited");
    ask(&client, "/generate-otp", "eve@example.com").expect(201);
    // Nothing of it counts against a range of numbers.
    assert_eq!(service.sql().number("SELECT count(*) FROM destinations", &[]), 0);
}

#[test]
fn its_code_arrives_in_the_inbox() {
    let address = unused_address();
    let service =
        Service::builder().without_limits().variable("relay_url", &format!("http://{address}")).start();
    let relay = Relay::builder().listen(&address).start();
    let made = ask(&service.client(), "/generate-otp", "ada@bücher.example").expect(201);
    let inbox = || relay.client().get("/inbox?to=ada@xn--bcher-kva.example").expect(200);
    eventually("the delivery", SOON, || {
        inbox()
            .as_array()
            .unwrap()
            .iter()
            .any(|message| message["otp"] == made["otp"] && message["channel"] == "email")
    });
}
