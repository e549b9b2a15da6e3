//! The instructions of the native programs, counted by valgrind's callgrind.

use crate::{CALLS, REQUESTS, after_each, each, hold, plain};
use harness::{Client, Ledger, Program, Relay, Server, bulk_number, eventually, temporary_folder};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tempfile::TempDir;

/// A program under callgrind, which counts when it is told to.
#[derive(Debug)]
struct Counted<P> {
    program: P,
    /// Where callgrind writes.
    counts: PathBuf,
}

impl<P: Program> Program for Counted<P> {
    fn command(&self, address: &str, folder: &Path) -> Command {
        let program = self.program.command(address, folder);
        let mut command = Command::new("valgrind");
        command.args(["--tool=callgrind", "--instr-atstart=no", "--smc-check=all-non-file", "--quiet"]);
        command.arg(format!("--callgrind-out-file={}", self.counts.display()));
        command.arg(program.get_program()).args(program.get_args());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    fn own_state(&self) -> Option<&Path> {
        self.program.own_state()
    }

    fn own_address(&self) -> Option<&str> {
        self.program.own_address()
    }

    fn answers(client: &Client) -> bool {
        P::answers(client)
    }

    fn patience() -> Duration {
        // The component is compiled under it.
        3 * P::patience()
    }
}

/// A program, and how many instructions it has executed.
struct Meter<P> {
    server: Server<Counted<P>>,
    counts: PathBuf,
    dumps: u32,
    total: u64,
    /// Goes last.
    _folder: TempDir,
}

impl<P: Program> Meter<P> {
    /// Starts it, and counts what it does after that.
    fn of(program: P) -> Self {
        let folder = temporary_folder();
        let counts = folder.path().join("counted");
        let server = Server::launch(Counted { program, counts: counts.clone() });
        let meter = Self { server, counts, dumps: 0, total: 0, _folder: folder };
        meter.control("--instr=on");
        meter
    }

    fn control(&self, what: &str) {
        let told = Command::new("callgrind_control").arg(what).arg(self.server.id().to_string()).output();
        let told = told.expect("callgrind_control comes with valgrind: scripts/test-servers.sh installs it");
        assert!(told.status.success(), "{told:?}");
    }

    fn read(&mut self) -> u64 {
        self.control("--dump");
        self.dumps += 1;
        let file = format!("{}.{}", self.counts.display(), self.dumps);
        let dump = std::fs::read_to_string(&file).unwrap();
        let since = dump.lines().find_map(|line| line.strip_prefix("totals: "));
        self.total += since.unwrap_or_else(|| panic!("{file}: {dump}")).trim().parse::<u64>().unwrap();
        self.total
    }
}

/// How often it is counted. Beside other programs more is polled and woken in vain: the least is what it costs.
const TIMES: usize = 3;

#[test]
fn what_the_host_executes() {
    let count = || {
        let mut meter = Meter::of(plain());
        after_each(&meter.server.client(), CALLS.len(), || meter.read())
    };
    let counted: Vec<_> = (0..TIMES).map(|_| count()).collect();
    let mut least = vec![0];
    for call in 1..=CALLS.len() {
        let costs = counted.iter().map(|seen| seen[call] - seen[call - 1]);
        least.push(least[call - 1] + costs.min().unwrap());
    }
    hold("instructions of the host", &each(&least));
}

#[test]
fn what_the_relay_executes() {
    const BATCH: u32 = 10;
    let service = plain().start();
    let client = service.client();
    (0..REQUESTS + BATCH).for_each(|index| drop(client.generate(&bulk_number(index))));
    let events = service.sql().rows("SELECT event FROM outbox ORDER BY sequence", &[]);
    let events: Vec<_> = events.iter().map(|row| row[0].as_str().unwrap().to_owned()).collect();
    let count = || {
        let mut meter = Meter::of(Relay::builder().on_a_file());
        let ledger = Ledger::in_folder(&meter.server.state());
        let mut before = 0;
        for (index, batch) in events.chunks(BATCH as usize).enumerate() {
            let headers = [("content-type", "application/cloudevents-batch+json")];
            let body = format!("[{}]", batch.join(","));
            meter.server.client().send("POST", "/events", &headers, body.as_bytes()).expect(200);
            let delivered = (index as i64 + 1) * i64::from(BATCH);
            // Looked up where it is written: to ask the relay would be counted.
            eventually("delivering", Duration::from_secs(60), || {
                ledger.number("SELECT count(*) FROM deliveries WHERE state = 'delivered'") == delivered
            });
            if index == 0 {
                before = meter.read();
            }
        }
        (meter.read() - before) / u64::from(REQUESTS)
    };
    let least = (0..TIMES).map(|_| count()).min().unwrap();
    hold("instructions of the relay for an event", &json!(least));
}
