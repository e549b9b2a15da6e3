//! Load, made by vegeta: as much as so many connections carry, or so much a second, whether or not the answers keep up.

use base64ct::{Base64, Encoding};
use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

/// A request to a path.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) fields: Vec<(&'static str, String)>,
    /// Empty where there is none.
    pub(crate) body: String,
}

/// How a load is made.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Model {
    /// On each connection the next request follows an answer at once.
    Closed,
    /// So many requests a second. The time of each counts from when it was due, so that one that had to wait for those
    /// before it is not the quicker for it (coordinated omission).
    Open(f64),
}

/// What became of a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) took: Duration,
    pub(crate) body: Vec<u8>,
}

/// What became of a load.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// In the order in which the requests were due.
    pub(crate) answers: Vec<Answer>,
    /// From the first request to the last answer.
    pub(crate) lasted: Duration,
}

fn vegeta() -> PathBuf {
    let cache = harness::repository().join(".cache");
    let found =
        std::fs::read_dir(&cache).into_iter().flatten().flatten().map(|entry| entry.path().join("vegeta"));
    found
        .filter(|program| program.is_file())
        .max()
        .expect("vegeta is in .cache: scripts/bench-tools.sh puts it there")
}

/// Sends requests for as long, or until there are no more of them. They are given up after 30 s.
pub(crate) fn send(
    address: &str,
    requests: impl Iterator<Item = Request>,
    connections: usize,
    model: Model,
    duration: Duration,
) -> Outcome {
    let folder = harness::temporary_folder();
    let (targets, results) = (folder.path().join("targets"), folder.path().join("results"));
    write(&targets, address, requests);
    let mut attack = Command::new(vegeta());
    attack.args(["attack", "-format=json", "-lazy", "-redirects=-1", "-http2=false"]);
    attack.arg(format!("-targets={}", targets.display()));
    attack.arg(format!("-output={}", results.display()));
    attack.arg(format!("-duration={}ms", duration.as_millis()));
    attack.arg(format!("-connections={connections}")).arg(format!("-max-connections={connections}"));
    attack.arg(format!("-workers={connections}"));
    match model {
        Model::Closed => attack.arg("-rate=0").arg(format!("-max-workers={connections}")),
        Model::Open(rate) => attack.arg(format!("-rate={}/1s", rate.max(1.0) as u64)),
    };
    let status = attack.stdin(Stdio::null()).status().expect("vegeta runs");
    assert!(status.success(), "vegeta ended with {status}");
    read(&results, model)
}

fn write(file: &Path, address: &str, requests: impl Iterator<Item = Request>) {
    let mut text = String::new();
    for request in requests {
        let mut header = serde_json::json!({});
        for (name, value) in request.fields {
            header[name] = serde_json::json!([value]);
        }
        let target = serde_json::json!({
            "method": request.method,
            "url": format!("http://{address}{}", request.path),
            "header": header,
            "body": Base64::encode_string(request.body.as_bytes()),
        });
        let _ = writeln!(text, "{target}");
    }
    std::fs::write(file, text).expect("the targets can be written");
}

/// Reads what vegeta has written. Its lines have: time, status, latency, bytes out and in, error, body, attack, number,
/// and more; the times in nanoseconds.
fn read(results: &Path, model: Model) -> Outcome {
    let encoded =
        Command::new(vegeta()).arg("encode").arg("--to=csv").arg(results).output().expect("vegeta runs");
    assert!(encoded.status.success(), "{}", String::from_utf8_lossy(&encoded.stderr));
    let text = String::from_utf8_lossy(&encoded.stdout);
    let mut answers = Vec::new();
    let (mut first, mut last) = (u64::MAX, 0);
    for line in text.lines() {
        let columns: Vec<_> = line.split(',').collect();
        let number = |column: usize| columns.get(column).and_then(|text| text.parse::<u64>().ok());
        let (Some(at), Some(status), Some(took), Some(index)) = (number(0), number(1), number(2), number(8))
        else {
            continue;
        };
        // What it says when there are no more requests is no answer.
        if status == 0 && columns[5].contains("no targets") {
            continue;
        }
        first = first.min(at);
        last = last.max(at + took);
        let body = Base64::decode_vec(columns[6]).unwrap_or_default();
        answers.push((index, at, took, u16::try_from(status).unwrap_or(0), body));
    }
    answers.sort_unstable_by_key(|(index, ..)| *index);
    let due = |index: u64| match model {
        Model::Closed => None,
        Model::Open(rate) => Some(first + (index as f64 * 1e9 / rate.max(1.0).floor()) as u64),
    };
    let answers = answers.into_iter().map(|(index, at, took, status, body)| {
        let took = due(index).map_or(took, |due| (at + took).saturating_sub(due).max(took));
        Answer { status, took: Duration::from_nanos(took), body }
    });
    Outcome { answers: answers.collect(), lasted: Duration::from_nanos(last.saturating_sub(first).max(1)) }
}
