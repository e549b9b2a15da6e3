//! What a provider of text messages looks like to those who send through it.

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    serve::ListenerExt,
};
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
};

/// An HTTP server on a free port that keeps each request and answers as it was told. It ends when dropped.
#[derive(Debug)]
pub struct SmsProvider {
    address: String,
    book: Book,
    /// Runs the server for as long as it is there.
    _runtime: Runtime,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Sent {
    pub method: String,
    /// Path and query.
    pub path: String,
    /// With their names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub at: Instant,
}

impl Sent {
    /// A header field; of several with this name, the first.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("no JSON: {:?}", String::from_utf8_lossy(&self.body)))
    }
}

/// What came, and what is to be answered. Shared with the server's threads.
#[derive(Debug, Clone, Default)]
struct Book(Arc<Mutex<Pages>>);

#[derive(Debug, Default)]
struct Pages {
    body: Option<Value>,
    sent: Vec<Sent>,
    next: VecDeque<StatusCode>,
    always: StatusCode,
    delay: Duration,
    redirect: Option<String>,
}

impl Book {
    fn open(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().expect("nobody panics while holding it")
    }
}

impl SmsProvider {
    /// Answers 200 to all, until told otherwise.
    pub fn start() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let book = Book::default();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        // Small answers to a client that waits for them: Nagle's algorithm would hold them back.
        let listener = listener.tap_io(|connection| connection.set_nodelay(true).unwrap());
        let application = Router::new().fallback(receive).with_state(book.clone());
        runtime.spawn(async { axum::serve(listener, application).await });
        Self { address, book, _runtime: runtime }
    }

    /// `http://host:port`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request so far.
    pub fn sent(&self) -> Vec<Sent> {
        self.book.open().sent.clone()
    }

    /// Gives this status to the next `n` requests that have not been promised another.
    pub fn answer_next(&self, n: usize, status: u16) {
        self.book.open().next.extend(std::iter::repeat_n(code(status), n));
    }

    /// Gives this status to each request from now on.
    pub fn answer_all(&self, status: u16) {
        let mut pages = self.book.open();
        pages.next.clear();
        pages.redirect = None;
        pages.always = code(status);
    }

    /// Says that in each answer from now on.
    pub fn answer_with(&self, body: Value) {
        self.book.open().body = Some(body);
    }

    /// Sends each request on to there with a 307, until told to [`answer_all`](Self::answer_all).
    pub fn redirect_to(&self, url: &str) {
        self.answer_all(307);
        self.book.open().redirect = Some(url.to_owned());
    }

    /// Takes its time with each answer from now on.
    pub fn delay(&self, delay: Duration) {
        self.book.open().delay = delay;
    }
}

fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap()
}

async fn receive(
    State(book): State<Book>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let headers = headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    let sent = Sent {
        method: method.to_string(),
        path: uri.to_string(),
        headers: headers.collect(),
        body: body.into(),
        at: Instant::now(),
    };
    let (status, delay, redirect, body) = {
        let mut pages = book.open();
        pages.sent.push(sent);
        let status = pages.next.pop_front().unwrap_or(pages.always);
        (status, pages.delay, pages.redirect.clone(), pages.body.clone().unwrap_or_else(|| json!({})))
    };
    tokio::time::sleep(delay).await;
    let mut response = (status, Json(body)).into_response();
    if let Some(url) = redirect {
        response.headers_mut().insert(header::LOCATION, url.try_into().unwrap());
    }
    response
}
