//! An HTTP client that shows what a user would see.

use serde_json::{Value, json};
use std::time::Duration;
use ureq::{
    Agent,
    http::{HeaderMap, Method, Request},
};

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
        // More than any answer may take, so that a hanging service fails the test that noticed it.
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .timeout_global(Some(Duration::from_secs(10)))
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

impl Response {
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

    /// The code of a problem document; empty for anything else.
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}
