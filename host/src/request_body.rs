//! Requests' bodies: there before the component is asked.
//!
//! A slot of the component is for work. A client that sends its body byte by byte shall not hold one while
//! it does, so the host reads what an honest request has first.

use crate::framing::Refusal;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use std::{
    error::Error as _,
    io,
    pin::Pin,
    task::{Context, Poll},
};
use wasmtime_wasi_http::WasiBody;

/// Most bytes of a body that are read ahead: four times what the component takes.
const MAX_READ_AHEAD: usize = 16 * 1024;

/// A request's body, as far as it is there.
pub(crate) enum RequestBody {
    /// All of it.
    Whole(WasiBody),
    /// More than is read ahead: the rest comes as the client sends it.
    Partly(WasiBody),
}

impl RequestBody {
    /// Reads a body to its end, or as far as it is read ahead.
    pub(crate) async fn read(mut body: Incoming) -> Result<Self, Refusal> {
        if body.is_end_stream() {
            return Ok(Self::whole(Bytes::new()));
        }
        let mut read = BytesMut::new();
        // The length that the client says, where it says one, is enough to know.
        while read.len() as u64 + body.size_hint().lower() <= MAX_READ_AHEAD as u64 {
            match body.frame().await {
                // Trailers say nothing that an application here would want to know.
                Some(Ok(frame)) => read.extend_from_slice(frame.data_ref().map_or(&[], AsRef::as_ref)),
                Some(Err(error)) => return Err(refusal(&error)),
                None => return Ok(Self::whole(read.freeze())),
            }
        }
        let body = BegunBody { read: read.freeze(), rest: body };
        Ok(Self::Partly(body.map_err(Into::into).boxed_unsync()))
    }

    fn whole(bytes: Bytes) -> Self {
        Self::Whole(Full::new(bytes).map_err(|never| match never {}).boxed_unsync())
    }
}

/// Why a body cannot be read any further.
fn refusal(error: &hyper::Error) -> Refusal {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    if cause.is_some_and(|cause| cause.kind() == io::ErrorKind::TimedOut) {
        Refusal { status: StatusCode::REQUEST_TIMEOUT, reason: "the request did not arrive in time" }
    } else {
        Refusal::bad("the request's body is not valid, or is not whole")
    }
}

/// A body whose beginning has been read.
struct BegunBody {
    read: Bytes,
    rest: Incoming,
}

impl Body for BegunBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.rest).poll_frame(cx);
        }
        let read = std::mem::take(&mut self.read);
        Poll::Ready(Some(Ok(Frame::data(read))))
    }
}
