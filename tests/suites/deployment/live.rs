//! The programs, with the very variables that docker-compose.yml gives them. What they call stands on this machine
//! instead of in containers; nothing else is changed.

use crate::{
    compose::{environment, services, with},
    declared,
    keys::Keys,
};
use harness::{
    Client, Kafka, Postgres, Redis, Relay, Response, Service, eventually, repository, temporary_folder,
    unused_address,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    process::{Command, Output},
    time::Duration,
};

/// The variables of a service, with `host:port` of others replaced by where they are here.
fn variables(name: &str, keys: &Keys, places: &[(&str, &str)]) -> BTreeMap<String, String> {
    let document = with(&keys.environment).unwrap();
    let variables = environment(&services(&document)[name]);
    let here = |value: String| places.iter().fold(value, |value, (there, here)| value.replace(there, here));
    variables.into_iter().map(|(name, value)| (name, here(value))).collect()
}

/// Runs deploy/compose/postgres.sh as Postgres' image does.
fn make_databases(postgres: &Postgres, keys: &Keys) -> Output {
    let (host, port) = postgres.address().split_once(':').unwrap();
    let mut script = Command::new(repository().join("deploy/compose/postgres.sh"));
    script.env("PGHOST", host).env("PGPORT", port).env("PGPASSWORD", postgres.password());
    script.env("POSTGRES_USER", postgres.user());
    let document = with(&keys.environment).unwrap();
    script.envs(environment(&services(&document)["postgres"]));
    script.output().unwrap()
}

/// The service, with all that it has in the stack but a relay.
fn service(keys: &Keys, redis: &Redis, postgres: &Postgres, relay: &str) -> Service {
    let places =
        [("redis:6379", redis.address()), ("postgres:5432", postgres.address()), ("relay:3100", relay)];
    let variables = variables("app", keys, &places);
    let builder = variables.iter().fold(Service::builder(), |builder, (name, value)| {
        builder.variable(&name.strip_prefix("SPIN_VARIABLE_").unwrap().to_lowercase(), value)
    });
    builder.start()
}

fn call(client: &Client, key: &str, path: &str) -> Response {
    let bearer = format!("Bearer {key}");
    client.send("POST", path, &[("authorization", &bearer)], br#"{"mobileNumber":"+14155550123"}"#)
}

#[test]
fn the_service_is_ready_with_what_compose_gives_it_and_answers_who_has_the_key() {
    let keys = Keys::write();
    let redis = Redis::with_password(&keys.environment["REDIS_PASSWORD"]);
    let postgres = Postgres::start();
    assert!(make_databases(&postgres, &keys).status.success());
    let service = service(&keys, &redis, &postgres, &unused_address());
    let ready = service.client().get("/readyz").expect(200);
    // The relay is away, and that is all that is wrong.
    assert_eq!(ready["status"], "degraded", "{ready}");
    assert_eq!(ready["dependencies"]["cache"], json!({ "kind": "redis", "status": "up" }));
    assert_eq!(ready["dependencies"]["database"]["status"], "up");
    assert_eq!(ready["warnings"], json!([]));
    assert_eq!(ready["dependencies"]["database"]["kind"], "postgres", "{ready}");
    let made = call(&service.client(), &keys.api_key, "/generate-otp").expect(201);
    assert!(made.get("otp").is_none(), "production shows no code");
    assert_eq!(call(&service.client(), "nobody's", "/generate-otp").status, 401);
    let admin = call(&service.client(), &keys.admin_key, "/generate-otp");
    assert_eq!((admin.status, admin.code()), (403, "forbidden".to_owned()));
}

#[test]
fn without_one_of_its_keys_the_service_says_which_and_does_not_serve() {
    let keys = Keys::write();
    let given = variables("app", &keys, &[]);
    for missing in ["encryption_keys", "event_keys", "index_key", "api_keys"] {
        let mut builder = Service::builder();
        for name in ["profile", "reveal_otp", "encryption_keys", "event_keys", "index_key", "api_keys"] {
            let value = &given[&format!("SPIN_VARIABLE_{}", name.to_uppercase())];
            builder = builder.variable(name, if name == missing { "" } else { value });
        }
        let service = builder.start();
        let ready = service.client().get("/readyz");
        assert_eq!((ready.status, ready.code()), (503, "misconfigured".to_owned()));
        assert!(ready.json()["detail"].as_str().unwrap().contains(missing), "{missing}");
    }
}

#[test]
fn the_relay_is_ready_with_what_compose_gives_it() {
    let keys = Keys::write();
    let (kafka, postgres, service) = (Kafka::start(), Postgres::start(), unused_address());
    assert!(make_databases(&postgres, &keys).status.success());
    let places =
        [("kafka:9092", kafka.brokers()), ("postgres:5432", postgres.address()), ("app:3000", &service)];
    let mut variables = variables("relay", &keys, &places);
    // The harness says where, and the file is mounted elsewhere.
    variables.remove("RELAY_LISTEN").unwrap();
    variables.remove("RELAY_DELIVERY_FILE").unwrap();
    let delivery = fs::read_to_string(repository().join("deploy/compose/delivery.toml")).unwrap();
    let builder = variables
        .iter()
        .fold(Relay::builder().delivery(&delivery), |builder, (name, value)| builder.env(name, value));
    let relay = builder.start();
    let url = format!("{}/readyz", relay.url());
    let check = || declared::relay().args(["check", "--url", &url]).output().unwrap();
    eventually("the relay is ready", Duration::from_secs(30), || check().status.success());
    let ready = relay.client().get("/readyz").expect(200);
    let bus = &ready["dependencies"]["bus"];
    assert_eq!((&bus["kind"], &bus["status"]), (&json!("kafka"), &json!("up")), "{ready}");
    assert_eq!(ready["dependencies"]["ledger"]["kind"], "postgres", "{ready}");
    // In production there is no inbox, also not for who knows the token.
    assert_eq!(relay.client().get("/inbox").status, 404);
}

#[test]
fn a_check_says_why_it_fails() {
    let nobody = unused_address();
    let url = format!("http://{nobody}/readyz");
    let asked = declared::relay().args(["check", "--url", &url, "--deadline", "1"]).output().unwrap();
    assert_eq!(asked.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&asked.stderr).contains(&nobody));
    // The service answers, and is not ready: its configuration makes no sense.
    let service = Service::builder().variable("profile", "production").start();
    let url = format!("{}/readyz", service.url());
    let asked = declared::relay().args(["check", "--url", &url]).output().unwrap();
    assert_eq!(asked.status.code(), Some(1));
    let said = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert!(said.contains("503") && said.contains("encryption_keys"), "{said}");
    let url = format!("{}/healthz", service.url());
    assert!(declared::relay().args(["check", "--url", &url]).status().unwrap().success());
}

#[test]
fn each_has_a_database_of_its_own_and_no_way_into_the_other() {
    let keys = Keys::write();
    let postgres = Postgres::start();
    let made = make_databases(&postgres, &keys);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    for (user, variable) in [("otp", "OTP_DATABASE_PASSWORD"), ("relay", "RELAY_DATABASE_PASSWORD")] {
        let password = &keys.environment[variable];
        let enter = |password: &str, database: &str| {
            let url = format!("postgres://{user}:{password}@{}/{database}", postgres.address());
            postgres::Client::connect(&url, postgres::NoTls)
        };
        enter(password, user).unwrap().batch_execute("CREATE TABLE here (id bigint)").unwrap();
        assert!(enter("another", user).is_err(), "{user} needs no password");
        for other in ["otp", "relay", "postgres"].iter().filter(|database| **database != user) {
            assert!(enter(password, other).is_err(), "{user} may enter {other}");
        }
    }
    // What the health check asks for is there.
    let document = with(&keys.environment).unwrap();
    let test: Vec<_> = services(&document)["postgres"]["healthcheck"]["test"]
        .as_array()
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap())
        .collect();
    assert_eq!(test[..2], ["CMD", "pg_isready"]);
    let app = environment(&services(&document)["app"]);
    assert!(test.contains(&format!("--username={}", app["SPIN_VARIABLE_POSTGRES_USER"]).as_str()));
    assert!(test.contains(&format!("--dbname={}", app["SPIN_VARIABLE_POSTGRES_DATABASE"]).as_str()));
}

#[test]
fn the_cache_starts_as_it_is_told_to_and_asks_for_its_password() {
    let keys = Keys::write();
    let document = with(&keys.environment).unwrap();
    let service = &services(&document)["redis"];
    let command: Vec<_> =
        service["command"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    let [shell, option, script] = command[..] else { panic!("{command:?}") };
    let address = unused_address();
    let port = address.rsplit_once(':').unwrap().1;
    // At its own port there may be somebody else's.
    let script = script.replace("appendonly no", &format!("appendonly no\\nport {port}"));
    // Else the first process would be a shell, which hears no signal there.
    assert_eq!(service["init"], true);
    let folder = temporary_folder();
    let mut redis = Command::new(shell)
        .args([option, &script])
        .envs(environment(service))
        .current_dir(folder.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let test = service["healthcheck"]["test"][1].as_str().unwrap();
    let healthy = |password: &str| {
        let test = test.replace("redis-cli", &format!("redis-cli -p {port}"));
        let mut check = Command::new("sh");
        check.args(["-c", &test]).env("REDISCLI_AUTH", password).stderr(std::process::Stdio::null());
        check.status().unwrap().success()
    };
    eventually("the cache is healthy", Duration::from_secs(10), || {
        healthy(&keys.environment["REDIS_PASSWORD"])
    });
    assert!(!healthy("another"));
    let asked = Command::new("redis-cli")
        .args(["-p", port, "config", "get", "maxmemory-policy"])
        .env("REDISCLI_AUTH", &keys.environment["REDIS_PASSWORD"])
        .output();
    // The shell would leave it behind.
    let end = Command::new("redis-cli")
        .args(["-p", port, "shutdown", "nosave"])
        .env("REDISCLI_AUTH", &keys.environment["REDIS_PASSWORD"])
        .status();
    assert!(end.unwrap().success());
    assert!(redis.wait().unwrap().success());
    assert!(String::from_utf8(asked.unwrap().stdout).unwrap().contains("allkeys-lru"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "a cache writes nothing");
}

#[test]
fn the_delivery_file_of_the_stack_is_fit_for_production() {
    for file in ["deploy/compose/delivery.toml", "deploy/overlays/production/delivery.toml"] {
        let text = fs::read_to_string(repository().join(file)).unwrap();
        let keys = Keys::write();
        let relay = Relay::builder()
            .env("RELAY_PROFILE", "production")
            .env("RELAY_TOKEN", "a token that nobody has")
            .env("RELAY_ENCRYPTION_KEYS", &keys.environment["OTP_ENCRYPTION_KEYS"])
            .env("RELAY_EVENT_KEYS", &keys.environment["OTP_EVENT_KEYS"]);
        let relay = relay.delivery(&text).start();
        let ready: Value = relay.client().get("/readyz").expect(200);
        assert_eq!(ready["status"], "ready", "{file}");
    }
}
