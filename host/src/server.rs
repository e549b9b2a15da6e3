//! HTTP: connections in, requests to the component, answers out.

use crate::{
    application::Application,
    client_stream::{ClientStream, RefusedHead},
    framing::{self, Refusal},
    headers,
    request_body::RequestBody,
    waiting::{Place, Waiting},
};
use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
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
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};
use wasmtime_wasi_http::{WasiBody, handler::ProxyHandler};

/// Most bytes that hyper keeps for a connection in each direction: more than the longest head.
const MAX_BUFFER: usize = 32 * 1024;

/// How long a connection may be idle.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Most requests at a time inside the component; others wait. The handler itself knows no bound.
const MAX_REQUESTS: usize = 256;

/// Most of them whose bodies are still on their way, because they are longer than is read ahead. All the
/// others can count on the rest.
const MAX_LONG_REQUESTS: usize = 32;

/// How long requests in flight may take to end when the host stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// File descriptors that are not for clients' connections: those of databases, caches and outbound calls.
const OTHER_DESCRIPTORS: usize = 256;

/// How often the log says that there are too many connections, however often there are.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// Most characters of a path that are logged.
const MAX_LOGGED_PATH: usize = 256;

/// What Spin answers by itself, for probes that know Spin.
const SPIN_HEALTH: &str = "/.well-known/spin/health";

#[derive(Clone)]
struct Server {
    handler: ProxyHandler<Application>,
    requests: Arc<Semaphore>,
    long_requests: Arc<Semaphore>,
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
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "{address} is taken; stop what listens there, or choose another with --listen \
             (LISTEN=127.0.0.1:3001 make run)"
        ),
        _ => anyhow::Error::from(error)
            .context(format!("cannot listen on {address}; choose HOST:PORT with --listen")),
    })
}

/// Serves until `stop` completes, then lets the requests in flight end.
pub(crate) async fn serve(
    listener: TcpListener,
    application: Application,
    max_connections: NonZeroUsize,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let server = Server {
        handler: application.into_handler(),
        requests: Arc::new(Semaphore::new(MAX_REQUESTS)),
        long_requests: Arc::new(Semaphore::new(MAX_LONG_REQUESTS)),
    };
    let max_connections = affordable(max_connections.get(), open_files());
    let connections = Arc::new(Semaphore::new(max_connections));
    let waiting = Arc::<Waiting>::default();
    let mut warned: Option<Instant> = None;
    let (drain, draining) = watch::channel(());
    let mut tasks = JoinSet::new();
    tokio::pin!(stop);
    'serving: loop {
        let (stream, client) = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely, which slow clients must not hold either.
                    tracing::warn!("cannot accept a connection: {error}");
                    waiting.close_longest();
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            // Ended tasks are forgotten as they end, not all at the stop.
            Some(_) = tasks.join_next() => continue,
        };
        let mut made_place = false;
        let permit = loop {
            if let Ok(permit) = Arc::clone(&connections).try_acquire_owned() {
                break permit;
            }
            if !made_place {
                made_place = waiting.close_longest();
                if warned.is_none_or(|warned| warned.elapsed() > WARNING_INTERVAL) {
                    warned = Some(Instant::now());
                    tracing::warn!("all {max_connections} connections are taken; the idlest are closed");
                }
            }
            tokio::select! {
                () = &mut stop => break 'serving,
                permit = Arc::clone(&connections).acquire_owned() => {
                    break permit.context("the semaphore is never closed")?;
                }
                () = waiting.joined(), if !made_place => {}
            }
        };
        let place = Place::new(Arc::clone(&waiting));
        let connection = connection(stream, client, server.clone(), place, draining.clone());
        tasks.spawn(async move {
            connection.await;
            drop(permit);
        });
    }
    drop(listener);
    drop(server);
    drop(draining);
    let _ = drain.send(());
    if tokio::time::timeout(DRAIN_TIMEOUT, async { while tasks.join_next().await.is_some() {} })
        .await
        .is_err()
    {
        tracing::warn!("stopped with requests in flight after {} s", DRAIN_TIMEOUT.as_secs());
    }
    Ok(())
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

async fn connection(
    stream: TcpStream,
    client: SocketAddr,
    server: Server,
    place: Place,
    mut draining: watch::Receiver<()>,
) {
    // Or a client that keeps its connection waits 40 ms for a delayed acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("cannot switch Nagle's algorithm off: {error}");
    }
    let refused_head = Arc::<RefusedHead>::default();
    let stream = ClientStream::new(stream, Arc::clone(&refused_head));
    let place = Arc::new(place);
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
    let served = tokio::select! {
        // First, so that a request is not begun on a connection that is to be closed.
        biased;
        () = place.closed() => return,
        served = &mut connection => served,
        _ = draining.changed() => {
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
        let path = for_log(request.uri().path());
        let response = match self.component(request).await? {
            Ok(response) => response,
            Err(refusal) => refused(refusal),
        };
        // The client has an answer to read now, and then the next request to send.
        self.place.wait_anew();
        let id = response.headers().get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or("-");
        tracing::info!(
            %method, path, status = response.status().as_u16(), ms = start.elapsed().as_micros() as f64 / 1e3, id,
            "request"
        );
        Ok(response)
    }

    async fn component(
        &self,
        mut request: Request<Incoming>,
    ) -> Result<Result<Response<WasiBody>, Refusal>, Closed> {
        let uri = match headers::absolute_uri(request.uri(), request.headers()) {
            Ok(uri) => uri,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if uri.path() == SPIN_HEALTH {
            return Ok(Ok(text(StatusCode::OK, "OK")));
        }
        headers::append_spin_headers(request.headers_mut(), &uri, self.client);
        *request.uri_mut() = uri;
        // The client has sent a head, and may take as long again for its body.
        self.place.wait_anew();
        let (head, body) = request.into_parts();
        let server = &self.server;
        let (body, _long) = match RequestBody::read(body).await {
            Ok(RequestBody::Whole(body)) if self.place.leave() => (body, None),
            Ok(RequestBody::Whole(_)) => return Err(Closed),
            // Its place is kept: it still waits for its client.
            Ok(RequestBody::Partly(body)) => (body, server.long_requests.acquire().await.ok()),
            Err(refusal) => return Ok(Err(refusal)),
        };
        let Ok(_permit) = server.requests.acquire().await else {
            return Ok(Ok(text(StatusCode::SERVICE_UNAVAILABLE, "the host is stopping")));
        };
        Ok(Ok(match server.handler.handle((), Request::from_parts(head, body)).await {
            Ok(response) => response,
            Err(error) => {
                tracing::error!("the component gave no answer: {error:#}");
                let reason = "the component gave no answer; the host's log says why";
                text(StatusCode::INTERNAL_SERVER_ERROR, reason)
            }
        }))
    }
}

/// What a refused request gets, and nothing after it: how the client would go on is anybody's guess.
fn refused(Refusal { status, reason }: Refusal) -> Response<WasiBody> {
    let mut response = text(status, reason);
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// An answer of the host's own.
fn text(status: StatusCode, body: &'static str) -> Response<WasiBody> {
    let length = body.len();
    let body = Full::new(Bytes::from_static(body.as_bytes())).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CONTENT_LENGTH, length.into());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A path for the log: not longer than a log can bear, and without digits, plain or percent-encoded, for
/// they may be a phone number or a code.
fn for_log(path: &str) -> String {
    // Characters that still belong to a %XX.
    let mut encoded = 0;
    let masked = path.chars().take(MAX_LOGGED_PATH).map(|c| {
        let masked = c.is_ascii_digit() || encoded > 0;
        encoded = if c == '%' { 2 } else { encoded - i32::from(encoded > 0) };
        if masked { '*' } else { c }
    });
    masked.chain((path.len() > MAX_LOGGED_PATH).then_some('…')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_shows_no_number_of_a_path() {
        assert_eq!(for_log("/users/+14155550123"), "/users/+***********");
        assert_eq!(for_log("/users/+1-415-555-0123"), "/users/+*-***-***-****");
        assert_eq!(for_log("/users/%2B%31%34x/generate-otp"), "/users/%**%**%**x/generate-otp");
    }

    #[test]
    fn a_path_fills_no_log() {
        assert_eq!(for_log(&"/x".repeat(128)), "/x".repeat(128));
        assert_eq!(for_log(&"/x".repeat(8000)), "/x".repeat(128) + "…");
    }

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
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let error = bind(&address).await.unwrap_err().to_string();
        assert!(error.contains(&address) && error.contains("--listen"), "{error}");
    }
}
