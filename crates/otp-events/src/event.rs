//! An event in the JSON format of CloudEvents.

use crate::{
    data::{CodeData, SuspensionData},
    event_type::EventType,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The version of CloudEvents.
pub const SPEC_VERSION: &str = "1.0";

/// Who says it, unless it is said otherwise.
pub const SOURCE: &str = "spin-otp";

/// Longest id, source, type or subject that is taken, in bytes. They become headers and keys.
const MAX_ATTRIBUTE: usize = 256;

/// An event (CloudEvents 1.0.2, JSON format 1.0.2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// `1.0`
    pub specversion: String,
    /// The same for every copy of this event, and for no other.
    pub id: String,
    /// Who says it.
    pub source: String,
    /// What it says.
    pub r#type: EventType,
    /// The keyed index of the number. Also the key on Kafka, so that one number's events stay in one
    /// partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// When it happened, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// What `data` is; JSON where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datacontenttype: Option<String>,
    /// Grows with every event of one subject, and sorts as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<String>,
    /// W3C trace context of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The request's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requestid: Option<String>,
    /// The name of the API key that the request came with, see [`is_api_key_name`]. One of another form is
    /// passed on, too: an event with an odd name still has a code to deliver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apikeyname: Option<String>,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
    /// Attributes that this version does not know, as they came.
    #[serde(flatten)]
    pub extensions: Map<String, Value>,
}

/// Longest name of an API key.
const MAX_API_KEY_NAME: usize = 64;

/// Whether an API key can have this name: 1 to 64 of `a-z A-Z 0-9 - _`.
pub fn is_api_key_name(name: &str) -> bool {
    (1..=MAX_API_KEY_NAME).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// Why something is no event. It repeats nothing of what was sent.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Malformed {
    /// Not an object with the attributes that CloudEvents requires as strings.
    #[error("not a CloudEvent: it needs specversion, id, source and type, as strings")]
    Form,
    /// A record whose value is no JSON.
    #[error("the data is not JSON")]
    Data,
    /// Another version of CloudEvents.
    #[error("specversion is not {SPEC_VERSION}")]
    Version,
    /// An attribute that is empty, too long, or cannot be a header.
    #[error("{0} is empty, longer than {MAX_ATTRIBUTE} bytes, or not printable ASCII")]
    Attribute(&'static str),
    /// A name that CloudEvents does not allow.
    #[error("an attribute's name is not made of lower-case letters and digits")]
    Name,
    /// An attribute that is no string, number or boolean.
    #[error("an attribute is neither a string, a whole number nor a boolean")]
    Value,
}

impl Event {
    /// An event of this application, with nothing in it yet.
    pub fn new(id: impl Into<String>, r#type: EventType) -> Self {
        Self {
            specversion: SPEC_VERSION.to_owned(),
            id: id.into(),
            source: SOURCE.to_owned(),
            r#type,
            subject: None,
            time: None,
            datacontenttype: None,
            sequence: None,
            traceparent: None,
            requestid: None,
            apikeyname: None,
            data: None,
            extensions: Map::new(),
        }
    }

    /// Reads an event that came from outside, and checks that it can go on as a record.
    pub fn read(value: Value) -> Result<Self, Malformed> {
        let event: Self = serde_json::from_value(value).map_err(|_| Malformed::Form)?;
        event.check()?;
        Ok(event)
    }

    fn check(&self) -> Result<(), Malformed> {
        if self.specversion != SPEC_VERSION {
            return Err(Malformed::Version);
        }
        let printable = |text: &str| text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        let required = [("id", &*self.id), ("source", &*self.source), ("type", self.r#type.as_str())];
        let optional = [
            ("subject", &self.subject),
            ("time", &self.time),
            ("datacontenttype", &self.datacontenttype),
            ("sequence", &self.sequence),
            ("traceparent", &self.traceparent),
            ("requestid", &self.requestid),
            ("apikeyname", &self.apikeyname),
        ];
        let given = optional.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?)));
        for (name, value) in required.into_iter().chain(given) {
            if !(1..=MAX_ATTRIBUTE).contains(&value.len()) || !printable(value) {
                return Err(Malformed::Attribute(name));
            }
        }
        for (name, value) in &self.extensions {
            if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_') {
                return Err(Malformed::Name);
            }
            match value {
                Value::String(_) | Value::Bool(_) | Value::Null => {}
                Value::Number(number) if number.is_i64() => {}
                _ => return Err(Malformed::Value),
            }
        }
        Ok(())
    }

    /// What it says about a code. Fields that this version does not know are left out here; they are
    /// still in [`data`](Self::data).
    pub fn code(&self) -> Result<CodeData, serde_json::Error> {
        self.data.as_ref().map(CodeData::deserialize).transpose().map(Option::unwrap_or_default)
    }

    /// What it says about a range of numbers, if it is of [`EventType::DestinationSuspended`].
    pub fn suspension(&self) -> Result<SuspensionData, serde_json::Error> {
        self.data.as_ref().map(SuspensionData::deserialize).transpose().map(Option::unwrap_or_default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// What the component leaves in its outbox.
    fn generated() -> Value {
        json!({
            "specversion": "1.0", "id": "0198c7a4-0000-7000-8000-000000000000", "source": "spin-otp",
            "type": "otp.generated.v1", "subject": "9eeec548fe31b7e38fcb0f946ea5c649",
            "time": "2026-11-22T07:41:42.123Z", "datacontenttype": "application/json",
            "sequence": "00000001795333302123", "requestid": "a request", "apikeyname": "mobile-app",
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "data": {
                "mobileNumber": "+14155550123", "channel": "sms", "otpId": "0198c7a4", "version": 1_795_333_302_123_i64,
                "sealedOtp": "0103646576", "createdAt": "2026-11-22T07:41:42.123Z",
                "expiresAt": "2026-11-22T07:51:42.123Z",
            },
        })
    }

    #[test]
    fn an_event_is_written_as_it_was_read() {
        let event = Event::read(generated()).unwrap();
        assert_eq!(event.r#type, EventType::Generated);
        let code = event.code().unwrap();
        assert_eq!((code.version, code.email), (Some(1_795_333_302_123), None));
        assert_eq!(serde_json::to_value(&event).unwrap(), generated());
    }

    #[test]
    fn a_type_and_fields_of_a_newer_version_are_passed_on() {
        let mut newer = generated();
        newer["type"] = json!("otp.forwarded.v3");
        newer["tenant"] = json!("acme");
        newer["priority"] = json!(7);
        newer["data"]["voice"] = json!({ "language": "en" });
        let event = Event::read(newer.clone()).unwrap();
        assert_eq!(serde_json::to_value(&event).unwrap(), newer);
    }

    #[test]
    fn the_sdk_of_cloudevents_reads_it_the_same() {
        use cloudevents::AttributesReader;
        let theirs: cloudevents::Event = serde_json::from_value(generated()).unwrap();
        assert_eq!(theirs.id(), "0198c7a4-0000-7000-8000-000000000000");
        assert_eq!(theirs.ty(), "otp.generated.v1");
        assert_eq!(theirs.subject(), Some("9eeec548fe31b7e38fcb0f946ea5c649"));
        assert_eq!(theirs.extension("apikeyname").unwrap().to_string(), "mobile-app");
        assert_eq!(theirs.extension("sequence").unwrap().to_string(), "00000001795333302123");
        let back = Event::read(serde_json::to_value(&theirs).unwrap()).unwrap();
        // The time is written anew, with another number of digits.
        let mine = Event { time: back.time.clone(), ..Event::read(generated()).unwrap() };
        assert_eq!(back, mine);
    }

    #[test]
    fn the_name_of_an_api_key_is_1_to_64_letters_digits_hyphens_and_underscores() {
        for name in ["a", "Mobile-App_2", &"x".repeat(64)] {
            assert!(is_api_key_name(name), "{name}");
        }
        for name in ["", "mobile app", "a\"b", "é", "+14155550123", &"x".repeat(65)] {
            assert!(!is_api_key_name(name), "{name}");
        }
    }

    #[test]
    fn a_suspension_says_which_range_and_until_when() {
        let mut event = Event::new("0198c7a4", EventType::DestinationSuspended);
        assert_eq!(event.suspension().unwrap(), SuspensionData::default());
        event.data = Some(json!({
            "prefix": "+99291", "sent": 40, "verified": 1, "suspendedUntil": "2026-11-22T08:41:42.123Z",
        }));
        let said = event.suspension().unwrap();
        assert_eq!((said.prefix.as_deref(), said.sent, said.verified), (Some("+99291"), Some(40), Some(1)));
        assert_eq!(serde_json::to_value(&said).unwrap(), event.data.unwrap());
    }

    #[test]
    fn what_is_no_event_is_said_without_repeating_it() {
        let with = |name: &str, value: Value| {
            let mut event = generated();
            event[name] = value;
            event
        };
        for (value, reason) in [
            (json!("an event"), Malformed::Form),
            (json!({ "id": "1" }), Malformed::Form),
            (with("id", json!(1)), Malformed::Form),
            (with("specversion", json!("0.3")), Malformed::Version),
            (with("id", json!("")), Malformed::Attribute("id")),
            (with("id", json!("x".repeat(257))), Malformed::Attribute("id")),
            (with("subject", json!("a\nb")), Malformed::Attribute("subject")),
            (with("type", json!("")), Malformed::Attribute("type")),
            (with("traceparent", json!("é")), Malformed::Attribute("traceparent")),
            (with("apikeyname", json!("")), Malformed::Attribute("apikeyname")),
            (with("Tenant", json!("acme")), Malformed::Name),
            (with("tenant", json!({})), Malformed::Value),
            (with("tenant", json!(1.5)), Malformed::Value),
        ] {
            assert_eq!(Event::read(value.clone()).unwrap_err(), reason, "{value}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_refused_or_passed_on_whole(
            id in "[ -~]{1,40}", kind in "[ -~]{1,40}", extension in "[a-z0-9]{1,20}", text in ".{0,40}",
        ) {
            let mut value = generated();
            value["id"] = json!(id);
            value["type"] = json!(kind);
            value["data"]["more"] = json!(text);
            if value.get(&extension).is_none() {
                value[&extension] = json!(text);
            }
            let event = Event::read(value.clone()).unwrap();
            prop_assert_eq!(serde_json::to_value(&event).unwrap(), value);
        }
    }
}
