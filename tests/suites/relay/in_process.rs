//! Without Kafka: from the intake through the ledger to the inbox, each code once, and none that is dead.

use crate::{
    GENERATED, LOCKED, Otp, REGENERATED, RESENT, SOON, TOKEN, TRACEPARENT, VERIFICATION_FAILED, VERIFIED,
    brought_by, codes, dead_letters, delivery, development_key, ends_up, hand_over, hand_over_one, id, inbox,
    metric, metric_becomes, post, requests_reach, shown, signed_with, text,
};
use harness::{Relay, RelayBuilder, SmsProvider, at_once, eventually};
use otp_seal::{EventKeys, KeyRing};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

/// 32 bytes, and nobody's.
const KEY: &str = "k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

#[test]
fn the_inbox_shows_what_the_user_reads() {
    let relay = Relay::builder().delivery("app_name = \"Shop\"\nwebotp_domain = \"shop.example\"").start();
    let (sms, mail) = (Otp::new(), Otp::new().by_mail());
    let (first, second) = (sms.event(GENERATED), mail.event(GENERATED));
    hand_over_one(&relay, &first);
    ends_up(&relay, &first, "delivered");
    hand_over_one(&relay, &second);
    ends_up(&relay, &second, "delivered");
    let answer = relay.client().get("/inbox");
    assert_eq!(answer.header("cache-control"), "no-store");
    let [newest, oldest] = answer.expect(200).as_array().unwrap().clone().try_into().unwrap();
    for (message, otp, event) in [(&newest, &mail, &second), (&oldest, &sms, &first)] {
        for (field, value) in [
            ("to", otp.to()),
            ("channel", otp.channel()),
            ("otp", &otp.code),
            ("otpId", &otp.otp_id),
            ("eventId", id(event)),
            ("eventType", GENERATED),
            ("expiresAt", text(&event["data"], "expiresAt")),
        ] {
            assert_eq!(message[field], value, "{message}");
        }
        let said = text(message, "text");
        assert!(
            said.starts_with(&format!("{} is your Shop code. It is valid for 10 minutes.", otp.code)),
            "{said}"
        );
        assert!(text(message, "deliveredAt").ends_with('Z'), "{message}");
    }
    assert!(text(&oldest, "text").ends_with(&format!("\n\n@shop.example #{}", sms.code)), "{oldest}");
    assert_eq!(newest["subject"], "Your Shop code");
    assert!(oldest["subject"].is_null(), "a text message has none");
}

#[test]
fn the_inbox_is_searched_by_recipient_and_cut_to_a_limit() {
    let relay = Relay::start();
    let otps: Vec<_> =
        (0..6).map(|index| if index == 3 { Otp::new().by_mail() } else { Otp::new() }).collect();
    for otp in &otps {
        let event = otp.event(GENERATED);
        hand_over_one(&relay, &event);
        ends_up(&relay, &event, "delivered");
    }
    let newest_first: Vec<_> = otps.iter().rev().map(|otp| otp.code.as_str()).collect();
    assert_eq!(codes(&inbox(&relay)), newest_first);
    assert_eq!(codes(&shown(&relay, "/inbox?limit=2")), newest_first[..2]);
    // A + is a space in the forms of old, and E.164 begins with one.
    let digits = &otps[1].number[1..];
    for to in [format!("%2B{digits}"), format!("+{digits}"), digits.to_owned()] {
        assert_eq!(codes(&shown(&relay, &format!("/inbox?to={to}"))), [&otps[1].code], "{to}");
    }
    assert_eq!(codes(&shown(&relay, &format!("/inbox?to={}", otps[3].to()))), [&otps[3].code]);
    assert!(shown(&relay, &format!("/inbox?to={}", &digits[..7])).is_empty(), "a part is none");
}

#[test]
fn the_inbox_waits_for_a_message_as_long_as_it_is_asked_to() {
    let relay = Relay::start();
    let (otp, other) = (Otp::new(), Otp::new());
    let path = format!("/inbox?to={}&wait=5", &otp.number[1..]);
    std::thread::scope(|scope| {
        // A slow machine may need more than one.
        let waiting = scope
            .spawn(|| (0..).map(|_| shown(&relay, &path)).find(|messages| !messages.is_empty()).unwrap());
        // Another's message does not end it.
        let (first, second) = (other.event(GENERATED), otp.event(GENERATED));
        hand_over_one(&relay, &first);
        ends_up(&relay, &first, "delivered");
        assert!(!waiting.is_finished());
        hand_over_one(&relay, &second);
        assert_eq!(codes(&waiting.join().unwrap()), [&*otp.code]);
    });
    let begun = Instant::now();
    assert_eq!(codes(&shown(&relay, &path)), [&*otp.code], "what is there is not waited for");
    assert!(begun.elapsed() < Duration::from_secs(5));
    let begun = Instant::now();
    assert!(shown(&relay, "/inbox?to=14155550199&wait=0.5").is_empty());
    assert!(begun.elapsed() >= Duration::from_millis(500));
    for query in ["wait=31", "wait=-1", "wait=NaN", "wait=x", "limit=x", "to=1&to=2"] {
        relay.client().get(&format!("/inbox?{query}")).expect_problem(400, "invalid_query");
    }
}

#[test]
fn one_who_waits_for_the_inbox_does_not_hold_up_the_end() {
    let mut relay = Relay::start();
    let mut connection = TcpStream::connect(relay.address()).unwrap();
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n");
    // The first one's answer shows that the relay has the connection.
    connection.write_all(request("/healthz").as_bytes()).unwrap();
    let mut answer = [0; 4096];
    assert!(connection.read(&mut answer).unwrap() > 0);
    connection.write_all(request("/inbox?to=14155550199&wait=30").as_bytes()).unwrap();
    let begun = Instant::now();
    assert_eq!(relay.terminate().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(25));
}

#[test]
fn an_event_is_delivered_once_however_often_it_is_sent() {
    let relay = Relay::start();
    let otp = Otp::new();
    let event = otp.event(GENERATED);
    let sent = at_once(8, |_| {
        for _ in 0..5 {
            hand_over(&relay, &[event.clone(), event.clone()]);
        }
        10
    });
    metric_becomes(&relay, "duplicates_total", f64::from(sent.iter().sum::<i32>() - 1));
    ends_up(&relay, &event, "delivered");
    assert_eq!(codes(&inbox(&relay)), [otp.code]);
    assert_eq!(metric(&relay, "consumed_total"), 1.0);
    assert_eq!(metric(&relay, "delivered_total"), 1.0);
}

#[test]
fn a_code_that_is_asked_for_again_is_delivered_again() {
    let relay = Relay::start();
    let otp = Otp::new();
    let events = [otp.event(GENERATED), otp.event(RESENT)];
    hand_over(&relay, &events);
    events.iter().for_each(|event| drop(ends_up(&relay, event, "delivered")));
    assert_eq!(codes(&inbox(&relay)), [&otp.code, &otp.code]);
    let deliveries = shown(&relay, &format!("/deliveries/{}", otp.otp_id));
    let seen: Vec<_> = deliveries.iter().map(|delivery| text(delivery, "eventId")).collect();
    assert_eq!(seen, [id(&events[1]), id(&events[0])], "newest first");
}

#[test]
fn a_newer_code_takes_the_place_of_an_older_one_in_whatever_order_they_come() {
    let relay = Relay::start();
    let newer_and_older = || {
        let older = Otp::new();
        let newer = older.next();
        (newer.event(REGENERATED), older.event(GENERATED), newer)
    };
    let expect = |(newer, older, otp): (Value, Value, Otp)| {
        ends_up(&relay, &newer, "delivered");
        let dropped = ends_up(&relay, &older, "superseded");
        assert!(text(&dropped, "reason").contains("replaced"), "{dropped}");
        assert_eq!(codes(&shown(&relay, &format!("/inbox?to={}", &otp.number[1..]))), [otp.code]);
    };
    let together = newer_and_older();
    hand_over(&relay, &[together.1.clone(), together.0.clone()]);
    expect(together);
    let the_other_way_round = newer_and_older();
    hand_over(&relay, &[the_other_way_round.0.clone(), the_other_way_round.1.clone()]);
    expect(the_other_way_round);
    let late = newer_and_older();
    hand_over_one(&relay, &late.0);
    ends_up(&relay, &late.0, "delivered");
    hand_over_one(&relay, &late.1);
    expect(late);
    assert_eq!(metric(&relay, "undelivered_total{state=\"superseded\""), 3.0);
    assert!(dead_letters(&relay).is_empty(), "nothing is wrong with it");
}

#[test]
fn a_code_that_was_used_or_locked_before_its_delivery_is_not_delivered() {
    let relay = Relay::start();
    for end in [VERIFIED, LOCKED] {
        let otp = Otp::new();
        let (made, ended, again) = (otp.event(GENERATED), otp.event(end), otp.event(RESENT));
        let bystander = Otp::new().event(GENERATED);
        hand_over(&relay, &[made.clone(), bystander.clone(), ended]);
        ends_up(&relay, &made, "superseded");
        ends_up(&relay, &bystander, "delivered");
        // Late, too.
        hand_over_one(&relay, &again);
        ends_up(&relay, &again, "superseded");
        // The end of one code is not the end of the next.
        let next = otp.next();
        let new = next.event(REGENERATED);
        hand_over_one(&relay, &new);
        ends_up(&relay, &new, "delivered");
        assert_eq!(codes(&shown(&relay, &format!("/inbox?to={}", &otp.number[1..]))), [next.code]);
    }
}

#[test]
fn a_wrong_guess_does_not_keep_a_code_from_being_delivered() {
    let relay = Relay::start();
    let otp = Otp::new();
    let made = otp.event(GENERATED);
    hand_over(&relay, &[otp.event(VERIFICATION_FAILED), made.clone(), otp.event("otp.limited.v1")]);
    ends_up(&relay, &made, "delivered");
}

#[test]
fn a_code_that_is_used_while_its_provider_is_away_is_not_sent_any_more() {
    for end in [VERIFIED, LOCKED] {
        let provider = SmsProvider::start();
        provider.answer_all(503);
        let relay = brought_by(&[("main", &provider)]).start();
        let otp = Otp::new();
        let made = otp.event(GENERATED);
        hand_over_one(&relay, &made);
        requests_reach(&provider, 1);
        hand_over(&relay, &[otp.event(end)]);
        let already = provider.sent().len();
        provider.answer_all(200);
        ends_up(&relay, &made, "superseded");
        // One that had begun before the news is forgiven.
        assert!(provider.sent().len() <= already + 1);
        assert_eq!(metric(&relay, "delivered_total"), 0.0);
    }
}

#[test]
fn a_code_whose_life_is_over_is_not_delivered() {
    let relay = Relay::start();
    let (dead, alive) = (Otp::new().lives(Duration::ZERO), Otp::new());
    let (late, in_time) = (dead.event(GENERATED), alive.event(GENERATED));
    hand_over(&relay, &[late.clone(), in_time.clone()]);
    ends_up(&relay, &in_time, "delivered");
    let expired = ends_up(&relay, &late, "expired");
    assert!(text(&expired, "reason").contains("life was over"), "{expired}");
    assert_eq!(codes(&inbox(&relay)), [alive.code]);
    assert_eq!(metric(&relay, "undelivered_total{state=\"expired\""), 1.0);
    assert!(dead_letters(&relay).is_empty(), "nothing is wrong with it");
}

#[test]
fn what_was_accepted_is_delivered_once_though_the_relay_is_killed_right_after() {
    let mut relay = Relay::start();
    let events: Vec<_> = (0..400).map(|_| Otp::new().event(GENERATED)).collect();
    for (round, batch) in events.chunks(100).enumerate() {
        hand_over(&relay, batch);
        relay.kill();
        relay.restart();
        // Whoever did not hear the answer sends it again.
        if round % 2 == 0 {
            hand_over(&relay, batch);
        }
    }
    let mut seen = BTreeMap::new();
    eventually("all deliveries", SOON, || {
        seen.clear();
        for message in inbox(&relay) {
            *seen.entry(text(&message, "eventId").to_owned()).or_insert(0) += 1;
        }
        seen.len() >= events.len()
    });
    assert!(seen.values().all(|times| *times == 1) && seen.len() == events.len(), "{seen:?}");
}

#[test]
fn inbox_and_outcomes_are_there_after_the_relay_was_killed() {
    let mut relay = Relay::start();
    let old = Otp::new();
    let new = old.next();
    let events = [old.event(GENERATED), new.event(REGENERATED)];
    hand_over(&relay, &events);
    ends_up(&relay, &events[0], "superseded");
    ends_up(&relay, &events[1], "delivered");
    let known = |relay: &Relay| (inbox(relay), delivery(relay, &events[0]), delivery(relay, &events[1]));
    let before = known(&relay);
    relay.kill();
    relay.restart();
    assert_eq!(known(&relay), before);
    // What it knew of ids and versions is still known.
    let late = old.event(RESENT);
    hand_over(&relay, &[events[1].clone(), late.clone()]);
    ends_up(&relay, &late, "superseded");
    assert_eq!(inbox(&relay), before.0);
    assert_eq!(metric(&relay, "duplicates_total"), 1.0);
}

#[test]
fn what_became_of_a_code_is_told_without_code_and_number() {
    let relay = Relay::start();
    let otp = Otp::new().by_mail();
    let event = otp.event(GENERATED);
    hand_over_one(&relay, &event);
    let told = ends_up(&relay, &event, "delivered");
    for (field, value) in
        [("eventId", id(&event)), ("otpId", &otp.otp_id), ("channel", "email"), ("provider", "inbox")]
    {
        assert_eq!(told[field], value, "{told}");
    }
    assert_eq!(told["attempts"], 1);
    assert!(text(&told, "createdAt") <= text(&told, "updatedAt"), "{told}");
    for secret in [&otp.code, &otp.number[1..], otp.to()] {
        assert!(!told.to_string().contains(secret), "{told}");
    }
    relay.client().get("/deliveries/0198c7a4-dead-7000-8000-000000000000").expect_problem(404, "not_found");
}

#[test]
fn there_is_no_inbox_to_see_where_none_is_configured() {
    let relay = Relay::builder().delivery("[channels]\nsms = [\"log\"]\nemail = [\"log\"]").start();
    let otp = Otp::new();
    let event = otp.event(GENERATED);
    hand_over_one(&relay, &event);
    assert_eq!(ends_up(&relay, &event, "delivered")["provider"], "log");
    relay.client().get("/inbox").expect_problem(404, "not_found");
    let log = relay.log();
    assert!(log.contains("a message is ready") && log.contains(&otp.otp_id), "{log}");
    assert!(!log.contains(&otp.code) && !log.contains(&otp.number[1..]), "{log}");
}

#[test]
fn no_code_is_in_clear_in_the_state() {
    let mut relay = Relay::start();
    let otps: Vec<_> = (0..50).map(|_| Otp::new()).collect();
    let events: Vec<_> = otps.iter().map(|otp| otp.event(GENERATED)).collect();
    hand_over(&relay, &events);
    events.iter().for_each(|event| drop(ends_up(&relay, event, "delivered")));
    let scan = |bytes: Vec<u8>| {
        let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(holds(&otps[0].otp_id), "there is something to scan");
        assert!(otps.iter().all(|otp| !holds(&otp.code)));
    };
    scan(relay.ledger().contents());
    relay.terminate();
    scan(relay.ledger().contents());
}

#[test]
fn a_code_whose_key_is_missing_waits_for_it() {
    let with = |keys: &str| Relay::builder().env("RELAY_ENCRYPTION_KEYS", keys);
    let mut relay = with(KEY).start();
    let otp = Otp::new();
    let event = otp.event(GENERATED);
    hand_over_one(&relay, &event);
    eventually("an attempt", SOON, || {
        delivery(&relay, &event).is_some_and(|delivery| delivery["reason"].to_string().contains("key"))
    });
    assert_eq!(delivery(&relay, &event).unwrap()["state"], "waiting");
    assert!(relay.log().contains("RELAY_ENCRYPTION_KEYS"), "{}", relay.log());
    assert!(relay.terminate().success());
    let relay = with(&format!("{KEY},{}", development_key())).ledger_of(&relay).start();
    ends_up(&relay, &event, "delivered");
    assert_eq!(codes(&inbox(&relay)), [otp.code]);
}

#[test]
fn what_cannot_be_delivered_at_all_is_dead_and_holds_nobody_up() {
    let relay = Relay::start();
    let without = |field: &str| {
        let mut event = Otp::new().event(GENERATED);
        event["data"].as_object_mut().unwrap().remove(field);
        event
    };
    let mut dead: Vec<_> =
        ["mobileNumber", "channel", "otpId", "version", "sealedOtp", "expiresAt"].map(without).into();
    let mut damaged = Otp::new().event(GENERATED);
    damaged["data"]["sealedOtp"] = json!("00ff");
    let mut of_another = Otp::new().event(GENERATED);
    of_another["data"]["sealedOtp"] = json!(Otp::new().sealed(&KeyRing::development()));
    let mut by_pigeon = Otp::new().event(GENERATED);
    by_pigeon["data"]["channel"] = json!("pigeon");
    let mut without_data = Otp::new().event(GENERATED);
    without_data["data"] = json!("none");
    let mut of_no_application = Otp::new().event(GENERATED);
    of_no_application.as_object_mut().unwrap().remove("application");
    // The same code in every way, but of another application.
    let mut of_a_stranger = Otp::new().event(GENERATED);
    of_a_stranger["application"] = json!("bank");
    dead.extend([damaged, of_another, by_pigeon, without_data, of_no_application, of_a_stranger]);
    let good = Otp::new().event(GENERATED);
    hand_over(&relay, &[&dead[..], std::slice::from_ref(&good)].concat());
    ends_up(&relay, &good, "delivered");
    eventually("the dead letters", SOON, || dead_letters(&relay).len() >= dead.len());
    let letters = dead_letters(&relay);
    assert_eq!(letters.len(), dead.len(), "{letters:?}");
    for event in &dead {
        let letter = letters.iter().find(|letter| letter["id"] == event["id"]).unwrap();
        assert!(text(letter, "reason").len() > 5, "{letter}");
        assert_eq!(letter["type"], GENERATED);
        let number = event["data"]["mobileNumber"].as_str().unwrap_or("absent");
        assert!(!letter.to_string().contains(&number[1..]), "{letter}");
    }
    metric_becomes(&relay, "dead_total", dead.len() as f64);
}

#[test]
fn what_is_older_than_the_ledger_remembers_is_forgotten_however_much_it_is() {
    let mut relay = Relay::builder().env("RELAY_REMEMBER_HOURS", "1").start();
    let (old, new) = (Otp::new().event(GENERATED), Otp::new().event(GENERATED));
    for event in [&old, &new] {
        hand_over_one(&relay, event);
        ends_up(&relay, event, "delivered");
    }
    assert!(relay.terminate().success());
    let ledger = relay.ledger();
    let two_hours_ago = chrono::Utc::now().timestamp_millis() - 7_200_000;
    let aged = format!("UPDATE deliveries SET updated_at = {two_hours_ago} WHERE event_id = '{}'", id(&old));
    assert_eq!(ledger.execute(&aged), 1);
    // As a busy day leaves it.
    let filled = ledger.execute(&format!(
        "WITH RECURSIVE many (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM many WHERE n < 20000)
         INSERT INTO events (id, seen_at) SELECT 'old-' || n, {two_hours_ago} FROM many"
    ));
    assert_eq!(filled, 20_000);
    relay.restart();
    eventually("forgetting", SOON, || ledger.number("SELECT count(*) FROM events") == 2);
    assert!(delivery(&relay, &old).is_none());
    assert_eq!(delivery(&relay, &new).unwrap()["state"], "delivered");
    assert_eq!(inbox(&relay).len(), 1);
}

#[test]
fn while_the_ledger_cannot_be_written_the_answer_is_a_503_in_time() {
    let relay = Relay::start();
    let ledger = relay.ledger();
    ledger.block();
    let events: Vec<_> = (0..4).map(|_| Otp::new().event(GENERATED)).collect();
    let answers = at_once(4, |index| {
        let begun = Instant::now();
        (post(&relay, std::slice::from_ref(&events[index])), begun.elapsed())
    });
    ledger.release();
    for (answer, took) in answers {
        answer.expect_problem(503, "unavailable");
        assert_eq!(answer.header("retry-after"), "1");
        assert!(took < Duration::from_secs(8), "{took:?}");
    }
    hand_over(&relay, &events);
    events.iter().for_each(|event| drop(ends_up(&relay, event, "delivered")));
    assert_eq!(inbox(&relay).len(), 4);
}

#[test]
fn the_trace_of_a_request_is_in_the_log_of_its_delivery() {
    let relay = Relay::builder().env("RELAY_LOG_LEVEL", "debug").start();
    let event = Otp::new().event(GENERATED);
    hand_over_one(&relay, &event);
    ends_up(&relay, &event, "delivered");
    let log = relay.log();
    let line = log.lines().find(|line| line.contains("\"delivered\"") && line.contains(id(&event)));
    let line: Value = serde_json::from_str(line.unwrap_or_else(|| panic!("{log}"))).unwrap();
    assert_eq!(line["traceparent"], TRACEPARENT);
    assert_eq!(line["request_id"], "a-request");
}

fn production() -> RelayBuilder {
    Relay::builder().env("RELAY_PROFILE", "production")
}

#[test]
fn production_refuses_what_is_for_development_and_says_what_to_set() {
    let keys = KEY;
    let disguised = format!("{KEY},{}", development_key().replacen("dev:", "k2:", 1));
    let table = crate::webhook_table("main", "https://sms.example/messages");
    let channels =
        |sms: &str, email: &str| format!("[channels]\nsms = [\"{sms}\"]\nemail = [\"{email}\"]\n{table}");
    let serious = channels("main", "main");
    let without_event_keys =
        production().env("RELAY_TOKEN", TOKEN).env("RELAY_ENCRYPTION_KEYS", KEY).delivery(&serious);
    // base64 of the development key's 32 characters
    let public = "k2:c3Bpbi1vdHAgcHVibGljIGRldmVsb3BtZW50IGV2dC4=";
    for (relay, words) in [
        (without_event_keys.clone(), ["RELAY_EVENT_KEYS must be set", "event_keys"]),
        (
            without_event_keys.env("RELAY_EVENT_KEYS", &format!("{KEY},{public}")),
            ["RELAY_EVENT_KEYS", "public development key"],
        ),
        (
            production().env("RELAY_ENCRYPTION_KEYS", keys).env("RELAY_EVENT_KEYS", keys).delivery(&serious),
            ["RELAY_TOKEN", "relay_token"],
        ),
        (
            production().env("RELAY_TOKEN", TOKEN).delivery(&serious),
            ["RELAY_ENCRYPTION_KEYS", "encryption_keys"],
        ),
        (
            production()
                .env("RELAY_TOKEN", TOKEN)
                .env("RELAY_ENCRYPTION_KEYS", &disguised)
                .delivery(&serious),
            ["RELAY_ENCRYPTION_KEYS", "public development key"],
        ),
        (
            production()
                .env("RELAY_TOKEN", TOKEN)
                .env("RELAY_ENCRYPTION_KEYS", keys)
                .env("RELAY_EVENT_KEYS", keys),
            ["RELAY_DELIVERY_FILE", "name a webhook"],
        ),
        (
            production()
                .env("RELAY_TOKEN", TOKEN)
                .env("RELAY_ENCRYPTION_KEYS", keys)
                .env("RELAY_EVENT_KEYS", keys)
                .delivery(&channels("inbox", "main")),
            ["channels.sms", "name a webhook"],
        ),
        (
            production()
                .env("RELAY_TOKEN", TOKEN)
                .env("RELAY_ENCRYPTION_KEYS", keys)
                .env("RELAY_EVENT_KEYS", keys)
                .delivery(&channels("main", "log")),
            ["channels.email", "name a webhook"],
        ),
    ] {
        let (status, said) = relay.refused();
        assert!(!status.success(), "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {said}");
        assert!(!said.contains(TOKEN) && !said.contains(&keys[3..]), "{said}");
    }
}

#[test]
fn production_serves_with_all_that_it_wants() {
    let provider = SmsProvider::start();
    let table = crate::webhook_table("main", &provider.url());
    let relay = Relay::builder()
        .env("RELAY_PROFILE", "production")
        .env("RELAY_TOKEN", TOKEN)
        .env("RELAY_ENCRYPTION_KEYS", KEY)
        .env("RELAY_EVENT_KEYS", KEY)
        .delivery(&format!("[channels]\nsms = [\"main\"]\nemail = [\"main\"]\n{table}"))
        .start();
    let authorization = format!("Bearer {TOKEN}");
    let otp = Otp::new();
    let mut event = otp.event(GENERATED);
    event["data"]["sealedOtp"] = json!(otp.sealed(&KeyRing::parse(KEY).unwrap()));
    let batch = json!([signed_with(&EventKeys::parse(KEY).unwrap(), &event)]).to_string();
    crate::post_as(&relay, &[("authorization", &authorization)], &batch).expect(200);
    requests_reach(&provider, 1);
    let refused = post(&relay, &[]);
    refused.expect_problem(401, "unauthorized");
    let missing = relay.client().get("/inbox");
    missing.expect_problem(404, "not_found");
    for answer in [refused, missing, relay.client().get("/healthz")] {
        assert_eq!(answer.header("strict-transport-security"), "max-age=31536000; includeSubDomains");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
}
