//! Which path is answered by what.

use crate::{
    answer::{Answer, Response},
    caller,
    config::{self, Config, Profile},
    error::ApiError,
    health, internal,
    origin::Origin,
    otp_calls::{self, Call},
    users,
};
use spin_sdk::http::{HeaderMap, HeaderValue, Method, Request};

/// A path and what it does. `HEAD` goes wherever `GET` does; the host leaves the body out.
#[derive(Clone, Copy)]
enum Route {
    Generate,
    Resend,
    Regenerate,
    Verify,
    Health,
    Ready,
    OpenApi,
    User,
    Flush,
    Purge,
}

/// What stands in front of the number or address in the path of a user.
const USERS: &str = "/users/";

impl Route {
    fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/generate-otp" => Self::Generate,
            "/resend-otp" => Self::Resend,
            "/regenerate-otp" => Self::Regenerate,
            "/verify-otp" => Self::Verify,
            "/healthz" => Self::Health,
            "/readyz" => Self::Ready,
            "/openapi.json" => Self::OpenApi,
            "/internal/outbox/flush" => Self::Flush,
            "/internal/purge" => Self::Purge,
            _ if path.strip_prefix(USERS).is_some_and(|number| !number.is_empty()) => Self::User,
            _ => return None,
        })
    }

    /// The methods that the path takes, as in the `Allow` field.
    fn allow(self) -> &'static str {
        match self {
            Self::Generate | Self::Resend | Self::Regenerate | Self::Verify | Self::Flush | Self::Purge => {
                "POST"
            }
            Self::User => "DELETE",
            Self::Health | Self::Ready | Self::OpenApi => "GET, HEAD",
        }
    }

    fn takes(self, method: &Method) -> bool {
        self.allow().split(", ").any(|allowed| allowed == method.as_str())
    }
}

/// Answers a request, whatever it is.
pub(crate) async fn answer(request: Request) -> Response {
    let origin = Origin::of(request.headers());
    let site = request.headers().get("origin").cloned();
    let answer = route(request, &origin).await.unwrap_or_else(|error| error.into());
    answer.into_response(
        &origin.request_id,
        config::known().map_or_else(Vec::new, |config| fields(&config, site)),
    )
}

/// What the profile and the page that asks add to every answer.
fn fields(config: &Config, site: Option<HeaderValue>) -> Vec<(&'static str, HeaderValue)> {
    let mut fields = Vec::new();
    if matches!(config.profile, Profile::Production) {
        fields.push((
            "strict-transport-security",
            HeaderValue::from_static("max-age=31536000; includeSubDomains"),
        ));
    }
    if !config.cors_origins.is_empty() {
        fields.push(("vary", HeaderValue::from_static("origin")));
        let allowed = |site: &HeaderValue| site.to_str().is_ok_and(|site| config.cors_origins.allows(site));
        if let Some(site) = site.filter(allowed) {
            fields.push(("access-control-allow-origin", site));
            fields.push((
                "access-control-expose-headers",
                HeaderValue::from_static(
                    "idempotent-replayed, ratelimit, ratelimit-policy, retry-after, x-request-id",
                ),
            ));
        }
    }
    fields
}

/// Whether a browser asks what a page of an allowed origin may send.
fn is_preflight(method: &Method, headers: &HeaderMap, config: &Config) -> bool {
    let site = headers.get("origin").and_then(|site| site.to_str().ok());
    method == Method::OPTIONS
        && headers.contains_key("access-control-request-method")
        && site.is_some_and(|site| config.cors_origins.allows(site))
}

async fn route(request: Request, origin: &Origin) -> Result<Answer, ApiError> {
    let route = Route::of(request.uri().path());
    // Whether the process lives does not depend on where its variables come from.
    if let Some(Route::Health) = route.filter(|route| route.takes(request.method())) {
        return Ok(health::alive());
    }
    let (head, body) = request.into_parts();
    // Who is not served does not hear what is wrong with the request.
    let config = config::of_instance().await;
    let route = route.ok_or(ApiError::NotFound)?;
    if let Ok(config) = &config {
        let authority = head.uri.authority().map(|authority| authority.as_str());
        caller::near(config, &head.method, &head.headers, authority)?;
        if is_preflight(&head.method, &head.headers, config) {
            return Ok(Answer::preflight(route.allow()));
        }
    }
    if !route.takes(&head.method) {
        return Err(ApiError::MethodNotAllowed { allow: route.allow() });
    }
    if let Route::OpenApi = route {
        return Ok(Answer::openapi());
    }
    let config = &config?;
    let headers = &head.headers;
    let call = Call { config, headers, origin, body };
    match route {
        Route::Generate => otp_calls::generate(call).await,
        Route::Resend => otp_calls::resend(call).await,
        Route::Regenerate => otp_calls::regenerate(call).await,
        Route::Verify => otp_calls::verify(call).await,
        Route::User => {
            let user = head.uri.path().strip_prefix(USERS).unwrap_or_default();
            users::erase(config, headers, &percent_decoded(user), origin).await
        }
        Route::Flush => internal::flush(config, headers).await,
        Route::Purge => internal::purge(config, headers).await,
        Route::Ready => health::ready(config).await,
        Route::Health => Ok(health::alive()),
        Route::OpenApi => Ok(Answer::openapi()),
    }
}

/// RFC 3986, section 2.1: `%2B` is a plus. What is no such thing stays as it is, and is no number then.
fn percent_decoded(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = match (first, after) {
            (b'%', [high, low, ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                digit(high).zip(digit(low)).and_then(|(high, low)| u8::try_from(high * 16 + low).ok())
            }
            _ => None,
        };
        decoded.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
