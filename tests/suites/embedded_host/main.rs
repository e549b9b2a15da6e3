//! What the embedded host promises as a program: its words at start, its end, its bounds.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use harness::{Service, number, repository, unused_address};
use serde_json::json;
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Runs the host to its end, which must come soon.
fn host(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(repository().join("target/release/spin-otp-host"));
    command.args(arguments).current_dir(folder).envs(environment.iter().copied());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("the host did not end");
        }
        thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

/// The one line that the host must say, failing.
#[track_caller]
fn complaint(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("error: "), "{said}");
    said
}

fn manifest() -> String {
    repository().join("spin.toml").display().to_string()
}

#[test]
fn a_missing_or_bad_manifest_is_said_in_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let said = complaint(&host(folder.path(), &[], &[]));
    assert!(said.contains("spin.toml") && said.contains("--from"), "{said}");
    std::fs::write(folder.path().join("spin.toml"), "spin_manifest_version = 2\n[application\n").unwrap();
    let said = complaint(&host(folder.path(), &[], &[]));
    assert!(said.contains("spin.toml is not usable: line 2"), "{said}");
}

#[test]
fn a_missing_or_bad_component_is_said_in_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(manifest()).unwrap();
    std::fs::write(folder.path().join("spin.toml"), text).unwrap();
    let listen = unused_address();
    let said = complaint(&host(folder.path(), &["--listen", &listen], &[]));
    assert!(said.contains("otp.wasm") && said.contains("make build"), "{said}");
    let wasm = folder.path().join("target/wasm32-wasip2/component");
    std::fs::create_dir_all(&wasm).unwrap();
    std::fs::write(wasm.join("otp.wasm"), "no wasm").unwrap();
    let said = complaint(&host(folder.path(), &["--listen", &listen], &[]));
    assert!(said.contains("is not a component that this host can run"), "{said}");
}

#[test]
fn a_taken_port_is_said_in_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = complaint(&host(folder.path(), &["--from", &manifest(), "--listen", &address], &[]));
    assert!(said.contains(&address) && said.contains("--listen"), "{said}");
    let said = complaint(&host(folder.path(), &["--from", &manifest(), "--listen", "nowhere"], &[]));
    assert!(said.contains("cannot listen on nowhere"), "{said}");
}

#[test]
fn an_unknown_variable_is_said_in_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let from = manifest();
    let said = complaint(&host(folder.path(), &["--from", &from], &[("SPIN_VARIABLE_OPT_LENGTH", "8")]));
    assert!(said.contains("SPIN_VARIABLE_OPT_LENGTH") && said.contains("otp_length"), "{said}");
    let said = complaint(&host(folder.path(), &["--from", &from, "--variable", "opt_length=8"], &[]));
    assert!(said.contains("opt_length"), "{said}");
}

#[test]
fn a_state_folder_that_cannot_be_made_is_said_in_a_line() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let said = complaint(&host(folder.path(), &["--from", &manifest(), "--state-dir", "file/state"], &[]));
    assert!(said.contains("file/state") && said.contains("--state-dir"), "{said}");
}

#[test]
fn on_start_it_says_where_it_listens_and_what_it_keeps_where() {
    let service = Service::builder().variable("otp_length", "8").start();
    let log = service.log();
    assert!(log.contains(&format!("listens on http://{}", service.address())), "{log}");
    assert!(log.contains(&service.database().display().to_string()), "{log}");
    assert!(log.contains("set: otp_length"), "{log}");
}

#[test]
fn each_request_is_logged_without_what_it_holds() {
    let service = Service::start();
    let answer = service.client().send("GET", "/x?token=secret", &[("x-request-id", "my-id")], b"");
    assert_eq!(answer.status, 404);
    let log = service.log();
    let line = log.lines().find(|line| line.contains("my-id")).unwrap();
    assert!(line.contains("method=GET") && line.contains("/x") && line.contains("status=404"), "{line}");
    assert!(!log.contains("secret"), "{log}");
}

#[test]
fn spins_own_health_path_answers() {
    let service = Service::start();
    let answer = service.client().get("/.well-known/spin/health");
    assert_eq!((answer.status, &answer.body[..]), (200, &b"OK"[..]));
}

#[test]
fn a_term_or_an_interrupt_ends_it_with_0_after_the_requests_in_flight() {
    for signal in ["TERM", "INT"] {
        let mut service = Service::start();
        // A request whose body is on its way when the signal comes.
        let body = json!({ "mobileNumber": number() }).to_string();
        let mut stream = TcpStream::connect(service.address()).unwrap();
        write!(stream, "POST /generate-otp HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len())
            .unwrap();
        // And a connection that only idles.
        let _idle = TcpStream::connect(service.address()).unwrap();
        thread::sleep(Duration::from_millis(200));
        service.signal(signal);
        thread::sleep(Duration::from_millis(200));
        assert!(TcpStream::connect(service.address()).is_err(), "takes no more connections");
        stream.write_all(body.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
        assert_eq!(service.wait().code(), Some(0));
        assert!(service.log().contains("has stopped"), "{}", service.log());
    }
}

#[test]
fn an_idle_host_stops_at_once() {
    let mut service = Service::start();
    service.client().get("/readyz").expect(200);
    let start = Instant::now();
    assert_eq!(service.terminate().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

/// What the host answers to these bytes, up to the end of the connection.
fn raw(service: &Service, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(service.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    // The host may close before it has read everything.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn heads_are_bounded_and_bad_ones_are_refused() {
    let service = Service::start();
    let long = format!("GET /healthz HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(32 * 1024));
    assert!(raw(&service, long.as_bytes()).starts_with("HTTP/1.1 431"));
    let many = format!("GET /healthz HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(200));
    assert!(raw(&service, many.as_bytes()).starts_with("HTTP/1.1 431"));
    for bad in [
        "GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nhost: a b\r\nconnection: close\r\n\r\n",
        "GET http://a/healthz HTTP/1.1\r\nhost: b\r\nconnection: close\r\n\r\n",
        "nonsense\r\n\r\n",
        "POST /generate-otp HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
    ] {
        let answer = raw(&service, bad.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400"), "{bad:?}: {answer}");
    }
    service.client().get("/healthz").expect(200);
}

#[test]
fn a_head_that_trickles_in_is_cut_off() {
    let service = Service::start();
    let mut stream = TcpStream::connect(service.address()).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\nx: ").unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let start = Instant::now();
    // A byte every half second would keep a connection for ever where only silence is measured.
    let cut_off = loop {
        match stream.read(&mut [0; 1024]) {
            Ok(0) => break true,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break true,
        }
        if start.elapsed() > Duration::from_secs(60) {
            break false;
        }
        let _ = stream.write_all(b"x");
    };
    assert!(cut_off);
    service.client().get("/healthz").expect(200);
}

#[test]
fn a_compiled_component_is_kept_for_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = std::fs::read_to_string(manifest()).unwrap();
    let built = repository().join("target").canonicalize().unwrap();
    let manifest = manifest.replace("\"target/", &format!("\"{}/", built.display()));
    std::fs::write(folder.path().join("spin.toml"), manifest).unwrap();
    let start = || Service::builder().manifest(&folder.path().join("spin.toml")).start();
    assert!(start().log().contains("compiled in"));
    assert!(start().log().contains("from the cache in"));
    std::fs::remove_dir_all(folder.path().join(".spin/component-cache")).unwrap();
    assert!(start().log().contains("compiled in"));
}
