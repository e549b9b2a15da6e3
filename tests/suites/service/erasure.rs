//! `DELETE /users/{mobileNumber}`: nothing is left of a user.

use crate::{api_key, bearer, other_than, outbox};
use harness::{
    Client, IN_TIME, Redis, Relay, Response, Service, at_once, eventually, number, unused_address,
};
use otp_seal::IndexKey;
use redis::Commands;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);
const TOKEN: &str = "a-token-that-nobody-else-has";

fn erase(client: &Client, path: &str) -> Response {
    client.send("DELETE", &format!("/users/{path}"), &[], b"")
}

#[track_caller]
fn is_erased(answer: &Response) {
    assert_eq!(answer.status, 204, "{}", String::from_utf8_lossy(&answer.body));
    assert!(answer.body.is_empty());
}

/// The keyed index of a number, which stands for it.
fn index(number: &str) -> String {
    IndexKey::development().recipient("default", number).to_string()
}

/// The rows of all tables that hold one of these words, but for the event that tells of the erasure.
fn rows_with(service: &Service, words: &[&str]) -> Vec<String> {
    let database = service.sql();
    let tables = database.tables();
    assert!(tables.len() >= 6, "{tables:?}");
    let mut found = Vec::new();
    for table in tables {
        for row in database.rows(format!("SELECT * FROM \"{table}\""), &[]) {
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned) + "|";
            let text: String = row.iter().map(text).collect();
            // What is no text is there in hexadecimal digits.
            let hit = words.iter().any(|word| text.contains(word) || text.contains(&hex::encode(word)));
            if hit && !(table == "outbox" && text.contains("user.erased.v1")) {
                found.push(format!("{table}: {text}"));
            }
        }
    }
    found.sort();
    found
}

/// The event that tells of the erasure of a number.
fn erased_event(service: &Service, number: &str) -> Value {
    let events = outbox(service);
    let erased = |event: &&Value| event["type"] == "user.erased.v1" && event["subject"] == index(number);
    events.iter().rfind(erased).unwrap_or_else(|| panic!("no such event: {events:?}")).clone()
}

#[test]
fn nothing_of_the_number_is_left_and_others_are_as_they_were() {
    let service = Service::builder().without_limits().start();
    let client = service.client();
    let (gone, stays) = (number(), number());
    let mut codes = Vec::new();
    for (number, email) in [(&gone, "gone@example.com"), (&stays, "stays@example.com")] {
        let key = [("idempotency-key", number.as_str())];
        let body = json!({ "mobileNumber": number, "channel": "email", "email": email });
        let made = client.post_with("/generate-otp", &key, &body).expect(201);
        client.resend(number).expect(200);
        client.verify(number, &other_than(made["otp"].as_str().unwrap())).expect(422);
        // A verified address, and one that waits.
        client.verify(number, made["otp"].as_str().unwrap()).expect(200);
        let body = json!({ "mobileNumber": number, "channel": "email", "email": format!("new-{email}") });
        client.post("/generate-otp", &body).expect(201);
        let again = client.post_with("/regenerate-otp", &key, &json!({ "mobileNumber": number })).expect(201);
        codes.push(again["otp"].as_str().unwrap().to_owned());
    }
    // Some are dead already.
    let first = "(SELECT min(sequence) FROM outbox GROUP BY event ->> '$.subject')";
    let dead = format!(
        "INSERT INTO outbox_dead (sequence, event, created_at, died_at, reason, subject)
         SELECT sequence, event, created_at, created_at, 'refused', subject FROM outbox WHERE sequence IN {first}"
    );
    assert_eq!(service.sql().execute(&dead, &[]), 2);
    let index = index(&gone);
    let words = [&gone[1..], &index, "gone@example.com"];
    let of_the_other = [&stays[1..], "stays@example.com"];
    let before = rows_with(&service, &of_the_other);
    assert!(rows_with(&service, &words).iter().any(|row| row.starts_with("outbox_dead")));
    assert!(rows_with(&service, &words).iter().any(|row| row.starts_with("accounts")));

    is_erased(&erase(&client, &gone));
    assert_eq!(rows_with(&service, &words), [""; 0]);
    assert_eq!(rows_with(&service, &of_the_other), before);
    assert_eq!(service.sql().number("SELECT count(*) FROM idempotency", &[]), 2);
    client.resend(&gone).expect_problem(404, "otp_not_found");
    client.regenerate(&gone).expect_problem(404, "otp_not_found");
    client.verify(&gone, &codes[0]).expect_problem(404, "otp_not_found");
    client.verify(&stays, &codes[1]).expect(200);
}

#[test]
fn the_event_tells_of_it_without_the_number() {
    let service = Service::builder().without_limits().start();
    let (client, number) = (service.client(), number());
    client.generate(&number);
    client.regenerate(&number).expect(201);
    client.resend(&number).expect(200);
    let last = outbox(&service).last().unwrap().clone();
    let headers = [("x-request-id", "request 7")];
    is_erased(&client.send("DELETE", &format!("/users/{number}"), &headers, b""));
    let events = outbox(&service);
    assert_eq!(events.len(), 1, "{events:?}");
    let event = &events[0];
    assert_eq!((&event["type"], &event["specversion"]), (&json!("user.erased.v1"), &json!("1.0")));
    assert_eq!(event["subject"], index(&number));
    assert_eq!(event["requestid"], "request 7");
    let version = event["data"]["version"].as_i64().unwrap();
    assert!(version >= last["data"]["version"].as_i64().unwrap(), "{event}");
    assert_eq!(event["data"].as_object().unwrap().len(), 1, "{event}");
    assert!(!event.to_string().contains(&number[1..]));
    // Later in order than all that it forgets.
    assert!(event["sequence"].as_str() > last["sequence"].as_str(), "{event}");
    assert!(!service.log().contains(&number[1..]));
}

/// By the second erasure the number is unknown, and which codes it had is known to the first event alone.
#[test]
fn who_erases_twice_does_not_take_back_what_the_first_erasure_told() {
    let service = Service::builder().without_limits().start();
    let (client, gone) = (service.client(), number());
    client.generate(&gone);
    is_erased(&erase(&client, &gone));
    let first = erased_event(&service, &gone);
    is_erased(&erase(&client, &gone));
    let events = outbox(&service);
    let about: Vec<_> = events.iter().filter(|event| event["subject"] == index(&gone)).collect();
    assert!(about.contains(&&first), "{about:?}");
    assert!(about.iter().all(|event| event["type"] == "user.erased.v1"), "{about:?}");
}

#[test]
fn a_number_that_nobody_knows_is_erased_as_well() {
    let service = Service::builder().without_limits().start();
    let (client, number) = (service.client(), number());
    is_erased(&erase(&client, &number));
    is_erased(&erase(&client, &number));
    // Somebody else may know it: whoever delivers.
    assert!(erased_event(&service, &number)["data"]["version"].is_i64());
    client.resend(&number).expect_problem(404, "otp_not_found");
}

#[test]
fn the_number_may_be_written_in_every_form_that_a_path_takes() {
    let service = Service::builder().without_limits().variable("default_region", "US").start();
    let client = service.client();
    let number = number();
    let (area, rest) = number[2..].split_at(3);
    let (exchange, line) = rest.split_at(3);
    let all_encoded: String = number.bytes().map(|byte| format!("%{byte:02x}")).collect();
    for written in [
        number.clone(),
        format!("%2B{}", &number[1..]),
        format!("%2b1%20{area}%20{exchange}%20{line}"),
        format!("+1-{area}-{exchange}-{line}"),
        format!("+1.{area}.{exchange}.{line}"),
        format!("%2B1%20({area})%20{exchange}-{line}"),
        format!("%2B1%20%28{area}%29%20{exchange}-{line}"),
        all_encoded,
        // Here, a national one.
        number[2..].to_owned(),
    ] {
        client.generate(&number);
        is_erased(&erase(&client, &written));
        assert_eq!(client.resend(&number).status, 404, "{written}");
    }
}

#[test]
fn what_is_no_mobile_number_is_refused() {
    let service = Service::builder().without_limits().start();
    let (client, number) = (service.client(), number());
    client.generate(&number);
    for bad in ["x", "+1", "%2B1", "0", "4155550123", "%FF%FE", "%00", "+1415555012%", "%", "+441212345678"] {
        erase(&client, bad).expect_problem(422, "invalid_mobile_number");
    }
    for path in [&format!("/users/{number}/"), &format!("/users/{number}/codes")] {
        client.send("DELETE", path, &[], b"").expect_problem(404, "not_found");
    }
    client.send("DELETE", "/users/", &[], b"").expect_problem(404, "not_found");
    client.send("DELETE", "/users", &[], b"").expect_problem(404, "not_found");
    client.resend(&number).expect(200);
    assert!(outbox(&service).iter().all(|event| event["type"] != "user.erased.v1"));
}

#[test]
fn only_a_key_with_the_scope_admin_may_erase() {
    // Keys of one name belong to one application.
    let keys = [api_key("shop", "send+verify", "shop's"), api_key("shop", "admin", "office's")];
    let service = Service::builder().without_limits().variable("api_keys", &keys.join(",")).start();
    let (client, number) = (service.client(), number());
    let path = format!("/users/{number}");
    let delete = |headers: &[(&str, &str)]| client.send("DELETE", &path, headers, b"");
    let shop = bearer("shop's");
    let shop = [("authorization", shop.as_str())];
    client.post_with("/generate-otp", &shop, &json!({ "mobileNumber": number })).expect(201);
    delete(&[]).expect_problem(401, "unauthorized");
    delete(&shop).expect_problem(403, "forbidden");
    client.post_with("/resend-otp", &shop, &json!({ "mobileNumber": number })).expect(200);
    is_erased(&delete(&[("authorization", &bearer("office's"))]));
    client
        .post_with("/resend-otp", &shop, &json!({ "mobileNumber": number }))
        .expect_problem(404, "otp_not_found");
}

#[test]
fn the_same_number_begins_anew_with_a_newer_version() {
    let service = Service::builder().without_limits().variable("otp_length", "10").start();
    let (client, number) = (service.client(), number());
    let mut last = 0;
    for round in 0..3 {
        let made = client.generate(&number);
        let old = client.regenerate(&number).expect(201)["otp"].as_str().unwrap().to_owned();
        if round == 1 {
            // As a clock that stood ahead has left it: what comes after it must not go by the clock alone.
            let ahead = "UPDATE accounts SET revision = revision + 60000 WHERE recipient = ?1";
            assert_eq!(service.sql().execute(ahead, &[&number]), 1);
        }
        is_erased(&erase(&client, &number));
        let erased = erased_event(&service, &number);
        let version = erased["data"]["version"].as_i64().unwrap();
        assert!(version > last);
        client.verify(&number, &old).expect_problem(404, "otp_not_found");

        let again = client.generate(&number);
        assert_ne!(again["otpId"], made["otpId"]);
        let event = outbox(&service).last().unwrap().clone();
        last = event["data"]["version"].as_i64().unwrap();
        assert!(last > version, "{event} after {erased}");
        assert!(event["sequence"].as_str() > erased["sequence"].as_str(), "{event} after {erased}");
        client.verify(&number, &old).expect_problem(422, "otp_mismatch");
        client.verify(&number, again["otp"].as_str().unwrap()).expect(200);
    }
}

#[test]
fn limits_locks_and_kept_answers_are_forgotten_too() {
    let service = Service::builder()
        .variable("rate_limit_requests", "1")
        .variable("max_consecutive_failures", "1")
        .start();
    let (client, number) = (service.client(), number());
    let key = [("idempotency-key", "k")];
    let body = json!({ "mobileNumber": number });
    let made = client.post_with("/generate-otp", &key, &body).expect(201);
    client.regenerate(&number).expect_problem(429, "rate_limited");
    let otp = made["otp"].as_str().unwrap();
    client.verify(&number, &other_than(otp)).expect(422);
    client.verify(&number, otp).expect_problem(429, "number_locked");
    is_erased(&erase(&client, &number));
    let again = client.post_with("/generate-otp", &key, &body);
    again.expect(201);
    assert_eq!(again.header("idempotent-replayed"), "");
}

/// Sends each number one code in a window, with that Redis.
fn at_its_limit_after_one(redis: &Redis) -> Service {
    Service::builder()
        .variable("redis_endpoint", &redis.endpoint())
        .variable("rate_limit_requests", "1")
        .start()
}

#[test]
fn redis_forgets_the_number_too() {
    let redis = Redis::start();
    let service = at_its_limit_after_one(&redis);
    let client = service.client();
    let (gone, stays) = (number(), number());
    let keys_of = |number: &str| {
        let index = index(number);
        redis.keys().into_iter().filter(|key| key.contains(&index)).count()
    };
    for number in [&gone, &stays] {
        client.generate(number);
        client.resend(number).expect_problem(429, "rate_limited");
    }
    eventually("caching", SOON, || (keys_of(&gone), keys_of(&stays)) == (1, 1));
    is_erased(&erase(&client, &gone));
    assert_eq!(cached(&redis), 1, "nothing of it is left at once");
    eventually("forgetting that there was something", SOON, || keys_of(&gone) == 0);
    assert_eq!(keys_of(&stays), 1);
}

/// How many accounts that Redis holds; of an erased one it holds for a moment that there is none.
fn cached(redis: &Redis) -> usize {
    let accounts = redis.keys().into_iter().filter(|key| key.starts_with("spin-otp:account:"));
    let holds = |key: &String| {
        redis.connect().hget::<_, _, Vec<u8>>(key, "account").is_ok_and(|account| !account.is_empty())
    };
    accounts.filter(holds).count()
}

/// Requests that saw it at its limit put that into Redis after their answers, and so perhaps after the erasure.
#[test]
fn an_erased_number_is_not_refused_for_what_others_put_there_meanwhile() {
    let redis = Redis::start();
    let service = at_its_limit_after_one(&redis);
    let client = service.client();
    for _ in 0..40 {
        let number = number();
        client.generate(&number);
        at_once(6, |index| match index {
            0 => is_erased(&erase(&service.client(), &number)),
            _ => drop(service.client().regenerate(&number)),
        });
        std::thread::sleep(Duration::from_millis(20));
        client.generate(&number);
    }
}

/// A code goes there after its answer, and so perhaps after the erasure.
#[test]
fn no_code_of_before_comes_to_redis_after_the_erasure() {
    let redis = Redis::start();
    let service = Service::builder().without_limits().variable("redis_endpoint", &redis.endpoint()).start();
    let mut after = 0;
    for _ in 0..60 {
        let number = number();
        at_once(2, |index| match index {
            0 => drop(service.client().try_generate(&number)),
            _ => is_erased(&erase(&service.client(), &number)),
        });
        std::thread::sleep(Duration::from_millis(30));
        let known = service.sql().number("SELECT count(*) FROM accounts WHERE recipient = ?1", &[&number]);
        if known == 0 {
            after += 1;
            assert_eq!(cached(&redis), 0, "a code that nobody has");
        }
        is_erased(&erase(&service.client(), &number));
    }
    assert!(after > 0, "no erasure came last");
}

#[test]
fn while_redis_is_away_it_is_erased_all_the_same_and_no_cached_code_comes_back() {
    let mut redis = Redis::start();
    let service = Service::builder().without_limits().variable("redis_endpoint", &redis.endpoint()).start();
    let (client, number) = (service.client(), number());
    client.generate(&number);
    eventually("caching", SOON, || cached(&redis) == 1);
    redis.save();
    redis.kill();
    is_erased(&erase(&client, &number));
    redis.restart();
    for _ in 0..5 {
        client.resend(&number).expect_problem(404, "otp_not_found");
    }
    let again = client.generate(&number);
    assert_eq!(client.resend(&number).expect(200)["otp"], again["otp"]);
}

#[test]
fn while_the_database_is_away_it_is_not_said_to_be_erased() {
    let service = Service::builder().without_limits().start();
    let (client, number) = (service.client(), number());
    client.generate(&number);
    let hold = service.hold_writes();
    let start = Instant::now();
    let answer = erase(&client, &number);
    assert!(start.elapsed() < IN_TIME, "{:?}", start.elapsed());
    answer.expect_problem(503, "unavailable");
    assert_eq!(answer.header("retry-after"), "1");
    hold.release();
    is_erased(&erase(&client, &number));
    assert_eq!(rows_with(&service, &[&number[1..]]), [""; 0]);
}

#[test]
fn whatever_goes_on_at_the_same_moment_nothing_is_left_in_the_end() {
    let service = Service::builder().without_limits().start();
    let client = service.client();
    for _ in 0..5 {
        let number = number();
        at_once(16, |index| {
            let key = format!("{number}-{index}");
            let body = json!({ "mobileNumber": number });
            let answer = match index % 4 {
                0 => erase(&client, &number),
                1 => client.verify(&number, "000000"),
                2 => client.post_with("/regenerate-otp", &[("idempotency-key", &key)], &body),
                _ => client.post_with("/generate-otp", &[("idempotency-key", &key)], &body),
            };
            assert!(answer.status < 500, "{}", answer.status);
        });
        is_erased(&erase(&client, &number));
        let index = index(&number);
        assert_eq!(rows_with(&service, &[&number[1..], &index]), [""; 0]);
        let kept = service.sql().number("SELECT count(*) FROM idempotency", &[]);
        assert_eq!(kept, 0, "answers of nobody");
    }
}

#[test]
fn the_inbox_forgets_the_number_and_what_was_on_its_way_is_not_delivered() {
    let address = unused_address();
    let service = Service::builder()
        .without_limits()
        .variable("relay_url", &format!("http://{address}"))
        .variable("relay_token", TOKEN)
        .start();
    let relay = Relay::builder().listen(&address).env("RELAY_TOKEN", TOKEN).start();
    let inbox = || relay.client().get("/inbox?limit=100").expect(200).as_array().unwrap().clone();
    let client = service.client();
    let (gone, stays) = (number(), number());
    client.generate(&gone);
    client.generate(&stays);
    eventually("delivering", SOON, || inbox().len() == 2);
    is_erased(&erase(&client, &gone));
    eventually("forgetting", SOON, || inbox().len() == 1);
    assert!(!json!(inbox()).to_string().contains(&gone[1..]));
    eventually("emptying the outbox", SOON, || outbox(&service).is_empty());
    // It begins anew.
    let again = client.generate(&gone);
    eventually("delivering again", SOON, || inbox().iter().any(|message| message["otp"] == again["otp"]));
}
