//! The command line: the names that `spin up` uses for the same things.

use clap::Parser;
use std::{num::NonZeroUsize, path::PathBuf};

/// Runs a Spin application where the spin program is not installed.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Arguments {
    /// The application's manifest.
    #[arg(long, short = 'f', value_name = "FILE", default_value = "spin.toml")]
    pub(crate) from: PathBuf,

    /// Where to listen.
    #[arg(long, value_name = "HOST:PORT", env = "SPIN_HTTP_LISTEN_ADDR", default_value = "127.0.0.1:3000")]
    pub(crate) listen: String,

    /// Most connections at a time. One more, and the one that waits longest for its client is closed.
    #[arg(long, value_name = "NUMBER", default_value = "1024")]
    pub(crate) max_connections: NonZeroUsize,

    /// The folder of the default SQLite database [default: .spin beside the manifest].
    #[arg(long, value_name = "FOLDER")]
    pub(crate) state_dir: Option<PathBuf>,

    /// Seconds to go on serving after SIGTERM, so that balancers hear of the end first: the readiness path
    /// answers 503, and connections are closed after their next answer. Then, as with Ctrl-C and without
    /// this: no more connections, up to 10 s for requests in flight and 5 s for work in the background.
    #[arg(
        long,
        value_name = "SECONDS",
        env = "SPIN_OTP_DRAIN_SECONDS",
        default_value_t = 0,
        value_parser = clap::value_parser!(u64).range(..=3600)
    )]
    pub(crate) drain_seconds: u64,

    /// The path that balancers ask whether this host takes requests. The application answers it, and the
    /// host in its place once it is shutting down.
    #[arg(long, value_name = "PATH", env = "SPIN_OTP_READINESS_PATH", default_value = "/readyz", value_parser = path)]
    pub(crate) readiness_path: String,

    /// Names the component's functions for `perf`, in /tmp/perf-PID.map.
    #[arg(long)]
    pub(crate) perf_map: bool,

    /// Counts what the component executes, in units of wasmtime's fuel, about one an instruction, and tells it at the end.
    #[arg(long, env = "SPIN_OTP_COUNT_FUEL")]
    pub(crate) count_fuel: bool,

    /// Sets a variable of the application; goes before SPIN_VARIABLE_NAME and .env. May be repeated.
    #[arg(long = "variable", value_name = "NAME=VALUE")]
    pub(crate) variables: Vec<String>,
}

fn path(text: &str) -> Result<String, &'static str> {
    let fit = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'?');
    if fit { Ok(text.to_owned()) } else { Err("it must be a path, such as /readyz") }
}
