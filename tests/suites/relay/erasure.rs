//! `user.erased.v1`: ledger, inbox and files forget the number, and what comes late does not bring it back.

use crate::{
    GENERATED, Otp, REGENERATED, RESENT, SOON, VERIFIED, brought_by, codes, dead_letters, delivery, ends_up,
    hand_over, hand_over_one, id, inbox,
    kafka::{Topics, ready, wait_until_ready},
    keys_of, metric, metric_becomes, replay, requests_reach, shown, text,
};
use harness::{Relay, SmsProvider, eventually};
use serde_json::{Value, json};
use std::{slice::from_ref, time::Duration};

/// What the inbox shows of a number.
fn inbox_of(relay: &Relay, otp: &Otp) -> Vec<Value> {
    shown(relay, &format!("/inbox?to={}", &otp.number[1..]))
}

/// An erasure that does not say which code was the newest.
fn without_version(otp: &Otp) -> Value {
    let mut event = otp.erased();
    event.as_object_mut().unwrap().remove("data");
    event
}

/// Which of these texts stand in what the ledger holds: the files of the relay's state, or all rows.
fn found_in_ledger<'a>(relay: &Relay, texts: &[&'a str]) -> Vec<&'a str> {
    let bytes = relay.ledger().contents();
    let holds = |text: &&str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    texts.iter().copied().filter(holds).collect()
}

#[test]
fn an_erased_number_vanishes_from_inbox_and_deliveries_and_no_other_does() {
    let relay = Relay::start();
    let (old, bystander) = (Otp::new(), Otp::new());
    let new = old.next();
    let events =
        [old.event(GENERATED), old.event(RESENT), new.event(REGENERATED), bystander.event(GENERATED)];
    for event in &events {
        hand_over_one(&relay, event);
        ends_up(&relay, event, "delivered");
    }
    let erased = new.erased();
    hand_over_one(&relay, &erased);
    for event in &events[..3] {
        assert!(delivery(&relay, event).is_none(), "{event}");
    }
    assert_eq!(codes(&inbox(&relay)), [&*bystander.code]);
    assert!(delivery(&relay, &events[3]).is_some());
    // Their ids are still known, and so is that of the erasure.
    hand_over(&relay, &[&events[..3], from_ref(&erased)].concat());
    assert_eq!(metric(&relay, "duplicates_total"), 4.0);
    assert_eq!(codes(&inbox(&relay)), [&*bystander.code]);
}

#[test]
fn what_was_said_before_an_erasure_has_no_effect_in_whatever_order_it_comes() {
    let relay = Relay::start();
    // In one batch and in one each, with the erasure first, in between and last.
    for (order, together) in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]
        .iter()
        .flat_map(|order| [(order, true), (order, false)])
    {
        let erased = Otp::new();
        let newer = erased.next();
        let events = [erased.event(GENERATED), erased.erased(), newer.event(GENERATED)];
        let batch: Vec<_> = order.iter().map(|index| events[*index].clone()).collect();
        if together {
            hand_over(&relay, &batch);
        } else {
            batch.iter().for_each(|event| hand_over_one(&relay, event));
        }
        // What was asked for before comes last of all.
        hand_over(&relay, &[erased.event(RESENT), erased.event(VERIFIED)]);
        ends_up(&relay, &events[2], "delivered");
        assert_eq!(codes(&inbox_of(&relay, &erased)), [&*newer.code], "{order:?} {together}");
        assert!(delivery(&relay, &events[0]).is_none(), "{order:?} {together}");
        assert!(found_in_ledger(&relay, &[&erased.number]).len() == 1, "the newer code is still there");
    }
    assert!(dead_letters(&relay).is_empty());
}

#[test]
fn of_what_comes_late_nothing_is_written_down() {
    let relay = Relay::start();
    let otp = Otp::new();
    hand_over_one(&relay, &otp.erased());
    let mut damaged = otp.event(RESENT);
    damaged["data"]["expiresAt"] = json!("soon");
    let mut without_version = otp.event(RESENT);
    without_version["data"].as_object_mut().unwrap().remove("version");
    hand_over(&relay, &[otp.event(GENERATED), otp.event(RESENT), damaged, without_version]);
    assert_eq!(metric(&relay, "consumed_total"), 5.0);
    assert_eq!(found_in_ledger(&relay, &[&otp.number, &otp.otp_id]), [""; 0]);
    assert!(dead_letters(&relay).is_empty());
    // What is wrong with a newer one is still seen.
    let mut newer = otp.next().event(GENERATED);
    newer["data"]["expiresAt"] = json!("soon");
    hand_over_one(&relay, &newer);
    assert_eq!(dead_letters(&relay)[0]["id"], newer["id"]);
}

#[test]
fn an_erasure_without_a_version_forgets_what_the_ledger_knows() {
    let relay = Relay::start();
    for data in [None, Some(json!({})), Some(json!("none")), Some(json!({ "version": "newest" }))] {
        let old = Otp::new();
        let (made, late) = (old.event(GENERATED), old.event(RESENT));
        let mut erased = without_version(&old);
        if let Some(data) = data {
            erased["data"] = data;
        }
        hand_over_one(&relay, &made);
        ends_up(&relay, &made, "delivered");
        hand_over(&relay, &[erased, late.clone(), old.event(RESENT)]);
        assert!(inbox_of(&relay, &old).is_empty() && delivery(&relay, &made).is_none());
        let new = old.next();
        let again = new.event(GENERATED);
        hand_over_one(&relay, &again);
        ends_up(&relay, &again, "delivered");
        assert_eq!(codes(&inbox_of(&relay, &old)), [new.code]);
    }
    // Of a number that the ledger has never heard of, the sequence tells what was before.
    let otp = Otp::new();
    let before = otp.event(GENERATED);
    hand_over_one(&relay, &without_version(&otp));
    let after = otp.next().event(GENERATED);
    hand_over(&relay, &[before.clone(), after.clone()]);
    ends_up(&relay, &after, "delivered");
    assert!(delivery(&relay, &before).is_none());
}

#[test]
fn an_erasure_that_does_not_say_of_whom_is_dead() {
    let relay = Relay::start();
    let mut erased = Otp::new().erased();
    erased.as_object_mut().unwrap().remove("subject");
    hand_over_one(&relay, &erased);
    let [letter] = dead_letters(&relay).try_into().unwrap();
    assert_eq!((&letter["id"], text(&letter, "reason")), (&erased["id"], "subject is needed"));
}

#[test]
fn what_waits_for_a_provider_is_not_delivered_to_an_erased_number() {
    let provider = SmsProvider::start();
    provider.answer_all(503);
    let relay = brought_by(&[("main", &provider)]).start();
    let otp = Otp::new();
    let made = otp.event(GENERATED);
    hand_over_one(&relay, &made);
    eventually("a round that failed", SOON, || {
        delivery(&relay, &made).is_some_and(|delivery| delivery["reason"].to_string().contains("503"))
    });
    hand_over_one(&relay, &otp.erased());
    assert!(delivery(&relay, &made).is_none());
    let already = provider.sent().len();
    provider.answer_all(200);
    // One that comes later and has its turn after the pause that the other one had.
    let bystander = Otp::new().event(GENERATED);
    hand_over_one(&relay, &bystander);
    ends_up(&relay, &bystander, "delivered");
    let after = keys_of(&provider)[already..].to_vec();
    // A round that had begun before the news is forgiven.
    assert!(after.iter().filter(|key| *key == id(&made)).count() <= 1, "{after:?}");
    assert!(delivery(&relay, &made).is_none());
}

#[test]
fn a_number_that_is_erased_during_an_attempt_leaves_nothing_whatever_comes_of_it() {
    for (status, outcome) in
        [(200, "delivered_total"), (503, "retries_total"), (400, "undelivered_total{state=\"failed\"")]
    {
        let provider = SmsProvider::start();
        provider.delay(Duration::from_secs(1));
        provider.answer_all(status);
        let relay = brought_by(&[("main", &provider)]).start();
        let otp = Otp::new();
        let made = otp.event(GENERATED);
        hand_over_one(&relay, &made);
        requests_reach(&provider, 1);
        hand_over_one(&relay, &otp.erased());
        assert!(delivery(&relay, &made).is_none());
        eventually(outcome, SOON, || metric(&relay, outcome) == 1.0);
        // Whatever comes next is written down after that outcome, and by the same part of the relay.
        provider.answer_all(200);
        let bystander = Otp::new().event(GENERATED);
        hand_over_one(&relay, &bystander);
        ends_up(&relay, &bystander, "delivered");
        assert!(delivery(&relay, &made).is_none(), "{status}");
        assert!(dead_letters(&relay).is_empty(), "{status}");
        eventually("clean files", SOON, || found_in_ledger(&relay, &[&otp.number]).is_empty());
        assert!(!relay.log().contains("panicked"), "{}", relay.log());
    }
}

#[test]
fn the_dead_letters_of_an_erased_number_go_and_those_of_others_stay() {
    let provider = SmsProvider::start();
    provider.answer_all(400);
    let relay = brought_by(&[("main", &provider)]).start();
    let (otp, bystander) = (Otp::new(), Otp::new());
    let newer = otp.next();
    let mut damaged = otp.event(RESENT);
    damaged["data"]["expiresAt"] = json!("soon");
    let mut damaged_later = newer.event(GENERATED);
    damaged_later["data"]["expiresAt"] = json!("soon");
    let refused = [otp.event(GENERATED), bystander.event(GENERATED)];
    hand_over(&relay, &[&refused[..], &[damaged, damaged_later.clone()]].concat());
    refused.iter().for_each(|event| drop(ends_up(&relay, event, "failed")));
    assert_eq!(dead_letters(&relay).len(), 4);
    hand_over_one(&relay, &otp.erased());
    let left: Vec<_> = dead_letters(&relay).iter().map(|letter| text(letter, "id").to_owned()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    for event in [&refused[1], &damaged_later] {
        assert!(left.iter().any(|left| left == id(event)), "{left:?}");
    }
    provider.answer_all(200);
    assert_eq!(replay(&relay, &["--id", id(&refused[1])]), 1);
    ends_up(&relay, &refused[1], "delivered");
}

#[test]
fn an_erased_number_is_no_longer_in_the_ledger() {
    let relay = Relay::start();
    // Enough for pages to be split and joined: what moves leaves copies behind.
    let otps: Vec<_> = (0..600).map(|_| Otp::new()).collect();
    let events: Vec<_> = otps.iter().map(|otp| otp.event(GENERATED)).collect();
    let mut large = otps[0].event(RESENT);
    large["data"]["note"] = json!(format!("{}{}", "x".repeat(20_000), otps[0].number));
    let mut dead = otps[1].event(RESENT);
    dead["data"]["expiresAt"] = json!("soon");
    for batch in events.chunks(50) {
        hand_over(&relay, batch);
    }
    hand_over(&relay, &[large.clone(), dead]);
    events.iter().chain([&large]).for_each(|event| drop(ends_up(&relay, event, "delivered")));
    let (erased, kept): (Vec<_>, Vec<_>) = otps.iter().enumerate().partition(|(index, _)| index % 3 < 2);
    let numbers =
        |otps: &[(usize, &Otp)]| -> Vec<String> { otps.iter().map(|(_, otp)| otp.number.clone()).collect() };
    let (gone, there) = (numbers(&erased), numbers(&kept));
    let gone: Vec<_> = gone.iter().map(String::as_str).collect();
    let there: Vec<_> = there.iter().map(String::as_str).collect();
    assert_eq!(found_in_ledger(&relay, &gone).len(), gone.len(), "there is something to scan");
    // Some alone and some together.
    let erasures: Vec<_> = erased.iter().map(|(_, otp)| otp.erased()).collect();
    erasures[..5].iter().for_each(|event| hand_over_one(&relay, event));
    erasures[5..].chunks(100).for_each(|events| hand_over(&relay, events));
    eventually("clean files", SOON, || found_in_ledger(&relay, &gone).is_empty());
    assert_eq!(found_in_ledger(&relay, &there).len(), there.len());
    assert_eq!(inbox(&relay).len(), there.len());
}

#[test]
fn files_that_are_being_read_are_cleaned_after_that() {
    let mut relay = Relay::builder().on_a_file().env("RELAY_LOG_LEVEL", "debug").start();
    let otp = Otp::new();
    let event = otp.event(GENERATED);
    hand_over_one(&relay, &event);
    ends_up(&relay, &event, "delivered");
    // As a backup does.
    let reader = rusqlite::Connection::open(relay.state().join("ledger.db")).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    let seen: i64 = reader.query_row("SELECT count(*) FROM deliveries", [], |row| row.get(0)).unwrap();
    assert_eq!(seen, 1);
    hand_over_one(&relay, &otp.erased());
    assert!(inbox(&relay).is_empty());
    let bystander = Otp::new().event(GENERATED);
    hand_over_one(&relay, &bystander);
    ends_up(&relay, &bystander, "delivered");
    eventually("an attempt", SOON, || relay.log().contains("somebody reads the ledger"));
    assert_eq!(found_in_ledger(&relay, &[&otp.number]).len(), 1, "it is still being read");
    reader.execute_batch("COMMIT").unwrap();
    eventually("clean files", SOON, || found_in_ledger(&relay, &[&otp.number]).is_empty());

    // The next relay ends what the last one has begun.
    let killed = Otp::new();
    let event = killed.event(GENERATED);
    hand_over_one(&relay, &event);
    ends_up(&relay, &event, "delivered");
    reader.execute_batch("BEGIN; SELECT * FROM deliveries").unwrap();
    reader.query_row("SELECT count(*) FROM deliveries", [], |_| Ok(())).unwrap();
    hand_over_one(&relay, &killed.erased());
    relay.kill();
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!(found_in_ledger(&relay, &[&killed.number]).len(), 1);
    relay.restart();
    eventually("clean files", SOON, || found_in_ledger(&relay, &[&killed.number]).is_empty());
}

#[test]
fn copies_that_sqlite_has_left_between_rows_go_as_well() {
    let mut relay = Relay::builder().on_a_file().start();
    let live: Vec<_> = (0..40).map(|_| Otp::new().event(GENERATED)).collect();
    let mut dead = Otp::new().event(GENERATED);
    dead["data"]["expiresAt"] = json!("soon");
    hand_over(&relay, &[&live[..], from_ref(&dead)].concat());
    live.iter().for_each(|event| drop(ends_up(&relay, event, "delivered")));
    relay.terminate();
    // It leaves such copies now and then; here they are for certain.
    let ledger = rusqlite::Connection::open(relay.state().join("ledger.db")).unwrap();
    ledger.execute_batch("PRAGMA secure_delete = OFF").unwrap();
    let (one, another) = (Otp::new(), Otp::new());
    ledger.execute("INSERT INTO contents VALUES ('moved', ?1)", [one.event(GENERATED).to_string()]).unwrap();
    ledger
        .execute(
            "INSERT INTO dead (key, headers, value, reason, died_at) VALUES ('moved', '[]', ?1, '', 0)",
            [another.event(GENERATED).to_string().into_bytes()],
        )
        .unwrap();
    ledger
        .execute_batch("DELETE FROM contents WHERE event_id = 'moved'; DELETE FROM dead WHERE key = 'moved'")
        .unwrap();
    drop(ledger);
    assert_eq!(found_in_ledger(&relay, &[&one.number, &another.number]).len(), 2);
    relay.restart();
    eventually("clean files", SOON, || found_in_ledger(&relay, &[&one.number, &another.number]).is_empty());
    assert_eq!(inbox(&relay).len(), live.len(), "what is live is all there");
    assert_eq!(dead_letters(&relay).len(), 1);
}

#[test]
fn with_kafka_an_erased_number_is_forgotten_and_what_lies_on_the_topics_does_not_bring_it_back() {
    let topics = Topics::new();
    topics.kafka.create_topic(&topics.events, 1);
    topics.kafka.create_topic(&topics.dead, 1);
    topics.kafka.set_topic_config(&topics.dead, "max.message.bytes", "4000");
    let provider = SmsProvider::start();
    provider.answer_all(400);
    let mut relay = ready(topics.of(brought_by(&[("main", &provider)])).start());
    let otp = Otp::new();
    let by_mail = Otp::of(otp.number.clone()).by_mail();
    // One goes to the dead-letter topic, one does not fit there, and one to the inbox.
    let (refused, shown) = (otp.event(GENERATED), by_mail.event(REGENERATED));
    let mut parked = otp.event(RESENT);
    parked["data"]["note"] = json!("x".repeat(5_000));
    parked["data"]["expiresAt"] = json!("soon");
    hand_over_one(&relay, &refused);
    ends_up(&relay, &refused, "failed");
    hand_over(&relay, &[parked.clone(), shown.clone()]);
    ends_up(&relay, &shown, "delivered");
    eventually("the dead letters", SOON, || {
        topics.kafka.records(&topics.dead).len() == 1 && relay.log().contains("stays in the ledger")
    });
    assert_eq!(dead_letters(&relay).len(), 2);

    hand_over_one(&relay, &by_mail.erased());
    eventually("the erasure", SOON, || inbox(&relay).is_empty());
    for event in [&refused, &shown] {
        assert!(delivery(&relay, event).is_none());
    }
    eventually("clean files", SOON, || found_in_ledger(&relay, &[&otp.number]).is_empty());
    // The topic keeps its letter until its time is over. To replay it has no effect.
    let [letter] = dead_letters(&relay).try_into().unwrap();
    assert_eq!(letter["id"], refused["id"]);
    provider.answer_all(200);
    let already = provider.sent().len();
    assert_eq!(replay(&relay, &[]), 1);
    eventually("the replay", SOON, || topics.records().len() == 5 && metric(&relay, "consumer_lag") == 0.0);
    assert!(delivery(&relay, &refused).is_none());
    // Nor has the whole topic, read again by a relay whose ledger has lost its place and its ids.
    relay.kill();
    let ledger = relay.ledger();
    assert!(ledger.execute("DELETE FROM offsets") > 0 && ledger.execute("DELETE FROM events") > 0);
    drop(ledger);
    relay.restart();
    wait_until_ready(&relay);
    metric_becomes(&relay, "consumed_total", 4.0);
    assert!(inbox(&relay).is_empty() && delivery(&relay, &refused).is_none());
    assert_eq!(provider.sent().len(), already);
    assert_eq!(found_in_ledger(&relay, &[&otp.number]), [""; 0]);
    // The number may come back.
    let new = Otp::of(otp.number.clone());
    let made = new.event(GENERATED);
    hand_over_one(&relay, &made);
    ends_up(&relay, &made, "delivered");
}
