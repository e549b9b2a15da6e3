//! What comes in as an event: JSON over HTTP, an event or a batch of them; or a Kafka record, as lines of
//! `header: value`, an empty line and the value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use otp_events::{Event, EventType, Record};
use otp_seal::{EventKeys, SignatureError};
use std::sync::LazyLock;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(batch) = otp_events::read_batch(bytes) {
        batch.events.iter().for_each(|(_, event)| over_http(event));
    }
    match std::str::from_utf8(bytes).map(Event::read) {
        Ok(Ok(event)) => over_http(&event),
        _ => from_a_topic(bytes),
    }
});

/// What the intake takes, the consumer can read: it would hold up its partition otherwise.
fn over_http(event: &Event) {
    let _ = (event.code(), event.suspension());
    let written = serde_json::to_string(event).expect("an event is JSON");
    assert_eq!(Event::read(&written).as_ref(), Ok(event));
    checks_to_the_end(event);
    let read = Record::from(event).event().expect("a record of an event is an event");
    assert_eq!((&read.id, &read.source, &read.r#type), (&event.id, &event.source, &event.r#type));
    assert_eq!((&read.subject, &read.sequence, &read.time), (&event.subject, &event.sequence, &event.time));
    assert_eq!(read.code().is_ok(), event.code().is_ok());
    again(&read);
}

/// Signed by the component, it checks wherever it comes by: over HTTP, in a record, and in the ledger.
fn checks_to_the_end(event: &Event) {
    static KEYS: LazyLock<EventKeys> = LazyLock::new(EventKeys::development);
    let mut event = event.clone();
    event.sign(&KEYS);
    let posted = serde_json::to_string(&event).expect("an event is JSON");
    let posted = Event::read(&posted).expect("it was one without the signature");
    let read = Record::from(&posted).event().expect("a record of an event is an event");
    let kept = serde_json::to_string(&read).expect("an event is JSON");
    let kept: Event = serde_json::from_str(&kept).expect("it was written a moment ago");
    for event in [&posted, &read, &kept] {
        assert_eq!(event.check_signature(&KEYS), Ok(()));
    }
    let other = Event { id: format!("{}0", event.id), ..kept };
    assert_eq!(other.check_signature(&KEYS), Err(SignatureError::Refused));
}

fn from_a_topic(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (head, value) = text.split_once("\n\n").unwrap_or((&text, ""));
    let headers = head.lines().filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let record = Record { key: String::new(), headers, value: value.as_bytes().to_vec() };
    if let Ok(event) = record.event() {
        let _ = event.code();
        again(&event);
    }
}

/// A record that was read and is written again, as into the dead-letter topic, says the same.
fn again(event: &Event) {
    assert_eq!(EventType::from(event.r#type.as_str().to_owned()), event.r#type);
    let back = Record::from(event).event().expect("it was read from one");
    assert_eq!(back, with_content_type(event));
}

/// A record always says what its value is.
fn with_content_type(event: &Event) -> Event {
    let mut event = event.clone();
    event.datacontenttype.get_or_insert_with(|| "application/json".to_owned());
    event
}
