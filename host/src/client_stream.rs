//! A client's connection as hyper sees it: requests that are clear, clients that keep to their time.

use crate::framing::{Framing, Refusal};
use bytes::{Buf, BytesMut};
use http::StatusCode;
use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep},
};

/// How long a request may take to arrive, from its first byte to its body's last one.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may take to read what is ready to be sent to it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client that was refused may go on sending. A connection that is closed with bytes unread is
/// reset, and the client may never see why (RFC 9112, section 9.6).
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// Most bytes read at once.
const PIECE: usize = 8 * 1024;

/// Given to hyper in the place of a head that was refused, so that the refusal is an answer like others:
/// after those to the requests before it, and written by hyper.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";

/// The one request of a connection that was refused for its head, as its last one.
#[derive(Debug, Default)]
pub(crate) struct RefusedHead(OnceLock<(u64, Refusal)>);

impl RefusedHead {
    /// Why the connection's request of this number, from 0 on, was refused, if it was.
    pub(crate) fn of(&self, request: u64) -> Option<Refusal> {
        self.0.get().filter(|(number, _)| *number == request).map(|(_, refusal)| *refusal)
    }
}

/// Whether a request has begun to arrive on a connection and is not all there: hyper, which gets heads whole,
/// takes such a connection for idle.
#[derive(Debug, Default)]
pub(crate) struct Arriving(AtomicBool);

impl Arriving {
    /// Whether it is so now.
    pub(crate) fn is_on_its_way(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A connection whose requests are checked before they can be read.
#[derive(Debug)]
pub(crate) struct ClientStream {
    stream: TcpStream,
    framing: Framing,
    /// Found good and not read yet.
    passed: BytesMut,
    refused_head: Arc<RefusedHead>,
    arriving: Arc<Arriving>,
    /// The number of the request that is not all there, and when it began.
    begun: Option<(u64, Instant)>,
    reading: Timer,
    /// When the client stopped to take what is to be sent.
    write_blocked: Option<Instant>,
    writing: Timer,
    /// When the last answer was sent.
    shut_down: Option<Instant>,
}

impl ClientStream {
    /// Wraps a new connection; a refused head and a request that is arriving will be told there.
    pub(crate) fn new(stream: TcpStream, refused_head: Arc<RefusedHead>, arriving: Arc<Arriving>) -> Self {
        Self {
            stream,
            framing: Framing::default(),
            passed: BytesMut::new(),
            refused_head,
            arriving,
            begun: None,
            reading: Timer::default(),
            write_blocked: None,
            writing: Timer::default(),
            shut_down: None,
        }
    }

    /// Has a request of the host's own answered in the place of the one that is coming in.
    fn refuse_head(&mut self, refusal: Refusal) {
        if self.refused_head.0.set((self.framing.request(), refusal)).is_ok() {
            self.passed.extend_from_slice(STAND_IN);
        }
    }

    fn is_refused(&self) -> bool {
        self.refused_head.0.get().is_some()
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.passed.is_empty() {
            if this.is_refused() {
                // Nothing more comes, and the end would be taken for a client that has gone.
                return Poll::Pending;
            }
            if let Some(refusal) = this.framing.refusal() {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, refusal.reason)));
            }
            let mut space = [MaybeUninit::uninit(); PIECE];
            let mut piece = ReadBuf::uninit(&mut space);
            if Pin::new(&mut this.stream).poll_read(cx, &mut piece)?.is_pending() {
                let Some((_, began)) = this.begun else { return Poll::Pending };
                ready!(this.reading.poll(began + REQUEST_TIMEOUT, cx));
                if !this.framing.in_head() {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                let reason = "the request did not arrive in time";
                this.refuse_head(Refusal { status: StatusCode::REQUEST_TIMEOUT, reason });
                continue;
            }
            if piece.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            match this.framing.pass(piece.filled(), &mut this.passed) {
                Err(refusal) if this.framing.in_head() => this.refuse_head(refusal),
                // What has passed of the body goes first.
                Err(_) => {}
                Ok(()) if this.framing.between_requests() => this.begun = None,
                Ok(()) => {
                    let request = this.framing.request();
                    let same = this.begun.filter(|(begun, _)| *begun == request);
                    this.begun = Some(same.unwrap_or_else(|| (request, Instant::now())));
                }
            }
            this.arriving.0.store(this.begun.is_some(), Ordering::Relaxed);
        }
        let length = this.passed.len().min(buf.remaining());
        buf.put_slice(&this.passed[..length]);
        this.passed.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Poll::Ready(written) = Pin::new(&mut this.stream).poll_write_vectored(cx, pieces) {
            return Poll::Ready(written);
        }
        let blocked = *this.write_blocked.get_or_insert_with(Instant::now);
        ready!(this.writing.poll(blocked + ANSWER_TIMEOUT, cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // hyper flushes when it has nothing left to write. A client that takes a byte now and then is as
        // slow as one that takes none.
        this.write_blocked = None;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut_down = match this.shut_down {
            Some(shut_down) => shut_down,
            None => {
                ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
                *this.shut_down.insert(Instant::now())
            }
        };
        if this.framing.between_requests() && !this.is_refused() {
            return Poll::Ready(Ok(()));
        }
        loop {
            if this.reading.poll(shut_down + LINGER_TIMEOUT, cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut space = [MaybeUninit::uninit(); PIECE];
            let mut thrown_away = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut thrown_away))?;
            if thrown_away.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// A timer that costs nothing as long as nobody has to wait.
#[derive(Debug, Default)]
struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        sleep.as_mut().poll(cx)
    }
}
