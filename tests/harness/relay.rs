//! The relay as a process.

use crate::{
    address::{port, unused_address},
    client::Client,
    folder::temporary_folder,
    ledger::Ledger,
    postgres::Postgres,
    process::{Process, forget_variables},
    server::{Program, Server},
    service::repository,
};
use std::{
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output, Stdio},
    sync::Arc,
};

/// What to do where the program is missing.
const BUILD_HINT: &str = "run make build";

/// A running relay.
pub type Relay = Server<RelayBuilder>;

/// How a relay is to be started.
#[derive(Debug, Default, Clone)]
pub struct RelayBuilder {
    variables: Vec<(String, String)>,
    state: Option<PathBuf>,
    address: Option<String>,
    delivery: Option<String>,
    everywhere: bool,
    checkout: Option<PathBuf>,
    on_a_file: bool,
    /// The URL of the Postgres that its ledger is in.
    database: Option<String>,
    /// That Postgres, from the start on, where the suites run with one.
    own_database: Option<Arc<Postgres>>,
}

impl RelayBuilder {
    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Listens there: for who has to be known to others before it starts.
    pub fn listen(mut self, address: &str) -> Self {
        self.address = Some(address.to_owned());
        self
    }

    /// Keeps the state there, where it outlives the relay.
    pub fn state(mut self, folder: &Path) -> Self {
        self.state = Some(folder.to_owned());
        self
    }

    /// Has its ledger in this Postgres, with whatever other relay has.
    pub fn database(mut self, postgres: &Postgres) -> Self {
        self.database = Some(postgres.url());
        self
    }

    /// Has its ledger in a file, whatever the suites run with: for what is promised of the file.
    pub fn on_a_file(mut self) -> Self {
        self.on_a_file = true;
        self
    }

    /// Has the ledger of another relay, which may have ended but must not have been dropped.
    pub fn ledger_of(mut self, relay: &Relay) -> Self {
        self.state = Some(relay.state());
        self.database = relay.program().database.clone();
        self
    }

    /// Delivers as this TOML text says.
    pub fn delivery(mut self, text: &str) -> Self {
        self.delivery = Some(text.to_owned());
        self
    }

    /// Listens on every interface and not on the loopback one alone.
    pub fn everywhere(mut self) -> Self {
        self.everywhere = true;
        self
    }

    /// Runs what was built in another checkout of this repository.
    pub fn checkout(mut self, folder: &Path) -> Self {
        self.checkout = Some(folder.to_owned());
        self
    }

    /// Starts a relay that has to end by itself: how it ended, and all that it printed.
    pub fn refused(&self) -> (ExitStatus, String) {
        let folder = temporary_folder();
        let mut command = self.command(&unused_address(), folder.path());
        command.current_dir(folder.path());
        let mut process = Process::spawn(&mut command, &folder.path().join("log"), BUILD_HINT);
        (process.wait(), process.log())
    }

    /// Starts the relay and waits until it is healthy.
    pub fn start(mut self) -> Relay {
        let named = self.variables.iter().any(|(name, _)| name == "RELAY_DATABASE_URL");
        if with_postgres() && !named && !self.on_a_file && self.database.is_none() {
            let database = Postgres::start();
            self = self.database(&database);
            self.own_database = Some(Arc::new(database));
        }
        Server::launch(self)
    }

    /// The program, with all variables but no arguments.
    fn configured(&self, address: &str, folder: &Path) -> Command {
        let mut command =
            Command::new(self.checkout.as_deref().unwrap_or(repository()).join("target/release/relay"));
        forget_variables(&mut command, &["RELAY_", "KAFKA_", "OTEL_"]);
        let everywhere = format!("0.0.0.0:{}", port(address));
        let address = if self.everywhere { &everywhere } else { address };
        command.env("RELAY_LISTEN", address).env("RELAY_STATE_DIR", self.state_in(folder));
        if let Some(text) = &self.delivery {
            let file = folder.join("delivery.toml");
            std::fs::write(&file, text).unwrap();
            command.env("RELAY_DELIVERY_FILE", file);
        }
        if let Some(url) = &self.database {
            command.env("RELAY_DATABASE_URL", url);
        }
        command.envs(self.variables.iter().cloned());
        command
    }
}

impl Program for RelayBuilder {
    fn command(&self, address: &str, folder: &Path) -> Command {
        let mut command = self.configured(address, folder);
        command.arg("serve");
        command
    }

    fn own_address(&self) -> Option<&str> {
        self.address.as_deref()
    }

    fn own_state(&self) -> Option<&Path> {
        self.state.as_deref()
    }

    fn answers(client: &Client) -> bool {
        client.try_send("GET", "/healthz", &[], b"").is_ok_and(|answer| answer.status == 200)
    }
}

/// Whether every relay has its ledger in a Postgres of its own: with LEDGER=postgres the whole suite runs so.
pub fn with_postgres() -> bool {
    match std::env::var("LEDGER").as_deref() {
        Ok("postgres") => true,
        Ok("") | Err(_) => false,
        Ok(other) => panic!("LEDGER is {other}; it is either postgres or empty"),
    }
}

impl Relay {
    /// Its ledger, to look into.
    pub fn ledger(&self) -> Ledger {
        match &self.program().database {
            Some(url) => Ledger::in_postgres(url),
            None => Ledger::in_folder(&self.state()),
        }
    }

    /// A relay with everything at its default.
    pub fn start() -> Self {
        RelayBuilder::default().start()
    }

    /// Where to set variables before the start.
    pub fn builder() -> RelayBuilder {
        RelayBuilder::default()
    }

    /// Runs another of its commands, such as `dlq list`, with the same variables, to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.program().configured(self.address(), self.folder());
        command.args(arguments).current_dir(self.folder()).stdin(Stdio::null());
        command.output().unwrap_or_else(|error| panic!("the relay cannot be started ({error}): {BUILD_HINT}"))
    }
}
