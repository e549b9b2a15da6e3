//! No code, key or whole number where it does not belong.

use crate::{files_below, holds, ten_digits};
use harness::{Service, number};
use serde_json::json;

/// 32 bytes, and nobody's.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

#[test]
fn no_code_is_in_clear_on_disk_or_in_the_log_and_no_number_or_key_in_the_log() {
    // Ten digits: six would collide with time stamps.
    let mut service = Service::builder()
        .variable("otp_length", "10")
        .variable("encryption_keys", &format!("k1:{KEY}"))
        .variable("index_key", KEY)
        .start();
    let client = service.client();
    let mut secrets = Vec::new();
    let mut numbers = Vec::new();
    for index in 0..30 {
        let number = number();
        let email = format!("user{index}@example.com");
        let body = json!({ "mobileNumber": number, "email": email, "channel": "email" });
        for answer in [
            client.post("/generate-otp", &body).expect(201),
            client.resend(&number).expect(200),
            client.regenerate(&number).expect(201),
        ] {
            secrets.push(answer["otp"].as_str().unwrap().to_owned());
        }
        let guess = format!("98765{:05}", index * 7);
        client.verify(&number, &guess).expect_problem(422, "otp_mismatch");
        client.verify(&number, &format!("{guess}1")).expect_problem(422, "invalid_otp");
        // Half of the codes live on, and so do their copies in the cache.
        if index % 2 == 0 {
            client.verify(&number, secrets.last().unwrap()).expect(200);
        }
        client.get(&format!("/users/{number}")).expect_problem(405, "method_not_allowed");
        let dashed = format!("{}-{}-{}", &number[..5], &number[5..8], &number[8..]);
        client.get(&format!("/users/{dashed}")).expect_problem(405, "method_not_allowed");
        assert!(!service.log().contains(&dashed[2..8]), "part of a number stands in the log");
        client
            .get(&format!("/verify-otp?otp={guess}&mobileNumber={number}"))
            .expect_problem(405, "method_not_allowed");
        secrets.push(guess);
        numbers.push(number);
    }
    let scan = |service: &Service| {
        let mut files = files_below(&service.state());
        if let Some(redis) = service.cache() {
            // What it holds, as it writes it to disk, uncompressed.
            redis.save();
            files.extend(files_below(&redis.files()));
            assert!(
                files.iter().any(|(_, bytes)| holds(bytes, b"spin-otp:account:")),
                "there is something to scan"
            );
            for (name, bytes) in files.iter().filter(|(name, _)| name.ends_with(".rdb")) {
                assert!(
                    numbers.iter().all(|number| !holds(bytes, &number.as_bytes()[1..])),
                    "a number stands in {name}"
                );
            }
        }
        let found: Vec<_> = files.iter().map(|(name, bytes)| (name, ten_digits(bytes))).collect();
        // The scan would find one: the numbers are there.
        assert!(found.iter().any(|(_, digits)| digits.contains(&numbers[0].as_bytes()[2..])));
        for secret in &secrets {
            for (name, digits) in &found {
                assert!(!digits.contains(secret.as_bytes()), "a code stands in {name}");
            }
            assert!(!service.log().contains(secret.as_str()), "a code stands in the log");
        }
        for number in &numbers {
            assert!(!service.log().contains(&number[1..]), "a number stands in the log");
        }
        assert!(!service.log().contains(KEY), "a key stands in the log");
    };
    scan(&service);
    service.terminate();
    scan(&service);
}
