//! The relay as a process.

use crate::{
    client::Client,
    process::forget_variables,
    server::{Program, Server},
    service::repository,
};
use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// A running relay.
pub type Relay = Server<RelayBuilder>;

/// How a relay is to be started.
#[derive(Debug, Default, Clone)]
pub struct RelayBuilder {
    variables: Vec<(String, String)>,
    state: Option<PathBuf>,
    delivery: Option<String>,
}

impl RelayBuilder {
    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Keeps the state there, where it outlives the relay.
    pub fn state(mut self, folder: &Path) -> Self {
        self.state = Some(folder.to_owned());
        self
    }

    /// Delivers as this TOML text says.
    pub fn delivery(mut self, text: &str) -> Self {
        self.delivery = Some(text.to_owned());
        self
    }

    /// Starts the relay and waits until it is healthy.
    pub fn start(self) -> Relay {
        Server::launch(self)
    }

    /// The program, with all variables but no arguments.
    fn configured(&self, address: &str, folder: &Path) -> Command {
        let mut command = Command::new(repository().join("target/release/relay"));
        forget_variables(&mut command, &["RELAY_", "KAFKA_"]);
        command.env("RELAY_LISTEN", address).env("RELAY_STATE_DIR", self.state_in(folder));
        if let Some(text) = &self.delivery {
            let file = folder.join("delivery.toml");
            std::fs::write(&file, text).unwrap();
            command.env("RELAY_DELIVERY_FILE", file);
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

    fn own_state(&self) -> Option<&Path> {
        self.state.as_deref()
    }

    fn answers(client: &Client) -> bool {
        client.try_send("GET", "/healthz", &[], b"").is_ok_and(|answer| answer.status == 200)
    }
}

impl Relay {
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
        command.output().expect("the relay can be started; run make build")
    }
}
