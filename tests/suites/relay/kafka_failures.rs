//! With Kafka, and a broker that is killed, hangs, or was never there. Each test has its own.

use crate::{
    GENERATED, Otp, SOON, batch_of, codes, ends_up, hand_over, hand_over_one, inbox,
    kafka::{Topics, ready, wait_until_ready},
    metric, post, text,
};
use harness::{Kafka, Mode, Proxy, Relay, at_once, eventually, unused_address};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

/// How long anybody may wait for a word about an event.
const PATIENCE: Duration = Duration::from_secs(7);

/// Posts an event and gives whether it was accepted. If not, it has to be said soon and in the right way.
#[track_caller]
fn try_post(relay: &Relay, event: &Value) -> bool {
    let begun = Instant::now();
    let answer = post(relay, std::slice::from_ref(event));
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    if answer.status == 200 {
        return true;
    }
    answer.expect_problem(503, "unavailable");
    assert_eq!(answer.header("retry-after"), "1");
    false
}

#[test]
fn while_the_broker_is_away_every_answer_is_a_quick_503_and_memory_stays_as_it_was() {
    let mut kafka = Kafka::start();
    let (events, dead) = ("events".to_owned(), "dead".to_owned());
    let topics = Topics { kafka: &kafka, events, dead };
    let mut relay = ready(topics.relay().start());
    let first = Otp::new();
    hand_over(&relay, &[first.event(GENERATED)]);
    eventually("a delivery", SOON, || codes(&inbox(&relay)) == [&*first.code]);
    let before = relay.resident_memory();
    kafka.kill();

    let waiting: Vec<_> = (0..40).map(|_| Otp::new()).collect();
    let events: Vec<_> = waiting.iter().map(|otp| otp.event(GENERATED)).collect();
    thread::scope(|scope| {
        for (index, event) in events.iter().enumerate() {
            let relay = &relay;
            scope.spawn(move || {
                thread::sleep(Duration::from_millis(50 * index as u64));
                try_post(relay, event);
            });
        }
    });
    eventually("being said", SOON, || relay.client().get("/readyz").status == 503);
    let not_ready = relay.client().get("/readyz").expect(503);
    assert_eq!(not_ready["dependencies"]["bus"]["status"], "down");
    assert_eq!(not_ready["dependencies"]["ledger"]["status"], "up");
    assert_eq!(metric(&relay, "bus_up"), 0.0);
    relay.client().get("/healthz").expect(200);

    // A few hundred megabytes of batches, to keep none of them.
    let mut large = Otp::new().event(GENERATED);
    large["data"]["note"] = json!("x".repeat(200_000));
    let batch = vec![large; 5];
    let begun = Instant::now();
    let batch = batch_of(&batch);
    for _ in 0..300 {
        // Who is turned away before it has sent all of it may find the door closed before the answer.
        let answer = relay.client().try_send("POST", "/events", &[], batch.as_bytes());
        assert!(answer.is_err() || answer.unwrap().status == 503);
    }
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    if let (Some(before), Some(after)) = (before, relay.resident_memory()) {
        assert!(after < before + 100 * 1024, "from {before} KiB to {after} KiB");
    }

    kafka.restart();
    wait_until_ready(&relay);
    hand_over(&relay, &events);
    eventually("all deliveries", SOON, || inbox(&relay).len() >= 41);
    let seen: BTreeSet<_> = inbox(&relay).iter().map(|message| text(message, "otp").to_owned()).collect();
    assert_eq!((seen.len(), inbox(&relay).len()), (41, 41), "each once");
    assert!(seen.contains(&waiting[0].code));
    // Whatever was tried many times was said a few times.
    let log = relay.log();
    assert!(log.lines().count() < 40, "{log}");
    assert!(relay.terminate().success());
}

#[test]
fn what_was_accepted_before_the_broker_was_killed_is_in_the_topic() {
    let mut kafka = Kafka::start();
    let topics = Topics { kafka: &kafka, events: "events".to_owned(), dead: "dead".to_owned() };
    let relay = ready(topics.relay().start());
    let events: Vec<_> = (0..4_000).map(|_| Otp::new().event(GENERATED)).collect();
    let accepted = thread::scope(|scope| {
        let posting = scope.spawn(|| {
            let mut accepted = BTreeSet::new();
            for batch in events.chunks(20) {
                let answer = post(&relay, batch);
                if answer.status == 200 {
                    accepted.extend(crate::ids(&answer.json()["accepted"]));
                } else {
                    answer.expect_problem(503, "unavailable");
                }
            }
            accepted
        });
        eventually("some load", SOON, || metric(&relay, "published_total") > 500.0);
        kafka.kill();
        posting.join().unwrap()
    });
    assert!(accepted.len() < events.len(), "the broker went too late");
    kafka.restart();
    let records = kafka.records("events");
    let there: BTreeSet<_> =
        records.iter().map(|record| record.header("ce_id").unwrap().to_owned()).collect();
    assert!(accepted.is_subset(&there), "{} are missing", accepted.difference(&there).count());
    wait_until_ready(&relay);
    eventually("all deliveries", SOON, || inbox(&relay).len() >= there.len());
    assert_eq!(inbox(&relay).len(), there.len(), "each once, also those of which nobody heard");
}

#[test]
fn while_the_broker_hangs_every_answer_comes_in_time() {
    let kafka = Kafka::start();
    let topics = Topics { kafka: &kafka, events: "events".to_owned(), dead: "dead".to_owned() };
    let relay = ready(topics.relay().start());
    // Of one number, so that they wait for the same partition.
    let otp = Otp::new();
    kafka.signal("STOP");
    let accepted = thread::scope(|scope| {
        let posting: Vec<_> = (0..12)
            .map(|index| {
                let (relay, otp) = (&relay, &otp);
                scope.spawn(move || {
                    thread::sleep(Duration::from_millis(500 * index));
                    try_post(relay, &otp.event("otp.limited.v1"))
                })
            })
            .collect();
        posting.into_iter().map(|thread| thread.join().unwrap()).filter(|accepted| *accepted).count()
    });
    assert_eq!(accepted, 0);
    relay.client().get("/readyz").expect(503);
    kafka.signal("CONT");
    wait_until_ready(&relay);
    let event = otp.event(GENERATED);
    hand_over_one(&relay, &event);
    ends_up(&relay, &event, "delivered");
}

#[test]
fn brokers_that_come_later_are_found() {
    let mut kafka = Kafka::start();
    kafka.kill();
    let topics = Topics { kafka: &kafka, events: "events".to_owned(), dead: "dead".to_owned() };
    let relay = topics.relay().start();
    relay.client().get("/healthz").expect(200);
    assert_eq!(relay.client().get("/readyz").expect(503)["status"], "unavailable");
    assert!(!try_post(&relay, &Otp::new().event(GENERATED)));
    eventually("a word about it", SOON, || relay.log().contains("brokers"));
    kafka.restart();
    wait_until_ready(&relay);
    let event = Otp::new().event(GENERATED);
    assert!(try_post(&relay, &event));
    ends_up(&relay, &event, "delivered");
}

#[test]
fn told_to_end_while_the_brokers_are_away_it_ends() {
    let mut relay = Relay::builder().env("KAFKA_BROKERS", &unused_address()).start();
    assert!(!try_post(&relay, &Otp::new().event(GENERATED)));
    let begun = Instant::now();
    assert_eq!(relay.terminate().code(), Some(0), "{}", relay.log());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    // Nothing was listed, and that is said and no success.
    let listed = relay.run(&["dlq", "list"]);
    assert!(!listed.status.success());
    assert!(!listed.stderr.is_empty() && listed.stdout.is_empty(), "{listed:?}");
}

#[test]
fn when_one_of_two_brokers_says_nothing_any_more_the_other_one_is_asked() {
    let kafka = Kafka::start();
    let second = kafka.join();
    let (events, dead) = ("events".to_owned(), "dead".to_owned());
    for topic in [&events, &dead] {
        kafka.create_replicated_topic(topic, 6, 2);
    }
    // So that it is the second one that the relay asks first, and holds on to.
    let first = Proxy::to(kafka.brokers());
    first.set(Mode::Cut);
    let brokers = format!("{},{}", first.address(), second.brokers());
    let topics = Topics { kafka: &kafka, events, dead };
    let relay = ready(topics.relay().env("KAFKA_BROKERS", &brokers).start());
    first.set(Mode::Pass);
    let batch = || -> Vec<_> { (0..60).map(|_| Otp::new().event(GENERATED)).collect() };
    hand_over(&relay, &batch());
    eventually("deliveries from all partitions", SOON, || inbox(&relay).len() == 60);
    // As when its machine loses power: nobody hears that its connections are gone.
    second.signal("STOP");
    let begun = Instant::now();
    // Gives how many were taken at first, and after what time.
    let hand_over_in_the_end = |mut rest: Vec<Value>| {
        let mut at_first = None;
        while !rest.is_empty() {
            let asked = Instant::now();
            let answer = post(&relay, &rest);
            assert!(asked.elapsed() < PATIENCE, "{:?}", asked.elapsed());
            let taken =
                if answer.status == 200 { crate::ids(&answer.json()["accepted"]) } else { BTreeSet::new() };
            at_first.get_or_insert((taken.len(), asked.elapsed()));
            rest.retain(|event| !taken.contains(text(event, "id")));
            assert!(begun.elapsed() < Duration::from_secs(45), "{} are still to be taken", rest.len());
        }
        at_first.unwrap()
    };
    let at_first = at_once(2, |index| {
        // The second one finds the first one waiting.
        thread::sleep(Duration::from_millis(500 * index as u64));
        hand_over_in_the_end(batch())
    });
    println!("at first {at_first:?} were taken, all after {:?}", begun.elapsed());
    // What the other one led all the time is not refused for it.
    assert!(at_first.iter().all(|(taken, _)| *taken > 0), "{at_first:?}");
    eventually("all deliveries", SOON, || inbox(&relay).len() == 180);
    println!("all were delivered after {:?}", begun.elapsed());
    assert_eq!(metric(&relay, "bus_up"), 1.0);
    second.signal("CONT");
}

#[test]
fn when_the_topic_gets_more_partitions_the_relay_begins_anew_and_reads_all() {
    let kafka = Kafka::start();
    kafka.create_topic("events", 2);
    let topics = Topics { kafka: &kafka, events: "events".to_owned(), dead: "dead".to_owned() };
    let mut relay = ready(topics.relay().start());
    kafka.add_partitions("events", 5);
    let status = relay.wait();
    assert_eq!(status.code(), Some(1), "{}", relay.log());
    assert!(relay.log().contains("has 5 partitions, and had 2"), "{}", relay.log());
    relay.restart();
    wait_until_ready(&relay);
    let events: Vec<_> = (0..40).map(|_| Otp::new().event(GENERATED)).collect();
    hand_over(&relay, &events);
    eventually("deliveries from all partitions", SOON, || inbox(&relay).len() == 40);
    assert_eq!(
        kafka.records("events").iter().map(|record| record.partition).collect::<BTreeSet<_>>().len(),
        5
    );
}
