//! HTTP: connections in, requests to the component, answers out.

use crate::{
    application::Application,
    client_stream::{ClientStream, RefusedHead},
    framing::{self, Refusal},
    headers,
};
use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    net::SocketAddr,
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

/// How long requests in flight may take to end when the host stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Most connections at a time; others wait to be accepted.
const MAX_CONNECTIONS: usize = 1_024;

/// Most characters of a path that are logged.
const MAX_LOGGED_PATH: usize = 256;

/// What Spin answers by itself, for probes that know Spin.
const SPIN_HEALTH: &str = "/.well-known/spin/health";

#[derive(Clone)]
struct Server {
    handler: ProxyHandler<Application>,
    requests: Arc<Semaphore>,
}

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
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let server =
        Server { handler: application.into_handler(), requests: Arc::new(Semaphore::new(MAX_REQUESTS)) };
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (drain, draining) = watch::channel(());
    let mut tasks = JoinSet::new();
    tokio::pin!(stop);
    loop {
        let permit = tokio::select! {
            () = &mut stop => break,
            permit = Arc::clone(&connections).acquire_owned() => permit.context("the semaphore is never closed")?,
        };
        let (stream, client) = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: others will be closed in a moment.
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            // Ended tasks are forgotten as they end, not all at the stop.
            Some(_) = tasks.join_next() => continue,
        };
        let connection = connection(stream, client, server.clone(), draining.clone());
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

async fn connection(
    stream: TcpStream,
    client: SocketAddr,
    server: Server,
    mut draining: watch::Receiver<()>,
) {
    // Or a client that keeps its connection waits 40 ms for a delayed acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("cannot switch Nagle's algorithm off: {error}");
    }
    let refused_head = Arc::<RefusedHead>::default();
    let stream = ClientStream::new(stream, Arc::clone(&refused_head));
    let exchange = Arc::new(Exchange { client, server, refused_head, requests: AtomicU64::new(0) });
    let service = service_fn(move |request| {
        let exchange = Arc::clone(&exchange);
        async move { Ok::<_, Infallible>(exchange.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_buf_size(MAX_BUFFER)
        .max_headers(framing::MAX_FIELDS)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let served = tokio::select! {
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
    refused_head: Arc<RefusedHead>,
    /// How many there have been.
    requests: AtomicU64,
}

impl Exchange {
    async fn answer(&self, request: Request<Incoming>) -> Response<WasiBody> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        if let Some(refusal) = self.refused_head.of(number) {
            tracing::info!(status = refusal.status.as_u16(), reason = refusal.reason, "request refused");
            return refused(refusal);
        }
        let start = Instant::now();
        let method = request.method().clone();
        let path = for_log(request.uri().path());
        let response = self.component(request).await.unwrap_or_else(refused);
        let id = response.headers().get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or("-");
        tracing::info!(
            %method, path, status = response.status().as_u16(), ms = start.elapsed().as_micros() as f64 / 1e3, id,
            "request"
        );
        response
    }

    async fn component(&self, mut request: Request<Incoming>) -> Result<Response<WasiBody>, Refusal> {
        let uri = headers::absolute_uri(request.uri(), request.headers())?;
        if uri.path() == SPIN_HEALTH {
            return Ok(text(StatusCode::OK, "OK"));
        }
        headers::append_spin_headers(request.headers_mut(), &uri, self.client);
        *request.uri_mut() = uri;
        let Ok(_permit) = self.server.requests.acquire().await else {
            return Ok(text(StatusCode::SERVICE_UNAVAILABLE, "the host is stopping"));
        };
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        Ok(match self.server.handler.handle((), request).await {
            Ok(response) => response,
            Err(error) => {
                tracing::error!("the component gave no answer: {error:#}");
                let reason = "the component gave no answer; the host's log says why";
                text(StatusCode::INTERNAL_SERVER_ERROR, reason)
            }
        })
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

    #[tokio::test]
    async fn a_taken_port_is_named_with_the_way_out() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let error = bind(&address).await.unwrap_err().to_string();
        assert!(error.contains(&address) && error.contains("--listen"), "{error}");
    }
}
