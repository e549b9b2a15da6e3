//! A Kafka of the test's own.

use crate::{
    address::unused_address,
    certificate::Certificate,
    process::{INSTALL_HINT, Process, output_of},
    proxy::Proxy,
    service::repository,
};
use serde_json::Value;
use std::{
    fs,
    io::{Seek, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;

/// How long it may take to start; it takes some three seconds.
const START_TIMEOUT: Duration = Duration::from_secs(60);

const USER: &str = "relay";
const PASSWORD: &str = "of-the-relay-at-kafka";

/// A running broker that is its own controller, with its files in a folder of its own. Killed when dropped.
#[derive(Debug)]
pub struct Kafka {
    process: Process,
    brokers: String,
    /// Where brokers that join it find their controller.
    controller: String,
    secured: Option<Secured>,
    /// Whether it is made to run for long.
    lasts: bool,
    folder: TempDir,
}

/// The way in for clients that have to log in.
#[derive(Debug)]
struct Secured {
    address: String,
    certificate: Certificate,
}

/// A record as it lies in a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// Empty if it has none.
    pub key: String,
    pub headers: Vec<(String, String)>,
    /// Empty if it has none.
    pub payload: String,
    /// In milliseconds since 1970.
    pub timestamp: i64,
}

impl Record {
    /// A header; of several with this name, the first.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl Kafka {
    /// A broker without topics that lets everybody in from this machine.
    pub fn start() -> Self {
        Self::start_with(false, None)
    }

    /// The same, made to run for long: slower to start, and faster after a minute.
    pub fn for_a_load() -> Self {
        let mut kafka = Self::start();
        kafka.lasts = true;
        kafka.restart();
        kafka
    }

    /// The same, with a second address behind a proxy, whose address it tells those who come there.
    pub fn behind_a_proxy() -> (Self, Proxy) {
        let proxy = Proxy::to(&unused_address());
        (Self::start_with(false, Some(&proxy)), proxy)
    }

    /// The same, with a second address beside the open one, for clients that use TLS and log in.
    pub fn secured() -> Self {
        Self::start_with(true, None)
    }

    /// A second broker of its cluster. When it ends or hangs, the first leads what it led.
    pub fn join(&self) -> Self {
        let (folder, brokers) = (tempfile::tempdir().unwrap(), unused_address());
        let properties = settings(2, "broker", &self.controller, folder.path())
            + &format!("listeners=PLAINTEXT://{brokers}\n");
        Self::format_and_start(brokers, &self.controller, &properties, None, folder)
    }

    fn start_with(security: bool, proxy: Option<&Proxy>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (brokers, controller) = (unused_address(), unused_address());
        let secured = security
            .then(|| Secured { address: unused_address(), certificate: Certificate::make(folder.path()) });
        let properties = settings(1, "broker,controller", &controller, folder.path())
            + &listeners(&brokers, &controller, secured.as_ref(), proxy, folder.path());
        Self::format_and_start(brokers, &controller, &properties, secured, folder)
    }

    fn format_and_start(
        brokers: String,
        controller: &str,
        properties: &str,
        secured: Option<Secured>,
        folder: TempDir,
    ) -> Self {
        fs::write(folder.path().join("server.properties"), properties).unwrap();
        let mut format = java();
        format.args(["kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAQ"]);
        format.arg("-c").arg(folder.path().join("server.properties"));
        if secured.is_some() {
            format.args(["--add-scram", &format!("SCRAM-SHA-256=[name={USER},password={PASSWORD}]")]);
        }
        output_of(&mut format);
        let process = spawn(folder.path(), false);
        let controller = controller.to_owned();
        let mut kafka = Self { process, brokers, controller, secured, lasts: false, folder };
        kafka.wait_until_it_answers();
        kafka
    }

    /// The processor time that it has had so far, with its children, where the system tells.
    pub fn cpu_time(&self) -> Option<Duration> {
        self.process.cpu_time_of_all()
    }

    /// `host:port`, for clients as they come.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// `host:port`, for clients that use TLS and log in, by PLAIN or by SCRAM-SHA-256.
    pub fn secure_brokers(&self) -> &str {
        &self.secured_part().address
    }

    /// The authority that signed its certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.secured_part().certificate.authority()
    }

    /// Who may log in.
    pub fn username(&self) -> &str {
        USER
    }

    /// What goes with the name.
    pub fn password(&self) -> &str {
        PASSWORD
    }

    fn secured_part(&self) -> &Secured {
        self.secured.as_ref().expect("a broker that was started by Kafka::secured")
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again at the same addresses with what it has on disk, however it ended.
    pub fn restart(&mut self) {
        self.kill();
        self.process = spawn(self.folder.path(), self.lasts);
        self.wait_until_it_answers();
    }

    /// Sends a signal by name, such as `STOP`.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Makes a topic, which must not be there.
    pub fn create_topic(&self, name: &str, partitions: u32) {
        self.create_replicated_topic(name, partitions, 1);
    }

    /// Makes a topic of which so many brokers have each partition.
    pub fn create_replicated_topic(&self, name: &str, partitions: u32, replicas: u32) {
        let mut command = self.topics(name, partitions);
        command.args(["--create", "--replication-factor", &replicas.to_string()]);
        output_of(&mut command);
    }

    /// Gives a topic more partitions.
    pub fn add_partitions(&self, name: &str, partitions: u32) {
        output_of(self.topics(name, partitions).arg("--alter"));
    }

    fn topics(&self, name: &str, partitions: u32) -> Command {
        let mut command = self.tool("org.apache.kafka.tools.TopicCommand");
        command.args(["--topic", name, "--partitions", &partitions.to_string()]);
        command
    }

    /// Sets something about a topic, such as its `retention.ms`.
    pub fn set_topic_config(&self, topic: &str, key: &str, value: &str) {
        let mut command = self.tool("kafka.admin.ConfigCommand");
        command.args(["--alter", "--entity-type", "topics", "--entity-name", topic]);
        command.args(["--add-config", &format!("{key}={value}")]);
        output_of(&mut command);
    }

    /// All that a topic holds now, partition by partition in the order of the offsets.
    pub fn records(&self, topic: &str) -> Vec<Record> {
        let mut command = self.kcat("-C", topic);
        // Up to the end and no further; the broker is not to wait for more.
        command.args(["-e", "-q", "-J", "-o", "beginning", "-X", "fetch.wait.max.ms=10"]);
        let printed = output_of(&mut command);
        let mut records: Vec<_> = printed.lines().map(record).collect();
        records.sort_by_key(|record| (record.partition, record.offset));
        records
    }

    /// Writes one record. With an empty key it has none.
    pub fn produce(&self, topic: &str, key: &str, headers: &[(&str, &str)], payload: &str) {
        // A file is one record, whatever is in it; each line of the standard input would be one.
        let file = tempfile::NamedTempFile::new_in(self.folder.path()).unwrap();
        fs::write(file.path(), payload).unwrap();
        let mut command = self.kcat("-P", topic);
        command.args(["-X", "message.timeout.ms=10000"]);
        if !key.is_empty() {
            command.args(["-k", key]);
        }
        for (name, value) in headers {
            command.args(["-H", &format!("{name}={value}")]);
        }
        output_of(command.arg(file.path()));
    }

    /// Has Kafka's own Java client write a record for each key, which chooses the partitions.
    pub fn produce_as_java(&self, topic: &str, keys: &[String]) {
        let mut lines = tempfile::tempfile_in(self.folder.path()).unwrap();
        for key in keys {
            writeln!(lines, "{key}\tby Java").unwrap();
        }
        lines.rewind().unwrap();
        let mut command = self.tool("org.apache.kafka.tools.ConsoleProducer");
        // The separator is a tab, by default.
        command.args(["--topic", topic, "--reader-property", "parse.key=true"]).stdin(lines);
        output_of(&mut command);
    }

    /// Has Kafka's own Java client write so many records of random text in a transaction, whose end leaves
    /// a mark in the topic that is no record.
    pub fn produce_in_transaction(&self, topic: &str, count: u32) {
        let mut command = self.tool("org.apache.kafka.tools.ProducerPerformance");
        command.args(["--topic", topic, "--num-records", &count.to_string(), "--record-size", "10"]);
        command.args(["--throughput", "-1", "--transactional-id", "transaction"]);
        output_of(&mut command);
    }

    /// One of Kafka's own tools, against this broker.
    fn tool(&self, class: &str) -> Command {
        let mut command = java();
        command.args([class, "--bootstrap-server", &self.brokers]).stdin(Stdio::null());
        command
    }

    fn kcat(&self, mode: &str, topic: &str) -> Command {
        let mut command = Command::new("kcat");
        command.args([mode, "-b", &self.brokers, "-t", topic]).stdin(Stdio::null());
        command
    }

    fn wait_until_it_answers(&mut self) {
        let brokers = &self.brokers;
        let answers = || {
            // kcat would try for a second where nobody listens.
            TcpStream::connect(brokers).is_ok() && {
                let seen = Command::new("kcat").args(["-L", "-m", "1", "-b", brokers]).output();
                let seen =
                    seen.unwrap_or_else(|error| panic!("kcat cannot be started ({error}): {INSTALL_HINT}"));
                let seen = String::from_utf8_lossy(&seen.stdout);
                // It serves when it has let itself in, and leads what it holds.
                seen.contains(&format!(" at {brokers}")) && !seen.contains("leader -1")
            }
        };
        self.process.wait_until_it(answers, START_TIMEOUT);
    }
}

fn record(line: &str) -> Record {
    let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let number = |name: &str| value[name].as_i64().unwrap();
    // Names and values by turns.
    let headers = value["headers"].as_array().map_or(&[][..], Vec::as_slice);
    Record {
        topic: text(&value["topic"]),
        partition: number("partition").try_into().unwrap(),
        offset: number("offset"),
        key: text(&value["key"]),
        headers: headers.chunks(2).map(|pair| (text(&pair[0]), text(&pair[1]))).collect(),
        payload: text(&value["payload"]),
        timestamp: number("ts"),
    }
}

/// Of a node with that number and these roles.
fn settings(node: u32, roles: &str, controller: &str, folder: &Path) -> String {
    let data = folder.join("data");
    format!(
        "process.roles={roles}
node.id={node}
controller.quorum.voters=1@{controller}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT,SASL_SSL:SASL_SSL
log.dirs={data}
auto.create.topics.enable=false
num.partitions=1
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
# After a kill the controller lets the broker in again when its last session is over: by default that takes
# nine seconds.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
# There is nobody to lose an election to.
controller.quorum.election.timeout.ms=200
controller.quorum.election.backoff.max.ms=100
# Small, for a small heap and two processors.
log.cleaner.dedupe.buffer.size=2097152
num.network.threads=1
num.io.threads=2
background.threads=2
",
        data = data.display(),
    )
}

/// Where the first node listens, and who may come in.
fn listeners(
    brokers: &str,
    controller: &str,
    secured: Option<&Secured>,
    proxy: Option<&Proxy>,
    folder: &Path,
) -> String {
    let mut properties = String::new();
    let mut listeners = format!("PLAINTEXT://{brokers},CONTROLLER://{controller}");
    if let Some(proxy) = proxy {
        listeners += &format!(",PROXIED://{}", proxy.upstream());
        properties += &format!("advertised.listeners=PLAINTEXT://{brokers},PROXIED://{}\n", proxy.address());
    }
    if let Some(Secured { address, certificate }) = secured {
        let key_store = folder.join("key-store.pem");
        fs::write(&key_store, certificate.key_and_certificate()).unwrap();
        listeners += &format!(",SASL_SSL://{address}");
        properties += &format!(
            "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256
ssl.keystore.type=PEM
ssl.keystore.location={key_store}
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule \
             required user_{USER}=\"{PASSWORD}\";
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=\
             org.apache.kafka.common.security.scram.ScramLoginModule required;
",
            key_store = key_store.display(),
        );
    }
    properties + &format!("listeners={listeners}\n")
}

fn spawn(folder: &Path, lasts: bool) -> Process {
    let mut command = java();
    if lasts {
        // Of two flags that say different things Java takes the later.
        command.arg("-XX:TieredStopAtLevel=4");
    }
    command.args(["-Xms128m", "-Xmx384m", "kafka.Kafka"]).arg(folder.join("server.properties"));
    command.current_dir(folder);
    Process::spawn(&mut command, &folder.join("log"), INSTALL_HINT)
}

/// Java with all of Kafka, made to start soon and not to run for long.
fn java() -> Command {
    let kafka = repository().join(".cache").join(format!("kafka-{}", version()));
    let libraries = kafka.join("libs");
    assert!(libraries.exists(), "{} is not there: {INSTALL_HINT}", libraries.display());
    let mut command = Command::new("java");
    // scripts/test-servers.sh makes the archive with the same flags. Without one Java only starts slower.
    command.args([
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    ]);
    command.arg(format!("-XX:SharedArchiveFile={}", kafka.join("classes.jsa").display()));
    command.arg("-cp").arg(libraries.join("*"));
    command
}

/// The version of Kafka, as scripts/test-servers.sh reads it.
fn version() -> &'static str {
    let pom = include_str!("../servers/kafka/pom.xml");
    let (_, from_it_on) = pom.split_once("<kafka.version>").expect("the version is stated");
    from_it_on.split_once('<').expect("an element ends").0
}
