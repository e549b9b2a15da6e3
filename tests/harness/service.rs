//! The service as a process.

use crate::{client::Client, redis::Redis};
use std::{
    fs::File,
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long the service may take to start. Spin compiles the component at every start.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The root of this repository.
pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// An address on the loopback interface where nobody listens.
pub fn unused_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// How a service is to be started.
#[derive(Debug, Default, Clone)]
pub struct Builder {
    variables: Vec<(String, String)>,
    state: Option<PathBuf>,
    manifest: Option<PathBuf>,
}

/// A running service. It is killed when dropped.
#[derive(Debug)]
pub struct Service {
    child: Child,
    address: String,
    builder: Builder,
    /// Its cache, where the suites run with one.
    cache: Option<Redis>,
    /// State, if nobody else keeps it, and the log.
    folder: TempDir,
}

impl Builder {
    /// Sets a Spin variable.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Keeps the state there, where it outlives the service.
    pub fn state(mut self, folder: &Path) -> Self {
        self.state = Some(folder.to_owned());
        self
    }

    /// Runs another manifest than this repository's.
    pub fn manifest(mut self, file: &Path) -> Self {
        self.manifest = Some(file.to_owned());
        self
    }

    fn state_in(&self, folder: &Path) -> PathBuf {
        self.state.clone().unwrap_or_else(|| folder.join("state"))
    }

    /// Starts the service and waits until it answers.
    pub fn start(self) -> Service {
        let folder = tempfile::tempdir().unwrap();
        let address = unused_address();
        let mut builder = self;
        let own_cache = builder.variables.iter().all(|(name, _)| name != "redis_endpoint");
        let cache = (own_cache && with_redis()).then(Redis::start);
        if let Some(cache) = &cache {
            builder = builder.variable("redis_endpoint", &cache.endpoint());
        }
        let child = spawn(&builder, &address, folder.path());
        let mut service = Service { child, address, builder, cache, folder };
        service.wait_until_it_answers();
        service
    }
}

fn spawn(builder: &Builder, address: &str, folder: &Path) -> Child {
    let log = File::options().append(true).create(true).open(folder.join("log")).unwrap();
    let mut command = command();
    // Neither variables of the developer's shell nor a .env of the working folder shall decide here.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SPIN_VARIABLE_") {
            command.env_remove(name);
        }
    }
    let manifest = builder.manifest.clone().unwrap_or_else(|| repository().join("spin.toml"));
    command.arg("--from").arg(manifest).current_dir(folder);
    command.args(["--listen", address, "--state-dir"]).arg(builder.state_in(folder));
    for (name, value) in &builder.variables {
        command.env(format!("SPIN_VARIABLE_{}", name.to_uppercase()), value);
    }
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    // A group of its own, to kill all of it: spin is two processes.
    command.process_group(0);
    command.spawn().expect("the host can be started; run make build")
}

/// Whether every service has a Redis of its own beside it: with CACHE=redis the whole suite runs so.
pub fn with_redis() -> bool {
    match std::env::var("CACHE").as_deref() {
        Ok("redis") => true,
        Ok("") | Err(_) => false,
        Ok(other) => panic!("CACHE is {other}; it is either redis or empty"),
    }
}

/// Whoever hosts the service: this project's own host, or spin with HOST=spin.
fn command() -> Command {
    match std::env::var("HOST").as_deref() {
        Ok("spin") => {
            let mut spin = Command::new("spin");
            spin.arg("up");
            spin
        }
        _ => Command::new(repository().join("target/release/spin-otp-host")),
    }
}

impl Service {
    /// A service with everything at its default and an empty database.
    pub fn start() -> Self {
        Builder::default().start()
    }

    /// Where to set variables before the start.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Its own Redis, where the suites run with one.
    pub fn cache(&self) -> Option<&Redis> {
        self.cache.as_ref()
    }

    /// A client of this service.
    pub fn client(&self) -> Client {
        Client::new(format!("http://{}", self.address))
    }

    /// `host:port`
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The folder that holds the state.
    pub fn state(&self) -> PathBuf {
        self.builder.state_in(self.folder.path())
    }

    /// The SQLite file.
    pub fn database(&self) -> PathBuf {
        self.state().join("sqlite_db.db")
    }

    /// Resident memory of the process in KiB, where the system tells.
    pub fn resident_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    }

    /// All that the service has printed so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.folder.path().join("log")).unwrap()).into_owned()
    }

    /// SIGKILL: no chance to tidy up.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-s", "KILL", "--", &group]).stderr(Stdio::null()).status();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and how it ended.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    /// How it ended; it must have been told to.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "did not stop: {}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends a signal by name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Starts it again on the same state and at the same address, however it ended.
    pub fn restart(&mut self) {
        self.kill();
        self.child = spawn(&self.builder, &self.address, self.folder.path());
        self.wait_until_it_answers();
    }

    fn wait_until_it_answers(&mut self) {
        let client = self.client();
        let deadline = Instant::now() + START_TIMEOUT;
        while client.try_send("GET", "/healthz", &[], b"").is_err() {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the service ended with {status}: {}", self.log());
            }
            assert!(Instant::now() < deadline, "the service does not answer: {}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
        // Somebody else may have taken the address in the meantime, and answered.
        thread::sleep(Duration::from_millis(5));
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "something else answers at {}: {}", self.address, self.log());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}
