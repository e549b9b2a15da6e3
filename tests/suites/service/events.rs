//! What each request leaves for others to act on, and how it gets to the relay.

use crate::{now, outbox};
use harness::{
    Client, IN_TIME, Relay, Service, SmsProvider, Sql, Store, at_once, eventually, number, temporary_folder,
    unused_address,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    net::TcpListener,
    time::{Duration, Instant},
};

const TOKEN: &str = "a-token-that-nobody-else-has";
const SOON: Duration = Duration::from_secs(30);
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn types(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

fn inbox(relay: &Relay) -> Vec<Value> {
    relay.client().get("/inbox?limit=10000").expect(200).as_array().unwrap().clone()
}

fn flush(client: &Client) -> harness::Response {
    let authorization = format!("Bearer {TOKEN}");
    client.send("POST", "/internal/outbox/flush", &[("authorization", &authorization)], b"")
}

fn with_relay_at(address: &str) -> harness::Builder {
    Service::builder()
        .without_limits()
        .variable("relay_url", &format!("http://{address}"))
        .variable("relay_token", TOKEN)
}

fn relay_at(address: &str) -> Relay {
    Relay::builder().listen(address).env("RELAY_TOKEN", TOKEN).start()
}

#[test]
fn each_accepted_call_leaves_one_event_and_a_refused_one_leaves_none() {
    let service = Service::builder()
        .without_limits()
        .variable("otp_length", "10")
        .variable("max_verify_attempts", "2")
        .start();
    let (client, number) = (service.client(), number());
    let headers = [("x-request-id", "request 7"), ("traceparent", TRACE)];
    let body = json!({ "mobileNumber": number, "email": "user@example.com" }).to_string();
    let made = client.send("POST", "/generate-otp", &headers, body.as_bytes()).expect(201);
    client.resend(&number).expect(200);
    client.verify(&number, "0000000000").expect(422);
    client.verify(&number, "0000000000").expect(422);
    client.verify(&number, "0000000000").expect(429);
    // Locked: not given again, and so not delivered again.
    client.resend(&number).expect(410);
    let again = client.regenerate(&number).expect(201);
    client.verify(&number, again["otp"].as_str().unwrap()).expect(200);
    client.verify(&number, again["otp"].as_str().unwrap()).expect(410);
    client.resend(&harness::number()).expect(404);
    client.regenerate(&harness::number()).expect(404);
    client.post("/generate-otp", &json!({ "mobileNumber": "+1" })).expect(422);

    let events = outbox(&service);
    assert_eq!(
        types(&events),
        [
            "otp.generated.v1",
            "otp.resent.v1",
            "otp.verification-failed.v1",
            "otp.locked.v1",
            "otp.verification-failed.v1",
            "otp.regenerated.v1",
            "otp.verified.v1",
            "otp.verification-failed.v1",
        ]
    );
    let first = &events[0];
    assert_eq!(first["specversion"], "1.0");
    assert_eq!(first["source"], "spin-otp");
    assert_eq!(first["requestid"], "request 7");
    assert_eq!(first["traceparent"], TRACE);
    let data = &first["data"];
    assert_eq!(data["mobileNumber"], number.as_str());
    assert_eq!(data["otpId"], made["otpId"]);
    // An address beside a number is where mails go, and this is none.
    assert_eq!((&data["channel"], data.get("email")), (&json!("sms"), None));
    // The same moments, here with milliseconds.
    for field in ["createdAt", "expiresAt"] {
        assert_eq!(data[field].as_str().unwrap()[..19], made[field].as_str().unwrap()[..19], "{field}");
    }
    assert_eq!(events[1]["data"]["sealedOtp"], data["sealedOtp"], "the same code");
    assert_ne!(events[5]["data"]["sealedOtp"], data["sealedOtp"]);
    for event in &events {
        let delivers = ["otp.generated.v1", "otp.resent.v1", "otp.regenerated.v1"];
        assert_eq!(
            event["data"].get("sealedOtp").is_some(),
            delivers.contains(&event["type"].as_str().unwrap())
        );
        assert_eq!(event["subject"], first["subject"]);
        for code in [&made["otp"], &again["otp"]] {
            assert!(!event.to_string().contains(code.as_str().unwrap()), "a code in clear");
        }
    }
    let reasons: Vec<_> = [2, 3, 4, 7].iter().map(|index| &events[*index]["data"]["reason"]).collect();
    assert_eq!(reasons, ["wrong", "wrong", "locked", "used"]);
    let ids: BTreeSet<_> = events.iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), events.len());
    let sequences: Vec<_> = events.iter().map(|event| event["sequence"].as_str().unwrap()).collect();
    assert!(sequences.is_sorted_by(|one, next| one < next), "{sequences:?}");
}

#[test]
fn events_of_one_number_have_an_order_however_many_requests_come_at_once() {
    let service = Service::builder().without_limits().start();
    let (client, number) = (service.client(), number());
    client.generate(&number);
    at_once(16, |index| if index % 2 == 0 { client.resend(&number) } else { client.regenerate(&number) });
    let events = outbox(&service);
    assert_eq!(events.len(), 17);
    let sequences: Vec<_> =
        events.iter().map(|event| event["sequence"].as_str().unwrap().to_owned()).collect();
    assert!(sequences.is_sorted_by(|one, next| one < next), "{sequences:?}");
    let versions: Vec<_> = events.iter().map(|event| event["data"]["version"].as_i64().unwrap()).collect();
    assert!(versions.is_sorted(), "a later event is never of an older code: {versions:?}");
}

#[test]
fn a_trace_context_that_is_none_is_left_out() {
    let service = Service::builder().without_limits().start();
    let client = service.client();
    for bad in
        ["", "nonsense", "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", &TRACE.to_uppercase()]
    {
        let body = json!({ "mobileNumber": number() }).to_string();
        client.send("POST", "/generate-otp", &[("traceparent", bad)], body.as_bytes()).expect(201);
    }
    assert!(outbox(&service).iter().all(|event| event.get("traceparent").is_none()));
}

#[test]
fn an_event_is_pushed_after_its_answer_and_its_code_delivered_once() {
    let address = unused_address();
    let relay = relay_at(&address);
    let service = with_relay_at(&address).start();
    let client = service.client();
    let numbers: Vec<_> = (0..40).map(|_| number()).collect();
    let made = at_once(numbers.len(), |index| client.generate(&numbers[index]));
    eventually("delivering", SOON, || inbox(&relay).len() == numbers.len());
    let delivered: BTreeSet<_> = inbox(&relay).iter().map(|message| message["otp"].to_string()).collect();
    assert_eq!(delivered, made.iter().map(|made| made["otp"].to_string()).collect());
    eventually("forgetting what was accepted", SOON, || outbox(&service).is_empty());
    assert_eq!(client.get("/readyz").expect(200)["dependencies"]["relay"]["status"], "up");
}

#[test]
fn while_the_relay_is_away_no_request_waits_or_fails_and_its_events_are_pushed_later() {
    let address = unused_address();
    let service = with_relay_at(&address).start();
    let client = service.client();
    client.generate(&number());
    let start = Instant::now();
    let numbers: Vec<_> = (0..20).map(|_| number()).collect();
    numbers.iter().for_each(|number| drop(client.generate(number)));
    // All together have not waited for it once.
    assert!(start.elapsed() < IN_TIME, "{:?}", start.elapsed());
    let ready = client.get("/readyz").expect(200);
    assert_eq!(
        (&ready["status"], &ready["dependencies"]["relay"]["status"]),
        (&json!("degraded"), &json!("down"))
    );
    assert_eq!(outbox(&service).len(), 21);
    eventually("saying it", SOON, || service.log().contains("relay unavailable"));
    assert!(!service.log().contains(TOKEN));

    let relay = relay_at(&address);
    // What was claimed when the relay was away is left alone for a moment.
    eventually("pushing what waited", Duration::from_secs(30), || {
        flush(&client).expect(200);
        inbox(&relay).len() == 21
    });
    assert!(outbox(&service).is_empty());
}

#[test]
fn a_relay_that_hangs_slows_no_request_down() {
    // It takes connections, and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let service = with_relay_at(&silent.local_addr().unwrap().to_string()).start();
    let client = service.client();
    client.generate(&number());
    let slowest = (0..50)
        .map(|_| {
            let start = Instant::now();
            client.generate(&number());
            start.elapsed()
        })
        .max();
    assert!(slowest < Some(IN_TIME), "{slowest:?}");
    let start = Instant::now();
    let flushed = flush(&client).expect(200);
    assert!(start.elapsed() < IN_TIME, "{:?}", start.elapsed());
    assert_eq!(flushed["waiting"], 51);
    service.sql().execute("UPDATE outbox SET created_at = created_at - 90000", &[]);
    let oldest = flush(&client).expect(200)["oldestSeconds"].as_i64().unwrap();
    assert!((90..120).contains(&oldest), "{oldest}");
}

#[test]
fn a_full_batch_that_cannot_be_taken_lets_what_is_behind_it_go_first() {
    let relay = SmsProvider::start();
    relay.answer_all(503);
    let service = with_relay_at(relay.url().strip_prefix("http://").unwrap()).start();
    let client = service.client();
    client.get("/readyz").expect(200);
    let database = service.sql();
    for index in 0..501 {
        let event = format!("{{\"id\":\"event-{index}\"}}");
        database.execute("INSERT INTO outbox (event, created_at) VALUES (?1, 0)", &[&event]);
    }
    for _ in 0..3 {
        assert_eq!(flush(&client).expect(200)["published"], 0);
    }
    let sent = relay.sent();
    let pushed = sent.iter().filter(|sent| sent.method == "POST");
    let batches: Vec<_> = pushed.map(|sent| sent.json().as_array().unwrap().len()).collect();
    // The one behind them is all that is left, and asked for again and again: the others wait for their turn.
    assert_eq!(batches, [500, 1, 1]);
}

#[test]
fn one_bad_event_holds_nobody_up() {
    let address = unused_address();
    let service = with_relay_at(&address).start();
    let client = service.client();
    client.get("/readyz").expect(200);
    let database = service.sql();
    let put = |event: &str| {
        assert_eq!(database.execute("INSERT INTO outbox (event, created_at) VALUES (?1, 0)", &[&event]), 1);
    };
    // Postgres takes nothing else than JSON.
    put(if database.store() == Store::Sqlite { "no JSON at all" } else { "\"JSON, but no object\"" });
    put("{\"id\":\"no-event\"}");
    put(&format!("{{\"id\":\"huge\",\"data\":\"{}\"}}", "x".repeat(1_200_000)));
    let relay = relay_at(&address);
    let number = number();
    client.generate(&number);
    eventually("delivering the good one", SOON, || inbox(&relay).len() == 1);
    eventually("burying the bad ones", SOON, || {
        database.number("SELECT count(*) FROM outbox_dead", &[]) == 3
    });
    let reasons = database.rows("SELECT reason FROM outbox_dead", &[]);
    assert!(reasons.iter().all(|reason| reason[0] != ""), "{reasons:?}");
    assert!(outbox(&service).is_empty());
    assert_eq!(
        flush(&client).expect(200),
        json!({ "published": 0, "refused": 0, "waiting": 0, "dead": 3, "oldestSeconds": 0 })
    );
}

#[test]
fn what_somebody_has_written_or_claimed_is_left_to_it_for_a_moment_and_no_longer() {
    let address = unused_address();
    let service = with_relay_at(&address).start();
    let client = service.client();
    client.generate(&number());
    let database = service.sql();
    eventually("saying that nobody is there", SOON, || service.log().contains("relay unavailable"));
    let claim_until =
        |when: i64| assert_eq!(database.execute("UPDATE outbox SET claimed_until = ?1", &[&when]), 1);
    let written_at =
        |when: i64| assert_eq!(database.execute("UPDATE outbox SET created_at = ?1", &[&when]), 1);
    let relay = relay_at(&address);
    let flush = || flush(&client).expect(200)["published"].as_i64().unwrap();
    // Whoever wrote it may be about to push it.
    written_at(now());
    assert_eq!(flush(), 0);
    written_at(now() - 10_000);
    claim_until(now() + 10_000);
    assert_eq!(flush(), 0);
    assert!(inbox(&relay).is_empty());
    // Whoever claimed it has died.
    claim_until(now() - 1_000);
    assert_eq!(flush(), 1);
    eventually("delivering", SOON, || inbox(&relay).len() == 1);
}

#[test]
fn two_hosts_share_one_outbox() {
    let folder = temporary_folder();
    let address = unused_address();
    let relay = relay_at(&address);
    let hosts = [0, 1].map(|_| with_relay_at(&address).state(folder.path()).start());
    let clients = hosts.each_ref().map(Service::client);
    let numbers: Vec<_> = (0..60).map(|_| number()).collect();
    at_once(numbers.len(), |index| clients[index % 2].generate(&numbers[index]));
    eventually("delivering all", SOON, || inbox(&relay).len() >= numbers.len());
    let events: BTreeSet<_> = inbox(&relay).iter().map(|message| message["eventId"].to_string()).collect();
    assert_eq!((events.len(), inbox(&relay).len()), (numbers.len(), numbers.len()));
    eventually("emptying the outbox", SOON, || outbox(&hosts[0]).is_empty());
}

#[test]
fn only_who_knows_the_relays_token_may_flush_and_purge() {
    let none = Service::builder().without_limits().start();
    let service = with_relay_at(&unused_address()).start();
    for path in ["/internal/outbox/flush", "/internal/purge"] {
        none.client()
            .send("POST", path, &[("authorization", "Bearer ")], b"")
            .expect_problem(404, "not_found");
        let client = service.client();
        for wrong in ["", "Bearer", "Bearer ", "Bearer a-token-that-nobody-else-had", "Basic x"] {
            let answer = client.send("POST", path, &[("authorization", wrong)], b"");
            let problem = answer.expect_problem(401, "unauthorized");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
            assert!(!problem.to_string().contains(TOKEN));
        }
        client.get(path).expect_problem(405, "method_not_allowed");
        let right = format!("bearer {TOKEN}");
        client.send("POST", path, &[("authorization", &right)], b"").expect(200);
    }
}

#[test]
fn what_has_waited_too_long_is_dead_and_in_the_end_gone() {
    let service = with_relay_at(&unused_address()).variable("outbox_retention_seconds", "3600").start();
    let client = service.client();
    (0..3).for_each(|_| drop(client.generate(&number())));
    let authorization = format!("Bearer {TOKEN}");
    let purge =
        || client.send("POST", "/internal/purge", &[("authorization", &authorization)], b"").expect(200);
    assert_eq!(purge(), json!({ "expired": 0, "removed": 0, "answers": 0, "meters": 0, "counts": 0 }));
    let database = service.sql();
    database.execute(
        "UPDATE outbox SET created_at = created_at - 3601000
         WHERE sequence IN (SELECT sequence FROM outbox ORDER BY sequence LIMIT 2)",
        &[],
    );
    assert_eq!(purge(), json!({ "expired": 2, "removed": 0, "answers": 0, "meters": 0, "counts": 0 }));
    assert_eq!(outbox(&service).len(), 1);
    let reason = database.text("SELECT reason FROM outbox_dead LIMIT 1", &[]);
    assert!(reason.contains("outbox_retention_seconds"), "{reason}");
    database.execute("UPDATE outbox_dead SET died_at = died_at - 3601000", &[]);
    assert_eq!(purge(), json!({ "expired": 0, "removed": 2, "answers": 0, "meters": 0, "counts": 0 }));
}

#[test]
fn a_relay_that_refuses_the_token_is_named_and_events_wait() {
    let address = unused_address();
    let relay = Relay::builder().listen(&address).env("RELAY_TOKEN", "another-token-altogether").start();
    let service = with_relay_at(&address).start();
    service.client().generate(&number());
    eventually("saying it", SOON, || service.log().contains("relay_token"));
    assert!(!service.log().contains(TOKEN) && !relay.log().contains(TOKEN));
    assert_eq!(outbox(&service).len(), 1);
}

#[test]
fn while_the_relay_does_not_know_the_event_key_both_say_so_and_events_wait() {
    const OURS: &str = "ours:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const OTHER: &str = "other:Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";
    let address = unused_address();
    let relay = |keys: &str| {
        Relay::builder().listen(&address).env("RELAY_TOKEN", TOKEN).env("RELAY_EVENT_KEYS", keys).start()
    };
    let service = with_relay_at(&address).variable("event_keys", OURS).start();
    let client = service.client();
    let wrong = relay(OTHER);
    let made = client.generate(&number());
    eventually("what the component says", SOON, || {
        service.log().contains("event_keys and its RELAY_EVENT_KEYS must have that key in common")
    });
    eventually("what the relay says", SOON, || wrong.log().contains("RELAY_EVENT_KEYS"));
    assert_eq!(outbox(&service).len(), 1, "it waits");
    assert!(inbox(&wrong).is_empty());
    drop(wrong);
    // One key in common is enough.
    let right = relay(&format!("{OTHER},{OURS}"));
    eventually("the delivery", SOON, || {
        flush(&client);
        inbox(&right).iter().any(|message| message["otp"] == made["otp"])
    });
    assert!(outbox(&service).is_empty());
    assert_eq!(service.sql().number("SELECT count(*) FROM outbox_dead", &[]), 0);
}

#[test]
fn an_event_that_somebody_has_changed_in_the_outbox_goes_to_the_dead_and_nowhere_else() {
    let address = unused_address();
    let service = with_relay_at(&address).start();
    let client = service.client();
    let numbers = [number(), number()];
    let made = numbers.each_ref().map(|number| client.generate(number));
    // To be sent to a number of the one who has changed it.
    let changed = Sql::either(
        "UPDATE outbox SET event = replace(event, ?1, ?2)",
        "UPDATE outbox SET event = replace(event::text, ?1, ?2)::json",
    );
    service.sql().execute(changed, &[&numbers[0], &"+14155550199"]);
    let relay = relay_at(&address);
    eventually("the delivery of the other", SOON, || {
        flush(&client);
        inbox(&relay).iter().any(|message| message["otp"] == made[1]["otp"])
    });
    eventually("the end of the changed one", SOON, || {
        service.sql().number("SELECT count(*) FROM outbox_dead WHERE reason LIKE '%signature%'", &[]) == 1
    });
    assert_eq!(inbox(&relay).len(), 1, "{:?}", inbox(&relay));
}
