//! What is the same for every program of this repository that serves HTTP.

use crate::{address::unused_address, client::Client, folder::temporary_folder, process::Process};
use std::{
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};
use tempfile::TempDir;

/// How long most may take to start. Spin compiles the component at every start.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How a program is run.
pub trait Program {
    /// The command that serves on `address`, with all its files in `folder`.
    fn command(&self, address: &str, folder: &Path) -> Command;

    /// Where it keeps its state, if that is not to be below `folder`.
    fn own_state(&self) -> Option<&Path>;

    /// Where it listens, if it is not to choose.
    fn own_address(&self) -> Option<&str>;

    /// Whether it is ready.
    fn answers(client: &Client) -> bool;

    /// How long it may take to start.
    fn patience() -> Duration {
        START_TIMEOUT
    }

    /// Where it keeps its state.
    fn state_in(&self, folder: &Path) -> PathBuf {
        self.own_state().map_or_else(|| folder.join("state"), Path::to_owned)
    }
}

/// A running program. It is killed when dropped.
#[derive(Debug)]
pub struct Server<P> {
    // First, so that it has ended before its files and what it talks to go away.
    process: Process,
    address: String,
    program: P,
    /// State, if nobody else keeps it, and the log.
    folder: TempDir,
}

impl<P: Program> Server<P> {
    /// Starts it, and waits until it answers.
    pub fn launch(program: P) -> Self {
        let folder = temporary_folder();
        let address = program.own_address().map_or_else(unused_address, str::to_owned);
        let process = spawn(&program, &address, folder.path());
        let mut server = Self { process, address, program, folder };
        server.wait_until_it_answers();
        server
    }

    pub(crate) fn program(&self) -> &P {
        &self.program
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A client of this server.
    pub fn client(&self) -> Client {
        Client::new(self.url())
    }

    /// `host:port`
    pub fn address(&self) -> &str {
        &self.address
    }

    /// `http://host:port`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The folder that holds the state.
    pub fn state(&self) -> PathBuf {
        self.program.state_in(self.folder.path())
    }

    /// Resident memory of the process in KiB, where the system tells.
    pub fn resident_memory(&self) -> Option<u64> {
        self.process.resident_memory()
    }

    /// The processor time that the process has had so far, where the system tells.
    pub fn cpu_time(&self) -> Option<Duration> {
        self.process.cpu_time_of_all()
    }

    /// How many files and connections the process has open, where the system tells.
    pub fn open_files(&self) -> Option<usize> {
        self.process.open_files()
    }

    /// How many threads the process has, where the system tells.
    pub fn threads(&self) -> Option<usize> {
        self.process.threads()
    }

    /// The number of its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// All that it has printed so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// SIGKILL: no chance to tidy up.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGTERM, and how it ended.
    pub fn terminate(&mut self) -> ExitStatus {
        self.process.terminate()
    }

    /// How it ended; it must have been told to.
    pub fn wait(&mut self) -> ExitStatus {
        self.process.wait()
    }

    /// Sends a signal by name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Starts it again on the same state and at the same address, however it ended.
    pub fn restart(&mut self) {
        self.kill();
        self.process = spawn(&self.program, &self.address, self.folder.path());
        self.wait_until_it_answers();
    }

    fn wait_until_it_answers(&mut self) {
        let client = self.client();
        self.process.wait_until_it(|| P::answers(&client), P::patience());
    }
}

fn spawn<P: Program>(program: &P, address: &str, folder: &Path) -> Process {
    let mut command = program.command(address, folder);
    // A .env of the working folder shall not decide here.
    command.current_dir(folder);
    Process::spawn(&mut command, &folder.join("log"), "run make build")
}
