//! Delivery through webhooks: what is sent, when it is sent again, and to whom.

use crate::{
    GENERATED, Otp, REGENERATED, SECRET, SOON, TRACEPARENT, VERIFIED, brought_by, codes, dead_letters,
    delivery, ends_up, hand_over, hand_over_one, id, inbox, keys_of, metric, replay, requests_reach, text,
    webhook_table,
};
use base64ct::{Base64, Encoding};
use chrono::{DateTime, TimeDelta, Utc};
use harness::{Relay, Sent, SmsProvider, eventually};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use std::time::{Duration, Instant};

/// What a receiver computes (Standard Webhooks 1.0.0, symmetric form).
fn signature(sent: &Sent, key: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(sent.header("webhook-id").unwrap().as_bytes());
    mac.update(b".");
    mac.update(sent.header("webhook-timestamp").unwrap().as_bytes());
    mac.update(b".");
    mac.update(&sent.body);
    format!("v1,{}", Base64::encode_string(&mac.finalize().into_bytes()))
}

fn code_in(sent: &Sent) -> String {
    text(&sent.json(), "text").chars().take_while(char::is_ascii_digit).collect()
}

#[test]
fn a_message_is_posted_as_json_signed_and_under_its_events_id() {
    let provider = SmsProvider::start();
    let relay = brought_by(&[("main", &provider)]).start();
    let otp = Otp::new();
    let event = otp.event(GENERATED);
    hand_over_one(&relay, &event);
    let told = ends_up(&relay, &event, "delivered");
    assert_eq!([&told["provider"], &told["attempts"]], [&json!("main"), &json!(1)]);

    let [sent] = provider.sent().try_into().unwrap();
    assert_eq!((sent.method.as_str(), sent.path.as_str()), ("POST", "/"));
    for (name, value) in [
        ("content-type", "application/json"),
        ("idempotency-key", id(&event)),
        ("webhook-id", id(&event)),
        ("traceparent", TRACEPARENT),
    ] {
        assert_eq!(sent.header(name), Some(value), "{name}");
    }
    let signed_at: i64 = sent.header("webhook-timestamp").unwrap().parse().unwrap();
    assert!((0..60).contains(&(Utc::now().timestamp() - signed_at)), "{signed_at}");
    assert_eq!(sent.header("webhook-signature"), Some(&*signature(&sent, SECRET.as_bytes())));
    let mut body = sent.json();
    let dies_at = DateTime::parse_from_rfc3339(text(&body, "expiresAt")).unwrap().to_utc();
    assert!((otp.expires_at - dies_at).abs() < TimeDelta::seconds(1), "{body}");
    body.as_object_mut().unwrap().remove("expiresAt");
    assert_eq!(
        body,
        json!({
            "eventId": event["id"], "otpId": otp.otp_id, "channel": "sms", "to": otp.number,
            "text": format!("{} is your spin-otp code. It is valid for 10 minutes.", otp.code),
        })
    );
}

#[test]
fn body_headers_texts_and_key_are_the_operators() {
    let provider = SmsProvider::start();
    let delivery = format!(
        r#"
        app_name = 'The "Shop"'
        webotp_domain = "shop.example"
        [channels]
        sms = ["main"]
        email = ["main"]
        [messages]
        sms = "{{{{ app_name }}}}: {{{{ code }}}}, {{{{ minutes }}}} min"
        [providers.main]
        kind = "webhook"
        url = "{}/v2/messages?account=7"
        secret = "env:SMS_SECRET"
        body = '{{"msisdn": {{{{ "tel:" ~ to }}}}, "message": {{{{ text }}}}, "via": [{{{{ channel }}}}, {{{{ minutes }}}}]}}'
        headers = {{ authorization = "env:SMS_AUTHORIZATION", x-account = "7" }}
        "#,
        provider.url()
    );
    let key = b"0123456789abcdef0123456789abcdef";
    let relay = Relay::builder()
        .delivery(&delivery)
        .env("SMS_SECRET", &format!("whsec_{}", Base64::encode_string(key)))
        .env("SMS_AUTHORIZATION", "Bearer of-the-gateway")
        .start();
    let (otp, mail) = (Otp::new(), Otp::new().by_mail());
    hand_over(&relay, &[otp.event(GENERATED)]);
    requests_reach(&provider, 1);
    hand_over(&relay, &[mail.event(GENERATED)]);
    requests_reach(&provider, 2);
    let [sms, email] = provider.sent().try_into().unwrap();
    assert_eq!(sms.path, "/v2/messages?account=7");
    assert_eq!(sms.header("authorization"), Some("Bearer of-the-gateway"));
    assert_eq!(sms.header("x-account"), Some("7"));
    assert_eq!(sms.header("webhook-signature"), Some(&*signature(&sms, key)));
    let message = format!("The \"Shop\": {}, 10 min\n\n@shop.example #{}", otp.code, otp.code);
    let expected = json!({ "msisdn": format!("tel:{}", otp.number), "message": message, "via": ["sms", 10] });
    assert_eq!(sms.json(), expected);
    assert_eq!(email.json()["msisdn"], format!("tel:{}", mail.to()));
    for secret in ["of-the-gateway", "MDEyMzQ1"] {
        assert!(!relay.log().contains(secret), "{}", relay.log());
    }
}

#[test]
fn nothing_that_an_event_says_breaks_out_of_its_place() {
    let provider = SmsProvider::start();
    let relay = brought_by(&[("main", &provider)]).start();
    let hostile = "+1\", \"text\": \"{{ code }}\r\n";
    let event = Otp::of(hostile.to_owned()).event(GENERATED);
    hand_over_one(&relay, &event);
    ends_up(&relay, &event, "delivered");
    let body = provider.sent()[0].json();
    assert_eq!(body["to"], hostile);
    assert!(text(&body, "text").ends_with("is your spin-otp code. It is valid for 10 minutes."), "{body}");
    // An id that is no header is no key, and is not sent.
    let mut odd = Otp::new().event(GENERATED);
    odd["id"] = json!("an id, and more: of it");
    hand_over_one(&relay, &odd);
    ends_up(&relay, &odd, "failed");
    assert_eq!(provider.sent().len(), 1);
}

#[test]
fn a_provider_that_is_away_for_a_moment_is_asked_again_under_the_same_key() {
    let provider = SmsProvider::start();
    provider.answer_next(1, 503);
    provider.answer_next(1, 429);
    let relay = brought_by(&[("main", &provider)]).start();
    let event = Otp::new().event(GENERATED);
    hand_over_one(&relay, &event);
    let told = ends_up(&relay, &event, "delivered");
    assert_eq!(keys_of(&provider), [id(&event); 3]);
    assert_eq!(told["attempts"], 3);
    let sent = provider.sent();
    assert!(
        sent.iter().all(|sent| sent.header("webhook-signature") == Some(&signature(sent, SECRET.as_bytes())))
    );
    assert!(sent[1].at - sent[0].at >= Duration::from_millis(450), "not at once");
    assert_eq!(metric(&relay, "failed_total{channel=\"sms\",provider=\"main\""), 2.0);
    assert_eq!(metric(&relay, "delivered_total{channel=\"sms\",provider=\"main\""), 1.0);
    assert!(metric(&relay, "retries_total") >= 2.0);
    assert!(dead_letters(&relay).is_empty());
}

#[test]
fn the_next_provider_takes_over_from_one_that_fails_which_is_then_spared() {
    let (main, spare) = (SmsProvider::start(), SmsProvider::start());
    main.answer_all(500);
    let relay = brought_by(&[("main", &main), ("spare", &spare)]).start();
    let send_one = || {
        let event = Otp::new().event(GENERATED);
        hand_over_one(&relay, &event);
        let told = ends_up(&relay, &event, "delivered");
        assert_eq!(told["attempts"], 1, "it did not have to wait: {told}");
        (id(&event).to_owned(), told["provider"].clone())
    };
    let (first, by) = send_one();
    assert_eq!(by, "spare");
    assert_eq!([keys_of(&main), keys_of(&spare)], [[first.clone()], [first]]);
    // With each further failure it is spared for longer: after three of them, for four seconds.
    eventually("the third failure", SOON, || {
        assert_eq!(send_one().1, "spare");
        main.sent().len() == 3
    });
    let failed_at = main.sent()[2].at;
    main.answer_all(200);
    let spared = || failed_at.elapsed() < Duration::from_secs(4);
    for _ in 0..20 {
        let by = send_one().1;
        assert!(by == "spare" || !spared(), "{by}");
    }
    if spared() {
        assert_eq!(main.sent().len(), 3);
        assert!(keys_of(&spare).len() > 25);
    }
    eventually("its return", SOON, || send_one().1 == "main");
}

#[test]
fn what_one_provider_refuses_the_next_one_is_asked() {
    let (main, spare) = (SmsProvider::start(), SmsProvider::start());
    main.answer_all(422);
    let relay = brought_by(&[("main", &main), ("spare", &spare)]).start();
    let events = [Otp::new().event(GENERATED), Otp::new().event(GENERATED)];
    for event in &events {
        hand_over_one(&relay, event);
        assert_eq!(ends_up(&relay, event, "delivered")["provider"], "spare");
    }
    // It is the message that it did not like; the next one may be another matter.
    let all = events.each_ref().map(|event| id(event).to_owned());
    assert_eq!([keys_of(&main), keys_of(&spare)], [all.clone(), all]);
}

#[test]
fn what_everybody_refuses_is_dead_and_goes_out_once_when_replayed() {
    let (main, spare) = (SmsProvider::start(), SmsProvider::start());
    main.answer_all(400);
    spare.answer_all(410);
    let relay = brought_by(&[("main", &main), ("spare", &spare)]).start();
    let otp = Otp::new();
    let (event, other) = (otp.event(GENERATED), Otp::new().event(GENERATED));
    hand_over(&relay, &[event.clone(), other.clone()]);
    let told = ends_up(&relay, &event, "failed");
    ends_up(&relay, &other, "failed");
    assert_eq!(told["reason"], "spare: HTTP 410");
    assert_eq!([main.sent().len(), spare.sent().len()], [2, 2], "nobody is asked again");
    let listed = String::from_utf8(relay.run(&["dlq", "list"]).stdout).unwrap();
    let letters = dead_letters(&relay);
    assert_eq!(letters.len(), 2, "{listed}");
    let letter = letters.iter().find(|letter| letter["id"] == event["id"]).unwrap();
    assert_eq!([&letter["type"], &letter["reason"]], [&json!(GENERATED), &json!("spare: HTTP 410")]);
    for secret in [&otp.code, &otp.number[1..], text(&event["data"], "sealedOtp")] {
        assert!(!listed.contains(secret), "{listed}");
    }
    assert_eq!(metric(&relay, "dead_total"), 2.0);

    main.answer_all(200);
    let refused = relay.run(&["dlq", "replay", "--id", "0198c7a4-dead-7000-8000-000000000000"]);
    assert!(!refused.status.success(), "there is none with this id");
    assert_eq!(replay(&relay, &["--id", id(&event)]), 1);
    ends_up(&relay, &event, "delivered");
    assert_eq!(delivery(&relay, &other).unwrap()["state"], "failed", "nobody asked for it");
    assert_eq!(dead_letters(&relay).len(), 1);
    assert_eq!(replay(&relay, &[]), 1);
    ends_up(&relay, &other, "delivered");
    assert_eq!(replay(&relay, &[]), 0);
    assert!(dead_letters(&relay).is_empty());
    let mut keys = keys_of(&main).split_off(2);
    keys.sort_unstable();
    let mut expected = [id(&event), id(&other)];
    expected.sort_unstable();
    assert_eq!(keys, expected, "each once more");
}

#[test]
fn what_fails_too_often_is_dead() {
    let provider = SmsProvider::start();
    provider.answer_all(503);
    let relay = brought_by(&[("main", &provider)]).env("RELAY_MAX_ATTEMPTS", "2").start();
    let event = Otp::new().event(GENERATED);
    hand_over_one(&relay, &event);
    let told = ends_up(&relay, &event, "failed");
    assert_eq!([&told["reason"], &told["attempts"]], [&json!("main: HTTP 503"), &json!(2)]);
    assert_eq!(keys_of(&provider), [id(&event); 2]);
    assert_eq!(dead_letters(&relay)[0]["id"], event["id"]);
}

#[test]
fn a_redirect_is_not_followed() {
    let (main, elsewhere) = (SmsProvider::start(), SmsProvider::start());
    main.redirect_to(&elsewhere.url());
    let relay = brought_by(&[("main", &main)]).start();
    let event = Otp::new().event(GENERATED);
    hand_over_one(&relay, &event);
    let told = ends_up(&relay, &event, "failed");
    assert!(text(&told, "reason").contains("redirects are not followed"), "{told}");
    assert_eq!([main.sent().len(), elsewhere.sent().len()], [1, 0]);
}

#[test]
fn a_message_is_sent_again_under_the_same_key_after_the_relay_was_killed_while_it_was_sent() {
    let provider = SmsProvider::start();
    provider.delay(Duration::from_secs(5));
    let mut relay = brought_by(&[("main", &provider)]).start();
    let event = Otp::new().event(GENERATED);
    hand_over_one(&relay, &event);
    requests_reach(&provider, 1);
    relay.kill();
    provider.delay(Duration::ZERO);
    relay.restart();
    let told = ends_up(&relay, &event, "delivered");
    assert_eq!(keys_of(&provider), [id(&event); 2]);
    assert_eq!(told["attempts"], 2, "the one that nobody heard of counts");
}

#[test]
fn a_retry_goes_on_after_the_relay_was_killed_between_two() {
    let provider = SmsProvider::start();
    provider.answer_all(503);
    let mut relay = brought_by(&[("main", &provider)]).start();
    let event = Otp::new().event(GENERATED);
    hand_over_one(&relay, &event);
    eventually("a failure that is written down", SOON, || {
        delivery(&relay, &event).is_some_and(|delivery| delivery["reason"] == "main: HTTP 503")
    });
    relay.kill();
    provider.answer_all(200);
    relay.restart();
    ends_up(&relay, &event, "delivered");
    assert!(keys_of(&provider).iter().all(|key| key == id(&event)));
}

#[test]
fn a_code_that_was_replaced_meanwhile_is_not_sent_again() {
    let provider = SmsProvider::start();
    provider.answer_all(503);
    let relay = brought_by(&[("main", &provider)]).start();
    let old = Otp::new();
    let new = old.next();
    let (stale, fresh) = (old.event(GENERATED), new.event(REGENERATED));
    hand_over_one(&relay, &stale);
    requests_reach(&provider, 1);
    hand_over_one(&relay, &fresh);
    provider.answer_all(200);
    ends_up(&relay, &fresh, "delivered");
    ends_up(&relay, &stale, "superseded");
    let codes: Vec<_> = provider.sent().iter().map(code_in).collect();
    assert_eq!(codes.last(), Some(&new.code), "{codes:?}");
    assert_eq!(metric(&relay, "delivered_total"), 1.0);
}

#[test]
fn a_code_that_dies_while_one_provider_fails_is_not_sent_through_the_next() {
    for end in [VERIFIED, REGENERATED] {
        let (main, spare) = (SmsProvider::start(), SmsProvider::start());
        main.answer_all(503);
        main.delay(Duration::from_secs(2));
        let relay = brought_by(&[("main", &main), ("spare", &spare)]).start();
        let old = Otp::new();
        let stale = old.event(GENERATED);
        hand_over_one(&relay, &stale);
        requests_reach(&main, 1);
        let news = if end == VERIFIED { old.event(VERIFIED) } else { old.next().event(REGENERATED) };
        hand_over_one(&relay, &news);
        eventually("the end of the round", SOON, || delivery(&relay, &stale).unwrap()["state"] != "waiting");
        assert_eq!(delivery(&relay, &stale).unwrap()["state"], "superseded", "{end}");
        assert!(spare.sent().iter().all(|sent| code_in(sent) != old.code), "{end}");
    }
}

#[test]
fn a_code_is_not_sent_after_its_life_however_often_it_failed_before() {
    let provider = SmsProvider::start();
    provider.answer_all(503);
    let relay = brought_by(&[("main", &provider)]).start();
    let otp = Otp::new().lives(Duration::from_secs(3));
    let event = otp.event(GENERATED);
    let over = Instant::now() + Duration::from_secs(3);
    hand_over_one(&relay, &event);
    ends_up(&relay, &event, "expired");
    assert!(Instant::now() >= over);
    let sent = provider.sent();
    assert!(sent.len() >= 2 && sent.iter().all(|sent| sent.at < over), "{sent:?}");
    assert!(dead_letters(&relay).is_empty(), "nobody could do anything with it");
}

#[test]
fn a_later_attempt_names_the_minutes_that_are_left() {
    let provider = SmsProvider::start();
    provider.answer_next(1, 503);
    let relay = brought_by(&[("main", &provider)]).start();
    let event = Otp::new().lives(Duration::from_millis(60_400)).event(GENERATED);
    hand_over_one(&relay, &event);
    ends_up(&relay, &event, "delivered");
    let said: Vec<_> = provider.sent().iter().map(|sent| text(&sent.json(), "text").to_owned()).collect();
    assert!(said[0].ends_with("It is valid for 2 minutes."), "{said:?}");
    assert!(said[1].ends_with("It is valid for 1 minute."), "{said:?}");
    let expires_at = DateTime::parse_from_rfc3339(text(&event["data"], "expiresAt")).unwrap();
    assert!(expires_at > Utc::now());
}

#[test]
fn a_provider_that_takes_its_time_does_not_hold_up_who_goes_another_way() {
    let provider = SmsProvider::start();
    provider.delay(Duration::from_secs(9));
    let relay = brought_by(&[("main", &provider)]).start();
    let slow: Vec<Value> = (0..400).map(|_| Otp::new().event(GENERATED)).collect();
    hand_over(&relay, &slow);
    requests_reach(&provider, 50);
    let mail = Otp::new().by_mail();
    let event = mail.event(GENERATED);
    hand_over_one(&relay, &event);
    let handed_over = Instant::now();
    eventually("the mail", SOON, || codes(&inbox(&relay)) == [&*mail.code]);
    assert!(handed_over.elapsed() < Duration::from_secs(8), "not after them");
    assert_eq!(metric(&relay, "delivered_total{channel=\"sms\""), 0.0, "they are still on their way");
}

#[test]
fn each_of_many_messages_reaches_the_provider_once() {
    let provider = SmsProvider::start();
    provider.delay(Duration::from_millis(20));
    let relay = brought_by(&[("main", &provider)]).start();
    let events: Vec<Value> = (0..1_500).map(|_| Otp::new().event(GENERATED)).collect();
    events.chunks(500).for_each(|batch| hand_over(&relay, batch));
    eventually("all deliveries", SOON, || metric(&relay, "delivered_total") >= 1_500.0);
    let mut keys = keys_of(&provider);
    keys.sort_unstable();
    let mut expected: Vec<_> = events.iter().map(|event| id(event).to_owned()).collect();
    expected.sort_unstable();
    assert_eq!(keys, expected);
}

#[test]
fn a_url_that_would_send_codes_unencrypted_is_refused_at_the_start() {
    let table = webhook_table("main", "http://sms.example/messages");
    let delivery = format!("[channels]\nsms = [\"main\"]\n{table}");
    let (status, said) = Relay::builder().delivery(&delivery).refused();
    assert!(!status.success());
    assert!(said.contains("providers.main.url") && said.contains("https://"), "{said}");
    assert!(!said.contains(SECRET), "{said}");
}
