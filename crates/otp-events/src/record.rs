//! An event as a Kafka record, in binary content mode.

use crate::{
    data::Data,
    event::{Event, JSON, Malformed},
    event_type::EventType,
};
use serde_json::{Map, Value};

const CONTENT_TYPE: &str = "content-type";

/// A record (Kafka Protocol Binding for CloudEvents 1.0.2, section 3.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The subject, or the id of an event without one.
    pub key: String,
    /// Each attribute as `ce_NAME`, and `content-type`.
    pub headers: Vec<(String, String)>,
    /// The data.
    pub value: Vec<u8>,
}

impl From<&Event> for Record {
    fn from(event: &Event) -> Self {
        let mut headers = Vec::with_capacity(12);
        let mut put = |name: &str, value: &str| headers.push((format!("ce_{name}"), value.to_owned()));
        put("specversion", &event.specversion);
        put("id", &event.id);
        put("source", &event.source);
        put("type", event.r#type.as_str());
        let optional = [
            ("subject", &event.subject),
            ("time", &event.time),
            ("sequence", &event.sequence),
            ("traceparent", &event.traceparent),
            ("requestid", &event.requestid),
            ("application", &event.application),
            ("signature", &event.signature),
        ];
        optional.iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).for_each(
            |(name, value)| {
                put(name, value);
            },
        );
        for (name, value) in &event.extensions {
            match value {
                Value::Null => {}
                Value::String(text) => put(name, text),
                other => put(name, &other.to_string()),
            }
        }
        headers.push((
            CONTENT_TYPE.to_owned(),
            event.datacontenttype.clone().unwrap_or_else(|| JSON.to_owned()),
        ));
        Self {
            key: event.subject.clone().unwrap_or_else(|| event.id.clone()),
            headers,
            // An event without data is a record without a value.
            value: event.data.as_ref().map(|data| data.as_str().into()).unwrap_or_default(),
        }
    }
}

impl Record {
    /// The value of a header, the last one of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().rev().find(|(other, _)| other == name).map(|(_, value)| &**value)
    }

    /// Reads the event back.
    pub fn event(&self) -> Result<Event, Malformed> {
        let mut event = Event::new("", EventType::Other(String::new()));
        event.source.clear();
        event.specversion.clear();
        let mut extensions = Map::new();
        for (header, value) in &self.headers {
            let value = value.clone();
            match header.strip_prefix("ce_") {
                Some("specversion") => event.specversion = value,
                Some("id") => event.id = value,
                Some("source") => event.source = value,
                Some("type") => event.r#type = value.into(),
                Some("subject") => event.subject = Some(value),
                Some("time") => event.time = Some(value),
                Some("sequence") => event.sequence = Some(value),
                Some("traceparent") => event.traceparent = Some(value),
                Some("requestid") => event.requestid = Some(value),
                Some("application") => event.application = Some(value),
                Some("signature") => event.signature = Some(value),
                Some(name) => drop(extensions.insert(name.to_owned(), Value::String(value))),
                None if header == CONTENT_TYPE => event.datacontenttype = Some(value),
                // Whatever else somebody has put there.
                None => {}
            }
        }
        event.extensions = extensions;
        if !self.value.is_empty() {
            let data = Data::parse(&self.value).ok_or(Malformed::Data)?;
            // Over HTTP, null is as good as left out.
            event.data = Some(data).filter(|data| data.as_str() != "null");
        }
        event.check()?;
        Ok(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn event() -> Event {
        let mut event = Event::new("0198c7a4", EventType::Generated);
        event.subject = Some("9eeec548fe31b7e38fcb0f946ea5c649".to_owned());
        event.sequence = Some("00000001795333302123".to_owned());
        event.datacontenttype = Some(JSON.to_owned());
        event.data = Some(Data::of(&json!({ "mobileNumber": "+14155550123", "version": 1 })));
        event
    }

    #[test]
    fn an_event_goes_through_a_record_and_back() {
        let mut event = event();
        event.requestid = Some("a request".to_owned());
        event.application = Some("mobile-app".to_owned());
        event.signature = Some("k1:00".to_owned());
        event.extensions.insert("tenant".to_owned(), json!("acme"));
        let record = Record::from(&event);
        assert_eq!(record.key, "9eeec548fe31b7e38fcb0f946ea5c649");
        assert_eq!(record.header("ce_type"), Some("otp.generated.v1"));
        assert_eq!(record.header("ce_application"), Some("mobile-app"));
        assert_eq!(record.header("content-type"), Some(JSON));
        assert_eq!(record.event().unwrap(), event);
    }

    #[test]
    fn a_number_becomes_text_for_a_header_has_no_types() {
        let mut event = event();
        event.extensions.insert("priority".to_owned(), json!(7));
        let back = Record::from(&event).event().unwrap();
        assert_eq!(back.extensions["priority"], json!("7"));
    }

    #[test]
    fn an_event_without_a_subject_has_its_id_for_a_key() {
        assert_eq!(Record::from(&Event { subject: None, ..event() }).key, "0198c7a4");
    }

    #[test]
    fn what_is_no_event_is_refused() {
        let record = Record::from(&event());
        assert_eq!(Record { headers: Vec::new(), ..record.clone() }.event(), Err(Malformed::Version));
        assert_eq!(Record { value: b"no json".to_vec(), ..record }.event(), Err(Malformed::Data));
    }

    proptest! {
        #[test]
        fn records_of_any_kind_never_panic(
            headers in prop::collection::vec((".{0,12}", ".{0,12}"), 0..8),
            value in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let _ = Record { key: String::new(), headers, value }.event();
        }
    }
}
