//! Reading a batch that came from outside.

use crate::{
    batch::{MAX_BATCH_BYTES, MAX_BATCH_EVENTS, Rejected},
    event::Event,
};
use serde_json::{Value, value::RawValue};

/// Largest event, in bytes. Many fit into what a broker takes at once by default.
pub const MAX_EVENT_BYTES: usize = 256 * 1024;

/// A batch that was read: each of its entries is in one of the lists.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    /// The events that can go on, in their order, and which ones of the batch they were, counted from 0.
    pub events: Vec<(usize, Event)>,
    /// What is none, in its order.
    pub rejected: Vec<Rejected>,
}

/// Why bytes are no batch at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// Not a JSON array.
    #[error("not a JSON array")]
    NoBatch,
    /// More events or bytes than a batch may have.
    #[error("more than {MAX_BATCH_EVENTS} events or {MAX_BATCH_BYTES} bytes")]
    TooLarge,
}

/// Reads a batch in the JSON batch format of CloudEvents, as `POST /events` has it. Whatever the bytes are,
/// one bad event does not keep the others out.
pub fn read_batch(bytes: &[u8]) -> Result<Batch, NotTaken> {
    if bytes.len() > MAX_BATCH_BYTES {
        return Err(NotTaken::TooLarge);
    }
    let entries: Vec<&RawValue> = serde_json::from_slice(bytes).map_err(|_| NotTaken::NoBatch)?;
    if entries.len() > MAX_BATCH_EVENTS {
        return Err(NotTaken::TooLarge);
    }
    let mut batch = Batch { events: Vec::with_capacity(entries.len()), rejected: Vec::new() };
    for (index, entry) in entries.into_iter().enumerate() {
        let read = if entry.get().len() > MAX_EVENT_BYTES {
            Err(format!("it has more than {MAX_EVENT_BYTES} bytes"))
        } else {
            Event::read(entry.get()).map_err(|malformed| malformed.to_string())
        };
        match read {
            Ok(event) => batch.events.push((index, event)),
            Err(reason) => {
                batch.rejected.push(Rejected { id: id_of(entry), index: Some(index), reason });
            }
        }
    }
    Ok(batch)
}

/// The id of what is no event, if it has one.
fn id_of(entry: &RawValue) -> Option<String> {
    let value: Value = serde_json::from_str(entry.get()).ok()?;
    value.get("id")?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Record;
    use proptest::{prelude::*, sample::select};
    use serde_json::{Map, json};

    /// JSON of every kind, its members often named as attributes are.
    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
            select(vec!["1.0", "otp.generated.v1", "user.erased.v1", "spin-otp"]).prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((any_name(), inner), 0..6)
                    .prop_map(|members| members.into_iter().collect::<Map<_, _>>().into()),
            ]
        })
    }

    fn any_name() -> impl Strategy<Value = String> {
        const NAMES: [&str; 13] = [
            "specversion",
            "id",
            "source",
            "type",
            "subject",
            "time",
            "datacontenttype",
            "sequence",
            "requestid",
            "application",
            "signature",
            "data",
            "version",
        ];
        prop_oneof![select(NAMES.to_vec()).prop_map(str::to_owned), "[a-z0-9_]{0,8}", ".{0,8}"]
    }

    /// An event, with some of its members replaced by anything.
    fn nearly_an_event() -> impl Strategy<Value = Value> {
        prop::collection::vec((any_name(), any_json()), 0..3).prop_map(|members| {
            let mut event =
                json!({ "specversion": "1.0", "id": "1", "source": "spin-otp", "type": "otp.resent.v1" });
            for (name, value) in members {
                event[name] = value;
            }
            event
        })
    }

    /// What can be asserted of any batch.
    fn is_read_to_its_end(bytes: &[u8]) -> Result<(), TestCaseError> {
        let Ok(batch) = read_batch(bytes) else { return Ok(()) };
        let entries: Vec<Value> = serde_json::from_slice(bytes).unwrap();
        let taken = batch.events.iter().map(|(index, _)| *index);
        let mut indices: Vec<_> =
            taken.chain(batch.rejected.iter().filter_map(|rejected| rejected.index)).collect();
        indices.sort_unstable();
        prop_assert_eq!(indices, (0..entries.len()).collect::<Vec<_>>(), "each is told of once");
        for (index, event) in &batch.events {
            prop_assert_eq!(entries[*index]["id"].as_str(), Some(&*event.id));
            let back = Record::from(event).event();
            prop_assert!(back.as_ref().is_ok_and(|back| back.id == event.id), "{:?}: {:?}", event, back);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            is_read_to_its_end(&bytes)?;
        }

        #[test]
        fn of_any_json_each_entry_is_taken_or_rejected_and_what_is_taken_can_be_read_from_its_record(
            entries in prop::collection::vec(prop_oneof![any_json(), nearly_an_event()], 0..6),
        ) {
            is_read_to_its_end(json!(entries).to_string().as_bytes())?;
        }
    }

    #[test]
    fn a_batch_of_too_many_or_of_too_much_is_not_taken() {
        let many = |count: usize| json!(vec![json!({}); count]).to_string();
        assert_eq!(read_batch(many(MAX_BATCH_EVENTS).as_bytes()).unwrap().rejected.len(), MAX_BATCH_EVENTS);
        assert_eq!(read_batch(many(MAX_BATCH_EVENTS + 1).as_bytes()), Err(NotTaken::TooLarge));
        let padded = |length: usize| format!("[]{}", " ".repeat(length - 2));
        assert_eq!(read_batch(padded(MAX_BATCH_BYTES).as_bytes()), Ok(Batch::default()));
        assert_eq!(read_batch(padded(MAX_BATCH_BYTES + 1).as_bytes()), Err(NotTaken::TooLarge));
        assert_eq!(read_batch(b"{}"), Err(NotTaken::NoBatch));
    }
}
