//! Which path is answered by what.

use crate::{
    answer::{Answer, Response},
    environment,
    error::ApiError,
    health, otp_calls,
};
use spin_sdk::http::{HeaderMap, Method, Request};

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
}

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
            _ => return None,
        })
    }

    /// The methods that the path takes, as in the `Allow` field.
    fn allow(self) -> &'static str {
        match self {
            Self::Generate | Self::Resend | Self::Regenerate | Self::Verify => "POST",
            Self::Health | Self::Ready | Self::OpenApi => "GET, HEAD",
        }
    }

    fn takes(self, method: &Method) -> bool {
        self.allow().split(", ").any(|allowed| allowed == method.as_str())
    }
}

/// Answers a request, whatever it is.
pub(crate) async fn answer(request: Request) -> Response {
    let request_id = request_id(request.headers());
    let answer = route(request).await.unwrap_or_else(|error| error.into());
    answer.into_response(&request_id)
}

async fn route(request: Request) -> Result<Answer, ApiError> {
    let route = Route::of(request.uri().path()).ok_or(ApiError::NotFound)?;
    if !route.takes(request.method()) {
        return Err(ApiError::MethodNotAllowed { allow: route.allow() });
    }
    let body = request.into_body();
    match route {
        Route::Generate => otp_calls::generate(body).await,
        Route::Resend => otp_calls::resend(body).await,
        Route::Regenerate => otp_calls::regenerate(body).await,
        Route::Verify => otp_calls::verify(body).await,
        Route::Health => Ok(health::alive()),
        Route::Ready => health::ready().await,
        Route::OpenApi => Ok(Answer::openapi()),
    }
}

/// The caller's id for the request if it is sane, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    headers
        .get("x-request-id")
        .and_then(|id| id.to_str().ok())
        .filter(|id| (1..=128).contains(&id.len()) && id.bytes().all(|byte| (b' '..=b'~').contains(&byte)))
        .map_or_else(environment::new_request_id, str::to_owned)
}
