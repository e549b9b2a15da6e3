//! `GET /healthz` and `GET /readyz`

use harness::{Redis, Service, Store, eventually, store};
use serde_json::json;
use std::time::Duration;

/// Longer than an answer of /readyz is kept.
const SOON: Duration = Duration::from_secs(10);

/// 32 bytes, and nobody's.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

#[test]
fn a_service_with_its_database_is_ready_and_says_what_is_for_development_only() {
    let service = Service::start();
    let client = service.client();
    assert_eq!(client.get("/healthz").expect(200)["status"], "ok");
    let ready = client.get("/readyz").expect(200);
    assert_eq!(ready["status"], "ready");
    let database = match store() {
        Store::Sqlite => "sqlite",
        Store::Postgres => "postgres",
    };
    assert_eq!(ready["dependencies"]["database"]["kind"], database);
    assert_eq!(ready["dependencies"]["database"]["status"], "up");
    let cache = &ready["dependencies"]["cache"];
    if service.cache().is_some() {
        assert_eq!((&cache["kind"], &cache["status"]), (&"redis".into(), &"up".into()));
    } else {
        assert!(cache.is_null());
    }
    assert_eq!(ready["warnings"].as_array().unwrap().len(), 2);
    assert!(service.log().contains("warning: encryption_keys is not set"), "{}", service.log());
}

#[test]
fn keys_of_ones_own_leave_nothing_to_warn_of() {
    let service = Service::builder()
        .variable("encryption_keys", &format!("k1:{KEY}"))
        .variable("index_key", KEY)
        .start();
    let ready = service.client().get("/readyz").expect(200);
    assert_eq!(ready["warnings"].as_array().unwrap().len(), 0);
    assert!(!service.log().contains("warning"), "{}", service.log());
}

#[test]
fn a_cache_that_answers_and_refuses_is_told_with_the_reason() {
    let redis = Redis::start();
    let service = Service::builder().without_limits().variable("redis_endpoint", &redis.endpoint()).start();
    let client = service.client();
    let cache = || client.get("/readyz").expect(200)["dependencies"]["cache"].clone();
    let up = json!({ "kind": "redis", "status": "up" });
    assert_eq!(cache(), up);
    let mut connection = redis.connect();
    let mut administrator = |command: &str| {
        let mut words = command.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        for word in words {
            command.arg(word);
        }
        command.query::<redis::Value>(&mut connection).unwrap();
    };
    for (trouble, end, reason) in [
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "read-only replica"),
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "out of memory"),
        ("ACL SETUSER default -@scripting", "ACL SETUSER default +@all", "may not do that"),
        ("ACL SETUSER default -set", "ACL SETUSER default +@all", "may not do that"),
    ] {
        administrator(trouble);
        eventually(&format!("{trouble}, told"), SOON, || {
            let ready = client.get("/readyz").expect(200);
            let cache = &ready["dependencies"]["cache"];
            ready["status"] == "degraded"
                && cache["status"] == "down"
                && cache["reason"].as_str().unwrap_or_default().contains(reason)
        });
        // The database serves in the meantime.
        client.generate(&harness::number());
        administrator(end);
        eventually(&format!("{end}, told"), SOON, || cache() == up);
    }
}
