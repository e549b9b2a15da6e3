//! Traces: requests and what the guest calls on their behalf, as OpenTelemetry spans, sent by OTLP over HTTP.
//!
//! As with Spin, they are sent where `OTEL_EXPORTER_OTLP_ENDPOINT` says, a request goes on with its caller's
//! trace, the guest sees the caller's `traceparent` as it came, and an outbound request carries the context of
//! its own span. Without that variable there are no spans, and an empty [`Span`] costs nothing. A collector that
//! is away costs spans, and no request: what is to be sent waits in a queue of a bounded length, which another
//! thread empties.
//!
//! Unlike Spin, which at this time leaves the calls of a reused instance without a parent, each call belongs to
//! the request that it is made for ([`Requests`]); and no span holds a digit of a path, a statement or an
//! argument, for there may be a phone number in it.

use crate::masked_path::masked;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use opentelemetry::{
    Context, KeyValue, Value,
    propagation::{Extractor, TextMapPropagator},
    trace::{Span as _, SpanContext, SpanKind, Status, TraceContextExt, TraceFlags, Tracer},
};
use opentelemetry_sdk::{propagation::TraceContextPropagator, trace::SdkTracer};
use otlp_traces::Traces;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};
use wasmtime::{AsContextMut, component::GuestTaskId};

/// The one route that there is, as the manifest has it.
const ROUTE: &str = "/...";

/// Set once, and only where traces are wanted.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// What sends spans, if they are wanted.
#[derive(Debug)]
pub(crate) struct Telemetry(Option<Traces>);

impl Telemetry {
    /// Begins as the `OTEL_…` variables say, for the application of this name.
    pub(crate) fn start(application: &str) -> Self {
        // Another part of the host may have chosen it already, and there is only this one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let traces = Traces::start(application, env!("CARGO_PKG_VERSION"));
        if let Some(traces) = &traces {
            let _ = TRACER.set(traces.tracer("spin-otp-host"));
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

/// A span that has begun; it ends when it is dropped. Empty where there are no traces.
#[derive(Debug, Default)]
pub(crate) struct Span(Option<opentelemetry_sdk::trace::Span>);

impl Span {
    fn begin(
        kind: SpanKind,
        parent: impl FnOnce() -> Context,
        described: impl FnOnce() -> (String, Vec<KeyValue>),
    ) -> Self {
        let Some(tracer) = TRACER.get() else { return Self(None) };
        let (name, attributes) = described();
        let builder = tracer.span_builder(name).with_kind(kind).with_attributes(attributes);
        Self(Some(builder.start_with_context(tracer, &parent())))
    }

    /// A request that came in, and goes on with the trace of its caller.
    pub(crate) fn of_request<B>(request: &Request<B>) -> Self {
        let described = || {
            let method = known(request.method());
            let attributes = vec![
                KeyValue::new("http.request.method", method),
                KeyValue::new("http.route", ROUTE),
                KeyValue::new("url.path", masked(request.uri().path())),
                KeyValue::new("url.scheme", "http"),
            ];
            (format!("{} {ROUTE}", if method == "_OTHER" { "HTTP" } else { method }), attributes)
        };
        Self::begin(SpanKind::Server, || of_caller(request.headers()), described)
    }

    /// A request that the guest sends. It carries the span's context from here on.
    pub(crate) fn of_outbound<B>(request: &mut Request<B>, caller: Option<SpanContext>) -> Self {
        let parent = || match caller {
            Some(caller) => Context::new().with_remote_span_context(caller),
            None => of_caller(request.headers()),
        };
        let described = || {
            let (method, uri) = (known(request.method()), request.uri());
            let (scheme, host) = (uri.scheme_str().unwrap_or("http"), uri.host().unwrap_or_default());
            let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
            let attributes = vec![
                KeyValue::new("http.request.method", method),
                KeyValue::new("server.address", host.to_owned()),
                KeyValue::new("server.port", i64::from(port)),
                KeyValue::new("url.full", format!("{scheme}://{host}:{port}{}", masked(uri.path()))),
            ];
            ((if method == "_OTHER" { "HTTP" } else { method }).to_owned(), attributes)
        };
        let span = Self::begin(SpanKind::Client, parent, described);
        if let Some(context) = span.context().filter(SpanContext::is_valid) {
            let flags = context.trace_flags() & TraceFlags::SAMPLED;
            let traceparent = format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id());
            let state = context.trace_state().header();
            for (name, value) in [("traceparent", traceparent), ("tracestate", state)] {
                match HeaderValue::try_from(value) {
                    Ok(value) if !value.is_empty() => drop(request.headers_mut().insert(name, value)),
                    _ => drop(request.headers_mut().remove(name)),
                }
            }
        }
        span
    }

    /// A request was answered, here or by whoever the guest asked. From `fault` on a status is an error.
    pub(crate) fn answered(&mut self, status: StatusCode, fault: u16) {
        let Some(span) = &mut self.0 else { return };
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
        if status.as_u16() >= fault {
            self.failed(status.as_str().to_owned());
        }
    }

    /// It did not work: what kind of error it was. Not what it says, for that may repeat a value.
    pub(crate) fn failed(&mut self, kind: impl Into<Value>) {
        let Some(span) = &mut self.0 else { return };
        span.set_attribute(KeyValue::new("error.type", kind.into()));
        span.set_status(Status::error(""));
    }

    /// What others go on from.
    pub(crate) fn context(&self) -> Option<SpanContext> {
        self.0.as_ref().map(|span| span.span_context().clone())
    }

    /// For the log, so that it leads to the trace.
    pub(crate) fn trace_id(&self) -> Option<String> {
        let context = self.0.as_ref()?.span_context();
        context.is_sampled().then(|| context.trace_id().to_string())
    }
}

/// The requests of an instance, by the task that the guest runs for each. An instance has few in its life, so
/// none is taken out again: work in the background goes on after the answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Requests(Arc<Mutex<HashMap<GuestTaskId, SpanContext>>>);

impl Requests {
    /// The guest begins with a request.
    pub(crate) fn begin(&self, task: GuestTaskId, request: Option<SpanContext>) {
        if let Some(request) = request {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(task, request);
        }
    }

    /// The request for which the guest is making a call.
    pub(crate) fn caller(&self, mut store: impl AsContextMut) -> Option<SpanContext> {
        TRACER.get()?;
        let mut store = store.as_context_mut();
        let mut stack = store.async_call_stack().ok()?;
        let requests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stack.find_map(|task| requests.get(&task).cloned())
    }

    /// A call to a database that the guest is making. `operation` is its first word, and no more of it.
    pub(crate) fn database(&self, store: impl AsContextMut, system: &'static str, statement: &str) -> Span {
        let parent = || {
            let caller = self.caller(store);
            caller.map_or_else(Context::new, |caller| Context::new().with_remote_span_context(caller))
        };
        let described = || {
            let operation = operation(statement);
            let attributes = vec![
                KeyValue::new("db.system.name", system),
                KeyValue::new("db.operation.name", operation.clone()),
            ];
            (operation, attributes)
        };
        Span::begin(SpanKind::Client, parent, described)
    }
}

/// The first word of a statement or command, in capitals, behind the comments in front of it.
fn operation(statement: &str) -> String {
    let mut rest = statement.trim_start();
    while let Some((_, behind)) = rest.strip_prefix("--").and_then(|comment| comment.split_once('\n')) {
        rest = behind.trim_start();
    }
    let word = rest.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    if word.is_empty() { "OTHER".to_owned() } else { word.to_ascii_uppercase() }
}

/// A method by its name, if it is one of those that everybody knows.
fn known(method: &http::Method) -> &'static str {
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]
        .into_iter()
        .find(|known| known == method)
        .unwrap_or("_OTHER")
}

/// The trace of whoever sent this.
fn of_caller(headers: &HeaderMap) -> Context {
    TraceContextPropagator::new().extract_with_context(&Context::new(), &Fields(headers))
}

/// Header fields, of which one that stands twice is as good as none.
struct Fields<'a>(&'a HeaderMap);

impl Extractor for Fields<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let mut values = self.0.get_all(key).into_iter();
        values.next().filter(|_| values.next().is_none())?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_statement_only_its_first_word_is_shown() {
        assert_eq!(operation("  insert into users VALUES ('+14155550123')"), "INSERT");
        assert_eq!(operation("-- +14155550123\n  -- and why\n\n  WITH a AS (SELECT 1) SELECT *"), "WITH");
        assert_eq!(operation("EVALSHA"), "EVALSHA");
        assert_eq!(operation("+14155550123"), "OTHER");
        assert_eq!(operation("-- nothing but +14155550123"), "OTHER");
    }

    #[test]
    fn a_caller_is_believed_if_it_names_one_trace() {
        const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let with = |values: &[&'static str]| {
            let fields = values
                .iter()
                .map(|value| (http::HeaderName::from_static("traceparent"), HeaderValue::from_static(value)));
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(name, value);
            }
            of_caller(&headers).span().span_context().clone()
        };
        assert_eq!(with(&[PARENT]).trace_id().to_string(), &PARENT[3..35]);
        for refused in [&[][..], &["nonsense"], &[PARENT, PARENT]] {
            assert!(!with(refused).is_valid());
        }
    }

    #[test]
    fn without_a_collector_a_span_is_empty_and_requests_go_out_as_they_are() {
        let mut request =
            Request::get("http://127.0.0.1:3100/events").header("traceparent", "a").body(()).unwrap();
        let span = Span::of_outbound(&mut request, None);
        assert!(span.0.is_none() && span.trace_id().is_none());
        assert_eq!(request.headers()["traceparent"], "a");
    }
}
