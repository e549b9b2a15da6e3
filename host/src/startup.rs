//! From arguments to a running server, and what is said on the way.

use crate::{
    allowed_hosts::AllowedHosts,
    application::{Application, Measured, Shared},
    arguments::Arguments,
    manifest::Manifest,
    server,
    shutdown::Shutdown,
    sqlite::Database,
    telemetry::Telemetry,
    variables::{Sources, Variables},
};
use anyhow::{Context, Result};
use std::{
    io::IsTerminal,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

/// How long instances may go on after the last answer when the host stops.
const INSTANCES_TIMEOUT: Duration = Duration::from_secs(5);

/// Threads for what may block: SQLite's statements, of which one writes at a time, and look-ups of names. In a burst
/// more of them would only stand in each other's way; what finds none free waits for one.
const MOST_BLOCKING_THREADS: usize = 64;

/// Logs to standard error: what `RUST_LOG` asks for, or this host's own events from `info` up.
pub(crate) fn log_to_stderr() {
    let default =
        Targets::new().with_default(tracing::Level::WARN).with_target("spin_otp_host", tracing::Level::INFO);
    let filter = std::env::var("RUST_LOG").ok().and_then(|wanted| wanted.parse().ok()).unwrap_or(default);
    let format = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    tracing_subscriber::registry().with(filter).with(format).init();
}

/// Runs the application until it is told to stop.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let manifest = Manifest::read(&arguments.from)?;
    let variables = Variables::resolve(&manifest, &Sources::of_process(&arguments.variables)?)?;
    // As with Spin, a list that makes no sense allows nothing, and the component says what it misses.
    let allowed_hosts = AllowedHosts::resolve(&manifest.component.allowed_outbound_hosts, &variables)
        .inspect_err(|error| tracing::warn!("nothing outside can be called: {error:#}"))
        .unwrap_or_default();
    let state_dir = arguments.state_dir.clone().unwrap_or_else(|| manifest.folder.join(".spin"));
    let granted = !manifest.component.sqlite_databases.is_empty();
    let database = granted.then(|| Database::in_folder(&state_dir).map(Arc::new)).transpose()?;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(MOST_BLOCKING_THREADS)
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        // Bound before the component is compiled: a taken port is said at once.
        let listener = server::bind(&arguments.listen).await?;
        let address = listener.local_addr()?;
        let shutdown = Shutdown::at_signals(Duration::from_secs(arguments.drain_seconds))?;
        let telemetry = Telemetry::start(&manifest.name);
        let start = Instant::now();
        let shared = Shared {
            variables: Arc::new(variables),
            allowed_hosts: Arc::new(allowed_hosts),
            database: database.clone(),
        };
        let set = shared.variables.set().join(", ");
        let fuel = arguments.count_fuel.then(Arc::<AtomicU64>::default);
        let measured = Measured { perf_map: arguments.perf_map, fuel: fuel.clone() };
        let loaded = Application::load(&manifest, shared, measured)?;
        let how = if loaded.compiled { "compiled" } else { "from the cache" };

        println!("{} listens on http://{address}", manifest.name);
        println!("  component {}, {how} in {} ms", manifest.source.display(), start.elapsed().as_millis());
        if let Some(database) = &database {
            println!("  database  SQLite in {}", database.path().display());
        }
        println!(
            "  variables {}",
            if set.is_empty() { "all at their defaults".to_owned() } else { format!("set: {set}") }
        );

        let readiness_path = arguments.readiness_path.clone();
        server::serve(listener, loaded.application, arguments.max_connections, readiness_path, shutdown)
            .await?;
        if tokio::time::timeout(INSTANCES_TIMEOUT, loaded.stopper.stop()).await.is_err() {
            tracing::warn!("stopped with work in the background after {} s", INSTANCES_TIMEOUT.as_secs());
        }
        telemetry.end().await;
        if let Some(fuel) = fuel {
            println!("{} units of fuel were used", fuel.load(Ordering::Relaxed));
        }
        println!("{} has stopped", manifest.name);
        Ok(())
    })
}
