//! What comes in as an event: JSON over HTTP, an event or a batch of them; or a Kafka record, as lines of
//! `header: value`, an empty line and the value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use otp_events::{Event, EventType, Record};
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(batch) = otp_events::read_batch(bytes) {
        batch.events.iter().for_each(|(_, event)| over_http(event));
    }
    match serde_json::from_slice::<Value>(bytes) {
        Ok(event) => {
            Event::read(event).iter().for_each(over_http);
        }
        Err(_) => from_a_topic(bytes),
    }
});

/// What the intake takes, the consumer can read: it would hold up its partition otherwise.
fn over_http(event: &Event) {
    let _ = (event.code(), event.suspension());
    let written = serde_json::to_value(event).expect("an event is JSON");
    assert_eq!(Event::read(written).as_ref(), Ok(event));
    let read = Record::from(event).event().expect("a record of an event is an event");
    assert_eq!((&read.id, &read.source, &read.r#type), (&event.id, &event.source, &event.r#type));
    assert_eq!((&read.subject, &read.sequence, &read.time), (&event.subject, &event.sequence, &event.time));
    assert_eq!(read.code().is_ok(), event.code().is_ok());
    again(&read);
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
    // Not the data itself: a fraction may lose its last digit each time it is read.
    assert_eq!(Event { data: None, ..back.clone() }, Event { data: None, ..with_content_type(event) });
    assert_eq!(back.data.is_some(), event.data.is_some());
}

/// A record always says what its value is.
fn with_content_type(event: &Event) -> Event {
    let mut event = event.clone();
    event.datacontenttype.get_or_insert_with(|| "application/json".to_owned());
    event
}
