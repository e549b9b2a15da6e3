//! Whether events are the component's. Their signatures are checked before anything is done with them.

use crate::metrics::Metrics;
use otp_events::{Batch, Event, Rejected};
use otp_seal::{EventKeys, SignatureError};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// After so long without a batch like it, the next one whose events all fail is news again.
const NEWS: Duration = Duration::from_secs(60);

/// Checks signatures, and counts those that do not hold.
#[derive(Debug)]
pub(crate) struct Signatures {
    keys: EventKeys,
    metrics: Arc<Metrics>,
    /// When a batch last came of which no event checked.
    differed_at: Mutex<Option<Instant>>,
}

/// Where an event is met.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    /// It was posted.
    Intake,
    /// It was read, from the topic or from what the intake has passed on.
    Consumer,
}

/// Not one event of a batch checks: it was signed with other keys, or has not come from the component.
#[derive(Debug)]
pub(crate) struct KeysDiffer;

impl Signatures {
    pub(crate) fn new(keys: EventKeys, metrics: Arc<Metrics>) -> Self {
        Self { keys, metrics, differed_at: Mutex::default() }
    }

    /// Whether an event is the component's, and as it was when it was signed.
    pub(crate) fn check(&self, event: &Event, place: Place) -> Result<(), SignatureError> {
        let checked = event.check_signature(&self.keys);
        if let Err(error) = checked {
            let place = match place {
                Place::Intake => "intake",
                Place::Consumer => "consumer",
            };
            let reason = match error {
                SignatureError::Missing => "missing",
                SignatureError::UnknownKey => "unknown_key",
                SignatureError::Refused => "refused",
            };
            self.metrics.signature_failures.with_label_values(&[place, reason]).inc();
        }
        checked
    }

    /// Rejects the events of a batch that do not check. Where none does, none is rejected: what is signed with a key
    /// that is missing here is good as soon as the key is set, and its sender has to keep it until then.
    pub(crate) fn sift(&self, batch: Batch) -> Result<Batch, KeysDiffer> {
        let Batch { events, mut rejected } = batch;
        let mut good = Vec::with_capacity(events.len());
        let some = !events.is_empty();
        for (index, event) in events {
            match self.check(&event, Place::Intake) {
                Ok(()) => good.push((index, event)),
                Err(error) => {
                    rejected.push(Rejected {
                        id: Some(event.id),
                        index: Some(index),
                        reason: error.to_string(),
                    });
                }
            }
        }
        if some && good.is_empty() {
            self.say_that_keys_differ(&rejected);
            return Err(KeysDiffer);
        }
        Ok(Batch { events: good, rejected })
    }

    /// Says it when it begins, and not with each batch.
    fn say_that_keys_differ(&self, rejected: &[Rejected]) {
        let mut differed_at = self.differed_at.lock().unwrap_or_else(PoisonError::into_inner);
        if differed_at.replace(Instant::now()).is_none_or(|last| last.elapsed() > NEWS) {
            let reason = rejected.last().map(|rejected| &*rejected.reason).unwrap_or_default();
            tracing::error!(
                "no event of a batch has a signature that holds, and none is taken: {reason}; the component's \
                 event_keys and RELAY_EVENT_KEYS need a key in common. Until then its events wait in its outbox"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use otp_events::EventType;

    fn event(id: &str, keys: Option<&EventKeys>) -> Event {
        let mut event = Event::new(id, EventType::Generated);
        if let Some(keys) = keys {
            event.sign(keys);
        }
        event
    }

    fn sifted(events: Vec<Event>) -> (Result<Batch, KeysDiffer>, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new().unwrap());
        let signatures = Signatures::new(EventKeys::development(), Arc::clone(&metrics));
        let batch = Batch { events: events.into_iter().enumerate().collect(), rejected: Vec::new() };
        (signatures.sift(batch), metrics)
    }

    #[test]
    fn one_bad_event_among_good_ones_is_rejected_by_itself() {
        let keys = EventKeys::development();
        let (batch, metrics) =
            sifted(vec![event("1", Some(&keys)), event("2", None), event("3", Some(&keys))]);
        let Batch { events, rejected } = batch.unwrap();
        assert_eq!(
            events.iter().map(|(index, event)| (*index, &*event.id)).collect::<Vec<_>>(),
            [(0, "1"), (2, "3")]
        );
        assert_eq!(
            rejected,
            [Rejected {
                id: Some("2".to_owned()),
                index: Some(1),
                reason: SignatureError::Missing.to_string(),
            }]
        );
        assert_eq!(metrics.signature_failures.with_label_values(&["intake", "missing"]).get(), 1);
    }

    #[test]
    fn where_no_event_checks_the_keys_differ() {
        let other = EventKeys::parse("k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
        let (batch, metrics) = sifted(vec![event("1", Some(&other)), event("2", Some(&other))]);
        assert!(batch.is_err());
        assert_eq!(metrics.signature_failures.with_label_values(&["intake", "unknown_key"]).get(), 2);
        assert_eq!(sifted(Vec::new()).0.unwrap(), Batch::default());
    }
}
