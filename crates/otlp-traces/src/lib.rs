//! Sends the spans of a program by OTLP over HTTP, where and as the variables of the OpenTelemetry specification
//! (`OTEL_…`) say: without an endpoint there are none.
//!
//! A collector that is away costs spans, and nothing else: what is to be sent waits in a queue of a bounded length,
//! which another thread empties. It knows nothing of what the spans are about.

use anyhow::{Context as _, Result, bail};
use opentelemetry::{Key, KeyValue, Value, trace::TracerProvider as _};
use opentelemetry_otlp::{Protocol, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{SdkTracer, SdkTracerProvider, SpanData, SpanExporter},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::runtime::Handle;

/// How long the last spans may take at the end.
const LAST: Duration = Duration::from_secs(2);

/// What sends spans.
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Begins, on the runtime that this is called on, to send the spans of the program `service`, which
    /// `OTEL_SERVICE_NAME` may name otherwise, of this version. `None` where nobody wants spans, or where the
    /// variables make no sense: that is said, and costs the traces only.
    ///
    /// The program must have chosen rustls' provider of cryptography.
    pub fn start(service: &str, version: &'static str) -> Option<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        if !is_wanted(&variable) {
            return None;
        }
        provider(&variable, service, version)
            .inspect_err(|error| tracing::warn!("no traces are sent: {error:#}"))
            .ok()
            .map(Self)
    }

    /// What begins spans; `scope` is the part of the program that does.
    pub fn tracer(&self, scope: &'static str) -> SdkTracer {
        self.0.tracer(scope)
    }

    /// Sends what is left, unless that takes longer than two seconds.
    pub async fn end(self) {
        // It blocks, and the sending itself is done on this runtime.
        let ended = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(LAST)).await;
        if !matches!(ended, Ok(Ok(()))) {
            tracing::debug!("the last traces were not sent");
        }
    }
}

/// Whether spans are to be sent, by the variables of the OpenTelemetry specification.
fn is_wanted(variable: &impl Fn(&str) -> Option<String>) -> bool {
    let endpoints = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
    endpoints.into_iter().any(|name| variable(name).is_some())
        && !variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        && variable("OTEL_TRACES_EXPORTER").is_none_or(|value| value != "none")
}

/// That it is the one protocol that is spoken.
fn check_protocol(variable: &impl Fn(&str) -> Option<String>) -> Result<()> {
    let names = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
    match names.into_iter().find_map(|name| Some((name, variable(name)?))) {
        Some((name, other)) if other != "http/protobuf" => bail!(
            "{name} is {other:?}; set it to http/protobuf, and the endpoint to where the collector takes that \
             (port 4318, as a rule)"
        ),
        _ => Ok(()),
    }
}

fn provider(
    variable: &impl Fn(&str) -> Option<String>,
    service: &str,
    version: &'static str,
) -> Result<SdkTracerProvider> {
    check_protocol(variable)?;
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .build()
        .context("check OTEL_EXPORTER_OTLP_ENDPOINT and the variables beside it")?;
    let resource = || Resource::builder().with_attribute(KeyValue::new("service.version", version));
    let unnamed = |name: &Value| name.as_str().starts_with("unknown_service");
    let resource = match resource().build() {
        named if !named.get_ref(&Key::new("service.name")).is_none_or(unnamed) => named,
        _ => resource().with_service_name(service.to_owned()).build(),
    };
    let exporter = OnRuntime {
        exporter: Arc::new(exporter),
        runtime: Handle::current(),
        failing: AtomicBool::new(false),
    };
    // Samples, queues and batches as the standard's variables say.
    Ok(SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build())
}

/// Sends on the runtime, which the thread that gathers spans is no part of, and says once that it fails.
#[derive(Debug)]
struct OnRuntime {
    exporter: Arc<opentelemetry_otlp::SpanExporter>,
    runtime: Handle,
    failing: AtomicBool,
}

impl SpanExporter for OnRuntime {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let exporter = Arc::clone(&self.exporter);
        let sent = self.runtime.spawn(async move { exporter.export(batch).await }).await;
        let sent = sent.unwrap_or(Err(OTelSdkError::AlreadyShutdown));
        let was_failing = self.failing.swap(sent.is_err(), Ordering::Relaxed);
        match &sent {
            Err(error) if !was_failing => tracing::warn!(
                "traces cannot be sent and are dropped until they can; check OTEL_EXPORTER_OTLP_ENDPOINT and the \
                 collector: {error}"
            ),
            Ok(()) if was_failing => tracing::info!("traces are sent again"),
            _ => {}
        }
        sent
    }

    fn set_resource(&mut self, resource: &Resource) {
        if let Some(exporter) = Arc::get_mut(&mut self.exporter) {
            exporter.set_resource(resource);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(set: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        |name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn traces_are_sent_where_somebody_says_where_to() {
        let wanted = |set: &[(&str, &str)]| is_wanted(&variables(set));
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
        assert!(!wanted(&[]));
        assert!(!wanted(&[("OTEL_SERVICE_NAME", "relay")]));
        assert!(wanted(&[endpoint]));
        assert!(wanted(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:4318/v1/traces")]));
        assert!(wanted(&[endpoint, ("OTEL_SDK_DISABLED", "false")]));
        assert!(!wanted(&[endpoint, ("OTEL_SDK_DISABLED", "True")]));
        assert!(!wanted(&[endpoint, ("OTEL_TRACES_EXPORTER", "none")]));
    }

    #[test]
    fn the_more_special_variable_says_which_protocol() {
        let [special, general] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
        let check = |set: &[(&str, &str)]| check_protocol(&variables(set)).map_err(|error| error.to_string());
        check(&[]).unwrap();
        check(&[(general, "http/protobuf")]).unwrap();
        check(&[(special, "http/protobuf"), (general, "grpc")]).unwrap();
        for (set, name) in [
            (&[(general, "grpc")][..], general),
            (&[(special, "http/json"), (general, "http/protobuf")], special),
        ] {
            let error = check(set).unwrap_err();
            assert!(error.starts_with(name) && error.contains("4318"), "{error}");
        }
    }
}
