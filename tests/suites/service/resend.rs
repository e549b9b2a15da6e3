//! `POST /resend-otp`

use harness::{Service, number};
use std::{thread, time::Duration};

#[test]
fn resend_returns_the_same_code_while_it_lives() {
    let service = Service::start();
    let (client, number) = (service.client(), number());
    let made = client.generate(&number);
    for _ in 0..3 {
        let again = client.resend(&number).expect(200);
        for field in ["mobileNumber", "otp", "otpId", "channel", "createdAt", "expiresAt"] {
            assert_eq!(again[field], made[field], "{field}");
        }
    }
    client.verify(&number, made["otp"].as_str().unwrap()).expect(200);
}

#[test]
fn resend_does_not_lengthen_the_life_of_a_code() {
    let service = Service::start();
    let (client, number) = (service.client(), number());
    client.generate(&number);
    thread::sleep(Duration::from_millis(1_100));
    let left = client.resend(&number).expect(200)["expiresInSeconds"].as_i64().unwrap();
    assert!((500..=598).contains(&left), "{left}");
}

#[test]
fn resend_of_an_unknown_number_sends_to_generate() {
    let service = Service::start();
    let problem = service.client().resend(&number()).expect_problem(404, "otp_not_found");
    assert!(problem["detail"].as_str().unwrap().contains("/generate-otp"), "{problem}");
}

#[test]
fn resend_of_a_used_code_sends_to_regenerate() {
    let service = Service::start();
    let (client, number) = (service.client(), number());
    let made = client.generate(&number);
    client.verify(&number, made["otp"].as_str().unwrap()).expect(200);
    let problem = client.resend(&number).expect_problem(410, "otp_used");
    assert!(problem["detail"].as_str().unwrap().contains("/regenerate-otp"), "{problem}");
}

#[test]
fn resend_of_a_locked_code_sends_to_regenerate() {
    let service = Service::builder().variable("max_verify_attempts", "1").start();
    let (client, number) = (service.client(), number());
    let made = client.generate(&number);
    let wrong = if made["otp"] == "000000" { "000001" } else { "000000" };
    client.verify(&number, wrong).expect_problem(422, "otp_mismatch");
    let problem = client.resend(&number).expect_problem(410, "otp_locked");
    assert!(problem["detail"].as_str().unwrap().contains("/regenerate-otp"), "{problem}");
}
