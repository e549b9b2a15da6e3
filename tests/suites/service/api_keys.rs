//! Who may call: API keys and their scopes.

use crate::{api_key, bearer, files_below, holds, other_than, outbox};
use harness::{Client, Response, Service, number, temporary_folder, unused_address};
use serde_json::json;
use sha2::{Digest, Sha256};

const KEY: &str = "5a0c7be1-shops-own-key";
const OTHER_KEY: &str = "e83fd240-shops-next-key";
const TOKEN: &str = "a-token-that-nobody-else-has";

/// All that an API key can open.
const CALLS: [&str; 5] = ["generate", "resend", "regenerate", "verify", "erase"];

fn with_keys(entries: &[String]) -> harness::Builder {
    Service::builder().without_limits().variable("api_keys", &entries.join(","))
}

fn call(client: &Client, call: &str, number: &str, headers: &[(&str, &str)]) -> Response {
    let mut body = json!({ "mobileNumber": number });
    if call == "verify" {
        body["otp"] = json!("000000");
    }
    match call {
        "erase" => client.send("DELETE", &format!("/users/{number}"), headers, b""),
        call => client.post_with(&format!("/{call}-otp"), headers, &body),
    }
}

/// How many users there are, and events.
fn left_behind(service: &Service) -> (i64, i64) {
    let database = service.sql();
    let count = |table| database.number(format!("SELECT count(*) FROM {table}"), &[]);
    (count("accounts WHERE application <> ''"), count("outbox"))
}

#[test]
fn who_has_no_key_that_is_known_may_do_nothing() {
    let service = with_keys(&[api_key("shop", "send+verify+admin", KEY)]).start();
    let client = service.client();
    client.get("/readyz").expect(200);
    for name in CALLS {
        let answer = call(&client, name, &number(), &[]);
        answer.expect_problem(401, "unauthorized");
        assert_eq!(answer.header("www-authenticate"), "Bearer", "{name}");

        let right = bearer(KEY);
        let hash = hex::encode(Sha256::digest(KEY));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            KEY,
            &format!("Basic {KEY}"),
            &format!("Token {KEY}"),
            &format!("Bearer{KEY}"),
            &bearer(OTHER_KEY),
            &bearer(&hash),
            &bearer("shop"),
            &bearer(&KEY.to_uppercase()),
            &bearer(&KEY[1..]),
            &format!("{right}x"),
            &format!("{right}, {right}"),
            &format!("{right} {KEY}"),
        ] {
            let answer = call(&client, name, &number(), &[("authorization", wrong)]);
            let problem = answer.expect_problem(401, "unauthorized");
            assert!(answer.header("www-authenticate").starts_with("Bearer"), "{name} with {wrong:?}");
            assert!(!problem.to_string().contains(KEY), "{problem}");
        }
        // Whoever stands in front may look at one, and the service at the other.
        for (one, two) in [(&right, &right), (&right, &bearer(OTHER_KEY)), (&bearer(OTHER_KEY), &right)] {
            let both = [("authorization", one.as_str()), ("authorization", two.as_str())];
            call(&client, name, &number(), &both).expect_problem(401, "unauthorized");
        }
    }
    assert_eq!(left_behind(&service), (0, 0), "none of that had any effect");
    assert!(!service.log().contains(KEY) && !service.log().contains(OTHER_KEY));
}

#[test]
fn the_scheme_is_taken_in_any_case() {
    let service = with_keys(&[api_key("shop", "send", KEY)]).start();
    let client = service.client();
    for scheme in ["Bearer", "bearer", "BEARER", "bEaReR", "Bearer  "] {
        let authorization = format!("{scheme} {KEY}");
        call(&client, "generate", &number(), &[("authorization", &authorization)]).expect(201);
    }
}

#[test]
fn a_scope_opens_its_own_calls_and_no_others() {
    let opens = |scopes: &str, call: &str| match call {
        "generate" | "resend" | "regenerate" => scopes.contains("send"),
        "verify" => scopes.contains("verify"),
        _ => scopes.contains("admin"),
    };
    let all = ["send", "verify", "admin", "send+verify", "admin+send", "verify+admin", "admin+verify+send"];
    let entries: Vec<_> =
        (0..).zip(all).map(|(index, scopes)| api_key(&format!("k-{index}"), scopes, scopes)).collect();
    let service = with_keys(&entries).start();
    let client = service.client();
    for scopes in all {
        for name in CALLS {
            let answer = call(&client, name, &number(), &[("authorization", &bearer(scopes))]);
            if opens(scopes, name) {
                // Nothing but the number is in the way.
                let expected = match name {
                    "generate" => 201,
                    "erase" => 204,
                    _ => 404,
                };
                assert_eq!(answer.status, expected, "{name} with {scopes}");
            } else {
                let problem = answer.expect_problem(403, "forbidden");
                let needed = match name {
                    "verify" => "verify",
                    "erase" => "admin",
                    _ => "send",
                };
                assert!(problem["detail"].as_str().unwrap().contains(needed), "{name}: {problem}");
            }
        }
    }
}

#[test]
fn two_keys_of_one_name_are_both_good_until_one_is_taken_away() {
    let (old, new) = (api_key("shop", "send", KEY), api_key("shop", "send", OTHER_KEY));
    let folder = temporary_folder();
    let number = number();
    let statuses = |entries: &[String]| {
        let service = with_keys(entries).state(folder.path()).start();
        let client = service.client();
        [KEY, OTHER_KEY]
            .map(|key| call(&client, "generate", &number, &[("authorization", &bearer(key))]).status)
    };
    assert_eq!(statuses(std::slice::from_ref(&old)), [201, 401]);
    assert_eq!(statuses(&[old, new.clone()]), [201, 201]);
    assert_eq!(statuses(&[new]), [401, 201]);
}

#[test]
fn events_name_the_holder_and_nothing_holds_the_key() {
    let mut service = with_keys(&[
        api_key("shop", "send+verify", KEY),
        api_key("shop", "send", OTHER_KEY),
        api_key("shop", "admin", "office's key"),
    ])
    .variable("rate_limit_requests", "4")
    .variable("client_rate_limit", "1000/1")
    .variable("key_rate_limit", "1000/1")
    .start();
    let client = service.client();
    let number = number();
    let shop = bearer(KEY);
    let (shop, next) = ([("authorization", shop.as_str())], bearer(OTHER_KEY));
    let made = call(&client, "generate", &number, &shop).expect(201);
    call(&client, "resend", &number, &[("authorization", &next)]).expect(200);
    let body = json!({ "mobileNumber": number, "otp": other_than(made["otp"].as_str().unwrap()) });
    client.post_with("/verify-otp", &shop, &body).expect(422);
    let again = call(&client, "regenerate", &number, &shop).expect(201);
    call(&client, "resend", &number, &shop).expect(200);
    call(&client, "resend", &number, &shop).expect_problem(429, "rate_limited");
    let body = json!({ "mobileNumber": number, "otp": again["otp"] });
    client.post_with("/verify-otp", &shop, &body).expect(200);

    let events = outbox(&service);
    assert_eq!(events.len(), 7, "{events:?}");
    assert!(events.iter().all(|event| event["application"] == "shop"), "{events:?}");
    let erased = call(&client, "erase", &number, &[("authorization", &bearer("office's key"))]);
    assert_eq!(erased.status, 204);
    let events = outbox(&service);
    assert_eq!(events.last().unwrap()["application"], "shop", "{events:?}");

    let secrets = [KEY, OTHER_KEY, "office's key"];
    let hashes = secrets.map(|key| hex::encode(Sha256::digest(key)));
    let raw_hashes = secrets.map(|key| Sha256::digest(key).to_vec());
    service.terminate();
    for (name, bytes) in files_below(&service.state()) {
        let holds = |what: &[u8]| holds(&bytes, what);
        for secret in
            secrets.iter().map(|key| key.as_bytes()).chain(hashes.iter().map(|hash| hash.as_bytes()))
        {
            assert!(!holds(secret), "{name} holds a key, or its hash");
        }
        assert!(!raw_hashes.iter().any(|hash| holds(hash)), "{name} holds the hash of a key");
    }
    for secret in secrets.iter().copied().chain(hashes.iter().map(String::as_str)) {
        assert!(!service.log().contains(secret), "{}", service.log());
    }
}

#[test]
fn without_keys_all_belong_to_one_application() {
    let service = Service::start();
    let body = json!({ "mobileNumber": number() });
    let sent = service.client().post_with("/generate-otp", &[("authorization", &bearer(KEY))], &body);
    sent.expect(201);
    assert!(outbox(&service).iter().all(|event| event["application"] == "default"));
}

#[test]
fn probes_and_the_description_are_open_to_everybody() {
    let service = with_keys(&[api_key("shop", "send", KEY)]).start();
    let client = service.client();
    let wrong = bearer("nobody's");
    for headers in [&[][..], &[("authorization", wrong.as_str())]] {
        for path in ["/healthz", "/readyz", "/openapi.json"] {
            client.send("GET", path, headers, b"").expect(200);
        }
    }
}

#[test]
fn what_the_relay_may_call_no_api_key_opens_and_the_other_way_round() {
    let service = with_keys(&[api_key("shop", "send+verify+admin", KEY)])
        .variable("relay_url", &format!("http://{}", unused_address()))
        .variable("relay_token", TOKEN)
        .start();
    let client = service.client();
    for path in ["/internal/outbox/flush", "/internal/purge"] {
        let answer = client.send("POST", path, &[("authorization", &bearer(KEY))], b"");
        answer.expect_problem(401, "unauthorized");
        client.send("POST", path, &[("authorization", &bearer(TOKEN))], b"").expect(200);
    }
    for name in CALLS {
        call(&client, name, &number(), &[("authorization", &bearer(TOKEN))])
            .expect_problem(401, "unauthorized");
    }
}

#[test]
fn the_key_comes_before_everything_else_in_a_request() {
    let service = with_keys(&[api_key("shop", "verify", KEY), api_key("other", "send", OTHER_KEY)])
        .variable("rate_limit_requests", "1")
        .start();
    let client = service.client();
    let (verifies, sends) = (bearer(KEY), bearer(OTHER_KEY));
    let huge = format!("{{\"mobileNumber\":\"{}\"}}", "1".repeat(5_000));
    let number = number();
    let sound = json!({ "mobileNumber": number }).to_string();
    for body in ["", "{", "[]", "{}", "{\"mobileNumber\":7}", "{\"mobileNumber\":\"+1\"}", &huge, &sound] {
        for path in ["/generate-otp", "/resend-otp", "/regenerate-otp"] {
            client.send("POST", path, &[], body.as_bytes()).expect_problem(401, "unauthorized");
            let unfit = [("authorization", verifies.as_str()), ("idempotency-key", "\"broken")];
            client.send("POST", path, &unfit, body.as_bytes()).expect_problem(403, "forbidden");
        }
        client.send("POST", "/verify-otp", &[], body.as_bytes()).expect_problem(401, "unauthorized");
        client
            .send("POST", "/verify-otp", &[("authorization", &sends)], body.as_bytes())
            .expect_problem(403, "forbidden");
    }
    client.send("DELETE", "/users/nobody", &[], b"").expect_problem(401, "unauthorized");
    client
        .send("DELETE", "/users/nobody", &[("authorization", &sends)], b"")
        .expect_problem(403, "forbidden");
    // Nor does what was refused count on the number.
    call(&client, "generate", &number, &[("authorization", &sends)]).expect(201);
    assert_eq!(left_behind(&service), (1, 1));
}

#[test]
fn a_list_that_makes_no_sense_is_named_and_not_repeated() {
    let hash = hex::encode(Sha256::digest(KEY));
    let good = api_key("shop", "send", KEY);
    for list in [
        "shop".to_owned(),
        KEY.to_owned(),
        format!("shop:{hash}"),
        format!("shop::{hash}"),
        format!("shop:send:{hash}:x"),
        format!("shop:read:{hash}"),
        format!("shop:Send:{hash}"),
        format!("shop:send+:{hash}"),
        format!("shop:send+send:{hash}"),
        format!("shop:*:{hash}"),
        format!(":send:{hash}"),
        format!("the shop:send:{hash}"),
        format!("{}:send:{hash}", "x".repeat(65)),
        "shop:send:".to_owned(),
        // The key where its hash belongs.
        format!("shop:send:{KEY}"),
        format!("shop:send:{}", &hash[1..]),
        format!("shop:send:{hash}0"),
        format!("shop:send:sha256-{hash}"),
        // One good entry does not make the list good.
        format!("{good},shop:send:{OTHER_KEY}"),
        // One key of two holders.
        format!("{good},{}", api_key("other", "verify", KEY)),
        // Of an empty key.
        api_key("shop", "send", ""),
        ",".to_owned(),
    ] {
        let service = Service::builder().variable("api_keys", &list).start();
        let client = service.client();
        let answers = CALLS.map(|name| call(&client, name, &number(), &[("authorization", &bearer(KEY))]));
        for answer in answers.into_iter().chain([client.get("/readyz")]) {
            let problem = answer.expect_problem(503, "misconfigured");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains("api_keys"), "{list}: {detail}");
            for secret in [KEY, OTHER_KEY, &hash, &hash[1..]] {
                assert!(!detail.contains(secret), "{list}: {detail}");
            }
        }
        client.get("/healthz").expect(200);
        let log = service.log();
        assert!(log.contains("api_keys"), "{log}");
        assert!(![KEY, OTHER_KEY, &hash, &hash[1..]].iter().any(|secret| log.contains(secret)), "{log}");
    }
}
