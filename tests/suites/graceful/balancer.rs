//! A load balancer as plain as they come, and a steady load through it: whoever says to be ready gets requests, by
//! turns, and none is sent twice.

use crate::line::Line;
use harness::bulk_number;
use serde_json::json;
use std::{
    io::ErrorKind,
    sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Requests that a load is worth the name with.
pub(crate) const ENOUGH: usize = 500;

/// Between two looks at a host.
const LOOK: Duration = Duration::from_millis(50);

/// Connections of the load, all at work at the same time.
const CLIENTS: usize = 32;

/// Between two requests of a connection.
const PACE: Duration = Duration::from_millis(50);

/// Longest that a load may take, whatever happens.
const LIMIT: Duration = Duration::from_secs(60);

/// The hosts, and which of them are ready.
#[derive(Debug)]
pub(crate) struct Balancer {
    hosts: Vec<(String, AtomicBool)>,
    turn: AtomicUsize,
}

/// What was sent and what came of it.
#[derive(Debug, Default)]
pub(crate) struct Load {
    pub(crate) sent: usize,
    /// The codes that were made, by their ids.
    pub(crate) accepted: Vec<String>,
    /// Why requests failed.
    pub(crate) failed: Vec<String>,
    took: Vec<Duration>,
}

impl Balancer {
    /// Before these.
    pub(crate) fn new(hosts: &[&str]) -> Self {
        let hosts = hosts.iter().map(|host| ((*host).to_owned(), AtomicBool::new(false))).collect();
        Self { hosts, turn: AtomicUsize::new(0) }
    }

    /// Waits until this host is said to be ready.
    pub(crate) fn wait_for(&self, host: usize) {
        harness::eventually("readiness", Duration::from_secs(10), || {
            self.hosts[host].1.load(Ordering::SeqCst)
        });
    }

    /// Sends requests while `trouble` goes on.
    pub(crate) fn under_load(&self, trouble: impl FnOnce()) -> Load {
        let (over, loaded) = (AtomicBool::new(false), AtomicBool::new(false));
        let number = AtomicU32::new(0);
        let until = Instant::now() + LIMIT;
        let goes_on = |over: &AtomicBool| !over.load(Ordering::SeqCst) && Instant::now() < until;
        thread::scope(|scope| {
            for (address, ready) in &self.hosts {
                let (over, goes_on) = (&loaded, &goes_on);
                scope.spawn(move || {
                    while goes_on(over) {
                        // On a connection of its own each time: that the host takes new ones is part of it. One that
                        // is slow to answer, on a busy machine, is what it was.
                        match Line::to(address).get("/readyz") {
                            Ok(answer) => ready.store(answer.status == 200, Ordering::SeqCst),
                            Err(error)
                                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                            Err(_) => ready.store(false, Ordering::SeqCst),
                        }
                        thread::sleep(LOOK);
                    }
                });
            }
            (0..self.hosts.len()).for_each(|host| self.wait_for(host));
            let clients: Vec<_> = (0..CLIENTS)
                .map(|index| {
                    let (over, goes_on, number) = (&over, &goes_on, &number);
                    scope.spawn(move || {
                        // Not all at the same moment.
                        thread::sleep(PACE * u32::try_from(index).unwrap() / u32::try_from(CLIENTS).unwrap());
                        let mut lines: Vec<_> =
                            self.hosts.iter().map(|(address, _)| Line::to(address)).collect();
                        let mut load = Load::default();
                        while goes_on(over) {
                            let start = Instant::now();
                            self.request(&mut lines, number.fetch_add(1, Ordering::Relaxed), &mut load);
                            thread::sleep(PACE.saturating_sub(start.elapsed()));
                        }
                        load
                    })
                })
                .collect();
            thread::sleep(Duration::from_millis(500));
            trouble();
            thread::sleep(Duration::from_millis(500));
            while (number.load(Ordering::Relaxed) as usize) <= ENOUGH + CLIENTS && goes_on(&over) {
                thread::sleep(LOOK);
            }
            over.store(true, Ordering::SeqCst);
            let mut load = Load::default();
            for client in clients {
                let part = client.join().unwrap();
                load.sent += part.sent;
                load.accepted.extend(part.accepted);
                load.failed.extend(part.failed);
                load.took.extend(part.took);
            }
            loaded.store(true, Ordering::SeqCst);
            load.took.sort();
            load
        })
    }

    fn request(&self, lines: &mut [Line], number: u32, load: &mut Load) {
        load.sent += 1;
        let Some(host) = self.pick() else {
            return load.failed.push("no host is ready".to_owned());
        };
        let start = Instant::now();
        let answer = lines[host].post("/generate-otp", &json!({ "mobileNumber": bulk_number(number) }));
        load.took.push(start.elapsed());
        match answer {
            Ok(answer) if answer.status == 201 => {
                load.accepted.push(answer.json()["otpId"].as_str().unwrap().to_owned());
            }
            Ok(answer) => load.failed.push(format!("host {host}: {answer:?}")),
            Err(error) => load.failed.push(format!("host {host}: {error}")),
        }
    }

    /// The next one that is ready.
    fn pick(&self) -> Option<usize> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let hosts = (0..self.hosts.len()).map(|step| (turn + step) % self.hosts.len());
        hosts.into_iter().find(|host| self.hosts[*host].1.load(Ordering::SeqCst))
    }
}

impl Load {
    /// How long all but so many percent of the requests took at most.
    pub(crate) fn took(&self, percent: usize) -> Duration {
        let last = self.took.len().saturating_sub(1);
        self.took.get(last * percent / 100).copied().unwrap_or_default()
    }
}
