//! A server as a process: in a group of its own, with a log.

use std::{
    fs::File,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// What to do about a server that is not on this machine.
pub(crate) const INSTALL_HINT: &str = "scripts/test-servers.sh installs it or says how";

/// How long it may take to stop after it was told to.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// What Linux counts processor time in, on every architecture that matters here.
const TICKS_PER_SECOND: f64 = 100.0;

/// A running program. It is killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    program: String,
    child: Child,
    log: PathBuf,
    /// Whether its whole group is gone. The number of the group may then be another's.
    gone: bool,
}

impl Process {
    /// Starts it. What it prints goes to the end of the file `log`; `hint` says how to come by the program.
    pub(crate) fn spawn(command: &mut Command, log: &Path, hint: &str) -> Self {
        let program = command.get_program().to_string_lossy().into_owned();
        let output = File::options().append(true).create(true).open(log).unwrap();
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        // A group of its own, to kill all of it: spin is two processes.
        command.process_group(0);
        let child =
            command.spawn().unwrap_or_else(|error| panic!("{program} cannot be started ({error}): {hint}"));
        Self { program, child, log: log.to_owned(), gone: false }
    }

    /// Waits until it answers.
    pub(crate) fn wait_until_it(&mut self, answers: impl Fn() -> bool, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        while !answers() {
            self.must_run();
            assert!(Instant::now() < deadline, "{} does not answer: {}", self.program, self.log());
            thread::sleep(Duration::from_millis(10));
        }
        // Somebody else may have taken the address in the meantime, and answered.
        thread::sleep(Duration::from_millis(5));
        self.must_run();
    }

    fn must_run(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("{} ended with {status}: {}", self.program, self.log());
        }
    }

    /// All that it has printed so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }

    /// SIGKILL: no chance to tidy up.
    pub(crate) fn kill(&mut self) {
        if self.gone {
            return;
        }
        // It may have ended by itself.
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-s", "KILL", "--", &group]).stderr(Stdio::null()).status();
        self.child.wait().unwrap();
        self.gone = true;
    }

    /// SIGKILL to it and to its children, which may have left its group.
    pub(crate) fn kill_with_children(&mut self) {
        // Stopped first, so that it makes no new ones.
        if !self.gone {
            self.signal_with_children("STOP");
            for child in self.children() {
                let _ = Command::new("kill").args(["-s", "KILL", &child]).stderr(Stdio::null()).status();
            }
        }
        self.kill();
    }

    /// Sends a signal by name that makes it end with all of its children, whatever state they are in, and kills
    /// what does not.
    pub(crate) fn end_with_children(&mut self, name: &str) {
        if self.gone {
            return;
        }
        self.signal_with_children("CONT");
        self.signal(name);
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline {
            if self.child.try_wait().unwrap().is_some() {
                self.gone = true;
                return;
            }
            thread::sleep(Duration::from_millis(2));
        }
        self.kill_with_children();
    }

    /// Sends a signal by name to it and to its children.
    pub(crate) fn signal_with_children(&self, name: &str) {
        self.signal(name);
        for child in self.children() {
            // It may have ended by itself.
            let _ = Command::new("kill").args(["-s", name, &child]).stderr(Stdio::null()).status();
        }
    }

    fn children(&self) -> Vec<String> {
        let mut pgrep = Command::new("pgrep");
        let listed = pgrep.args(["-P", &self.child.id().to_string()]).output().unwrap();
        String::from_utf8_lossy(&listed.stdout).split_whitespace().map(str::to_owned).collect()
    }

    /// SIGTERM, and how it ended.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    /// How it ended; it must have been told to.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + STOP_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "{} did not stop: {}", self.program, self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Resident memory in KiB, where the system tells.
    pub(crate) fn resident_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(self.told_by_the_system("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    }

    /// The processor time that it has had so far, where the system tells.
    pub(crate) fn cpu_time(&self) -> Option<Duration> {
        cpu_time(&self.told_by_the_system(""))
    }

    /// The same of it and its children.
    pub(crate) fn cpu_time_of_all(&self) -> Option<Duration> {
        let children = self.children();
        let each = children.iter().filter_map(|child| cpu_time(&Path::new("/proc").join(child)));
        Some(self.cpu_time()? + each.sum())
    }

    /// How many files and connections it has open, where the system tells.
    pub(crate) fn open_files(&self) -> Option<usize> {
        std::fs::read_dir(self.told_by_the_system("fd")).ok().map(Iterator::count)
    }

    /// How many threads it has, where the system tells.
    pub(crate) fn threads(&self) -> Option<usize> {
        std::fs::read_dir(self.told_by_the_system("task")).ok().map(Iterator::count)
    }

    fn told_by_the_system(&self, what: &str) -> PathBuf {
        Path::new("/proc").join(self.child.id().to_string()).join(what)
    }
}

/// The processor time of a process, by its folder in /proc.
fn cpu_time(process: &Path) -> Option<Duration> {
    let stat = std::fs::read_to_string(process.join("stat")).ok()?;
    // The second field is the program's name, in parentheses, and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    // utime and stime, the 14th and 15th of all, as proc(5) has them.
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Some(Duration::from_secs_f64(ticks.sum::<Result<f64, _>>().ok()? / TICKS_PER_SECOND))
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Takes the variables of the developer's shell that begin so from the command: they shall not decide a test.
pub(crate) fn forget_variables(command: &mut Command, prefixes: &[&str]) {
    for (name, _) in std::env::vars_os() {
        if prefixes.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
}

/// Runs a server's tool to its end, which has to be a good one, and gives what it printed.
pub(crate) fn output_of(command: &mut Command) -> String {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{program} cannot be started ({error}): {INSTALL_HINT}"));
    let [printed, complaint] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{command:?}: {}\n{printed}{complaint}", output.status);
    printed
}
