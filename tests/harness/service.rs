//! The service as a process.

use crate::{
    client::Client,
    process::forget_variables,
    redis::Redis,
    server::{Program, Server},
};
use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

/// A running service.
pub type Service = Server<Builder>;

/// The root of this repository.
pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// How a service is to be started.
#[derive(Debug, Default, Clone)]
pub struct Builder {
    variables: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    state: Option<PathBuf>,
    address: Option<String>,
    manifest: Option<PathBuf>,
    /// Its own Redis, from the start on, where the suites run with one.
    cache: Option<Arc<Redis>>,
}

impl Builder {
    /// Sets a Spin variable.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets an environment variable of whoever hosts it.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends a number as many codes as it is asked for, and suspends no range: for whoever tests other things.
    pub fn without_limits(self) -> Self {
        self.variable("rate_limit_requests", "0").variable("pumping_guard", "false")
    }

    /// Listens there: for who has to be known to others before it starts.
    pub fn listen(mut self, address: &str) -> Self {
        self.address = Some(address.to_owned());
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

    /// Starts the service and waits until it answers.
    pub fn start(mut self) -> Service {
        if with_redis() && self.variables.iter().all(|(name, _)| name != "redis_endpoint") {
            let cache = Redis::start();
            self = self.variable("redis_endpoint", &cache.endpoint());
            self.cache = Some(Arc::new(cache));
        }
        Server::launch(self)
    }
}

impl Program for Builder {
    fn command(&self, address: &str, folder: &Path) -> Command {
        let mut command = host();
        forget_variables(&mut command, &["SPIN_VARIABLE_", "SPIN_OTP_", "OTEL_"]);
        let manifest = self.manifest.clone().unwrap_or_else(|| repository().join("spin.toml"));
        command.arg("--from").arg(manifest);
        command.args(["--listen", address, "--state-dir"]).arg(self.state_in(folder));
        command.envs(self.environment.iter().cloned());
        for (name, value) in &self.variables {
            command.env(format!("SPIN_VARIABLE_{}", name.to_uppercase()), value);
        }
        command.envs(self.environment.iter().cloned());
        command
    }

    fn own_address(&self) -> Option<&str> {
        self.address.as_deref()
    }

    fn own_state(&self) -> Option<&Path> {
        self.state.as_deref()
    }

    fn answers(client: &Client) -> bool {
        client.try_send("GET", "/healthz", &[], b"").is_ok()
    }
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
fn host() -> Command {
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
        self.program().cache.as_deref()
    }

    /// The SQLite file.
    pub fn database(&self) -> PathBuf {
        self.state().join("sqlite_db.db")
    }
}
