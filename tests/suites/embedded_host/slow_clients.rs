//! Clients that take their time, and all the connections there are: others are served all the same.

use crate::{
    conversation::{Conversation, connect},
    program::Program,
};
use harness::number;
use serde_json::json;
use std::{
    io::{ErrorKind, Write},
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Within this time an honest client has its answer, if the machine is busy with other things, too. It is less
/// than the ten seconds that a slow client may take.
const SOON: Duration = Duration::from_secs(8);

/// What a slow client sends before it stops.
const BEGINNINGS: [&str; 5] = [
    "",
    "GET /heal",
    "GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: ",
    "POST /generate-otp HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{",
    "POST /generate-otp HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nff\r\n{",
];

/// A request of a client that is new, and that tries again if its connection fails.
#[track_caller]
fn is_served(host: &Program) {
    let start = Instant::now();
    let body = json!({ "mobileNumber": number() }).to_string();
    let status = loop {
        match host.client().try_send("POST", "/generate-otp", &[], body.as_bytes()) {
            Ok(answer) => break answer.status,
            Err(error) => assert!(start.elapsed() < SOON, "{error}: {}", host.log()),
        }
    };
    assert!(matches!(status, 201 | 409), "{status}");
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}

fn slow_client(host: &Program, beginning: &str) -> TcpStream {
    let mut stream = connect(&host.address);
    // It may have been closed already, in favour of another.
    let _ = stream.write_all(beginning.as_bytes());
    stream
}

#[test]
fn more_slow_clients_than_connections_keep_nobody_waiting() {
    let host = Program::start(&["--max-connections", "64"], None);
    is_served(&host);
    let (files, memory) = (host.open_files(), host.memory());
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        // They come back for ever, and send a byte now and then.
        scope.spawn(|| {
            let start = Instant::now();
            let mut slow = Vec::new();
            for beginning in BEGINNINGS.iter().cycle() {
                // The second is for a test that has failed.
                if over.load(Ordering::Relaxed) || start.elapsed() > Duration::from_secs(45) {
                    break;
                }
                slow.push(slow_client(&host, beginning));
                if slow.len() > 200 {
                    slow.remove(0);
                }
                for stream in slow.iter_mut().rev().take(20) {
                    let _ = stream.write_all(b"1");
                }
                thread::sleep(Duration::from_millis(if slow.len() < 200 { 1 } else { 20 }));
            }
        });
        thread::sleep(Duration::from_secs(1));
        for _ in 0..20 {
            is_served(&host);
            thread::sleep(Duration::from_millis(100));
        }
        if let (Some(files), Some(now)) = (files, host.open_files()) {
            assert!(now <= files + 64 + 32, "{files} files are now {now}");
        }
        if let (Some(memory), Some(now)) = (memory, host.memory()) {
            assert!(now <= memory + 64 * 1024, "{memory} KiB are now {now}");
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(host.log().contains("all 64 connections are taken"), "{}", host.log());
}

#[test]
fn a_connection_that_is_kept_is_not_closed_while_there_is_room() {
    let host = Program::start(&["--max-connections", "64"], None);
    let client = host.client();
    client.get("/healthz").expect(200);
    let _slow: Vec<_> =
        BEGINNINGS.iter().cycle().take(50).map(|beginning| slow_client(&host, beginning)).collect();
    thread::sleep(Duration::from_millis(500));
    client.get("/healthz").expect(200);
    assert!(!host.log().contains("connections are taken"), "{}", host.log());
}

#[test]
fn slow_bodies_hold_no_slot_of_the_component() {
    // More than the 256 requests that may be in the component at a time.
    let host = Program::start(&[], None);
    let long = format!(
        "POST /generate-otp HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000\r\n\r\n{}",
        "x".repeat(20_000)
    );
    for beginning in [BEGINNINGS[3], BEGINNINGS[4], &long] {
        let slow: Vec<_> = (0..300).map(|_| slow_client(&host, beginning)).collect();
        thread::sleep(Duration::from_millis(500));
        for _ in 0..3 {
            is_served(&host);
        }
        drop(slow);
    }
}

#[test]
fn few_file_descriptors_are_not_all_spent_on_slow_clients() {
    let host = Program::start(&[], Some(128));
    let _slow: Vec<_> =
        BEGINNINGS.iter().cycle().take(200).map(|beginning| slow_client(&host, beginning)).collect();
    thread::sleep(Duration::from_millis(500));
    for _ in 0..3 {
        is_served(&host);
    }
    assert!(host.log().contains("the limit of open files is 128"), "{}", host.log());
}

#[test]
fn a_request_that_trickles_in_is_cut_off() {
    let host = Program::start(&[], None);
    thread::scope(|scope| {
        for beginning in &BEGINNINGS[1..] {
            let host = &host;
            scope.spawn(move || {
                let start = Instant::now();
                let mut stream = slow_client(host, beginning);
                let mut trickle = stream.try_clone().unwrap();
                scope.spawn(move || {
                    // A byte every half second would keep a connection for ever where only silence is
                    // measured.
                    while start.elapsed() < Duration::from_secs(30) && trickle.write_all(b"1").is_ok() {
                        thread::sleep(Duration::from_millis(500));
                    }
                });
                let conversation = Conversation::rest_of(&mut stream);
                assert_eq!(conversation.statuses(), [408], "{beginning:?}: {}", conversation.text());
                assert!(conversation.closed && start.elapsed() < Duration::from_secs(25), "{beginning:?}");
            });
        }
    });
}

#[test]
fn clients_that_read_no_answers_are_cut_off() {
    let host = Program::start(&[], None);
    is_served(&host);
    let memory = host.memory();
    let request = "GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(100);
    let mut greedy: Vec<_> = (0..20).map(|_| connect(&host.address)).collect();
    for stream in &mut greedy {
        stream.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(40);
    while !greedy.is_empty() {
        assert!(Instant::now() < deadline, "{} are left", greedy.len());
        greedy.retain_mut(|stream| match stream.write(request.as_bytes()) {
            Ok(_) => true,
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        });
        is_served(&host);
    }
    if let (Some(memory), Some(now)) = (memory, host.memory()) {
        assert!(now <= memory + 128 * 1024, "{memory} KiB are now {now}");
    }
}
