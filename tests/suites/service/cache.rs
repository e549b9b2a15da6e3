//! The cache: what is in it, how it is asked, and that it never has the last word.
//!
//! These have a Redis of their own, also where the suites run without one.

use harness::{Builder, Client, IN_TIME, Redis, Service, Sql, at_once, number};
use redis::Commands;
use serde_json::Value;
use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

fn cached_by(redis: &Redis) -> Builder {
    Service::builder()
        .without_limits()
        .variable("redis_endpoint", &redis.endpoint())
        .variable("otp_length", "10")
}

/// Waits for what happens after the answer.
#[track_caller]
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The one key that there is.
fn only_key(redis: &Redis) -> String {
    let keys = redis.keys();
    assert_eq!(keys.len(), 1, "{keys:?}");
    keys.into_iter().next().unwrap()
}

fn text(answer: &Value, field: &str) -> String {
    answer[field].as_str().unwrap().to_owned()
}

#[test]
fn an_account_is_cached_sealed_under_a_keyed_name_for_the_rest_of_its_codes_life() {
    let redis = Redis::start();
    let service = cached_by(&redis).variable("otp_ttl_seconds", "20").start();
    let (client, number) = (service.client(), number());
    let made = client.generate(&number);
    eventually("caching", || !redis.keys().is_empty());
    let key = only_key(&redis);
    assert!(key.starts_with("spin-otp:account:") && !key.contains(&number[2..]), "{key}");
    let mut connection = redis.connect();
    let life: i64 = connection.ttl(&key).unwrap();
    assert!((1..=20).contains(&life), "{life}");
    let value: HashMap<String, Vec<u8>> = connection.hgetall(&key).unwrap();
    let otp = text(&made, "otp");
    for (field, bytes) in &value {
        for secret in [otp.as_bytes(), &number.as_bytes()[1..]] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{field}");
        }
    }

    // A used code is not in it any more, and the next call finds that out in the cache.
    let before = revision(&redis, &key);
    client.verify(&number, &otp).expect(200);
    eventually("caching the used one", || revision(&redis, &key) > before);
    client.resend(&number).expect_problem(410, "otp_used");
    assert!(connection.ttl::<_, i64>(&key).unwrap() <= 20);
}

/// The revision of what is cached.
fn revision(redis: &Redis, key: &str) -> i64 {
    redis.connect().hget(key, "revision").unwrap()
}

#[test]
fn each_state_of_an_account_takes_the_place_of_the_one_before() {
    let redis = Redis::start();
    let service = cached_by(&redis).variable("max_verify_attempts", "1").start();
    let (client, number) = (service.client(), number());
    client.generate(&number);
    eventually("caching", || !redis.keys().is_empty());
    let key = only_key(&redis);
    let mut last = revision(&redis, &key);
    let mut grows = |what: &str| {
        eventually(what, || revision(&redis, &key) > last);
        last = revision(&redis, &key);
    };
    client.regenerate(&number).expect(201);
    grows("caching the new code");
    client.verify(&number, "0000000000").expect_problem(422, "otp_mismatch");
    grows("caching the lock");
    client.resend(&number).expect_problem(410, "otp_locked");
    client.generate(&number);
    grows("caching the code after it");
}

#[test]
fn a_code_that_is_not_cached_is_cached_by_its_resend() {
    let redis = Redis::start();
    let service = cached_by(&redis).start();
    let (client, number) = (service.client(), number());
    let made = client.generate(&number);
    eventually("caching", || !redis.keys().is_empty());
    let () = redis::cmd("FLUSHALL").query(&mut redis.connect()).unwrap();
    assert_eq!(client.resend(&number).expect(200)["otp"], made["otp"]);
    eventually("caching again", || !redis.keys().is_empty());
    assert_eq!(client.resend(&number).expect(200)["otp"], made["otp"]);
}

#[test]
fn resend_really_reads_the_cache() {
    // The database's own copy is spoilt: only the cache can still give the code.
    let redis = Redis::start();
    let service = cached_by(&redis).start();
    let (client, number) = (service.client(), number());
    let made = client.generate(&number);
    eventually("caching", || !redis.keys().is_empty());
    let unreadable = Sql::either(
        "UPDATE accounts SET sealed = x'00' WHERE application <> ''",
        r"UPDATE accounts SET sealed = '\x00' WHERE application <> ''",
    );
    assert_eq!(service.sql().execute(unreadable, &[]), 1);
    assert_eq!(client.resend(&number).expect(200)["otp"], made["otp"]);
}

#[test]
fn what_the_cache_has_wrong_is_not_believed() {
    let redis = Redis::start();
    let service = cached_by(&redis).start();
    let (client, number) = (service.client(), number());
    let old = client.generate(&number);
    eventually("caching", || !redis.keys().is_empty());
    let key = only_key(&redis);
    let mut connection = redis.connect();
    let stale: HashMap<String, Vec<u8>> = connection.hgetall(&key).unwrap();
    let new = client.regenerate(&number).expect(201);
    let current = |connection: &mut redis::Connection| -> HashMap<String, Vec<u8>> {
        connection.hgetall(&key).unwrap()
    };
    eventually("caching the new one", || current(&mut redis.connect())["revision"] != stale["revision"]);
    let fresh = current(&mut connection);

    let put = |revision: &[u8], account: &[u8]| {
        let mut connection = redis.connect();
        let () = connection.del(&key).unwrap();
        let () = connection.hset(&key, "revision", revision).unwrap();
        let () = connection.hset(&key, "account", account).unwrap();
    };
    // A replaced code: an old snapshot was restored.
    put(&stale["revision"], &stale["account"]);
    assert_eq!(client.resend(&number).expect(200)["otp"], new["otp"]);
    // A replaced code under the live one's version, and garbage under it.
    put(&fresh["revision"], &stale["account"]);
    assert_eq!(client.resend(&number).expect(200)["otp"], new["otp"]);
    put(&fresh["revision"], b"garbage");
    assert_eq!(client.resend(&number).expect(200)["otp"], new["otp"]);
    // Nonsense, and something else altogether.
    put(b"not a revision", b"");
    assert_eq!(client.resend(&number).expect(200)["otp"], new["otp"]);
    let () = connection.set(&key, "a string").unwrap();
    assert_eq!(client.resend(&number).expect(200)["otp"], new["otp"]);
    client.verify(&number, &text(&old, "otp")).expect_problem(422, "otp_mismatch");

    // Used: a cached copy does not bring it back.
    client.verify(&number, &text(&new, "otp")).expect(200);
    put(&fresh["revision"], &fresh["account"]);
    client.resend(&number).expect_problem(410, "otp_used");
}

/// The commands that Redis hears while `work` runs and for a moment after, without those that a script
/// runs and those that open a connection.
fn commands_of(redis: &Redis, work: impl FnOnce()) -> Vec<String> {
    const END: &str = "end-of-recording";
    let stream = TcpStream::connect(redis.address()).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
    let mut stream = stream;
    stream.write_all(b"MONITOR\r\n").unwrap();
    assert_eq!(lines.next().unwrap(), "+OK");
    work();
    thread::sleep(Duration::from_millis(500));
    let () = redis::cmd("ECHO").arg(END).query(&mut redis.connect()).unwrap_or_default();
    lines
        .take_while(|line| !line.contains(END))
        .filter_map(|line| {
            let (head, command) = line.split_once("] ")?;
            let name = command.split('"').nth(1)?.to_uppercase();
            let counts =
                !head.contains("lua") && !matches!(&name[..], "CLIENT" | "HELLO" | "AUTH" | "SELECT");
            counts.then_some(name)
        })
        .collect()
}

/// Waits until what follows the answers is done: until nothing is heard for a while.
fn settled(redis: &Redis) {
    let mut connection = redis.connect();
    let mut processed = || -> u64 {
        let info: String = redis::cmd("INFO").arg("stats").query(&mut connection).unwrap();
        let total = info.lines().find_map(|line| line.strip_prefix("total_commands_processed:")).unwrap();
        total.parse().unwrap()
    };
    let mut before = processed();
    eventually("an end of the commands", || {
        thread::sleep(Duration::from_millis(200));
        // This question is one itself.
        std::mem::replace(&mut before, processed()) + 1 == before
    });
}

#[test]
fn each_call_costs_one_command_in_the_request_and_one_after_it() {
    let redis = Redis::start();
    let service = cached_by(&redis).start();
    let (client, number) = (service.client(), number());
    let warm = |client: &Client| {
        // Scripts are known, and the connection is open.
        let other = harness::number();
        let made = client.generate(&other);
        client.resend(&other).expect(200);
        client.verify(&other, &text(&made, "otp")).expect(200);
        settled(&redis);
    };
    warm(&client);
    let looked_and_put = ["HMGET", "EVALSHA"];
    assert_eq!(commands_of(&redis, || drop(client.generate(&number))), looked_and_put);
    warm(&client);
    assert_eq!(commands_of(&redis, || drop(client.resend(&number).expect(200))), looked_and_put);
    let () = redis::cmd("FLUSHDB").query(&mut redis.connect()).unwrap();
    warm(&client);
    assert_eq!(commands_of(&redis, || drop(client.resend(&number).expect(200))), looked_and_put, "a miss");
    warm(&client);
    assert_eq!(commands_of(&redis, || drop(client.regenerate(&number).expect(201))), looked_and_put);
    warm(&client);
    let otp = text(&client.resend(&number).expect(200), "otp");
    settled(&redis);
    let wrong = commands_of(&redis, || drop(client.verify(&number, "0000000000").expect(422)));
    assert_eq!(wrong, looked_and_put);
    warm(&client);
    assert_eq!(commands_of(&redis, || drop(client.verify(&number, &otp).expect(200))), looked_and_put);
    // The first refusal of a used code is on record, the next one changes nothing.
    client.verify(&number, &otp).expect(410);
    warm(&client);
    assert_eq!(commands_of(&redis, || drop(client.verify(&number, &otp).expect(410))), ["HMGET"]);
    assert_eq!(commands_of(&redis, || drop(client.resend(&number).expect(410))), ["HMGET"]);
}

#[test]
fn with_meters_a_call_asks_the_cache_once_before_its_answer() {
    let redis = Redis::start();
    let service = Service::builder().variable("redis_endpoint", &redis.endpoint());
    let service = service
        .variable("rate_limit_requests", "100")
        .variable("client_rate_limit", "1000/60")
        .variable("global_rate_limit", "1000/60")
        .start();
    let (client, number) = (service.client(), number());
    client.generate(&number);
    client.resend(&number).expect(200);
    settled(&redis);
    let twice = ["EVALSHA", "EVALSHA"];
    assert_eq!(commands_of(&redis, || drop(client.generate(&number))), twice, "before, and after");
    assert_eq!(commands_of(&redis, || drop(client.regenerate(&number).expect(201))), twice);
    assert_eq!(commands_of(&redis, || drop(client.resend(&number).expect(200))), twice);
    assert_eq!(commands_of(&redis, || drop(client.verify(&number, "000000"))), twice);
}

#[test]
fn a_redis_that_has_forgotten_the_scripts_hears_them_again() {
    let redis = Redis::start();
    let service = cached_by(&redis).start();
    let client = service.client();
    for _ in 0..2 {
        let () = redis::cmd("SCRIPT").arg("FLUSH").query(&mut redis.connect()).unwrap();
        let () = redis::cmd("FLUSHALL").query(&mut redis.connect()).unwrap();
        client.generate(&number());
        eventually("caching", || !redis.keys().is_empty());
    }
}

/// The script itself, in whatever order writers come.
#[test]
fn an_older_writer_does_not_replace_a_newer_state() {
    let redis = Redis::start();
    let mut connection = redis.connect();
    let file = harness::repository().join("components/otp/src/cache/redis/put.lua");
    let put = redis::Script::new(&std::fs::read_to_string(file).unwrap());
    let mut put = |revision: i64, account: &str, life: i64| -> i64 {
        put.key("k").arg(revision).arg(account).arg(life).invoke(&mut connection).unwrap()
    };
    // Revisions of today: they must not lose digits on their way through Lua.
    const OLD: i64 = 1_795_333_302_000;
    assert_eq!(put(OLD, "old", 60_000), 1);
    assert_eq!(put(OLD + 1, "new", 30_000), 1);
    assert_eq!(put(OLD, "old", 60_000), 0, "a late writer of the old state");
    assert_eq!(put(OLD + 1, "again", 60_000), 0, "the same state");
    let mut connection = redis.connect();
    let account: String = connection.hget("k", "account").unwrap();
    assert_eq!(account, "new");
    let life: i64 = connection.pttl("k").unwrap();
    assert!((1..=30_000).contains(&life), "{life}");
    // Erased a moment ago.
    assert_eq!(put(OLD + 5, "", 5_000), 1);
    assert_eq!(put(OLD + 4, "from before", 60_000), 0);
    assert_eq!(put(OLD + 6, "after it", 60_000), 1);
    // What somebody else has put there.
    let () = redis.connect().set("k", "a string").unwrap();
    assert_eq!(put(OLD, "old", 60_000), 1);
}

#[test]
fn caching_goes_on_after_redis_was_restarted_and_only_for_the_time_that_is_left() {
    let mut redis = Redis::start();
    let service = cached_by(&redis).variable("otp_ttl_seconds", "20").start();
    let (client, number) = (service.client(), number());
    client.generate(&number);
    eventually("caching", || !redis.keys().is_empty());
    thread::sleep(Duration::from_millis(1_500));
    redis.restart_empty();
    eventually("caching again", || {
        client.resend(&number).expect(200);
        !redis.keys().is_empty()
    });
    let life: i64 = redis.connect().pttl(only_key(&redis)).unwrap();
    assert!((1..=18_500).contains(&life), "{life}");
}

#[test]
fn a_full_redis_keeps_its_connection_and_is_reported_once() {
    let redis = Redis::start();
    let service = cached_by(&redis).start();
    let client = service.client();
    let cached = number();
    let made = client.generate(&cached);
    eventually("caching", || !redis.keys().is_empty());
    let set = |value: &str| {
        let () = redis::cmd("CONFIG").arg(&["SET", "maxmemory", value]).query(&mut redis.connect()).unwrap();
    };
    set("1");
    let heard = commands_of(&redis, || {
        for _ in 0..10 {
            client.generate(&number());
        }
        assert_eq!(client.resend(&cached).expect(200)["otp"], made["otp"]);
    });
    // Each new state was offered, none was taken, and the cache is still read.
    let count = |name: &str| heard.iter().filter(|command| *command == name).count();
    assert_eq!((count("HMGET"), count("EVALSHA")), (11, 11), "{heard:?}");
    assert!(!heard.contains(&"HELLO".to_owned()));
    assert!(service.log().matches("cache unavailable").count() <= 2, "{}", service.log());
    set("0");
}

#[test]
fn an_instance_opens_one_connection() {
    let redis = Redis::start();
    let service = cached_by(&redis).start();
    let client = service.client();
    let numbers: Vec<_> = (0..16).map(|_| number()).collect();
    at_once(16, |index| {
        client.generate(&numbers[index]);
        for _ in 0..20 {
            client.resend(&numbers[index]).expect(200);
        }
    });
    let info: String = redis::cmd("INFO").arg("stats").query(&mut redis.connect()).unwrap();
    let total = info.lines().find_map(|line| line.strip_prefix("total_connections_received:")).unwrap();
    // 336 requests: the instances that served them, and the few connections of this test itself.
    assert!(total.parse::<u32>().unwrap() < 80, "{total} connections");
}

#[test]
fn a_redis_with_a_password_and_another_database_is_used() {
    let redis = Redis::with_password("p@ss:w/ord %");
    let with = |password: &str| {
        cached_by(&redis).variable("redis_password", password).variable("redis_database", "3")
    };
    // A secret from a file often ends in a line feed.
    let right = with("p@ss:w/ord %\n").start();
    assert_eq!(right.client().get("/readyz").expect(200)["status"], "ready");
    right.client().generate(&number());
    let keys = || -> usize {
        let mut connection = redis.connect();
        let () = redis::cmd("SELECT").arg(3).query(&mut connection).unwrap();
        redis::cmd("DBSIZE").query(&mut connection).unwrap()
    };
    eventually("caching", || keys() == 1);

    let wrong = with("wrong-word").start();
    let ready = wrong.client().get("/readyz").expect(200);
    assert_eq!(ready["status"], "degraded");
    assert_eq!(ready["dependencies"]["cache"]["status"], "down");
    assert_eq!(ready["dependencies"]["database"]["status"], "up");
    let number = number();
    let made = wrong.client().generate(&number);
    assert_eq!(wrong.client().resend(&number).expect(200)["otp"], made["otp"]);
    assert!(wrong.log().contains("cache unavailable"), "{}", wrong.log());
    assert!(!wrong.log().contains("wrong-word"), "{}", wrong.log());
}

#[test]
fn while_redis_hangs_every_call_answers_in_time_and_the_next_ones_do_not_wait() {
    let redis = Redis::start();
    let service = cached_by(&redis).start();
    let client = service.client();
    let number = number();
    let otp = text(&client.generate(&number), "otp");
    client.resend(&number).expect(200);
    redis.signal("STOP");
    let mut times = Vec::new();
    for _ in 0..30 {
        let start = Instant::now();
        assert_eq!(client.resend(&number).expect(200)["otp"], otp.as_str());
        times.push(start.elapsed());
    }
    assert!(times.iter().all(|time| *time < IN_TIME), "{times:?}");
    // One instance serves them all: a request or two find out, the others are spared.
    let waited = times.iter().filter(|time| **time > Duration::from_millis(200)).count();
    assert!(waited <= 6, "{times:?}");
    eventually("noticing", || client.get("/readyz").expect(200)["status"] == "degraded");
    let start = Instant::now();
    client.regenerate(&number).expect(201);
    assert!(start.elapsed() < IN_TIME);
    redis.signal("CONT");
    eventually("recovering", || client.get("/readyz").expect(200)["status"] == "ready");
}
