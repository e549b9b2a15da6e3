//! `POST /verify-otp`

use harness::{Service, at_once, number};
use serde_json::json;

/// A code that is not this one.
fn other_than(otp: &str) -> String {
    let changed = if otp.starts_with('0') { "1" } else { "0" };
    format!("{changed}{}", &otp[1..])
}

#[test]
fn the_right_code_is_verified_once() {
    let service = Service::start();
    let (client, number) = (service.client(), number());
    let made = client.generate(&number);
    let otp = made["otp"].as_str().unwrap();
    let verified = client.verify(&number, otp).expect(200);
    assert_eq!(verified["mobileNumber"], number.as_str());
    assert_eq!(verified["otpId"], made["otpId"]);
    assert_eq!(verified["verified"], true);
    assert_eq!(verified["channel"], "sms");
    assert_eq!(verified["verifiedAt"].as_str().unwrap().len(), 20);
    assert_eq!(verified.as_object().unwrap().len(), 5);
    client.verify(&number, otp).expect_problem(410, "otp_used");
    client.verify(&number, &other_than(otp)).expect_problem(410, "otp_used");
}

#[test]
fn a_wrong_code_says_how_many_attempts_are_left_and_the_last_one_locks() {
    let service = Service::start();
    let (client, number) = (service.client(), number());
    let made = client.generate(&number);
    let otp = made["otp"].as_str().unwrap();
    for left in (0..5).rev() {
        let problem = client.verify(&number, &other_than(otp)).expect_problem(422, "otp_mismatch");
        assert_eq!(problem["attemptsRemaining"], left);
    }
    for guess in [other_than(otp), otp.to_owned()] {
        let answer = client.verify(&number, &guess);
        answer.expect_problem(429, "attempts_exceeded");
        assert_eq!(answer.header("retry-after"), "", "waiting does not help");
    }
}

#[test]
fn the_right_code_does_not_count_as_an_attempt() {
    let service = Service::builder().variable("max_verify_attempts", "2").start();
    let (client, number) = (service.client(), number());
    let made = client.generate(&number);
    let otp = made["otp"].as_str().unwrap();
    client.verify(&number, &other_than(otp)).expect_problem(422, "otp_mismatch");
    client.verify(&number, otp).expect(200);
}

#[test]
fn what_is_not_of_the_form_of_a_code_is_not_a_guess() {
    let service = Service::builder().variable("max_verify_attempts", "1").start();
    let (client, number) = (service.client(), number());
    let made = client.generate(&number);
    for bad in ["", "12345", "1234567", "12345a", "123.456", "12345²", "-12345", "+123456"] {
        client.verify(&number, bad).expect_problem(422, "invalid_otp");
    }
    client.verify(&number, made["otp"].as_str().unwrap()).expect(200);
}

#[test]
fn a_code_is_read_as_its_user_sees_it() {
    let service = Service::builder().without_limits().start();
    let client = service.client();
    let in_script = |otp: &str, zero: u32| -> String {
        otp.chars().map(|digit| char::from_u32(zero + digit.to_digit(10).unwrap()).unwrap()).collect()
    };
    let spellings: [&dyn Fn(&str) -> String; 9] = [
        &|otp| format!("{} {}", &otp[..3], &otp[3..]),
        &|otp| format!("{}-{}", &otp[..3], &otp[3..]),
        &|otp| format!("{otp}\n"),
        &|otp| format!("\r\n\t {otp} "),
        &|otp| format!("\u{feff}{}\u{a0}{}\u{200b}", &otp[..3], &otp[3..]),
        &|otp| format!("{}\u{2011}{}", &otp[..3], &otp[3..]),
        &|otp| in_script(otp, 0x660),
        &|otp| in_script(otp, 0x966),
        &|otp| in_script(otp, 0xff10),
    ];
    for spelling in spellings {
        let number = number();
        let made = client.generate(&number);
        let otp = made["otp"].as_str().unwrap();
        // The same spelling of another code is a guess, and counts as one.
        let wrong = client.verify(&number, &spelling(&other_than(otp))).expect_problem(422, "otp_mismatch");
        assert_eq!(wrong["attemptsRemaining"], 4);
        client.verify(&number, &spelling(otp)).expect(200);
    }
}

#[test]
fn a_number_is_read_as_its_user_sees_it() {
    let service = Service::builder().without_limits().variable("default_region", "US").start();
    let client = service.client();
    for (number, spellings) in [
        (
            "+12125550123",
            &[
                "\u{202a}+1\u{a0}(212)\u{a0}555\u{2011}0123\u{202c}",
                "tel:+1-212-555-0123",
                "(+1) 212/555/0123",
                "001 212 555 0123",
                "+١٢١٢٥٥٥٠١٢٣",
                "\u{ff0b}１２１２５５５０１２３",
                "+1\t212\t555\t0123\r\n",
                "212.555.0123",
            ][..],
        ),
        ("+525512345678", &["+52 1 55 1234 5678", "+52 55 1234 5678"]),
        ("+5491123456789", &["+54 11 15-2345-6789", "+54 9 11 2345 6789", "+54 11 2345 6789"]),
        ("+447911123456", &["+44 (0)7911 123456", "00 44 7911 123456"]),
    ] {
        let made = client.generate(number);
        for spelling in spellings {
            let again = client.resend(spelling).expect(200);
            assert_eq!(
                (&again["mobileNumber"], &again["otp"]),
                (&json!(number), &made["otp"]),
                "{spelling:?}"
            );
        }
    }
}

#[test]
fn with_an_id_only_that_code_will_do() {
    let service = Service::start();
    let (client, number) = (service.client(), number());
    let old = client.generate(&number);
    let new = client.regenerate(&number).expect(201);
    let verify = |id: &str| {
        client.post("/verify-otp", &json!({ "mobileNumber": number, "otp": new["otp"], "otpId": id }))
    };
    verify(old["otpId"].as_str().unwrap()).expect_problem(404, "otp_not_found");
    verify("00000000-0000-7000-8000-000000000000").expect_problem(404, "otp_not_found");
    verify("no id").expect_problem(404, "otp_not_found");
    verify(&new["otpId"].as_str().unwrap().to_uppercase()).expect(200);
}

#[test]
fn a_code_is_good_for_its_own_number_only() {
    let service = Service::builder().variable("otp_length", "10").start();
    let client = service.client();
    let (one, two) = (number(), number());
    let made = client.generate(&one);
    client.generate(&two);
    client.verify(&two, made["otp"].as_str().unwrap()).expect_problem(422, "otp_mismatch");
    client.verify(&number(), made["otp"].as_str().unwrap()).expect_problem(404, "otp_not_found");
}

#[test]
fn of_16_right_checks_at_once_one_wins() {
    let service = Service::start();
    let client = service.client();
    for _ in 0..10 {
        let number = number();
        let otp = client.generate(&number)["otp"].as_str().unwrap().to_owned();
        let answers = at_once(16, |_| client.verify(&number, &otp));
        let won = answers.iter().filter(|answer| answer.status == 200).count();
        assert_eq!(won, 1);
        for answer in answers.iter().filter(|answer| answer.status != 200) {
            answer.expect_problem(410, "otp_used");
        }
    }
}

#[test]
fn of_40_wrong_checks_at_once_five_are_compared() {
    let service = Service::builder().variable("otp_length", "10").start();
    let client = service.client();
    for _ in 0..5 {
        let number = number();
        let otp = client.generate(&number)["otp"].as_str().unwrap().to_owned();
        let wrong = other_than(&otp);
        let mut remaining = Vec::new();
        for answer in at_once(40, |_| client.verify(&number, &wrong)) {
            if answer.status == 422 {
                let problem = answer.expect_problem(422, "otp_mismatch");
                remaining.push(problem["attemptsRemaining"].as_i64().unwrap());
            } else {
                answer.expect_problem(429, "attempts_exceeded");
            }
        }
        remaining.sort_unstable();
        assert_eq!(remaining, [0, 1, 2, 3, 4]);
        client.verify(&number, &otp).expect_problem(429, "attempts_exceeded");
    }
}

#[test]
fn two_instances_of_the_service_share_one_truth() {
    let one = Service::builder().variable("otp_length", "10").start();
    let two = Service::builder().variable("otp_length", "10").state(&one.state()).start();
    let clients = [one.client(), two.client()];
    for _ in 0..5 {
        let number = number();
        let otp = clients[0].generate(&number)["otp"].as_str().unwrap().to_owned();
        assert_eq!(clients[1].resend(&number).expect(200)["otp"], otp.as_str());
        let answers = at_once(16, |index| clients[index % 2].verify(&number, &otp).status);
        assert_eq!(answers.iter().filter(|status| **status == 200).count(), 1, "{answers:?}");
        assert_eq!(answers.iter().filter(|status| **status == 410).count(), 15, "{answers:?}");
    }
}
