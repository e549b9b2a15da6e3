//! A network between two servers that can be as bad as networks are: slow, cut, silent, or only seemingly
//! there.

use crate::address::unused_address;
use std::{
    fmt,
    future::pending,
    io,
    net::TcpListener as Listener,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    select,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

/// Most bytes that are carried at once.
const PIECE: usize = 16 * 1024;

/// Most pieces that are under way in a direction. More, and whoever sends has to wait.
const UNDER_WAY: usize = 64;

/// How long it may take to close or to open again.
const PATIENCE: Duration = Duration::from_secs(5);

/// A TCP proxy on a free port of the loopback interface. It ends when dropped, and all its connections with it.
pub struct Proxy {
    address: String,
    shared: Arc<Shared>,
    /// Takes connections in, unless they are refused.
    taking: Mutex<Option<JoinHandle<()>>>,
    /// Carries all of it for as long as the proxy is there.
    runtime: Runtime,
}

/// What a network does with what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Carries it.
    Pass,
    /// Carries it, each way so much later.
    Delay(Duration),
    /// Takes connections and carries nothing, either way. What was sent goes on when that is over.
    BlackHole,
    /// Carries what clients send, and none of the answers, until that is over.
    HalfOpen,
    /// Carries all but what a client sends in the same piece as these words, and what it sends after that, until that is
    /// over.
    HoldBack(&'static str),
    /// Carries answers byte by byte, with such a pause before each.
    Drip(Duration),
    /// Carries so many bytes of answers on a connection, and closes it.
    CutAfter(usize),
    /// Closes every connection, and refuses new ones.
    Cut,
    /// Resets every connection, and each new one.
    Reset,
}

#[derive(Debug)]
struct Shared {
    upstream: Mutex<String>,
    mode: watch::Sender<Mode>,
    open: AtomicUsize,
    taken: AtomicUsize,
}

/// Which way it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// From the client.
    Up,
    /// To the client.
    Down,
}

impl Shared {
    fn upstream(&self) -> String {
        self.upstream.lock().expect("nobody panics while holding it").clone()
    }
}

impl Mode {
    fn carries(self, way: Way) -> bool {
        match self {
            Self::BlackHole => false,
            Self::HalfOpen => way == Way::Up,
            _ => true,
        }
    }

    fn closes(self) -> bool {
        matches!(self, Self::Cut | Self::Reset)
    }
}

impl Proxy {
    /// A proxy to this `host:port` that carries everything.
    pub fn to(upstream: &str) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let shared = Arc::new(Shared {
            upstream: Mutex::new(upstream.to_owned()),
            mode: watch::channel(Mode::Pass).0,
            open: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
        });
        let proxy = Self { address: unused_address(), shared, taking: Mutex::new(None), runtime };
        proxy.set(Mode::Pass);
        proxy
    }

    /// `host:port`, for clients.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// `host:port` of the server behind it.
    pub fn upstream(&self) -> String {
        self.shared.upstream()
    }

    /// Leads new connections to another server. Those that are there stay where they are.
    pub fn lead_to(&self, upstream: &str) {
        upstream.clone_into(&mut self.shared.upstream.lock().expect("nobody panics while holding it"));
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// How many there have been.
    pub fn taken(&self) -> usize {
        self.shared.taken.load(Ordering::SeqCst)
    }

    /// From now on, for connections that are there and those that come.
    pub fn set(&self, mode: Mode) {
        let mut taking = self.taking();
        if mode == Mode::Cut {
            if let Some(task) = taking.take() {
                task.abort();
                // Over when its listener is closed.
                let _ = self.runtime.block_on(task);
            }
        } else if taking.is_none() {
            let listener = self.listen();
            *taking = Some(self.runtime.spawn(take(listener, Arc::clone(&self.shared))));
        }
        self.shared.mode.send_replace(mode);
        let deadline = std::time::Instant::now() + PATIENCE;
        while mode == Mode::Cut && self.open() > 0 {
            assert!(std::time::Instant::now() < deadline, "{} connections are still open", self.open());
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn listen(&self) -> TcpListener {
        let deadline = std::time::Instant::now() + PATIENCE;
        let listener = loop {
            match Listener::bind(&self.address) {
                Ok(listener) => break listener,
                // Somebody else may have had it for an outgoing connection, for a moment.
                Err(error) => assert!(std::time::Instant::now() < deadline, "{}: {error}", self.address),
            }
            thread::sleep(Duration::from_millis(10));
        };
        listener.set_nonblocking(true).unwrap();
        let _entered = self.runtime.enter();
        TcpListener::from_std(listener).unwrap()
    }

    fn taking(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.taking.lock().expect("nobody panics while holding it")
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({} to {}, {:?})", self.address, self.upstream(), *self.shared.mode.borrow())
    }
}

async fn take(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        // Out of file descriptors, most likely; that passes.
        let Ok((client, _)) = listener.accept().await else {
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        let counted = Counted::new(&shared);
        tokio::spawn(async move { counted.carry(client).await });
    }
}

/// A connection, for as long as it is open.
struct Counted(Arc<Shared>);

impl Counted {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.taken.fetch_add(1, Ordering::SeqCst);
        shared.open.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(shared))
    }

    /// Until both sides have said all, or the mode ends it.
    async fn carry(self, mut client: TcpStream) {
        let mode = self.0.mode.subscribe();
        let mut ended = mode.clone();
        let carried = async {
            let mut upstream = TcpStream::connect(self.0.upstream()).await?;
            client.set_nodelay(true)?;
            upstream.set_nodelay(true)?;
            let (from_client, to_client) = client.split();
            let (from_upstream, to_upstream) = upstream.split();
            let up = pump(Way::Up, from_client, to_upstream, mode.clone());
            let down = pump(Way::Down, from_upstream, to_client, mode.clone());
            tokio::try_join!(up, down).map(drop)
        };
        select! {
            biased;
            _ = ended.wait_for(|mode| mode.closes()) => {}
            // An error is either side's end, and so the other's.
            _ = carried => {}
        }
        if *self.0.mode.borrow() == Mode::Reset {
            let _ = client.set_zero_linger();
        }
        // Closed before it is counted out.
        drop(client);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Carries one way until that side has said all. An error ends the whole connection.
async fn pump(
    way: Way,
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mode: watch::Receiver<Mode>,
) -> io::Result<()> {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let mut carrying = mode.clone();
    let read = async {
        let mut space = vec![0; PIECE];
        loop {
            let length = from.read(&mut space).await?;
            // An empty piece is the end, and is as late as the others.
            if sender.send((Instant::now(), space[..length].to_vec())).await.is_err() || length == 0 {
                return Ok::<_, io::Error>(());
            }
        }
    };
    let write = async {
        // Bytes of answers since the connection or the mode began.
        let mut counted = (*carrying.borrow_and_update(), 0);
        while let Some((at, piece)) = receiver.recv().await {
            loop {
                let now = *carrying.borrow_and_update();
                let may_go = async {
                    match now {
                        Mode::Delay(delay) => sleep_until(at + delay).await,
                        Mode::HoldBack(words) if way == Way::Up && contains(&piece, words) => pending().await,
                        _ if now.carries(way) => {}
                        _ => pending().await,
                    }
                };
                select! {
                    () = may_go => break,
                    _ = carrying.changed() => {}
                }
            }
            if piece.is_empty() {
                break;
            }
            let mode = *carrying.borrow();
            if counted.0 != mode {
                counted = (mode, 0);
            }
            match mode {
                Mode::Drip(pause) if way == Way::Down => drip(&piece, pause, &mut to, &mut carrying).await?,
                Mode::CutAfter(most) if way == Way::Down => {
                    let left = piece.len().min(most.saturating_sub(counted.1));
                    to.write_all(&piece[..left]).await?;
                    counted.1 += left;
                    if counted.1 >= most {
                        return Err(io::ErrorKind::ConnectionAborted.into());
                    }
                }
                _ => to.write_all(&piece).await?,
            }
        }
        to.shutdown().await
    };
    tokio::try_join!(read, write).map(drop)
}

fn contains(piece: &[u8], words: &str) -> bool {
    piece.windows(words.len()).any(|part| part == words.as_bytes())
}

/// Writes byte by byte, and the rest at once when that is over.
async fn drip(
    piece: &[u8],
    pause: Duration,
    to: &mut (impl AsyncWrite + Unpin),
    mode: &mut watch::Receiver<Mode>,
) -> io::Result<()> {
    let mut rest = piece;
    while let Some((first, more)) = rest.split_first() {
        select! {
            () = sleep(pause) => {}
            _ = mode.changed() => return to.write_all(rest).await,
        }
        to.write_all(&[*first]).await?;
        rest = more;
    }
    Ok(())
}
