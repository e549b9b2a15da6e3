//! The HTTP component of spin-otp: it maps requests to the domain ([`otp_core`]) and the domain's needs
//! to Spin's interfaces, and decides nothing itself.
//!
//! Spin keeps an instance for many requests, up to 16 of them at once, so what is costly lives in the
//! instance: the configuration, the connections, the phone metadata. Its requests interleave at every
//! `.await`, and none of them can wake another one. Nothing on a request's path may panic: it would end
//! all of them.

mod account_row;
mod answer;
mod cache;
mod caller;
mod config;
mod deadline;
mod dependencies;
mod destinations;
mod endpoint;
mod environment;
mod error;
mod event;
mod health;
mod internal;
mod log;
mod on_record;
mod origin;
mod otp_calls;
mod outbox_entry;
mod publish;
mod recipient;
mod relay;
mod request;
mod routes;
mod row;
mod store;
mod users;

use spin_sdk::{
    http::{IntoResponse, Request},
    http_service,
};

/// What Spin calls with each request.
#[http_service]
async fn handle(request: Request) -> impl IntoResponse {
    routes::answer(request).await
}
