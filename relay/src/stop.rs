//! Coming to an end in steps: others are told, nothing new is begun, then what is under way is done.

use anyhow::Result;
use std::{
    mem, process,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

/// Told to everybody who runs until the end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    announced: CancellationToken,
    stopping: CancellationToken,
    drained: CancellationToken,
    /// Why, if not because somebody wants it.
    reason: Arc<OnceLock<String>>,
}

impl Stop {
    /// Begins at SIGTERM, after it was announced for so long, or at SIGINT, which does not wait for that: somebody
    /// sits in front of it. The same signal once more ends the process at once.
    pub(crate) fn at_signals(&self, drain: Duration) -> Result<()> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let stop = self.clone();
        tokio::spawn(async move {
            let (mut interrupted, mut terminated) = (false, false);
            loop {
                let draining = stop.is_announced() && !stop.is_stopping();
                tokio::select! {
                    _ = interrupt.recv() => {
                        if mem::replace(&mut interrupted, true) {
                            process::exit(130);
                        }
                        stop.begin();
                    }
                    _ = terminate.recv() => {
                        if mem::replace(&mut terminated, true) {
                            process::exit(143);
                        }
                        // Whoever asks for the end on a keyboard often sends both.
                        if interrupted || drain.is_zero() {
                            stop.begin();
                        } else {
                            stop.announce();
                            let seconds = drain.as_secs();
                            tracing::info!("not ready any more; events are taken for another {seconds} s");
                        }
                    }
                    () = sleep(drain), if draining => stop.begin(),
                }
            }
        });
        Ok(())
    }

    /// Others are to hear of it. Everything goes on.
    pub(crate) fn announce(&self) {
        self.announced.cancel();
    }

    /// Nothing new is to be begun.
    pub(crate) fn begin(&self) {
        self.announced.cancel();
        self.stopping.cancel();
    }

    /// Begins because of something that only another start mends.
    pub(crate) fn fail(&self, reason: String) {
        let _ = self.reason.set(reason);
        self.begin();
    }

    /// What was said to [`fail`](Self::fail) first.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.reason.get().map(String::as_str)
    }

    /// Nobody hands anything over any more.
    pub(crate) fn finish(&self) {
        self.begin();
        self.drained.cancel();
    }

    /// Waits for [`begin`](Self::begin).
    pub(crate) async fn stopped(&self) {
        self.stopping.cancelled().await;
    }

    /// Whether [`announce`](Self::announce) was called.
    pub(crate) fn is_announced(&self) -> bool {
        self.announced.is_cancelled()
    }

    /// Whether [`begin`](Self::begin) was called.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Waits for [`finish`](Self::finish).
    pub(crate) async fn drained(&self) {
        self.drained.cancelled().await;
    }
}
