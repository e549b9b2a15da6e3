//! Whether the objects of an overlay fit each other, the programs and the design.

use crate::{
    declared::{self, unknown},
    dockerfile,
    flows::reaches,
    manifests::{OVERLAYS, find, name, render},
    yaml,
};
use harness::{Client, Relay, Service, repository};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The port that the operator has a SpinApp listen on, and that its Service has.
const APP_PORT: i64 = 80;

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

fn container(objects: &[Value]) -> &Value {
    &find(objects, "Deployment/relay")["spec"]["template"]["spec"]["containers"][0]
}

/// The labels of the pods, by who they are.
fn pods(objects: &[Value]) -> BTreeMap<&'static str, Value> {
    let mut pods = BTreeMap::from([
        ("app", find(objects, "SpinApp/spin-otp")["spec"]["podLabels"].clone()),
        ("relay", find(objects, "Deployment/relay")["spec"]["template"]["metadata"]["labels"].clone()),
    ]);
    for cluster in of_kind(objects, "Cluster") {
        pods.insert("postgres", json!({ "cnpg.io/cluster": cluster["metadata"]["name"] }));
    }
    for cluster in of_kind(objects, "Kafka") {
        pods.insert("kafka", json!({ "strimzi.io/cluster": cluster["metadata"]["name"] }));
    }
    pods
}

/// Whether a selector of labels takes these. Those by expressions are none of ours.
fn selects(selector: &Value, labels: &Value) -> bool {
    assert!(selector.get("matchExpressions").is_none(), "{selector}");
    let wanted = selector["matchLabels"].as_object().into_iter().flatten();
    wanted.into_iter().all(|(label, value)| labels[label] == *value)
}

/// The variables of the service with what they are set to, where that stands in the overlay.
fn variables(objects: &[Value]) -> BTreeMap<String, Option<String>> {
    let mut variables = BTreeMap::new();
    for variable in list(&find(objects, "SpinApp/spin-otp")["spec"]["variables"]) {
        let from = &variable["valueFrom"]["configMapKeyRef"];
        let value = match variable["value"].as_str() {
            Some(value) => Some(value.to_owned()),
            None if from.is_object() => {
                let map = find(objects, &format!("ConfigMap/{}", text(&from["name"])));
                let value = &map["data"][text(&from["key"])];
                Some(value.as_str().unwrap_or_else(|| panic!("{from} is not there")).to_owned())
            }
            None => None,
        };
        let new = variables.insert(text(&variable["name"]).to_owned(), value).is_none();
        assert!(new, "{} is there twice", variable["name"]);
    }
    variables
}

/// The environment of the relay, with what stands in the overlay.
fn environment(objects: &[Value]) -> BTreeMap<String, Option<String>> {
    let mut environment = BTreeMap::new();
    for source in list(&container(objects)["envFrom"]) {
        if let Some(map) = source["configMapRef"]["name"].as_str() {
            let map = find(objects, &format!("ConfigMap/{map}"))["data"].as_object().unwrap();
            environment.extend(map.iter().map(|(name, value)| (name.clone(), Some(text(value).to_owned()))));
        }
    }
    // What is named one by one goes first.
    for variable in list(&container(objects)["env"]) {
        environment.insert(text(&variable["name"]).to_owned(), variable["value"].as_str().map(str::to_owned));
    }
    environment
}

/// Every Secret that is referred to, with the key.
fn secrets(value: &Value, found: &mut BTreeSet<(String, String)>) {
    if let Some(reference) = value.get("secretKeyRef") {
        found.insert((text(&reference["name"]).to_owned(), text(&reference["key"]).to_owned()));
    }
    if let Some(secret) = value.get("secret").filter(|secret| secret["secretName"].is_string()) {
        for item in list(&secret["items"]) {
            found.insert((text(&secret["secretName"]).to_owned(), text(&item["key"]).to_owned()));
        }
        assert!(!list(&secret["items"]).is_empty(), "all of {secret} is mounted");
    }
    match value {
        Value::Object(fields) => fields.values().for_each(|field| secrets(field, found)),
        Value::Array(items) => items.iter().for_each(|item| secrets(item, found)),
        _ => {}
    }
}

#[test]
fn every_variable_is_one_that_its_program_knows() {
    let (of_service, of_relay) = (declared::of_service(), declared::of_relay());
    for overlay in OVERLAYS {
        let objects = render(overlay);
        let set = variables(&objects);
        assert_eq!(unknown(set.keys().map(String::as_str), &of_service), [""; 0], "{overlay}");
        let set = environment(&objects);
        // Part of an address, and read by nobody but Kubernetes.
        let read = set.keys().map(String::as_str).filter(|name| *name != "LEDGER_PASSWORD");
        assert_eq!(unknown(read, &of_relay), [""; 0], "{overlay}");
    }
}

#[test]
fn every_secret_is_in_the_example_or_made_by_an_operator() {
    let example = yaml::file(&repository().join("deploy/secret.example.yaml"));
    let example_name = text(&example["metadata"]["name"]);
    for overlay in OVERLAYS {
        let objects = render(overlay);
        let mut referred = BTreeSet::new();
        objects.iter().for_each(|object| secrets(object, &mut referred));
        let ours: BTreeSet<_> =
            referred.iter().filter(|(name, _)| name == example_name).map(|(_, key)| key.clone()).collect();
        let known: BTreeSet<_> = example["stringData"].as_object().unwrap().keys().cloned().collect();
        assert!(ours.is_subset(&known), "{overlay}: {ours:?}");
        if overlay == "production" {
            assert_eq!(ours, known, "a key that nobody needs");
        }
        for (name, key) in referred.iter().filter(|(name, _)| name != example_name) {
            let made = match (name.as_str(), key.as_str()) {
                // CloudNativePG makes <cluster>-<owner> called -app, and <cluster>-ca.
                ("spin-otp-postgres-app", "password") | ("spin-otp-postgres-ca", "ca.crt") => {
                    "Cluster/spin-otp-postgres"
                }
                // That one the operator asks for: its role has it, too.
                ("spin-otp-postgres-relay", "password") => {
                    let role = &find(&objects, "Cluster/spin-otp-postgres")["spec"]["managed"]["roles"][0];
                    assert_eq!(role["passwordSecret"]["name"], name.as_str());
                    "Database/spin-otp-postgres-relay"
                }
                // Strimzi makes one of a user's name, and <cluster>-cluster-ca-cert.
                ("relay", "password") => "KafkaUser/relay",
                ("spin-otp-kafka-cluster-ca-cert", "ca.crt") => "Kafka/spin-otp-kafka",
                other => panic!("{overlay}: nobody makes {other:?}"),
            };
            find(&objects, made);
        }
    }
}

#[test]
fn in_production_all_is_set_that_production_asks_for() {
    for overlay in ["production", "in-cluster"] {
        let objects = render(overlay);
        let set = variables(&objects);
        let value = |name: &str| set[name].as_deref();
        assert_eq!(value("profile"), Some("production"));
        assert_eq!(value("reveal_otp"), Some("false"));
        assert!(!set.contains_key("allow_remote_development") && !set.contains_key("otp_length"));
        for secret in [
            "encryption_keys",
            "event_keys",
            "index_key",
            "api_keys",
            "relay_token",
            "redis_password",
            "postgres_password",
        ] {
            assert_eq!(value(secret), None, "{secret} is written down");
        }
        for endpoint in ["redis_endpoint", "postgres_endpoint", "relay_url"] {
            assert!(value(endpoint).is_some_and(|endpoint| !endpoint.is_empty()), "{endpoint}");
        }
        // TLS is asked for wherever it is not taken away.
        assert!(!set.contains_key("postgres_tls"));
        let relay = environment(&objects);
        let value = |name: &str| relay[name].as_deref().unwrap_or_default();
        assert_eq!(value("RELAY_PROFILE"), "production");
        assert_eq!(value("KAFKA_TLS"), "true");
        assert!(!value("KAFKA_BROKERS").is_empty());
        for secret in ["RELAY_TOKEN", "RELAY_ENCRYPTION_KEYS", "RELAY_EVENT_KEYS"] {
            assert!(relay[secret].is_none(), "{secret} is written down");
        }
    }
}

#[test]
fn service_and_relay_know_each_other_and_share_what_they_have_to() {
    for overlay in OVERLAYS {
        let objects = render(overlay);
        let app = list(&find(&objects, "SpinApp/spin-otp")["spec"]["variables"]).iter();
        let of_app = |wanted: &str| {
            app.clone().find(|variable| variable["name"] == wanted).unwrap()["valueFrom"].clone()
        };
        let relay = list(&container(&objects)["env"]);
        let of_relay = |wanted: &str| {
            relay.iter().find(|variable| variable["name"] == wanted).unwrap()["valueFrom"].clone()
        };
        assert_eq!(of_app("relay_token"), of_relay("RELAY_TOKEN"));
        assert_eq!(of_app("encryption_keys"), of_relay("RELAY_ENCRYPTION_KEYS"));
        assert_eq!(of_app("event_keys"), of_relay("RELAY_EVENT_KEYS"));
        // Each calls the other's Service, at a port that it has.
        let service = find(&objects, "Service/relay");
        let port = &service["spec"]["ports"][0];
        assert_eq!(variables(&objects)["relay_url"], Some(format!("http://relay:{}", port["port"])));
        let url = environment(&objects)["RELAY_COMPONENT_URL"].clone().unwrap();
        let app = find(&objects, "SpinApp/spin-otp")["metadata"]["name"].as_str().unwrap();
        assert_eq!(url, format!("http://{app}:{APP_PORT}"));
        // And the Service leads to a port of the pods that it selects.
        let labels = &pods(&objects)["relay"];
        let selector = json!({ "matchLabels": service["spec"]["selector"] });
        assert!(selects(&selector, labels) && !selects(&selector, &pods(&objects)["app"]));
        assert!(list(&container(&objects)["ports"]).iter().any(|open| open["name"] == port["targetPort"]));
        let listen = environment(&objects)["RELAY_LISTEN"].clone().unwrap();
        assert_eq!(listen, format!("0.0.0.0:{}", container(&objects)["ports"][0]["containerPort"]));
    }
}

#[test]
fn selectors_select_what_they_are_meant_for() {
    for overlay in OVERLAYS {
        let objects = render(overlay);
        let pods = pods(&objects);
        let deployment = &find(&objects, "Deployment/relay")["spec"];
        assert_eq!(deployment["selector"]["matchLabels"], pods["relay"]);
        let mut expected =
            BTreeMap::from([("PodDisruptionBudget/relay", "relay"), ("PodMonitor/relay", "relay")]);
        expected.insert("PodDisruptionBudget/spin-otp", "app");
        for object in objects.iter().filter(|object| expected.contains_key(name(object).as_str())) {
            let only = expected[name(object).as_str()];
            for (pod, labels) in &pods {
                assert_eq!(
                    selects(&object["spec"]["selector"], labels),
                    *pod == only,
                    "{}: {pod}",
                    name(object)
                );
            }
        }
        for object in &objects {
            // What is of the cluster as a whole has none.
            let expected = if object["kind"] == "Namespace" { Value::Null } else { json!("spin-otp") };
            assert_eq!(object["metadata"]["namespace"], expected, "{}", name(object));
        }
    }
}

#[test]
fn probes_ask_what_is_answered() {
    let (relay, service) = (Relay::start(), Service::start());
    let answers = |client: &Client, probe: &Value| {
        let path = text(&probe["httpGet"]["path"]);
        assert_eq!(client.get(path).status, 200, "{path}");
    };
    for overlay in OVERLAYS {
        let objects = render(overlay);
        let checks = &find(&objects, "SpinApp/spin-otp")["spec"]["checks"];
        let (live, ready) = (&checks["liveness"], &checks["readiness"]);
        assert_eq!(
            (text(&live["httpGet"]["path"]), text(&ready["httpGet"]["path"])),
            ("/healthz", "/readyz")
        );
        answers(&service.client(), live);
        answers(&service.client(), ready);
        // Shorter than its own deadline, and a slow database would take the service out.
        assert!(ready["timeoutSeconds"].as_i64().unwrap() > 3);
        let container = container(&objects);
        for (probe, path) in
            [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")]
        {
            let probe = &container[probe];
            assert_eq!(probe["httpGet"]["path"], path);
            assert_eq!(probe["httpGet"]["port"], container["ports"][0]["name"]);
            answers(&relay.client(), probe);
        }
    }
}

#[test]
fn in_the_development_overlay_kubelet_and_the_relay_are_answered() {
    let objects = render("development");
    let set = variables(&objects);
    let service = set.iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
    // What other machines are called by is all that makes them other machines here.
    let service = service.filter(|(name, _)| *name != "relay_url");
    let service =
        service.fold(Service::builder(), |builder, (name, value)| builder.variable(name, value)).start();
    let answer = service.client().raw("GET /readyz HTTP/1.1\nhost: 10.4.0.7:80", "");
    assert_eq!(answer.status, 200, "{}", answer.json());
}

#[test]
fn what_scales_is_there_and_what_is_asked_is_exported() {
    let relay = Relay::start();
    let exported = relay.client().get("/metrics").body;
    let exported = String::from_utf8_lossy(&exported).into_owned();
    let help = declared::relay().args(["serve", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let (_, rest) = help.split_once("--kafka-partitions").unwrap();
    let partitions: i64 =
        rest.split("[default: ").nth(1).unwrap().split(']').next().unwrap().parse().unwrap();
    for overlay in ["production", "in-cluster"] {
        let objects = render(overlay);
        let autoscaler = &find(&objects, "HorizontalPodAutoscaler/spin-otp")["spec"];
        let app = find(&objects, "SpinApp/spin-otp");
        // The operator names the Deployment like the SpinApp, and leaves it alone if told so.
        assert_eq!(autoscaler["scaleTargetRef"]["name"], app["metadata"]["name"]);
        assert_eq!(app["spec"]["enableAutoscaling"], true);
        assert!(app["spec"].get("replicas").is_none(), "the operator refuses both");
        assert!(app["spec"]["resources"]["requests"]["cpu"].is_string());

        let scaled = &find(&objects, "ScaledObject/relay")["spec"];
        assert_eq!(name(find(&objects, "Deployment/relay")), "Deployment/relay");
        assert_eq!(scaled["scaleTargetRef"]["name"], "relay");
        assert!(find(&objects, "Deployment/relay")["spec"].get("replicas").is_none(), "it would be set back");
        assert_eq!(scaled["maxReplicaCount"], partitions, "one for each partition, and none to spare");
        for topic in of_kind(&objects, "KafkaTopic") {
            assert_eq!(topic["spec"]["partitions"], partitions);
        }
        let query = text(&scaled["triggers"][0]["metadata"]["query"]);
        let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let metrics: Vec<_> = words.filter(|word| word.starts_with("spin_otp_relay")).collect();
        assert_eq!(metrics.len(), 1, "{query}");
        let is_exported = |metric: &str| {
            // One with labels and no value yet shows nothing: then the source has to name it.
            let short = metric.strip_prefix("spin_otp_relay_").unwrap();
            let source = std::fs::read_to_string(repository().join("relay/src/metrics.rs")).unwrap();
            exported.contains(&format!("# TYPE {metric} gauge"))
                || source.contains(&format!("\"{metric}\""))
                || source.contains(&format!("\"{short}\""))
        };
        assert!(is_exported(metrics[0]), "{query}");
        assert!(!is_exported("spin_otp_relay_made_up"));
        let namespace = text(&find(&objects, "Deployment/relay")["metadata"]["namespace"]);
        assert!(query.contains(&format!("namespace=\"{namespace}\"")), "{query}");
        // Who scrapes comes in by the port that is monitored.
        let endpoint = &find(&objects, "PodMonitor/relay")["spec"]["podMetricsEndpoints"][0];
        assert_eq!(endpoint["port"], container(&objects)["ports"][0]["name"]);
        assert_eq!(relay.client().get(text(&endpoint["path"])).status, 200);
        // Under the name by which the alerts know them.
        let job = text(&endpoint["relabelings"][0]["replacement"]);
        let alerts = std::fs::read_to_string(repository().join("deploy/observability/alerts.yaml")).unwrap();
        assert!(alerts.contains(&format!("up{{job=\"{job}\"}}")), "{job}");
        assert_eq!(endpoint["relabelings"][0]["targetLabel"], "job");
    }
}

#[test]
fn postgres_has_room_for_all_that_may_be_started() {
    // Of an instance of the service in Spin, and in our host; of a relay, with its heartbeat.
    let (service, relay) = (64, 10 + 1);
    let in_cluster = render("in-cluster");
    let most = |object: &str, field: &str| find(&in_cluster, object)["spec"][field].as_i64().unwrap();
    // One more of each while a new version is rolled out, and some for the operator and for people.
    let wanted = service * (most("HorizontalPodAutoscaler/spin-otp", "maxReplicas") + 1)
        + relay * (most("ScaledObject/relay", "maxReplicaCount") + 1)
        + 20;
    let parameters = &find(&in_cluster, "Cluster/spin-otp-postgres")["spec"]["postgresql"]["parameters"];
    let room: i64 = text(&parameters["max_connections"]).parse().unwrap();
    assert!(wanted <= room, "{wanted} connections of {room}");
}

/// Who may go where, of the pods that there are: from, to, port.
type Flow<'a> = (&'a str, &'a str, i64);

/// What one side of the policies lets through between pods: everything that some policy allows, if any applies.
fn allowed<'a>(
    objects: &[Value],
    pods: &BTreeMap<&'a str, Value>,
    side: (&str, &str, &str),
) -> BTreeSet<Flow<'a>> {
    let (kind, rules, peers) = side;
    let mut flows = BTreeSet::new();
    for policy in of_kind(objects, "NetworkPolicy") {
        let spec = &policy["spec"];
        if !list(&spec["policyTypes"]).contains(&json!(kind)) {
            assert!(spec.get(rules).is_none(), "{}: rules of no effect", name(policy));
            continue;
        }
        for (own, _) in pods.iter().filter(|(_, labels)| selects(&spec["podSelector"], labels)) {
            for rule in list(&spec[rules]) {
                assert!(!list(&rule[peers]).is_empty() && !list(&rule["ports"]).is_empty(), "all is open");
                for peer in list(&rule[peers]).iter().filter(|peer| peer.get("namespaceSelector").is_none()) {
                    let Some(selector) = peer.get("podSelector") else { continue };
                    let others: Vec<_> =
                        pods.iter().filter(|(_, labels)| selects(selector, labels)).collect();
                    assert!(!others.is_empty(), "{}: {selector} selects nobody", name(policy));
                    for (other, _) in others {
                        for port in list(&rule["ports"]) {
                            let port = port["port"].as_i64().unwrap();
                            let (from, to) = if kind == "Egress" { (own, other) } else { (other, own) };
                            flows.insert((*from, *to, port));
                        }
                    }
                }
            }
        }
    }
    flows
}

#[test]
fn the_network_lets_through_what_the_design_has_and_nothing_else() {
    for overlay in OVERLAYS {
        let objects = render(overlay);
        let pods = pods(&objects);
        for (who, labels) in pods.iter().filter(|(who, _)| matches!(**who, "app" | "relay")) {
            let closed = of_kind(&objects, "NetworkPolicy").into_iter().find(|policy| {
                let spec = &policy["spec"];
                selects(&spec["podSelector"], labels)
                    && spec["policyTypes"] == json!(["Ingress", "Egress"])
                    && spec.get("ingress").is_none()
                    && spec.get("egress").is_none()
            });
            assert!(closed.is_some(), "{overlay}: {who} is open to begin with");
        }
        let out = allowed(&objects, &pods, ("Egress", "egress", "to"));
        let into = allowed(&objects, &pods, ("Ingress", "ingress", "from"));
        let relay_port = container(&objects)["ports"][0]["containerPort"].as_i64().unwrap();
        let mut expected = BTreeSet::from([("app", "relay", relay_port), ("relay", "app", APP_PORT)]);
        assert_eq!(into, expected, "{overlay}: into");
        if overlay == "in-cluster" {
            expected.extend([
                ("app", "postgres", 5432),
                ("relay", "postgres", 5432),
                ("relay", "kafka", 9093),
            ]);
        }
        assert_eq!(out, expected, "{overlay}: out");
        // Every pair is one of the design's.
        for (from, to, _) in expected {
            assert!(reaches().contains(&(from.min(to), from.max(to))), "{from} {to}");
        }
    }
}

#[test]
fn what_is_called_outside_of_the_cluster_is_let_out_to() {
    let objects = render("production");
    let ports_out = |who: &str| -> BTreeSet<i64> {
        let labels = &pods(&objects)[who];
        let policies = of_kind(&objects, "NetworkPolicy").into_iter();
        let policies = policies.filter(|policy| selects(&policy["spec"]["podSelector"], labels));
        let rules = policies.flat_map(|policy| list(&policy["spec"]["egress"]).iter());
        let rules = rules.filter(|rule| list(&rule["to"]).iter().any(|peer| peer.get("ipBlock").is_some()));
        rules
            .flat_map(|rule| list(&rule["ports"]).iter().map(|port| port["port"].as_i64().unwrap()))
            .collect()
    };
    let port = |address: &str| -> i64 { address.rsplit_once(':').unwrap().1.parse().unwrap() };
    let set = variables(&objects);
    let app: BTreeSet<_> =
        ["redis_endpoint", "postgres_endpoint"].map(|name| port(set[name].as_deref().unwrap())).into();
    // And the registry, which Spin in a container fetches the application from.
    assert_eq!(ports_out("app"), &app | &BTreeSet::from([443]));
    let brokers = environment(&objects)["KAFKA_BROKERS"].clone().unwrap();
    let state = BTreeSet::from([5432, port(&brokers)]);
    assert_eq!(ports_out("relay"), &state | &BTreeSet::from([443, 465, 587]));
    // Names have to be found, too.
    let names = find(&objects, "NetworkPolicy/names");
    assert!(pods(&objects).values().all(|labels| selects(&names["spec"]["podSelector"], labels)));
    assert_eq!(names["spec"]["egress"][0]["ports"][0]["port"], 53);
}

#[test]
fn the_relay_runs_with_as_little_as_it_can() {
    let image = dockerfile::stages().into_iter().find(|stage| stage.name == "relay").unwrap();
    for overlay in OVERLAYS {
        let objects = render(overlay);
        let pod = &find(&objects, "Deployment/relay")["spec"]["template"]["spec"];
        let user =
            format!("{}:{}", pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsGroup"]);
        assert_eq!(user, image.last("USER"));
        // The level "restricted" of the Pod Security Standards.
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        let own = &container(&objects)["securityContext"];
        assert_eq!(own["allowPrivilegeEscalation"], false);
        assert_eq!(own["capabilities"]["drop"], json!(["ALL"]));
        assert_eq!(own["readOnlyRootFilesystem"], true);
        assert_eq!(pod["automountServiceAccountToken"], false);
        // 7 s for the intake, 15 s for the rest, 2 s for the ledger.
        assert!(pod["terminationGracePeriodSeconds"].as_i64().unwrap() > 24);
        let arguments: Vec<_> = list(&container(&objects)["args"]).iter().map(text).collect();
        assert_eq!(arguments, image.exec("CMD"));
    }
}

#[test]
fn what_is_mounted_is_a_volume_and_what_is_read_is_mounted() {
    for overlay in OVERLAYS {
        let objects = render(overlay);
        let pod = &find(&objects, "Deployment/relay")["spec"]["template"]["spec"];
        let volumes: BTreeSet<_> = list(&pod["volumes"]).iter().map(|volume| text(&volume["name"])).collect();
        let mounts = list(&container(&objects)["volumeMounts"]);
        assert_eq!(volumes, mounts.iter().map(|mount| text(&mount["name"])).collect(), "{overlay}");
        let mounted = |file: &str| {
            mounts.iter().any(|mount| {
                file == mount["mountPath"] || file.starts_with(&format!("{}/", text(&mount["mountPath"])))
            })
        };
        let set = environment(&objects);
        let value = |name: &str| set.get(name).cloned().flatten();
        for name in ["RELAY_DELIVERY_FILE", "KAFKA_CA_FILE", "RELAY_STATE_DIR"] {
            assert!(value(name).is_none_or(|file| mounted(&file)), "{overlay}: {name}");
        }
        if let Some(url) = value("RELAY_DATABASE_URL") {
            let file = url.split("sslrootcert=").nth(1).unwrap();
            assert!(mounted(file), "{file}");
            let folder = mounts.iter().find(|mount| file.starts_with(text(&mount["mountPath"]))).unwrap();
            let volume =
                list(&pod["volumes"]).iter().find(|volume| volume["name"] == folder["name"]).unwrap();
            assert!(file.ends_with(&format!("/{}", text(&volume["secret"]["items"][0]["path"]))), "{volume}");
            assert!(url.contains("sslmode=verify-full"));
            // Kubernetes puts in what was named before.
            let order =
                |wanted: &str| list(&container(&objects)["env"]).iter().position(|one| one["name"] == wanted);
            assert!(order("LEDGER_PASSWORD").unwrap() < order("RELAY_DATABASE_URL").unwrap());
        }
    }
}

#[test]
fn the_executor_is_the_one_that_is_there_and_of_the_spin_of_the_image() {
    let app = dockerfile::stages().into_iter().find(|stage| stage.name == "app").unwrap();
    for overlay in OVERLAYS {
        let objects = render(overlay);
        let executors = of_kind(&objects, "SpinAppExecutor");
        assert_eq!(executors.len(), 1);
        let wanted = &find(&objects, "SpinApp/spin-otp")["spec"]["executor"];
        assert_eq!(&executors[0]["metadata"]["name"], wanted);
        let config = &executors[0]["spec"]["deploymentConfig"];
        // One or the other: the operator takes the first that it finds.
        match config.get("spinImage") {
            Some(image) => {
                assert!(config.get("runtimeClassName").is_none());
                assert_eq!(*image, app.base);
            }
            None => assert!(config["runtimeClassName"].is_string()),
        }
    }
}

#[test]
fn images_are_of_this_version_and_named_by_the_overlay() {
    for overlay in OVERLAYS {
        let objects = render(overlay);
        let images =
            [&find(&objects, "SpinApp/spin-otp")["spec"]["image"], &container(&objects)["image"]].map(text);
        let expected = ["spin-otp", "spin-otp-relay"]
            .map(|image| format!("registry.example/{image}:{}", declared::version()));
        assert_eq!(images, expected.each_ref().map(String::as_str), "{overlay}");
    }
    // kustomize leaves alone what it does not know as an image.
    let base = yaml::file(&repository().join("deploy/overlays/production/kustomization.yaml"));
    let images: Vec<_> = list(&base["images"]).iter().map(|image| text(&image["name"])).collect();
    assert_eq!(images, ["registry.example/spin-otp", "registry.example/spin-otp-relay"]);
}

#[test]
fn topics_forget_before_the_relay_does() {
    let objects = render("in-cluster");
    let remembered: i64 = environment(&objects)["RELAY_REMEMBER_HOURS"].clone().unwrap().parse().unwrap();
    let set = environment(&objects);
    let user = find(&objects, "KafkaUser/relay");
    assert_eq!(set["KAFKA_SASL_USERNAME"].as_deref(), user["metadata"]["name"].as_str());
    assert_eq!(
        set["KAFKA_SASL_MECHANISM"].as_deref().unwrap().to_lowercase(),
        text(&user["spec"]["authentication"]["type"])
    );
    let topics = of_kind(&objects, "KafkaTopic");
    assert_eq!(topics.len(), 2);
    let prefix = text(&user["spec"]["authorization"]["acls"][0]["resource"]["name"]);
    for topic in topics {
        let config = &topic["spec"]["config"];
        let kept = config["retention.ms"].as_i64().unwrap() + config["segment.ms"].as_i64().unwrap();
        assert!(kept < remembered * 3_600_000, "{}", name(topic));
        assert!(text(&topic["metadata"]["name"]).starts_with(prefix));
        assert_eq!(
            topic["metadata"]["labels"]["strimzi.io/cluster"],
            find(&objects, "Kafka/spin-otp-kafka")["metadata"]["name"]
        );
    }
    // Their names are the relay's defaults.
    let help = declared::relay().args(["serve", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for topic in ["otp-events", "otp-events-dlq"] {
        find(&objects, &format!("KafkaTopic/{topic}"));
        assert!(help.contains(&format!("[default: {topic}]")));
    }
    // The listener is where the relay is sent to.
    let listener = &find(&objects, "Kafka/spin-otp-kafka")["spec"]["kafka"]["listeners"][0];
    assert_eq!(set["KAFKA_BROKERS"], Some(format!("spin-otp-kafka-kafka-bootstrap:{}", listener["port"])));
    assert_eq!(listener["tls"], true);
    assert_eq!(listener["authentication"]["type"], user["spec"]["authentication"]["type"]);
}
