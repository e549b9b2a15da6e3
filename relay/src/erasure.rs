//! Erasure: of a number that was erased, nothing is kept that was said before, in whatever order it comes.

use otp_events::Event;
use serde_json::Value;

/// What the erasures of a number cover. It says nothing of the number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Erasure {
    /// The newest code that was erased; 0 for none.
    pub(crate) version: i64,
    /// The sequence of an erasure that did not say which code that was; empty for none. Where it is said,
    /// the sequence does not count: it comes from clocks, and a version alone grows through an erasure.
    pub(crate) sequence: String,
}

impl Erasure {
    /// What `user.erased.v1` says. Whatever is wrong with its data, the number is to be forgotten.
    pub(crate) fn by(event: &Event) -> Self {
        match version_of(event) {
            Some(version) => Self { version, sequence: String::new() },
            None => Self { version: 0, sequence: event.sequence.clone().unwrap_or_default() },
        }
    }

    /// Whether it says which code was the newest.
    pub(crate) fn is_exact(&self) -> bool {
        self.version > 0
    }

    /// Whether what is known by this version and sequence was said before, and is not kept. What does not
    /// even say which code it is about, such as a damaged event, cannot show that it is newer.
    pub(crate) fn covers(&self, version: Option<i64>, sequence: Option<&str>) -> bool {
        version.is_none_or(|version| version <= self.version)
            || sequence.is_some_and(|sequence| !sequence.is_empty() && *sequence <= *self.sequence)
    }

    /// Whether this event was said before.
    pub(crate) fn covers_event(&self, event: &Event) -> bool {
        self.covers(version_of(event), event.sequence.as_deref())
    }
}

/// The version that an event states, whatever else its data is.
fn version_of(event: &Event) -> Option<i64> {
    event.data.as_ref()?.read::<Value>().ok()?.get("version")?.as_i64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use otp_events::{Data, EventType};
    use serde_json::json;

    fn erased(sequence: Option<&str>, data: Option<Value>) -> Event {
        let mut event = Event::new("0198c7a4", EventType::Erased);
        event.sequence = sequence.map(str::to_owned);
        event.data = data.as_ref().map(Data::of);
        event
    }

    #[test]
    fn a_stated_version_alone_tells_before_from_after() {
        let erasure = Erasure::by(&erased(Some("20"), Some(json!({ "version": 7 }))));
        assert!(erasure.is_exact());
        // Clocks may differ: the sequence of a newer code may be smaller.
        for sequence in [None, Some(""), Some("10"), Some("30")] {
            assert!(erasure.covers(Some(6), sequence) && erasure.covers(Some(7), sequence), "{sequence:?}");
            assert!(!erasure.covers(Some(8), sequence), "{sequence:?}");
            assert!(erasure.covers(None, sequence), "{sequence:?}");
        }
    }

    #[test]
    fn without_a_version_the_sequence_tells_before_from_after() {
        for data in [None, Some(json!({})), Some(json!("none")), Some(json!({ "version": "7" }))] {
            let erasure = Erasure::by(&erased(Some("20"), data.clone()));
            assert!(!erasure.is_exact(), "{data:?}");
            assert!(erasure.covers(Some(7), Some("10")) && erasure.covers(Some(7), Some("20")), "{data:?}");
            assert!(!erasure.covers(Some(7), Some("30")), "{data:?}");
            assert!(!erasure.covers(Some(7), None) && !erasure.covers(Some(7), Some("")), "{data:?}");
        }
        assert_eq!(Erasure::by(&erased(None, None)), Erasure::default());
    }
}
