//! Where codes go: countries, ranges, and the guard against pumping.

use crate::outbox_of;
use harness::{Builder, Client, Response, Service, at_once, eventually, number, temporary_folder};
use serde_json::json;
use std::{
    cell::Cell,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

const SOON: Duration = Duration::from_secs(30);
const GERMAN: &str = "+4915112345678";

#[track_caller]
fn not_served(answer: &Response) {
    answer.expect_problem(422, "country_not_allowed");
}

/// The calls that send this number a code, none of which may.
#[track_caller]
fn nothing_goes_to(client: &Client, number: &str, refusal: impl Fn(&Response)) {
    refusal(&client.try_generate(number));
    refusal(&client.resend(number));
    refusal(&client.regenerate(number));
}

#[test]
fn codes_go_to_the_countries_that_are_named_and_to_no_other() {
    let service = Service::builder().without_limits().variable("allowed_countries", "US, GB").start();
    let client = service.client();
    let american = number();
    client.generate(&american);
    client.resend(&american).expect(200);
    client.generate("+447400123456");
    nothing_goes_to(&client, GERMAN, not_served);
    // Canada, behind the same calling code.
    nothing_goes_to(&client, "+16135550123", not_served);
    // What is no number is told as such.
    client.try_generate("+1").expect_problem(422, "invalid_mobile_number");
}

/// A number of each kind that is no plain mobile.
pub(crate) const OTHER_KINDS: [(&str, &str); 4] = [
    ("+447012345678", "personal"),
    ("+445612345678", "voip"),
    ("+881612345678", "satellite"),
    ("+883510012345", "non-geographic"),
];

#[test]
fn codes_go_to_the_kinds_of_numbers_that_are_named_and_to_no_other() {
    let anywhere = Service::builder().without_limits().start();
    let mobiles = Service::builder()
        .without_limits()
        .variable("allowed_number_types", "mobile, fixed-line-or-mobile")
        .start();
    for (number, kind) in OTHER_KINDS {
        anywhere.client().generate(number);
        let refused = |answer: &Response| {
            let problem = answer.expect_problem(422, "invalid_mobile_number");
            assert!(problem["detail"].as_str().unwrap().contains(kind), "{problem}");
        };
        nothing_goes_to(&mobiles.client(), number, refused);
    }
    mobiles.client().generate(&number());
    mobiles.client().generate("+447400123456");
    let personal = Service::builder().without_limits().variable("allowed_number_types", "personal").start();
    personal.client().generate(OTHER_KINDS[0].0);
    personal.client().try_generate("+447400123456").expect_problem(422, "invalid_mobile_number");
}

#[test]
fn codes_go_to_a_country_s_territories() {
    let service = Service::builder().without_limits().variable("allowed_countries", "GB").start();
    let client = service.client();
    for number in ["+447781123456", "+447624123456", "+447797123456"] {
        client.generate(number);
    }
    let service = Service::builder().without_limits().variable("allowed_countries", "JE").start();
    service.client().generate("+447797123456");
    nothing_goes_to(&service.client(), "+447400123456", not_served);
}

#[test]
fn codes_go_to_no_range_that_is_blocked() {
    let service = Service::builder()
        .without_limits()
        .variable("allowed_countries", "US")
        .variable("blocked_prefixes", "+1415, +4479")
        .start();
    let client = service.client();
    nothing_goes_to(&client, &number(), not_served);
    nothing_goes_to(&client, "+447400123456", not_served);
    client.generate("+12125550123");
}

#[test]
fn who_has_a_code_already_may_use_it_wherever_codes_go_by_now() {
    let folder = temporary_folder();
    let number = number();
    let before = Service::builder().without_limits().state(folder.path()).start();
    let codes = [GERMAN, &number].map(|number| before.client().generate(number)["otp"].clone());
    drop(before);
    let service = Service::builder()
        .without_limits()
        .variable("allowed_countries", "US")
        .variable("blocked_prefixes", "+1415")
        .state(folder.path())
        .start();
    let client = service.client();
    for (number, code) in [GERMAN, &number].into_iter().zip(&codes) {
        nothing_goes_to(&client, number, not_served);
        client.verify(number, code.as_str().unwrap()).expect(200);
    }
}

#[test]
fn what_makes_no_sense_is_named() {
    for (variable, value) in [
        ("allowed_countries", "US,XX"),
        ("allowed_countries", "us"),
        ("allowed_number_types", "mobile,landline"),
        ("blocked_prefixes", "1900"),
        ("blocked_prefixes", "+"),
        ("blocked_prefixes", "+1900,+12a"),
        ("pumping_guard", "maybe"),
        ("pumping_min_sends", "0"),
        ("pumping_min_sends", "1000001"),
        ("pumping_min_percent", "0"),
        ("pumping_min_percent", "101"),
        ("pumping_window_seconds", "59"),
        ("pumping_window_seconds", "86401"),
        ("pumping_suspend_seconds", "0"),
        ("pumping_suspend_seconds", "86401"),
    ] {
        let service = Service::builder().variable(variable, value).start();
        let problem = service.client().try_generate(&number()).expect_problem(503, "misconfigured");
        assert!(problem["detail"].as_str().unwrap().contains(variable), "{variable}={value}: {problem}");
    }
}

/// Suspends a range after fifty codes of which hardly any is verified, whatever their age.
fn guarded(suspend_seconds: u32) -> Builder {
    Service::builder()
        .variable("pumping_min_sends", "10")
        .variable("pumping_suspend_seconds", &suspend_seconds.to_string())
}

/// The numbers that follow this one.
fn block(first: &str) -> impl Fn() -> String {
    let next = Cell::new(first.strip_prefix('+').unwrap().parse::<u64>().unwrap());
    move || format!("+{}", next.replace(next.get() + 1))
}

#[track_caller]
fn suspended(answer: &Response) {
    answer.expect_problem(429, "destination_suspended");
    assert!(answer.retry_after() >= 1);
    assert_eq!(answer.header("ratelimit"), "", "no limit of the caller's");
}

/// Sends codes to ever new numbers until the range is suspended. How many there were, and the refusal.
#[track_caller]
fn pump(client: &Client, next: &impl Fn() -> String) -> (usize, Response) {
    let start = Instant::now();
    for sent in 0.. {
        let answer = client.try_generate(&next());
        if answer.status != 201 {
            suspended(&answer);
            return (sent, answer);
        }
        assert!(start.elapsed() < Duration::from_secs(25), "{sent} codes, and not suspended");
        thread::sleep(Duration::from_millis(2));
    }
    unreachable!()
}

#[test]
fn a_range_that_is_sent_much_and_verifies_nothing_is_suspended_for_a_while() {
    let service = guarded(8).start();
    let client = service.client();
    let next = block("+14155550000");
    let known = next();
    client.generate(&known);
    let (sent, refusal) = pump(&client, &next);
    let told = Instant::now();
    assert!(sent >= 48, "not before five times the least number: {sent}");
    assert!((1..=8).contains(&refusal.retry_after()), "{refusal:?}");
    // Numbers that were sent a code before are no exception, and other ranges go on.
    nothing_goes_to(&client, &known, suspended);
    for other in ["+12125550123", "+14165550123", "+447400123456", "+41791234567"] {
        client.generate(other);
        client.resend(other).expect(200);
    }
    assert!(told.elapsed() < Duration::from_secs(7), "too slow to tell");

    let events = outbox_of(&service, "destination.suspended.v1");
    let [event] = &events[..] else { panic!("{events:?}") };
    assert_eq!(event["subject"], "+1415");
    assert_eq!(event["data"]["prefix"], "+1415");
    assert!(event["data"]["sent"].as_i64().unwrap() >= 50, "{event}");
    assert_eq!(event["data"]["verified"], 0);
    assert!(event["data"]["suspendedUntil"].is_string());
    let log = service.log();
    let line = log.lines().find(|line| line.contains("+1415")).expect("a line of the suspension");
    assert!(line.contains("suspended"), "{line}");
    assert!(!log.contains("1415555"), "no number: {log}");

    let wait = told + Duration::from_secs(refusal.retry_after());
    thread::sleep(wait.saturating_duration_since(Instant::now()));
    assert_eq!(client.resend(&known).status, 200, "let in after the time that was told");
    assert_eq!(client.try_generate(&next()).status, 201);
    assert_eq!(outbox_of(&service, "destination.suspended.v1").len(), 1);
}

#[test]
fn a_flood_is_suspended_by_one_event_whoever_finds_it() {
    let folder = temporary_folder();
    let services = at_once(2, |_| guarded(3_600).state(folder.path()).start());
    let clients: Vec<_> = services.iter().map(Service::client).collect();
    eventually("the suspension", SOON, || {
        let answers = at_once(16, |index| clients[index % 2].try_generate(&number()));
        answers.iter().any(|answer| answer.status == 429)
    });
    // Known to both.
    for client in &clients {
        suspended(&client.try_generate(&number()));
    }
    assert_eq!(outbox_of(&services[0], "destination.suspended.v1").len(), 1);
    drop(services);
    let again = guarded(3_600).state(folder.path()).start();
    suspended(&again.client().try_generate(&number()));
}

#[test]
fn the_next_suspension_comes_sooner_and_lasts_longer() {
    let service = guarded(4).start();
    let client = service.client();
    let next = block("+14155550000");
    let mut longest = Vec::new();
    for _ in 0..2 {
        let (_, refusal) = pump(&client, &next);
        longest.push(refusal.retry_after());
        let strikes = service.sql().number("SELECT strikes FROM suspensions", &[]);
        assert_eq!(strikes, longest.len() as i64);
        if longest.len() < 2 {
            thread::sleep(Duration::from_secs(refusal.retry_after()));
        }
    }
    assert!((1..=4).contains(&longest[0]) && (5..=8).contains(&longest[1]), "{longest:?}");
}

#[test]
fn what_is_sent_right_after_a_suspension_counts() {
    let service = guarded(2).start();
    let client = service.client();
    let next = block("+14155550000");
    // Codes are counted in slots of a quarter of a minute. Let the suspension end early in one.
    eventually("the right moment", Duration::from_secs(20), || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        (12_500..13_500).contains(&(now.as_millis() % 15_000))
    });
    let (_, refusal) = pump(&client, &next);
    thread::sleep(Duration::from_secs(refusal.retry_after()));
    // On probation, five are enough; that takes the guard a moment.
    let (sent, _) = pump(&client, &next);
    assert!(sent < 600, "{sent} codes after a suspension, none of them verified");
}

#[test]
fn codes_that_are_verified_suspend_nothing() {
    let service = guarded(3_600).start();
    let client = service.client();
    let next = block("+14155550000");
    let honest = |number: &str| {
        let made = client.generate(number);
        client.verify(number, made["otp"].as_str().unwrap()).expect(200);
    };
    for _ in 0..150 {
        honest(&next());
    }
    thread::sleep(Duration::from_millis(600));
    honest(&next());
    assert!(outbox_of(&service, "destination.suspended.v1").is_empty());
}

#[test]
fn the_guard_can_be_switched_off() {
    let service = guarded(3_600).variable("pumping_guard", "false").start();
    let client = service.client();
    let next = block("+14155550000");
    (0..100).for_each(|_| drop(client.generate(&next())));
    thread::sleep(Duration::from_millis(600));
    client.generate(&next());
    assert!(outbox_of(&service, "destination.suspended.v1").is_empty());
}

#[test]
fn a_suspension_ends_when_the_guard_is_switched_off() {
    let folder = temporary_folder();
    let service = guarded(3_600).state(folder.path()).start();
    let next = block("+14155550000");
    pump(&service.client(), &next);
    drop(service);
    let off = guarded(3_600).variable("pumping_guard", "false").state(folder.path()).start();
    off.client().generate(&next());
}

/// Sends codes until the range is suspended, and gives those that went out.
fn pump_and_keep(client: &Client, next: &impl Fn() -> String) -> Vec<(String, String)> {
    let mut sent = Vec::new();
    for _ in 0..2_000 {
        let number = next();
        let answer = client.try_generate(&number);
        if answer.status == 429 {
            suspended(&answer);
            return sent;
        }
        sent.push((number, answer.expect(201)["otp"].as_str().unwrap().to_owned()));
        thread::sleep(Duration::from_millis(2));
    }
    panic!("two thousand codes, and not suspended");
}

#[test]
fn a_suspension_is_lifted_when_the_codes_are_verified_after_all() {
    let service = guarded(3_600).start();
    let client = service.client();
    let next = block("+14155550000");
    let sent = pump_and_keep(&client, &next);
    // Users only took their time.
    for (number, otp) in &sent {
        client.verify(number, otp).expect(200);
    }
    eventually("the suspension is lifted", SOON, || client.try_generate(&next()).status == 201);
    let log = service.log();
    assert!(log.lines().any(|line| line.contains("+1415") && line.contains("let go")), "{log}");
}

#[test]
fn a_single_code_that_is_verified_lifts_no_suspension() {
    let service = guarded(3_600).start();
    let client = service.client();
    let next = block("+14155550000");
    let sent = pump_and_keep(&client, &next);
    assert!(sent.len() >= 48);
    // Two percent, where twenty are due: whoever pumps has a telephone, too.
    let (number, otp) = &sent[0];
    client.verify(number, otp).expect(200);
    // What is counted is counted within a moment.
    thread::sleep(Duration::from_millis(700));
    suspended(&client.try_generate(&next()));
}

#[test]
fn what_is_refused_is_not_counted_against_a_range() {
    let service = guarded(3_600).variable("rate_limit_requests", "2").start();
    let client = service.client();
    let next = block("+14155550000");
    for _ in 0..10 {
        let number = next();
        client.generate(&number);
        client.resend(&number).expect(200);
        // A hundred requests that are refused.
        (0..10).for_each(|_| drop(client.try_generate(&number).expect_problem(429, "rate_limited")));
    }
    let missing = next();
    (0..40).for_each(|_| drop(client.resend(&missing).expect(404)));
    thread::sleep(Duration::from_millis(600));
    client.generate(&next());
    assert!(outbox_of(&service, "destination.suspended.v1").is_empty());
    // What went out counts, whichever call it was.
    let database = service.sql();
    eventually("the counts", SOON, || {
        database.number("SELECT coalesce(sum(sent), 0) FROM destinations", &[]) == 21
    });
}

#[test]
fn the_ranges_of_countries_with_long_codes_are_no_larger() {
    let service = guarded(3_600).start();
    let client = service.client();
    // Tajikistan: +992 and three digits.
    let next = block("+992901234500");
    let (_, refusal) = pump(&client, &next);
    suspended(&refusal);
    let body = json!({ "mobileNumber": "+992921234567" });
    client.post("/generate-otp", &body).expect(201);
    assert_eq!(outbox_of(&service, "destination.suspended.v1")[0]["subject"], "+992901");
}
