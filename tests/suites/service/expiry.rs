//! How long a code lives.

use harness::{Service, number};
use std::{
    thread,
    time::{Duration, Instant},
};

#[test]
fn a_code_lives_as_long_as_it_says_and_not_a_moment_longer() {
    const LIFE: Duration = Duration::from_secs(1);
    // Two clocks that tick at different moments: one decides, the other measures.
    const TICK: Duration = Duration::from_millis(2);
    let service = Service::builder().without_limits().variable("otp_ttl_seconds", "1").start();
    let (client, number) = (service.client(), number());
    let before = Instant::now();
    let made = client.generate(&number);
    let after = Instant::now();
    assert_eq!(made["expiresInSeconds"], 1);
    loop {
        let asked = Instant::now();
        let answer = client.resend(&number);
        if answer.status == 200 {
            assert!(asked <= after + LIFE + TICK, "given out {:?} after it was made", asked - after);
            thread::sleep(Duration::from_millis(5));
        } else {
            answer.expect_problem(410, "otp_expired");
            assert!(Instant::now() + TICK >= before + LIFE, "dead {:?} after it was made", before.elapsed());
            break;
        }
    }
    let problem = client.verify(&number, made["otp"].as_str().unwrap()).expect_problem(410, "otp_expired");
    assert!(problem["detail"].as_str().unwrap().contains("/regenerate-otp"), "{problem}");
}

#[test]
fn a_used_code_is_used_also_after_its_life_and_regenerate_brings_a_live_one() {
    let service = Service::builder().without_limits().variable("otp_ttl_seconds", "1").start();
    let (client, number) = (service.client(), number());
    let made = client.generate(&number);
    client.verify(&number, made["otp"].as_str().unwrap()).expect(200);
    thread::sleep(Duration::from_millis(1_100));
    client.resend(&number).expect_problem(410, "otp_used");
    client.verify(&number, made["otp"].as_str().unwrap()).expect_problem(410, "otp_used");
    let fresh = client.regenerate(&number).expect(201);
    client.verify(&number, fresh["otp"].as_str().unwrap()).expect(200);
}
