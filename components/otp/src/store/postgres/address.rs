//! Where Postgres is, and how a connection to it is opened.

use super::query::unavailable;
use crate::endpoint::Endpoint;
use otp_core::ports::Unavailable;
use spin_sdk::pg::{Certificate, Connection, OpenOptions};
use std::fmt::Write;

/// How the server treats statements on our connections, whatever its administrator has set for everybody else:
///
/// - how they see each other, which they are written for;
/// - planned once, and not for each set of parameters;
/// - and by the indexes that there is one of for all that a request looks up. A plan is kept, and one that was made
///   when a table was small or empty would read all of what it has grown to.
const OPTIONS: &str = r"-c default_transaction_isolation=read\\ committed -c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c jit=off";

/// Where Postgres is, with the credentials in it. Not printable.
pub(crate) struct Address {
    /// In the form `key=value`, without its options.
    text: String,
    /// The authority that its certificate has to come from, in PEM form; `None` for those of the host.
    authority: Option<String>,
}

/// Whether the way to it is encrypted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Tls {
    /// Except on this machine.
    #[default]
    UnlessLocal,
    Required,
    Off,
}

impl std::str::FromStr for Tls {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "require" => Ok(Self::Required),
            "disable" => Ok(Self::Off),
            _ => Err("must be require, disable, or empty for TLS unless Postgres is on this machine"),
        }
    }
}

impl Address {
    /// From the endpoint `postgres://host:port` and what goes with it.
    pub(crate) fn new(
        endpoint: &str,
        user: &str,
        password: &str,
        database: &str,
        tls: Tls,
        authority: &str,
    ) -> Result<Self, &'static str> {
        const FORM: &str =
            "must be postgres://host:port; user, password and database have variables of their own";
        let known = |scheme| matches!(scheme, "postgres" | "postgresql");
        let endpoint = Endpoint::parse(endpoint).filter(|endpoint| known(endpoint.scheme)).ok_or(FORM)?;
        let (_, port) = endpoint.place.rsplit_once(':').ok_or(FORM)?;
        let encrypted = match tls {
            Tls::UnlessLocal => !endpoint.is_loopback(),
            Tls::Required => true,
            Tls::Off => false,
        };
        let host = endpoint.host.trim_start_matches('[').trim_end_matches(']');
        let mut text =
            format!("host={} port={port} application_name=spin-otp connect_timeout=2", quoted(host));
        for (name, value) in [("user", user), ("password", password), ("dbname", database)] {
            if !value.is_empty() {
                // Writing to a String cannot fail.
                let _ = write!(text, " {name}={}", quoted(value));
            }
        }
        text.push_str(if encrypted { " sslmode=require" } else { " sslmode=disable" });
        let authority =
            Some(authority.trim()).filter(|text| !text.is_empty() && encrypted).map(str::to_owned);
        Ok(Self { text, authority })
    }

    /// A connection whose statements end after that time, in milliseconds; 0 for never.
    pub(super) async fn connect(&self, timeout: u32) -> Result<Connection, Unavailable> {
        let address = format!("{} options='-c statement_timeout={timeout} {OPTIONS}'", self.text);
        let ca_root = self.authority.clone().map(Certificate::Text);
        Connection::open_with_options(address, OpenOptions { ca_root }).await.map_err(unavailable)
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Address")
    }
}

/// A value of a connection string, whatever is in it.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}
