//! What goes over the wire: requests in the many ways in which they may be written, and such as no service
//! may take.

use otp_oracle::{Delivery, Request};
use serde_json::{Value, json};
use std::fmt;

/// The secret of the API key that may do everything, where there are keys.
pub(crate) const KEY: &str = "key-of-the-model-suite";

/// The secret of the one that may only verify.
pub(crate) const VERIFIER: &str = "verifier-of-the-model-suite";

/// A request as it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

/// A way of writing it, of several that mean the same.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style(pub(crate) u8);

/// A request that is refused whatever the service knows, or answered whatever it knows.
#[derive(Debug, Clone)]
pub(crate) struct Stateless {
    pub(crate) name: String,
    pub(crate) wire: Wire,
    pub(crate) status: u16,
    /// Empty for an answer that is no problem.
    pub(crate) code: &'static str,
    /// A field that has to be there, with its value.
    pub(crate) field: Option<(&'static str, &'static str)>,
}

const CALLS: [&str; 4] = ["/generate-otp", "/resend-otp", "/regenerate-otp", "/verify-otp"];

impl Wire {
    fn new(method: &'static str, path: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self { method, path: path.into(), headers: Vec::new(), body: body.into() }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// `request` for a number, with keys that begin so.
    pub(crate) fn of(request: &Request, number: &str, keys: &str, style: Style) -> Self {
        let mut body = json!({ "mobileNumber": style.number(number) });
        let (method, path) = match request {
            Request::Generate { delivery, .. } => {
                style.delivery(&mut body, *delivery);
                ("POST", CALLS[0].to_owned())
            }
            Request::Resend { .. } => ("POST", CALLS[1].to_owned()),
            Request::Regenerate { .. } => ("POST", CALLS[2].to_owned()),
            Request::Verify { otp, id, .. } => {
                body["otp"] = json!(style.code(otp));
                if id.is_some() || style.0.is_multiple_of(2) {
                    body["otpId"] = json!(id.as_ref().map(|id| style.id(id)));
                }
                ("POST", CALLS[3].to_owned())
            }
            Request::Erase { .. } => {
                let wire = Self::new("DELETE", format!("/users/{}", style.in_path(number)), "");
                return wire;
            }
        };
        let body = if style.0 % 3 == 2 { format!(" {body:#}\n") } else { body.to_string() };
        let wire = Self::new(method, path, body);
        match request {
            Request::Generate { key: Some(key), .. } | Request::Regenerate { key: Some(key), .. } => {
                let key = format!("{keys}{key}");
                wire.with(
                    "idempotency-key",
                    if style.0.is_multiple_of(2) { key } else { format!("\"{key}\"") },
                )
            }
            _ => wire,
        }
    }
}

impl Style {
    fn number(self, number: &str) -> String {
        let (country, area, line) = (&number[1..2], &number[2..5], &number[5..]);
        match self.0 % 11 {
            1 => format!("+{country} {area} {line}"),
            2 => format!("+{country}-{area}-{}-{}", &line[..3], &line[3..]),
            3 => format!("+{country} ({area}) {}.{}", &line[..3], &line[3..]),
            4 => format!(" +{country}[{area}]{line} "),
            5 => format!("+ {country}{area}{line}"),
            6 => format!("tel:+{country}-{area}-{line}"),
            7 => format!("\u{202a}+{country}\u{a0}({area})\u{a0}{line}\u{202c}\n"),
            8 => format!("(+{country}) {area}/{line}."),
            9 => in_arabic(number),
            _ => number.to_owned(),
        }
    }

    fn code(self, otp: &str) -> String {
        let (first, last) = otp.split_at(otp.len() / 2);
        match self.0 % 6 {
            1 => format!("{first} {last}"),
            2 => format!("{first}-{last}\n"),
            3 => format!("\u{200e}{first}\u{2011}{last}\u{200b}"),
            4 => in_arabic(otp),
            _ => otp.to_owned(),
        }
    }

    fn in_path(self, number: &str) -> String {
        match self.0 % 4 {
            0 => number.to_owned(),
            1 => number.replace('+', "%2b"),
            2 => number.replace('+', "%2B"),
            _ => format!("%2B{}%20{}-{}", &number[1..2], &number[2..5], &number[5..]),
        }
    }

    fn id(self, id: &str) -> String {
        if self.0 % 3 == 1 { id.to_uppercase() } else { id.to_owned() }
    }

    fn delivery(self, body: &mut Value, delivery: Delivery) {
        let odd = !self.0.is_multiple_of(2);
        let address = |index: u8| {
            if odd { format!(" ada{index}@Example.COM ") } else { format!("ada{index}@example.com") }
        };
        match delivery {
            Delivery::Sms if odd => body["channel"] = Value::Null,
            Delivery::Sms => {}
            Delivery::SmsWith(index) => {
                body["email"] = json!(address(index));
                body["channel"] = json!("sms");
            }
            Delivery::Mail(index) => {
                body["email"] = json!(address(index));
                body["channel"] = json!("email");
            }
        }
    }
}

impl Stateless {
    fn new(name: impl Into<String>, status: u16, code: &'static str, wire: Wire) -> Self {
        Self { name: name.into(), wire, status, code, field: None }
    }

    /// All that can be wrong with a request for this number and code, in one way or another.
    pub(crate) fn invalid(number: &str, otp: &str, with_keys: bool) -> Vec<Self> {
        let body_with = |mut body: Value, extra: &[(&str, Value)]| {
            for (name, value) in extra {
                body[*name] = value.clone();
            }
            body.to_string()
        };
        // What each call has at the least.
        let base = |path: &str| match path {
            "/verify-otp" => json!({ "mobileNumber": number, "otp": otp }),
            _ => json!({ "mobileNumber": number }),
        };
        let post = |path: &str, body: String| Wire::new("POST", path, body);
        let mut all = Vec::new();
        let mut add = |name: &str, status, code, wire| all.push(Self::new(name, status, code, wire));
        for path in CALLS {
            let body = |extra: &[(&str, Value)]| body_with(base(path), extra);
            for text in
                ["", " ", "{", "null", "7", "[]", "{\"mobileNumber\":}", "{\"mobileNumber\":\"\\ud800\"}"]
            {
                add("no JSON object", 400, "invalid_json", post(path, text.to_owned()));
            }
            add("JSON and more", 400, "invalid_json", post(path, body(&[]) + "x"));
            add(
                "a name twice",
                400,
                "invalid_json",
                post(path, body(&[]).replacen('{', "{\"mobileNumber\":\"1\",", 1)),
            );
            add(
                "no UTF-8",
                400,
                "invalid_json",
                Wire::new("POST", path, b"{\"mobileNumber\":\"\xff\"}".as_slice()),
            );
            for value in [json!(14155550123_i64), json!(true), json!([number]), json!({})] {
                add("no string", 400, "invalid_json", post(path, body(&[("mobileNumber", value)])));
            }
            add("no number", 400, "missing_field", post(path, body(&[("mobileNumber", Value::Null)])));
            add("an empty object", 400, "missing_field", post(path, "{}".to_owned()));
            for bad in wrong_numbers(number) {
                let wire = post(path, body(&[("mobileNumber", json!(bad))]));
                add(&format!("the number {bad:?}"), 422, "invalid_mobile_number", wire);
            }
            for name in ["ttl", "locle", "mobile_number", number, "padding"] {
                add("an unknown field", 400, "unknown_field", post(path, body(&[(name, json!(otp))])));
            }
            let padding = "x".repeat(4_097);
            add("4 KiB and more", 413, "payload_too_large", post(path, body(&[("padding", json!(padding))])));
            add("much more", 413, "payload_too_large", Wire::new("POST", path, vec![b' '; 100_000]));
            for method in ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"] {
                add(method, 405, "method_not_allowed", Wire::new(method, path, ""));
            }
            for (name, value) in [
                ("host", "otp.example"),
                ("x-forwarded-for", "192.0.2.1"),
                ("forwarded", "for=192.0.2.1"),
                ("origin", "https://shop.example"),
                ("sec-fetch-site", "cross-site"),
            ] {
                add(name, 403, "forbidden", post(path, body(&[])).with(name, value));
            }
            if with_keys {
                add("no API key", 401, "unauthorized", post(path, body(&[])).with("authorization", ""));
                let unknown = post(path, body(&[])).with("authorization", "Bearer unknown");
                add("an unknown API key", 401, "unauthorized", unknown);
                if path != CALLS[3] {
                    let verifier = post(path, body(&[])).with("authorization", format!("Bearer {VERIFIER}"));
                    add("an API key of another scope", 403, "forbidden", verifier);
                }
            }
        }
        for path in CALLS {
            let body = |extra: &[(&str, Value)]| body_with(base(path), extra);
            for key in ["", "\"", "\"a", "\"a\" b", "a b", "\"a\", \"b\"", "a;b", "\"\"", &"k".repeat(256)] {
                let wire = post(path, body(&[])).with("idempotency-key", key);
                add("a malformed Idempotency-Key", 400, "invalid_idempotency_key", wire);
            }
        }
        let body = |extra: &[(&str, Value)]| body_with(base(CALLS[0]), extra);
        for address in ["", "ada", "ada@", "ada@localhost", "a b@example.com", "Ada <ada@example.com>"] {
            for channel in ["sms", "email"] {
                let wire = post(CALLS[0], body(&[("email", json!(address)), ("channel", json!(channel))]));
                add("a wrong address", 422, "invalid_email", wire);
            }
        }
        for channel in ["", "SMS", "voice", " sms"] {
            add(
                "a wrong channel",
                422,
                "invalid_channel",
                post(CALLS[0], body(&[("channel", json!(channel))])),
            );
        }
        add("mail to nowhere", 400, "missing_field", post(CALLS[0], body(&[("channel", json!("email"))])));
        for field in ["email", "channel"] {
            add("no string", 400, "invalid_json", post(CALLS[0], body(&[(field, json!(1))])));
        }
        let body = |extra: &[(&str, Value)]| body_with(base(CALLS[3]), extra);
        for wrong in wrong_forms(otp) {
            let wire = post(CALLS[3], body(&[("otp", json!(wrong))]));
            add(&format!("the code {wrong:?}"), 422, "invalid_otp", wire);
        }
        add("a code that is a number", 400, "invalid_json", post(CALLS[3], body(&[("otp", json!(7))])));
        add("no code", 400, "missing_field", post(CALLS[3], body(&[("otp", Value::Null)])));
        add("an id that is a number", 400, "invalid_json", post(CALLS[3], body(&[("otpId", json!(7))])));
        for path in
            ["/", "/nowhere", "/generate-otp/", "/Verify-otp", "/users/", "/users", "/internal/purge/x"]
        {
            for method in ["GET", "POST", "DELETE"] {
                add("an unknown path", 404, "not_found", Wire::new(method, path, ""));
            }
        }
        for path in ["/users/x", "/users/%2B1", "/users/12125550100", "/users/%", "/users/+442079460018"] {
            add("no number in the path", 422, "invalid_mobile_number", Wire::new("DELETE", path, ""));
        }
        for method in ["GET", "POST", "PUT"] {
            add(method, 405, "method_not_allowed", Wire::new(method, format!("/users/{number}"), ""));
        }
        add("POST", 405, "method_not_allowed", post("/healthz", "{}".to_owned()));
        for bad in &mut all {
            bad.field = match (bad.status, &*bad.wire.path) {
                (405, "/healthz") => Some(("allow", "GET, HEAD")),
                (405, path) if path.starts_with("/users/") => Some(("allow", "DELETE")),
                (405, _) => Some(("allow", "POST")),
                _ => None,
            };
        }
        all
    }

    /// What only reads.
    pub(crate) fn reading() -> Vec<Self> {
        let mut all = Vec::new();
        for path in ["/healthz", "/readyz", "/openapi.json"] {
            for method in ["GET", "HEAD"] {
                all.push(Self::new(method, 200, "", Wire::new(method, path, "")));
            }
        }
        all
    }
}

/// The same with the digits of another script.
fn in_arabic(text: &str) -> String {
    let digit = |c: char| c.to_digit(10).and_then(|value| char::from_u32(0x660 + value)).unwrap_or(c);
    text.chars().map(digit).collect()
}

/// Spellings of a number that no service may read as it.
fn wrong_numbers(number: &str) -> Vec<String> {
    let digits = &number[1..];
    let line = &number[5..];
    [
        String::new(),
        " ".to_owned(),
        "+".to_owned(),
        digits.to_owned(),
        number[..number.len() - 1].to_owned(),
        format!("{number}0"),
        format!("00{digits}"),
        format!("{number} ext 5"),
        format!("{number}#"),
        format!("{number}, {number}"),
        number.replace('2', "\u{b2}"),
        format!("+1+212{line}"),
        format!("{number};ext=5"),
        format!("{number}\0"),
        number.replace('1', "l"),
        format!("+999{line}"),
        "+442079460018".to_owned(),
        "+18005550123".to_owned(),
        "+19005550123".to_owned(),
        format!("{number}{}", " ".repeat(250)),
    ]
    .into()
}

/// What is not of a code's form.
fn wrong_forms(otp: &str) -> Vec<String> {
    [
        String::new(),
        otp[1..].to_owned(),
        format!("{otp}0"),
        format!("-{}", &otp[1..]),
        format!("+{otp}"),
        format!("{}.{}", &otp[..1], &otp[1..]),
        format!("{}\u{b2}", &otp[1..]),
        format!("{}a", &otp[1..]),
    ]
    .into()
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)?;
        for (name, value) in self.headers.iter().filter(|(name, _)| *name != "x-request-id") {
            write!(f, " {name}: {value:.80}")?;
        }
        let body = String::from_utf8_lossy(&self.body);
        let shown: String = body.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(160).collect();
        write!(f, " {shown}")
    }
}
