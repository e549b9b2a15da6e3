//! HTTP: connections in, requests to the component, answers out.

use crate::{
    application::Application,
    headers::{self, BadRequest},
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
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};
use wasmtime_wasi_http::{WasiBody, handler::ProxyHandler};

/// Most bytes of a request's head.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Most header fields of a request.
const MAX_FIELDS: usize = 64;

/// How long a head may take to arrive, which is also how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Most connections at a time; others wait to be accepted.
const MAX_CONNECTIONS: usize = 1_024;

/// Most requests at a time inside the component; others wait. The handler itself knows no bound.
const MAX_REQUESTS: usize = 256;

/// How long requests in flight may take to end when the host stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

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
    let service = service_fn(move |request| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(answer(request, client, &server).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_FIELDS)
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

async fn answer(request: Request<Incoming>, client: SocketAddr, server: &Server) -> Response<WasiBody> {
    let start = Instant::now();
    let method = request.method().clone();
    let path = without_digits(request.uri().path());
    let response = if request.uri().path() == SPIN_HEALTH {
        text(StatusCode::OK, "OK")
    } else {
        component(request, client, server).await
    };
    let id = response.headers().get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or("-");
    tracing::info!(
        %method, path, status = response.status().as_u16(), ms = start.elapsed().as_micros() as f64 / 1e3, id,
        "request"
    );
    response
}

async fn component(
    mut request: Request<Incoming>,
    client: SocketAddr,
    server: &Server,
) -> Response<WasiBody> {
    match headers::absolute_uri(request.uri(), request.headers()) {
        Ok(uri) => {
            headers::append_spin_headers(request.headers_mut(), &uri, client);
            *request.uri_mut() = uri;
        }
        Err(BadRequest(reason)) => return text(StatusCode::BAD_REQUEST, reason),
    }
    let Ok(_permit) = server.requests.acquire().await else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "the host is stopping");
    };
    let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
    match server.handler.handle((), request).await {
        Ok(response) => response,
        Err(error) => {
            tracing::error!("the component gave no answer: {error:#}");
            text(StatusCode::INTERNAL_SERVER_ERROR, "the component gave no answer; the host's log says why")
        }
    }
}

/// An answer of the host's own.
fn text(status: StatusCode, body: &'static str) -> Response<WasiBody> {
    let body = Full::new(Bytes::from_static(body.as_bytes())).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// A path for the log: without digits, plain or percent-encoded, for they may be a phone number or a code.
fn without_digits(path: &str) -> String {
    // Characters that still belong to a %XX.
    let mut encoded = 0;
    path.chars()
        .map(|c| {
            let masked = c.is_ascii_digit() || encoded > 0;
            encoded = if c == '%' { 2 } else { encoded - i32::from(encoded > 0) };
            if masked { '*' } else { c }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_shows_no_number_of_a_path() {
        assert_eq!(without_digits("/users/+14155550123"), "/users/+***********");
        assert_eq!(without_digits("/users/+1-415-555-0123"), "/users/+*-***-***-****");
        assert_eq!(without_digits("/users/%2B%31%34x/generate-otp"), "/users/%**%**%**x/generate-otp");
    }

    #[tokio::test]
    async fn a_taken_port_is_named_with_the_way_out() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let error = bind(&address).await.unwrap_err().to_string();
        assert!(error.contains(&address) && error.contains("--listen"), "{error}");
    }
}
