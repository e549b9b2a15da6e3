//! Outbound HTTP: `wasi:http/client` over hyper, and where it may connect to.

use crate::{
    allowed_hosts::AllowedHosts,
    telemetry::{Requests, Span},
};
use http_body_util::BodyExt;
use opentelemetry::trace::SpanContext;
use std::sync::Arc;
use wasmtime::{
    AsContextMut,
    component::{Accessor, HasData, Linker, Resource},
};
use wasmtime_wasi::TrappableError;
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttp, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
    p3::{
        Request, Response,
        bindings::http::{
            client::{self, HostWithStore},
            types::ErrorCode,
        },
    },
};

/// What an instance has of outbound HTTP.
#[derive(Debug)]
pub(crate) struct OutboundHttp {
    allowed: Arc<AllowedHosts>,
    /// For which request the next call is made, if that is traced.
    caller: Option<SpanContext>,
    requests: Requests,
}

impl OutboundHttp {
    pub(crate) fn new(allowed: Arc<AllowedHosts>, requests: Requests) -> Self {
        Self { allowed, caller: None, requests }
    }

    fn allows(&self, uri: &http::Uri) -> bool {
        match (uri.scheme_str(), uri.host()) {
            (Some(scheme), Some(host)) => self.allowed.allow(scheme, host, uri.port_u16()),
            _ => false,
        }
    }
}

type Sent = Result<(http::Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>), Error>;

impl WasiHttpHooks for OutboundHttp {
    fn send_request(
        &mut self,
        mut request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let allowed = self.allows(request.uri());
        let mut span = Span::of_outbound(&mut request, self.caller.take());
        Box::new(async move {
            if !allowed {
                span.failed("denied");
                tracing::warn!(
                    host = request.uri().host(),
                    "outbound request refused; add it to allowed_outbound_hosts in spin.toml"
                );
                return Err(Error::HttpRequestDenied);
            }
            let sent = wasmtime_wasi_http::default_send_request(request, options).await;
            match &sent {
                Ok((response, _)) => span.answered(response.status(), 400),
                Err(_) => span.failed("no_answer"),
            }
            let (response, io) = sent?;
            Ok((response.map(BodyExt::boxed_unsync), Box::new(io) as Box<_>))
        })
    }
}

/// A store that has outbound HTTP. The interface's own types need the view of `wasmtime_wasi_http`.
pub(crate) trait OutboundHttpView: WasiHttpView {
    fn outbound_http(&mut self) -> &mut OutboundHttp;
}

/// Links the interface to such a store, in the place of what `wasmtime_wasi_http` has linked.
pub(crate) fn add_to_linker<T: OutboundHttpView + Send + 'static>(
    linker: &mut Linker<T>,
) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    client::add_to_linker::<_, OutboundHttpData>(linker, T::http)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Gives the linker access to the [`OutboundHttp`] of an instance.
#[derive(Debug)]
struct OutboundHttpData;

impl HasData for OutboundHttpData {
    type Data<'a> = WasiHttpCtxView<'a>;
}

impl<T: OutboundHttpView + Send + 'static> HostWithStore<T> for OutboundHttpData {
    async fn send(
        accessor: &Accessor<T, Self>,
        request: Resource<Request>,
    ) -> Result<Resource<Response>, TrappableError<ErrorCode>> {
        accessor.with(|mut access| {
            let requests = access.data_mut().outbound_http().requests.clone();
            let caller = requests.caller(access.as_context_mut());
            access.data_mut().outbound_http().caller = caller;
        });
        // No other call comes in between: the first thing that this does is to ask the hook above.
        <WasiHttp as HostWithStore<T>>::send(&accessor.with_getter(|store| store.http()), request).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Empty;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn send(hooks: &mut OutboundHttp, uri: String) -> Sent {
        let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        let request = http::Request::builder().uri(uri).body(body).unwrap();
        Box::into_pin(hooks.send_request(request, None, Box::new(async { Ok(()) }))).await
    }

    #[tokio::test]
    async fn a_request_goes_out_only_where_it_is_allowed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let uri = format!("http://127.0.0.1:{port}/");

        let mut denied = OutboundHttp::new(Arc::default(), Requests::default());
        assert!(matches!(send(&mut denied, uri.clone()).await, Err(Error::HttpRequestDenied)));

        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        });
        let mut open = OutboundHttp::new(
            AllowedHosts::only(&[&format!("http://127.0.0.1:{port}")]),
            Requests::default(),
        );
        let (response, io) = send(&mut open, uri).await.unwrap();
        tokio::spawn(Box::into_pin(io));
        assert_eq!(response.status(), 204);
    }
}
