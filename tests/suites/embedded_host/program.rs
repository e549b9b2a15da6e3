//! The host with flags and limits of its own.

use harness::{Client, eventually, repository, unused_address};
use std::{
    fs::File,
    path::Path,
    process::{Child, Command},
    time::Duration,
};
use tempfile::TempDir;

/// A running host. It is killed when dropped.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    pub(crate) address: String,
    folder: TempDir,
}

impl Program {
    /// Starts it with at most so many open files, where that is to be limited, and waits until it answers.
    pub(crate) fn start(flags: &[&str], open_files: Option<u32>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = unused_address();
        let limit = open_files.map_or_else(String::new, |most| format!("ulimit -n {most} && "));
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{limit}exec \"$0\" \"$@\"")]);
        command.arg(repository().join("target/release/spin-otp-host"));
        command.arg("--from").arg(repository().join("spin.toml"));
        command.args(["--listen", &address, "--state-dir"]).arg(folder.path().join("state")).args(flags);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SPIN_")) {
            command.env_remove(name);
        }
        // What is asked of it here would be refused as abuse.
        command.env("SPIN_VARIABLE_PUMPING_GUARD", "false");
        let log = File::create(folder.path().join("log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log).current_dir(folder.path());
        let host = Self { child: command.spawn().unwrap(), address, folder };
        eventually("an answer", Duration::from_secs(60), || {
            host.client().try_send("GET", "/healthz", &[], b"").is_ok()
        });
        host
    }

    /// A client with no connection yet.
    pub(crate) fn client(&self) -> Client {
        Client::new(format!("http://{}", self.address))
    }

    /// All that it has printed so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// How many files and connections it has open, where the system tells.
    pub(crate) fn open_files(&self) -> Option<usize> {
        std::fs::read_dir(self.told_by_the_system("fd")).ok().map(Iterator::count)
    }

    /// Resident memory in KiB, where the system tells.
    pub(crate) fn memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(self.told_by_the_system("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    }

    fn told_by_the_system(&self, what: &str) -> std::path::PathBuf {
        Path::new("/proc").join(self.child.id().to_string()).join(what)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
