//! Whoever brings a message to a phone or a mailbox: one trait, and a module for each kind.

pub(crate) mod log;
pub(crate) mod smtp;
pub(crate) mod webhook;

use crate::message::Message;
use anyhow::Context;
use futures::future::BoxFuture;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::{net::IpAddr, path::Path, time::Duration};

/// Brings messages to where they go.
///
/// A message may come more than once: whoever died between sending it and writing that down sends it
/// again, under the same id. So each provider passes on [`Message::event_id`] as the idempotency key.
pub(crate) trait Provider: Send + Sync + std::fmt::Debug {
    /// Hands over one message, within [`DEADLINE`] or not at all.
    fn send<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<(), SendError>>;
}

/// How long one attempt may take, connecting included.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// How long a connection may take to come about: whoever is not there shall not use up [`DEADLINE`].
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);

/// Why a message was not handed over. Neither reason repeats the code or a whole number.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub(crate) enum SendError {
    /// It may work later, or with another provider: no connection, no answer in time, 5xx, 429.
    #[error("{0}")]
    Temporary(String),
    /// This provider will never take this message: another 4xx, an address that it refuses.
    #[error("{0}")]
    Permanent(String),
}

impl SendError {
    /// The provider was silent for too long.
    fn no_answer(deadline: Duration) -> Self {
        Self::Temporary(format!("no answer within {deadline:?}"))
    }
}

/// The event's id as the key by which a receiver knows a repetition. It goes into headers, and into what
/// is signed, so it has letters, digits, hyphens and underscores only, as UUIDs do.
fn idempotency_key(message: &Message) -> Result<&str, SendError> {
    let key = message.event_id.as_str();
    let fits = (1..=128).contains(&key.len())
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if fits {
        Ok(key)
    } else {
        Err(SendError::Permanent("the event's id is not 1 to 128 of A-Z a-z 0-9 - _".into()))
    }
}

/// Whether what is sent to `host` stays on this machine, so that it may go unencrypted.
pub(crate) fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The authorities to trust beside those of the system: the certificates of a PEM file, at least one.
pub(crate) fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let pem = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .with_context(|| format!("{} is not PEM", file.display()))?;
    anyhow::ensure!(
        !certificates.is_empty(),
        "there is no certificate in {}: it needs a PEM block BEGIN CERTIFICATE",
        file.display()
    );
    Ok(certificates)
}

/// The innermost reason of an error, such as "Connection refused". What wraps it may name a URL.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.8.9.1", "::1", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["", "example.com", "localhost.example.com", "10.0.0.1", "0.0.0.0", "[::2]"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn an_id_that_would_be_more_than_a_header_is_no_key() {
        let [mut message, ..] = crate::template::samples();
        assert_eq!(idempotency_key(&message), Ok(message.event_id.as_str()));
        for id in ["", "a b", "a\r\nBcc: eve@example.com", "a@b", "a.1", "é", &"a".repeat(129)] {
            message.event_id = id.to_owned();
            assert!(matches!(idempotency_key(&message), Err(SendError::Permanent(_))), "{id}");
        }
    }

    #[test]
    fn a_file_without_a_certificate_is_no_authority() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        assert!(certificates(&file).unwrap_err().to_string().contains("cannot read"));
        for text in ["", "not PEM\n", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
            std::fs::write(&file, text).unwrap();
            assert!(certificates(&file).unwrap_err().to_string().contains("no certificate"), "{text}");
        }
        std::fs::write(&file, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n").unwrap();
        assert!(certificates(&file).unwrap_err().to_string().contains("is not PEM"));
    }
}
