//! The command line. Every option of what goes on is an environment variable, too.

use crate::database::Database;
use anyhow::{Context, Result, bail};
use clap::{
    ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum,
    builder::Resettable,
    error::{ContextKind, ContextValue, ErrorKind},
    parser::ValueSource,
};
use otp_seal::{EventKeys, KeyRing};
use std::{net::SocketAddr, path::PathBuf, time::Duration};
use url::Url;

/// Takes the events of spin-otp, hands them to Kafka, and has the codes delivered.
///
/// Without --kafka-brokers it hands them to its own consumer, in process, through the same ledger.
#[derive(Debug, Parser)]
#[command(name = "relay", version, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Takes events over HTTP and has their codes delivered, until SIGTERM or Ctrl-C
    Serve(Box<Serve>),
    /// What could not be processed: lists it, or has it processed again
    Dlq {
        #[command(subcommand)]
        command: Dlq,
    },
    /// Asks whether a relay, or the service, is ready: exits with 0 if it is and with 1 if not
    Check(Check),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Dlq {
    /// Prints each dead event as a line of JSON: id, type, reason, time, and where it is
    List(Box<DlqArguments>),
    /// Puts dead events back on the topic. One that was delivered meanwhile is not delivered again
    Replay {
        #[command(flatten)]
        common: Box<DlqArguments>,
        /// Only this event
        #[arg(long)]
        id: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// What to ask
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:3100/readyz")]
    pub(crate) url: Url,
    /// Seconds that the answer may take
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub(crate) deadline: u64,
    #[command(flatten)]
    pub(crate) log: Log,
}

impl Check {
    pub(crate) fn deadline(&self) -> Duration {
        Duration::from_secs(self.deadline)
    }
}

#[derive(Debug, Args)]
pub(crate) struct DlqArguments {
    #[command(flatten)]
    pub(crate) signing: Signing,
    #[command(flatten)]
    pub(crate) state: State,
    #[command(flatten)]
    pub(crate) kafka: Kafka,
    #[command(flatten)]
    pub(crate) log: Log,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Where to listen
    #[arg(long, env = "RELAY_LISTEN", default_value = "127.0.0.1:3100", value_name = "HOST:PORT")]
    pub(crate) listen: SocketAddr,
    /// What the component sends as bearer token, at least 16 characters. Without one the relay takes
    /// events on the loopback interface only
    #[arg(
        long,
        env = "RELAY_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        default_value = "",
        hide_default_value = true
    )]
    token: String,
    /// Keys that open codes, as the component has them: id:base64,id:base64. Empty: the public
    /// development key
    #[arg(
        long,
        env = "RELAY_ENCRYPTION_KEYS",
        hide_env_values = true,
        value_name = "LIST",
        default_value = "",
        hide_default_value = true
    )]
    encryption_keys: String,
    #[command(flatten)]
    signing: Signing,
    /// development, or production: refuses the inbox, the log as a channel, development keys and a
    /// missing token
    #[arg(long, env = "RELAY_PROFILE", value_enum, default_value_t = Profile::Development)]
    pub(crate) profile: Profile,
    /// TOML file that says how codes are delivered. Without one, all go to the inbox
    #[arg(long, env = "RELAY_DELIVERY_FILE", value_name = "FILE")]
    delivery_file: Option<PathBuf>,
    /// http://host:port of the component, to be asked to push what waits and to clean up
    #[arg(long, env = "RELAY_COMPONENT_URL", value_name = "URL")]
    component_url: Option<Url>,
    /// Seconds between two requests to push what waits
    #[arg(long, env = "RELAY_FLUSH_SECONDS", value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    flush_seconds: u64,
    /// Seconds between two requests to clean up; the ledger is cleaned as often
    #[arg(long, env = "RELAY_PURGE_SECONDS", value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    purge_seconds: u64,
    /// Seconds to go on taking events after SIGTERM, with /readyz at 503, so that balancers hear of the end
    /// first. Ctrl-C does not wait for it. What is under way is then given up to 25 s more
    #[arg(long, env = "RELAY_DRAIN_SECONDS", value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=3600))]
    drain_seconds: u64,
    /// Attempts at a delivery before it counts as dead
    #[arg(long, env = "RELAY_MAX_ATTEMPTS", value_name = "NUMBER", default_value_t = 10, value_parser = clap::value_parser!(i64).range(1..=1000))]
    pub(crate) max_attempts: i64,
    /// Hours that the ledger remembers events: longer than the topic keeps them
    #[arg(long, env = "RELAY_REMEMBER_HOURS", value_name = "HOURS", default_value_t = 336, value_parser = clap::value_parser!(u64).range(1..=8760))]
    remember_hours: u64,
    #[command(flatten)]
    pub(crate) state: State,
    #[command(flatten)]
    pub(crate) kafka: Kafka,
    #[command(flatten)]
    pub(crate) log: Log,
}

#[derive(Debug, Args)]
pub(crate) struct Signing {
    /// Keys that events are signed with, as the component has them: id:base64,id:base64. Empty: the public
    /// development key
    #[arg(
        long,
        env = "RELAY_EVENT_KEYS",
        hide_env_values = true,
        value_name = "LIST",
        default_value = "",
        hide_default_value = true
    )]
    event_keys: String,
}

#[derive(Debug, Args)]
pub(crate) struct State {
    /// Folder of the ledger, an SQLite file of this relay alone
    #[arg(long, env = "RELAY_STATE_DIR", value_name = "FOLDER", default_value = ".relay")]
    pub(crate) state_dir: PathBuf,
    /// Postgres to have the ledger in instead, for several relays to share:
    /// postgres://user:password@host:port/database. Without ?sslmode= it is spoken to over TLS and has to
    /// show that it is that host, except on this machine; sslrootcert=FILE names the authority to believe.
    /// A password may stand in the variable only
    #[arg(
        long,
        env = "RELAY_DATABASE_URL",
        hide_env_values = true,
        value_name = "URL",
        default_value = "",
        hide_default_value = true
    )]
    database_url: String,
}

#[derive(Debug, Args)]
pub(crate) struct Log {
    /// json, or text for people
    #[arg(long, env = "RELAY_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub(crate) log_format: LogFormat,
    /// error, warn, info, or debug, which has a line for every delivery
    #[arg(long, env = "RELAY_LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: tracing::level_filters::LevelFilter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Json,
    Text,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    Development,
    Production,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Kafka")]
pub(crate) struct Kafka {
    /// host:port of brokers, separated by commas. Empty: no Kafka
    #[arg(long = "kafka-brokers", env = "KAFKA_BROKERS", value_name = "LIST", value_delimiter = ',')]
    brokers: Vec<String>,
    /// Topic of the events; created if it is missing
    #[arg(long = "kafka-topic", env = "KAFKA_TOPIC", value_name = "TOPIC", default_value = "otp-events")]
    pub(crate) topic: String,
    /// Topic of what could not be processed; created if it is missing
    #[arg(
        long = "kafka-dlq-topic",
        env = "KAFKA_DLQ_TOPIC",
        value_name = "TOPIC",
        default_value = "otp-events-dlq"
    )]
    pub(crate) dlq_topic: String,
    /// Partitions of a topic that is created
    #[arg(long = "kafka-partitions", env = "KAFKA_PARTITIONS", value_name = "NUMBER", default_value_t = 12, value_parser = clap::value_parser!(i32).range(1..=1000))]
    pub(crate) partitions: i32,
    /// Copies of each partition of a topic that is created
    #[arg(long = "kafka-replication", env = "KAFKA_REPLICATION", value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(i16).range(1..=10))]
    pub(crate) replication: i16,
    /// Speak TLS to the brokers
    #[arg(long = "kafka-tls", env = "KAFKA_TLS", value_name = "true|false", default_value_t = false, action = clap::ArgAction::Set)]
    pub(crate) tls: bool,
    /// PEM file of a certificate authority to trust beside the system's
    #[arg(long = "kafka-ca-file", env = "KAFKA_CA_FILE", value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// How to log in
    #[arg(long = "kafka-sasl-mechanism", env = "KAFKA_SASL_MECHANISM", value_enum, value_name = "MECHANISM")]
    pub(crate) sasl_mechanism: Option<SaslMechanism>,
    /// User of the brokers
    #[arg(
        long = "kafka-sasl-username",
        env = "KAFKA_SASL_USERNAME",
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) sasl_username: String,
    /// Password of that user
    #[arg(
        long = "kafka-sasl-password",
        env = "KAFKA_SASL_PASSWORD",
        hide_env_values = true,
        value_name = "PASSWORD",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) sasl_password: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SaslMechanism {
    #[value(name = "PLAIN")]
    Plain,
    #[value(name = "SCRAM-SHA-256")]
    ScramSha256,
    #[value(name = "SCRAM-SHA-512")]
    ScramSha512,
}

impl Arguments {
    /// What the command line and the environment say; ends the program where that makes no sense.
    pub(crate) fn read() -> Self {
        let command = without_empty_variables(Self::command());
        let parsed = command.clone().try_get_matches().and_then(|matches| {
            if shows_password(&matches) {
                return Err(command.clone().error(ErrorKind::ValueValidation, PASSWORD_SHOWN));
            }
            Self::from_arg_matches(&matches)
        });
        parsed.unwrap_or_else(|error| {
            if let Some(variable) = variable_behind(&command, &error) {
                eprintln!("{variable}: {error}");
                std::process::exit(2);
            }
            error.exit()
        })
    }
}

/// What is said of a password among the arguments.
const PASSWORD_SHOWN: &str = "the URL has a password, and everybody on this machine sees the arguments of a program: \
                              set RELAY_DATABASE_URL instead of --database-url";

/// Whether the command line, and not the environment, brings a password for the database.
fn shows_password(matches: &ArgMatches) -> bool {
    const URL: &str = "database_url";
    let said = matches!(matches.try_contains_id(URL), Ok(true))
        && matches.value_source(URL) == Some(ValueSource::CommandLine);
    let url = if said { matches.get_one::<String>(URL) } else { None };
    let shows = url.and_then(|url| Url::parse(url).ok()).is_some_and(|url| url.password().is_some());
    shows || matches.subcommand().is_some_and(|(_, matches)| shows_password(matches))
}

/// A variable that is there and empty is as good as none: Compose and Kubernetes leave such behind.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let names: Vec<_> = command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    let command = command.mut_args(|argument| {
        let empty = argument.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
        if empty { argument.env(Resettable::Reset) } else { argument }
    });
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, without_empty_variables))
}

/// The variable of the option that an error is about, for whoever has set that and not the option.
fn variable_behind(command: &clap::Command, error: &clap::Error) -> Option<String> {
    let ContextValue::String(option) = error.get(ContextKind::InvalidArg)? else { return None };
    let long = option.split([' ', '=']).next()?.strip_prefix("--")?;
    let mut argument = command.get_arguments().filter(|argument| argument.get_long() == Some(long));
    argument
        .find_map(|argument| Some(argument.get_env()?.to_string_lossy().into_owned()))
        .or_else(|| command.get_subcommands().find_map(|command| variable_behind(command, error)))
}

/// Fewest characters of a token.
const MIN_TOKEN: usize = 16;

impl Serve {
    /// The token, if there is one. Without one only this machine is served.
    pub(crate) fn token(&self) -> Result<Option<String>> {
        let token = self.token.trim();
        if token.is_empty() {
            if !self.listen.ip().is_loopback() {
                bail!(
                    "RELAY_LISTEN is {}, which other machines reach: set RELAY_TOKEN, for example to the output of: openssl rand -hex 32",
                    self.listen
                );
            }
            if self.profile == Profile::Production {
                bail!("RELAY_TOKEN must be set in production, to what the component has as relay_token");
            }
            return Ok(None);
        }
        if token.len() < MIN_TOKEN {
            bail!("RELAY_TOKEN has fewer than {MIN_TOKEN} characters; make one with: openssl rand -hex 32");
        }
        Ok(Some(token.to_owned()))
    }

    /// The keys that open codes.
    pub(crate) fn keys(&self) -> Result<KeyRing> {
        let list = self.encryption_keys.trim();
        let production = self.profile == Profile::Production;
        if !list.is_empty() {
            let keys = KeyRing::parse(list).context("RELAY_ENCRYPTION_KEYS")?;
            if production && keys.has_development_key() {
                bail!("RELAY_ENCRYPTION_KEYS has the public development key, which is for development only");
            }
            return Ok(keys);
        }
        if production {
            bail!(
                "RELAY_ENCRYPTION_KEYS must be set in production, to what the component has as encryption_keys"
            );
        }
        tracing::warn!("RELAY_ENCRYPTION_KEYS is not set: codes are opened with the public development key");
        Ok(KeyRing::development())
    }

    /// The keys that check events.
    pub(crate) fn event_keys(&self) -> Result<EventKeys> {
        let keys = self.signing.keys()?;
        if self.profile == Profile::Production {
            let Some(keys) = keys else {
                bail!("RELAY_EVENT_KEYS must be set in production, to what the component has as event_keys");
            };
            if keys.has_development_key() {
                bail!("RELAY_EVENT_KEYS has the public development key, which is for development only");
            }
            return Ok(keys);
        }
        Ok(keys.unwrap_or_else(|| {
            tracing::warn!("RELAY_EVENT_KEYS is not set: events are checked with the public development key");
            EventKeys::development()
        }))
    }

    /// How codes are delivered.
    pub(crate) fn delivery_file(&self) -> Option<&std::path::Path> {
        self.delivery_file.as_deref().filter(|file| !file.as_os_str().is_empty())
    }

    /// Where the component is, if it is to be asked for anything.
    pub(crate) fn component_url(&self) -> Result<Option<Url>> {
        let Some(url) = &self.component_url else { return Ok(None) };
        if !matches!(url.scheme(), "http" | "https") || !matches!(url.path(), "" | "/") {
            bail!("RELAY_COMPONENT_URL must be http://host:port or https://host:port, without a path");
        }
        if self.token()?.is_none() {
            bail!(
                "RELAY_COMPONENT_URL is set, but RELAY_TOKEN is not: the component listens only to who knows it"
            );
        }
        Ok(Some(url.clone()))
    }

    pub(crate) fn flush_every(&self) -> Duration {
        Duration::from_secs(self.flush_seconds)
    }

    /// How long the end is announced before it begins.
    pub(crate) fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }

    pub(crate) fn purge_every(&self) -> Duration {
        Duration::from_secs(self.purge_seconds)
    }

    pub(crate) fn remember(&self) -> Duration {
        Duration::from_secs(self.remember_hours * 3600)
    }
}

impl Signing {
    /// The keys that are set, if there are any.
    pub(crate) fn keys(&self) -> Result<Option<EventKeys>> {
        let list = self.event_keys.trim();
        if list.is_empty() {
            return Ok(None);
        }
        EventKeys::parse(list).map(Some).context("RELAY_EVENT_KEYS")
    }
}

impl State {
    /// The database of the ledger; none where it is a file.
    pub(crate) fn database(&self) -> Result<Option<Database>> {
        let url = self.database_url.trim();
        if url.is_empty() {
            return Ok(None);
        }
        Database::parse(url).map(Some).context("RELAY_DATABASE_URL")
    }
}

impl Kafka {
    /// Whether what belongs together fits together.
    pub(crate) fn check(&self) -> Result<()> {
        for (variable, topic) in [("KAFKA_TOPIC", &self.topic), ("KAFKA_DLQ_TOPIC", &self.dlq_topic)] {
            let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
            if !(1..=249).contains(&topic.len()) || !topic.bytes().all(known) || topic.starts_with('.') {
                bail!("{variable} must be 1 to 249 of A-Z a-z 0-9 . _ -");
            }
        }
        if self.topic == self.dlq_topic {
            bail!(
                "KAFKA_DLQ_TOPIC is KAFKA_TOPIC: each dead event would come back as an event; name another"
            );
        }
        let named = !self.sasl_username.is_empty() && !self.sasl_password.is_empty();
        match self.sasl_mechanism {
            Some(_) if !named => {
                bail!(
                    "KAFKA_SASL_MECHANISM is set, so KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD must be, too"
                )
            }
            None if !self.sasl_username.is_empty() => {
                bail!(
                    "KAFKA_SASL_USERNAME is set, but KAFKA_SASL_MECHANISM is not: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"
                )
            }
            _ => Ok(()),
        }
    }

    /// The brokers; none where there is no Kafka.
    pub(crate) fn brokers(&self) -> Result<Vec<String>> {
        let brokers: Vec<_> =
            self.brokers.iter().map(|broker| broker.trim()).filter(|broker| !broker.is_empty()).collect();
        for broker in &brokers {
            let port = broker.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then_some(port));
            if port.and_then(|port| port.parse::<u16>().ok()).is_none() {
                bail!("KAFKA_BROKERS: {broker:?} is not host:port");
            }
        }
        Ok(brokers.into_iter().map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(arguments: &[&str]) -> Serve {
        let all = ["relay", "serve"].iter().chain(arguments);
        match Arguments::try_parse_from(all).unwrap().command {
            Command::Serve(serve) => *serve,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_option_is_a_variable_and_says_what_it_is() {
        Arguments::command().debug_assert();
        for command in Arguments::command().get_subcommands() {
            for argument in command.get_arguments().filter(|argument| argument.get_id() != "help") {
                assert!(argument.get_help().is_some(), "{argument}");
                // What is asked once and ends takes its own options.
                let once = matches!(command.get_name(), "dlq" | "check");
                assert!(argument.get_env().is_some() || once, "{argument}");
            }
        }
    }

    #[test]
    fn what_makes_no_sense_is_named_with_what_to_do() {
        let token = "0123456789abcdef";
        let production = ["--profile", "production", "--token", token];
        let own = "k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        // base64 of the development key's 32 characters
        let public = "mine:c3Bpbi1vdHAgcHVibGljIGRldmVsb3BtZW50IGV2dC4=";
        for (arguments, word) in [
            (&["--listen", "0.0.0.0:3100"][..], "RELAY_TOKEN"),
            (&["--token", "short"], "RELAY_TOKEN"),
            (&["--profile", "production"], "RELAY_TOKEN"),
            (&["--profile", "production", "--token", token], "RELAY_ENCRYPTION_KEYS"),
            (&["--encryption-keys", "nonsense"], "RELAY_ENCRYPTION_KEYS"),
            (&[&production[..], &["--encryption-keys", own]].concat(), "RELAY_EVENT_KEYS must be set"),
            (
                &[&production[..], &["--encryption-keys", own, "--event-keys", public]].concat(),
                "RELAY_EVENT_KEYS has the public development key",
            ),
            (&["--event-keys", "nonsense"], "RELAY_EVENT_KEYS"),
            (&["--component-url", "http://127.0.0.1:3000"], "RELAY_TOKEN"),
            (&["--component-url", "http://127.0.0.1:3000/otp", "--token", token], "RELAY_COMPONENT_URL"),
            (&["--kafka-brokers", "localhost"], "KAFKA_BROKERS"),
        ] {
            let serve = serve(arguments);
            let error = serve
                .token()
                .map(drop)
                .and_then(|()| serve.keys().map(drop))
                .and_then(|()| serve.event_keys().map(drop))
                .and_then(|()| serve.component_url().map(drop))
                .and_then(|()| serve.kafka.brokers().map(drop))
                .unwrap_err();
            assert!(error.to_string().contains(word), "{arguments:?}: {error}");
        }
        assert!(serve(&[&production[..], &["--event-keys", own]].concat()).event_keys().is_ok());
        assert!(serve(&[]).event_keys().unwrap().has_development_key());
        assert!(serve(&[]).token().unwrap().is_none());
        assert_eq!(serve(&["--kafka-brokers", "a:1, b:2"]).kafka.brokers().unwrap(), ["a:1", "b:2"]);
        assert!(serve(&["--kafka-brokers", ""]).kafka.brokers().unwrap().is_empty());
        assert!(serve(&[]).state.database().unwrap().is_none());
        assert!(serve(&["--database-url", "postgres://relay@db/relay"]).state.database().unwrap().is_some());
        let error = serve(&["--database-url", "db:5432"]).state.database().unwrap_err();
        assert!(format!("{error:#}").contains("RELAY_DATABASE_URL"), "{error:#}");
    }

    #[test]
    fn a_password_among_the_arguments_is_noticed() {
        let shown = |arguments: &[&str]| {
            let all = ["relay"].iter().chain(arguments);
            shows_password(&Arguments::command().try_get_matches_from(all).unwrap())
        };
        for command in [&["serve"][..], &["dlq", "list"], &["dlq", "replay"]] {
            let with = |url| [command, &["--database-url", url]].concat();
            assert!(shown(&with("postgres://relay:hunter2@db/relay")), "{command:?}");
            assert!(!shown(&with("postgres://relay@db/relay")) && !shown(command), "{command:?}");
        }
    }
}
