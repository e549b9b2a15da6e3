//! A mail server of the test's own.

use crate::{
    address::{port, unused_address},
    certificate::Certificate,
    folder::temporary_folder,
    process::{INSTALL_HINT, Process},
    service::repository,
};
use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tempfile::TempDir;

/// How long it may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(20);

const USER: &str = "relay";
const PASSWORD: &str = "of-the-relay-at-the-mail-server";

/// A running mail server on a free port, with its files in a folder of its own. It listens on 127.0.0.1, and
/// its certificate is good for that and for localhost. Killed when dropped.
#[derive(Debug)]
pub struct MailServer {
    process: Process,
    address: String,
    mode: Mode,
    login: bool,
    certificate: Certificate,
    folder: TempDir,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Plain,
    StartTls,
    Tls,
}

impl MailServer {
    /// Takes mail only after STARTTLS and a login.
    pub fn starttls() -> Self {
        Self::start(Mode::StartTls, true)
    }

    /// Takes mail only after a login, on connections that are encrypted from their first byte on.
    pub fn tls() -> Self {
        Self::start(Mode::Tls, true)
    }

    /// Takes mail only after STARTTLS, from everybody: there is no login.
    pub fn starttls_without_login() -> Self {
        Self::start(Mode::StartTls, false)
    }

    /// Has no encryption to offer, and wants a login all the same.
    pub fn plain() -> Self {
        Self::start(Mode::Plain, true)
    }

    fn start(mode: Mode, login: bool) -> Self {
        let folder = temporary_folder();
        fs::create_dir(folder.path().join("messages")).unwrap();
        let certificate = Certificate::make(folder.path());
        let address = unused_address();
        let process = spawn(&address, mode, login, folder.path());
        let mut server = Self { process, address, mode, login, certificate, folder };
        server.wait_until_it_answers();
        server
    }

    /// `host:port`
    pub fn address(&self) -> &str {
        &self.address
    }

    /// `smtp://user:password@localhost:port`, or `smtps://` where TLS comes first.
    pub fn url(&self) -> String {
        let scheme = if self.mode == Mode::Tls { "smtps" } else { "smtp" };
        let login = if self.login { format!("{USER}:{PASSWORD}@") } else { String::new() };
        format!("{scheme}://{login}localhost:{}", port(&self.address))
    }

    /// Who may log in.
    pub fn username(&self) -> &str {
        USER
    }

    /// What goes with the name.
    pub fn password(&self) -> &str {
        PASSWORD
    }

    /// The authority that signed its certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.certificate.authority()
    }

    /// Every message that it took, in their order, as they came; in front stand `X-MailFrom` and `X-RcptTo`,
    /// which are the envelope's.
    pub fn messages(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path().join("messages")).unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "eml"));
        files.sort();
        files.iter().map(|file| String::from_utf8_lossy(&fs::read(file).unwrap()).into_owned()).collect()
    }

    /// Answers the next `n` recipients with this code, such as 451 or 550, and none after.
    pub fn refuse_next(&self, n: usize, code: u16) {
        // Not written in place: the server reads at any time.
        let part = self.folder.path().join("refuse.part");
        fs::write(&part, format!("{n} {code}")).unwrap();
        fs::rename(part, self.folder.path().join("refuse")).unwrap();
    }

    /// All that it has printed so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again at the same address, with the messages that it had.
    pub fn restart(&mut self) {
        self.kill();
        self.process = spawn(&self.address, self.mode, self.login, self.folder.path());
        self.wait_until_it_answers();
    }

    /// Sends a signal by name, such as `STOP`.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    fn wait_until_it_answers(&mut self) {
        self.process.wait_until_it(|| TcpStream::connect(&self.address).is_ok(), START_TIMEOUT);
    }
}

fn spawn(address: &str, mode: Mode, login: bool, folder: &Path) -> Process {
    let mut command = Command::new(python());
    command.arg(repository().join("tests/servers/smtp/server.py")).arg(folder).arg(port(address));
    command.arg(match mode {
        Mode::Plain => "plain",
        Mode::StartTls => "starttls",
        Mode::Tls => "tls",
    });
    if login {
        command.args([USER, PASSWORD]);
    }
    Process::spawn(&mut command, &folder.join("log"), INSTALL_HINT)
}

/// A Python that has aiosmtpd: the system's, whose packages bring it, or else the developer's.
fn python() -> &'static str {
    let has_it = |python: &&str| {
        let seen = Command::new(python).args(["-c", "import aiosmtpd"]).output();
        seen.is_ok_and(|output| output.status.success())
    };
    ["/usr/bin/python3", "python3"]
        .into_iter()
        .find(has_it)
        .unwrap_or_else(|| panic!("there is no Python with aiosmtpd: {INSTALL_HINT}"))
}
