//! Starts the service as a user would, talks to it over HTTP, and keeps everything in a folder of its
//! own: nothing here touches a developer's own servers or files.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a harness that cannot go on has to stop the test"
)]

mod address;
mod certificate;
mod client;
mod collector;
mod folder;
mod kafka;
mod ledger;
mod postgres;
mod process;
mod prometheus;
mod provider;
mod proxy;
mod redis;
mod relay;
mod server;
mod service;
mod smtp;
mod sql;
mod statements;

pub use self::postgres::Postgres;
pub use self::redis::Redis;
pub use address::unused_address;
pub use client::{Client, Quota, Response};
pub use collector::{Collector, Span};
pub use folder::temporary_folder;
pub use kafka::{Kafka, Record};
pub use ledger::Ledger;
pub use prometheus::{Prometheus, promtool};
pub use provider::{Sent, SmsProvider};
pub use proxy::{Mode, Proxy};
pub use relay::{Relay, RelayBuilder, with_postgres};
pub use server::{Program, Server};
pub use service::{Builder, Service, Store, repository, store, with_redis};
pub use smtp::MailServer;
pub use sql::{Hold, Literal, Sql, Statement};
pub use statements::{Parameter, Statements, migrations};

use std::{
    sync::{
        Barrier,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// The three seconds that are promised of every answer, whatever hangs, and half as much again for a machine that has other
/// work to do. The next longer wait that a request could fall into, the five seconds of a connection to Postgres, is
/// still seen.
pub const IN_TIME: Duration = Duration::from_millis(4_500);

/// A mobile number that no other test of this run uses, in a range that belongs to nobody
/// (+1 415 555 …).
pub fn number() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("+1415555{:04}", NEXT.fetch_add(1, Ordering::Relaxed) % 10_000)
}

/// Numbers in bulk, for load: `index` up to 999,999, all different from [`number`]'s.
pub fn bulk_number(index: u32) -> String {
    format!("+1212{:07}", 2_000_000 + index)
}

/// Runs `call` on that many threads, all let go at the same moment, and gathers what each returns.
pub fn at_once<T: Send>(threads: usize, call: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let start = Barrier::new(threads);
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|index| {
                let (start, call) = (&start, &call);
                scope.spawn(move || {
                    start.wait();
                    call(index)
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Waits for what happens in its own time, such as after an answer.
#[track_caller]
pub fn eventually(what: &str, timeout: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + timeout;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen within {timeout:?}");
        thread::sleep(Duration::from_millis(5));
    }
}
