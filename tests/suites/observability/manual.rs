//! docs/operations.md against what there is.

use crate::{Stacked, read};
use harness::{Relay, number, repository};
use std::collections::BTreeSet;

/// The names of all alerts.
pub(crate) fn alerts() -> Vec<String> {
    let rules = read("deploy/observability/alerts.yaml");
    let names = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    names.map(str::to_owned).collect()
}

/// The manual's section of this heading, up to the next heading.
fn section<'a>(manual: &'a str, heading: &str) -> Option<&'a str> {
    let (_, rest) = manual.split_once(&format!("\n{heading}\n"))?;
    Some(rest.split_once("\n#").map_or(rest, |(section, _)| section))
}

#[test]
fn every_alert_has_a_severity_and_a_runbook_and_every_runbook_an_alert() {
    let (manual, rules) = (read("docs/operations.md"), read("deploy/observability/alerts.yaml"));
    let alerts = alerts();
    assert!(alerts.len() >= 15, "{alerts:?}");
    for (index, rule) in rules.split("- alert: ").skip(1).enumerate() {
        let name = &alerts[index];
        for part in ["severity: ", "summary: ", "description: ", "expr: "] {
            assert!(rule.contains(part), "{name} has no {part}");
        }
        let url = format!("runbook_url: docs/operations.md#{}\n", name.to_lowercase());
        assert!(rule.contains(&url), "{name}: {url}");
        let runbook = section(&manual, &format!("### {name}"));
        assert!(runbook.is_some_and(|text| text.split_whitespace().count() > 20), "{name} has no runbook");
    }
    for heading in manual.lines().filter_map(|line| line.strip_prefix("### SpinOtp")) {
        assert!(alerts.contains(&format!("SpinOtp{heading}")), "SpinOtp{heading} is no alert");
    }
}

#[test]
fn every_metric_is_explained_and_every_explained_one_is_there() {
    let manual = read("docs/operations.md");
    let explained: BTreeSet<_> = manual
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(['`', '{']).next())
        .filter(|name| ["spin_otp_relay_", "http_server_", "process_"].iter().any(|p| name.starts_with(p)))
        .map(str::to_owned)
        .collect();
    let kafka = harness::Kafka::start();
    let stack =
        Stacked { relay: Relay::builder().env("KAFKA_BROKERS", kafka.brokers()), ..Stacked::default() };
    let stack = stack.start();
    stack.service.client().generate(&number());
    let families = || -> BTreeSet<String> {
        let text = String::from_utf8(stack.relay.client().get("/metrics").body).unwrap();
        let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        names.map(str::to_owned).collect()
    };
    harness::eventually("a delivery", crate::SOON, || families().contains("spin_otp_relay_delivered_total"));
    for name in families() {
        assert!(explained.contains(&name), "docs/operations.md does not explain {name}");
        let base =
            ["_seconds", "_total", "_info", "_up", "_lag", "_waiting", "_dead", "_in_progress", "_owned"];
        assert!(base.iter().any(|end| name.ends_with(end)), "{name} says neither unit nor kind");
    }
    // Those that need something to go wrong.
    let rare = ["spin_otp_relay_failed_total", "spin_otp_relay_send_duration_seconds"];
    for name in explained.iter().filter(|name| !rare.contains(&name.as_str())) {
        assert!(families().contains(name), "docs/operations.md explains {name}, which is not there");
    }
}

#[test]
fn what_the_manual_names_is_there() {
    let manual = read("docs/operations.md");
    // Files.
    for link in manual.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
        if link.starts_with("http") {
            continue;
        }
        let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
        let text = if path.is_empty() {
            manual.clone()
        } else {
            let path = repository().join("docs").join(path);
            assert!(path.exists(), "{link}");
            if path.is_dir() {
                continue;
            }
            std::fs::read_to_string(path).unwrap()
        };
        let anchors: Vec<_> = text.lines().filter(|line| line.starts_with('#')).map(anchor_of).collect();
        assert!(anchor.is_empty() || anchors.contains(&anchor.to_owned()), "{link}: {anchors:?}");
    }
    // Variables of the relay and of the component.
    let relay = Relay::start();
    let help = String::from_utf8(relay.run(&["serve", "--help"]).stdout).unwrap();
    let manifest = read("spin.toml");
    let variables = words(&manual).filter(|word| word.len() > 6);
    for word in variables {
        if word.starts_with("RELAY_") || word.starts_with("KAFKA_") {
            assert!(
                help.contains(word) || word == "RELAY_DATABASE_URL",
                "{word} is no variable of the relay"
            );
        } else if let Some(name) = word.strip_prefix("SPIN_VARIABLE_") {
            assert!(manifest.contains(&format!("\n{} = ", name.to_lowercase())), "{word}");
        }
    }
    // Targets of make, and commands of the relay.
    let makefile = read("Makefile");
    for target in manual.split("`make ").skip(1).map(|rest| rest.split(['`', ' ']).next().unwrap()) {
        assert!(makefile.contains(&format!("\n{target}:")), "make {target}");
    }
    for command in manual.split("relay dlq ").skip(1).map(|rest| rest.split(['`', ' ', '\n']).next().unwrap())
    {
        assert!(["list", "replay"].contains(&command), "relay dlq {command}");
    }
}

/// Names in capitals.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))
}

/// The anchor that a heading gets.
fn anchor_of(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().replace(' ', "-")
}
