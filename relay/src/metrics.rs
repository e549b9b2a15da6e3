//! What is counted, for Prometheus. No label holds a number or a code.

use anyhow::Result;
use otp_events::{Event, EventType, is_api_key_name};
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

/// Most names of API keys that are told apart: each is a time series of its own for ever.
const MAX_API_KEYS: usize = 64;

/// The label of what is not told apart.
const OTHER: &str = "other";

/// The relay's metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// Events that were accepted and are kept by the bus.
    pub(crate) published: IntCounter,
    /// Events that were refused for good, by reason.
    pub(crate) refused: IntCounter,
    /// Requests to take events that were turned away, by status.
    pub(crate) turned_away: IntCounterVec,
    /// Events that the consumer has read for the first time.
    pub(crate) consumed: IntCounter,
    /// The same, by type and by the API key that the request came with, see [`Metrics::count`].
    events: IntCounterVec,
    /// The names of API keys that have a label.
    api_keys: Mutex<BTreeSet<String>>,
    /// Events that it had read before.
    pub(crate) duplicates: IntCounter,
    /// Codes that reached a provider, by channel and provider.
    pub(crate) delivered: IntCounterVec,
    /// Sends that failed, by channel and provider.
    pub(crate) failed: IntCounterVec,
    /// Codes that were not delivered, by state: superseded, expired or failed.
    pub(crate) undelivered: IntCounterVec,
    /// Rounds that were put off.
    pub(crate) retries: IntCounter,
    /// What could not be processed.
    pub(crate) dead: IntCounter,
    /// Records on the topic that are still to be read, by partition that this relay reads.
    pub(crate) lag: IntGaugeVec,
    /// Times that an offset was no longer on the topic.
    pub(crate) offsets_lost: IntCounter,
    /// Partitions of the topic that this relay reads.
    pub(crate) partitions_owned: IntGauge,
    /// Partitions that another relay has taken from this one.
    pub(crate) leases_lost: IntCounter,
    /// Events in the component's outbox, as it last said.
    pub(crate) outbox_waiting: IntGauge,
    /// Events among the component's dead, as it last said.
    pub(crate) outbox_dead: IntGauge,
    /// Whether the bus can be reached.
    pub(crate) bus_up: IntGauge,
    /// Seconds from an event's arrival at the relay until the bus has it.
    pub(crate) publish_seconds: Histogram,
    /// Seconds from reading an event until its code is with a provider.
    pub(crate) delivery_seconds: Histogram,
    /// Seconds that a provider took.
    pub(crate) send_seconds: Histogram,
}

impl Metrics {
    pub(crate) fn new() -> Result<Self> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| -> Result<IntCounter> {
            let counter = IntCounter::new(format!("spin_otp_relay_{name}"), help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let counters = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec> {
            let counters = IntCounterVec::new(Opts::new(format!("spin_otp_relay_{name}"), help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok(counters)
        };
        let histogram = |name: &str, help: &str| -> Result<Histogram> {
            let buckets =
                vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
            let options = HistogramOpts::new(format!("spin_otp_relay_{name}"), help).buckets(buckets);
            let histogram = Histogram::with_opts(options)?;
            registry.register(Box::new(histogram.clone()))?;
            Ok(histogram)
        };
        let lag = IntGaugeVec::new(
            Opts::new("spin_otp_relay_consumer_lag", "Records of owned partitions that are still to be read"),
            &["partition"],
        )?;
        registry.register(Box::new(lag.clone()))?;
        let gauge = |name: &str, help: &str| -> Result<IntGauge> {
            let gauge = IntGauge::new(format!("spin_otp_relay_{name}"), help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        Ok(Self {
            published: counter("published_total", "Events that the bus has")?,
            refused: counter("refused_total", "Events that were refused for good")?,
            turned_away: counters(
                "turned_away_total",
                "Requests with events that were turned away",
                &["status"],
            )?,
            consumed: counter("consumed_total", "Events that were read for the first time")?,
            events: counters(
                "events_total",
                "Events that were read for the first time, by type and API key",
                &["type", "api_key"],
            )?,
            api_keys: Mutex::default(),
            duplicates: counter("duplicates_total", "Events that were read again, without effect")?,
            delivered: counters(
                "delivered_total",
                "Codes that reached a provider",
                &["channel", "provider"],
            )?,
            failed: counters("failed_total", "Sends that failed", &["channel", "provider"])?,
            undelivered: counters("undelivered_total", "Codes that were not delivered", &["state"])?,
            retries: counter("retries_total", "Rounds through the providers that were put off")?,
            dead: counter("dead_total", "Events that could not be processed")?,
            partitions_owned: gauge("partitions_owned", "Partitions of the topic that this relay reads")?,
            leases_lost: counter(
                "leases_lost_total",
                "Partitions that another relay took over, for this one was silent for too long",
            )?,
            offsets_lost: counter("offsets_lost_total", "Times that an offset was no longer on the topic")?,
            publish_seconds: histogram(
                "publish_duration_seconds",
                "From an event's arrival until the bus has it",
            )?,
            delivery_seconds: histogram(
                "delivery_duration_seconds",
                "From a request's event until its code is with a provider",
            )?,
            send_seconds: histogram("send_duration_seconds", "How long a provider took")?,
            outbox_waiting: gauge("outbox_waiting", "Events in the component's outbox, as it last said")?,
            outbox_dead: gauge("outbox_dead", "Events among the component's dead, as it last said")?,
            bus_up: gauge("bus_up", "Whether the bus can be reached: 1 or 0")?,
            lag,
            registry,
        })
    }

    /// Counts an event that was read for the first time. What is not known by its type, or comes with one
    /// API key too many, is `other`: whoever makes names up shall not fill a database with them.
    pub(crate) fn count(&self, event: &Event) {
        let r#type = match &event.r#type {
            EventType::Other(_) => OTHER,
            known => known.as_str(),
        };
        self.events.with_label_values(&[r#type, self.api_key(event.apikeyname.as_deref())]).inc();
    }

    /// The label for an API key; empty where there is none.
    fn api_key<'a>(&self, name: Option<&'a str>) -> &'a str {
        let Some(name) = name else { return "" };
        if !is_api_key_name(name) {
            return OTHER;
        }
        let mut known = self.api_keys.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(name) {
            return name;
        }
        if known.len() >= MAX_API_KEYS {
            return OTHER;
        }
        known.insert(name.to_owned());
        name
    }

    /// All of it, in Prometheus' text format 0.0.4.
    pub(crate) fn text(&self) -> Result<String> {
        Ok(TextEncoder::new().encode_to_string(&self.registry.gather())?)
    }
}
