//! Without Kafka: straight to the consumer of this process.

use crate::{bus::kept::Kept, consumer::Consumer, ledger};
use otp_events::Event;

/// Accepted is what the consumer has written down.
#[derive(Debug, Clone)]
pub(crate) struct InProcess {
    consumer: Consumer,
}

impl InProcess {
    pub(crate) fn new(consumer: Consumer) -> Self {
        Self { consumer }
    }

    pub(super) async fn publish(&self, events: Vec<Event>) -> Vec<Kept> {
        let count = events.len();
        let read = events.into_iter().map(|event| self.consumer.admit(event)).collect();
        let kept = match self.consumer.take(None, read).await {
            Ok(()) => Kept::Yes,
            // Said once by whoever looks after the ledger.
            Err(error) if error.is::<ledger::NotNow>() => Kept::NotNow,
            Err(error) => {
                tracing::error!("events cannot be written down: {error:#}");
                Kept::NotNow
            }
        };
        vec![kept; count]
    }
}
