//! The service as a process.

use crate::{
    client::Client,
    eventually,
    folder::temporary_folder,
    postgres::Postgres,
    process::forget_variables,
    redis::Redis,
    server::{Program, Server},
    sql::{Hold, Sql},
};
use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;

/// How long it may take to make the tables of a new database.
const TABLES_TIMEOUT: Duration = Duration::from_secs(60);

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
    checkout: Option<PathBuf>,
    /// Its own Redis, from the start on, where the suites run with one.
    cache: Option<Arc<Redis>>,
    /// Its own Postgres, likewise. It is shared with whoever has the same state, for its files are part of that.
    postgres: Option<Arc<Postgres>>,
    /// The state that a Postgres of its own needs before the service starts.
    folder: Option<Arc<TempDir>>,
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

    /// Runs what was built in another checkout of this repository.
    pub fn checkout(self, folder: &Path) -> Self {
        Self { checkout: Some(folder.to_owned()), ..self.manifest(&folder.join("spin.toml")) }
    }

    /// Starts the service and waits until it answers.
    pub fn start(mut self) -> Service {
        if with_redis() && !self.sets("redis_endpoint") {
            let cache = Redis::start();
            self = self.variable("redis_endpoint", &cache.endpoint());
            self.cache = Some(Arc::new(cache));
        }
        if store() == Store::Postgres && !self.sets("postgres_endpoint") {
            let state = self.state.clone().unwrap_or_else(|| {
                let folder = self.folder.insert(Arc::new(temporary_folder()));
                folder.path().join("state")
            });
            let postgres = Postgres::in_folder(&state.join("postgres"));
            self = self.state(&state).postgres(&postgres);
            self.postgres = Some(postgres);
            let service = Server::launch(self);
            service.wait_for_its_tables();
            return service;
        }
        Server::launch(self)
    }

    /// Keeps everything in that Postgres, whatever the suites run with.
    pub fn postgres(self, postgres: &Postgres) -> Self {
        self.variable("postgres_endpoint", &postgres.endpoint())
            .variable("postgres_user", postgres.user())
            .variable("postgres_password", postgres.password())
            .variable("postgres_database", postgres.database())
    }

    fn sets(&self, variable: &str) -> bool {
        self.value(variable).is_some()
    }

    fn value(&self, variable: &str) -> Option<&str> {
        let set = self.variables.iter().rfind(|(name, _)| name == variable);
        set.map(|(_, value)| value.as_str())
    }
}

impl Program for Builder {
    fn command(&self, address: &str, folder: &Path) -> Command {
        let mut command = host(self.checkout.as_deref().unwrap_or(repository()));
        forget_variables(&mut command, &["SPIN_VARIABLE_", "SPIN_OTP_", "OTEL_"]);
        let manifest = self.manifest.clone().unwrap_or_else(|| repository().join("spin.toml"));
        command.arg("--from").arg(manifest);
        command.args(["--listen", address, "--state-dir"]).arg(self.state_in(folder));
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

/// What a service keeps its state in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// A file in its state folder.
    Sqlite,
    /// A server of its own, whose files lie there.
    Postgres,
}

/// What every service has where the test sets nothing: with STORE=postgres the whole suite runs on Postgres.
pub fn store() -> Store {
    match std::env::var("STORE").as_deref() {
        Ok("postgres") => Store::Postgres,
        Ok("") | Err(_) => Store::Sqlite,
        Ok(other) => panic!("STORE is {other}; it is either postgres or empty"),
    }
}

/// Whoever hosts the service: this project's own host, or spin with HOST=spin.
fn host(checkout: &Path) -> Command {
    match std::env::var("HOST").as_deref() {
        Ok("spin") => {
            let mut spin = Command::new("spin");
            spin.arg("up");
            spin
        }
        _ => Command::new(checkout.join("target/release/spin-otp-host")),
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

    /// Waits until its tables are made: that may take longer than the first request of a test has, where many tests
    /// have them made at the same moment. One that does not serve makes none.
    fn wait_for_its_tables(&self) {
        eventually("tables", TABLES_TIMEOUT, || {
            let ready = self.client().get("/readyz");
            ready.status != 503 || ready.json()["code"] != "unavailable"
        });
    }

    /// Its own Redis, where the suites run with one.
    pub fn cache(&self) -> Option<&Redis> {
        self.program().cache.as_deref()
    }

    /// The Postgres whose files are part of its state, where the suites run with one.
    pub fn postgres(&self) -> Option<&Postgres> {
        self.program().postgres.as_deref()
    }

    /// Its database, for the test itself.
    pub fn sql(&self) -> Sql {
        match self.postgres() {
            Some(postgres) => Sql::postgres(postgres),
            None => {
                let endpoint = self.program().value("postgres_endpoint").unwrap_or_default();
                assert!(endpoint.is_empty(), "the test has a Postgres of its own: Sql::postgres");
                Sql::sqlite(&self.database())
            }
        }
    }

    /// Lets nobody write to its database, which must have been used: everybody who would waits.
    pub fn hold_writes(&self) -> Hold {
        self.sql().hold_writes()
    }

    /// Lets nobody read its database either.
    pub fn hold_all(&self) -> Hold {
        self.sql().hold_all()
    }

    /// The SQLite file.
    pub fn database(&self) -> PathBuf {
        self.state().join("sqlite_db.db")
    }
}
