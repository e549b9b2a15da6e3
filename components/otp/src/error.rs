//! Every way in which a request is refused, and the one place that knows statuses and codes.

use crate::{
    answer::Answer,
    config::{Misconfiguration, Unusable},
    dependencies::Dependencies,
    log,
};
use otp_core::{
    InvalidChannel, InvalidCode, InvalidEmail, InvalidMobileNumber, NotServed, Quota, Refusal,
    ports::Unavailable,
};
use otp_request::{Denied, InvalidBody, InvalidIdempotencyKey, Stranger};
use serde::Serialize;
use spin_sdk::http::{HeaderValue, StatusCode};

/// Why a request was refused.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// 400: not JSON, not an object, or a field that is missing, not known, or of the wrong type.
    InvalidBody(InvalidBody),
    /// 400: the body broke off, or took too long.
    IncompleteBody,
    /// 400: a field that the call needs with the others that were sent.
    MissingField(&'static str),
    /// 400: the request names neither a mobile number nor an e-mail address.
    NoRecipient,
    /// 400: no Idempotency-Key can be read from the field.
    InvalidIdempotencyKey(InvalidIdempotencyKey),
    /// 401: for the relay only, and this is not its token.
    NotTheRelay,
    /// 401 or 403: no API key, not one that is known, or not one for this.
    Denied(Denied),
    /// 403: the development profile does not serve this caller.
    Stranger(Stranger),
    /// 404: no such path.
    NotFound,
    /// 405: the path takes other methods.
    MethodNotAllowed { allow: &'static str },
    /// 413: a body that no call needs.
    PayloadTooLarge,
    /// 422: not a number that can receive a code.
    InvalidMobileNumber(InvalidMobileNumber),
    /// 422: no mail address.
    InvalidEmail(InvalidEmail),
    /// 422: no channel.
    InvalidChannel(InvalidChannel),
    /// 422: a text message to a mail address.
    SmsToAddress,
    /// 422: not of the form of a code; it did not count as a guess.
    InvalidOtp(InvalidCode),
    /// 422: no codes are sent to this country, range or kind of number.
    NotServed(NotServed),
    /// 404, 410, 422, 429 or 503: what the domain said, and the limits that there are.
    Refused(Refusal, Option<HeaderValue>),
    /// 503: a dependency that every call needs is away.
    NotReady(Unavailable, Dependencies),
    /// 503: nothing is served until the operator has mended it.
    Misconfigured(Vec<Misconfiguration>),
}

/// A problem document (RFC 9457) with the fields that go with it.
struct Problem {
    status: StatusCode,
    /// Stable, for programs.
    code: &'static str,
    title: &'static str,
    /// What to do next. Never repeats a secret.
    detail: String,
    attempts_remaining: Option<i64>,
    dependencies: Option<Dependencies>,
    /// The limit that is used up.
    quota: Option<Quota>,
    fields: Vec<(&'static str, HeaderValue)>,
}

/// The body of a problem document.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProblemBody<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts_remaining: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dependencies: Option<&'a Dependencies>,
}

/// Seconds after which a client may try again when a dependency was away.
const RETRY_AFTER: &str = "1";

impl Problem {
    fn new(status: StatusCode, code: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            title,
            detail: detail.into(),
            attempts_remaining: None,
            dependencies: None,
            quota: None,
            fields: Vec::new(),
        }
    }

    fn with(mut self, field: &'static str, value: &'static str) -> Self {
        self.fields.push((field, HeaderValue::from_static(value)));
        self
    }

    /// What waiting will mend, and for how long.
    fn after(mut self, seconds: i64) -> Self {
        self.fields.push(("retry-after", HeaderValue::from(seconds)));
        self
    }

    fn body(&self) -> ProblemBody<'_> {
        ProblemBody {
            r#type: format!("urn:spin-otp:{}", self.code),
            title: self.title,
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code,
            attempts_remaining: self.attempts_remaining,
            dependencies: self.dependencies.as_ref(),
        }
    }
}

impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Self {
        const BAD: StatusCode = StatusCode::BAD_REQUEST;
        const UNFIT: StatusCode = StatusCode::UNPROCESSABLE_ENTITY;
        match error {
            ApiError::InvalidBody(InvalidBody::Missing(field)) => ApiError::MissingField(field).into(),
            ApiError::InvalidBody(reason @ (InvalidBody::Misspelt(_) | InvalidBody::Unknown(_))) => {
                Self::new(BAD, "unknown_field", "A field is not known", reason.to_string())
            }
            ApiError::InvalidBody(reason) => {
                Self::new(BAD, "invalid_json", "The body is not usable", reason.to_string())
            }
            ApiError::IncompleteBody => Self::new(
                BAD,
                "invalid_json",
                "The body is not usable",
                "The body did not arrive whole. Send it again.",
            ),
            ApiError::MissingField(field) => Self::new(
                BAD,
                "missing_field",
                "A field is missing",
                format!("{field} is required. Send it as a JSON string."),
            ),
            ApiError::NoRecipient => Self::new(
                BAD,
                "missing_field",
                "A field is missing",
                "mobileNumber or email is required. Send it as a JSON string.",
            ),
            ApiError::InvalidIdempotencyKey(reason) => {
                Self::new(BAD, "invalid_idempotency_key", "Not an Idempotency-Key", reason.to_string())
            }
            ApiError::NotTheRelay => Self::new(
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "Not authorised",
                "Send the field Authorization: Bearer, with the token that is set as relay_token.",
            )
            .with("www-authenticate", "Bearer"),
            ApiError::Denied(denied) => denied.into(),
            ApiError::Stranger(Stranger::Remote) => Self::new(
                StatusCode::FORBIDDEN,
                "forbidden",
                "Not from elsewhere",
                "The development profile answers this machine only, called localhost or 127.0.0.1. Set the \
                 variable profile to production, or allow_remote_development to true where nobody else can \
                 reach it.",
            ),
            ApiError::Stranger(Stranger::CrossSite) => Self::new(
                StatusCode::FORBIDDEN,
                "forbidden",
                "Not from another site",
                "The development profile answers no page of another site. Set the variable cors_origins to the \
                 page's origin to let it in.",
            ),
            ApiError::NotFound => Self::new(
                StatusCode::NOT_FOUND,
                "not_found",
                "No such path",
                "The calls are /generate-otp, /resend-otp, /regenerate-otp and /verify-otp; \
                 /openapi.json describes them.",
            ),
            ApiError::MethodNotAllowed { allow } => Self::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "Wrong method",
                format!("This path takes {allow}."),
            )
            .with("allow", allow),
            ApiError::PayloadTooLarge => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "payload_too_large",
                "The body is too large",
                "A body has at most 4096 bytes.",
            ),
            ApiError::InvalidMobileNumber(reason) => {
                Self::new(UNFIT, "invalid_mobile_number", "Not a mobile number", format!("{reason}."))
            }
            ApiError::InvalidEmail(reason) => {
                Self::new(UNFIT, "invalid_email", "Not a mail address", format!("{reason}."))
            }
            ApiError::InvalidChannel(reason) => {
                Self::new(UNFIT, "invalid_channel", "Not a channel", format!("{reason}."))
            }
            ApiError::SmsToAddress => Self::new(
                UNFIT,
                "invalid_channel",
                "Not a channel",
                "A code for an email goes by the channel email. Send mobileNumber for a text message.",
            ),
            ApiError::InvalidOtp(reason) => Self::new(
                UNFIT,
                "invalid_otp",
                "Not of the form of a code",
                format!("{reason}. This did not count as an attempt."),
            ),
            ApiError::NotServed(reason @ NotServed::Kind(_)) => {
                Self::new(UNFIT, "invalid_mobile_number", "Not a mobile number", format!("{reason}."))
            }
            ApiError::NotServed(reason) => {
                Self::new(UNFIT, "country_not_allowed", "Not served", format!("{reason}."))
            }
            ApiError::Refused(refusal, _) => refusal.into(),
            ApiError::NotReady(unavailable, dependencies) => {
                Self { dependencies: Some(dependencies), ..Refusal::from(unavailable).into() }
            }
            ApiError::Misconfigured(faults) => {
                let faults: Vec<_> = faults.iter().map(Misconfiguration::to_string).collect();
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "misconfigured",
                    "The service is misconfigured",
                    format!("{}. Set it right and start the service again.", faults.join("; ")),
                )
            }
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        const RENEW: &str = "Call /regenerate-otp for a new one.";
        let gone = |code, title: &'static str, fact: &str| {
            Self::new(StatusCode::GONE, code, title, format!("{fact} {RENEW}"))
        };
        match refusal {
            Refusal::NotFound => Self::new(
                StatusCode::NOT_FOUND,
                "otp_not_found",
                "No such code",
                "There is no such code. Call /generate-otp to make one.",
            ),
            Refusal::Expired => gone("otp_expired", "The code has expired", "This code's life is over."),
            Refusal::Used => gone("otp_used", "The code was used", "A code is good once."),
            Refusal::Locked => gone("otp_locked", "The code is locked", "Too many wrong codes were tried."),
            Refusal::AttemptsExceeded => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "attempts_exceeded",
                "Too many wrong codes",
                format!("This code takes no more attempts, and waiting does not help. {RENEW}"),
            ),
            Refusal::Mismatch { attempts_remaining } => {
                let detail = if attempts_remaining == 0 {
                    format!("This is not the code, and it takes no more attempts. {RENEW}")
                } else {
                    "This is not the code. Check the digits and try again.".to_owned()
                };
                let mut problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "otp_mismatch", "Not the code", detail);
                problem.attempts_remaining = Some(attempts_remaining);
                problem
            }
            Refusal::NotTheCode => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "otp_mismatch",
                "Not the code",
                "This is not a code that can be used. Check the digits, or have a new one sent with \
                 /generate-otp.",
            ),
            Refusal::RateLimited(quota) => {
                let whose = match quota.name {
                    "number" => "This number has been sent as many codes as it may be for now.",
                    "client" => "This address has made as many requests as it may for now.",
                    "key" => "This API key has made as many requests as it may for now.",
                    _ => "The service has sent as many codes as it may for now.",
                };
                let limited = Self::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "rate_limited",
                    "Too many requests",
                    format!("{whose} Try again in {} s.", quota.seconds),
                );
                Self { quota: Some(quota), ..limited.after(quota.seconds) }
            }
            Refusal::RecipientLocked { retry_after } => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "number_locked",
                "The number is locked",
                format!("Too many wrong codes were tried for this number. Try again in {retry_after} s."),
            )
            .after(retry_after),
            Refusal::Suspended { retry_after } => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "destination_suspended",
                "Nothing is sent there for now",
                format!(
                    "Many codes were sent to the range of this number and hardly any was verified. Try again in \
                     {retry_after} s."
                ),
            )
            .after(retry_after),
            Refusal::KeyReused => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                "The Idempotency-Key was used for another request",
                "A key is good for one request and its retries. Send another one.",
            ),
            Refusal::Unavailable(Unavailable(reason)) => {
                // The reason is for the operator; a client can only wait.
                log::line(format_args!("unavailable: {reason}"));
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "unavailable",
                    "The service is unavailable",
                    "What the service depends on did not answer in time. The request may still have \
                     taken effect; try again in a moment.",
                )
                .with("retry-after", RETRY_AFTER)
            }
        }
    }
}

impl From<ApiError> for Answer {
    fn from(error: ApiError) -> Self {
        let policy = match &error {
            ApiError::Refused(_, policy) => policy.clone(),
            _ => None,
        };
        let mut problem = Problem::from(error);
        let fields = std::mem::take(&mut problem.fields);
        let answer = Self::problem(problem.status, &problem.body(), fields);
        match &problem.quota {
            Some(quota) => answer.with_limits(policy.as_ref(), quota),
            None => answer,
        }
    }
}

impl From<Denied> for Problem {
    /// RFC 6750, section 3.1
    fn from(denied: Denied) -> Self {
        let unauthorized =
            |detail: &str| Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "Not authorised", detail);
        match denied {
            Denied::NoKey => {
                unauthorized("Send your API key in the field Authorization: Bearer.").with("www-authenticate", "Bearer")
            }
            Denied::UnknownKey => unauthorized(
                "This API key is not known. Send one that is, in one field Authorization: Bearer.",
            )
            .with("www-authenticate", "Bearer error=\"invalid_token\""),
            Denied::Scope => Self::new(
                StatusCode::FORBIDDEN,
                "forbidden",
                "Not with this API key",
                "This API key may not do that. Use one that has the scope: send for codes, verify for checks, \
                 admin for users.",
            )
            .with("www-authenticate", "Bearer error=\"insufficient_scope\""),
        }
    }
}

impl From<Unusable> for ApiError {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Misconfigured(faults) => Self::Misconfigured(faults),
            Unusable::Unread(variable) => {
                Self::from(Refusal::from(Unavailable(format!("variables: {variable} could not be read"))))
            }
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal, None)
    }
}

macro_rules! from_invalid {
    ($($variant:ident($invalid:ty)),*) => {$(
        impl From<$invalid> for ApiError {
            fn from(invalid: $invalid) -> Self {
                Self::$variant(invalid)
            }
        }
    )*};
}

from_invalid!(
    InvalidMobileNumber(InvalidMobileNumber),
    InvalidEmail(InvalidEmail),
    InvalidChannel(InvalidChannel),
    InvalidOtp(InvalidCode),
    InvalidBody(InvalidBody),
    InvalidIdempotencyKey(InvalidIdempotencyKey),
    NotServed(NotServed),
    Denied(Denied),
    Stranger(Stranger)
);
