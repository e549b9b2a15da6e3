//! The overlays of deploy/, as kustomize renders them.

use crate::{schema::Checker, yaml};
use harness::repository;
use serde_json::Value;
use std::{collections::BTreeMap, fs, process::Command, sync::LazyLock};

/// Where everything that can be applied stands.
pub(crate) const OVERLAYS: [&str; 3] = ["development", "production", "in-cluster"];

/// The objects of an overlay.
pub(crate) fn render(overlay: &str) -> Vec<Value> {
    static RENDERED: LazyLock<BTreeMap<&str, Vec<Value>>> =
        LazyLock::new(|| OVERLAYS.map(|overlay| (overlay, rendered(overlay))).into());
    RENDERED[overlay].clone()
}

fn rendered(overlay: &str) -> Vec<Value> {
    let built = fs::read_dir(repository().join(".cache")).unwrap().flatten();
    let built = built.map(|entry| entry.path().join("kustomize")).find(|program| program.is_file());
    let mut render = match built {
        Some(program) => {
            let mut kustomize = Command::new(program);
            kustomize.arg("build");
            kustomize
        }
        None => {
            let mut kubectl = Command::new("kubectl");
            kubectl.arg("kustomize");
            kubectl
        }
    };
    render.arg(repository().join("deploy/overlays").join(overlay));
    let output = render.output().unwrap_or_else(|error| panic!("{error}: run make servers"));
    assert!(output.status.success(), "{overlay}: {}", String::from_utf8_lossy(&output.stderr));
    let objects = yaml::documents(&String::from_utf8(output.stdout).unwrap());
    assert!(objects.len() > 8, "{overlay}");
    objects
}

/// What an object is called, for messages.
pub(crate) fn name(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!("{}/{}", text(&object["kind"]), text(&object["metadata"]["name"]))
}

/// The object of a kind with this name.
#[track_caller]
pub(crate) fn find<'a>(objects: &'a [Value], wanted: &str) -> &'a Value {
    objects.iter().find(|object| name(object) == wanted).unwrap_or_else(|| panic!("there is no {wanted}"))
}

/// What no registry has a schema of: it was held once, by hand, against Strimzi 1.2's own definitions, and the fields that
/// matter are held against ours in `orchestrated`.
const WITHOUT_SCHEMA: &str = "kafka.strimzi.io/v1";

/// What is applied goes in this order, and the operator refuses a SpinApp whose executor it does not know.
#[test]
fn what_others_need_comes_first() {
    for overlay in OVERLAYS {
        let objects: Vec<_> = render(overlay).iter().map(name).collect();
        let place = |kind: &str| {
            objects
                .iter()
                .position(|object| object.starts_with(&format!("{kind}/")))
                .unwrap_or_else(|| panic!("no {kind}"))
        };
        assert_eq!(place("Namespace"), 0, "{overlay}");
        assert!(place("SpinAppExecutor") < place("SpinApp"), "{overlay}: {objects:?}");
    }
}

#[test]
fn every_object_is_what_its_schema_says() {
    let checker = Checker::kubernetes();
    for overlay in OVERLAYS {
        for object in render(overlay) {
            if object["apiVersion"] != WITHOUT_SCHEMA {
                assert_eq!(checker.of_object(&object), None, "{overlay}: {}", name(&object));
            }
        }
    }
    let secret = yaml::file(&repository().join("deploy/secret.example.yaml"));
    assert_eq!(checker.of_object(&secret), None);
}

#[test]
fn what_has_no_schema_is_known() {
    let checker = Checker::kubernetes();
    let mut without: Vec<_> =
        render("in-cluster").iter().filter(|object| !checker.knows(object)).map(name).collect();
    without.sort();
    assert_eq!(
        without,
        [
            "Kafka/spin-otp-kafka",
            "KafkaNodePool/all",
            "KafkaTopic/otp-events",
            "KafkaTopic/otp-events-dlq",
            "KafkaUser/relay"
        ]
    );
}

#[test]
fn a_mistake_is_seen_wherever_it_is() {
    let checker = Checker::kubernetes();
    let objects = render("in-cluster");
    let mistakes: [(&str, &str, Value); 12] = [
        ("Deployment/relay", "/spec/template/spec/containers/0/readinesProbe", "x".into()),
        ("Deployment/relay", "/spec/template/spec/terminationGracePeriodSeconds", "soon".into()),
        ("Deployment/relay", "/metadata/lables", "x".into()),
        ("Service/relay", "/spec/ports/0/targetport", 1.into()),
        ("HorizontalPodAutoscaler/spin-otp", "/spec/maxReplica", 1.into()),
        ("PodDisruptionBudget/relay", "/spec/maxunavailable", 1.into()),
        ("NetworkPolicy/app", "/spec/ingress/0/form", 1.into()),
        ("SpinApp/spin-otp", "/spec/variable", 1.into()),
        ("SpinApp/spin-otp", "/spec/checks/readiness/httpGet/port", 80.into()),
        ("ScaledObject/relay", "/spec/triggers/0/metadata/threshold", 500.into()),
        ("Cluster/spin-otp-postgres", "/spec/instance", 3.into()),
        ("PodMonitor/relay", "/spec/podMetricsEndpoints/0/intervall", "15s".into()),
    ];
    for (object, place, mistake) in mistakes {
        let mut object = find(&objects, object).clone();
        let (parent, field) = place.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap_or_else(|| panic!("{parent}"))[field] = mistake;
        assert!(checker.of_object(&object).is_some(), "{place}");
    }
}
