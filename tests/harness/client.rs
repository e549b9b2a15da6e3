//! An HTTP client that shows what a user would see.

use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};
use ureq::{
    Agent,
    http::{HeaderMap, HeaderName, Method, Request},
};

/// More than any answer may take, so that a hanging service fails the test that noticed it.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Talks to one service and keeps its connections.
#[derive(Debug, Clone)]
pub struct Client {
    agent: Agent,
    base: String,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Client {
    /// Talks to `base`, such as `http://127.0.0.1:3000`.
    pub fn new(base: impl Into<String>) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .timeout_global(Some(TIMEOUT))
            .max_idle_connections_per_host(64)
            .build();
        Self { agent: config.into(), base: base.into() }
    }

    /// Sends a request as it is. An error is a connection that failed.
    pub fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response, ureq::Error> {
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = if body.is_empty() && method != "POST" {
            self.agent.run(request.body(()).unwrap())?
        } else {
            self.agent.run(request.body(body).unwrap())?
        };
        let (head, mut body) = response.into_parts();
        Ok(Response { status: head.status.as_u16(), headers: head.headers, body: body.read_to_vec()? })
    }

    /// Sends a request as it is.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.try_send(method, path, headers, body)
            .unwrap_or_else(|error| panic!("{method} {path} got no answer: {error}"))
    }

    /// `GET`
    pub fn get(&self, path: &str) -> Response {
        self.send("GET", path, &[], b"")
    }

    /// `POST` with a JSON body.
    pub fn post(&self, path: &str, body: &Value) -> Response {
        self.send("POST", path, &[], body.to_string().as_bytes())
    }

    /// `POST` with a JSON body and these fields.
    pub fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Response {
        self.send("POST", path, headers, body.to_string().as_bytes())
    }

    /// `POST /generate-otp`, whatever comes of it.
    pub fn try_generate(&self, number: &str) -> Response {
        self.post("/generate-otp", &json!({ "mobileNumber": number }))
    }

    /// `DELETE /users/{mobileNumber}`
    pub fn erase(&self, number: &str) -> Response {
        self.send("DELETE", &format!("/users/{number}"), &[], b"")
    }

    /// Sends a request over a connection of its own as it is written, where a client would put it right: with
    /// another `Host`, with none, or with a field twice. `head` is the request line and the fields, a line
    /// each; what tells the length is added.
    pub fn raw(&self, head: &str, body: &str) -> Response {
        let address = self.base.strip_prefix("http://").expect("the base is http://host:port");
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let head = head.trim_end().replace('\n', "\r\n");
        let length = body.len();
        write!(stream, "{head}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}").unwrap();
        let mut answer = Vec::new();
        // Whoever refuses a request may close without reading all of it.
        let _ = stream.read_to_end(&mut answer);
        Response::parse(&answer)
    }

    /// `POST /generate-otp`, which has to succeed.
    pub fn generate(&self, number: &str) -> Value {
        self.post("/generate-otp", &json!({ "mobileNumber": number })).expect(201)
    }

    /// `POST /regenerate-otp`
    pub fn regenerate(&self, number: &str) -> Response {
        self.post("/regenerate-otp", &json!({ "mobileNumber": number }))
    }

    /// `POST /resend-otp`
    pub fn resend(&self, number: &str) -> Response {
        self.post("/resend-otp", &json!({ "mobileNumber": number }))
    }

    /// `POST /verify-otp`
    pub fn verify(&self, number: &str, otp: &str) -> Response {
        self.post("/verify-otp", &json!({ "mobileNumber": number, "otp": otp }))
    }
}

/// A limit in a header field, by name, with its parameters.
pub type Quota = (String, BTreeMap<String, i64>);

/// Reads one member. None of our names has a comma, a semicolon or a backslash in it.
fn quota(member: &str) -> Option<Quota> {
    let mut parts = member.split(';');
    let name = parts.next()?.strip_prefix('"')?.strip_suffix('"')?;
    let parameter = |part: &str| {
        let (key, value) = part.trim_start_matches(' ').split_once('=')?;
        let sound = key.starts_with(|first: char| first.is_ascii_lowercase());
        Some((key.to_owned(), value.parse().ok().filter(|_| sound)?))
    };
    Some((name.to_owned(), parts.map(parameter).collect::<Option<_>>()?))
}

impl Response {
    /// An answer that ends with its connection.
    fn parse(answer: &[u8]) -> Self {
        let text = || String::from_utf8_lossy(answer).into_owned();
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
        let (head, body) = answer.split_at(end.unwrap_or_else(|| panic!("no HTTP: {:?}", text())) + 4);
        let head = std::str::from_utf8(head).unwrap().trim_end();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).and_then(|status| status.parse().ok());
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(':').unwrap();
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.trim().parse().unwrap());
        }
        Self {
            status: status.unwrap_or_else(|| panic!("no status: {:?}", text())),
            headers,
            body: body.to_vec(),
        }
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("no JSON: {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// The body of an answer that must have this status.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    /// The problem document that this must be, with this status and code.
    #[track_caller]
    pub fn expect_problem(&self, status: u16, code: &str) -> Value {
        let problem = self.expect(status);
        assert_eq!(self.header("content-type"), "application/problem+json", "{problem}");
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        for member in ["type", "title", "detail"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {problem}");
        }
        problem
    }

    /// A header field; empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// A header field that is a list of strings with whole numbers as parameters (RFC 9651), such as
    /// `"number";q=5;w=600`. Empty if the field is not there.
    #[track_caller]
    pub fn quotas(&self, name: &str) -> Vec<Quota> {
        let lines: Vec<_> = self.headers.get_all(name).iter().map(|line| line.to_str().unwrap()).collect();
        let list = lines.join(",");
        let members = list.split(',').filter(|_| !list.is_empty());
        members
            .map(|member| quota(member.trim_matches([' ', '\t'])).unwrap_or_else(|| panic!("{name}: {list}")))
            .collect()
    }

    /// `Retry-After`, in seconds.
    #[track_caller]
    pub fn retry_after(&self) -> u64 {
        let field = self.header("retry-after");
        field.parse().unwrap_or_else(|_| panic!("Retry-After: {field:?}, with status {}", self.status))
    }

    /// The code of a problem document; empty for anything else.
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}
