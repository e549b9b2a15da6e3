//! Addresses for the servers that a test starts.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU16, Ordering},
};

/// Below what systems take for outgoing connections: a server that was killed finds its port free when it
/// comes back, however many clients have tried to reach it meanwhile.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// An address on the loopback interface where nobody listens. No other caller in this process gets it.
pub fn unused_address() -> String {
    static HANDED_OUT: AtomicU16 = AtomicU16::new(0);
    // Another process starts elsewhere, so that two suites at once do not race for the same ports.
    let start = std::process::id().wrapping_mul(997);
    let length = u32::from(PORTS.end - PORTS.start);
    (0..length)
        .map(|_| {
            let step = u32::from(HANDED_OUT.fetch_add(1, Ordering::Relaxed));
            u32::from(PORTS.start) + start.wrapping_add(step) % length
        })
        .map(|port| format!("127.0.0.1:{port}"))
        .find(|address| TcpListener::bind(address).is_ok())
        .expect("some port of so many is free")
}

/// The port of a `host:port`.
pub(crate) fn port(address: &str) -> &str {
    address.rsplit_once(':').expect("an address ends with its port").1
}
