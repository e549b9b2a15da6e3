//! A PostgreSQL of the test's own.

use crate::{
    address::{port, unused_address},
    certificate::Certificate,
    folder::temporary_folder,
    process::{INSTALL_HINT, Process, output_of},
    service::repository,
};
use postgres::{Client, NoTls, error::SqlState};
use std::{
    collections::HashMap,
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, LazyLock, Mutex, Weak},
    time::Duration,
};
use tempfile::TempDir;

/// How long it may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Who owns the tables.
const USER: &str = "spin_otp";
const PASSWORD: &str = "a password that nobody else has";
const DATABASE: &str = "postgres";

/// A running PostgreSQL on a free port of the loopback interface, with its files in a folder of its own.
/// Ended when dropped.
#[derive(Debug)]
pub struct Postgres {
    // First, so that it has ended before its files go away.
    process: Process,
    address: String,
    certificate: Option<Certificate>,
    folder: PathBuf,
    /// The same folder, unless somebody else keeps it.
    _own: Option<TempDir>,
}

/// The server that runs on a folder, if any does. Whoever starts one has it locked.
type Place = Arc<Mutex<Weak<Postgres>>>;

/// Servers on folders that somebody else keeps.
static PLACES: Mutex<Option<HashMap<PathBuf, Place>>> = Mutex::new(None);

impl Postgres {
    /// An empty database.
    pub fn start() -> Self {
        Self::start_with(|_| None)
    }

    /// An empty database that is spoken to over TLS, and in no other way.
    pub fn with_tls() -> Self {
        Self::start_with(|folder| {
            let certificate = Certificate::make(folder);
            let data = folder.join("data");
            let files = [("key.pem", "server.key"), ("certificate.pem", "server.crt")];
            for (made, wanted) in files.map(|(made, wanted)| (folder.join(made), data.join(wanted))) {
                fs::copy(made, &wanted).unwrap();
                output_of(Command::new("chmod").arg("600").arg(&wanted));
                if is_root() {
                    output_of(Command::new("chown").arg("postgres:postgres").arg(&wanted));
                }
            }
            let rules = fs::read_to_string(data.join("pg_hba.conf")).unwrap();
            fs::write(data.join("pg_hba.conf"), rules.replace("\nhost ", "\nhostssl ")).unwrap();
            Some(certificate)
        })
    }

    /// The one server whose files lie in that folder, with what was committed there: started, if it does not run.
    pub fn in_folder(folder: &Path) -> Arc<Self> {
        fs::create_dir_all(folder).unwrap();
        let folder = folder.canonicalize().unwrap();
        let place =
            Arc::clone(PLACES.lock().unwrap().get_or_insert_default().entry(folder.clone()).or_default());
        let mut running = place.lock().unwrap();
        if let Some(server) = running.upgrade() {
            return server;
        }
        let server = Arc::new(Self::on(folder, None, |_| None));
        *running = Arc::downgrade(&server);
        server
    }

    fn start_with(certify: impl FnOnce(&Path) -> Option<Certificate>) -> Self {
        let folder = temporary_folder();
        Self::on(folder.path().to_owned(), Some(folder), certify)
    }

    fn on(folder: PathBuf, own: Option<TempDir>, certify: impl FnOnce(&Path) -> Option<Certificate>) -> Self {
        // It does not run as root, and nobody else may read its files.
        if is_root() {
            output_of(Command::new("chown").arg("postgres:postgres").arg(&folder));
            folder.ancestors().skip(1).for_each(let_pass);
        }
        if data(&folder).exists() {
            forget_who_ran_on(&folder);
        } else {
            output_of(Command::new("cp").arg("-a").arg(template()).arg(data(&folder)));
        }
        let certificate = certify(&folder);
        let address = unused_address();
        let process = spawn(&address, &folder);
        let mut server = Self { process, address, certificate, folder, _own: own };
        server.wait_until_it_answers();
        server
    }

    /// `host:port`
    pub fn address(&self) -> &str {
        &self.address
    }

    /// `postgres://host:port`
    pub fn endpoint(&self) -> String {
        format!("postgres://{}", self.address)
    }

    /// The processor time that it has had so far, with its children, where the system tells.
    pub fn cpu_time(&self) -> Option<Duration> {
        self.process.cpu_time_of_all()
    }

    /// Who may do everything in its database.
    pub fn user(&self) -> &str {
        USER
    }

    /// The password of that user.
    pub fn password(&self) -> &str {
        PASSWORD
    }

    /// The name of its database.
    pub fn database(&self) -> &str {
        DATABASE
    }

    /// `postgres://user:password@host:port/database`
    pub fn url(&self) -> String {
        url(&self.address)
    }

    /// The certificate of the authority that clients have to trust, where it speaks TLS.
    pub fn authority(&self) -> PathBuf {
        self.certificate.as_ref().unwrap().authority()
    }

    /// A connection for the test itself, to a server without TLS.
    pub fn connect(&self) -> Client {
        connect(&self.address).unwrap()
    }

    /// SIGKILL to all of its processes.
    pub fn kill(&mut self) {
        self.process.kill_with_children();
    }

    /// Starts it again at the same address, with what was committed.
    pub fn restart(&mut self) {
        self.kill();
        forget_who_ran_on(&self.folder);
        self.process = spawn(&self.address, &self.folder);
        self.wait_until_it_answers();
    }

    /// Stops all of its processes in the middle of whatever they do.
    pub fn freeze(&self) {
        self.process.signal_with_children("STOP");
    }

    /// Lets them go on.
    pub fn thaw(&self) {
        self.process.signal_with_children("CONT");
    }

    /// All bytes that it has on disk.
    pub fn files(&self) -> PathBuf {
        data(&self.folder)
    }

    /// All that it has printed so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    fn wait_until_it_answers(&mut self) {
        let (address, tls) = (self.address.clone(), self.certificate.is_some());
        // Where it asks for TLS it says so, once it says anything.
        let answers = move || match connect(&address) {
            Ok(_) => true,
            Err(error) => tls && error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION),
        };
        self.process.wait_until_it(answers, START_TIMEOUT);
    }
}

fn url(address: &str) -> String {
    format!("postgres://{USER}:{}@{address}/{DATABASE}", PASSWORD.replace(' ', "%20"))
}

fn connect(address: &str) -> Result<Client, postgres::Error> {
    let mut config: postgres::Config = url(address).parse()?;
    config.connect_timeout(Duration::from_secs(5)).connect(NoTls)
}

fn data(folder: &Path) -> PathBuf {
    folder.join("data")
}

/// Whoever was killed has left its number, which may be another's by now.
fn forget_who_ran_on(folder: &Path) {
    let _ = fs::remove_file(data(folder).join("postmaster.pid"));
}

/// Lets everybody through this folder to what lies in it.
fn let_pass(folder: &Path) {
    let mut permissions = fs::metadata(folder).unwrap().permissions();
    if permissions.mode() & 0o001 == 0 {
        permissions.set_mode(permissions.mode() | 0o111);
        fs::set_permissions(folder, permissions).unwrap();
    }
}

fn spawn(address: &str, folder: &Path) -> Process {
    let mut command = as_its_user(&program("postgres"));
    command.arg("-D").arg(data(folder));
    command.args(["-c", &format!("port={}", port(address)), "-c", "listen_addresses=127.0.0.1"]);
    command.args([
        "-c",
        "unix_socket_directories=",
        "-c",
        "max_connections=200",
        "-c",
        "shared_buffers=16MB",
    ]);
    // What is killed here are processes, not machines: what they have written is there when they come back.
    command.args(["-c", "fsync=off", "-c", "log_min_messages=warning"]);
    if data(folder).join("server.crt").exists() {
        command.args(["-c", "ssl=on"]);
    }
    command.current_dir(folder);
    Process::spawn(&mut command, &folder.join("log"), INSTALL_HINT)
}

/// A new cluster, made once and copied for each server: that takes a tenth of the time.
fn template() -> &'static Path {
    // Tests that begin at the same moment do not make one each.
    static TEMPLATE: LazyLock<PathBuf> = LazyLock::new(make_template);
    &TEMPLATE
}

fn make_template() -> PathBuf {
    let version = output_of(Command::new(program("postgres")).arg("--version"));
    let version = version.split_whitespace().nth(2).unwrap();
    let cache = repository().join(".cache");
    let template = cache.join(format!("postgres-{version}-small"));
    if template.exists() {
        return template;
    }
    let aside = temporary_folder();
    if is_root() {
        output_of(Command::new("chown").arg("postgres:postgres").arg(aside.path()));
    }
    let password = aside.path().join("password");
    fs::write(&password, PASSWORD).unwrap();
    let data = aside.path().join("data");
    let mut command = as_its_user(&program("initdb"));
    command.arg("--pgdata").arg(&data).args(["--username", USER, "--auth", "scram-sha-256"]);
    command.arg("--pwfile").arg(&password).args(["--encoding", "UTF8", "--locale", "C"]);
    command.args(["--no-sync", "--wal-segsize", "1"]).current_dir(aside.path());
    if is_root() {
        output_of(Command::new("chmod").arg("644").arg(&password));
    }
    output_of(&mut command);
    make_smaller(&data);
    fs::create_dir_all(&cache).unwrap();
    // Under a name of its own first, so that nobody takes a part for the whole.
    let half = cache.join(format!("postgres-half.{}", std::process::id()));
    output_of(Command::new("cp").arg("-a").arg(&data).arg(&half));
    if fs::rename(&half, &template).is_err() {
        // Somebody else was quicker.
        let _ = fs::remove_dir_all(&half);
    }
    template
}

/// Takes out of a new cluster a template that nobody asks for by name: a third of its nine hundred files, and of the time
/// to copy them.
fn make_smaller(data: &Path) {
    let mut command = as_its_user(&program("postgres"));
    command.arg("--single").arg("-D").arg(data).args(["-c", "fsync=off", "-c", "exit_on_error=on", DATABASE]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir(data);
    let mut server = command.spawn().unwrap();
    // One statement a line.
    let statements = b"UPDATE pg_database SET datistemplate = false WHERE datname = 'template0'\n\
        DROP DATABASE template0\n";
    server.stdin.take().unwrap().write_all(statements).unwrap();
    assert!(server.wait().unwrap().success(), "a new cluster cannot be made smaller");
}

/// PostgreSQL refuses to run as root; its package brings a user that it runs as.
fn as_its_user(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
    command
}

fn is_root() -> bool {
    output_of(Command::new("id").arg("-u")).trim() == "0"
}

/// Debian puts its programs where no PATH leads.
fn program(name: &str) -> PathBuf {
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path().join("bin").join(name))
        .filter(|program| program.exists())
        .collect();
    versions.sort();
    versions.pop().unwrap_or_else(|| PathBuf::from(name))
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Told to, it gives back the memory that it shares: the system has room for a few thousand such pieces, and
        // keeps those of a server that was killed.
        self.process.end_with_children("QUIT");
    }
}
