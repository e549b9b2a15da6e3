//! Several relays with one ledger: each event counts once, and whatever one of them had is soon another's.

use crate::{
    GENERATED, Otp, REGENERATED, SOON, VERIFIED, batch_of, brought_by, codes, delivery, ends_up, hand_over,
    hand_over_one, id, ids, inbox,
    kafka::{Topics, ready},
    keys_of, metric, post, requests_reach, shown, text,
};
use harness::{Kafka, Ledger, Postgres, Relay, RelayBuilder, SmsProvider, at_once, eventually};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How long partitions and deliveries of a relay that died may be nobody's.
const TAKEOVER: Duration = Duration::from_secs(10);

/// Longer than a lease.
const PAUSE: Duration = Duration::from_secs(9);

const PARTITIONS: f64 = 12.0;

/// A Postgres, and a topic whose relays have their ledger in it.
struct Shared {
    postgres: Postgres,
    topics: Topics<Arc<Kafka>>,
}

impl Shared {
    fn new() -> Self {
        let topics = Topics::new();
        topics.kafka.create_topic(&topics.events, 12);
        Self { postgres: Postgres::start(), topics }
    }

    fn relay(&self) -> RelayBuilder {
        self.topics.relay().database(&self.postgres)
    }

    /// The owner and the epoch of each partition.
    fn leases(&self) -> BTreeMap<i32, (Option<String>, i64)> {
        let rows = self.postgres.connect().query("SELECT partition, owner, epoch FROM relay.leases", &[]);
        rows.unwrap().iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect()
    }

    fn number(&self, query: &str) -> i64 {
        self.postgres.connect().query_one(query, &[]).unwrap().get(0)
    }

    /// Waits until all that is on the topic has been read and all that was to be delivered has been.
    #[track_caller]
    fn comes_to_rest(&self) {
        let mut last = [0, 0];
        let published = self.topics.records().len() as i64;
        let at_rest = || {
            let read = self.number("SELECT coalesce(sum(next), 0)::bigint FROM relay.offsets");
            last = [read, self.number("SELECT count(*) FROM relay.deliveries WHERE state = 'waiting'")];
            last == [published, 0]
        };
        eventually(&format!("rest after {published} records"), 3 * SOON, at_rest);
    }
}

fn owned(relay: &Relay) -> f64 {
    metric(relay, "partitions_owned")
}

/// Waits until these relays read so many partitions, and tells how long that took.
#[track_caller]
fn shares_become(relays: &[&Relay], shares: &[f64]) -> Duration {
    let begun = Instant::now();
    let mut last = Vec::new();
    eventually(&format!("shares of {shares:?}"), SOON, || {
        last = relays.iter().map(|relay| owned(relay)).collect();
        last.sort_by(f64::total_cmp);
        last == shares
    });
    begun.elapsed()
}

/// Events that a load is worth the name with.
const LOAD: usize = 300;

/// Hands events over to relays in turn until told to stop, and until enough of them were accepted; which ones.
fn load(urls: &[String], loading: &AtomicBool) -> BTreeSet<String> {
    let mut accepted = BTreeSet::new();
    let begun = Instant::now();
    let clients: Vec<_> = urls.iter().map(harness::Client::new).collect();
    for client in clients.iter().cycle() {
        let enough = accepted.len() > LOAD || begun.elapsed() > 2 * SOON;
        if !loading.load(Ordering::Relaxed) && enough {
            break;
        }
        let events: Vec<_> = (0..10).map(|_| Otp::new().event(GENERATED)).collect();
        let body = batch_of(&events);
        // Who was killed or paused does not answer.
        if let Ok(answer) = client.try_send("POST", "/events", &[], body.as_bytes())
            && answer.status == 200
        {
            accepted.extend(ids(&answer.json()["accepted"]));
        }
        thread::sleep(Duration::from_millis(20));
    }
    accepted
}

/// What was accepted is in the inbox, and nothing is there twice.
#[track_caller]
fn nothing_is_lost_or_doubled(relay: &Relay, accepted: &BTreeSet<String>) {
    let seen: Vec<_> = inbox(relay).iter().map(|message| text(message, "eventId").to_owned()).collect();
    let once: BTreeSet<_> = seen.iter().cloned().collect();
    let lost = accepted.difference(&once).count();
    let doubled = seen.len() - once.len();
    println!("accepted {}, in the inbox {}, lost {lost}, doubled {doubled}", accepted.len(), seen.len());
    assert!(accepted.len() > LOAD, "hardly anything got through");
    assert_eq!((lost, doubled), (0, 0));
}

#[test]
fn without_kafka_each_event_counts_once_whichever_relay_takes_it() {
    let postgres = Postgres::start();
    // Both at once on an empty database.
    let relays = at_once(3, |_| Relay::builder().database(&postgres).start());
    let events: Vec<_> = (0..300).map(|_| Otp::new().event(GENERATED)).collect();
    // Each has all of them, in another order.
    at_once(3, |index| {
        let mut events = events.clone();
        events.rotate_left(index * 100);
        events.chunks(20).for_each(|batch| hand_over(&relays[index], batch));
    });
    eventually("all deliveries", SOON, || inbox(&relays[0]).len() >= 300);
    for relay in &relays {
        let seen: Vec<_> = inbox(relay).iter().map(|message| text(message, "eventId").to_owned()).collect();
        assert_eq!(seen.len(), 300);
        assert_eq!(
            seen.into_iter().collect::<BTreeSet<_>>(),
            events.iter().map(|e| id(e).to_owned()).collect()
        );
    }
    let sum = |name: &str| relays.iter().map(|relay| metric(relay, name)).sum::<f64>();
    assert_eq!([sum("consumed_total"), sum("duplicates_total")], [300.0, 600.0]);
    assert_eq!(sum("delivered_total"), 300.0);
    let attempts = relays[0].ledger().number("SELECT sum(attempts)::bigint FROM deliveries");
    assert_eq!(attempts, 300);
}

#[test]
fn what_one_relay_hears_of_a_number_the_others_know() {
    let postgres = Postgres::start();
    let [one, two] = [(); 2].map(|()| Relay::builder().database(&postgres).start());
    let old = Otp::new();
    let new = old.next();
    let (made, late) = (new.event(REGENERATED), old.event(GENERATED));
    hand_over_one(&one, &made);
    ends_up(&two, &made, "delivered");
    hand_over_one(&two, &late);
    ends_up(&one, &late, "superseded");
    let used = Otp::new();
    hand_over_one(&one, &used.event(VERIFIED));
    let again = used.event(GENERATED);
    hand_over_one(&two, &again);
    ends_up(&one, &again, "superseded");
    assert_eq!([codes(&inbox(&one)), codes(&inbox(&two))], [[&*new.code]; 2]);
    hand_over_one(&two, &new.erased());
    assert!(inbox(&one).is_empty() && delivery(&one, &made).is_none());
    hand_over_one(&one, &new.event(GENERATED));
    assert!(inbox(&two).is_empty(), "it was said before the erasure");
    assert!(shown(&two, "/inbox").is_empty());
}

#[test]
fn erasures_and_what_they_erase_may_come_to_several_relays_at_once() {
    let postgres = Postgres::start();
    let relays = [(); 2].map(|()| Relay::builder().database(&postgres).start());
    let otps: Vec<_> = (0..60).map(|_| Otp::new()).collect();
    let mut damaged: Vec<_> = otps.iter().map(|otp| otp.event(GENERATED)).collect();
    damaged.iter_mut().for_each(|event| event["data"]["expiresAt"] = "soon".into());
    at_once(4, |index| {
        for (number, otp) in otps.iter().enumerate() {
            let event = match index {
                0 => otp.event(GENERATED),
                1 => damaged[number].clone(),
                2 => otp.event(VERIFIED),
                _ => otp.erased(),
            };
            hand_over_one(&relays[index % 2], &event);
        }
    });
    let left = |query: &str| relays[0].ledger().number(query);
    for table in ["deliveries", "contents", "dead"] {
        assert_eq!(left(&format!("SELECT count(*) FROM {table}")), 0, "{table}");
    }
}

#[test]
fn partitions_are_shared_evenly_by_whoever_is_there() {
    let shared = Shared::new();
    // Both at once on an empty database.
    let mut relays = at_once(2, |_| ready(shared.relay().start()));
    let took = shares_become(&[&relays[0], &relays[1]], &[6.0, 6.0]);
    println!("two that start at once share after {took:?}");
    relays.push(ready(shared.relay().start()));
    let took = shares_become(&relays.iter().collect::<Vec<_>>(), &[4.0, 4.0, 4.0]);
    println!("a third has its share after {took:?}");
    assert!(took < TAKEOVER, "{took:?}");
    let body = relays[2].client().get("/readyz").expect(200);
    assert_eq!(body["dependencies"]["bus"]["partitions"], serde_json::json!({ "owned": 4, "all": 12 }));
    // The lag is told of what is read, by whoever reads it.
    eventually("lags", SOON, || {
        let told = relays.iter().map(|relay| {
            let text = String::from_utf8(relay.client().get("/metrics").body).unwrap();
            text.lines().filter(|line| line.contains("consumer_lag{")).count()
        });
        told.collect::<Vec<_>>() == [4, 4, 4]
    });
    let events: Vec<_> = (0..60).map(|_| Otp::new().event(GENERATED)).collect();
    hand_over(&relays[1], &events);
    events.iter().for_each(|event| drop(ends_up(&relays[0], event, "delivered")));
    assert!(relays.iter().all(|relay| metric(relay, "consumed_total") > 0.0), "each reads its part");
    // One that is told to end gives its partitions up at once.
    let begun = Instant::now();
    assert!(relays[0].terminate().success());
    shares_become(&[&relays[1], &relays[2]], &[6.0, 6.0]);
    println!("after one was told to end, the others have all after {:?}", begun.elapsed());
    assert!(relays[1..].iter().all(|relay| metric(relay, "leases_lost_total") == 0.0));
    // More relays than partitions: some stand by.
    let small = Topics::new();
    small.kafka.create_topic(&small.events, 1);
    let own = Postgres::start();
    let pair = [(); 2].map(|()| ready(small.relay().database(&own).start()));
    shares_become(&[&pair[0], &pair[1]], &[0.0, 1.0]);
    pair.iter().for_each(|relay| drop(relay.client().get("/readyz").expect(200)));
}

#[test]
fn one_of_two_that_is_killed_under_load_costs_nothing_and_its_partitions_are_soon_read() {
    let shared = Shared::new();
    let mut relays: Vec<_> = (0..2).map(|_| ready(shared.relay().start())).collect();
    shares_become(&[&relays[0], &relays[1]], &[6.0, 6.0]);
    let urls: Vec<_> = relays.iter().map(Relay::url).collect();
    let loading = AtomicBool::new(true);
    let accepted = thread::scope(|scope| {
        let posting: Vec<_> = (0..2).map(|_| scope.spawn(|| load(&urls, &loading))).collect();
        for round in 0..2 {
            let survivor = 1 - round;
            let before = metric(&relays[survivor], "published_total");
            eventually("some load", SOON, || metric(&relays[survivor], "published_total") > before + 200.0);
            relays[round].kill();
            let begun = Instant::now();
            shares_become(&[&relays[survivor]], &[PARTITIONS]);
            let took = begun.elapsed();
            println!("every partition was owned again {took:?} after a relay was killed");
            assert!(took < TAKEOVER, "{took:?}");
            relays[round].restart();
            shares_become(&[&relays[0], &relays[1]], &[6.0, 6.0]);
        }
        loading.store(false, Ordering::Relaxed);
        posting.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<BTreeSet<_>>()
    });
    shared.comes_to_rest();
    nothing_is_lost_or_doubled(&relays[0], &accepted);
    let events = shared.number("SELECT count(*) FROM relay.events");
    assert_eq!(events, shared.number("SELECT count(*) FROM relay.deliveries WHERE state = 'delivered'"));
}

#[test]
fn what_nobody_could_say_while_the_server_was_away_is_held_against_nobody() {
    let shared = Shared::new();
    let relay = ready(shared.relay().start());
    // One that has been silent for two minutes, as the server was, which has just been started again.
    let mut client = shared.postgres.connect();
    client
        .batch_execute(
            "INSERT INTO relay.members VALUES ('another', NULL, clock_timestamp() - interval '2 minutes')",
        )
        .unwrap();
    let beats = "SELECT (extract(epoch FROM max(alive_until)) * 1000)::bigint FROM relay.members";
    let before = shared.number(beats);
    eventually("some beats", SOON, || shared.number(beats) > before + 2_000);
    assert_eq!(shared.number("SELECT count(*) FROM relay.members WHERE id = 'another'"), 1);
    drop(relay);
}

#[test]
fn one_that_was_paused_writes_nothing_for_the_partitions_that_it_lost() {
    let shared = Shared::new();
    let relays: Vec<_> = (0..2).map(|_| ready(shared.relay().start())).collect();
    shares_become(&[&relays[0], &relays[1]], &[6.0, 6.0]);
    let urls: Vec<_> = relays.iter().map(Relay::url).collect();
    let loading = AtomicBool::new(true);
    let accepted = thread::scope(|scope| {
        // Only the one that is not paused is handed anything: the other would keep us waiting.
        let posting = scope.spawn(|| load(&urls[1..], &loading));
        eventually("some load", SOON, || metric(&relays[0], "consumed_total") > 100.0);
        // In the middle of writing down what it has read.
        let ledger: Ledger = relays[1].ledger();
        ledger.block();
        thread::sleep(Duration::from_millis(700));
        let before = shared.leases();
        relays[0].signal("STOP");
        let paused = Instant::now();
        ledger.release();
        shares_become(&[&relays[1]], &[PARTITIONS]);
        println!("every partition was owned again {:?} after a relay was paused", paused.elapsed());
        assert!(paused.elapsed() < TAKEOVER, "{:?}", paused.elapsed());
        let after = shared.leases();
        let moved: Vec<_> =
            before.keys().filter(|partition| before[partition].0 != after[partition].0).collect();
        assert_eq!(moved.len(), 6);
        assert!(
            moved.iter().all(|partition| after[partition].1 == before[partition].1 + 1),
            "{before:?} {after:?}"
        );
        thread::sleep(PAUSE.saturating_sub(paused.elapsed()));
        relays[0].signal("CONT");
        let back = Instant::now();
        eventually("noticing", SOON, || metric(&relays[0], "leases_lost_total") == 6.0);
        println!("it noticed {:?} after it went on", back.elapsed());
        let took = shares_become(&[&relays[0], &relays[1]], &[6.0, 6.0]);
        println!("and shared again after {took:?}");
        eventually("more load", SOON, || {
            let before = metric(&relays[0], "consumed_total");
            thread::sleep(Duration::from_millis(200));
            metric(&relays[0], "consumed_total") > before
        });
        loading.store(false, Ordering::Relaxed);
        posting.join().unwrap()
    });
    shared.comes_to_rest();
    nothing_is_lost_or_doubled(&relays[1], &accepted);
    // Had anything been written down under an old lease, the new owner would have found it there.
    let sum = |name: &str| relays.iter().map(|relay| metric(relay, name)).sum::<f64>();
    assert_eq!(sum("duplicates_total"), 0.0);
    assert_eq!(sum("consumed_total"), shared.topics.records().len() as f64);
}

#[test]
fn what_was_read_under_a_lease_that_is_over_is_not_written_down() {
    let shared = Shared::new();
    let relay = ready(shared.relay().start());
    shares_become(&[&relay], &[PARTITIONS]);
    let mut client = shared.postgres.connect();
    // As if another relay had taken everything while this one was not looking.
    client
        .batch_execute(
            "BEGIN;
             INSERT INTO relay.members VALUES ('another', NULL, clock_timestamp() + interval '1 hour');
             UPDATE relay.leases SET owner = 'another', epoch = epoch + 1;
             COMMIT",
        )
        .unwrap();
    let events: Vec<_> = (0..60).map(|_| Otp::new().event(GENERATED)).collect();
    hand_over(&relay, &events);
    eventually("noticing", SOON, || metric(&relay, "leases_lost_total") == PARTITIONS);
    eventually("it to count none as its own", SOON, || owned(&relay) == 0.0);
    thread::sleep(Duration::from_secs(2));
    for table in ["events", "deliveries", "offsets"] {
        assert_eq!(shared.number(&format!("SELECT count(*) FROM relay.{table}")), 0, "{table}");
    }
    assert_eq!(metric(&relay, "consumed_total"), 0.0);
    // It stands by, and takes what becomes free.
    relay.client().get("/readyz").expect(200);
    client.execute("DELETE FROM relay.members WHERE id = 'another'", &[]).unwrap();
    shares_become(&[&relay], &[PARTITIONS]);
    events.iter().for_each(|event| drop(ends_up(&relay, event, "delivered")));
    assert_eq!(inbox(&relay).len(), 60);
    assert!(shared.leases().values().all(|(_, epoch)| *epoch == 3), "{:?}", shared.leases());
}

#[test]
fn a_delivery_that_a_relay_had_in_hand_when_it_died_is_soon_another_s() {
    let postgres = Postgres::start();
    let provider = SmsProvider::start();
    provider.delay(Duration::from_secs(8));
    let relay = || brought_by(&[("main", &provider)]).database(&postgres).start();
    let mut one = relay();
    let event = Otp::new().event(GENERATED);
    hand_over_one(&one, &event);
    requests_reach(&provider, 1);
    // Whoever starts while the other lives leaves it alone.
    let (two, three) = (relay(), relay());
    thread::sleep(Duration::from_secs(2));
    let claim = || two.ledger().number("SELECT claim FROM deliveries");
    assert_eq!((provider.sent().len(), claim()), (1, 1));
    provider.delay(Duration::ZERO);
    let killed = Instant::now();
    one.kill();
    let told = ends_up(&two, &event, "delivered");
    println!("delivered {:?} after a relay was killed", killed.elapsed());
    assert!(killed.elapsed() < TAKEOVER, "{:?}", killed.elapsed());
    assert_eq!((&told["attempts"], claim()), (&Value::from(2), 2));
    assert_eq!(keys_of(&provider), [id(&event); 2], "the repetition has the same key");
    assert_eq!(metric(&two, "delivered_total") + metric(&three, "delivered_total"), 1.0);
}

#[test]
fn what_comes_of_a_claim_that_was_lost_overwrites_nothing() {
    let postgres = Postgres::start();
    let (slow, quick) = (SmsProvider::start(), SmsProvider::start());
    slow.delay(Duration::from_secs(2));
    slow.answer_all(400);
    let one = brought_by(&[("slow", &slow)]).database(&postgres).start();
    let event = Otp::new().event(GENERATED);
    hand_over_one(&one, &event);
    requests_reach(&slow, 1);
    one.signal("STOP");
    // Another one delivers it, with another provider.
    let two = brought_by(&[("quick", &quick)]).database(&postgres).start();
    let paused = Instant::now();
    let told = ends_up(&two, &event, "delivered");
    println!("delivered {:?} after a relay was paused", paused.elapsed());
    assert!(paused.elapsed() < TAKEOVER, "{:?}", paused.elapsed());
    assert_eq!([&told["provider"], &told["attempts"]], [&Value::from("quick"), &Value::from(2)]);
    one.signal("CONT");
    // Its own provider has refused the code for good.
    eventually("its outcome", SOON, || metric(&one, "undelivered_total{state=\"failed\"") == 1.0);
    let bystander = Otp::new().by_mail().event(GENERATED);
    hand_over_one(&one, &bystander);
    ends_up(&one, &bystander, "delivered");
    assert_eq!(delivery(&one, &event).unwrap(), told);
    assert_eq!(one.ledger().number("SELECT count(*) FROM dead"), 0);
    assert_eq!(keys_of(&quick), [id(&event)]);
}

#[test]
fn two_relays_whose_database_is_killed_under_load_lose_nothing() {
    let mut shared = Shared::new();
    let relays: Vec<_> = (0..2).map(|_| ready(shared.relay().start())).collect();
    shares_become(&[&relays[0], &relays[1]], &[6.0, 6.0]);
    let urls: Vec<_> = relays.iter().map(Relay::url).collect();
    let loading = AtomicBool::new(true);
    let accepted = thread::scope(|scope| {
        let posting = scope.spawn(|| load(&urls, &loading));
        for _ in 0..2 {
            let before = metric(&relays[0], "consumed_total");
            eventually("some load", SOON, || metric(&relays[0], "consumed_total") > before + 100.0);
            shared.postgres.kill();
            thread::sleep(Duration::from_secs(3));
            shared.postgres.restart();
            let back = Instant::now();
            let before = metric(&relays[0], "consumed_total");
            eventually("reading", SOON, || metric(&relays[0], "consumed_total") > before);
            println!("reading again {:?} after the database was back", back.elapsed());
        }
        loading.store(false, Ordering::Relaxed);
        posting.join().unwrap()
    });
    shared.comes_to_rest();
    nothing_is_lost_or_doubled(&relays[0], &accepted);
    let sum = |name: &str| relays.iter().map(|relay| metric(relay, name)).sum::<f64>();
    assert_eq!(sum("leases_lost_total"), 0.0, "nobody could say that he is alive");
    assert_eq!(post(&relays[0], &[]).status, 200);
}
