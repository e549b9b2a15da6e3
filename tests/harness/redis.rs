//! A Redis of the test's own.

use crate::service::unused_address;
use redis::{Commands, Connection};
use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long it may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A running redis-server on a free port, with its files in a folder of its own. Killed when dropped.
#[derive(Debug)]
pub struct Redis {
    child: Child,
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
        let folder = tempfile::tempdir().unwrap();
        let address = unused_address();
        let child = spawn(&address, password.as_deref(), &folder);
        let mut redis = Self { child, address, password, folder };
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
        self.try_connect().unwrap()
    }

    fn try_connect(&self) -> redis::RedisResult<Connection> {
        let mut connection = redis::Client::open(self.endpoint())?.get_connection()?;
        if let Some(password) = &self.password {
            let () = redis::cmd("AUTH").arg(password).query(&mut connection)?;
        }
        Ok(connection)
    }

    /// Every key.
    pub fn keys(&self) -> Vec<String> {
        self.connect().keys("*").unwrap()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Starts it again at the same address, with what it last saved.
    pub fn restart(&mut self) {
        self.kill();
        self.child = spawn(&self.address, self.password.as_deref(), &self.folder);
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
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    fn wait_until_it_answers(&mut self) {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let pong = self
                .try_connect()
                .and_then(|mut connection| redis::cmd("PING").query::<String>(&mut connection));
            if pong.is_ok() {
                return;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("redis-server ended with {status}");
            }
            assert!(Instant::now() < deadline, "redis-server does not answer: {pong:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn spawn(address: &str, password: Option<&str>, folder: &TempDir) -> Child {
    let port = address.rsplit_once(':').unwrap().1;
    let mut command = Command::new("redis-server");
    command.args(["--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    // Uncompressed, so that a scan of its files sees what is in them.
    command.args(["--rdbcompression", "no", "--dir"]);
    command.arg(folder.path());
    if let Some(password) = password {
        command.args(["--requirepass", password]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("redis-server can be started; scripts/test-servers.sh installs it or says how")
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
