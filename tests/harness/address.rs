//! Addresses for the servers that a test starts.

use std::{
    collections::VecDeque,
    net::{TcpListener, UdpSocket},
    sync::{
        Mutex,
        atomic::{AtomicU16, Ordering},
    },
};

/// Below what systems take for outgoing connections: a server that was killed finds its port free when it
/// comes back, however many clients have tried to reach it meanwhile.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// An address on the loopback interface where nobody listens. No other caller gets it, in this process or another one that tests.
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
        .find(|address| TcpListener::bind(address).is_ok() && reserve(address))
        .expect("some port of so many is free")
}

/// Keeps other test processes from an address until its server has it: a Postgres takes a while to start. Ports of UDP are
/// others than those of TCP, and nobody here needs them. `false` if another process has it.
fn reserve(address: &str) -> bool {
    /// More than are waiting for their servers at any moment.
    const MOST: usize = 200;
    static RESERVED: Mutex<VecDeque<UdpSocket>> = Mutex::new(VecDeque::new());
    let Ok(socket) = UdpSocket::bind(address) else { return false };
    let mut reserved = RESERVED.lock().expect("nobody panics while holding it");
    reserved.push_back(socket);
    if reserved.len() > MOST {
        reserved.pop_front();
    }
    true
}

/// The port of a `host:port`.
pub(crate) fn port(address: &str) -> &str {
    address.rsplit_once(':').expect("an address ends with its port").1
}
