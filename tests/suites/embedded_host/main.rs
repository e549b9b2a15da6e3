//! What the embedded host promises as a program: its words at start, its end, its bounds.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod conversation;
mod postgres;
mod program;
mod slow_clients;
mod smuggling;

use conversation::Conversation;
use harness::{Service, eventually, number, repository, unused_address};
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
fn what_is_logged_of_a_request_cannot_pass_for_a_line_of_the_log() {
    let service = Service::start();
    let forged = "a%0d%0aINFO%20forged \"\u{1b}[31m\u{85}forged";
    let request =
        format!("GET /%0D%0AINFO%20forged HTTP/1.1\r\nhost: localhost\r\nx-request-id: {forged}\r\n\r\n");
    Conversation::with(service.address(), request.as_bytes());
    let request = format!(
        "GET /{} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        "4155550123x".repeat(1000)
    );
    assert_eq!(Conversation::with(service.address(), request.as_bytes()).statuses(), [404]);
    let log = service.log();
    assert!(
        log.lines().all(|line| line.len() < 1000 && !line.trim_start().starts_with("INFO forged")),
        "{log}"
    );
    assert!(!log.contains(['\u{1b}', '\u{85}']) && !log.contains("5550123"), "{log}");
}

#[test]
fn a_path_leads_to_no_file() {
    let service = Service::start();
    for path in ["/../../etc/passwd", "/..%2f..%2fetc/passwd", "//etc/passwd", "/./healthz/..", "/%00"] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let conversation = Conversation::with(service.address(), request.as_bytes());
        assert_eq!(conversation.statuses(), [404], "{path}");
        assert!(!conversation.text().contains("root:"), "{path}");
    }
}

#[test]
fn the_hosts_own_answers_are_not_kept_or_guessed_at() {
    let service = Service::start();
    for request in [
        "GET /.well-known/spin/health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        "nonsense\r\n\r\n",
    ] {
        let text = Conversation::with(service.address(), request.as_bytes()).text().to_lowercase();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let fields: Vec<_> = head.lines().collect();
        for field in [
            if request.starts_with("GET") {
                "content-type: text/plain; charset=utf-8"
            } else {
                "content-type: application/problem+json"
            },
            "x-content-type-options: nosniff",
            "cache-control: no-store",
            "connection: close",
        ] {
            assert!(fields.contains(&field), "{field}: {text}");
        }
        assert!(fields.contains(&format!("content-length: {}", body.len()).as_str()), "{text}");
        assert!(!head.contains("server:") && !head.contains("x-powered-by"), "{text}");
    }
}

#[test]
fn a_term_or_an_interrupt_ends_it_with_0_after_the_requests_in_flight() {
    for signal in ["TERM", "INT"] {
        let mut service = Service::start();
        // A request whose body is on its way when the signal comes.
        let body = json!({ "mobileNumber": number() }).to_string();
        let mut stream = TcpStream::connect(service.address()).unwrap();
        write!(
            stream,
            "POST /generate-otp HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .unwrap();
        // And a connection that only idles.
        let _idle = TcpStream::connect(service.address()).unwrap();
        thread::sleep(Duration::from_millis(200));
        service.signal(signal);
        eventually("the end of new connections", Duration::from_secs(5), || {
            TcpStream::connect(service.address()).is_err()
        });
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
