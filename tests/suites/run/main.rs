//! `make run`, as a user has it once all is built: one command, and Ctrl-C.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod build_cache;

use harness::{Client, Kafka, Mode, Postgres, Proxy, eventually, number, repository, unused_address};
use std::{
    fs::File,
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(30);

/// The script behind `make run`, with the terminal's process group of its own.
struct Run {
    script: Child,
    service: Client,
    relay: Client,
    folder: TempDir,
}

impl Run {
    fn start(variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (service, relay) = (unused_address(), unused_address());
        let log = File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(repository().join("scripts/run.sh"));
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if ["SPIN_VARIABLE_", "RELAY_", "KAFKA_"].iter().any(|prefix| name.starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command
            .env_remove("REDIS_URL")
            .env_remove("POSTGRES_URL")
            .env("HOST", "embedded")
            .env("STATE_DIR", folder.path().join("state"));
        command.env("LISTEN", &service).env("RELAY_LISTEN", &relay).envs(variables.iter().copied());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        let script = command.spawn().unwrap();
        let client = |address: &str| Client::new(format!("http://{address}"));
        let run = Self { script, service: client(&service), relay: client(&relay), folder };
        eventually("starting", SOON, || {
            run.log().contains("Ctrl-C stops it") || run.log().contains("Not ready")
        });
        run
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// What a terminal sends: to the script and all that it has started.
    fn signal_all(&self, name: &str) {
        let group = format!("-{}", self.script.id());
        let _ = Command::new("kill").args(["-s", name, "--", &group]).stderr(Stdio::null()).status();
    }

    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(status) = self.script.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "did not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Neither the service nor the relay answers any more.
    fn is_gone(&self) -> bool {
        [&self.service, &self.relay]
            .iter()
            .all(|client| client.try_send("GET", "/healthz", &[], b"").is_err())
    }

    /// The process of this run whose program has that name.
    fn process(&self, program: &str) -> String {
        let listed = Command::new("ps").args(["-e", "-o", "pid=,pgid=,args="]).output().unwrap();
        let group = self.script.id().to_string();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let mut found = listed.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            let (pid, pgid, path) = (words.next()?, words.next()?, words.next()?);
            (pgid == group && path.ends_with(program)).then(|| pid.to_owned())
        });
        found.next().unwrap_or_else(|| panic!("no {program} runs:\n{listed}"))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.signal_all("KILL");
        self.script.wait().unwrap();
    }
}

#[test]
fn one_command_serves_the_whole_flow_and_ctrl_c_ends_it() {
    let mut run = Run::start(&[]);
    let log = run.log();
    assert!(log.contains("/generate-otp") && log.contains("/inbox"), "{log}");
    let number = number();
    let made = run.service.generate(&number);
    let inbox = || run.relay.get("/inbox").expect(200);
    eventually("delivering", SOON, || !inbox().as_array().unwrap().is_empty());
    assert_eq!(inbox()[0]["otp"], made["otp"]);
    assert_eq!(inbox()[0]["to"], number.as_str());
    let becoming = run.relay.get(&format!("/deliveries/{}", made["otpId"].as_str().unwrap())).expect(200);
    assert_eq!(becoming[0]["state"], "delivered");

    run.signal_all("INT");
    assert!(run.wait().success(), "{}", run.log());
    assert!(run.is_gone());
    assert!(!run.log().contains(made["otp"].as_str().unwrap()), "a code in the log");
}

#[test]
fn with_brokers_named_events_go_over_kafka() {
    let kafka = Kafka::start();
    let door = Proxy::to(kafka.brokers());
    door.set(Mode::Cut);
    // The first code does not wait for the timer, even if the brokers are not reached yet when it is made.
    let run = Run::start(&[("KAFKA_BROKERS", door.address()), ("RELAY_FLUSH_SECONDS", "3600")]);
    let made = run.service.generate(&number());
    assert_eq!(run.relay.get("/inbox").expect(200), serde_json::json!([]));
    door.set(Mode::Pass);
    let inbox = || run.relay.get("/inbox").expect(200);
    eventually("delivering", SOON, || !inbox().as_array().unwrap().is_empty());
    assert_eq!(inbox()[0]["otp"], made["otp"]);
    let records = kafka.records("otp-events");
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(records[0].header("ce_id"), inbox()[0]["eventId"].as_str());
}

#[test]
fn with_a_postgres_named_the_state_is_there() {
    let postgres = Postgres::start();
    let run = Run::start(&[("POSTGRES_URL", &postgres.url())]);
    let ready = run.service.get("/readyz").expect(200);
    assert_eq!(ready["dependencies"]["database"]["kind"], "postgres");
    let made = run.service.generate(&number());
    let otp_id: String = postgres
        .connect()
        .query_one("SELECT otp_id FROM accounts WHERE application <> ''", &[])
        .unwrap()
        .get(0);
    assert_eq!(made["otpId"], otp_id);
    let inbox = || run.relay.get("/inbox").expect(200);
    eventually("delivering", SOON, || !inbox().as_array().unwrap().is_empty());
    assert_eq!(inbox()[0]["otp"], made["otp"]);
}

#[test]
fn codes_are_delivered_with_keys_of_ones_own() {
    let keys = "k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let run = Run::start(&[("SPIN_VARIABLE_ENCRYPTION_KEYS", keys), ("SPIN_VARIABLE_EVENT_KEYS", keys)]);
    let made = run.service.generate(&number());
    let inbox = || run.relay.get("/inbox").expect(200);
    eventually("delivering", SOON, || !inbox().as_array().unwrap().is_empty());
    assert_eq!(inbox()[0]["otp"], made["otp"]);
}

#[test]
fn the_end_of_one_part_is_said_and_ends_the_rest() {
    for (program, said) in [("/relay", "The relay ended"), ("/spin-otp-host", "The service ended")] {
        let mut run = Run::start(&[]);
        let killed = Command::new("kill").args(["-s", "KILL", &run.process(program)]).status().unwrap();
        assert!(killed.success());
        assert!(!run.wait().success());
        assert!(run.log().contains(said), "{}", run.log());
        assert!(run.is_gone());
    }
}

#[test]
fn sigterm_to_the_command_alone_ends_all() {
    let mut run = Run::start(&[]);
    let told = Command::new("kill").args(["-s", "TERM", &run.script.id().to_string()]).status().unwrap();
    assert!(told.success());
    assert!(run.wait().success(), "{}", run.log());
    assert!(run.is_gone());
}

#[test]
fn what_is_wrong_with_the_configuration_is_said_at_the_start() {
    let run = Run::start(&[("SPIN_VARIABLE_OTP_LENGTH", "3")]);
    assert!(run.log().contains("otp_length"), "{}", run.log());
}

#[test]
fn a_spin_that_is_too_old_is_named_with_the_way_out() {
    for (version, shown) in
        [("spin 3.6.3 (abc 2026-01-01)", "is 3.6"), ("spin 4.0.0", "is 4.0"), ("", "of no version")]
    {
        let mut command = Command::new(repository().join("scripts/run.sh"));
        // A function of the shell stands before what is on the PATH.
        command.env("HOST", "spin").env("BASH_FUNC_spin%%", format!("() {{ echo '{version}'; }}"));
        let output = command.output().unwrap();
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(shown) && said.contains("4.1") && said.contains("HOST=embedded"), "{said}");
    }
}

#[test]
fn what_is_kept_is_for_its_owner_alone() {
    let run = Run::start(&[]);
    run.service.generate("+14155550123");
    eventually("the delivery", SOON, || run.relay.get("/inbox").expect(200) != serde_json::json!([]));
    let mut databases = Vec::new();
    for folder in ["state", "state/relay"].map(|folder| run.folder.path().join(folder)) {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.contains(".db") {
                let mode = std::os::unix::fs::PermissionsExt::mode(&entry.metadata().unwrap().permissions());
                assert_eq!(mode & 0o777, 0o600, "{name}");
                databases.push(name);
            }
        }
    }
    for name in ["sqlite_db.db", "sqlite_db.db-wal", "ledger.db", "ledger.db-wal"] {
        assert!(databases.iter().any(|database| database == name), "{name} in {databases:?}");
    }
}
