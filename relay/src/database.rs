//! Where a ledger in Postgres is, and how the server is spoken to.

use crate::provider::{certificates, is_loopback};
use anyhow::{Context, Result, anyhow, bail};
use sqlx::{
    ConnectOptions,
    postgres::{PgConnectOptions, PgSslMode},
};
use std::{fmt, path::Path, str::FromStr};
use url::Url;

/// What can be said in the URL. Anything else may be a misspelling, which would be passed over.
const PARAMETERS: [&str; 6] =
    ["sslmode", "sslrootcert", "sslcert", "sslkey", "application_name", "statement-cache-capacity"];

/// Where the database is, and who asks. It has a password, and is not printed.
#[derive(Clone)]
pub(crate) struct Database(PgConnectOptions);

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").finish_non_exhaustive()
    }
}

impl Database {
    /// Reads `postgres://user:password@host:port/database?sslmode=…`. Without an `sslmode` it is TLS, and the
    /// server has to show whose it is, except on this machine; there so with an `sslrootcert`. No error
    /// repeats the URL.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let wanted = "postgres://user:password@host:port/database?sslmode=verify-full&sslrootcert=FILE";
        let parsed = Url::parse(url).map_err(|error| {
            anyhow!(
                "it is not {wanted} ({error}); in user and password @ is written %40, : %3A, / %2F, % %25"
            )
        })?;
        if !matches!(parsed.scheme(), "postgres" | "postgresql") {
            bail!("it does not begin with postgres:// as {wanted} does");
        }
        let host = parsed.host_str().filter(|host| !host.is_empty()).context("it names no host")?;
        let known = |name: &str| parsed.query_pairs().any(|(known, _)| known == name);
        if let Some((name, _)) = parsed.query_pairs().find(|(name, _)| !PARAMETERS.contains(&&**name)) {
            bail!("{name} is not known; it may have {}", PARAMETERS.join(", "));
        }
        if let Some((_, file)) = parsed.query_pairs().find(|(name, _)| name == "sslrootcert") {
            certificates(Path::new(&*file)).context("sslrootcert")?;
        }
        let mut options = PgConnectOptions::from_str(url).map_err(|error| match error {
            sqlx::Error::Configuration(reason) => {
                anyhow!("{reason}: sslmode is disable, prefer, require, verify-ca or verify-full")
            }
            other => other.into(),
        })?;
        if !known("sslmode") {
            let trusted = is_loopback(host) && !known("sslrootcert");
            options = options.ssl_mode(if trusted { PgSslMode::Prefer } else { PgSslMode::VerifyFull });
        }
        if !known("application_name") {
            options = options.application_name("spin-otp-relay");
        }
        Ok(Self(options.disable_statement_logging()))
    }

    /// What sqlx needs to know.
    pub(crate) fn options(&self) -> &PgConnectOptions {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_the_url_is_said_and_nothing_of_it_repeated() {
        for (url, word) in [
            ("hunter2", "postgres://"),
            ("mysql://relay:hunter2@db/relay", "postgres://"),
            ("postgres:///relay", "host"),
            ("postgres://relay:hunter2@db:port/relay", "port"),
            ("postgres://relay:hunter2@db/relay?sslmod=verify-full", "sslmod"),
            ("postgres://relay:hunter2@db/relay?sslmode=always", "verify-full"),
            ("postgres://relay:hunter2@db/relay?password=hunter2", "password is not known"),
            ("postgres://relay:hunter2@db/relay?sslrootcert=missing.pem", "missing.pem"),
        ] {
            let error = format!("{:#}", Database::parse(url).unwrap_err());
            assert!(error.contains(word) && !error.contains("hunter2"), "{url}: {error}");
        }
    }

    #[test]
    fn only_this_machine_is_spoken_to_without_tls_unless_it_is_said() {
        let mode = |url: &str| format!("{:?}", Database::parse(url).unwrap().options().get_ssl_mode());
        for (url, expected) in [
            ("postgres://relay:hunter2@127.0.0.1:5432/relay", "Prefer"),
            ("postgres://relay@localhost/relay", "Prefer"),
            ("postgresql://relay:hunter2@db.example/relay", "VerifyFull"),
            ("postgres://relay:hunter2@db.example/relay?sslmode=require", "Require"),
            ("postgres://relay:hunter2@db.example/relay?sslmode=disable", "Disable"),
            ("postgres://relay:hunter2@db.example/relay?sslmode=verify-ca", "VerifyCa"),
        ] {
            assert_eq!(mode(url), expected, "{url}");
        }
        let printed = format!("{:?}", Database::parse("postgres://relay:hunter2@db.example/relay").unwrap());
        assert!(!printed.contains("hunter2"), "{printed}");
    }
}
