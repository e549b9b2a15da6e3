//! The bad network that the other tests here rely on does what it says.

use harness::{Mode, Proxy, eventually};
use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Long enough on any machine for what is not held back.
const SOON: Duration = Duration::from_secs(5);

/// Long enough to be no accident, for what is.
const WHILE: Duration = Duration::from_millis(300);

/// A server that says back what it hears, and counts it. It ends with the test's process.
struct Echo {
    proxy: Proxy,
    heard: Arc<AtomicUsize>,
}

impl Echo {
    fn behind_a_proxy() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::to(&listener.local_addr().unwrap().to_string());
        let heard = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&heard);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, counter) = (stream.unwrap(), Arc::clone(&counter));
                thread::spawn(move || {
                    let mut space = [0; 1024];
                    while let Ok(length @ 1..) = stream.read(&mut space) {
                        counter.fetch_add(length, Ordering::SeqCst);
                        if stream.write_all(&space[..length]).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Self { proxy, heard }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.proxy.address()).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    }
}

/// Whether these bytes come back within the stream's patience.
fn echoed(stream: &mut TcpStream, text: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.write_all(text)?;
    let mut said = vec![0; text.len()];
    stream.read_exact(&mut said).map(|()| said)
}

#[track_caller]
fn falls_silent(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(WHILE)).unwrap();
    let error = stream.read(&mut [0; 1]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    stream.set_read_timeout(Some(SOON)).unwrap();
}

#[test]
fn it_carries_what_it_is_given_and_counts_its_connections() {
    let echo = Echo::behind_a_proxy();
    assert_eq!((echo.proxy.open(), echo.proxy.taken()), (0, 0));
    let mut streams: Vec<_> = (0..3).map(|_| echo.connect()).collect();
    for stream in &mut streams {
        assert_eq!(echoed(stream, b"hello").unwrap(), b"hello");
    }
    assert_eq!((echo.proxy.open(), echo.proxy.taken()), (3, 3));
    streams.pop();
    eventually("one fewer", SOON, || echo.proxy.open() == 2);
    // One side may have said all while the other has not.
    let mut last = streams.pop().unwrap();
    last.write_all(b"the end").unwrap();
    last.shutdown(std::net::Shutdown::Write).unwrap();
    let mut said = String::new();
    last.read_to_string(&mut said).unwrap();
    assert_eq!(said, "the end");
    drop(streams);
    eventually("none", SOON, || echo.proxy.open() == 0);
    assert_eq!(echo.proxy.taken(), 3);
}

#[test]
fn it_delays_each_way_and_does_not_narrow_it() {
    let echo = Echo::behind_a_proxy();
    let mut stream = echo.connect();
    echo.proxy.set(Mode::Delay(Duration::from_millis(150)));
    let start = Instant::now();
    assert_eq!(echoed(&mut stream, b"slow").unwrap(), b"slow");
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    // Ten at once take as long as one.
    let start = Instant::now();
    for _ in 0..10 {
        stream.write_all(b"1").unwrap();
        thread::sleep(Duration::from_millis(2));
    }
    stream.read_exact(&mut [0; 10]).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_millis(1_500), "{:?}", start.elapsed());
    echo.proxy.set(Mode::Pass);
    let start = Instant::now();
    echoed(&mut stream, b"fast").unwrap();
    // It would be as long again with the delay.
    assert!(start.elapsed() < Duration::from_millis(300), "{:?}", start.elapsed());
}

#[test]
fn a_black_hole_takes_connections_and_carries_nothing_until_it_is_over() {
    let echo = Echo::behind_a_proxy();
    let mut before = echo.connect();
    echoed(&mut before, b"there").unwrap();
    echo.proxy.set(Mode::BlackHole);
    let mut streams = [before, echo.connect()];
    for stream in &mut streams {
        stream.write_all(b"lost?").unwrap();
        falls_silent(stream);
    }
    assert_eq!((echo.heard.load(Ordering::SeqCst), echo.proxy.open()), (5, 2));
    echo.proxy.set(Mode::Pass);
    for stream in &mut streams {
        let mut said = [0; 5];
        stream.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"lost?");
    }
}

#[test]
fn half_open_carries_requests_and_no_answers() {
    let echo = Echo::behind_a_proxy();
    echo.proxy.set(Mode::HalfOpen);
    let mut stream = echo.connect();
    stream.write_all(b"done?").unwrap();
    eventually("the server's hearing it", SOON, || echo.heard.load(Ordering::SeqCst) == 5);
    falls_silent(&mut stream);
    echo.proxy.set(Mode::Pass);
    stream.read_exact(&mut [0; 5]).unwrap();
}

#[test]
fn cut_closes_what_is_there_and_refuses_the_rest_until_it_is_over() {
    let echo = Echo::behind_a_proxy();
    let mut stream = echo.connect();
    echoed(&mut stream, b"there").unwrap();
    for _ in 0..3 {
        echo.proxy.set(Mode::Cut);
        assert_eq!(echo.proxy.open(), 0);
        assert!(matches!(stream.read(&mut [0; 1]), Ok(0)), "closed");
        let refused = TcpStream::connect(echo.proxy.address()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        echo.proxy.set(Mode::Pass);
        stream = echo.connect();
        echoed(&mut stream, b"again").unwrap();
    }
}

#[test]
fn reset_resets_what_is_there_and_what_comes() {
    let echo = Echo::behind_a_proxy();
    let mut stream = echo.connect();
    echoed(&mut stream, b"there").unwrap();
    echo.proxy.set(Mode::Reset);
    assert_eq!(stream.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    // It may come before the connection has been made use of.
    let next = TcpStream::connect(echo.proxy.address()).and_then(|mut stream| stream.read(&mut [0; 1]));
    assert_eq!(next.unwrap_err().kind(), ErrorKind::ConnectionReset);
    echo.proxy.set(Mode::Pass);
    echoed(&mut echo.connect(), b"again").unwrap();
}

#[test]
fn drip_lets_answers_through_byte_by_byte() {
    let echo = Echo::behind_a_proxy();
    let mut stream = echo.connect();
    echo.proxy.set(Mode::Drip(Duration::from_millis(100)));
    let start = Instant::now();
    stream.write_all(b"a slow answer").unwrap();
    stream.read_exact(&mut [0; 1]).unwrap();
    assert!(start.elapsed() < Duration::from_millis(700), "{:?}", start.elapsed());
    stream.read_exact(&mut [0; 9]).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(1_000), "{:?}", start.elapsed());
    // What is left comes at once when that is over.
    echo.proxy.set(Mode::Pass);
    stream.read_exact(&mut [0; 3]).unwrap();
}

#[test]
fn cut_after_closes_in_the_middle_of_an_answer() {
    let echo = Echo::behind_a_proxy();
    let mut before = echo.connect();
    echoed(&mut before, b"a whole answer").unwrap();
    echo.proxy.set(Mode::CutAfter(5));
    for mut stream in [before, echo.connect()] {
        stream.write_all(b"half an answer").unwrap();
        let mut said = Vec::new();
        // Closed, or reset: whatever it is, it is over.
        let _ = stream.read_to_end(&mut said);
        assert_eq!(said, b"half ");
    }
}

#[test]
fn it_ends_when_dropped() {
    let echo = Echo::behind_a_proxy();
    let mut stream = echo.connect();
    echoed(&mut stream, b"there").unwrap();
    let address = echo.proxy.address().to_owned();
    drop(echo);
    assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)));
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}
