//! The pages of deploy/: what they tell to set is there, and so is what they lead to.

use crate::{
    declared::{self, unknown},
    yaml,
};
use harness::repository;
use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

fn pages() -> Vec<(PathBuf, String)> {
    let files = fs::read_dir(repository().join("deploy")).unwrap().map(|entry| entry.unwrap().path());
    let pages = files.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let pages: Vec<_> = pages.map(|path| (path.clone(), fs::read_to_string(&path).unwrap())).collect();
    assert!(pages.len() >= 5);
    pages
}

/// What is written like a name of these.
fn names<'a>(text: &'a str, prefix: &str) -> BTreeSet<&'a str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with(prefix) && word.len() > prefix.len()).collect()
}

#[test]
fn every_variable_that_is_named_is_known() {
    let (of_service, of_relay) = (declared::of_service(), declared::of_relay());
    for (path, text) in pages() {
        let page = path.display();
        for prefix in ["RELAY_", "KAFKA_"] {
            assert_eq!(unknown(names(&text, prefix), &of_relay), [""; 0], "{page}");
        }
        let variables = text.split("--variable ").skip(1).map(|rest| rest.split('=').next().unwrap());
        let as_environment = names(&text, "SPIN_VARIABLE_").into_iter();
        let as_environment: Vec<_> =
            as_environment.map(|name| name.strip_prefix("SPIN_VARIABLE_").unwrap().to_lowercase()).collect();
        let all = variables.chain(as_environment.iter().map(String::as_str));
        assert_eq!(unknown(all, &of_service), [""; 0], "{page}");
        for endpoint in ["redis_endpoint=", "postgres_endpoint=", "trusted_proxies="] {
            let (name, used) = (endpoint.trim_end_matches('='), text.contains(endpoint));
            assert!(!used || unknown([name], &of_service).is_empty(), "{page}: {name}");
        }
    }
}

#[test]
fn every_link_leads_somewhere() {
    let mut followed = 0;
    for (path, text) in pages() {
        for rest in text.split("](").skip(1) {
            let target = rest.split(')').next().unwrap();
            if target.starts_with("http") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            let page = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{target}: {error}"));
            let anchor = |line: &str| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
            let there = heading.is_empty()
                || page.lines().any(|line| line.starts_with('#') && anchor(line) == heading);
            assert!(there, "{}: {target}", path.display());
            followed += 1;
        }
    }
    assert!(followed > 8, "{followed}");
}

#[test]
fn every_file_that_a_command_names_is_there() {
    for (path, text) in pages() {
        for word in text.split_whitespace().map(|word| word.trim_matches(['`', ',', '.', ';', ':', ')', '(']))
        {
            let word = word.trim_end_matches('/');
            if word.starts_with("deploy/") || word.starts_with("scripts/") || word.starts_with("tests/") {
                assert!(repository().join(word).exists(), "{}: {word}", path.display());
            }
            if word.starts_with("compose/") || word.starts_with("overlays/") {
                let may_be_missing = word == "compose/delivery.env";
                assert!(
                    may_be_missing || repository().join("deploy").join(word).exists(),
                    "{}: {word}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn the_alerts_become_an_object_as_the_page_says() {
    let page = fs::read_to_string(repository().join("deploy/README.md")).unwrap();
    let begin = page.find("{ printf").unwrap();
    let command = &page[begin..begin + page[begin..].find("| kubectl apply").unwrap()];
    let output = Command::new("sh").args(["-c", command]).current_dir(repository()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let objects = yaml::documents(&String::from_utf8(output.stdout).unwrap());
    let [rule] = &objects[..] else { panic!("{objects:?}") };
    assert_eq!(
        (&rule["kind"], &rule["metadata"]["namespace"]),
        (&"PrometheusRule".into(), &"spin-otp".into())
    );
    let alerts = yaml::file(&repository().join("deploy/observability/alerts.yaml"));
    assert_eq!(rule["spec"], alerts);
    assert!(!alerts["groups"].as_array().unwrap().is_empty());
}
