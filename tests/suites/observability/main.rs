//! What an operator sees: traces, metrics, dashboard, alerts and the manual. One file a subject.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod manual;
mod metrics;
mod traces;

use harness::{Collector, Relay, RelayBuilder, Service, Span, repository, unused_address};
use std::{path::PathBuf, time::Duration};

/// Whatever happens in its own time happens within this, on a machine that does much else.
const SOON: Duration = Duration::from_secs(30);

/// What component and relay know of each other.
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A relay and the service that pushes to it, each of which knows where the other is.
struct Stack {
    service: Service,
    relay: Relay,
}

/// How both are to be started.
#[derive(Default)]
struct Stacked {
    relay: RelayBuilder,
    service: Vec<(&'static str, String)>,
    environment: Vec<(&'static str, String)>,
}

impl Stacked {
    /// Sets a variable of the operating system for both.
    fn env(mut self, name: &'static str, value: &str) -> Self {
        self.relay = self.relay.env(name, value);
        self.environment.push((name, value.to_owned()));
        self
    }

    /// Sends traces there, without a wait.
    fn tracing_to(self, collector: &Collector) -> Self {
        self.env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url()).env("OTEL_BSP_SCHEDULE_DELAY", "50")
    }

    fn start(self) -> Stack {
        let address = unused_address();
        let relay = self
            .relay
            .env("RELAY_TOKEN", TOKEN)
            .env("RELAY_COMPONENT_URL", &format!("http://{address}"))
            .env("RELAY_FLUSH_SECONDS", "1")
            .start();
        let mut service = Service::builder()
            .listen(&address)
            .variable("relay_url", &relay.url())
            .variable("relay_token", TOKEN);
        for (name, value) in self.service {
            service = service.variable(name, &value);
        }
        for (name, value) in self.environment {
            service = service.env(name, &value);
        }
        Stack { service: service.start(), relay }
    }
}

/// A file of deploy/observability.
fn file(name: &str) -> PathBuf {
    repository().join("deploy/observability").join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(repository().join(name)).unwrap()
}

/// The spans of one trace.
fn of_trace(collector: &Collector, trace: &str) -> Vec<Span> {
    collector.spans().into_iter().filter(|span| span.trace == trace).collect()
}
