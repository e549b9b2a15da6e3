//! Metrics as they come from a run with traffic, and what the dashboard and the alerts make of them.

use crate::{SOON, Stack, Stacked, file};
use harness::{Kafka, Prometheus, Relay, SmsProvider, eventually, number, promtool};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fs, path::Path};

/// As alerts and dashboard expect it.
const JOB: &str = "spin-otp-relay";

/// A stack over Kafka that has seen something of everything that there is to see.
fn with_traffic(kafka: &Kafka, gateway: &SmsProvider) -> Stack {
    let delivery = format!(
        "[channels]\nsms = [\"gateway\"]\n[providers.gateway]\nkind = \"webhook\"\nurl = \"{}\"\n\
         secret = \"fedcba9876543210fedcba9876543210\"\n",
        gateway.url()
    );
    let relay = Relay::builder().delivery(&delivery).env("KAFKA_BROKERS", kafka.brokers());
    let stack = Stacked { relay, ..Stacked::default() }.start();
    eventually("readiness", SOON, || stack.relay.client().get("/readyz").status == 200);
    stack
}

fn make_traffic(stack: &Stack) {
    let client = stack.service.client();
    for _ in 0..3 {
        let number = number();
        let code = client.generate(&number)["otp"].as_str().unwrap().to_owned();
        client.resend(&number).expect(200);
        let wrong = if code == "123456" { "654321" } else { "123456" };
        client.verify(&number, wrong).expect_problem(422, "otp_mismatch");
        client.verify(&number, &code).expect(200);
        // Nobody uses this one, so that it is delivered whenever its time comes.
        client.generate(&harness::number());
    }
    let number = number();
    for _ in 0..6 {
        client.try_generate(&number);
    }
}

fn scrape(relay: &Relay) -> String {
    String::from_utf8(relay.client().get("/metrics").body).unwrap()
}

/// The value of all lines that begin so.
fn total(text: &str, begin: &str) -> f64 {
    let lines = text.lines().filter(|line| line.starts_with(begin));
    lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

fn dashboard() -> Value {
    serde_json::from_str(&fs::read_to_string(file("dashboard.json")).unwrap()).unwrap()
}

/// Panels that show something.
fn panels(dashboard: &Value) -> Vec<Value> {
    let panels = dashboard["panels"].as_array().unwrap();
    panels.iter().filter(|panel| panel["type"] != "row").cloned().collect()
}

/// The dashboard's expressions, with what Grafana would fill in, and the panel of each.
fn shown(dashboard: &Value) -> Vec<(String, String)> {
    let of_panel = |panel: &Value| -> Vec<(String, String)> {
        let title = panel["title"].as_str().unwrap().to_owned();
        let targets = panel["targets"].as_array().unwrap();
        let filled = |target: &Value| {
            let expression = target["expr"].as_str().unwrap();
            let filled = expression.replace("$__rate_interval", "5s");
            let filled = filled.replace("$job", JOB).replace("$instance", ".*");
            assert!(!filled.contains('$'), "{title}: {expression}");
            (title.clone(), filled)
        };
        targets.iter().map(filled).collect()
    };
    panels(dashboard).iter().flat_map(of_panel).collect()
}

/// The selectors of an expression: names of metrics, with what is asked of their labels.
fn selectors(expression: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = BTreeSet::new();
    let mut rest = expression;
    while let Some(start) = rest.find(is_name) {
        let word = &rest[start..];
        let (name, after) = word.split_at(word.find(|c| !is_name(c)).unwrap_or(word.len()));
        rest = after;
        let labels = after.strip_prefix('{').and_then(|labels| labels.split_once('}'));
        if let Some((_, behind)) = labels {
            rest = behind;
        }
        let known = ["spin_otp_relay_", "http_server_", "process_"];
        if name == "up" || known.iter().any(|prefix| name.starts_with(prefix)) {
            let labels = labels.map(|(labels, _)| format!("{{{labels}}}")).unwrap_or_default();
            found.insert(format!("{name}{labels}"));
        } else if let Some(quoted) = rest.strip_prefix('"') {
            rest = quoted.split_once('"').map_or("", |(_, behind)| behind);
        }
    }
    found
}

#[test]
fn dashboard_and_alerts_work_on_the_metrics_of_a_real_run() {
    let (kafka, gateway) = (Kafka::start(), SmsProvider::start());
    let stack = with_traffic(&kafka, &gateway);
    let prometheus = Prometheus::scraping(stack.relay.address(), JOB, &file("alerts.yaml"));
    gateway.answer_next(1, 503);
    // Two rounds, each seen by Prometheus: what has not grown shows nothing.
    for sends in [3.0, 6.0] {
        make_traffic(&stack);
        eventually("deliveries", SOON, || {
            total(&scrape(&stack.relay), "spin_otp_relay_delivered_total") >= sends
        });
        let counted = format!("spin_otp_relay_delivered_total{{job=\"{JOB}\"}} >= {sends}");
        eventually("a scrape", SOON, || !prometheus.query(&counted).unwrap().is_empty());
    }

    let text = scrape(&stack.relay);
    let checked = promtool(Path::new("."), &["check", "metrics"], text.as_bytes());
    let complaints = [checked.stdout, checked.stderr].concat();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&complaints));
    assert_eq!(String::from_utf8_lossy(&complaints), "");

    let shown = shown(&dashboard());
    let rules = prometheus.rules();
    let asked = rules.iter().map(|rule| (rule["name"].as_str().unwrap(), rule["query"].as_str().unwrap()));
    let asked = asked.chain(shown.iter().map(|(title, expression)| (title.as_str(), expression.as_str())));
    for (title, expression) in asked {
        let selectors = selectors(expression);
        assert!(!selectors.is_empty(), "{title}: {expression}");
        for selector in selectors {
            let series = prometheus.query(&selector).unwrap_or_else(|error| panic!("{title}: {error}"));
            assert!(!series.is_empty(), "{title}: nothing is {selector}:\n{text}");
        }
    }
    for (title, expression) in &shown {
        let series = prometheus.query(expression).unwrap_or_else(|error| panic!("{title}: {error}"));
        assert!(!series.is_empty(), "{title}: {expression} shows nothing:\n{text}");
    }
    eventually("an evaluation of all rules", SOON, || {
        prometheus.rules().iter().all(|rule| rule["health"] == "ok")
    });
    assert!(rules.len() >= 15);
    let value = |expression: &str| {
        let series = prometheus.query(expression).unwrap();
        series[0]["value"][1].as_str().unwrap().parse::<f64>().unwrap()
    };
    assert_eq!(value("sum(spin_otp_relay_bus_up)"), 1.0);
    assert_eq!(value("sum(spin_otp_relay_component_up)"), 1.0);
    // What was verified last may come after what is delivered, and after that scrape.
    let verified = "sum(spin_otp_relay_events_total{type=\"otp.verified.v1\"})";
    eventually("all that was verified", SOON, || value(verified) >= 6.0);
    assert_eq!(value(verified), 6.0);
    assert!(value("sum(spin_otp_relay_failed_total{provider=\"gateway\"})") >= 1.0);
}

#[test]
fn every_rule_is_right_by_promtool_and_fires_when_it_should_and_only_then() {
    let folder = file("");
    for arguments in [&["check", "rules", "alerts.yaml"][..], &["test", "rules", "alerts_test.yaml"]] {
        let run = promtool(&folder, arguments, b"");
        let said = String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned();
        assert!(run.status.success(), "promtool {arguments:?}: {said}");
    }
    let tests = fs::read_to_string(file("alerts_test.yaml")).unwrap();
    for alert in crate::manual::alerts() {
        for what in ["fires", "is silent"] {
            assert!(tests.contains(&format!("- name: {alert} {what}\n")), "no test that {alert} {what}");
        }
    }
}

#[test]
fn the_relay_says_what_lag_it_has_and_that_it_is_gone() {
    let (kafka, gateway) = (Kafka::start(), SmsProvider::start());
    let stack = with_traffic(&kafka, &gateway);
    make_traffic(&stack);
    eventually("consumption", SOON, || {
        let text = scrape(&stack.relay);
        total(&text, "spin_otp_relay_consumed_total") >= 10.0
            && text.matches("spin_otp_relay_consumer_lag{partition=").count() == 12
            && total(&text, "spin_otp_relay_consumer_lag{") == 0.0
            && total(&text, "spin_otp_relay_consumer_lag_seconds{") == 0.0
    });
}

#[test]
fn answers_are_timed_by_method_route_and_status_and_nobody_makes_up_more() {
    let relay = Relay::start();
    let client = relay.client();
    client.get("/deliveries/0198c7a4-0000-7000-8000-000000000000");
    client.get("/deliveries/somebody-s");
    client.get("/no/such/path");
    client.send("BREW", "/coffee/pot", &[], b"");
    client.post("/events", &json!([])).expect(200);
    let text = scrape(&relay);
    let count = |method: &str, route: &str, status: u16| {
        let labels = format!(
            "http_server_request_duration_seconds_count{{http_request_method=\"{method}\",\
             http_response_status_code=\"{status}\",http_route=\"{route}\"}}"
        );
        total(&text, &labels)
    };
    assert_eq!(count("GET", "/deliveries/{otp_id}", 404), 2.0, "{text}");
    assert_eq!(count("GET", "", 404), 1.0, "{text}");
    assert_eq!(count("_OTHER", "", 404), 1.0, "{text}");
    assert_eq!(count("POST", "/events", 200), 1.0, "{text}");
    for made_up in ["coffee", "BREW", "somebody-s", "0198c7a4"] {
        assert!(!text.contains(made_up), "{made_up}: {text}");
    }
}

#[test]
fn the_dashboard_is_one_that_grafana_can_show() {
    let dashboard = dashboard();
    let all = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = all.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), all.len(), "an id stands twice");
    // Each cell of the grid, 24 wide, belongs to one panel.
    let mut taken = BTreeSet::new();
    for panel in all {
        let at = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        let (x, y, w, h) = (at("x"), at("y"), at("w"), at("h"));
        assert!(w > 0 && h > 0 && x + w <= 24, "{}", panel["title"]);
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{} covers another", panel["title"]);
        }
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<_> = variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["datasource", "job", "instance"]);
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().unwrap();
        assert!(!panel["description"].as_str().unwrap().is_empty(), "{title}");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        let targets = panel["targets"].as_array().unwrap();
        let letters: BTreeSet<_> = targets.iter().map(|target| target["refId"].as_str().unwrap()).collect();
        assert_eq!(letters.len(), targets.len(), "{title}");
        // What it names as a runbook is one.
        let description = panel["description"].as_str().unwrap();
        for (_, named) in description.split("SpinOtp").skip(1).map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
            (title, format!("SpinOtp{}", &rest[..end]))
        }) {
            assert!(crate::manual::alerts().contains(&named), "{title}: {named}");
        }
    }
}
