//! The relay's face: where events come in, and what can be asked.

use crate::{
    bus::{Bus, Kept},
    callers::Callers,
    delivery,
    ledger::{Ledger, NotNow},
    metrics::Metrics,
    moment::{parse_rfc3339, rfc3339},
    problem::Problem,
    settings::Settings,
    signatures::Signatures,
    stop::Stop,
    telemetry::{self, Span},
    template::RenderInput,
};
use anyhow::Result;
use axum::{
    Json, Router,
    body::Body,
    extract::{ConnectInfo, Path, Query, Request, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::{Next, from_fn_with_state, map_response_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use otp_events::{Answer, Batch, MAX_BATCH_BYTES, NotTaken, Rejected, read_batch};
use otp_seal::KeyRing;
use otp_terms::Timestamp;
use serde::Deserialize;
use serde_json::json;
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    net::TcpListener,
    sync::{Notify, Semaphore},
    time::{sleep_until, timeout},
};

/// Batches that are taken in at once. More are turned away, so that memory stays bounded: each may have
/// a megabyte, and some more when it has been read.
const INTAKE_AT_ONCE: usize = 64;

/// How long a batch may take to arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// How long the bus may take. The component waits a little longer.
const PUBLISH_DEADLINE: Duration = Duration::from_secs(6);

/// Most messages that the inbox shows at once.
const MAX_INBOX: i64 = 10_000;

/// How long the inbox is waited for at the most, and after how long it is looked at again in any case: another relay may
/// have put something there.
const MAX_WAIT: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What every answer says to a browser that somebody has made ask: to take it for nothing else than it
/// says, to load nothing, and to show it in no frame. (OWASP ASVS 5.0, V3.4)
const SAFE: [(HeaderName, HeaderValue); 2] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
];

/// In production, where TLS stands in front: never without it, for a year.
const ONLY_TLS: HeaderValue = HeaderValue::from_static("max-age=31536000; includeSubDomains");

/// What the handlers share.
#[derive(Debug, Clone)]
pub(crate) struct Face {
    pub(crate) bus: Bus,
    pub(crate) ledger: Ledger,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) signatures: Arc<Signatures>,
    pub(crate) callers: Callers,
    /// Whether answers are to be had over TLS alone.
    pub(crate) production: bool,
    /// Whether the inbox is shown.
    pub(crate) inbox: bool,
    /// Told when there may be something new in it.
    pub(crate) settled: Arc<Notify>,
    pub(crate) intake: Arc<Semaphore>,
    pub(crate) stop: Stop,
}

impl Face {
    /// How many batches are taken in at once.
    pub(crate) fn intake() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(INTAKE_AT_ONCE))
    }
}

/// Serves until told to stop, and then until every request has its answer.
pub(crate) async fn serve(listener: TcpListener, face: Face, stop: Stop) -> Result<()> {
    let every_answer = EveryAnswer { production: face.production, stop: stop.clone() };
    let counts = Arc::clone(&face.metrics);
    let router = Router::new()
        .route("/events", post(take_events))
        .route("/inbox", get(show_inbox))
        .route("/deliveries/{otp_id}", get(show_deliveries))
        .route("/healthz", get(async || Json(json!({ "status": "ok" }))))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .fallback(async || Problem::NotFound)
        .layer(map_response_with_state(every_answer, finish))
        .layer(from_fn_with_state(counts, observe))
        .with_state(face);
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).with_graceful_shutdown(async move { stop.stopped().await }).await?;
    Ok(())
}

/// What a path stands for, as it may be counted and shown: without the id in it. Empty for what is nothing.
fn route_of(path: &str) -> &'static str {
    match path {
        "/events" => "/events",
        "/inbox" => "/inbox",
        "/healthz" => "/healthz",
        "/readyz" => "/readyz",
        "/metrics" => "/metrics",
        _ if path.starts_with("/deliveries/") => "/deliveries/{otp_id}",
        _ => "",
    }
}

/// Times a request, and traces it, unless it is a probe or nothing that there is.
async fn observe(State(metrics): State<Arc<Metrics>>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let route = route_of(request.uri().path());
    // Whoever makes methods up shall not fill a database with them.
    let method = match *request.method() {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::OPTIONS => "OPTIONS",
        _ => "_OTHER",
    };
    let span = match route {
        "" | "/healthz" | "/readyz" | "/metrics" => Span::default(),
        _ => {
            let traceparent = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
            Span::of_request(method, route, traceparent)
        }
    };
    request.extensions_mut().insert(span.clone());
    let response = next.run(request).await;
    let status = response.status();
    metrics.answered(method, route, status.as_str(), begun.elapsed());
    span.answered(status.as_u16());
    response
}

/// What is put on every answer.
#[derive(Debug, Clone)]
struct EveryAnswer {
    production: bool,
    stop: Stop,
}

/// Puts the headers on an answer that all of them have. Nobody else's pages are let in: there is no
/// `access-control-allow-origin`.
async fn finish(
    State(EveryAnswer { production, stop }): State<EveryAnswer>,
    mut response: Response,
) -> Response {
    let headers = response.headers_mut();
    headers.extend(SAFE);
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if production {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, ONLY_TLS);
    }
    if stop.is_announced() {
        // Who keeps connections shall have its next one elsewhere.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// `POST /events`: answers which of them are kept.
async fn take_events(
    State(face): State<Face>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let turned_away = |problem: Problem| {
        face.metrics.turned_away.with_label_values(&[problem.status().as_str()]).inc();
        problem.into_response()
    };
    let (head, body) = request.into_parts();
    if let Err(problem) = face.callers.trusted(&head.headers, peer) {
        return turned_away(problem);
    }
    let Ok(_permit) = face.intake.try_acquire() else { return turned_away(Problem::Unavailable) };
    if !face.bus.is_up() {
        return turned_away(Problem::Unavailable);
    }
    let batch = match read(&head.headers, body).await {
        Ok(batch) => batch,
        Err(problem) => return turned_away(problem),
    };
    let Ok(batch) = face.signatures.sift(batch) else { return turned_away(Problem::EventKeysDiffer) };
    let span = head.extensions.get::<Span>().cloned().unwrap_or_default();
    let timer = face.metrics.publish_seconds.start_timer();
    let answer = timeout(PUBLISH_DEADLINE, publish(&face, batch, &span)).await;
    let answer = answer.unwrap_or(Err(Problem::Unavailable));
    timer.observe_duration();
    match answer {
        Ok(answer) => Json(answer).into_response(),
        Err(problem) => turned_away(problem),
    }
}

async fn read(headers: &HeaderMap, body: Body) -> Result<Batch, Problem> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: usize| length > MAX_BATCH_BYTES) {
        return Err(Problem::TooLarge);
    }
    let bytes = timeout(BODY_DEADLINE, Limited::new(body, MAX_BATCH_BYTES).collect()).await;
    let bytes = bytes.map_err(|_| Problem::Incomplete)?.map_err(|error| {
        if error.is::<LengthLimitError>() { Problem::TooLarge } else { Problem::Incomplete }
    })?;
    read_batch(&bytes.to_bytes()).map_err(|reason| match reason {
        NotTaken::NoBatch => Problem::NoBatch,
        NotTaken::TooLarge => Problem::TooLarge,
    })
}

async fn publish(face: &Face, batch: Batch, request: &Span) -> Result<Answer, Problem> {
    let mut answer = Answer { rejected: batch.rejected, ..Answer::default() };
    let (indices, mut events): (Vec<_>, Vec<_>) = batch.events.into_iter().unzip();
    let spans = telemetry::publishing(&mut events, request, face.bus.destination());
    let ids: Vec<_> = events.iter().map(|event| event.id.clone()).collect();
    let waited_for = !events.is_empty();
    let kept = if waited_for { face.bus.publish(events).await } else { Vec::new() };
    for (span, kept) in spans.iter().zip(&kept) {
        match kept {
            Kept::Yes => {}
            Kept::Never(_) => span.failed("refused", "the broker refuses it".to_owned()),
            Kept::NotNow => span.failed("unavailable", "the bus is away; it is sent again".to_owned()),
        }
    }
    drop(spans);
    for ((id, index), kept) in ids.into_iter().zip(indices).zip(kept) {
        match kept {
            Kept::Yes => answer.accepted.push(id),
            Kept::Never(reason) => {
                answer.rejected.push(Rejected { id: Some(id), index: Some(index), reason })
            }
            Kept::NotNow => {}
        }
    }
    answer.rejected.sort_by_key(|rejected| rejected.index);
    face.metrics.published.inc_by(answer.accepted.len() as u64);
    face.metrics.refused.inc_by(answer.rejected.len() as u64);
    if let Some(first) = answer.rejected.first() {
        tracing::warn!(rejected = answer.rejected.len(), "events are refused; the first: {}", first.reason);
    }
    if waited_for && answer.accepted.is_empty() && answer.rejected.is_empty() {
        return Err(Problem::Unavailable);
    }
    Ok(answer)
}

#[derive(Debug, Deserialize)]
struct InboxQuery {
    /// Only what went there.
    to: Option<String>,
    #[serde(default = "some_messages")]
    limit: i64,
    /// How many seconds to wait for a message if there is none.
    #[serde(default)]
    wait: f64,
}

fn some_messages() -> i64 {
    100
}

/// `GET /inbox`: what was delivered, newest first, for whoever tries this out. With `wait`, it is answered as soon as there
/// is something, and at the latest after so many seconds.
async fn show_inbox(
    State(face): State<Face>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    query: Result<Query<InboxQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    if !face.inbox {
        return Err(Problem::NotFound);
    }
    face.callers.near(&headers, peer)?;
    let Query(query) = query.map_err(|_| Problem::InvalidQuery)?;
    if !(0.0..=MAX_WAIT.as_secs_f64()).contains(&query.wait) {
        return Err(Problem::InvalidQuery);
    }
    let until = tokio::time::Instant::now() + Duration::from_secs_f64(query.wait);
    loop {
        // From here on, so that nothing comes between the look and the wait.
        let settled = face.settled.notified();
        let messages = inbox(&face, &query).await?;
        let now = tokio::time::Instant::now();
        if !messages.is_empty() || now >= until || face.stop.is_announced() {
            return Ok(Json(messages).into_response());
        }
        tokio::select! {
            () = settled => {}
            () = face.stop.stopped() => {}
            () = sleep_until(until.min(now + LOOK_AGAIN)) => {}
        }
    }
}

/// What the inbox has for a query.
async fn inbox(face: &Face, query: &InboxQuery) -> Result<Vec<serde_json::Value>, Problem> {
    let limit = usize::try_from(query.limit.clamp(0, MAX_INBOX)).unwrap_or_default();
    // A + in a query means a space to some, and E.164 begins with one.
    let to = query.to.as_ref().map(|to| to.trim().trim_start_matches('+').to_owned());
    let read = if to.is_some() { MAX_INBOX } else { query.limit.clamp(0, MAX_INBOX) };
    let delivered = face.ledger.inbox(read).await.map_err(unavailable)?;
    let messages: Vec<_> = delivered
        .into_iter()
        .filter_map(|delivered| {
            let opened = delivery::opened(&face.keys, &delivered.event)?;
            if to.as_ref().is_some_and(|to| opened.to.trim_start_matches('+') != to) {
                return None;
            }
            let data = opened.event.code().ok()?;
            let expires_at = data.expires_at.as_deref().and_then(parse_rfc3339)?;
            let input = RenderInput {
                event_id: &opened.event.id,
                otp_id: &opened.otp_id,
                channel: opened.channel,
                to: &opened.to,
                code: &opened.code,
                expires_at: Timestamp::from_unix_millis(expires_at),
                now: Timestamp::from_unix_millis(delivered.at),
                traceparent: None,
            };
            let message = face.settings.messages().render(input).ok()?;
            Some(json!({
                "to": opened.to, "channel": opened.channel.as_str(), "subject": message.subject,
                "text": message.text.as_str(), "otp": opened.code.as_str(), "otpId": opened.otp_id,
                "eventId": opened.event.id, "eventType": opened.event.r#type,
                "deliveredAt": rfc3339(delivered.at), "expiresAt": data.expires_at,
            }))
        })
        .take(limit)
        .collect();
    Ok(messages)
}

/// `GET /deliveries/{otpId}`: what became of a code, newest first.
async fn show_deliveries(
    State(face): State<Face>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Path(otp_id): Path<String>,
) -> Result<Response, Problem> {
    face.callers.near(&headers, peer)?;
    let deliveries = face.ledger.deliveries(&otp_id).await.map_err(unavailable)?;
    if deliveries.is_empty() {
        return Err(Problem::NotFound);
    }
    Ok(Json(deliveries).into_response())
}

/// `GET /readyz`: whether events can be taken.
async fn ready(State(face): State<Face>) -> Response {
    let pinged = timeout(Duration::from_secs(1), face.ledger.ping()).await;
    let ledger = matches!(pinged, Ok(Ok(())));
    let up = |up: bool| if up { "up" } else { "down" };
    let stopping = face.stop.is_announced();
    let ready = ledger && face.bus.is_up() && !stopping;
    let mut body = json!({
        "status": if stopping { "stopping" } else if ready { "ready" } else { "unavailable" },
        "dependencies": {
            "ledger": { "kind": face.ledger.kind(), "status": up(ledger) },
            "bus": { "kind": face.bus.kind(), "status": up(face.bus.is_up()) },
        },
    });
    if let Ok(Err(error)) = pinged
        && let Some(NotNow::Away(reason)) = error.downcast_ref()
    {
        body["dependencies"]["ledger"]["reason"] = json!(reason);
    }
    // One that reads none stands by for when another dies.
    if let Some((owned, all)) = face.bus.partitions().filter(|_| face.ledger.is_shared()) {
        body["dependencies"]["bus"]["partitions"] = json!({ "owned": owned, "all": all });
    }
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(body)).into_response()
}

/// `GET /metrics`
async fn metrics(State(face): State<Face>) -> Result<Response, Problem> {
    let text = face.metrics.text().map_err(unavailable)?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}

fn unavailable(error: anyhow::Error) -> Problem {
    // Said once by whoever looks after the ledger.
    if !error.is::<NotNow>() {
        tracing::error!("{error:#}");
    }
    Problem::Unavailable
}
