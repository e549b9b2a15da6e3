//! A Prometheus of the test's own, and its tool.

use crate::{
    address::unused_address,
    client::Client,
    folder::temporary_folder,
    process::{INSTALL_HINT, Process},
};
use serde_json::Value;
use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};
use tempfile::TempDir;

/// How long it may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A running Prometheus on a free port of the loopback interface, with its files in a folder of its own. Killed
/// when dropped.
#[derive(Debug)]
pub struct Prometheus {
    _process: Process,
    client: Client,
    _folder: TempDir,
}

impl Prometheus {
    /// Asks `target`, a `host:port`, for its metrics every second, as `job`, and evaluates these rules.
    pub fn scraping(target: &str, job: &str, rules: &Path) -> Self {
        let folder = temporary_folder();
        let configuration = folder.path().join("prometheus.yml");
        let rules = fs::canonicalize(rules).unwrap();
        let text = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{}]\nscrape_configs:\n  \
             - job_name: {job}\n    static_configs:\n      - targets: ['{target}']\n",
            rules.display()
        );
        fs::write(&configuration, text).unwrap();
        let address = unused_address();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"));
        let mut process = Process::spawn(&mut command, &folder.path().join("log"), INSTALL_HINT);
        let client = Client::new(format!("http://{address}"));
        process.wait_until_it(
            || client.try_send("GET", "/-/ready", &[], b"").is_ok_and(|answer| answer.status == 200),
            START_TIMEOUT,
        );
        Self { _process: process, client, _folder: folder }
    }

    /// What an expression comes to now: a list of series. An error is what Prometheus says of it.
    pub fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let form = [("content-type", "application/x-www-form-urlencoded")];
        let body = format!("query={}", encoded(expression));
        let answer = self.client.send("POST", "/api/v1/query", &form, body.as_bytes()).json();
        match answer["status"].as_str() {
            Some("success") => match &answer["data"]["result"] {
                Value::Array(series) => Ok(series.clone()),
                other => Ok(vec![other.clone()]),
            },
            _ => Err(answer["error"].to_string()),
        }
    }

    /// The rules as they were evaluated last.
    pub fn rules(&self) -> Vec<Value> {
        let answer = self.client.get("/api/v1/rules").expect(200);
        let groups = answer["data"]["groups"].as_array().unwrap().clone();
        groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
    }
}

/// Everything but letters and digits as `%XX`.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// Runs `promtool` in a folder, with this on its standard input.
pub fn promtool(folder: &Path, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new("promtool");
    command.args(arguments).current_dir(folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command
        .spawn()
        .unwrap_or_else(|error| panic!("promtool cannot be started ({error}): {INSTALL_HINT}"));
    // One that does not read it has said why.
    let _ = process.stdin.take().unwrap().write_all(input);
    process.wait_with_output().unwrap()
}
