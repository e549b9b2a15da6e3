//! Keys are changed while the service serves, and nobody notices.

use crate::{api_key, bearer};
use harness::{
    Builder, Client, Redis, Relay, RelayBuilder, Service, at_once, eventually, number, temporary_folder,
    unused_address, with_redis,
};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};

/// 32 bytes each, and nobody's.
const OLD: &str = "old:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const NEW: &str = "new:Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";
const INDEX_KEY: &str = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";

const TOKEN: &str = "a-token-that-nobody-else-has";
const SOON: Duration = Duration::from_secs(60);

/// Codes that each host makes while both serve.
const TRAFFIC: usize = 12;

/// A code that lives.
#[derive(Debug, Clone)]
struct Made {
    number: String,
    otp: String,
}

/// What all hosts of one service have in common.
struct Common<'a> {
    state: &'a Path,
    redis: Option<&'a Redis>,
}

impl Common<'_> {
    fn host(&self, builder: Builder) -> Service {
        let builder = builder.without_limits().variable("index_key", INDEX_KEY).state(self.state);
        let builder = match self.redis {
            Some(redis) => builder.variable("redis_endpoint", &redis.endpoint()),
            None => builder,
        };
        builder.start()
    }
}

fn with_keys(list: &[&str]) -> Builder {
    Service::builder().variable("encryption_keys", &list.join(","))
}

fn make(client: &Client) -> Made {
    let number = number();
    let otp = client.generate(&number)["otp"].as_str().unwrap().to_owned();
    Made { number, otp }
}

/// Both hosts serve at the same time, and whoever asks does not know which one it is. Every code that one of
/// them makes the other one can give again, and replace.
fn serve_both(one: &Service, two: &Service) -> Vec<Made> {
    at_once(TRAFFIC, |index| {
        let clients = [one.client(), two.client()];
        let (here, there) = (&clients[index % 2], &clients[1 - index % 2]);
        let [gone, kept] = [make(here), make(here)];
        assert_eq!(there.resend(&kept.number).expect(200)["otp"], kept.otp.as_str());
        let again = there.regenerate(&gone.number).expect(201);
        assert_eq!(here.resend(&gone.number).expect(200)["otp"], again["otp"]);
        there.verify(&gone.number, again["otp"].as_str().unwrap()).expect(200);
        kept
    })
}

fn all_can_be_given_again(host: &Service, made: &[Made]) {
    let client = host.client();
    for Made { number, otp } in made {
        assert_eq!(client.resend(number).expect(200)["otp"], otp.as_str());
    }
}

#[test]
fn encryption_keys_rotate_step_by_step_while_codes_live() {
    let folder = temporary_folder();
    let redis = with_redis().then(Redis::start);
    let common = Common { state: folder.path(), redis: redis.as_ref() };

    let only_old = common.host(with_keys(&[OLD]));
    let mut by_old: Vec<_> = (0..5).map(|_| make(&only_old.client())).collect();

    // The new one last: it opens, and does not seal yet, for there are still hosts that do not know it.
    let added = common.host(with_keys(&[OLD, NEW]));
    by_old.extend(serve_both(&only_old, &added));
    drop(only_old);
    all_can_be_given_again(&added, &by_old);

    // The new one first, once all know it.
    let first = common.host(with_keys(&[NEW, OLD]));
    let mut alive = by_old.clone();
    alive.extend(serve_both(&added, &first));
    drop(added);
    all_can_be_given_again(&first, &alive);
    let by_new: Vec<_> = (0..5).map(|_| make(&first.client())).collect();

    // The old one away, when no code lives that it sealed. Here some do: they cannot be given again…
    let only_new = common.host(with_keys(&[NEW]));
    all_can_be_given_again(&only_new, &by_new);
    serve_both(&first, &only_new);
    drop(first);
    let client = only_new.client();
    for Made { number, otp } in &by_old {
        client.resend(number).expect_problem(410, "otp_expired");
        // …and are good all the same.
        client.verify(number, otp).expect(200);
    }
    for Made { number, otp } in &by_new {
        client.verify(number, otp).expect(200);
    }
    assert!(!only_new.log().contains(&OLD[4..]) && !only_new.log().contains(&NEW[4..]));
}

#[test]
fn a_retry_hears_the_same_answer_across_a_rotation_as_long_as_the_key_is_there() {
    let folder = temporary_folder();
    let redis = with_redis().then(Redis::start);
    let common = Common { state: folder.path(), redis: redis.as_ref() };
    let number = number();
    let ask = |keys: &[&str]| {
        let host = common.host(with_keys(keys));
        let key = [("idempotency-key", "k")];
        let answer = host.client().post_with("/generate-otp", &key, &json!({ "mobileNumber": number }));
        (answer.expect(201), answer.header("idempotent-replayed").to_owned())
    };
    let (made, _) = ask(&[OLD]);
    for keys in [&[OLD, NEW][..], &[NEW, OLD]] {
        assert_eq!(ask(keys), (made.clone(), "true".to_owned()));
    }
    let mut without = made;
    assert!(without.as_object_mut().unwrap().remove("otp").is_some());
    assert_eq!(ask(&[NEW]), (without, "true".to_owned()));
}

#[test]
fn api_keys_rotate_while_both_are_in_use() {
    let folder = temporary_folder();
    let redis = with_redis().then(Redis::start);
    let common = Common { state: folder.path(), redis: redis.as_ref() };
    let (old, new) = (api_key("shop", "send+verify", "old key"), api_key("shop", "send+verify", "new key"));
    let with = |entries: &[&str]| common.host(with_keys(&[OLD]).variable("api_keys", &entries.join(",")));
    let ask = |host: &Service, key: &str, path: &str, body: &Value| {
        host.client().post_with(path, &[("authorization", &bearer(key))], body)
    };
    let number = number();
    let body = json!({ "mobileNumber": number });

    let only_old = with(&[&old]);
    let made = ask(&only_old, "old key", "/generate-otp", &body).expect(201);
    let both = with(&[&old, &new]);
    // Whoever still has the old key is served by each of them.
    at_once(TRAFFIC, |index| {
        let host = if index % 2 == 0 { &only_old } else { &both };
        ask(host, "old key", "/resend-otp", &body).expect(200);
    });
    drop(only_old);
    at_once(TRAFFIC, |index| {
        let key = if index % 2 == 0 { "old key" } else { "new key" };
        assert_eq!(ask(&both, key, "/resend-otp", &body).expect(200)["otp"], made["otp"]);
    });
    let only_new = with(&[&new]);
    drop(both);
    ask(&only_new, "old key", "/resend-otp", &body).expect_problem(401, "unauthorized");
    let guess = json!({ "mobileNumber": number, "otp": made["otp"] });
    ask(&only_new, "new key", "/verify-otp", &guess).expect(200);
}

#[test]
fn the_relay_opens_every_code_of_a_rotation() {
    let (folder, ledger) = (temporary_folder(), temporary_folder());
    let redis = with_redis().then(Redis::start);
    let common = Common { state: folder.path(), redis: redis.as_ref() };
    let address = unused_address();
    let host = |keys: &[&str]| {
        let url = format!("http://{address}");
        common.host(with_keys(keys).variable("relay_url", &url).variable("relay_token", TOKEN))
    };
    let relay = |keys: &[&str]| {
        RelayBuilder::default()
            .listen(&address)
            .state(ledger.path())
            .env("RELAY_TOKEN", TOKEN)
            .env("RELAY_ENCRYPTION_KEYS", &keys.join(","))
            .env("RELAY_INDEX_KEY", INDEX_KEY)
            .start()
    };
    let mut made: Vec<Made> = Vec::new();
    let delivers_all = |relay: &Relay, made: &[Made]| {
        eventually("delivering every code", SOON, || {
            let inbox = relay.client().get("/inbox?limit=1000").expect(200);
            let has = |made: &Made| {
                let messages = inbox.as_array().unwrap();
                messages.iter().any(|message| message["otp"] == made.otp.as_str())
            };
            made.iter().all(has)
        });
    };
    // The relay learns of the new key before anything is sealed with it, and forgets the old one last.
    let mut relay_now = relay(&[OLD]);
    let mut host_now = host(&[OLD]);
    for (of_relay, of_host) in [
        (&[OLD, NEW][..], &[OLD, NEW][..]),
        (&[OLD, NEW], &[NEW, OLD]),
        (&[NEW, OLD], &[NEW]),
        (&[NEW], &[NEW]),
    ] {
        made.extend((0..4).map(|_| make(&host_now.client())));
        delivers_all(&relay_now, &made);
        drop(relay_now);
        // It is away: what is made now it delivers later.
        made.extend((0..2).map(|_| make(&host_now.client())));
        relay_now = relay(of_relay);
        let flushed = |host: &Service| {
            let token = bearer(TOKEN);
            let path = "/internal/outbox/flush";
            let answer = host.client().send("POST", path, &[("authorization", &token)], b"");
            answer.expect(200)["waiting"] == 0
        };
        eventually("emptying the outbox", SOON, || flushed(&host_now));
        if of_host != [NEW] {
            delivers_all(&relay_now, &made);
        }
        host_now = host(of_host);
    }
    made.retain(|made| host_now.client().resend(&made.number).status == 200);
    assert!(made.len() >= 8, "{}", made.len());
    delivers_all(&relay_now, &made);
}
