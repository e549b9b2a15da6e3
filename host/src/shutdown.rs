//! Coming to an end without losing a request: first others are told, then nothing new is taken in.
//!
//! Spin ends at once when it is told to, and leaves the telling to a `preStop` hook of Kubernetes. Here the
//! host does it: while it drains it answers its readiness path with 503 and serves everything else, so that
//! whoever balances hears of it before the first request would be lost.

use anyhow::{Context, Result};
use std::time::Duration;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

/// How far the host is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    /// It serves, and says that it will not for long.
    Draining,
    /// It takes nothing new.
    Stopping,
}

/// Tells everybody who has to know how far the host is.
#[derive(Debug, Clone)]
pub(crate) struct Shutdown(watch::Receiver<Phase>);

impl Shutdown {
    /// Begins at SIGTERM, which drains for so long first, or at SIGINT, which does not: somebody sits in front
    /// of it. SIGINT ends a drain, too. The same signal once more ends the process at once.
    pub(crate) fn at_signals(drain: Duration) -> Result<Self> {
        let interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        let terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let (sender, receiver) = watch::channel(Phase::Serving);
        tokio::spawn(async move { run(interrupt, terminate, drain, &sender).await });
        Ok(Self(receiver))
    }

    /// Whether it has begun.
    pub(crate) fn has_begun(&self) -> bool {
        *self.0.borrow() > Phase::Serving
    }

    /// Completes when nothing new is to be taken in.
    pub(crate) async fn stopping(&mut self) {
        // An error is a host that is gone, and that is the end, too.
        let _ = self.0.wait_for(|phase| *phase == Phase::Stopping).await;
    }
}

async fn run(mut interrupt: Signal, mut terminate: Signal, drain: Duration, phase: &watch::Sender<Phase>) {
    let (mut interrupted, mut terminated) = (false, false);
    loop {
        let draining = *phase.borrow() == Phase::Draining;
        tokio::select! {
            _ = interrupt.recv() => {
                if std::mem::replace(&mut interrupted, true) {
                    std::process::exit(130);
                }
                phase.send_replace(Phase::Stopping);
            }
            _ = terminate.recv() => {
                if std::mem::replace(&mut terminated, true) {
                    std::process::exit(143);
                }
                // Whoever asks for the end on a keyboard often sends both.
                if interrupted || drain.is_zero() {
                    phase.send_replace(Phase::Stopping);
                } else {
                    phase.send_replace(Phase::Draining);
                    tracing::info!("not ready any more; requests are served for another {} s", drain.as_secs());
                }
            }
            () = tokio::time::sleep(drain), if draining => {
                phase.send_replace(Phase::Stopping);
            }
        }
    }
}
