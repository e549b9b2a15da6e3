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

    /// Sets a variable of the application; goes before SPIN_VARIABLE_NAME and .env. May be repeated.
    #[arg(long = "variable", value_name = "NAME=VALUE")]
    pub(crate) variables: Vec<String>,
}
