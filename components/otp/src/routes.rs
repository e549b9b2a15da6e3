//! Which path is answered by what.

use crate::{
    answer::{Answer, Response},
    error::ApiError,
    event::Origin,
    health, internal, otp_calls,
};
use spin_sdk::http::{Method, Request};

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
    Flush,
    Purge,
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
            "/internal/outbox/flush" => Self::Flush,
            "/internal/purge" => Self::Purge,
            _ => return None,
        })
    }

    /// The methods that the path takes, as in the `Allow` field.
    fn allow(self) -> &'static str {
        match self {
            Self::Generate | Self::Resend | Self::Regenerate | Self::Verify | Self::Flush | Self::Purge => {
                "POST"
            }
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
    let answer = route(request, &origin).await.unwrap_or_else(|error| error.into());
    answer.into_response(&origin.request_id)
}

async fn route(request: Request, origin: &Origin) -> Result<Answer, ApiError> {
    let route = Route::of(request.uri().path()).ok_or(ApiError::NotFound)?;
    if !route.takes(request.method()) {
        return Err(ApiError::MethodNotAllowed { allow: route.allow() });
    }
    let (head, body) = request.into_parts();
    match route {
        Route::Generate => otp_calls::generate(body, origin).await,
        Route::Resend => otp_calls::resend(body, origin).await,
        Route::Regenerate => otp_calls::regenerate(body, origin).await,
        Route::Verify => otp_calls::verify(body, origin).await,
        Route::Flush => internal::flush(&head.headers).await,
        Route::Purge => internal::purge(&head.headers).await,
        Route::Health => Ok(health::alive()),
        Route::Ready => health::ready().await,
        Route::OpenApi => Ok(Answer::openapi()),
    }
}
