//! `POST /generate-otp`

use harness::{Service, at_once, number};
use serde_json::json;
use std::collections::HashSet;

#[test]
fn generate_answers_with_a_code_its_id_and_its_life() {
    let service = Service::start();
    let number = number();
    let answer = service.client().generate(&number);
    assert_eq!(answer["mobileNumber"], number.as_str());
    let otp = answer["otp"].as_str().unwrap();
    assert!(otp.len() == 6 && otp.bytes().all(|byte| byte.is_ascii_digit()), "{otp}");
    let id = answer["otpId"].as_str().unwrap();
    assert!(id.len() == 36 && &id[14..15] == "7", "no UUID version 7: {id}");
    assert_eq!(answer["channel"], "sms");
    assert_eq!(answer["expiresInSeconds"], 600);
    for moment in ["createdAt", "expiresAt"] {
        let text = answer[moment].as_str().unwrap();
        assert!(text.len() == 20 && text.ends_with('Z') && &text[10..11] == "T", "{text}");
    }
    let mut fields: Vec<_> = answer.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    let expected = ["channel", "createdAt", "expiresAt", "expiresInSeconds", "mobileNumber", "otp", "otpId"];
    assert_eq!(fields, expected);
}

#[test]
fn generate_replaces_the_code_that_lives() {
    let service = Service::builder().variable("otp_length", "10").start();
    let (client, number) = (service.client(), number());
    let first = client.generate(&number);
    let second = client.generate(&number);
    assert_ne!(first["otpId"], second["otpId"]);
    client.verify(&number, first["otp"].as_str().unwrap()).expect_problem(422, "otp_mismatch");
    client.verify(&number, second["otp"].as_str().unwrap()).expect(200);
}

#[test]
fn one_number_is_one_user_however_it_is_written() {
    let service = Service::start();
    let client = service.client();
    let first = client.generate("+1 (415) 555-0123");
    assert_eq!(first["mobileNumber"], "+14155550123");
    assert_eq!(client.resend("+1.415.555.0123").expect(200)["otp"], first["otp"]);
    client.verify(" +1 [415] 555 0123", first["otp"].as_str().unwrap()).expect(200);
}

#[test]
fn codes_of_different_numbers_are_drawn_apart() {
    let service = Service::builder().variable("otp_length", "10").start();
    let client = service.client();
    let codes =
        at_once(4, |_| (0..50).map(|_| client.generate(&number())["otp"].to_string()).collect::<Vec<_>>());
    let distinct: HashSet<_> = codes.iter().flatten().collect();
    assert_eq!(distinct.len(), 200);
}

#[test]
fn nulls_are_ignored_and_no_content_type_is_needed() {
    let service = Service::start();
    let client = service.client();
    let body = json!({ "mobileNumber": number(), "email": null, "channel": null });
    client.post("/generate-otp", &body).expect(201);
    for content_type in ["application/x-www-form-urlencoded", "text/plain", "application/json"] {
        let body = json!({ "mobileNumber": number() }).to_string();
        let headers = [("content-type", content_type)];
        client.send("POST", "/generate-otp", &headers, body.as_bytes()).expect(201);
    }
}
