//! Kafka's brokers: reaching them, topics, and records.

use crate::{
    arguments::{Kafka, SaslMechanism},
    provider::certificates,
};
use anyhow::{Context, Result, anyhow};
use otp_events::Record;
use rskafka::{
    BackoffConfig,
    client::{
        Client, ClientBuilder, Credentials, SaslConfig,
        error::{Error, ProtocolError},
    },
};
use std::{sync::Arc, time::Duration};

/// How long rskafka's pauses between the tries of one call may last in all.
const RETRY: Duration = Duration::from_secs(2);

/// How long a call may take in all: the intake answers in seconds.
pub(crate) const DEADLINE: Duration = Duration::from_secs(4);

pub(crate) fn to_kafka(record: Record) -> rskafka::record::Record {
    rskafka::record::Record {
        key: Some(record.key.into_bytes()),
        value: (!record.value.is_empty()).then_some(record.value),
        headers: record.headers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect(),
        timestamp: chrono::Utc::now(),
    }
}

/// What is no text is shown as well as it goes: such a record is no event of ours.
pub(crate) fn from_kafka(record: rskafka::record::Record) -> Record {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Record {
        key: record.key.map(text).unwrap_or_default(),
        headers: record.headers.into_iter().map(|(name, value)| (name, text(value))).collect(),
        value: record.value.unwrap_or_default(),
    }
}

/// A client of these brokers. It may lose them at any time.
pub(crate) async fn connect(settings: &Kafka) -> Result<Client> {
    // Without retries, rskafka says why it cannot connect before the caller's timeout ends it.
    client(settings, Duration::ZERO).await?;
    reconnect(settings).await
}

/// The same where brokers were reached before, and the caller does not report why they are not now.
pub(crate) async fn reconnect(settings: &Kafka) -> Result<Client> {
    client(settings, RETRY).await
}

/// A client that retries a call until its pauses add up to `retry`.
async fn client(settings: &Kafka, retry: Duration) -> Result<Client> {
    // Without a deadline rskafka tries without end.
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(50),
        max_backoff: Duration::from_millis(500),
        base: 2.0,
        deadline: Some(retry),
    };
    let mut builder =
        ClientBuilder::new(settings.brokers()?).client_id("spin-otp-relay").backoff_config(backoff);
    if let Some(tls) = tls(settings)? {
        builder = builder.tls_config(Arc::new(tls));
    }
    if let Some(mechanism) = settings.sasl_mechanism {
        let credentials = Credentials::new(settings.sasl_username.clone(), settings.sasl_password.clone());
        builder = builder.sasl_config(match mechanism {
            SaslMechanism::Plain => SaslConfig::Plain(credentials),
            SaslMechanism::ScramSha256 => SaslConfig::ScramSha256(credentials),
            SaslMechanism::ScramSha512 => SaslConfig::ScramSha512(credentials),
        });
    }
    Ok(builder.build().await?)
}

/// TLS, if it is wanted, with the system's certificate authorities, and one more if there is one.
pub(crate) fn tls(settings: &Kafka) -> Result<Option<rustls::ClientConfig>> {
    if !settings.tls {
        return Ok(None);
    }
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = &settings.ca_file {
        for certificate in certificates(file).context("KAFKA_CA_FILE")? {
            roots.add(certificate).context("KAFKA_CA_FILE")?;
        }
    }
    Ok(Some(rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}

/// Why brokers will never take what was produced; `None` if it can be tried again.
pub(crate) fn refusal(error: &Error) -> Option<String> {
    match error {
        Error::ServerError {
            protocol_error:
                reason @ (ProtocolError::MessageTooLarge
                | ProtocolError::RecordListTooLarge
                | ProtocolError::InvalidRecord),
            ..
        } => Some(format!("the broker refuses it: {reason}")),
        _ => None,
    }
}

/// How many partitions a topic has; `None` if there is no such topic.
pub(crate) async fn partitions(client: &Client, topic: &str) -> Result<Option<i32>> {
    let topics = client.list_topics().await?;
    let found = topics.into_iter().find(|found| found.name == topic);
    found.map(|found| Ok(i32::try_from(found.partitions.len())?)).transpose()
}

/// How many partitions a topic has. One that is missing is made, and its retention is then the broker's
/// default, which may be too short or too long.
pub(crate) async fn ensure_topic(client: &Client, settings: &Kafka, topic: &str) -> Result<i32> {
    if let Some(partitions) = partitions(client, topic).await? {
        return Ok(partitions);
    }
    tracing::warn!(
        topic,
        partitions = settings.partitions,
        "the topic is missing and is created; set its retention.ms: events hold numbers, and RELAY_REMEMBER_HOURS must be longer"
    );
    let timeout_millis = i32::try_from(DEADLINE.as_millis()).unwrap_or(i32::MAX);
    let controller = client.controller_client()?;
    match controller.create_topic(topic, settings.partitions, settings.replication, timeout_millis).await {
        Ok(()) | Err(Error::ServerError { protocol_error: ProtocolError::TopicAlreadyExists, .. }) => {}
        Err(error) => return Err(anyhow!(error).context(format!("the topic {topic} cannot be created"))),
    }
    // The broker that is asked may not have heard of it yet.
    for _ in 0..20 {
        if let Some(partitions) = partitions(client, topic).await? {
            return Ok(partitions);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(anyhow!("the topic {topic} was created and is not there yet"))
}
