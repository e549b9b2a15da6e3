//! Measures the calls of spin-otp beside `/healthz`, the route of the same component that does nothing, and beside
//! others that do the same.
//!
//! Starts services of its own on free ports with empty databases, and talks to them over loopback. What is compared is
//! measured in rounds that take turns, so that a drift of the machine's speed falls on all alike. What counts are the
//! ratios, not the numbers of this machine. docs/performance.md says how to read it.
//!
//! `make bench`; [`settings`] lists its variables.

mod load;
mod measure;
mod relay;
mod report;
mod settings;
mod subject;

use harness::repository;
use settings::Settings;
use std::process::ExitCode;
use subject::{Events, Store, Subject};

fn main() -> ExitCode {
    let settings = match Settings::from_environment() {
        Ok(settings) => settings,
        Err(wrong) => {
            eprintln!("{wrong}");
            return ExitCode::FAILURE;
        }
    };
    for connections in &settings.connections {
        let measured = measure::all(subjects(&settings), &settings, *connections);
        report::write(&measured, &settings, *connections);
    }
    if settings.relay {
        relay::time_to_delivery();
        relay::under_load(&[1_000, 5_000, 20_000], 10);
    }
    ExitCode::SUCCESS
}

/// What is measured in one run. All of it is there from the start to the end, so that none has the machine to itself.
fn subjects(settings: &Settings) -> Vec<Subject> {
    let checkouts = match &settings.checkouts[..] {
        [] => vec![(String::new(), repository().to_owned())],
        several => several.iter().map(|folder| (format!("{} ", commit(folder)), folder.clone())).collect(),
    };
    let mut subjects = Vec::new();
    for (store_name, store) in Store::ALL.into_iter().filter(|(_, store)| settings.stores.contains(store)) {
        for (events_name, events) in
            Events::ALL.into_iter().filter(|(_, events)| settings.events.contains(events))
        {
            for (of, checkout) in &checkouts {
                let name = format!("{of}spin-otp, {store_name}, relay {events_name}");
                subjects.push(Subject::ours(name, checkout, store, events, settings.guarded));
            }
        }
        if settings.spring {
            let kafka = if settings.events.contains(&Events::Kafka) { Events::Kafka } else { Events::None };
            let databases: &[&'static str] = match store {
                Store::PostgresRedis => &["postgres"],
                _ => &["h2-memory", "h2-file"],
            };
            for database in databases {
                let redis = if store == Store::Sqlite { "" } else { "+redis" };
                let kafka_name = if kafka == Events::Kafka { ", kafka" } else { "" };
                let name = format!("spring, {database}{redis}{kafka_name}");
                subjects.push(Subject::spring(name, store, kafka, database));
            }
        }
    }
    subjects.extend(settings.otpgateway.clone().map(Subject::otpgateway));
    subjects
}

/// The commit that is checked out there, with a + if something was changed since.
fn commit(folder: &std::path::Path) -> String {
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git").arg("-C").arg(folder).args(arguments).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    };
    let changed = !git(&["status", "--porcelain", "--untracked-files=no"]).is_empty();
    git(&["rev-parse", "--short", "HEAD"]) + if changed { "+" } else { "" }
}
