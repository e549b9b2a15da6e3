//! `POST /regenerate-otp`

use harness::{Service, at_once, number};
use serde_json::json;

#[test]
fn regenerate_makes_a_new_code_and_the_old_one_is_dead_at_once() {
    let service = Service::builder().without_limits().variable("otp_length", "10").start();
    let (client, number) = (service.client(), number());
    let old = client.generate(&number);
    let new = client.regenerate(&number).expect(201);
    assert_ne!(old["otp"], new["otp"]);
    assert_ne!(old["otpId"], new["otpId"]);
    assert_eq!(new["expiresInSeconds"], 600);
    client.verify(&number, old["otp"].as_str().unwrap()).expect_problem(422, "otp_mismatch");
    assert_eq!(client.resend(&number).expect(200)["otp"], new["otp"]);
    client.verify(&number, new["otp"].as_str().unwrap()).expect(200);
}

#[test]
fn regenerate_of_an_unknown_number_sends_to_generate() {
    let service = Service::builder().without_limits().start();
    let (client, number) = (service.client(), number());
    let problem = client.regenerate(&number).expect_problem(404, "otp_not_found");
    assert!(problem["detail"].as_str().unwrap().contains("/generate-otp"), "{problem}");
    client.resend(&number).expect_problem(404, "otp_not_found");
}

#[test]
fn regenerate_helps_after_a_used_and_after_a_locked_code() {
    let service = Service::builder().without_limits().variable("max_verify_attempts", "1").start();
    let (client, number) = (service.client(), number());
    let used = client.generate(&number);
    client.verify(&number, used["otp"].as_str().unwrap()).expect(200);
    let locked = client.regenerate(&number).expect(201);
    let wrong = if locked["otp"] == "000000" { "000001" } else { "000000" };
    client.verify(&number, wrong).expect_problem(422, "otp_mismatch");
    client.verify(&number, wrong).expect_problem(429, "attempts_exceeded");
    let fresh = client.regenerate(&number).expect(201);
    client.verify(&number, fresh["otp"].as_str().unwrap()).expect(200);
}

#[test]
fn regenerate_keeps_the_channel() {
    let service = Service::builder().without_limits().start();
    let (client, number) = (service.client(), number());
    let body = json!({ "mobileNumber": number, "channel": "email", "email": "ada@example.com" });
    let made = client.post("/generate-otp", &body).expect(201);
    assert_eq!(made["channel"], "email");
    // The address is confirmed by that.
    client.verify(&number, made["otp"].as_str().unwrap()).expect(200);
    assert_eq!(client.regenerate(&number).expect(201)["channel"], "email");
    assert_eq!(client.resend(&number).expect(200)["channel"], "email");
    assert_eq!(client.regenerate(&number).expect(201)["channel"], "email");
    // Another generate may choose another one.
    assert_eq!(client.generate(&number)["channel"], "sms");
}

#[test]
fn concurrent_regenerates_and_resends_leave_one_truth() {
    let service = Service::builder().without_limits().variable("otp_length", "10").start();
    let client = service.client();
    for _ in 0..5 {
        let number = number();
        let first = client.generate(&number);
        let answers = at_once(40, |index| {
            if index % 2 == 0 {
                client.regenerate(&number).expect(201)
            } else {
                client.resend(&number).expect(200)
            }
        });
        let text = |answer: &serde_json::Value| answer["otp"].as_str().unwrap().to_owned();
        let mut made: Vec<_> = answers.iter().step_by(2).map(text).collect();
        assert!(!made.contains(&text(&first)));
        for given in answers.iter().skip(1).step_by(2).map(text) {
            assert!(given == text(&first) || made.contains(&given), "{given} was never made");
        }
        let truth = text(&client.resend(&number).expect(200));
        assert!(made.contains(&truth));
        made.retain(|code| *code != truth);
        assert_eq!(made.len(), 19);
        // Four of the dead ones: the fifth wrong value would lock the code.
        for dead in &made[..4] {
            client.verify(&number, dead).expect_problem(422, "otp_mismatch");
        }
        client.verify(&number, &truth).expect(200);
    }
}
