//! What is counted, for Prometheus: units are seconds and records, counters end in `_total`, and what the
//! semantic conventions of OpenTelemetry have a name for has that name. No label holds a number or a code.
//! docs/operations.md says of each what it means; a test holds the two against each other.

use anyhow::Result;
use otp_events::{Event, EventType, is_application_name};
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};
use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

/// The bounds of what takes from a millisecond to a provider's deadline.
const SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

/// Those that OpenTelemetry has for `http.server.request.duration`.
const HTTP_SECONDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Most applications that are told apart: each is a time series of its own for ever.
const MAX_APPLICATIONS: usize = 64;

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
    /// Events whose signature does not hold, by where they were met and by reason.
    pub(crate) signature_failures: IntCounterVec,
    /// Requests to take events that were turned away, by status.
    pub(crate) turned_away: IntCounterVec,
    /// Events that the consumer has read for the first time.
    pub(crate) consumed: IntCounter,
    /// The same, by type and application, see [`Metrics::count`].
    events: IntCounterVec,
    /// The applications that have a label.
    applications: Mutex<BTreeSet<String>>,
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
    /// Records on the topic that are still to be read, by partition, and how old what was read last was then.
    lag: (IntGaugeVec, GaugeVec),
    /// Times that an offset was no longer on the topic.
    pub(crate) offsets_lost: IntCounter,
    /// Partitions of the topic that this relay reads.
    pub(crate) partitions_owned: IntGauge,
    /// Partitions that another relay has taken from this one.
    pub(crate) leases_lost: IntCounter,
    /// Events in the component's outbox, as it last said.
    pub(crate) outbox_waiting: IntGauge,
    /// Seconds that the oldest of them has waited, as it last said.
    pub(crate) outbox_oldest_seconds: IntGauge,
    /// Events among the component's dead, as it last said.
    pub(crate) outbox_dead: IntGauge,
    /// Whether the bus can be reached.
    pub(crate) bus_up: IntGauge,
    /// Seconds from an event's arrival at the relay until the bus has it.
    pub(crate) publish_seconds: Histogram,
    /// Seconds from reading an event until its code is with a provider, by channel.
    pub(crate) delivery_seconds: HistogramVec,
    /// Seconds that a provider took, by channel and provider.
    pub(crate) send_seconds: HistogramVec,
    /// Rounds through the providers that are under way.
    pub(crate) in_progress: IntGauge,
    /// Whether the component answered when it was last asked; nothing where none is to be asked.
    pub(crate) component_up: IntGaugeVec,
    /// Seconds that the relay took to answer, by method, route and status.
    http_seconds: HistogramVec,
}

/// How far a partition's reader is behind. Of a partition that nobody reads here any more nothing is left.
#[derive(Debug)]
pub(crate) struct Lag {
    records: IntGauge,
    age: Gauge,
}

impl Lag {
    /// So many records are left, and the oldest of those just read is so many milliseconds old.
    pub(crate) fn set(&self, records: i64, age: i64) {
        self.records.set(records.max(0));
        self.age.set(age.max(0) as f64 / 1_000.0);
    }
}

impl Drop for Lag {
    fn drop(&mut self) {
        self.set(0, 0);
    }
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
            let options = HistogramOpts::new(format!("spin_otp_relay_{name}"), help).buckets(SECONDS.into());
            let histogram = Histogram::with_opts(options)?;
            registry.register(Box::new(histogram.clone()))?;
            Ok(histogram)
        };
        let histograms = |name: &str, help: &str, labels: &[&str], bounds: &[f64]| -> Result<HistogramVec> {
            let histograms =
                HistogramVec::new(HistogramOpts::new(name, help).buckets(bounds.to_vec()), labels)?;
            registry.register(Box::new(histograms.clone()))?;
            Ok(histograms)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge> {
            let gauge = IntGauge::new(format!("spin_otp_relay_{name}"), help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| -> Result<IntGaugeVec> {
            let gauges = IntGaugeVec::new(Opts::new(format!("spin_otp_relay_{name}"), help), labels)?;
            registry.register(Box::new(gauges.clone()))?;
            Ok(gauges)
        };
        let age = GaugeVec::new(
            Opts::new(
                "spin_otp_relay_consumer_lag_seconds",
                "How old the oldest of the records read last was then; 0 when there was none",
            ),
            &["partition"],
        )?;
        registry.register(Box::new(age.clone()))?;
        let lag =
            gauges("consumer_lag", "Records of owned partitions that are still to be read", &["partition"])?;
        let started = Gauge::new("process_start_time_seconds", "When the process started, in Unix seconds")?;
        registry.register(Box::new(started.clone()))?;
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        started.set(since.as_secs_f64());
        gauges("build_info", "Always 1; the label says which version runs", &["version"])?
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        let events = counters(
            "events_total",
            "Events that were read for the first time, by type and application",
            &["type", "application"],
        )?;
        let undelivered = counters("undelivered_total", "Codes that were not delivered", &["state"])?;
        // A counter that is first seen at 1 has not grown, as far as Prometheus can tell.
        for r#type in EventType::known() {
            events.with_label_values(&[r#type.as_str(), ""]);
        }
        let turned_away =
            counters("turned_away_total", "Requests with events that were turned away", &["status"])?;
        for status in ["401", "403", "503"] {
            turned_away.with_label_values(&[status]);
        }
        let signature_failures = counters(
            "signature_failures_total",
            "Events whose signature does not hold",
            &["place", "reason"],
        )?;
        for place in ["intake", "consumer"] {
            for reason in ["missing", "unknown_key", "refused"] {
                signature_failures.with_label_values(&[place, reason]);
            }
        }
        for state in ["superseded", "expired", "failed"] {
            undelivered.with_label_values(&[state]);
        }
        Ok(Self {
            published: counter("published_total", "Events that the bus has")?,
            refused: counter("refused_total", "Events that were refused for good")?,
            signature_failures,
            turned_away,
            consumed: counter("consumed_total", "Events that were read for the first time")?,
            events,
            applications: Mutex::default(),
            duplicates: counter("duplicates_total", "Events that were read again, without effect")?,
            delivered: counters(
                "delivered_total",
                "Codes that reached a provider",
                &["channel", "provider"],
            )?,
            failed: counters("failed_total", "Sends that failed", &["channel", "provider"])?,
            undelivered,
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
            delivery_seconds: histograms(
                "spin_otp_relay_delivery_duration_seconds",
                "From reading an event until its code is with a provider",
                &["channel"],
                &SECONDS,
            )?,
            send_seconds: histograms(
                "spin_otp_relay_send_duration_seconds",
                "How long a provider took",
                &["channel", "provider"],
                &SECONDS,
            )?,
            in_progress: gauge("deliveries_in_progress", "Rounds through the providers that are under way")?,
            component_up: gauges(
                "component_up",
                "Whether the component answered when it was last asked: 1 or 0",
                &[],
            )?,
            http_seconds: histograms(
                "http_server_request_duration_seconds",
                "How long the relay took to answer",
                &["http_request_method", "http_route", "http_response_status_code"],
                &HTTP_SECONDS,
            )?,
            outbox_waiting: gauge("outbox_waiting", "Events in the component's outbox, as it last said")?,
            outbox_oldest_seconds: gauge(
                "outbox_oldest_seconds",
                "Age of the oldest event in the component's outbox, as it last said",
            )?,
            outbox_dead: gauge("outbox_dead", "Events among the component's dead, as it last said")?,
            bus_up: gauge("bus_up", "Whether the bus can be reached: 1 or 0")?,
            lag: (lag, age),
            registry,
        })
    }

    /// Counts an event that was read for the first time. What is not known by its type, or comes with one
    /// application too many, is `other`: whoever makes names up shall not fill a database with them.
    pub(crate) fn count(&self, event: &Event) {
        let r#type = match &event.r#type {
            EventType::Other(_) => OTHER,
            known => known.as_str(),
        };
        self.events.with_label_values(&[r#type, self.application(event.application.as_deref())]).inc();
    }

    /// Notes that a request was answered.
    pub(crate) fn answered(&self, method: &str, route: &str, status: &str, took: Duration) {
        self.http_seconds.with_label_values(&[method, route, status]).observe(took.as_secs_f64());
    }

    /// Where the reader of a partition says how far behind it is.
    pub(crate) fn lag_of(&self, partition: i32) -> Lag {
        let partition = partition.to_string();
        let (records, age) = &self.lag;
        Lag { records: records.with_label_values(&[&partition]), age: age.with_label_values(&[&partition]) }
    }

    /// Takes back what was said of a partition that this relay reads no longer.
    pub(crate) fn forget_lag(&self, partition: i32) {
        let partition = partition.to_string();
        let (records, age) = &self.lag;
        // It may not have been read yet.
        let _ = records.remove_label_values(&[&partition]);
        let _ = age.remove_label_values(&[&partition]);
    }

    /// The label for an application; empty where there is none.
    fn application<'a>(&self, name: Option<&'a str>) -> &'a str {
        let Some(name) = name else { return "" };
        if !is_application_name(name) {
            return OTHER;
        }
        let mut known = self.applications.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(name) {
            return name;
        }
        if known.len() >= MAX_APPLICATIONS {
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
