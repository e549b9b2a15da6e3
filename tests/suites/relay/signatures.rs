//! Events are the component's or nothing: what is changed, replayed under a new id or made up has no effect.

use crate::{
    APPLICATION, ERASED, GENERATED, Otp, REGENERATED, SOON, VERIFIED, codes, dead_letters, delivery, ends_up,
    hand_over, hand_over_one, id, ids, inbox,
    kafka::{Topics, ready, wait_until_ready},
    metric, metric_becomes, post_as_they_are, replay, signed, signed_with, text, unique_id,
};
use harness::{Relay, RelayBuilder, eventually};
use otp_seal::EventKeys;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const OLD: &str = "old:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const NEW: &str = "new:Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";

fn keys(list: &str) -> EventKeys {
    EventKeys::parse(list).unwrap()
}

fn with_keys(list: &str) -> RelayBuilder {
    Relay::builder().env("RELAY_EVENT_KEYS", list)
}

fn with(event: &Value, name: &str, value: Value) -> Value {
    let mut event = event.clone();
    event[name] = value;
    event
}

/// All that somebody can do who sees events and has the relay's token, but no key: to change one, to send it again
/// as another, or to make one up. Each has an id of its own unless it is one that was changed.
fn forged(otp: &Otp) -> Vec<Value> {
    let genuine = || signed(&otp.next().event(REGENERATED));
    let stranger = Otp::new();
    let mut forged = Vec::new();
    for (name, value) in [
        ("id", json!(unique_id())),
        ("source", json!("elsewhere")),
        ("type", json!(ERASED)),
        ("subject", json!(stranger.subject())),
        ("time", json!("2020-01-01T00:00:00.000Z")),
        ("datacontenttype", json!("application/cloudevents+json")),
        ("sequence", json!("99999999999999999999")),
        ("requestid", json!("another-request")),
        ("application", json!("bank")),
        ("signature", json!(format!("dev:{}", "0".repeat(64)))),
        ("signature", json!(format!("other:{}", "0".repeat(64)))),
        ("signature", json!("none")),
    ] {
        forged.push(with(&genuine(), name, value));
    }
    for name in ["subject", "time", "sequence", "requestid", "application", "data", "signature"] {
        let mut event = genuine();
        event.as_object_mut().unwrap().remove(name);
        forged.push(event);
    }
    for (name, value) in [
        ("mobileNumber", json!(stranger.number)),
        ("email", json!("mallory@shop.example")),
        ("channel", json!("email")),
        ("otpId", json!(stranger.otp_id)),
        ("version", json!(i64::MAX)),
        ("sealedOtp", genuine()["data"]["sealedOtp"].clone()),
        ("createdAt", json!("2020-01-01T00:00:00.000Z")),
        ("expiresAt", json!("2099-01-01T00:00:00.000Z")),
        ("more", json!(1)),
    ] {
        let mut event = genuine();
        event["data"][name] = value;
        forged.push(event);
    }
    // The same JSON with other bytes is another event, too.
    let mut event = genuine();
    event["data"]["version"] = json!(otp.version as f64);
    forged.push(event);
    for kind in [GENERATED, REGENERATED, VERIFIED, ERASED, "otp.locked.v1", "otp.forwarded.v3"] {
        let mut event = otp.event(kind);
        event["data"]["version"] = json!(i64::MAX);
        forged.push(event.clone());
        forged.push(with(&event, "signature", genuine()["signature"].clone()));
    }
    forged
}

/// Nothing of what was forged has had an effect: the code that the recipient has is there, a new one is delivered.
fn is_unharmed(relay: &Relay, otp: &Otp, delivered: &Value) {
    assert_eq!(delivery(relay, delivered).unwrap()["state"], "delivered");
    assert_eq!(codes(&inbox(relay)), [&*otp.code]);
    let newer = otp.next();
    let event = newer.event(REGENERATED);
    hand_over_one(relay, &event);
    ends_up(relay, &event, "delivered");
    assert_eq!(codes(&inbox(relay)), [&*newer.code, &otp.code], "neither superseded nor erased");
    assert_eq!(metric(relay, "undelivered_total"), 0.0);
}

/// What was forged, posted among what was not.
fn is_refused_at_the_intake(relay: &Relay) {
    let otp = Otp::new();
    let delivered = otp.event(GENERATED);
    hand_over_one(relay, &delivered);
    ends_up(relay, &delivered, "delivered");
    let forged = forged(&otp);
    let good = signed(&otp.event("otp.limited.v1"));
    let batch = [&forged[..], std::slice::from_ref(&good)].concat();
    let answer = post_as_they_are(relay, &batch).expect(200);
    assert_eq!(answer["accepted"], json!([good["id"]]));
    let rejected = answer["rejected"].as_array().unwrap();
    assert_eq!(rejected.len(), forged.len(), "{answer}");
    for (index, (rejected, event)) in rejected.iter().zip(&forged).enumerate() {
        assert_eq!([&rejected["id"], &rejected["index"]], [&event["id"], &json!(index)]);
        assert!(text(rejected, "reason").contains("sign"), "{rejected}");
    }
    metric_becomes(relay, "consumed_total", 2.0);
    is_unharmed(relay, &otp, &delivered);
    assert_eq!(metric(relay, "refused_total"), forged.len() as f64);
    assert_eq!(metric(relay, "signature_failures_total{place=\"intake\""), forged.len() as f64);
    assert_eq!(metric(relay, "signature_failures_total{place=\"consumer\""), 0.0);
    let unsigned = forged.iter().filter(|event| event["signature"].is_null()).count();
    let missing = "signature_failures_total{place=\"intake\",reason=\"missing\"}";
    assert_eq!(metric(relay, missing), unsigned as f64);
    assert!(dead_letters(relay).is_empty());
}

#[test]
fn a_changed_replayed_or_invented_event_is_refused_and_has_no_effect() {
    is_refused_at_the_intake(&Relay::start());
}

#[test]
fn with_kafka_what_is_refused_does_not_reach_the_topic() {
    let topics = Topics::new();
    is_refused_at_the_intake(&ready(topics.relay().start()));
    assert_eq!(topics.records().len(), 3);
}

#[test]
fn a_forged_event_in_the_topic_is_dead_lettered_and_has_no_effect() {
    let topics = Topics::new();
    topics.kafka.create_topic(&topics.events, 1);
    let relay = ready(topics.relay().start());
    let otp = Otp::new();
    let delivered = otp.event(GENERATED);
    hand_over_one(&relay, &delivered);
    ends_up(&relay, &delivered, "delivered");
    // A record needs a key, and one without data another way to be written.
    let forged: Vec<_> = forged(&otp)
        .into_iter()
        .filter(|event| !event["subject"].is_null() && !event["data"].is_null())
        .collect();
    forged.iter().for_each(|event| topics.produce(event));
    let dead = || topics.kafka.records(&topics.dead);
    eventually("the dead letters", SOON, || dead().len() >= forged.len());
    assert_eq!(dead().len(), forged.len());
    for event in &forged {
        let letter = dead().into_iter().find(|letter| letter.header("ce_id") == Some(id(event))).unwrap();
        assert!(letter.header("spin-otp-reason").unwrap().contains("sign"), "{letter:?}");
        assert_eq!(letter.payload, event["data"].to_string());
    }
    assert_eq!(metric(&relay, "signature_failures_total{place=\"consumer\""), forged.len() as f64);
    assert_eq!(metric(&relay, "dead_total"), forged.len() as f64);
    is_unharmed(&relay, &otp, &delivered);
    assert_eq!(replay(&relay, &[]), 0, "they would only die again");
    assert_eq!(topics.records().len(), forged.len() + 2);
    // Their ids are not taken: the event that one of them was made of is still to come.
    let (genuine, changed) = (signed(&Otp::new().event(GENERATED)), json!("changed"));
    topics.produce(&with(&genuine, "requestid", changed));
    eventually("one more", SOON, || dead().len() == forged.len() + 1);
    hand_over_one(&relay, &genuine);
    ends_up(&relay, &genuine, "delivered");
    assert_eq!(metric(&relay, "duplicates_total"), 0.0);
}

#[test]
fn while_keys_rotate_events_of_both_are_taken() {
    let otps = [Otp::new(), Otp::new(), Otp::new()];
    let events = [
        signed_with(&keys(OLD), &otps[0].event(GENERATED)),
        signed_with(&keys(&format!("{NEW},{OLD}")), &otps[1].event(GENERATED)),
        signed_with(&keys(OLD), &otps[2].event(GENERATED)),
    ];
    assert!(text(&events[1], "signature").starts_with("new:"));
    let mut relay = with_keys(&format!("{OLD},{NEW}")).start();
    let answer = post_as_they_are(&relay, &events[..2]).expect(200);
    assert_eq!(ids(&answer["accepted"]).len(), 2);
    events[..2].iter().for_each(|event| drop(ends_up(&relay, event, "delivered")));
    assert!(relay.terminate().success());
    // The old key is taken away.
    let relay = with_keys(NEW).ledger_of(&relay).start();
    let answer = post_as_they_are(&relay, &events[1..]).expect(200);
    assert_eq!(answer["accepted"], json!([events[1]["id"]]));
    assert!(text(&answer["rejected"][0], "reason").contains("event keys"), "{answer}");
}

#[test]
fn where_component_and_relay_have_no_key_in_common_the_batch_is_turned_away_and_nothing_is_lost() {
    let mut relay = with_keys(OLD).start();
    let otps = [Otp::new(), Otp::new()];
    let events = otps.each_ref().map(|otp| signed_with(&keys(NEW), &otp.event(GENERATED)));
    for _ in 0..3 {
        let answer = post_as_they_are(&relay, &events);
        let problem = answer.expect_problem(403, "event_keys_differ");
        let detail = text(&problem, "detail");
        assert!(detail.contains("event_keys") && detail.contains("RELAY_EVENT_KEYS"), "{detail}");
        assert!(problem["accepted"].is_null() && problem["rejected"].is_null(), "{problem}");
    }
    assert_eq!(metric(&relay, "signature_failures_total{place=\"intake\",reason=\"unknown_key\"}"), 6.0);
    assert_eq!(metric(&relay, "turned_away_total{status=\"403\""), 3.0);
    assert_eq!([metric(&relay, "published_total"), metric(&relay, "refused_total")], [0.0, 0.0]);
    let log = relay.log();
    let said = log.lines().filter(|line| line.contains("RELAY_EVENT_KEYS")).count();
    assert_eq!(said, 1, "when it begins, and not with each batch: {log}");
    // With what is none at all beside them it is no different.
    let with_another = [&events[..], &[json!("no event")]].concat();
    post_as_they_are(&relay, &with_another).expect_problem(403, "event_keys_differ");
    assert!(relay.terminate().success());
    let relay = with_keys(&format!("{OLD},{NEW}")).ledger_of(&relay).start();
    let answer = post_as_they_are(&relay, &events).expect(200);
    assert_eq!(answer["rejected"], json!([]));
    events.iter().for_each(|event| drop(ends_up(&relay, event, "delivered")));
}

#[test]
fn an_event_whose_key_was_missing_can_be_replayed_when_it_is_there() {
    let topics = Topics::new();
    topics.kafka.create_topic(&topics.events, 1);
    let mut relay = ready(topics.relay().env("RELAY_EVENT_KEYS", OLD).start());
    let otp = Otp::new();
    let event = signed_with(&keys(NEW), &otp.event(GENERATED));
    topics.produce(&event);
    eventually("the dead letter", SOON, || topics.kafka.records(&topics.dead).len() == 1);
    assert_eq!(replay(&relay, &[]), 0, "the key is still missing");
    assert!(delivery(&relay, &event).is_none());
    assert!(relay.terminate().success());
    let both = format!("{OLD},{NEW}");
    let relay = topics.relay().env("RELAY_EVENT_KEYS", &both).ledger_of(&relay).start();
    wait_until_ready(&relay);
    assert_eq!(replay(&relay, &["--id", id(&event)]), 1);
    ends_up(&relay, &event, "delivered");
    assert_eq!(codes(&inbox(&relay)), [otp.code]);
}

#[test]
fn the_data_of_an_event_keeps_its_bytes_from_the_intake_to_the_topic() {
    let topics = Topics::new();
    let relay = ready(topics.relay().start());
    let otp = Otp::new();
    let mut event: otp_events::Event = serde_json::from_str(&otp.event(GENERATED).to_string()).unwrap();
    let spaced = serde_json::to_string_pretty(&otp.event(GENERATED)["data"]).unwrap();
    event.data = otp_events::Data::parse(spaced.as_bytes());
    event.sign(&EventKeys::development());
    let batch = format!("[{}]", serde_json::to_string(&event).unwrap());
    let answer = crate::post_as(&relay, &[], &batch).expect(200);
    assert_eq!(answer["accepted"], json!([event.id]));
    eventually("the delivery", SOON, || codes(&inbox(&relay)) == [&*otp.code]);
    let [record] = topics.records().try_into().unwrap();
    assert_eq!(record.payload, spaced);
}

#[test]
fn a_recipient_without_a_number_gets_codes_by_mail() {
    let relay = Relay::start();
    let old = Otp::new().without_number();
    let new = Otp { email: old.email.clone(), ..old.next() };
    let (made, replaced) = (old.event(GENERATED), new.event(REGENERATED));
    assert!(made["data"]["mobileNumber"].is_null() && made["application"] == APPLICATION);
    for event in [&made, &replaced] {
        hand_over_one(&relay, event);
        let told = ends_up(&relay, event, "delivered");
        assert_eq!(told["channel"], "email");
    }
    let messages = inbox(&relay);
    assert_eq!(codes(&messages), [&*new.code, &old.code]);
    let to: BTreeSet<_> = messages.iter().map(|message| text(message, "to")).collect();
    assert_eq!(to, [old.to()].into());
    hand_over(&relay, &[new.erased()]);
    assert!(inbox(&relay).is_empty());
}
