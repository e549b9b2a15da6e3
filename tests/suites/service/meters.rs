//! Limits of a client, of an API key, and of everybody together.

use crate::{files_below, holds, limits::wait_is_true};
use harness::{Builder, Client, Redis, Response, Service, at_once, eventually, number, temporary_folder};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::{
    thread,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(30);

fn open() -> Builder {
    Service::builder().without_limits()
}

/// Answers whoever a proxy on this machine speaks for.
fn behind_a_proxy(limit: &str) -> Builder {
    open()
        .variable("allow_remote_development", "true")
        .variable("trusted_proxies", "127.0.0.1")
        .variable("client_rate_limit", limit)
}

/// `name:send+verify:sha256` of each key.
fn with_keys(keys: &[(&str, &str)]) -> Builder {
    let entries: Vec<_> = keys
        .iter()
        .map(|(name, key)| format!("{name}:send+verify:{}", hex::encode(Sha256::digest(key))))
        .collect();
    open().variable("api_keys", &entries.join(","))
}

/// A code for a number of its own.
fn generate_with(client: &Client, headers: &[(&str, &str)]) -> Response {
    client.post_with("/generate-otp", headers, &json!({ "mobileNumber": number() }))
}

fn generate(client: &Client) -> Response {
    generate_with(client, &[])
}

fn generate_with_key(client: &Client, key: &str) -> Response {
    generate_with(client, &[("authorization", &format!("Bearer {key}"))])
}

fn generate_for(client: &Client, forwarded_for: &str) -> Response {
    generate_with(client, &[("x-forwarded-for", forwarded_for)])
}

/// Refused, and by this limit.
#[track_caller]
fn refused_by(name: &str, answer: &Response) {
    answer.expect_problem(429, "rate_limited");
    let [(limit, state)] = &answer.quotas("ratelimit")[..] else { panic!("{answer:?}") };
    assert_eq!((&**limit, state["r"]), (name, 0));
    assert_eq!(state["t"], answer.retry_after() as i64);
    let policies = answer.quotas("ratelimit-policy");
    assert!(policies.iter().any(|(limit, _)| limit == name), "{policies:?}");
}

#[track_caller]
fn accepted(answer: &Response) {
    assert_eq!(answer.status, 201, "{answer:?}");
}

#[test]
fn a_client_has_as_many_requests_as_its_limit_says_of_all_four_calls_together() {
    let service = open().variable("client_rate_limit", "5/3600").variable("otp_length", "10").start();
    let (client, number) = (service.client(), number());
    client.generate(&number);
    client.resend(&number).expect(200);
    let made = client.regenerate(&number).expect(201);
    client.verify(&number, "0000000000").expect(422);
    client.verify(&number, made["otp"].as_str().unwrap()).expect(200);
    for answer in [
        client.try_generate(&number),
        client.resend(&number),
        client.regenerate(&number),
        client.verify(&number, "0000000000"),
    ] {
        refused_by("client", &answer);
        assert!((700..=720).contains(&answer.retry_after()), "a fifth of an hour: {answer:?}");
    }
}

#[test]
fn everybody_together_is_sent_as_many_codes_as_the_limit_says_and_checks_are_free() {
    let service = open().variable("global_rate_limit", "3/3600").start();
    let (client, number) = (service.client(), number());
    client.generate(&number);
    client.resend(&number).expect(200);
    let made = client.regenerate(&number).expect(201);
    refused_by("global", &generate(&client));
    refused_by("global", &client.resend(&number));
    refused_by("global", &client.regenerate(&number));
    client.verify(&number, "000000").expect(422);
    client.verify(&number, made["otp"].as_str().unwrap()).expect(200);
}

#[test]
fn keys_of_one_name_share_a_limit_and_other_names_have_their_own() {
    let keys = [("shop", "key-one"), ("shop", "key-two"), ("till", "key-three")];
    let service = with_keys(&keys).variable("key_rate_limit", "3/3600").start();
    let client = service.client();
    accepted(&generate_with_key(&client, "key-one"));
    accepted(&generate_with_key(&client, "key-two"));
    // A check counts, too.
    let headers = [("authorization", "Bearer key-two")];
    let made = json!({ "mobileNumber": number(), "otp": "000000" });
    client.post_with("/verify-otp", &headers, &made).expect(404);
    refused_by("key", &generate_with_key(&client, "key-one"));
    refused_by("key", &generate_with_key(&client, "key-two"));
    refused_by("key", &client.post_with("/verify-otp", &headers, &made));
    accepted(&generate_with_key(&client, "key-three"));
    // Who has no key counts on none.
    generate_with_key(&client, "key-four").expect_problem(401, "unauthorized");
    accepted(&generate_with_key(&client, "key-three"));
    accepted(&generate_with_key(&client, "key-three"));
    refused_by("key", &generate_with_key(&client, "key-three"));
}

#[test]
fn all_limits_are_told_and_the_one_that_refuses_is_named() {
    let keys = [("shop", "key-one"), ("till", "key-two")];
    let service = with_keys(&keys)
        .variable("rate_limit_requests", "2")
        .variable("rate_limit_window_seconds", "900")
        .variable("client_rate_limit", "6/3600")
        .variable("key_rate_limit", "4/3000")
        .variable("global_rate_limit", "100/60")
        .start();
    let client = service.client();
    let number = number();
    let to_one = |key: &str| {
        let headers = [("authorization", &*format!("Bearer {key}"))];
        client.post_with("/generate-otp", &headers, &json!({ "mobileNumber": number }))
    };
    let answer = to_one("key-one");
    accepted(&answer);
    let told: Vec<_> = answer
        .quotas("ratelimit-policy")
        .into_iter()
        .map(|(name, policy)| (name, policy["q"], policy["w"]))
        .collect();
    let all = [("number", 2, 900), ("client", 6, 3_600), ("key", 4, 3_000), ("global", 100, 60)];
    assert_eq!(told, all.map(|(name, requests, seconds)| (name.to_owned(), requests, seconds)));
    accepted(&to_one("key-one"));
    refused_by("number", &to_one("key-one"));
    for _ in 0..2 {
        eventually("what was refused is taken back", SOON, || {
            generate_with_key(&client, "key-one").status == 201
        });
    }
    refused_by("key", &generate_with_key(&client, "key-one"));
    // Another application has limits of its own, of the same address and the same number.
    accepted(&to_one("key-two"));
    accepted(&to_one("key-two"));
    refused_by("number", &to_one("key-two"));
    drop(service);

    let service =
        with_keys(&keys).variable("client_rate_limit", "2/3600").variable("key_rate_limit", "9/60").start();
    let client = service.client();
    for key in ["key-one", "key-two"] {
        accepted(&generate_with_key(&client, key));
        accepted(&generate_with_key(&client, key));
        refused_by("client", &generate_with_key(&client, key));
    }
}

#[test]
fn of_thirty_requests_at_once_as_many_pass_as_the_limit_says() {
    let count = |answers: &[Response], name: &str| {
        let refusals: Vec<_> = answers.iter().filter(|answer| answer.status != 201).collect();
        refusals.iter().for_each(|answer| refused_by(name, answer));
        answers.len() - refusals.len()
    };
    let service = open().variable("client_rate_limit", "5/3600").start();
    let client = service.client();
    assert_eq!(count(&at_once(30, |_| generate(&client)), "client"), 5);

    let service = open().variable("global_rate_limit", "5/3600").start();
    let client = service.client();
    assert_eq!(count(&at_once(30, |_| generate(&client)), "global"), 5);

    let service = with_keys(&[("shop", "key-one")]).variable("key_rate_limit", "5/3600").start();
    let client = service.client();
    assert_eq!(count(&at_once(30, |_| generate_with_key(&client, "key-one")), "key"), 5);
}

#[test]
fn of_thirty_requests_of_a_client_at_once_as_many_pass_as_its_limit_says() {
    let service = behind_a_proxy("5/3600").start();
    let client = service.client();
    // Whatever has to be opened first is opened by another client.
    (0..4).for_each(|_| drop(at_once(30, |_| generate_for(&client, "203.0.113.1"))));
    for address in ["203.0.113.2", "203.0.113.3", "2001:db8:1:2::3"] {
        let answers = at_once(30, |_| generate_for(&client, address));
        let refusals: Vec<_> = answers.iter().filter(|answer| answer.status != 201).collect();
        refusals.iter().for_each(|answer| refused_by("client", answer));
        assert_eq!(refusals.len(), 25);
    }
}

#[test]
fn a_service_that_has_just_begun_to_talk_to_redis_lets_no_more_in() {
    let redis = Redis::start();
    let service =
        open().variable("global_rate_limit", "5/3600").variable("redis_endpoint", &redis.endpoint()).start();
    let client = service.client();
    // The first requests that there are, all at once, while Redis is well.
    let answers = at_once(30, |_| generate(&client));
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 5);
}

#[test]
fn a_number_is_sent_its_second_code_by_whoever_counts() {
    for limit in ["client_rate_limit", "global_rate_limit"] {
        let service = open().variable(limit, "10/3600").start();
        let (client, number) = (service.client(), number());
        for _ in 0..3 {
            client.generate(&number);
        }
    }
}

#[test]
fn services_that_share_a_store_share_the_limits() {
    let folder = temporary_folder();
    let redis = harness::with_redis().then(Redis::start);
    let endpoint = redis.as_ref().map_or_else(String::new, Redis::endpoint);
    let services = at_once(2, |_| {
        let service = open().variable("global_rate_limit", "5/3600").variable("redis_endpoint", &endpoint);
        service.state(folder.path()).start()
    });
    let clients: Vec<_> = services.iter().map(Service::client).collect();
    let answers = at_once(30, |index| generate(&clients[index % 2]));
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 5);
}

#[test]
fn who_has_waited_as_long_as_told_is_let_in_and_nobody_before() {
    // Two at once, and then one every three seconds.
    let service = open().variable("client_rate_limit", "2/6").start();
    let client = service.client();
    wait_is_true(2, Duration::from_secs(3), || generate(&client));
}

#[test]
fn a_meter_that_nobody_used_for_a_while_is_empty_again() {
    let service = open().variable("global_rate_limit", "2/2").start();
    let client = service.client();
    for _ in 0..2 {
        eventually("a refusal", SOON, || generate(&client).status == 429);
        let refused = Instant::now();
        // Empty after at most the window.
        while refused.elapsed() < Duration::from_millis(2_020) {
            thread::sleep(Duration::from_millis(20));
        }
        accepted(&generate(&client));
        accepted(&generate(&client));
    }
}

#[test]
fn nobody_is_believed_who_is_not_a_trusted_proxy() {
    for proxies in ["", "10.0.0.0/8"] {
        let service = open()
            .variable("allow_remote_development", "true")
            .variable("trusted_proxies", proxies)
            .variable("client_rate_limit", "3/3600")
            .start();
        let client = service.client();
        accepted(&generate_for(&client, "203.0.113.1"));
        accepted(&generate_with(&client, &[("forwarded", "for=203.0.113.2")]));
        accepted(&generate_with(&client, &[("spin-client-addr", "203.0.113.3:1234")]));
        refused_by("client", &generate_for(&client, "203.0.113.4"));
        refused_by("client", &generate_with(&client, &[("forwarded", "for=203.0.113.5")]));
        refused_by("client", &generate_with(&client, &[("spin-client-addr", "203.0.113.6:1234")]));
        refused_by("client", &generate_with(&client, &[("x-real-ip", "203.0.113.7")]));
        refused_by("client", &generate(&client));
    }
}

#[test]
fn a_trusted_proxy_says_whom_it_speaks_for() {
    let service = behind_a_proxy("2/3600").start();
    let client = service.client();
    accepted(&generate_for(&client, "203.0.113.1"));
    accepted(&generate_with(&client, &[("forwarded", "for=203.0.113.1;proto=https")]));
    refused_by("client", &generate_for(&client, "203.0.113.1"));
    refused_by("client", &generate_with(&client, &[("forwarded", "For=\"203.0.113.1:4711\"")]));
    // As an IPv6 address it is the same.
    refused_by("client", &generate_for(&client, "::ffff:203.0.113.1"));
    accepted(&generate_for(&client, "203.0.113.2"));
    // The proxy's own requests.
    accepted(&generate(&client));
    accepted(&generate(&client));
    refused_by("client", &generate(&client));
}

#[test]
fn what_a_client_writes_itself_gains_it_nothing() {
    let service = behind_a_proxy("2/3600").start();
    let client = service.client();
    // The proxy appends the client's address at the right end.
    accepted(&generate_for(&client, "203.0.113.1"));
    accepted(&generate_for(&client, "198.51.100.1, 203.0.113.1"));
    refused_by("client", &generate_for(&client, "198.51.100.2, 203.0.113.1"));
    refused_by("client", &generate_for(&client, "127.0.0.1, 203.0.113.1"));
    refused_by("client", &generate_for(&client, "\"198.51.100.3, 203.0.113.1"));
    refused_by("client", &generate_for(&client, ",,garbage, , 203.0.113.1"));
    // Or in a line of its own.
    let lines =
        |first, second| generate_with(&client, &[("x-forwarded-for", first), ("x-forwarded-for", second)]);
    refused_by("client", &lines("198.51.100.4", "203.0.113.1"));
    refused_by("client", &lines("198.51.100.5, 127.0.0.1", "203.0.113.1"));
    let forwarded = |value: &str| generate_with(&client, &[("forwarded", value)]);
    refused_by("client", &forwarded("for=198.51.100.6, for=203.0.113.1"));
    refused_by("client", &forwarded("for=\"198.51.100.7, for=203.0.113.1"));
}

#[test]
fn the_field_that_the_proxy_does_not_know_gains_a_client_its_proxys_share_at_most() {
    let service = behind_a_proxy("2/3600").start();
    let client = service.client();
    let spoofed = |other: usize| {
        let spoof = format!("for=198.51.100.{other}");
        generate_with(&client, &[("forwarded", &spoof), ("x-forwarded-for", "203.0.113.1")])
    };
    accepted(&generate_for(&client, "203.0.113.1"));
    accepted(&generate_for(&client, "203.0.113.1"));
    let passed = (1..=20).filter(|other| spoofed(*other).status == 201).count();
    assert!(passed <= 2, "{passed} with a field of the client's own");
    refused_by("client", &generate_for(&client, "203.0.113.1"));
}

#[test]
fn an_ipv6_client_is_its_64_bit_network() {
    let service = behind_a_proxy("2/3600").start();
    let client = service.client();
    accepted(&generate_for(&client, "2001:db8:1:2::1"));
    accepted(&generate_for(&client, "2001:db8:1:2:ffff:ffff:ffff:ffff"));
    refused_by("client", &generate_for(&client, "2001:db8:1:2:abcd::7"));
    refused_by("client", &generate_for(&client, "[2001:db8:1:2::8]:4711"));
    let forwarded = [("forwarded", "for=\"[2001:db8:1:2::9]:4711\"")];
    refused_by("client", &generate_with(&client, &forwarded));
    accepted(&generate_for(&client, "2001:db8:1:3::1"));
}

#[test]
fn an_address_is_nowhere_in_clear() {
    let redis = Redis::start();
    for endpoint in ["", &redis.endpoint()] {
        let service = behind_a_proxy("2/3600").variable("redis_endpoint", endpoint).start();
        let client = service.client();
        let addresses = ["203.0.113.77", "2001:db8:77:77::1"];
        for address in addresses {
            for _ in 0..3 {
                generate_for(&client, address);
            }
        }
        redis.save();
        let mut places = vec![("the log".to_owned(), service.log().into_bytes())];
        places.extend([service.state(), redis.files()].iter().flat_map(|folder| files_below(folder)));
        assert!(places.iter().any(|(_, bytes)| holds(bytes, b"client:")), "the meters are looked at");
        let raw: [u8; 4] = [203, 0, 113, 77];
        for (place, bytes) in &places {
            for clear in ["203.0.113.77", "2001:db8:77:77", "cb00714d"] {
                assert!(!holds(bytes, clear.as_bytes()), "{clear} is in {place}");
            }
            assert!(!holds(bytes, &raw), "an address is in {place}");
        }
    }
}

#[test]
fn a_request_that_is_refused_for_another_reason_does_not_count_in_the_end() {
    for limit in ["client_rate_limit", "global_rate_limit"] {
        let service = Service::builder()
            .variable("pumping_guard", "false")
            .variable("rate_limit_requests", "1")
            .variable(limit, "6/86400")
            .start();
        let (client, known) = (service.client(), number());
        // One by one, so that those on their way do not fill the meter for a moment.
        let refused = |status: u16, send: &dyn Fn() -> Response| {
            for _ in 0..6 {
                eventually("the refusal", SOON, || {
                    let answer = send();
                    let full = answer.status == 429 && answer.quotas("ratelimit")[0].0 != "number";
                    assert!(full || answer.status == status, "{answer:?}");
                    !full
                });
            }
        };
        client.generate(&known);
        refused(429, &|| client.try_generate(&known));
        refused(429, &|| client.regenerate(&known));
        refused(429, &|| client.resend(&known));
        // Nothing was sent; but who looks for known numbers counts.
        if limit == "global_rate_limit" {
            refused(404, &|| client.resend(&number()));
            refused(404, &|| client.regenerate(&number()));
        }
        refused(422, &|| client.try_generate("+1"));
        for left in (0..5).rev() {
            eventually(&format!("{limit}: one of six, with {left} to come"), SOON, || {
                generate(&client).status == 201
            });
        }
        assert_eq!(generate(&client).status, 429);
    }
}

#[test]
fn a_first_refusal_charges_nobody_who_asked_before() {
    // The number's last code was for one client; another one is refused.
    let service = behind_a_proxy("3/86400").variable("rate_limit_requests", "1").start();
    let (client, known) = (service.client(), number());
    let to_known = |address: &str| {
        let body = json!({ "mobileNumber": known });
        client.post_with("/generate-otp", &[("x-forwarded-for", address)], &body)
    };
    accepted(&to_known("203.0.113.1"));
    to_known("203.0.113.2").expect_problem(429, "rate_limited");
    accepted(&generate_for(&client, "203.0.113.1"));
    accepted(&generate_for(&client, "203.0.113.1"));
    refused_by("client", &generate_for(&client, "203.0.113.1"));
}

#[test]
fn guesses_at_numbers_count_alike_with_redis_and_without() {
    let redis = Redis::start();
    type Look = dyn Fn(&Client) -> Response;
    let looks: [(&str, &Look); 4] = [
        ("verify", &|client| client.verify(&number(), "000000")),
        ("resend", &|client| client.resend(&number())),
        ("regenerate", &|client| client.regenerate(&number())),
        ("resend, of a code that is used up", &|client| client.resend(USED)),
    ];
    for (what, look) in looks {
        let passed = ["", &redis.endpoint()].map(|endpoint| {
            let folder = temporary_folder();
            let state = || open().state(folder.path()).variable("redis_endpoint", endpoint);
            let before = state().start();
            let made = before.client().generate(USED);
            before.client().verify(USED, made["otp"].as_str().unwrap()).expect(200);
            drop(before);
            let () = redis::cmd("FLUSHALL").query(&mut redis.connect()).unwrap();
            let service = state().variable("client_rate_limit", "4/86400").start();
            let client = service.client();
            let answers: Vec<_> = (0..12).map(|_| look(&client).status).collect();
            answers.iter().filter(|status| matches!(status, 404 | 410)).count()
        });
        assert_eq!(passed[0], passed[1], "{what}: without Redis and with it");
        assert_eq!(passed[1], 4, "{what}: who looks for known numbers is stopped");
    }
}

/// A number whose code was used.
const USED: &str = "+14155550177";

#[test]
fn a_limit_holds_while_redis_dies_and_comes_back() {
    let mut redis = Redis::start();
    let service =
        open().variable("client_rate_limit", "5/3600").variable("redis_endpoint", &redis.endpoint()).start();
    let client = service.client();
    let until_refused = || {
        let answers: Vec<_> = (0..16).map(|_| generate(&client)).collect();
        for answer in &answers {
            if answer.status != 201 {
                refused_by("client", answer);
            }
        }
        let passed = answers.iter().filter(|answer| answer.status == 201).count();
        assert!(passed <= 5, "{passed} of a limit of 5");
        passed
    };
    assert_eq!(until_refused(), 5);
    redis.kill();
    // The database counts now, and has not known of those before.
    assert_eq!(until_refused(), 5);
    assert_eq!(until_refused(), 0);
    redis.restart_empty();
    let health = || client.get("/readyz").json()["status"] == "ready";
    eventually("Redis is found again", SOON, health);
    until_refused();
    eventually("a refusal", SOON, || generate(&client).status == 429);
}

#[test]
fn a_flood_at_the_moment_when_redis_dies_is_limited_and_answered() {
    let mut redis = Redis::start();
    let service =
        open().variable("global_rate_limit", "20/3600").variable("redis_endpoint", &redis.endpoint()).start();
    let client = service.client();
    let answers = thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let rounds = (0..10).flat_map(|_| at_once(8, |_| generate(&client)));
            rounds.collect::<Vec<_>>()
        });
        thread::sleep(Duration::from_millis(30));
        redis.kill();
        flood.join().unwrap()
    });
    let passed = answers.iter().filter(|answer| answer.status == 201).count();
    answers.iter().filter(|answer| answer.status != 201).for_each(|answer| refused_by("global", answer));
    // As many as each of the two stores lets in.
    assert!((20..=40).contains(&passed), "{passed}");
}

#[test]
fn limits_that_make_no_sense_are_named() {
    for (variable, value) in [
        ("client_rate_limit", "100"),
        ("client_rate_limit", "0/60"),
        ("client_rate_limit", "1000001/60"),
        ("client_rate_limit", "1/0"),
        ("client_rate_limit", "1/86401"),
        ("client_rate_limit", "many/60"),
        ("global_rate_limit", "10/60s"),
        ("key_rate_limit", "-1/60"),
        // Nobody has a key.
        ("key_rate_limit", "10/60"),
        ("trusted_proxies", "127.0.0.1,proxy"),
        ("trusted_proxies", "0.0.0.0/0"),
    ] {
        let service = Service::builder().variable(variable, value).start();
        let problem = generate(&service.client()).expect_problem(503, "misconfigured");
        assert!(problem["detail"].as_str().unwrap().contains(variable), "{variable}={value}: {problem}");
    }
}
