//! An answer as it was heard, and what holds for every answer.

use crate::model::{Span, same, within};
use serde_json::Value;
use std::{fmt, ops::RangeInclusive};

/// An answer, and the span from its request's sending to its coming.
#[derive(Debug, Clone)]
pub struct Heard {
    pub status: u16,
    /// Of a problem document; else empty.
    pub code: String,
    /// Null where there is no body.
    pub json: Value,
    /// The code that it brought, if it is the answer to a call that gives one out.
    pub told: Option<Told>,
    pub during: Span,
    headers: Vec<(String, String)>,
}

/// A code as an answer tells it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Told {
    pub otp: Option<String>,
    pub id: String,
    pub channel: String,
    pub created_at: String,
    pub expires_at: String,
}

/// Whose request an answer belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub method: &'a str,
    /// In E.164; empty where the request is about no number.
    pub number: &'a str,
    /// What was sent as x-request-id.
    pub request_id: &'a str,
}

impl Heard {
    /// What was heard without a wire: a status, some header fields, and the body.
    pub fn of(
        status: u16,
        headers: Vec<(String, String)>,
        json: Value,
        during: Span,
    ) -> Result<Self, String> {
        let mut heard = Self { status, code: String::new(), json, told: None, during, headers };
        if status >= 400 {
            heard.code = heard.text_at("code")?.to_owned();
        } else {
            heard.told = heard.code_told()?;
        }
        Ok(heard)
    }

    /// Reads an answer, which has to be whole and to have what every answer has.
    pub fn read(
        status: u16,
        headers: Vec<(String, String)>,
        body: &[u8],
        during: Span,
        asked: Asked<'_>,
    ) -> Result<Self, String> {
        let mut heard = Self { status, code: String::new(), json: Value::Null, told: None, during, headers };
        heard.understand(body, asked).map_err(|wrong| {
            format!("{wrong}\n    in {} {:?} {}", heard.status, heard.headers, String::from_utf8_lossy(body))
        })?;
        Ok(heard)
    }

    fn understand(&mut self, body: &[u8], asked: Asked<'_>) -> Result<(), String> {
        if self.status == 500 {
            return Err("status is 500".to_owned());
        }
        for (name, value) in [
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
            ("x-request-id", asked.request_id),
        ] {
            same(name, &self.field(name), &value)?;
        }
        if self.status == 204 {
            same("content-length", &self.field("content-length"), &"")?;
            return same("the body", &body, &&b""[..]);
        }
        if asked.method == "HEAD" {
            return same("the body", &body, &&b""[..]);
        }
        same("content-length", &self.field("content-length"), &&*body.len().to_string())?;
        self.json = serde_json::from_slice(body).map_err(|error| format!("no JSON: {error}"))?;
        if self.status >= 400 {
            same("content-type", &self.field("content-type"), &"application/problem+json")?;
            same("the problem's status", &self.json["status"].as_u64(), &Some(u64::from(self.status)))?;
            self.code = self.text_at("code")?.to_owned();
            same("type", &self.text_at("type")?, &&*format!("urn:spin-otp:{}", self.code))?;
            for member in ["title", "detail"] {
                self.text_at(member)?;
            }
            return Ok(());
        }
        same("content-type", &self.field("content-type"), &"application/json")?;
        if asked.number.is_empty() {
            return Ok(());
        }
        same("mobileNumber", &self.text_at("mobileNumber")?, &asked.number)?;
        self.told = self.code_told()?;
        Ok(())
    }

    fn code_told(&self) -> Result<Option<Told>, String> {
        if !self.json["createdAt"].is_string() {
            return Ok(None);
        }
        Ok(Some(Told {
            otp: self.json["otp"].as_str().map(str::to_owned),
            id: self.text_at("otpId")?.to_owned(),
            channel: self.text_at("channel")?.to_owned(),
            created_at: self.text_at("createdAt")?.to_owned(),
            expires_at: self.text_at("expiresAt")?.to_owned(),
        }))
    }

    /// A header field; empty if it is not there.
    pub fn field(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    pub fn text_at(&self, member: &str) -> Result<&str, String> {
        let text = self.json[member].as_str().filter(|text| !text.is_empty());
        text.ok_or_else(|| format!("{member} is {}", self.json[member]))
    }

    pub fn number_at(&self, member: &str) -> Result<i64, String> {
        self.json[member].as_i64().ok_or_else(|| format!("{member} is {}", self.json[member]))
    }

    pub fn retry_after(&self) -> Result<i64, String> {
        self.field("retry-after")
            .parse()
            .map_err(|_| format!("retry-after is {:?}", self.field("retry-after")))
    }

    /// The fields that tell of the number's limit.
    pub fn quota(&self, remaining: usize, seconds: &RangeInclusive<i64>) -> Result<(), String> {
        let field = self.field("ratelimit");
        let (left, wait) = field
            .strip_prefix("\"number\";r=")
            .and_then(|rest| rest.split_once(";t="))
            .ok_or_else(|| format!("ratelimit is {field:?}"))?;
        same("ratelimit's r", &left, &&*remaining.to_string())?;
        let wait: i64 = wait.parse().map_err(|_| format!("ratelimit is {field:?}"))?;
        within("ratelimit's t", wait, seconds)?;
        if !self.field("retry-after").is_empty() {
            same("ratelimit's t, beside retry-after,", &wait, &self.retry_after()?)?;
        }
        Ok(())
    }

    /// In a word or two, for counting.
    pub fn outcome(&self) -> String {
        if !self.code.is_empty() {
            return format!("{} {}", self.status, self.code);
        }
        match (&self.told, self.field("idempotent-replayed")) {
            (Some(Told { otp: None, .. }), "true") => format!("{} replayed without its code", self.status),
            (Some(_), "true") => format!("{} replayed", self.status),
            _ => self.status.to_string(),
        }
    }
}

/// RFC 3339 in whole seconds, since the Unix epoch.
pub fn seconds_of(text: &str) -> Result<i64, String> {
    let moment = chrono::DateTime::parse_from_rfc3339(text).map_err(|_| format!("{text:?} is no moment"))?;
    if text.len() == 20 { Ok(moment.timestamp()) } else { Err(format!("{text:?} is not in whole seconds")) }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { otp, id, channel, .. } = self;
        write!(f, "{} ({id}) by {channel}", otp.as_deref().unwrap_or("no code"))
    }
}

impl fmt::Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.outcome())?;
        if let Some(told) = &self.told {
            write!(f, " {told}")?;
        }
        if let Some(left) = self.json["attemptsRemaining"].as_i64() {
            write!(f, ", {left} attempts left")?;
        }
        for name in ["ratelimit", "retry-after"] {
            if !self.field(name).is_empty() {
                write!(f, ", {name}: {}", self.field(name))?;
            }
        }
        Ok(())
    }
}
