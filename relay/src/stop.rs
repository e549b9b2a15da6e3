//! Coming to an end in two steps: nothing new is begun, then what is under way is done.

use tokio_util::sync::CancellationToken;

/// Told to everybody who runs until the end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    stopping: CancellationToken,
    drained: CancellationToken,
}

impl Stop {
    /// Nothing new is to be begun.
    pub(crate) fn begin(&self) {
        self.stopping.cancel();
    }

    /// Nobody hands anything over any more.
    pub(crate) fn finish(&self) {
        self.stopping.cancel();
        self.drained.cancel();
    }

    /// Waits for [`begin`](Self::begin).
    pub(crate) async fn stopped(&self) {
        self.stopping.cancelled().await;
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
