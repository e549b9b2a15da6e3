//! Traces: what the relay does for an event, as OpenTelemetry spans, sent by OTLP over HTTP.
//!
//! They are sent where `OTEL_EXPORTER_OTLP_ENDPOINT` says, and without it there are none: a [`Span`] is then
//! empty, and costs nothing. A collector that is away costs spans, and no event: what is to be sent waits in a
//! queue of a bounded length, which another thread empties.
//!
//! A trace goes on from the `traceparent` of the event (CloudEvents' distributed tracing), which is that of the
//! request that left it. No span holds a number, an address or a code.

use crate::provider::SendError;
use opentelemetry::{
    Context, KeyValue,
    trace::{
        Link, Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId,
        TraceState, Tracer,
    },
};
use opentelemetry_sdk::trace::SdkTracer;
use otlp_traces::Traces;
use otp_events::{Event, EventType};
use std::{sync::OnceLock, time::SystemTime};

/// Who says it, unless `OTEL_SERVICE_NAME` does.
const SERVICE: &str = "spin-otp-relay";

/// Set once, and only where traces are wanted.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// What sends spans, if they are wanted.
#[derive(Debug)]
pub(crate) struct Telemetry(Option<Traces>);

impl Telemetry {
    /// Begins as the `OTEL_…` variables say.
    pub(crate) fn start() -> Self {
        let traces = Traces::start(SERVICE, env!("CARGO_PKG_VERSION"));
        if let Some(traces) = &traces {
            let _ = TRACER.set(traces.tracer(SERVICE));
        }
        Self(traces)
    }

    /// Sends what is left.
    pub(crate) async fn end(self) {
        if let Some(traces) = self.0 {
            traces.end().await;
        }
    }
}

/// A span that has begun; it ends with the last copy of it. Empty where there are no traces.
#[derive(Debug, Clone, Default)]
pub(crate) struct Span(Option<Context>);

impl Span {
    fn begin(
        kind: SpanKind,
        parent: &Context,
        described: impl FnOnce() -> (String, Vec<KeyValue>),
        links: Vec<Link>,
    ) -> Self {
        let Some(tracer) = TRACER.get() else { return Self(None) };
        let (name, attributes) = described();
        let builder = tracer.span_builder(name).with_kind(kind).with_attributes(attributes).with_links(links);
        Self(Some(parent.with_span(builder.start_with_context(tracer, parent))))
    }

    /// A request that came in, and goes on with the trace of its caller. `route` is what the path stands for.
    pub(crate) fn of_request(method: &str, route: &'static str, traceparent: Option<&str>) -> Self {
        let described = || {
            let attributes = vec![
                KeyValue::new("http.request.method", method.to_owned()),
                KeyValue::new("http.route", route),
                KeyValue::new("url.path", route),
                KeyValue::new("url.scheme", "http"),
            ];
            (format!("{method} {route}"), attributes)
        };
        Self::begin(SpanKind::Server, &remote(traceparent), described, Vec::new())
    }

    /// The request was answered.
    pub(crate) fn answered(&self, status: u16) {
        let Some(context) = &self.0 else { return };
        context.span().set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        if status >= 500 {
            context.span().set_attribute(KeyValue::new("error.type", status.to_string()));
            context.span().set_status(Status::error(""));
        }
    }

    /// One attempt to bring a code to a provider.
    pub(crate) fn of_delivery(event: &Event, channel: &'static str, provider: &str, attempt: i64) -> Self {
        let described = || {
            let mut attributes = about(event);
            attributes.extend([
                KeyValue::new("spin_otp.channel", channel),
                KeyValue::new("spin_otp.provider", provider.to_owned()),
                KeyValue::new("spin_otp.attempt", attempt),
            ]);
            (format!("deliver {channel}"), attributes)
        };
        Self::begin(SpanKind::Client, &remote(event.traceparent.as_deref()), described, Vec::new())
    }

    /// What came of the attempt.
    pub(crate) fn sent(&self, sent: &Result<(), SendError>) {
        if let Err(error) = sent {
            let kind = match error {
                SendError::Temporary(_) => "temporary",
                SendError::Permanent(_) => "permanent",
            };
            self.failed(kind, error.to_string());
        }
    }

    /// It did not work. `reason` names nobody.
    pub(crate) fn failed(&self, kind: &'static str, reason: String) {
        let Some(context) = &self.0 else { return };
        context.span().set_attribute(KeyValue::new("error.type", kind));
        context.span().set_status(Status::error(reason));
    }

    /// Its W3C trace context, for whoever goes on with the trace.
    pub(crate) fn traceparent(&self) -> Option<String> {
        let span = self.0.as_ref()?.span();
        let context = span.span_context();
        let flags = context.trace_flags() & TraceFlags::SAMPLED;
        context.is_valid().then(|| format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id()))
    }

    fn context(&self) -> Option<SpanContext> {
        Some(self.0.as_ref()?.span().span_context().clone())
    }
}

/// Where events are handed to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Destination<'a> {
    /// `kafka`, or the relay's own name for what is none.
    pub(crate) system: &'static str,
    pub(crate) topic: &'a str,
    pub(crate) partition: Option<i32>,
}

/// What traces name where there is no topic.
pub(crate) const IN_PROCESS: Destination<'_> =
    Destination { system: "in-process", topic: "otp-events", partition: None };

impl Destination<'_> {
    fn described(
        self,
        operation: &'static str,
        r#type: &'static str,
        event: &Event,
    ) -> (String, Vec<KeyValue>) {
        let mut attributes = about(event);
        attributes.extend([
            KeyValue::new("messaging.system", self.system),
            KeyValue::new("messaging.destination.name", self.topic.to_owned()),
            KeyValue::new("messaging.operation.name", operation),
            KeyValue::new("messaging.operation.type", r#type),
        ]);
        attributes.extend(
            self.partition
                .map(|partition| KeyValue::new("messaging.destination.partition.id", partition.to_string())),
        );
        (format!("{operation} {}", self.topic), attributes)
    }
}

/// Begins a span for each event that came with a request and is handed to the bus: in the event's own trace,
/// which its request began, with a link to the push that brought it among others. An event whose request was in
/// no trace begins one here, sampled as this relay samples, and takes its context along: whoever reads the event
/// goes on from there.
pub(crate) fn publishing(events: &mut [Event], request: &Span, to: Destination<'_>) -> Vec<Span> {
    let Some(intake) = request.context() else { return Vec::new() };
    let begin = |event: &mut Event| {
        let parent = remote(event.traceparent.as_deref());
        let links = vec![Link::with_context(intake.clone())];
        let span = Span::begin(SpanKind::Producer, &parent, || to.described("publish", "send", event), links);
        if event.traceparent.is_none() {
            event.traceparent = span.traceparent();
        }
        span
    };
    events.iter_mut().map(begin).collect()
}

/// Notes that an event was read and written down.
pub(crate) fn processed(event: &Event, from: Destination<'_>, begun: SystemTime) {
    let Some(tracer) = TRACER.get() else { return };
    let (name, attributes) = from.described("process", "process", event);
    let parent = remote(event.traceparent.as_deref());
    let builder = tracer.span_builder(name).with_kind(SpanKind::Consumer).with_attributes(attributes);
    builder.with_start_time(begun).start_with_context(tracer, &parent).end();
}

/// What may be said of an event. A type that is not known may be anything.
fn about(event: &Event) -> Vec<KeyValue> {
    let r#type = match &event.r#type {
        EventType::Other(_) => "other",
        known => known.as_str(),
    };
    vec![
        KeyValue::new("cloudevents.event_id", event.id.clone()),
        KeyValue::new("cloudevents.event_type", r#type.to_owned()),
    ]
}

/// The context that a `traceparent` stands for: none, if it is malformed (W3C Trace Context, section 3.2).
fn remote(traceparent: Option<&str>) -> Context {
    let context = traceparent.filter(|_| TRACER.get().is_some()).and_then(parse);
    context.map_or_else(Context::new, |context| Context::new().with_remote_span_context(context))
}

fn parse(traceparent: &str) -> Option<SpanContext> {
    let hex = |part: &&str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut parts = traceparent.split('-');
    let mut part = |length: usize| parts.next().filter(|part| part.len() == length).filter(hex);
    let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    if version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let context = SpanContext::new(trace, span, flags, true, TraceState::default());
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_context_is_read_as_the_recommendation_has_it() {
        const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let read = parse(PARENT).unwrap();
        assert_eq!(read.trace_id().to_string(), &PARENT[3..35]);
        assert!(read.is_sampled() && read.is_remote());
        assert!(!parse(&PARENT.replace("-01", "-02")).unwrap().is_sampled());
        assert!(parse(&PARENT.replacen("00-", "cc-", 1).replace("-01", "-01-more")).is_some());
        for malformed in [
            "",
            &PARENT[..54],
            &PARENT.to_uppercase(),
            &PARENT.replacen("00-", "ff-", 1),
            &PARENT.replace("-01", "-01-more"),
            &PARENT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &PARENT.replace("b7ad6b7169203331", &"0".repeat(16)),
        ] {
            assert!(parse(malformed).is_none(), "{malformed}");
        }
    }

    #[test]
    fn without_a_collector_a_span_is_empty() {
        let span = Span::of_request("POST", "/events", None);
        assert!(span.0.is_none() && span.traceparent().is_none());
        let mut events = [Event::new("1", EventType::Generated)];
        let to = Destination { system: "kafka", topic: "otp-events", partition: None };
        assert!(publishing(&mut events, &span, to).is_empty());
        assert!(events[0].traceparent.is_none());
    }
}
