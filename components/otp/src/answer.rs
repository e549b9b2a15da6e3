//! What is sent back.

use crate::config::Config;
use bytes::Bytes;
use otp_core::{IssuedCode, Quota, Recipient, Verified};
use serde::Serialize;
use spin_sdk::http::{FullBody, HeaderValue, StatusCode};

/// A response on its way to Spin.
pub(crate) type Response = spin_sdk::http::Response<FullBody<Bytes>>;

/// A status, a JSON body, and the few fields that differ between answers.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    status: StatusCode,
    /// `None` where there is no body.
    content_type: Option<&'static str>,
    body: Bytes,
    /// Fields beside those that every answer has.
    fields: Vec<(&'static str, HeaderValue)>,
}

/// Whom an answer is about, as the request has named them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Named<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    mobile_number: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
}

impl<'a> From<&'a Recipient> for Named<'a> {
    fn from(recipient: &'a Recipient) -> Self {
        Self {
            mobile_number: recipient.number().map(|number| number.as_str()),
            email: recipient.address().map(|address| address.as_str()),
        }
    }
}

/// The answer to a call that gives out a code.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CodeBody<'a> {
    #[serde(flatten)]
    named: Named<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    otp: Option<&'a str>,
    otp_id: &'a str,
    channel: &'static str,
    created_at: String,
    expires_at: String,
    expires_in_seconds: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AcceptedBody<'a> {
    #[serde(flatten)]
    named: Named<'a>,
    accepted: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VerifiedBody<'a> {
    #[serde(flatten)]
    named: Named<'a>,
    otp_id: &'a str,
    verified: bool,
    verified_at: String,
    channel: &'static str,
}

impl Answer {
    /// A JSON body.
    pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Self {
        Self::new(status, "application/json", body)
    }

    /// A code, with or without its digits, and what is left of the limits.
    pub(crate) fn code(
        status: StatusCode,
        recipient: &Recipient,
        issued: &IssuedCode,
        config: &Config,
    ) -> Self {
        let code = issued.code.as_ref().filter(|_| config.reveal_otp);
        let answer = Self::json(
            status,
            &CodeBody {
                named: recipient.into(),
                otp: code.map(|code| code.expose()),
                otp_id: issued.otp_id.as_str(),
                channel: issued.channel.as_str(),
                created_at: issued.created_at.to_string(),
                expires_at: issued.expires_at.to_string(),
                expires_in_seconds: issued.expires_in_seconds,
            },
        );
        let answer = if issued.replayed { answer.with("idempotent-replayed", "true") } else { answer };
        match &issued.quota {
            Some(quota) => answer.with_limits(config.rate_limit_policy.as_ref(), quota),
            None => answer,
        }
    }

    /// What everybody hears who asks for a code, where nobody shall be able to tell whether one was sent.
    pub(crate) fn accepted(recipient: &Recipient) -> Self {
        Self::json(StatusCode::ACCEPTED, &AcceptedBody { named: recipient.into(), accepted: true })
    }

    /// It was done, and there is nothing to say.
    pub(crate) fn nothing() -> Self {
        Self { status: StatusCode::NO_CONTENT, content_type: None, body: Bytes::new(), fields: Vec::new() }
    }

    /// A browser's question what a page of an allowed origin may send (Fetch Standard, CORS-preflight).
    pub(crate) fn preflight(allow: &'static str) -> Self {
        Self::nothing()
            .with("access-control-allow-methods", allow)
            .with(
                "access-control-allow-headers",
                "authorization, content-type, idempotency-key, traceparent, x-request-id",
            )
            .with("access-control-max-age", "600")
    }

    /// With a field more.
    pub(crate) fn with(mut self, field: &'static str, value: &'static str) -> Self {
        self.fields.push((field, HeaderValue::from_static(value)));
        self
    }

    /// With the fields that tell of limits (draft-ietf-httpapi-ratelimit-headers-11): all that there are, and
    /// how far this one is used up.
    pub(crate) fn with_limits(mut self, policy: Option<&HeaderValue>, quota: &Quota) -> Self {
        self.fields.extend(policy.map(|policy| ("ratelimit-policy", policy.clone())));
        let state = format!("\"{}\";r={};t={}", quota.name, quota.remaining, quota.seconds);
        self.fields.extend(HeaderValue::from_str(&state).ok().map(|state| ("ratelimit", state)));
        self
    }

    /// A code that was right.
    pub(crate) fn verified(recipient: &Recipient, verified: &Verified) -> Self {
        let answer = Self::json(
            StatusCode::OK,
            &VerifiedBody {
                named: recipient.into(),
                otp_id: verified.otp_id.as_str(),
                verified: true,
                verified_at: verified.verified_at.to_string(),
                channel: verified.channel.as_str(),
            },
        );
        if verified.replayed { answer.with("idempotent-replayed", "true") } else { answer }
    }

    /// The description of this interface.
    pub(crate) fn openapi() -> Self {
        Self {
            status: StatusCode::OK,
            content_type: Some("application/json"),
            body: Bytes::from_static(include_bytes!("../openapi.json")),
            fields: Vec::new(),
        }
    }

    /// A problem document (RFC 9457) with the fields that go with it.
    pub(crate) fn problem(
        status: StatusCode,
        body: &impl Serialize,
        fields: Vec<(&'static str, HeaderValue)>,
    ) -> Self {
        Self { fields, ..Self::new(status, "application/problem+json", body) }
    }

    fn new(status: StatusCode, content_type: &'static str, body: &impl Serialize) -> Self {
        // Plain structs of strings and numbers always serialise; an empty body rather than a panic.
        let body = serde_json::to_vec(body).unwrap_or_default().into();
        Self { status, content_type: Some(content_type), body, fields: Vec::new() }
    }

    /// Content-length stands on every answer: without it Spin sends head and body apart, and a client
    /// that keeps its connection waits 40 ms for a delayed acknowledgement.
    ///
    /// So do the fields that keep a browser from taking an answer for something else (OWASP REST Security
    /// Cheat Sheet, security headers). `more` are those that depend on the caller and on the profile.
    pub(crate) fn into_response(self, request_id: &str, more: Vec<(&'static str, HeaderValue)>) -> Response {
        let length = self.body.len();
        let mut response = Response::new(FullBody::new(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Some(content_type) = self.content_type {
            headers.insert("content-type", HeaderValue::from_static(content_type));
        }
        // An answer without content has no length, either (RFC 9110, section 8.6).
        if self.status != StatusCode::NO_CONTENT {
            headers.insert("content-length", HeaderValue::from(length));
        }
        headers.insert("cache-control", HeaderValue::from_static("no-store"));
        headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        headers.insert(
            "content-security-policy",
            HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
        );
        if let Ok(id) = HeaderValue::from_str(request_id) {
            headers.insert("x-request-id", id);
        }
        for (name, value) in self.fields.into_iter().chain(more) {
            headers.insert(name, value);
        }
        response
    }
}
