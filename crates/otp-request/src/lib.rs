//! What a request brings that nobody vouches for, read safely. No I/O, no clock, no Spin.
//!
//! Everything here comes from whoever sends the request, so every reader takes bytes of any kind, never
//! panics, and says what is wrong without repeating what was sent.
//!
//! * [`Fields`]: the strings of a JSON body.
//! * [`request_id`] and [`traceparent`]: what ties a request to the caller's own records.
//! * [`IdempotencyKey`]: what makes a retry the same request.
//! * [`ApiKeys`]: who may do what.
//! * [`ClientAddress`]: where a request comes from, behind [`TrustedProxies`].
//! * [`near`]: whether it comes from this machine, and not from somebody else's page in a browser.
//!
//! ```
//! use http::HeaderMap;
//! use otp_request::{ClientAddress, Fields, IdempotencyKey, TrustedProxies};
//!
//! let body = Fields::parse(br#"{"mobileNumber":"+14155550123","channel":null}"#)?;
//! assert_eq!(body.required("mobileNumber")?, "+14155550123");
//! assert_eq!(body.optional("channel")?, None);
//! assert_eq!(body.required("otp").unwrap_err().to_string(), "otp is required. Send it as a JSON string.");
//!
//! let mut headers = HeaderMap::new();
//! headers.insert("idempotency-key", r#""8e03978e""#.parse()?);
//! assert_eq!(IdempotencyKey::of(&headers)?.unwrap().as_str(), "8e03978e");
//!
//! // The proxy at 10.0.0.1 has added the last address; the first is what the client itself said.
//! headers.insert("spin-client-addr", "10.0.0.1:50000".parse()?);
//! headers.insert("x-forwarded-for", "192.0.2.99, 203.0.113.7".parse()?);
//! let proxies: TrustedProxies = "10.0.0.0/24".parse()?;
//! assert_eq!(ClientAddress::of(&headers, &proxies).unwrap().to_string(), "203.0.113.7");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod api_keys;
mod authority;
mod client_address;
mod field_line;
mod fields;
mod idempotency_key;
mod site;
mod trace;

pub use api_keys::{ApiKeys, Denied, InvalidApiKeys, Scope};
pub use client_address::{ClientAddress, InvalidTrustedProxies, TrustedProxies, peer};
pub use fields::{Fields, InvalidBody};
pub use idempotency_key::{IdempotencyKey, InvalidIdempotencyKey};
pub use site::{InvalidOrigins, Origins, Stranger, follows_a_link, is_loopback_host, near};
pub use trace::{request_id, traceparent};
