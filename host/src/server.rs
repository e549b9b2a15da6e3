//! HTTP: connections in, requests to the component, answers out.

use crate::{
    application::Application,
    client_stream::{Arriving, ClientStream, RefusedHead},
    framing::{self, Refusal},
    headers,
    masked_path::masked,
    request_body::RequestBody,
    request_id::loggable,
    shutdown::Shutdown,
    telemetry::Span,
    waiting::{Place, Waiting},
};
use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    net::SocketAddr,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use wasmtime_wasi_http::{WasiBody, handler::ProxyHandler};

/// Most bytes that hyper keeps for a connection in each direction: more than the longest head.
const MAX_BUFFER: usize = 32 * 1024;

/// Connections that the system takes in before the host does. Whoever finds no room is not told so: the client's own
/// system tries again after a second.
const BACKLOG: u32 = 1024;

/// How long a connection may be idle.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Most requests at a time inside the component; others wait. The handler itself knows no bound.
const MAX_REQUESTS: usize = 256;

/// Most of them whose bodies are still on their way, because they are longer than is read ahead. All the
/// others can count on the rest.
const MAX_LONG_REQUESTS: usize = 32;

/// Some more that only requests take that ask and change nothing: whether the application lives must not depend on
/// what others wait for.
const MAX_SAFE_REQUESTS: usize = 16;

/// How long a request waits for a place inside the component. What the others there wait for may hang, and the
/// component's own patience comes on top of this.
const QUEUE_TIMEOUT: Duration = Duration::from_millis(250);

/// How long, at the end, the host still waits for new connections, and each connection for its next request: what a
/// client has sent before it could know is on its way.
const LINGER: Duration = Duration::from_millis(100);

/// How long requests in flight may take to end when the host stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// File descriptors that are not for clients' connections: those of databases, caches and outbound calls.
const OTHER_DESCRIPTORS: usize = 256;

/// How often the log says that there are too many connections, however often there are.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// What Spin answers by itself, for probes that know Spin.
const SPIN_HEALTH: &str = "/.well-known/spin/health";

#[derive(Clone)]
struct Server {
    handler: ProxyHandler<Application>,
    requests: Arc<Semaphore>,
    safe_requests: Arc<Semaphore>,
    long_requests: Arc<Semaphore>,
    readiness_path: Arc<str>,
    shutdown: Shutdown,
}

/// A connection is to be closed to make place for another: its request gets no answer.
#[derive(Debug)]
struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("there are too many connections")
    }
}

impl std::error::Error for Closed {}

/// Listens there, or says what is in the way.
pub(crate) async fn bind(address: &str) -> Result<TcpListener> {
    listen(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "{address} is taken; stop what listens there, or choose another with --listen \
             (LISTEN=127.0.0.1:3001 make run)"
        ),
        _ => anyhow::Error::from(error)
            .context(format!("cannot listen on {address}; choose HOST:PORT with --listen")),
    })
}

/// Listens on the first address of that name that can be had.
async fn listen(address: &str) -> std::io::Result<TcpListener> {
    let mut refused = std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is no address");
    for address in tokio::net::lookup_host(address).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // Connections of before, which the system still remembers, are no reason not to start again.
        socket.set_reuseaddr(true)?;
        match socket.bind(address).and_then(|()| socket.listen(BACKLOG)) {
            Ok(listener) => return Ok(listener),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// Serves until the host is to stop, then lets the requests in flight end.
pub(crate) async fn serve(
    listener: TcpListener,
    application: Application,
    max_connections: NonZeroUsize,
    readiness_path: String,
    mut shutdown: Shutdown,
) -> Result<()> {
    let server = Server {
        handler: application.into_handler(),
        requests: Arc::new(Semaphore::new(MAX_REQUESTS)),
        safe_requests: Arc::new(Semaphore::new(MAX_SAFE_REQUESTS)),
        long_requests: Arc::new(Semaphore::new(MAX_LONG_REQUESTS)),
        readiness_path: readiness_path.into(),
        shutdown: shutdown.clone(),
    };
    let max_connections = affordable(max_connections.get(), open_files());
    let connections = Arc::new(Semaphore::new(max_connections));
    let waiting = Arc::<Waiting>::default();
    let mut warned: Option<Instant> = None;
    let mut tasks = JoinSet::new();
    let stop = async {
        shutdown.stopping().await;
        sleep(LINGER).await;
    };
    tokio::pin!(stop);
    let mut stopped = false;
    while !stopped {
        let (stream, client) = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely, which slow clients must not hold either.
                    tracing::warn!("cannot accept a connection: {error}");
                    waiting.close_longest();
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            // Ended tasks are forgotten as they end, not all at the stop.
            Some(_) = tasks.join_next() => continue,
        };
        let mut made_place = false;
        let permit = loop {
            if let Ok(permit) = Arc::clone(&connections).try_acquire_owned() {
                break Some(permit);
            }
            if !made_place {
                made_place = waiting.close_longest();
                if warned.is_none_or(|warned| warned.elapsed() > WARNING_INTERVAL) {
                    warned = Some(Instant::now());
                    tracing::warn!("all {max_connections} connections are taken; the idlest are closed");
                }
            }
            tokio::select! {
                () = &mut stop => {
                    stopped = true;
                    break None;
                }
                permit = Arc::clone(&connections).acquire_owned() => {
                    break Some(permit.context("the semaphore is never closed")?);
                }
                () = waiting.joined(), if !made_place => {}
            }
        };
        let place = Place::new(Arc::clone(&waiting));
        let connection = connection(stream, client, server.clone(), place);
        tasks.spawn(async move {
            connection.await;
            drop(permit);
        });
    }
    // The system has taken in connections, too, that nobody has asked it for yet.
    for (stream, client) in left_behind(listener) {
        tasks.spawn(connection(stream, client, server.clone(), Place::new(Arc::clone(&waiting))));
    }
    drop(server);
    if timeout(STOP_TIMEOUT, async { while tasks.join_next().await.is_some() {} }).await.is_err() {
        tracing::warn!("stopped with requests in flight after {} s", STOP_TIMEOUT.as_secs());
    }
    Ok(())
}

/// Closes the listener, and gives what had come in until then.
fn left_behind(listener: TcpListener) -> Vec<(TcpStream, SocketAddr)> {
    let Ok(listener) = listener.into_std() else { return Vec::new() };
    let accepted = std::iter::from_fn(|| listener.accept().ok());
    let ready = accepted.filter_map(|(stream, client)| {
        stream.set_nonblocking(true).ok()?;
        Some((TcpStream::from_std(stream).ok()?, client))
    });
    ready.collect()
}

/// As many connections as are wanted, or as the system has file descriptors for: without one for its
/// database the component can answer nobody.
fn affordable(wanted: usize, open_files: Option<usize>) -> usize {
    let Some(open_files) = open_files else { return wanted };
    let most = open_files.saturating_sub(OTHER_DESCRIPTORS).max(open_files / 2).max(1);
    if most < wanted {
        tracing::info!(
            "there can be {most} connections: the limit of open files is {open_files} (ulimit -n)"
        );
    }
    wanted.min(most)
}

/// The process's limit of open files, where the system tells.
fn open_files() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

async fn connection(stream: TcpStream, client: SocketAddr, server: Server, place: Place) {
    // Or a client that keeps its connection waits 40 ms for a delayed acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("cannot switch Nagle's algorithm off: {error}");
    }
    let (refused_head, arriving) = (Arc::<RefusedHead>::default(), Arc::<Arriving>::default());
    let stream = ClientStream::new(stream, Arc::clone(&refused_head), Arc::clone(&arriving));
    let place = Arc::new(place);
    let mut shutdown = server.shutdown.clone();
    let exchange = Arc::new(Exchange {
        client,
        server,
        place: Arc::clone(&place),
        refused_head,
        requests: AtomicU64::new(0),
    });
    let service = service_fn(move |request| {
        let exchange = Arc::clone(&exchange);
        async move { exchange.answer(request).await }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_buf_size(MAX_BUFFER)
        .max_headers(framing::MAX_FIELDS)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let may_close = async {
        shutdown.stopping().await;
        sleep(LINGER).await;
        while arriving.is_on_its_way() {
            sleep(LINGER).await;
        }
    };
    let served = tokio::select! {
        // First, so that a request is not begun on a connection that is to be closed.
        biased;
        () = place.closed() => return,
        served = &mut connection => served,
        () = may_close => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!("a connection ended early: {error}");
    }
}

/// What the requests of a connection share.
struct Exchange {
    client: SocketAddr,
    server: Server,
    place: Arc<Place>,
    refused_head: Arc<RefusedHead>,
    /// How many there have been.
    requests: AtomicU64,
}

impl Exchange {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<WasiBody>, Closed> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        if let Some(refusal) = self.refused_head.of(number) {
            tracing::info!(status = refusal.status.as_u16(), reason = refusal.reason, "request refused");
            return Ok(refused(refusal));
        }
        let start = Instant::now();
        let method = request.method().clone();
        let path = masked(request.uri().path());
        let mut span = Span::of_request(&request);
        let mut response = match self.component(request, &span).await? {
            Ok(response) => response,
            Err(refusal) => refused(refusal),
        };
        if self.server.shutdown.has_begun() {
            // Who keeps connections shall have its next one elsewhere.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        // The client has an answer to read now, and then the next request to send.
        self.place.wait_anew();
        span.answered(response.status(), 500);
        let id = response.headers().get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or("-");
        let id = loggable(id);
        let (status, ms) = (response.status().as_u16(), start.elapsed().as_micros() as f64 / 1e3);
        let trace_id = span.trace_id();
        // What the relay asks for now and then is no request of anybody's.
        if path.starts_with(INTERNAL) && response.status().is_success() {
            tracing::debug!(%method, path, status, ms, id, trace_id, "request");
        } else {
            tracing::info!(%method, path, status, ms, id, trace_id, "request");
        }
        Ok(response)
    }

    async fn component(
        &self,
        mut request: Request<Incoming>,
        span: &Span,
    ) -> Result<Result<Response<WasiBody>, Refusal>, Closed> {
        let uri = match headers::absolute_uri(request.uri(), request.headers()) {
            Ok(uri) => uri,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if uri.path() == SPIN_HEALTH {
            return Ok(Ok(text(StatusCode::OK, "OK")));
        }
        let safe = matches!(*request.method(), Method::GET | Method::HEAD);
        if safe && uri.path() == &*self.server.readiness_path && self.server.shutdown.has_begun() {
            let detail = "This host is shutting down. Send requests to another one, or again in a moment.";
            return Ok(Ok(unavailable(detail)));
        }
        headers::append_spin_headers(request.headers_mut(), &uri, self.client);
        *request.uri_mut() = uri;
        // The client has sent a head, and may take as long again for its body.
        self.place.wait_anew();
        let (head, body) = request.into_parts();
        let server = &self.server;
        let (body, long) = match RequestBody::read(body).await {
            Ok(RequestBody::Whole(body)) if self.place.leave() => (body, None),
            Ok(RequestBody::Whole(_)) => return Err(Closed),
            // Its place is kept: it still waits for its client.
            Ok(RequestBody::Partly(body)) => match slot(&server.long_requests).await {
                Some(long) => (body, Some(long)),
                None => return Ok(Ok(unavailable(BUSY))),
            },
            Err(refusal) => return Ok(Err(refusal)),
        };
        let Some(slot) = server.slot(safe).await else { return Ok(Ok(unavailable(BUSY))) };
        let (handler, context) = (server.handler.clone(), span.context());
        // A task of its own: a client that leaves takes its connection along, and not what it has set going. That
        // keeps its slot until it is done.
        let handling = tokio::spawn(async move {
            let response = handler.handle(context, Request::from_parts(head, body)).await;
            drop((slot, long));
            response
        });
        let response = handling.await.map_err(wasmtime::Error::from).flatten();
        Ok(Ok(match response {
            Ok(response) => response,
            Err(error) => {
                tracing::error!("the component gave no answer: {error:#}");
                let detail = "The component gave no answer. The host's log says why.";
                problem(StatusCode::INTERNAL_SERVER_ERROR, "no_answer", detail)
            }
        }))
    }
}

/// A place among those that may be in the component, unless it takes too long to get one.
async fn slot(slots: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    timeout(QUEUE_TIMEOUT, Arc::clone(slots).acquire_owned()).await.ok()?.ok()
}

impl Server {
    /// A place in the component; those who change nothing have some to themselves.
    async fn slot(&self, safe: bool) -> Option<OwnedSemaphorePermit> {
        if let Ok(slot) = Arc::clone(&self.requests).try_acquire_owned() {
            return Some(slot);
        }
        slot(if safe { &self.safe_requests } else { &self.requests }).await
    }
}

/// What a refused request gets, and nothing after it: how the client would go on is anybody's guess.
fn refused(Refusal { status, reason }: Refusal) -> Response<WasiBody> {
    let code = match status {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "head_too_large",
        StatusCode::REQUEST_TIMEOUT => "incomplete",
        _ => "bad_request",
    };
    let mut response = problem(status, code, reason);
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// An answer of the host's own.
fn text(status: StatusCode, body: &'static str) -> Response<WasiBody> {
    answer(status, "text/plain; charset=utf-8", Bytes::from_static(body.as_bytes()))
}

fn answer(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<WasiBody> {
    let length = body.len();
    let body = Full::new(body).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CONTENT_LENGTH, length.into());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Where paths begin that are not for clients.
const INTERNAL: &str = "/internal/";

const BUSY: &str =
    "All places are taken by requests that wait for something. Send this one again in a moment.";

/// A problem document (RFC 9457), as clients of the application may expect it. No detail of the host's needs escaping.
fn problem(status: StatusCode, code: &'static str, detail: &'static str) -> Response<WasiBody> {
    let (number, title) = (status.as_u16(), status.canonical_reason().unwrap_or_default());
    let problem = format!(
        r#"{{"type":"about:blank","title":"{title}","status":{number},"detail":"{detail}","code":"{code}"}}"#
    );
    answer(status, "application/problem+json", problem.into())
}

/// A request that can be sent again.
fn unavailable(detail: &'static str) -> Response<WasiBody> {
    let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_file_descriptors_for_others() {
        assert_eq!(affordable(1024, None), 1024);
        assert_eq!(affordable(1024, Some(20_000)), 1024);
        assert_eq!(affordable(1024, Some(1024)), 768);
        assert_eq!(affordable(1024, Some(100)), 50);
        assert_eq!(affordable(10, Some(100)), 10);
    }

    #[tokio::test]
    async fn a_taken_port_is_named_with_the_way_out() {
        let taken = bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let error = bind(&address).await.unwrap_err().to_string();
        assert!(error.contains(&address) && error.contains("--listen"), "{error}");
    }

    #[tokio::test]
    async fn a_burst_of_connections_is_taken_in_at_once() {
        let listener = bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let soon = Duration::from_millis(900);
        let connect = |_| std::net::TcpStream::connect_timeout(&address, soon).unwrap();
        // More than the 128 of a listener that asks for nothing.
        let connections: Vec<_> = (0..200).map(connect).collect();
        assert_eq!(connections.len(), 200);
    }
}
