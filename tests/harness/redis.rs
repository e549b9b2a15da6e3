//! A Redis of the test's own.

use crate::{
    address::{port, unused_address},
    folder::temporary_folder,
    process::{INSTALL_HINT, Process},
};
use redis::{Commands, Connection};
use std::{path::PathBuf, process::Command, time::Duration};
use tempfile::TempDir;

/// How long it may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A running redis-server on a free port, with its files in a folder of its own. Killed when dropped.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    address: String,
    password: Option<String>,
    folder: TempDir,
}

impl Redis {
    /// An empty server that lets everybody in from this machine.
    pub fn start() -> Self {
        Self::start_with(None)
    }

    /// An empty server that asks for this password.
    pub fn with_password(password: &str) -> Self {
        Self::start_with(Some(password.to_owned()))
    }

    fn start_with(password: Option<String>) -> Self {
        let folder = temporary_folder();
        let address = unused_address();
        let process = spawn(&address, password.as_deref(), &folder);
        let mut redis = Self { process, address, password, folder };
        redis.wait_until_it_answers();
        redis
    }

    /// `redis://host:port`
    pub fn endpoint(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// `host:port`
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A connection for the test itself.
    pub fn connect(&self) -> Connection {
        connect(&self.address, self.password.as_deref()).unwrap()
    }

    /// Every key.
    pub fn keys(&self) -> Vec<String> {
        self.connect().keys("*").unwrap()
    }

    /// The processor time that it has had so far, with its children, where the system tells.
    pub fn cpu_time(&self) -> Option<Duration> {
        self.process.cpu_time_of_all()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again at the same address, with what it last saved.
    pub fn restart(&mut self) {
        self.kill();
        self.process = spawn(&self.address, self.password.as_deref(), &self.folder);
        self.wait_until_it_answers();
    }

    /// Starts it again at the same address, empty.
    pub fn restart_empty(&mut self) {
        self.kill();
        let _ = std::fs::remove_file(self.snapshot());
        self.restart();
    }

    /// Saves all there is, for a later [`restart`](Self::restart).
    pub fn save(&self) {
        let () = redis::cmd("SAVE").query(&mut self.connect()).unwrap();
        assert!(self.snapshot().exists());
    }

    fn snapshot(&self) -> PathBuf {
        self.folder.path().join("dump.rdb")
    }

    /// All bytes that it has on disk.
    pub fn files(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Sends a signal by name, such as `STOP`.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    fn wait_until_it_answers(&mut self) {
        let pong =
            || redis::cmd("PING").query::<String>(&mut connect(&self.address, self.password.as_deref())?);
        self.process.wait_until_it(|| pong().is_ok(), START_TIMEOUT);
    }
}

fn connect(address: &str, password: Option<&str>) -> redis::RedisResult<Connection> {
    let mut connection = redis::Client::open(format!("redis://{address}"))?.get_connection()?;
    if let Some(password) = password {
        let () = redis::cmd("AUTH").arg(password).query(&mut connection)?;
    }
    Ok(connection)
}

fn spawn(address: &str, password: Option<&str>, folder: &TempDir) -> Process {
    let mut command = Command::new("redis-server");
    command.args(["--port", port(address), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    // Uncompressed, so that a scan of its files sees what is in them.
    command.args(["--rdbcompression", "no", "--dir"]);
    command.arg(folder.path());
    if let Some(password) = password {
        command.args(["--requirepass", password]);
    }
    Process::spawn(&mut command, &folder.path().join("log"), INSTALL_HINT)
}
