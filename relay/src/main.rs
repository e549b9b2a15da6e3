//! The relay of spin-otp, the native half of its events.
//!
//! Events come in over HTTP ([`server`]) and go to a [`bus`]: to Kafka, or straight on. The [`consumer`]
//! writes each down in the [`ledger`], once, and [`delivery`] takes the codes from there to the
//! [`provider`]s of their channel.

#[cfg(target_os = "linux")]
mod allocator;
mod arguments;
mod brokers;
mod bus;
mod callers;
mod check;
mod component;
mod consumer;
mod database;
mod dead;
mod delivery;
mod dlq;
mod erasure;
mod heartbeat;
mod ledger;
mod message;
mod metrics;
mod moment;
mod murmur2;
mod problem;
mod provider;
mod scrub;
mod serve;
mod server;
mod settings;
mod signatures;
mod stop;
mod takes;
mod telemetry;
mod template;

use anyhow::{Result, anyhow};
use arguments::{Arguments, Command, Dlq, Log, LogFormat};
use std::{io::IsTerminal, process::ExitCode};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Layer, filter::Targets, fmt, layer::SubscriberExt, util::SubscriberInitExt};

fn main() -> ExitCode {
    let arguments = Arguments::read();
    let log = match &arguments.command {
        Command::Serve(serve) => &serve.log,
        Command::Check(check) => &check.log,
        Command::Dlq { command: Dlq::List(common) | Dlq::Replay { common, .. } } => &common.log,
    };
    start_log(log);
    match run(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    // TLS to Kafka, webhooks and mail servers is done by one library, with one provider of cryptography.
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow!("TLS has another provider already"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            Command::Serve(arguments) => {
                let telemetry = telemetry::Telemetry::start();
                let served = serve::run(*arguments).await;
                telemetry.end().await;
                served
            }
            Command::Check(arguments) => check::run(arguments).await,
            Command::Dlq { command } => dlq::run(command).await,
        }
    })
}

/// Logs to standard error: standard output is for what was asked for.
fn start_log(log: &Log) {
    // What the Kafka library says of each attempt is said here once, when it matters.
    let targets = Targets::new().with_default(log.log_level.min(LevelFilter::WARN)).with_targets([
        ("relay", log.log_level),
        ("rskafka", LevelFilter::OFF),
        ("sqlx", LevelFilter::ERROR),
    ]);
    let layer = fmt::layer().with_writer(std::io::stderr);
    let layer = match log.log_format {
        LogFormat::Json => layer.json().flatten_event(true).with_current_span(false).boxed(),
        LogFormat::Text => layer.with_target(false).with_ansi(std::io::stderr().is_terminal()).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(targets)).init();
}
