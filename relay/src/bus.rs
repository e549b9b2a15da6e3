//! Where accepted events go: to Kafka, or straight to the consumer.

pub(crate) mod in_process;
pub(crate) mod kafka;
mod kept;

use crate::telemetry::{Destination, IN_PROCESS};
use in_process::InProcess;
use kafka::Kafka;
pub(crate) use kept::Kept;
use otp_events::Event;
use std::sync::Arc;

/// What takes events. Each of its kinds keeps what it has accepted, whatever dies.
#[derive(Debug, Clone)]
pub(crate) enum Bus {
    /// A topic, read by the consumer and by whoever else wants to.
    Kafka(Arc<Kafka>),
    /// The consumer of this very process, through its ledger.
    InProcess(InProcess),
}

impl Bus {
    /// Hands over events and tells of each what became of it, in their order.
    pub(crate) async fn publish(&self, events: Vec<Event>) -> Vec<Kept> {
        match self {
            Self::Kafka(kafka) => kafka.publish(&events).await,
            Self::InProcess(in_process) => in_process.publish(events).await,
        }
    }

    /// Whether events can be handed over.
    pub(crate) fn is_up(&self) -> bool {
        match self {
            Self::Kafka(kafka) => kafka.is_up(),
            // The ledger is asked on its own.
            Self::InProcess(_) => true,
        }
    }

    /// How many partitions there are and how many of them this relay reads, once that is known.
    pub(crate) fn partitions(&self) -> Option<(i64, usize)> {
        match self {
            Self::Kafka(kafka) => kafka.partitions(),
            Self::InProcess(_) => None,
        }
    }

    /// For traces.
    pub(crate) fn destination(&self) -> Destination<'_> {
        match self {
            Self::Kafka(kafka) => Destination { system: "kafka", topic: kafka.topic(), partition: None },
            Self::InProcess(_) => IN_PROCESS,
        }
    }

    /// For people.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Kafka(_) => "kafka",
            Self::InProcess(_) => "in-process",
        }
    }
}
