//! What an operator can set, and what happens when it makes no sense.

use harness::{Service, number};

/// 32 bytes each, and nobody's.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const OTHER_KEY: &str = "Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";

#[test]
fn the_length_of_a_code_can_be_chosen() {
    for length in [4, 10] {
        let service = Service::builder().variable("otp_length", &length.to_string()).start();
        let (client, number) = (service.client(), number());
        let otp = client.generate(&number)["otp"].as_str().unwrap().to_owned();
        assert_eq!(otp.len(), length);
        client.verify(&number, &otp[1..]).expect_problem(422, "invalid_otp");
        client.verify(&number, &otp).expect(200);
    }
}

#[test]
fn answers_need_not_reveal_the_code() {
    let service = Service::builder().variable("reveal_otp", "false").start();
    let (client, number) = (service.client(), number());
    for answer in
        [client.generate(&number), client.resend(&number).expect(200), client.regenerate(&number).expect(201)]
    {
        assert!(answer.get("otp").is_none(), "{answer}");
        assert_eq!(answer.as_object().unwrap().len(), 6);
    }
}

#[test]
fn a_default_region_takes_its_national_numbers() {
    let service = Service::builder().variable("default_region", "GB").start();
    let client = service.client();
    assert_eq!(client.generate("07911 123456")["mobileNumber"], "+447911123456");
    assert_eq!(client.generate("+14155550123")["mobileNumber"], "+14155550123");
}

#[test]
fn keys_rotate_without_losing_a_code_and_a_code_of_an_unknown_key_has_expired() {
    let keys = |list: &str| Service::builder().variable("encryption_keys", list).variable("index_key", KEY);
    let old = keys(&format!("old:{KEY}")).start();
    let state = old.state();
    let number = number();
    let made = old.client().generate(&number);

    let both = keys(&format!("new:{OTHER_KEY},old:{KEY}")).state(&state).start();
    assert_eq!(both.client().resend(&number).expect(200)["otp"], made["otp"]);

    let gone = keys(&format!("new:{OTHER_KEY}")).state(&state).start();
    gone.client().resend(&number).expect_problem(410, "otp_expired");
    // The check needs no encryption key.
    gone.client().verify(&number, made["otp"].as_str().unwrap()).expect(200);
}

#[test]
fn a_value_that_makes_no_sense_is_named_at_once_and_nothing_is_served() {
    for (variable, value) in [
        ("otp_length", "3"),
        ("otp_length", "11"),
        ("otp_length", "six"),
        ("otp_length", ""),
        ("otp_length", "+6"),
        ("otp_ttl_seconds", "0"),
        ("otp_ttl_seconds", "601"),
        ("otp_ttl_seconds", "-1"),
        ("otp_ttl_seconds", "99999999999999999999"),
        ("max_verify_attempts", "0"),
        ("max_verify_attempts", "1.5"),
        ("reveal_otp", "yes"),
        ("default_region", "gb"),
        ("default_region", "XX"),
        ("encryption_keys", "not a key"),
        ("encryption_keys", "k1:AAEC"),
        ("index_key", "AAEC"),
        ("relay_url", "127.0.0.1:3100"),
        ("relay_url", "http://127.0.0.1"),
        ("relay_url", "http://127.0.0.1:3100/events"),
        ("relay_url", "http://user:password@127.0.0.1:3100"),
        ("relay_url", "ftp://127.0.0.1:3100"),
        // Another machine, without a token.
        ("relay_url", "https://relay.example:443"),
        ("relay_token", "short"),
        ("allow_plaintext_relay", "yes"),
        ("outbox_retention_seconds", "59"),
        ("redis_endpoint", "127.0.0.1:6379"),
        ("redis_endpoint", "redis://127.0.0.1"),
        ("redis_endpoint", "redis://127.0.0.1:6379/0"),
        ("redis_endpoint", "redis://:secret-word@127.0.0.1:6379"),
        ("redis_endpoint", "http://127.0.0.1:6379"),
        ("redis_database", "zero"),
    ] {
        let service = Service::builder().variable(variable, value).start();
        let client = service.client();
        for answer in [client.get("/readyz"), client.resend(&number())] {
            let problem = answer.expect_problem(503, "misconfigured");
            assert!(problem["detail"].as_str().unwrap().contains(variable), "{variable}={value}: {problem}");
        }
        client.get("/healthz").expect(200);
        assert!(service.log().contains(variable), "the log names {variable}");
        if value.len() > 8 && (variable.contains("key") || value.contains("secret")) {
            assert!(!service.log().contains(value), "the log repeats no key");
        }
    }
}

#[test]
fn a_password_without_an_endpoint_is_a_mistake() {
    let service =
        Service::builder().variable("redis_endpoint", "").variable("redis_password", "secret-word").start();
    let problem = service.client().get("/readyz").expect_problem(503, "misconfigured");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("redis_endpoint") && detail.contains("redis_password"), "{detail}");
    assert!(!detail.contains("secret-word") && !service.log().contains("secret-word"));
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let service = Service::builder().variable("otp_length", "99").variable("reveal_otp", "maybe").start();
    let problem = service.client().get("/readyz").expect_problem(503, "misconfigured");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("otp_length") && detail.contains("reveal_otp"), "{detail}");
}
