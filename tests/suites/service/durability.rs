//! What was answered is kept, whenever the host dies.

use harness::{Service, bulk_number, eventually};
use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

/// Most codes that a round makes: a bound on the time that checking them takes.
const MOST: u32 = 1_500;

#[test]
fn a_killed_host_loses_no_code_that_it_answered_with() {
    let mut service = Service::builder().without_limits().variable("otp_length", "10").start();
    let next = AtomicU32::new(0);
    for round in 0..3_u32 {
        let until = next.load(Ordering::Relaxed) + MOST;
        let client = service.client();
        let stopped = AtomicBool::new(false);
        let before = next.load(Ordering::Relaxed);
        let answered = thread::scope(|scope| {
            let writers: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let mut answered = Vec::new();
                        while !stopped.load(Ordering::Relaxed) {
                            let index = next.fetch_add(1, Ordering::Relaxed);
                            if index >= until {
                                break;
                            }
                            let number = bulk_number(index);
                            let body = format!("{{\"mobileNumber\":\"{number}\"}}");
                            // The first that fails is the one that was under way at the kill.
                            match client.try_send("POST", "/generate-otp", &[], body.as_bytes()) {
                                Ok(answer) => {
                                    let made = answer.expect(201);
                                    answered.push((number, made["otp"].as_str().unwrap().to_owned()));
                                }
                                Err(_) => break,
                            }
                        }
                        answered
                    })
                })
                .collect();
            // In the middle of the load, and each time at another place.
            let enough = before + 60 + 20 * round;
            eventually("some answers", Duration::from_secs(20), || next.load(Ordering::Relaxed) >= enough);
            service.kill();
            stopped.store(true, Ordering::Relaxed);
            writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
        });
        assert!(answered.len() > 20, "the host was killed in the middle of a load: {}", answered.len());

        service.restart();
        let client = service.client();
        for (number, otp) in &answered {
            assert_eq!(client.resend(number).expect(200)["otp"], otp.as_str());
        }
        for (number, otp) in answered.iter().step_by(5) {
            client.verify(number, otp).expect(200);
        }
    }
}

#[test]
fn a_used_code_and_spent_attempts_outlive_a_kill() {
    let mut service = Service::builder().without_limits().variable("max_verify_attempts", "2").start();
    let (used, spent) = (harness::number(), harness::number());
    let client = service.client();
    let otp = client.generate(&used)["otp"].as_str().unwrap().to_owned();
    client.verify(&used, &otp).expect(200);
    let right = client.generate(&spent)["otp"].as_str().unwrap().to_owned();
    let wrong = if right == "000000" { "000001" } else { "000000" };
    client.verify(&spent, wrong).expect_problem(422, "otp_mismatch");
    service.kill();
    service.restart();
    let client = service.client();
    client.verify(&used, &otp).expect_problem(410, "otp_used");
    let problem = client.verify(&spent, wrong).expect_problem(422, "otp_mismatch");
    assert_eq!(problem["attemptsRemaining"], 0);
}
