//! The Dockerfile, and what it builds from.

use crate::{
    compose::{is_pinned, services, written},
    declared,
    dockerfile::{Stage, exec, stages},
};
use harness::repository;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn stage(name: &str) -> Stage {
    stages().into_iter().find(|stage| stage.name == name).unwrap_or_else(|| panic!("no stage {name}"))
}

/// What the images are built from: .dockerignore leaves out all but what it names.
fn in_context() -> BTreeSet<PathBuf> {
    let text = fs::read_to_string(repository().join(".dockerignore")).unwrap();
    let mut lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    assert_eq!(lines.next(), Some("*"));
    let named = lines.map(|line| line.strip_prefix('!').unwrap_or_else(|| panic!("{line} names nothing")));
    named.map(PathBuf::from).collect()
}

#[test]
fn every_stage_starts_from_one_before_it_or_from_a_pinned_image() {
    let mut names: Vec<String> = Vec::new();
    for stage in stages() {
        if !names.contains(&stage.base) {
            let (_, tag) = stage.base.rsplit_once(':').unwrap_or_else(|| panic!("{}: no tag", stage.base));
            assert!(is_pinned(tag), "{}", stage.base);
        }
        for (from, sources, _) in stage.copies() {
            match from {
                Some(from) => {
                    let known = names.iter().any(|name| name == from);
                    assert!(known, "{} copies from {from}", stage.name);
                    assert!(sources.iter().all(|source| source.starts_with('/')), "{sources:?}");
                }
                None => {
                    for source in sources.iter().filter(|source| **source != ".") {
                        assert!(in_context().contains(Path::new(source)), "{source} is not in the context");
                    }
                }
            }
        }
        assert!(!names.contains(&stage.name), "{} is there twice", stage.name);
        names.push(stage.name);
    }
}

#[test]
fn the_targets_are_there_and_run_as_nobody() {
    for (_, service) in services(&written()) {
        let Some(target) = service["build"]["target"].as_str() else { continue };
        let image = stage(target);
        let (user, group) = image.last("USER").split_once(':').unwrap();
        for id in [user, group] {
            assert!(id.parse::<u32>().unwrap() > 0, "{target}: Kubernetes checks numbers, not names");
        }
        image.exec("ENTRYPOINT");
        image.exec("CMD");
        let order = |wanted: &str| image.instructions.iter().position(|(kind, _)| kind == wanted).unwrap();
        assert!(order("USER") < order("ENTRYPOINT"));
        assert!(
            image.all("ADD").is_empty() && image.all("RUN").is_empty(),
            "{target}: it is only put together"
        );
    }
}

#[test]
fn what_is_copied_is_what_was_made() {
    for stage in stages() {
        for (from, sources, _) in stage.copies() {
            let Some(from) = from else { continue };
            let made = stages().into_iter().find(|stage| stage.name == from).unwrap();
            for source in sources {
                // The authorities come with the image.
                let made =
                    made.all("RUN").iter().any(|run| run.contains(source)) || source.starts_with("/etc/ssl/");
                assert!(made, "{from} makes no {source}");
            }
        }
    }
    let makefile = fs::read_to_string(repository().join("Makefile")).unwrap();
    for stage in stages() {
        for run in stage.all("RUN") {
            let (_, rest) = run.split_once(" make ").unwrap_or_else(|| panic!("{run}"));
            let target = rest.split_whitespace().next().unwrap();
            assert!(makefile.lines().any(|line| line.starts_with(&format!("{target}:"))), "make {target}");
        }
    }
}

#[test]
fn the_component_lies_where_the_manifest_looks_for_it() {
    let app = stage("app");
    let folder = app.last("WORKDIR");
    let copies = app.copies();
    let component = copies.iter().find(|(from, ..)| *from == Some("component")).unwrap();
    assert_eq!(component.2, declared::source());
    assert!(stage("component").last("RUN").contains(&format!(
        " cp {} {}",
        declared::source(),
        component.1[0]
    )));
    assert!(
        copies.iter().any(|(from, sources, to)| from.is_none() && sources == &["spin.toml"] && *to == "./")
    );
    let command = app.exec("CMD");
    let after = |option: &str| command[command.iter().position(|word| word == option).unwrap() + 1].clone();
    assert_eq!(after("--from"), format!("{folder}/spin.toml"));
    assert_eq!(after("--listen"), format!("0.0.0.0:{}", app.last("EXPOSE")));
}

#[test]
fn the_relay_listens_where_its_image_says() {
    let relay = stage("relay");
    let known = declared::of_relay();
    let environment = relay.last("ENV");
    for pair in environment.split(' ') {
        let (name, _) = pair.split_once('=').unwrap();
        assert!(known.contains(name), "{name}");
    }
    assert!(environment.contains(&format!("RELAY_LISTEN=0.0.0.0:{}", relay.last("EXPOSE"))));
    assert_eq!(relay.exec("ENTRYPOINT"), ["/usr/local/bin/relay"]);
    let arguments = relay.exec("CMD");
    let help = declared::relay().args(&arguments).arg("--help").output().unwrap();
    assert!(help.status.success(), "{arguments:?}");
}

#[test]
fn health_is_asked_for_by_a_program_that_is_there_and_understands() {
    for name in ["app", "relay"] {
        let image = stage(name);
        let (_, command) = image.last("HEALTHCHECK").split_once("CMD ").unwrap();
        let command = exec(command);
        assert!(image.copies().iter().any(|(.., to)| **to == command[0]), "{name} has no {}", command[0]);
        // It answers, or nobody listens there: 2 would be a mistake in the words.
        let checked = declared::relay().args(&command[1..]).output().unwrap();
        assert!(matches!(checked.status.code(), Some(0 | 1)), "{checked:?}");
        let asked = match command.iter().position(|word| word == "--url") {
            Some(option) => command[option + 1].clone(),
            None => {
                let help = declared::relay().args(["check", "--help"]).output().unwrap();
                let help = String::from_utf8(help.stdout).unwrap();
                help.split("[default: ").find(|rest| rest.starts_with("http")).unwrap().to_owned()
            }
        };
        assert!(asked.starts_with(&format!("http://127.0.0.1:{}/readyz", image.last("EXPOSE"))), "{asked}");
    }
}

#[test]
fn what_is_linked_in_one_image_is_there_in_the_other() {
    // glibc's version is that of the distribution: what is built on one and run on an older one does not start.
    assert!(stage("build").base.ends_with("-bookworm"));
    assert!(stage("relay").base.starts_with("debian:12."));
}

#[test]
fn rust_is_new_enough() {
    let image = stage("build").base;
    let (_, tag) = image.split_once("rust:").unwrap();
    let manifest = fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    let needed = manifest.lines().find_map(|line| line.strip_prefix("rust-version = \"")).unwrap();
    let number =
        |text: &str| -> u32 { text.split('.').nth(1).unwrap().trim_end_matches('"').parse().unwrap() };
    assert!(number(tag) >= number(needed));
}

#[test]
fn the_context_has_all_that_is_built_from_and_no_secret() {
    let context = in_context();
    for part in &context {
        assert!(repository().join(part).exists(), "{}", part.display());
    }
    for secret in [".env", ".git", ".spin", "target", ".cache", "deploy"] {
        assert!(!context.contains(Path::new(secret)), "{secret}");
    }
    // With nothing else there, cargo knows every package, and the lock file is the one that belongs to them.
    let folder = tempfile::tempdir().unwrap();
    for part in &context {
        let copied =
            Command::new("cp").arg("-a").arg(repository().join(part)).arg(folder.path()).status().unwrap();
        assert!(copied.success());
    }
    let mut metadata = Command::new("cargo");
    metadata.args(["metadata", "--locked", "--offline", "--no-deps", "--format-version", "1"]);
    let output = metadata.current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // What the sources take in by its path is there, too.
    let mut sources =
        vec![folder.path().join("components"), folder.path().join("crates"), folder.path().join("relay")];
    let mut taken_in = 0;
    while let Some(path) = sources.pop() {
        if path.is_dir() {
            sources.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        // No test is built in an image.
        let text = text.split("#[cfg(test)]").next().unwrap();
        for rest in text.split("include_str!(\"").skip(1) {
            let file = path.parent().unwrap().join(rest.split('"').next().unwrap());
            assert!(file.exists(), "{} takes in {}", path.display(), file.display());
            taken_in += 1;
        }
    }
    assert!(taken_in > 3, "{taken_in}: each store alone has a baseline");
}
