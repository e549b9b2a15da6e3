//! `GET /healthz` and `GET /readyz`

use harness::{Service, Store, store};

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
