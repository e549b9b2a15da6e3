//! What is sent back.

use bytes::Bytes;
use otp_core::{IssuedCode, MobileNumber, Verified};
use serde::Serialize;
use spin_sdk::http::{FullBody, HeaderValue, StatusCode};

/// A response on its way to Spin.
pub(crate) type Response = spin_sdk::http::Response<FullBody<Bytes>>;

/// A status, a JSON body, and the few fields that differ between answers.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
    /// Fields beside those that every answer has.
    fields: Vec<(&'static str, HeaderValue)>,
}

/// The answer to a call that gives out a code.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CodeBody<'a> {
    mobile_number: &'a str,
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
struct VerifiedBody<'a> {
    mobile_number: &'a str,
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

    /// A code, with or without its digits.
    pub(crate) fn code(status: StatusCode, number: &MobileNumber, issued: &IssuedCode, reveal: bool) -> Self {
        Self::json(
            status,
            &CodeBody {
                mobile_number: number.as_str(),
                otp: reveal.then(|| issued.code.expose()),
                otp_id: issued.otp_id.as_str(),
                channel: issued.channel.as_str(),
                created_at: issued.created_at.to_string(),
                expires_at: issued.expires_at.to_string(),
                expires_in_seconds: issued.expires_in_seconds,
            },
        )
    }

    /// A code that was right.
    pub(crate) fn verified(number: &MobileNumber, verified: &Verified) -> Self {
        Self::json(
            StatusCode::OK,
            &VerifiedBody {
                mobile_number: number.as_str(),
                otp_id: verified.otp_id.as_str(),
                verified: true,
                verified_at: verified.verified_at.to_string(),
                channel: verified.channel.as_str(),
            },
        )
    }

    /// The description of this interface.
    pub(crate) fn openapi() -> Self {
        Self {
            status: StatusCode::OK,
            content_type: "application/json",
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
        Self { status, content_type, body, fields: Vec::new() }
    }

    /// Content-length stands on every answer: without it Spin sends head and body apart, and a client
    /// that keeps its connection waits 40 ms for a delayed acknowledgement.
    pub(crate) fn into_response(self, request_id: &str) -> Response {
        let length = self.body.len();
        let mut response = Response::new(FullBody::new(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert("content-type", HeaderValue::from_static(self.content_type));
        headers.insert("content-length", HeaderValue::from(length));
        headers.insert("cache-control", HeaderValue::from_static("no-store"));
        if let Ok(id) = HeaderValue::from_str(request_id) {
            headers.insert("x-request-id", id);
        }
        for (name, value) in self.fields {
            headers.insert(name, value);
        }
        response
    }
}
