//! An event in the JSON format of CloudEvents.

use crate::{
    data::{CodeData, Data, SuspensionData},
    event_type::EventType,
};
use otp_seal::{EventKeys, SignatureError};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, MapAccess, Visitor},
};
use serde_json::{Map, Value};

/// The version of CloudEvents.
pub const SPEC_VERSION: &str = "1.0";

/// Who says it, unless it is said otherwise.
pub const SOURCE: &str = "spin-otp";

/// Longest id, source, type or subject that is taken, in bytes. They become headers and keys.
const MAX_ATTRIBUTE: usize = 256;

/// An event (CloudEvents 1.0.2, JSON format 1.0.2).
#[derive(Debug, Clone, PartialEq, Serialize)]
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// When it happened, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// What `data` is; JSON where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datacontenttype: Option<String>,
    /// Grows with every event of one subject, and sorts as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<String>,
    /// W3C trace context of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The request's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requestid: Option<String>,
    /// The application that it is about, see [`is_application_name`]. One of another form is passed on, too: an
    /// event with an odd name still has a code to deliver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application: Option<String>,
    /// Shows that it was made by the component, and not changed since: see [`Event::sign`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// What it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Data>,
    /// Attributes that this version does not know, as they came.
    #[serde(flatten)]
    pub extensions: Map<String, Value>,
}

/// Longest name of an application.
const MAX_APPLICATION_NAME: usize = 64;

/// What `data` is where `datacontenttype` is left out (JSON format, section 3.1.1).
pub(crate) const JSON: &str = "application/json";

/// Whether an application, and an API key of it, can have this name: 1 to 64 of `a-z A-Z 0-9 - _`.
pub fn is_application_name(name: &str) -> bool {
    (1..=MAX_APPLICATION_NAME).contains(&name.len())
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
            application: None,
            signature: None,
            data: None,
            extensions: Map::new(),
        }
    }

    /// Reads an event that came from outside, and checks that it can go on as a record.
    pub fn read(json: &str) -> Result<Self, Malformed> {
        let event: Self = serde_json::from_str(json).map_err(|_| Malformed::Form)?;
        event.check()?;
        Ok(event)
    }

    /// Signs it with the first of the keys. What is signed must not be changed any more.
    pub fn sign(&mut self, keys: &EventKeys) {
        self.signature = Some(keys.sign(&self.signed()));
    }

    /// Whether it was signed with one of the keys, and is as it was then.
    pub fn check_signature(&self, keys: &EventKeys) -> Result<(), SignatureError> {
        keys.check(self.signature.as_deref(), &self.signed())
    }

    /// What a signature is over: every attribute that the relay acts on, and the data as it was sent. None of them
    /// is empty, so empty is what is left out. `traceparent` is not among them: the relay puts its own there.
    fn signed(&self) -> [&[u8]; 10] {
        fn optional(attribute: &Option<String>) -> &[u8] {
            attribute.as_deref().unwrap_or_default().as_bytes()
        }
        [
            self.id.as_bytes(),
            self.source.as_bytes(),
            self.r#type.as_str().as_bytes(),
            optional(&self.subject),
            optional(&self.time),
            // A record always says what its value is, so both ways to say it are one.
            self.datacontenttype.as_deref().unwrap_or(JSON).as_bytes(),
            optional(&self.sequence),
            optional(&self.requestid),
            optional(&self.application),
            self.data.as_ref().map(Data::as_str).unwrap_or_default().as_bytes(),
        ]
    }

    /// Whether it can go on as a record.
    pub(crate) fn check(&self) -> Result<(), Malformed> {
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
            ("application", &self.application),
            ("signature", &self.signature),
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
        self.data.as_ref().map(Data::read).transpose().map(Option::unwrap_or_default)
    }

    /// What it says about a range of numbers, if it is of [`EventType::DestinationSuspended`].
    pub fn suspension(&self) -> Result<SuspensionData, serde_json::Error> {
        self.data.as_ref().map(Data::read).transpose().map(Option::unwrap_or_default)
    }
}

/// By hand, for `#[serde(flatten)]` would read the data as a value, and its bytes would be gone.
impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Attributes)
    }
}

struct Attributes;

impl<'de> Visitor<'de> for Attributes {
    type Value = Event;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a CloudEvent")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Event, A::Error> {
        let (mut specversion, mut id, mut source, mut r#type) = (None, None, None, None);
        let mut event = Event::new("", EventType::Other(String::new()));
        let mut data: Option<Option<Data>> = None;
        while let Some(name) = map.next_key::<String>()? {
            let attribute = match &*name {
                "specversion" => &mut specversion,
                "id" => &mut id,
                "source" => &mut source,
                "type" => &mut r#type,
                "subject" => &mut event.subject,
                "time" => &mut event.time,
                "datacontenttype" => &mut event.datacontenttype,
                "sequence" => &mut event.sequence,
                "traceparent" => &mut event.traceparent,
                "requestid" => &mut event.requestid,
                "application" => &mut event.application,
                "signature" => &mut event.signature,
                "data" => {
                    if data.replace(map.next_value()?).is_some() {
                        return Err(A::Error::duplicate_field("data"));
                    }
                    continue;
                }
                _ => {
                    event.extensions.insert(name, map.next_value()?);
                    continue;
                }
            };
            if attribute.is_some() {
                return Err(A::Error::custom("an attribute is there twice"));
            }
            // Null is as good as left out (JSON format, section 2.2).
            *attribute = map.next_value()?;
        }
        let required =
            |attribute: Option<String>, name| attribute.ok_or_else(|| A::Error::missing_field(name));
        event.specversion = required(specversion, "specversion")?;
        event.id = required(id, "id")?;
        event.source = required(source, "source")?;
        event.r#type = required(r#type, "type")?.into();
        event.data = data.flatten();
        Ok(event)
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
            "sequence": "00000001795333302123", "requestid": "a request", "application": "mobile-app",
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
        let event = Event::read(&generated().to_string()).unwrap();
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
        let event = Event::read(&newer.to_string()).unwrap();
        assert_eq!(serde_json::to_value(&event).unwrap(), newer);
    }

    #[test]
    fn the_sdk_of_cloudevents_reads_it_the_same() {
        use cloudevents::AttributesReader;
        let theirs: cloudevents::Event = serde_json::from_value(generated()).unwrap();
        assert_eq!(theirs.id(), "0198c7a4-0000-7000-8000-000000000000");
        assert_eq!(theirs.ty(), "otp.generated.v1");
        assert_eq!(theirs.subject(), Some("9eeec548fe31b7e38fcb0f946ea5c649"));
        assert_eq!(theirs.extension("application").unwrap().to_string(), "mobile-app");
        assert_eq!(theirs.extension("sequence").unwrap().to_string(), "00000001795333302123");
        let back = Event::read(&serde_json::to_string(&theirs).unwrap()).unwrap();
        // The time is written anew, with another number of digits.
        let mine = Event { time: back.time.clone(), ..Event::read(&generated().to_string()).unwrap() };
        assert_eq!(back, mine);
    }

    #[test]
    fn the_name_of_an_application_is_1_to_64_letters_digits_hyphens_and_underscores() {
        for name in ["a", "Mobile-App_2", &"x".repeat(64)] {
            assert!(is_application_name(name), "{name}");
        }
        for name in ["", "mobile app", "a\"b", "é", "+14155550123", &"x".repeat(65)] {
            assert!(!is_application_name(name), "{name}");
        }
    }

    #[test]
    fn a_suspension_says_which_range_and_until_when() {
        let mut event = Event::new("0198c7a4", EventType::DestinationSuspended);
        assert_eq!(event.suspension().unwrap(), SuspensionData::default());
        event.data = Some(Data::of(&json!({
            "prefix": "+99291", "sent": 40, "verified": 1, "suspendedUntil": "2026-11-22T08:41:42.123Z",
        })));
        let said = event.suspension().unwrap();
        assert_eq!((said.prefix.as_deref(), said.sent, said.verified), (Some("+99291"), Some(40), Some(1)));
        assert_eq!(serde_json::to_value(&said).unwrap(), event.data.unwrap().read::<Value>().unwrap());
    }

    #[test]
    fn an_attribute_that_is_there_twice_makes_no_event() {
        let twice = |more: &str| {
            let event = generated().to_string();
            Event::read(&format!("{},{more}}}", event.strip_suffix('}').unwrap()))
        };
        for more in
            ["\"id\":\"2\"", "\"subject\":\"2\"", "\"data\":{}", "\"signature\":\"a\",\"signature\":\"b\""]
        {
            assert_eq!(twice(more), Err(Malformed::Form), "{more}");
        }
        let event = twice("\"signature\":null,\"tenant\":null").unwrap();
        assert_eq!((event.signature, event.extensions.len()), (None, 1));
    }

    #[test]
    fn the_data_of_an_event_keeps_its_bytes() {
        const DATA: &str = "{\n  \"version\" : 1.50e3, \"otpId\":\"\\u0041\" }";
        let json = format!(
            "{{\"type\":\"otp.resent.v1\",\"data\": {DATA} ,\"id\":\"1\",\"specversion\":\"1.0\",\"source\":\"s\"}}"
        );
        let event = Event::read(&json).unwrap();
        assert_eq!(event.data.as_ref().map(Data::as_str), Some(DATA));
        let written = serde_json::to_string(&event).unwrap();
        assert!(written.ends_with(&format!("\"data\":{DATA}}}")), "{written}");
        assert_eq!(Event::read(&written).unwrap(), event);
    }

    #[test]
    fn the_signature_is_the_hmac_that_another_language_would_compute() {
        let mut event = Event::new("1", EventType::Erased);
        event.subject = Some("9eee".to_owned());
        event.time = Some("2026-11-22T07:41:42.123Z".to_owned());
        event.sequence = Some("00000001795333302123".to_owned());
        event.application = Some("shop".to_owned());
        event.data = Some(Data::of(&json!({ "version": 1 })));
        // Python, with the ten fields of this event, "" for requestid:
        // hmac.new(bytes(range(32)), b"".join(len(f).to_bytes(8, "big") + f.encode() for f in fields), "sha256")
        event.sign(&EventKeys::parse("k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap());
        assert_eq!(
            event.signature.as_deref(),
            Some("k1:9989971634eff649171a6ef4de3e5d906496353a77ec32d8fa6bd1a5872afcc8")
        );
        // Left out, it is JSON: a record would say so.
        event.datacontenttype = Some(JSON.to_owned());
        assert_eq!(
            event.check_signature(
                &EventKeys::parse("k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap()
            ),
            Ok(())
        );
    }

    #[test]
    fn an_event_without_a_signature_or_with_that_of_another_does_not_hold() {
        let keys = EventKeys::development();
        let mut event = Event::read(&generated().to_string()).unwrap();
        assert_eq!(event.check_signature(&keys), Err(SignatureError::Missing));
        event.sign(&keys);
        assert_eq!(event.check_signature(&keys), Ok(()));
        let other = Event { signature: event.signature.clone(), ..Event::new("2", EventType::Erased) };
        assert_eq!(other.check_signature(&keys), Err(SignatureError::Refused));
        // Where a trace goes on is for those on the way to say.
        event.traceparent = None;
        event.extensions.insert("tenant".to_owned(), json!("acme"));
        assert_eq!(event.check_signature(&keys), Ok(()));
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
            (with("application", json!("")), Malformed::Attribute("application")),
            (with("Tenant", json!("acme")), Malformed::Name),
            (with("tenant", json!({})), Malformed::Value),
            (with("tenant", json!(1.5)), Malformed::Value),
        ] {
            assert_eq!(Event::read(&value.to_string()).unwrap_err(), reason, "{value}");
        }
    }

    proptest! {
        #[test]
        fn a_signed_event_with_anything_changed_does_not_check(
            name in prop::sample::select(vec![
                "id", "source", "type", "subject", "time", "datacontenttype", "sequence", "requestid", "application",
            ]),
            text in "[!-~]{1,40}", left_out: bool,
        ) {
            let keys = EventKeys::development();
            let mut event = Event::read(&generated().to_string()).unwrap();
            event.sign(&keys);
            let mut changed = serde_json::to_value(&event).unwrap();
            prop_assert_eq!(Event::read(&changed.to_string()).unwrap().check_signature(&keys), Ok(()));
            // datacontenttype is JSON where it is left out.
            if left_out && !["id", "source", "type", "datacontenttype"].contains(&name) {
                changed.as_object_mut().unwrap().remove(name);
            } else {
                prop_assume!(changed[name] != json!(text));
                changed[name] = json!(text);
            }
            let changed = Event::read(&changed.to_string()).unwrap();
            prop_assert_eq!(changed.check_signature(&keys), Err(SignatureError::Refused), "{}", name);
        }

        #[test]
        fn a_signed_event_with_a_byte_of_its_data_changed_does_not_check(place: prop::sample::Index, byte in b' '..=b'~') {
            let keys = EventKeys::development();
            let mut event = Event::read(&generated().to_string()).unwrap();
            event.sign(&keys);
            let mut data = event.data.as_ref().unwrap().as_str().as_bytes().to_vec();
            let place = place.index(data.len());
            prop_assume!(data[place] != byte);
            data[place] = byte;
            if let Some(data) = Data::parse(&data) {
                let changed = Event { data: Some(data), ..event };
                prop_assert_eq!(changed.check_signature(&keys), Err(SignatureError::Refused));
            }
        }

        #[test]
        fn a_signed_event_checks_after_json_and_a_record(
            data in prop::option::of("\\{\"a\" ?: ?(1e[0-9]{1,3}|\"[ -!#-\\[a-z]{0,9}\"),\n\"a\":[1-9]{1,30}\\}"),
            names in prop::collection::vec(prop::option::of("[ -~]{1,40}"), 6),
            json: bool,
        ) {
            let keys = EventKeys::development();
            let mut event = Event::new("0198c7a4", EventType::Generated);
            let [subject, time, sequence, requestid, application, traceparent] = names.try_into().unwrap();
            event = Event { subject, time, sequence, requestid, application, traceparent, ..event };
            event.datacontenttype = json.then(|| JSON.to_owned());
            event.data = data.as_ref().map(|data| Data::parse(data.as_bytes()).unwrap());
            event.sign(&keys);
            let sent = Event::read(&serde_json::to_string(&event).unwrap()).unwrap();
            prop_assert_eq!(&sent, &event);
            let read = crate::Record::from(&sent).event().unwrap();
            prop_assert_eq!(read.check_signature(&keys), Ok(()));
            prop_assert_eq!(read.data.as_ref().map(Data::as_str), data.as_deref());
            let kept: Event = serde_json::from_str(&serde_json::to_string(&read).unwrap()).unwrap();
            prop_assert_eq!(kept.check_signature(&keys), Ok(()));
        }

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
            let event = Event::read(&value.to_string()).unwrap();
            prop_assert_eq!(serde_json::to_value(&event).unwrap(), value);
        }
    }
}
