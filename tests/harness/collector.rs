//! What takes traces.

use crate::provider::SmsProvider;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, any_value::Value},
    trace::v1::{self as otlp, span::SpanKind},
};
use prost::Message;

/// An OpenTelemetry collector on a free port, as far as a sender can tell: OTLP over HTTP, in protobuf. It ends
/// when dropped.
#[derive(Debug)]
pub struct Collector(SmsProvider);

/// A span that was sent there.
#[derive(Debug, Clone)]
pub struct Span {
    /// `service.name` of whoever sent it.
    pub service: String,
    pub name: String,
    /// Such as `server`.
    pub kind: &'static str,
    /// Hexadecimal, as in a `traceparent`.
    pub trace: String,
    pub id: String,
    /// Empty for the first one of a trace.
    pub parent: String,
    /// Trace and span of each.
    pub links: Vec<(String, String)>,
    pub attributes: Vec<(String, String)>,
    /// Whether its status is an error, and what it says.
    pub error: Option<String>,
}

impl Span {
    /// An attribute as text; empty if it is not there.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// What a child of it would send on.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-01", self.trace, self.id)
    }
}

impl Collector {
    /// Takes all that comes, until told otherwise.
    pub fn start() -> Self {
        Self(SmsProvider::start())
    }

    /// What to set `OTEL_EXPORTER_OTLP_ENDPOINT` to.
    pub fn url(&self) -> String {
        self.0.url()
    }

    /// The server behind it, to have it fail or hang.
    pub fn server(&self) -> &SmsProvider {
        &self.0
    }

    /// All that came, as it came: for what must not be in it.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.sent().into_iter().flat_map(|sent| sent.body).collect()
    }

    /// Every span so far.
    pub fn spans(&self) -> Vec<Span> {
        let requests = self.0.sent().into_iter().map(|sent| {
            assert_eq!((&*sent.method, &*sent.path), ("POST", "/v1/traces"));
            assert_eq!(sent.header("content-type"), Some("application/x-protobuf"));
            ExportTraceServiceRequest::decode(&*sent.body).unwrap()
        });
        let mut spans = Vec::new();
        for resource in requests.flat_map(|request| request.resource_spans) {
            let described = attributes(resource.resource.unwrap().attributes);
            let service = described.iter().find(|(name, _)| name == "service.name").unwrap().1.clone();
            let sent = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.extend(sent.map(|span| read(service.clone(), span)));
        }
        spans
    }
}

fn read(service: String, span: otlp::Span) -> Span {
    Span {
        service,
        kind: match span.kind() {
            SpanKind::Server => "server",
            SpanKind::Client => "client",
            SpanKind::Producer => "producer",
            SpanKind::Consumer => "consumer",
            SpanKind::Internal | SpanKind::Unspecified => "internal",
        },
        name: span.name,
        trace: hex::encode(span.trace_id),
        id: hex::encode(span.span_id),
        parent: hex::encode(span.parent_span_id),
        links: span
            .links
            .iter()
            .map(|link| (hex::encode(&link.trace_id), hex::encode(&link.span_id)))
            .collect(),
        attributes: attributes(span.attributes),
        error: span
            .status
            .filter(|status| status.code() == otlp::status::StatusCode::Error)
            .map(|status| status.message),
    }
}

fn attributes(list: Vec<opentelemetry_proto::tonic::common::v1::KeyValue>) -> Vec<(String, String)> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    list.into_iter().map(|attribute| (attribute.key, text(attribute.value))).collect()
}
