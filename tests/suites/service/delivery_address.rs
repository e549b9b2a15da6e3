//! Which address a user has, and when it counts as verified. No answer tells, so the database has to.

use crate::{delivered, outbox};
use harness::{Client, Service, number};
use otp_seal::KeyRing;
use serde_json::{Value, json};

/// email, whether it is verified, and the pending one
type Addresses = (Option<String>, bool, Option<String>);

fn addresses(service: &Service, number: &str) -> Addresses {
    let query =
        "SELECT email, email_verified_at IS NOT NULL, pending_email FROM accounts WHERE recipient = ?1";
    let rows = service.sql().rows(query, &[&number]);
    let text = |column: usize| rows[0][column].as_str().map(str::to_owned);
    (text(0), rows[0][1] == 1, text(2))
}

fn generate(client: &Client, number: &str, channel: &str, email: &str) -> String {
    let body = json!({ "mobileNumber": number, "channel": channel, "email": email });
    client.post("/generate-otp", &body).expect(201)["otp"].as_str().unwrap().to_owned()
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn only_a_code_that_went_to_an_address_verifies_it() {
    let service = Service::start();
    let (client, number) = (service.client(), number());

    let otp = generate(&client, &number, "sms", "one@Example.com");
    client.verify(&number, &otp).expect(200);
    assert_eq!(addresses(&service, &number), (some("one@example.com"), false, None));

    // Not verified yet, so another one takes its place.
    let otp = generate(&client, &number, "email", "two@example.com");
    assert_eq!(addresses(&service, &number), (some("two@example.com"), false, None));
    assert_eq!(client.verify(&number, &otp).expect(200)["channel"], "email");
    assert_eq!(addresses(&service, &number), (some("two@example.com"), true, None));
}

#[test]
fn a_verified_address_stays_until_the_new_one_is_verified() {
    let service = Service::start();
    let (client, number) = (service.client(), number());
    let otp = generate(&client, &number, "email", "old@example.com");
    client.verify(&number, &otp).expect(200);

    // By text message, the new address is noted and proved by nothing.
    let otp = generate(&client, &number, "sms", "new@example.com");
    client.verify(&number, &otp).expect(200);
    assert_eq!(addresses(&service, &number), (some("old@example.com"), true, some("new@example.com")));

    // A wrong guess proves nothing either.
    let otp = generate(&client, &number, "email", "new@example.com");
    let wrong = if otp == "000000" { "000001" } else { "000000" };
    client.verify(&number, wrong).expect_problem(422, "otp_mismatch");
    assert_eq!(addresses(&service, &number), (some("old@example.com"), true, some("new@example.com")));

    client.verify(&number, &otp).expect(200);
    assert_eq!(addresses(&service, &number), (some("new@example.com"), true, None));
}

#[test]
fn a_code_that_went_to_a_former_address_does_not_verify_the_present_one() {
    let service = Service::start();
    let (client, number) = (service.client(), number());
    let otp = generate(&client, &number, "email", "old@example.com");
    client.verify(&number, &otp).expect(200);
    generate(&client, &number, "email", "first@example.com");
    // Regenerated, it goes to the address that is confirmed, and so proves nothing of the other.
    let made = client.regenerate(&number).expect(201);
    assert_eq!(made["channel"], "email");
    client.verify(&number, made["otp"].as_str().unwrap()).expect(200);
    assert_eq!(addresses(&service, &number), (some("old@example.com"), true, some("first@example.com")));
}

/// Where the last code of a number went, as its event has it.
fn sent_to(service: &Service, number: &str) -> (String, Option<String>) {
    let events = outbox(service);
    let of_number =
        |event: &&Value| event["data"]["mobileNumber"] == number && event["data"]["sealedOtp"].is_string();
    let event = events.iter().rfind(of_number).unwrap();
    let text = |field: &str| event["data"][field].as_str().map(str::to_owned);
    (text("channel").unwrap(), text("email"))
}

#[test]
fn an_address_that_nobody_has_confirmed_is_sent_no_code_but_the_one_that_asked_for_it() {
    let service = Service::builder().without_limits().start();
    let (client, number) = (service.client(), number());
    let otp = generate(&client, &number, "email", "one@example.com");
    assert_eq!(sent_to(&service, &number), ("email".to_owned(), some("one@example.com")));
    let again = client.resend(&number).expect(200);
    assert_eq!((&again["otp"], &again["channel"]), (&json!(otp), &json!("sms")));
    assert_eq!(sent_to(&service, &number), ("sms".to_owned(), None));
    assert_eq!(
        delivered(&service, &KeyRing::development(), &number),
        otp,
        "sealed for the way that it takes"
    );
    // By now it may have been read on the phone: it proves no address.
    client.verify(&number, &otp).expect(200);
    assert_eq!(addresses(&service, &number), (some("one@example.com"), false, None));

    generate(&client, &number, "email", "one@example.com");
    assert_eq!(client.regenerate(&number).expect(201)["channel"], "sms");
    assert_eq!(sent_to(&service, &number), ("sms".to_owned(), None));
}

#[test]
fn a_confirmed_address_is_sent_later_codes_too_as_long_as_the_last_one_went_by_mail() {
    let service = Service::builder().without_limits().start();
    let (client, number) = (service.client(), number());
    let otp = generate(&client, &number, "email", "one@example.com");
    client.verify(&number, &otp).expect(200);
    assert_eq!(client.regenerate(&number).expect(201)["channel"], "email");
    assert_eq!(client.resend(&number).expect(200)["channel"], "email");
    assert_eq!(sent_to(&service, &number), ("email".to_owned(), some("one@example.com")));
    client.generate(&number);
    assert_eq!(client.regenerate(&number).expect(201)["channel"], "sms");
}
