//! docker-compose.yml, and what it refers to.

use crate::{
    declared::{self, unknown},
    dockerfile::{self, Stage},
    flows::reaches,
    keys::Keys,
    schema::Checker,
    yaml,
};
use harness::repository;
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

const FILE: &str = "docker-compose.yml";
const TRY: &str = "deploy/compose/try.yml";

/// What an operator may set beside the keys, and need not.
const OPTIONS: [&str; 6] = [
    "OTP_ALLOWED_COUNTRIES",
    "OTP_CLIENT_RATE_LIMIT",
    "OTP_DELIVERY_FILE",
    "OTP_GLOBAL_RATE_LIMIT",
    "OTP_LISTEN",
    "OTP_TRUSTED_PROXIES",
];

/// The file as it is written.
pub(crate) fn written() -> Value {
    yaml::file(&repository().join(FILE))
}

/// The file as Compose has it with these keys.
pub(crate) fn with(environment: &BTreeMap<String, String>) -> Result<Value, String> {
    let mut used = BTreeSet::new();
    substitute(&written(), environment, &mut used)
}

/// The services of a file.
pub(crate) fn services(document: &Value) -> &Map<String, Value> {
    document["services"].as_object().unwrap()
}

/// The environment of a service.
pub(crate) fn environment(service: &Value) -> BTreeMap<String, String> {
    let environment = service["environment"].as_object().into_iter().flatten();
    environment
        .map(|(name, value)| {
            // What is no text is not meant: YAML would make 010 or 1e3 something else.
            let value = value.as_str().unwrap_or_else(|| panic!("{name}: {value} is no text; quote it"));
            (name.clone(), value.to_owned())
        })
        .collect()
}

/// Puts in what stands in `${…}`, in the few forms that we use, as the Compose specification says.
fn substitute(
    value: &Value,
    environment: &BTreeMap<String, String>,
    used: &mut BTreeSet<String>,
) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) => Value::String(interpolate(text, environment, used)?),
        Value::Array(items) => {
            items.iter().map(|item| substitute(item, environment, used)).collect::<Result<_, _>>()?
        }
        Value::Object(entries) => {
            let mut object = Map::new();
            for (name, value) in entries {
                object.insert(name.clone(), substitute(value, environment, used)?);
            }
            Value::Object(object)
        }
        other => other.clone(),
    })
}

fn interpolate(
    text: &str,
    environment: &BTreeMap<String, String>,
    used: &mut BTreeSet<String>,
) -> Result<String, String> {
    let (mut rest, mut out) = (text, String::new());
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let inside = after.strip_prefix('{').unwrap_or_else(|| panic!("a bare $ in {text:?}"));
        let (inside, after) = inside.split_once('}').unwrap_or_else(|| panic!("no end in {text:?}"));
        let (name, otherwise) = inside.split_once(':').unwrap_or_else(|| panic!("no default in {text:?}"));
        used.insert(name.to_owned());
        let set = environment.get(name).filter(|value| !value.is_empty());
        match (set, otherwise.split_at(1)) {
            (Some(value), _) => out.push_str(value),
            (None, ("-", default)) => out.push_str(default),
            (None, ("?", message)) => return Err(format!("{name}: {message}")),
            _ => panic!("{text:?} has a form that these tests do not know"),
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// The stage that a service is built from; `None` for one whose image is somebody else's.
fn stage<'a>(service: &Value, stages: &'a [Stage]) -> Option<&'a Stage> {
    let target = service["build"]["target"].as_str()?;
    Some(stages.iter().find(|stage| stage.name == target).unwrap_or_else(|| panic!("no stage {target}")))
}

/// The port that a service listens on.
fn port(name: &str, service: &Value, stages: &[Stage]) -> String {
    match (name, stage(service, stages)) {
        (_, Some(stage)) => stage.last("EXPOSE").to_owned(),
        ("kafka", None) => {
            let listeners = environment(service)["KAFKA_LISTENERS"].clone();
            let first = listeners.split(',').next().unwrap();
            first.strip_prefix("PLAINTEXT://:").unwrap().to_owned()
        }
        // By their images' own defaults.
        ("redis", None) => "6379".to_owned(),
        ("postgres", None) => "5432".to_owned(),
        other => panic!("{other:?}"),
    }
}

/// `host:port` of every address in a service's environment, by the host.
fn addresses(service: &Value) -> BTreeSet<(String, String)> {
    let mut addresses = BTreeSet::new();
    for (name, value) in environment(service) {
        if name.ends_with("_LISTEN") {
            continue;
        }
        let place = match value.split_once("://") {
            Some((_, rest)) => rest.split(['/', '?']).next().unwrap(),
            None if name == "KAFKA_BROKERS" => &value,
            None => continue,
        };
        let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
        let (host, port) = place.rsplit_once(':').unwrap_or_else(|| panic!("{name}: {value}"));
        addresses.insert((host.to_owned(), port.to_owned()));
    }
    addresses
}

#[test]
fn the_files_are_what_the_compose_specification_says() {
    let checker = Checker::compose();
    for file in [FILE, TRY] {
        let document = yaml::file(&repository().join(file));
        assert_eq!(checker.of_compose(&document), None, "{file}");
    }
    assert_eq!(checker.of_compose(&with(&Keys::write().environment).unwrap()), None, "with keys");
}

#[test]
fn what_is_no_compose_file_is_seen_as_such() {
    let checker = Checker::compose();
    let mistakes: [fn(&mut Value); 5] = [
        |document| document["services"]["app"]["helthcheck"] = "x".into(),
        |document| document["services"]["app"]["depends_on"]["redis"]["condition"] = "service_well".into(),
        |document| document["services"]["app"]["read_only"] = 7.into(),
        |document| document["service"] = document["services"].clone(),
        |document| document["services"]["redis"]["healthcheck"]["retry"] = 3.into(),
    ];
    for (index, mistake) in mistakes.iter().enumerate() {
        let mut document = written();
        mistake(&mut document);
        assert!(checker.of_compose(&document).is_some(), "mistake {index}");
    }
}

#[test]
fn without_its_key_nothing_starts() {
    let keys = Keys::write();
    with(&keys.environment).unwrap();
    let said = with(&BTreeMap::new()).unwrap_err();
    assert!(said.contains("run make env first"), "{said}");
    for name in keys.environment.keys() {
        let mut environment = keys.environment.clone();
        environment.insert(name.clone(), String::new());
        let said = with(&environment).unwrap_err();
        assert!(said.starts_with(&format!("{name}: run make env first")), "{said}");
    }
}

#[test]
fn the_keys_that_are_asked_for_are_those_that_are_written() {
    let keys = Keys::write();
    let mut used = BTreeSet::new();
    substitute(&written(), &keys.environment, &mut used).unwrap();
    let options: BTreeSet<_> = OPTIONS.iter().map(ToString::to_string).collect();
    let written: BTreeSet<_> = keys.environment.keys().cloned().collect();
    assert_eq!(used, &written | &options);
}

#[test]
fn a_key_stands_in_the_file_only_where_it_is_put_in() {
    for (service, contents) in services(&written()) {
        for (name, value) in environment(contents) {
            let secret = ["PASSWORD", "KEY", "TOKEN", "AUTH"].iter().any(|word| name.contains(word));
            // No variable, and no secret: it says that there is none to be kept.
            if secret && name != "POSTGRES_INITDB_ARGS" {
                assert!(
                    value.starts_with("${") && value.ends_with("?run make env first}"),
                    "{service}: {name}"
                );
            }
        }
    }
}

#[test]
fn every_variable_is_one_that_its_program_knows() {
    let (of_service, of_relay) = (declared::of_service(), declared::of_relay());
    for file in [FILE, TRY] {
        let document = yaml::file(&repository().join(file));
        let app = environment(&document["services"]["app"]);
        let names: Vec<_> = app
            .keys()
            .map(|name| {
                let variable = name.strip_prefix("SPIN_VARIABLE_");
                variable.unwrap_or_else(|| panic!("{name} is nothing that Spin reads")).to_lowercase()
            })
            .collect();
        assert_eq!(unknown(names.iter().map(String::as_str), &of_service), [""; 0], "{file}");
        let relay = environment(&document["services"]["relay"]);
        assert_eq!(unknown(relay.keys().map(String::as_str), &of_relay), [""; 0], "{file}");
    }
}

#[test]
fn images_are_pinned_and_ours_are_of_this_version() {
    for (name, service) in services(&written()) {
        let image = service["image"].as_str().unwrap();
        let (_, tag) = image.rsplit_once(':').unwrap_or_else(|| panic!("{name}: no tag"));
        match service.get("build") {
            Some(build) => {
                assert_eq!(build["context"], ".", "{name}");
                assert_eq!(tag, declared::version(), "{name}");
            }
            None => assert!(is_pinned(tag), "{name}: {tag}"),
        }
    }
}

/// Whether a tag names a version with at least two parts.
pub(crate) fn is_pinned(tag: &str) -> bool {
    let version = tag.trim_start_matches('v').split('-').next().unwrap();
    let parts: Vec<_> = version.split('.').collect();
    parts.len() >= 2 && parts.iter().all(|part| part.parse::<u32>().is_ok())
}

#[test]
fn a_tag_that_moves_is_not_pinned() {
    for tag in ["latest", "8", "v4", "nonroot", "bookworm-slim", "8-alpine", "edge"] {
        assert!(!is_pinned(tag), "{tag}");
    }
    assert!(is_pinned("v4.1.0") && is_pinned("17.10-alpine3.23") && is_pinned("1.95.0-bookworm"));
}

#[test]
fn only_the_port_of_the_service_is_published_and_on_this_machine_only() {
    let stages = dockerfile::stages();
    let document = with(&Keys::write().environment).unwrap();
    for (name, service) in services(&document) {
        let ports: Vec<_> = service["ports"].as_array().into_iter().flatten().collect();
        if name != "app" {
            assert!(ports.is_empty(), "{name}");
            continue;
        }
        let port = stage(service, &stages).unwrap().last("EXPOSE");
        assert_eq!(ports, [&Value::from(format!("127.0.0.1:3000:{port}"))]);
    }
    let attempt = yaml::file(&repository().join(TRY));
    let port = stages.iter().find(|stage| stage.name == "relay").unwrap().last("EXPOSE");
    assert_eq!(attempt["services"]["relay"]["ports"], serde_json::json!([format!("127.0.0.1:3100:{port}")]));
}

#[test]
fn who_has_something_to_say_to_another_can_and_nobody_else() {
    let document = with(&Keys::write().environment).unwrap();
    let services = services(&document);
    let networks = |service: &Value| -> BTreeSet<String> {
        service["networks"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    let mut met = BTreeSet::new();
    for (name, service) in services {
        for (other, contents) in services.iter().filter(|(other, _)| *other > name) {
            if !networks(service).is_disjoint(&networks(contents)) {
                met.insert((name.as_str(), other.as_str()));
            }
        }
    }
    assert_eq!(met, reaches());
    let used: BTreeSet<_> = services.values().flat_map(networks).collect();
    let declared = document["networks"].as_object().unwrap();
    assert_eq!(used, declared.keys().cloned().collect());
    let outside: Vec<_> = declared
        .iter()
        .filter(|(_, network)| network["internal"] != true)
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(outside, ["front", "out"]);
    for (network, only) in [("front", "app"), ("out", "relay")] {
        let there: Vec<_> = services
            .iter()
            .filter(|(_, service)| networks(service).contains(network))
            .map(|(name, _)| name)
            .collect();
        assert_eq!(there, [only]);
    }
}

#[test]
fn every_address_is_one_where_somebody_listens_who_can_be_reached_and_is_waited_for() {
    let stages = dockerfile::stages();
    let document = with(&Keys::write().environment).unwrap();
    let services = services(&document);
    let mut reached = BTreeSet::new();
    for name in ["app", "relay"] {
        let service = &services[name];
        for (host, number) in addresses(service) {
            let other =
                services.get(&host).unwrap_or_else(|| panic!("{name} calls {host}, and nobody is called so"));
            assert_eq!(number, port(&host, other, &stages), "{name} calls {host}");
            let pair = if name < host.as_str() { (name, host.as_str()) } else { (host.as_str(), name) };
            let pair = reaches().into_iter().find(|known| *known == pair);
            reached.insert(pair.unwrap_or_else(|| panic!("{name} cannot reach {host}")));
            // Service and relay do without each other: events wait, and are fetched.
            if !matches!(host.as_str(), "app" | "relay") {
                assert_eq!(service["depends_on"][&host]["condition"], "service_healthy", "{name}: {host}");
                assert!(other["healthcheck"]["test"].is_array(), "{host}");
            }
        }
    }
    assert_eq!(reached, reaches(), "who may talk to whom, and who does");
    // What a broker calls itself is what the relay is sent to.
    let advertised = &environment(&services["kafka"])["KAFKA_ADVERTISED_LISTENERS"];
    let brokers = &environment(&services["relay"])["KAFKA_BROKERS"];
    assert_eq!(advertised, &format!("PLAINTEXT://{brokers}"));
}

#[test]
fn everything_runs_with_as_little_as_it_can() {
    let stages = dockerfile::stages();
    for (name, service) in services(&written()) {
        assert_eq!(service["cap_drop"], serde_json::json!(["ALL"]), "{name}");
        assert_eq!(service["security_opt"], serde_json::json!(["no-new-privileges:true"]), "{name}");
        assert_eq!(service["restart"], "unless-stopped", "{name}");
        assert!(service.get("privileged").is_none() && service.get("cap_add").is_none(), "{name}");
        assert!(service["mem_limit"].is_string() && service["pids_limit"].is_i64(), "{name}");
        // More than there is, and Docker refuses to start it.
        assert_eq!(service["cpus"], 1, "{name}");
        // Kafka's image writes its own configuration; docker-compose.yml says so.
        assert_eq!(service["read_only"], name != "kafka", "{name}");
        match (stage(service, &stages), service["user"].as_str()) {
            (Some(_), user) => assert_eq!(user, None, "{name}: the Dockerfile says who"),
            // Its image has a user of its own, and says so itself.
            (None, None) => assert_eq!(name, "kafka"),
            (None, Some(user)) => assert!(!matches!(user, "root" | "0"), "{name}"),
        }
    }
}

#[test]
fn what_is_mounted_is_there_and_what_is_ours_cannot_be_changed() {
    let document = with(&Keys::write().environment).unwrap();
    let mut kept = BTreeSet::new();
    for (name, service) in services(&document) {
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let parts: Vec<_> = volume.as_str().unwrap().split(':').collect();
            match parts[..] {
                [source, _, "ro"] => {
                    let path = source.strip_prefix("./").unwrap_or_else(|| panic!("{name}: {source}"));
                    assert!(repository().join(path).is_file(), "{name}: {source}");
                }
                [volume, _] => assert!(kept.insert(volume.to_owned()), "{volume} is somebody else's already"),
                _ => panic!("{name}: {volume}"),
            }
        }
    }
    assert_eq!(kept, document["volumes"].as_object().unwrap().keys().cloned().collect());
    // The relay reads the file where it is mounted.
    let relay = &services(&document)["relay"];
    let mounted = relay["volumes"][0].as_str().unwrap().split(':').nth(1).unwrap();
    assert_eq!(mounted, environment(relay)["RELAY_DELIVERY_FILE"]);
    // And what it writes goes where it may.
    let image = dockerfile::stages().into_iter().find(|stage| stage.name == "relay").unwrap();
    let state = image.last("ENV").split(' ').find_map(|pair| pair.strip_prefix("RELAY_STATE_DIR=")).unwrap();
    let (uid, gid) = image.last("USER").split_once(':').unwrap();
    let expected = format!("{state}:mode=0700,uid={uid},gid={gid},");
    assert!(relay["tmpfs"][0].as_str().unwrap().starts_with(&expected), "{expected}");
}

#[test]
fn the_broker_is_the_one_of_the_tests_and_forgets_before_the_relay_does() {
    let document = written();
    let kafka = &services(&document)["kafka"];
    let pom = fs::read_to_string(repository().join("tests/servers/kafka/pom.xml")).unwrap();
    let (_, rest) = pom.split_once("<kafka.version>").unwrap();
    let version = rest.split_once('<').unwrap().0;
    assert_eq!(kafka["image"], format!("apache/kafka:{version}"));
    let settings = environment(kafka);
    let hours = |name: &str| settings[name].parse::<u64>().unwrap();
    let remembered: u64 = environment(&services(&document)["relay"])["RELAY_REMEMBER_HOURS"].parse().unwrap();
    // A segment is closed when it is that old, and goes when its youngest record is.
    assert!(hours("KAFKA_LOG_RETENTION_HOURS") + hours("KAFKA_LOG_ROLL_HOURS") < remembered);
    assert_eq!(settings["KAFKA_AUTO_CREATE_TOPICS_ENABLE"], "false");
    let volume = kafka["volumes"][0].as_str().unwrap();
    assert_eq!(volume.split_once(':').unwrap().1, settings["KAFKA_LOG_DIRS"]);
}

#[test]
fn trying_it_out_opens_nothing_to_other_machines() {
    let attempt = yaml::file(&repository().join(TRY));
    for (name, service) in services(&attempt) {
        assert!(services(&written()).contains_key(name), "{name}");
        for port in service["ports"].as_array().into_iter().flatten() {
            assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{name}: {port}");
        }
    }
}
