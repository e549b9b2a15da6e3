//! What the programs themselves say that can be set.

use harness::repository;
use std::{collections::BTreeSet, fs, process::Command};

/// The variables of the service, as spin.toml declares them.
pub(crate) fn of_service() -> BTreeSet<String> {
    let manifest = fs::read_to_string(repository().join("spin.toml")).unwrap();
    let (_, variables) = manifest.split_once("[variables]\n").unwrap();
    let (variables, _) = variables.split_once("\n\n").unwrap();
    let names = variables.lines().map(|line| line.split_once(" = ").unwrap().0.to_owned());
    let names: BTreeSet<_> = names.collect();
    assert!(names.len() > 30, "{names:?}");
    names
}

/// The relay, as it was built.
pub(crate) fn relay() -> Command {
    Command::new(repository().join("target/release/relay"))
}

/// The variables of the relay, as `relay serve --help` lists them.
pub(crate) fn of_relay() -> BTreeSet<String> {
    let help = relay().args(["serve", "--help"]).output().expect("run make build");
    assert!(help.status.success());
    let help = String::from_utf8(help.stdout).unwrap();
    let named = help.split("[env: ").skip(1);
    let names = named.map(|rest| rest.split(['=', ']']).next().unwrap().to_owned());
    let names: BTreeSet<_> = names.collect();
    assert!(names.len() > 15, "{names:?}");
    names
}

/// Where the service finds its component, as spin.toml says.
pub(crate) fn source() -> String {
    let manifest = fs::read_to_string(repository().join("spin.toml")).unwrap();
    let line = manifest.lines().find(|line| line.starts_with("source = ")).unwrap();
    line.split('"').nth(1).unwrap().to_owned()
}

/// The version of all that is built here.
pub(crate) fn version() -> String {
    let manifest = fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    let (_, package) = manifest.split_once("[workspace.package]\n").unwrap();
    let line = package.lines().find(|line| line.starts_with("version = ")).unwrap();
    line.split('"').nth(1).unwrap().to_owned()
}

/// Those of the names that nobody knows.
pub(crate) fn unknown<'a>(
    names: impl IntoIterator<Item = &'a str>,
    known: &BTreeSet<String>,
) -> Vec<&'a str> {
    let unknown = names.into_iter().filter(|name| !known.contains(*name));
    unknown.collect()
}
