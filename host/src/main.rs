//! The embedded host: runs the application of a `spin.toml` where the `spin` program is not installed.
//!
//! It does what Spin does for one component that answers all paths, and no more: the manifest and its
//! variables, the interfaces of `wit/`, the request headers, the reuse of instances, the place of the
//! default SQLite database. Each capability is a module: what it is, its interface's functions, and how
//! it is configured.

mod allowed_hosts;
mod application;
mod arguments;
mod client_stream;
mod framing;
mod headers;
mod manifest;
mod masked_path;
mod outbound_http;
mod postgres;
mod redis;
mod request_body;
mod request_id;
mod server;
mod shutdown;
mod sqlite;
mod startup;
mod telemetry;
mod variables;
mod waiting;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = arguments::Arguments::parse();
    startup::log_to_stderr();
    match startup::run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, whatever is in it, outermost context first: what failed, why, and what to do.
            let words = format!("{error:#}");
            eprintln!("error: {}", words.split_whitespace().collect::<Vec<_>>().join(" "));
            ExitCode::FAILURE
        }
    }
}
