//! The end of a host, and of a relay: others hear of it first, and what was sent is answered.

use crate::line::{Line, request};
use harness::{Mode, Proxy, Relay, Service, eventually, number, repository};
use serde_json::{Value, json};
use std::{
    io::Write,
    net::TcpStream,
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// Long enough on any machine for what does not wait for anything.
const SOON: Duration = Duration::from_secs(20);

/// Long enough on any machine for all that is asked of a part that drains.
const DRAIN: Duration = Duration::from_secs(6);

fn generate() -> Value {
    json!({ "mobileNumber": number() })
}

fn draining_for(seconds: u64) -> Service {
    Service::builder().env("SPIN_OTP_DRAIN_SECONDS", &seconds.to_string()).start()
}

/// A request whose body is still to come.
fn begun(service: &Service, body: &str) -> Line {
    let mut line = Line::to(service.address());
    let whole = request("POST", "/generate-otp", body);
    line.write(&whole.as_bytes()[..whole.len() - body.len()]).unwrap();
    line
}

#[test]
fn a_draining_host_is_not_ready_and_serves_everything_else() {
    let mut service = draining_for(DRAIN.as_secs());
    let mut kept = Line::to(service.address());
    for _ in 0..2 {
        let ready = kept.get("/readyz").unwrap();
        assert_eq!((ready.status, ready.header("connection")), (200, ""));
    }
    let start = Instant::now();
    service.signal("TERM");
    eventually("a word about it", SOON, || service.log().contains("not ready any more"));
    assert!(start.elapsed() < DRAIN, "{:?}", start.elapsed());

    // Connections that are there and new ones are served, and closed after their answer.
    assert!(!kept.is_closed());
    for mut line in [kept, Line::to(service.address())] {
        let made = line.post("/generate-otp", &generate()).unwrap();
        assert_eq!((made.status, made.header("connection")), (201, "close"), "{made:?}");
    }
    let ready = Line::to(service.address()).get("/readyz").unwrap();
    ready.is_unavailable();
    assert_eq!(ready.header("connection"), "close");
    assert!(ready.json()["detail"].as_str().unwrap().contains("shutting down"), "{ready:?}");
    assert_eq!(service.client().send("HEAD", "/readyz", &[], b"").status, 503);
    assert_eq!(service.client().get("/healthz").status, 200, "it lives");
    // As another path of the application, and as another call of this one.
    assert_eq!(service.client().send("POST", "/readyz", &[], b"").status, 405);

    assert_eq!(service.wait().code(), Some(0));
    let took = start.elapsed();
    assert!((DRAIN..DRAIN + SOON).contains(&took), "{took:?}");
    assert!(TcpStream::connect(service.address()).is_err());
}

#[test]
fn another_readiness_path_is_another_readiness_path() {
    let service =
        Service::builder().env("SPIN_OTP_DRAIN_SECONDS", "20").env("SPIN_OTP_READINESS_PATH", "/up").start();
    let client = service.client();
    assert_eq!(client.get("/up").status, 404, "the application's own answer");
    service.signal("TERM");
    eventually("the end of readiness", SOON, || client.get("/up").status == 503);
    assert_eq!(client.get("/readyz").status, 200);
}

#[test]
fn ctrl_c_does_not_drain_and_ends_a_drain() {
    for signals in [&["INT"][..], &["TERM", "INT"]] {
        let mut service = draining_for(60);
        let start = Instant::now();
        for signal in signals {
            service.signal(signal);
            thread::sleep(Duration::from_millis(300));
        }
        assert_eq!(service.wait().code(), Some(0), "{signals:?}");
        assert!(start.elapsed() < SOON, "{signals:?}: {:?}", start.elapsed());
    }
}

#[test]
fn both_signals_are_one_and_the_same_one_twice_ends_it_at_once() {
    let body = generate().to_string();
    // As a terminal and a script send them together.
    let mut service = Service::start();
    let mut line = begun(&service, &body);
    thread::sleep(Duration::from_millis(200));
    service.signal("INT");
    service.signal("TERM");
    thread::sleep(Duration::from_millis(300));
    line.write(body.as_bytes()).unwrap();
    assert_eq!(line.answer().unwrap().status, 201);
    assert_eq!(service.wait().code(), Some(0));

    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let mut service = draining_for(60);
        let _begun = begun(&service, &body);
        thread::sleep(Duration::from_millis(200));
        let start = Instant::now();
        service.signal(signal);
        thread::sleep(Duration::from_millis(300));
        service.signal(signal);
        assert_eq!(service.wait().code(), Some(code));
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    }
}

#[test]
fn what_was_sent_before_the_end_is_answered() {
    const EACH: usize = 10;
    for round in 0..3 {
        let mut service = Service::start();
        let lines = || (0..EACH).map(|_| Line::to(service.address())).collect::<Vec<_>>();
        // Connections that have served a request, and those that have not served one yet.
        let (mut used, mut unused, mut unknown) = (lines(), lines(), lines());
        for line in &mut used {
            assert_eq!(line.get("/healthz").unwrap().status, 200);
        }
        for line in &mut unused {
            line.connect().unwrap();
        }
        thread::sleep(Duration::from_millis(100));
        // It sleeps while all of it arrives: requests on connections that idle, new connections that only the
        // system knows, and the word to end.
        service.signal("STOP");
        for line in used.iter_mut().chain(&mut unused).chain(&mut unknown) {
            line.write(request("GET", "/healthz", "").as_bytes()).unwrap();
        }
        service.signal("TERM");
        service.signal("CONT");
        for (kind, lines) in [("used", &mut used), ("unused", &mut unused), ("unknown", &mut unknown)] {
            let answers: Vec<_> = lines.iter_mut().map(Line::answer).collect();
            let failed: Vec<_> = answers
                .iter()
                .filter(|answer| !answer.as_ref().is_ok_and(|answer| answer.status == 200))
                .collect();
            assert!(failed.is_empty(), "{} of {EACH} {kind} in round {round}: {failed:?}", failed.len());
        }
        assert_eq!(service.wait().code(), Some(0));
    }
}

#[test]
fn a_request_that_has_begun_to_arrive_is_answered() {
    let mut service = Service::start();
    let body = generate().to_string();
    let whole = request("POST", "/generate-otp", &body);
    let mut used = Line::to(service.address());
    assert_eq!(used.get("/healthz").unwrap().status, 200);
    // Cut in the head, on a connection that was used and on one that was not; and in the body.
    let mut lines =
        [(used, 20), (Line::to(service.address()), 20), (Line::to(service.address()), whole.len() - 5)];
    for (line, cut) in &mut lines {
        line.write(&whole.as_bytes()[..*cut]).unwrap();
    }
    thread::sleep(Duration::from_millis(200));
    service.signal("TERM");
    eventually("no more connections", SOON, || TcpStream::connect(service.address()).is_err());
    thread::sleep(Duration::from_millis(500));
    for (line, cut) in &mut lines {
        line.write(&whole.as_bytes()[*cut..]).unwrap();
        let answer = line.answer().unwrap();
        assert_eq!((answer.status, answer.header("connection")), (201, "close"), "{answer:?}");
    }
    assert_eq!(service.wait().code(), Some(0));
}

/// The system has let them in, and nobody has told them of an end.
#[test]
fn who_has_come_before_the_end_and_waits_at_the_door_is_answered() {
    let mut service = Service::start();
    eventually("a good start", SOON, || Line::to(service.address()).get("/readyz").unwrap().status == 200);
    service.signal("STOP");
    let mut lines: Vec<_> = (0..400).map(|_| Line::to(service.address())).collect();
    for line in &mut lines {
        line.write(request("GET", "/healthz", "").as_bytes()).unwrap();
    }
    service.signal("TERM");
    service.signal("CONT");
    for line in &mut lines {
        assert_eq!(line.answer().unwrap().status, 200);
    }
    assert_eq!(service.wait().code(), Some(0));
}

#[test]
fn what_is_done_after_the_answer_is_done_before_the_end() {
    let relay = Relay::start();
    let proxy = Proxy::to(relay.address());
    let mut service =
        Service::builder().variable("relay_url", &format!("http://{}", proxy.address())).start();
    proxy.set(Mode::Delay(Duration::from_millis(500)));
    let made = service.client().generate(&number());
    // The event is on its way to the relay now.
    assert_eq!(service.terminate().code(), Some(0));
    assert_eq!(service.sql().number("SELECT count(*) FROM outbox", &[]), 0, "{}", service.log());
    eventually("the delivery", SOON, || {
        let inbox = relay.client().get("/inbox").json();
        inbox.as_array().unwrap().iter().any(|message| message["otpId"] == made["otpId"])
    });
}

#[test]
fn the_flags_are_explained_and_nonsense_is_refused() {
    let host = |arguments: &[&str]| {
        let mut command = Command::new(repository().join("target/release/spin-otp-host"));
        command.args(arguments).output().unwrap()
    };
    let help = String::from_utf8(host(&["--help"]).stdout).unwrap();
    for word in ["--drain-seconds", "SPIN_OTP_DRAIN_SECONDS", "--readiness-path", "SIGTERM"] {
        assert!(help.contains(word), "{word}: {help}");
    }
    for arguments in
        [["--drain-seconds", "soon"], ["--drain-seconds", "3601"], ["--readiness-path", "readyz"]]
    {
        let said = String::from_utf8(host(&arguments).stderr).unwrap();
        assert!(said.contains(arguments[0]), "{said}");
    }
}

#[test]
fn a_draining_relay_is_not_ready_and_takes_events() {
    let mut relay = Relay::builder().env("RELAY_DRAIN_SECONDS", &DRAIN.as_secs().to_string()).start();
    let service = Service::builder().variable("relay_url", &relay.url()).start();
    let mut kept = Line::to(relay.address());
    assert_eq!(kept.get("/readyz").unwrap().status, 200);
    let start = Instant::now();
    relay.signal("TERM");
    let mut probe = Line::to(relay.address());
    eventually("the end of readiness", SOON, || probe.get("/readyz").unwrap().status == 503);
    assert!(start.elapsed() < DRAIN, "{:?}", start.elapsed());
    let ready = probe.get("/readyz").unwrap();
    assert_eq!((ready.json()["status"].as_str(), ready.header("connection")), (Some("stopping"), "close"));
    assert_eq!(kept.get("/healthz").unwrap().header("connection"), "close");
    let made = service.client().generate(&number());
    eventually("the delivery", SOON, || {
        let inbox = relay.client().get("/inbox").json();
        inbox.as_array().unwrap().iter().any(|message| message["otpId"] == made["otpId"])
    });
    assert!(start.elapsed() < DRAIN, "too slow to tell: {:?}", start.elapsed());
    assert_eq!(relay.wait().code(), Some(0));
    let took = start.elapsed();
    assert!((DRAIN..DRAIN + SOON).contains(&took), "{took:?}");
}

#[test]
fn ctrl_c_ends_a_relay_without_a_drain_and_the_same_signal_twice_at_once() {
    let mut relay = Relay::builder().env("RELAY_DRAIN_SECONDS", "60").start();
    relay.signal("INT");
    assert_eq!(relay.wait().code(), Some(0));
    relay.restart();
    relay.signal("TERM");
    thread::sleep(Duration::from_millis(300));
    relay.signal("INT");
    assert_eq!(relay.wait().code(), Some(0), "it ends the drain");
    relay.restart();
    let mut begun = TcpStream::connect(relay.address()).unwrap();
    begun.write_all(b"POST /events HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n").unwrap();
    for _ in 0..2 {
        relay.signal("TERM");
        thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(relay.wait().code(), Some(143));
}
