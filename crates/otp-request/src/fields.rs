//! The fields of a JSON body.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

/// A JSON object (RFC 8259) of which strings are read.
pub struct Fields(Map<String, Value>);

/// Why a body cannot be used. It repeats nothing of what was sent: that may be a code or a number.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum InvalidBody {
    /// Not JSON, nested too deeply, or something other than an object.
    #[error("The body must be a JSON object such as {{\"mobileNumber\":\"+14155550123\"}}.")]
    NotAnObject,
    /// One name stands twice in the object.
    #[error("A field stands in the body more than once. Send each field once.")]
    Repeated,
    /// A field that is something other than a string.
    #[error("{0} must be a JSON string, in quotes.")]
    NotAString(&'static str),
    /// A field that the call needs.
    #[error("{0} is required. Send it as a JSON string.")]
    Missing(&'static str),
    /// A field that the call does not have, and the one that was meant.
    #[error("There is a field that this call does not have. Did you mean {0}?")]
    Misspelt(&'static str),
    /// A field that the call does not have, and all that it has.
    #[error("There is a field that this call does not have. It has {}.", .0.join(", "))]
    Unknown(&'static [&'static str]),
}

/// How many letters of a name may be wrong for it to be another one, misspelt.
const MOST_WRONG: usize = 3;

impl Fields {
    /// Reads a body. A name that stands twice is refused: which of the values counts differs from parser to
    /// parser (RFC 8259, section 4), so that whatever checked the request before us may have seen another
    /// one (RFC 7493, section 2.3).
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidBody> {
        // The parser's own message is not passed on: it may repeat what was sent. Its limit of 128 levels
        // keeps a nested body from overflowing the stack.
        let Object(fields) = serde_json::from_slice(bytes).map_err(|_| InvalidBody::NotAnObject)?;
        fields.map(Self).ok_or(InvalidBody::Repeated)
    }

    /// These fields, if there is no other one beside those that the call has.
    pub fn only(self, known: &'static [&'static str]) -> Result<Self, InvalidBody> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(self),
            Some(name) => {
                Err(nearest(name, known).map_or(InvalidBody::Unknown(known), InvalidBody::Misspelt))
            }
        }
    }

    /// A field that may be left out, or be null.
    pub fn optional(&self, name: &'static str) -> Result<Option<&str>, InvalidBody> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(InvalidBody::NotAString(name)),
        }
    }

    /// A field that the call needs.
    pub fn required(&self, name: &'static str) -> Result<&str, InvalidBody> {
        self.optional(name)?.ok_or(InvalidBody::Missing(name))
    }
}

/// The one of these names that a name is, misspelt: in another style (`mobile_number`), or with a few letters wrong.
fn nearest(name: &str, known: &'static [&'static str]) -> Option<&'static str> {
    let plain = |name: &str| {
        // No name is longer, and to compare one takes the time of its length.
        let letters = name.chars().take(64).filter(|c| !matches!(c, '_' | '-' | ' ' | '.'));
        letters.collect::<String>().to_lowercase()
    };
    let name = plain(name);
    let wrong = |known: &str| strsim::osa_distance(&name, &plain(known));
    let nearest = known.iter().copied().min_by_key(|known| wrong(known))?;
    // Of a short name most letters have to be right, or any two would be alike.
    (wrong(nearest) <= MOST_WRONG.min(nearest.len() / 2)).then_some(nearest)
}

impl std::fmt::Debug for Fields {
    /// Nothing of them: there are codes, numbers and addresses among them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fields")
    }
}

/// The object of a body, or `None` if a name stands twice in it.
struct Object(Option<Map<String, Value>>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;

        impl<'de> Visitor<'de> for Names {
            type Value = Object;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            /// To the end in any case: what is no JSON further on is told first.
            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Object, A::Error> {
                let mut fields = Some(Map::new());
                while let Some((name, value)) = entries.next_entry::<String, Value>()? {
                    fields = fields.filter(|fields| !fields.contains_key(&name));
                    if let Some(fields) = &mut fields {
                        fields.insert(name, value);
                    }
                }
                Ok(Object(fields))
            }
        }

        deserializer.deserialize_map(Names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn parse(body: &str) -> Result<Fields, InvalidBody> {
        Fields::parse(body.as_bytes())
    }

    #[test]
    fn a_field_is_there_or_left_out_or_null() {
        let body = parse(r#" {"a":"1","b":null,"c":"","\u0064":"\ud83d\ude00","more":[{}]} "#).unwrap();
        assert_eq!((body.optional("a"), body.required("a")), (Ok(Some("1")), Ok("1")));
        assert_eq!((body.optional("b"), body.required("b")), (Ok(None), Err(InvalidBody::Missing("b"))));
        assert_eq!((body.optional("x"), body.required("x")), (Ok(None), Err(InvalidBody::Missing("x"))));
        assert_eq!(body.required("c"), Ok(""), "empty is there: what it means is for its type to say");
        assert_eq!(body.required("d"), Ok("😀"));
    }

    #[test]
    fn what_is_no_string_is_not_read_as_one() {
        let body = parse(r#"{"a":1,"b":true,"c":[],"d":{},"e":-1.5e3}"#).unwrap();
        for name in ["a", "b", "c", "d", "e"] {
            assert_eq!(body.optional(name), Err(InvalidBody::NotAString(name)));
            assert_eq!(body.required(name), Err(InvalidBody::NotAString(name)));
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for body in [
            "",
            " ",
            "null",
            "1",
            "\"a\"",
            "[]",
            "[{\"a\":\"1\"}]",
            "{",
            "{}}",
            "{} {}",
            "{a:1}",
            "{'a':'1'}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{\"a\":\"1\"",
            "{\"a\":\"\n\"}",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":NaN}",
            "{\"a\":01}",
            "// {}",
            "\u{feff}{}",
            "{\"a\":1 \"b\":2}",
            "mobileNumber=%2B14155550123",
        ] {
            assert_eq!(parse(body).unwrap_err(), InvalidBody::NotAnObject, "{body}");
        }
        assert_eq!(Fields::parse(b"{\"a\":\"\xff\"}").unwrap_err(), InvalidBody::NotAnObject, "not UTF-8");
        assert_eq!(Fields::parse(b"{\"a\":\"1\"}\0").unwrap_err(), InvalidBody::NotAnObject);
    }

    #[test]
    fn a_name_that_stands_twice_is_refused() {
        for body in [
            r#"{"a":"1","a":"2"}"#,
            r#"{"a":"1","b":"2","a":"1"}"#,
            r#"{"a":null,"\u0061":"1"}"#,
            r#"{"unknown":1,"unknown":1,"unknown":1}"#,
        ] {
            assert_eq!(parse(body).unwrap_err(), InvalidBody::Repeated, "{body}");
        }
        assert_eq!(parse(r#"{"a":"1","a":"2""#).unwrap_err(), InvalidBody::NotAnObject, "no JSON to the end");
        parse(r#"{"a":"1","A":"2","b":{"a":"3"}}"#).unwrap();
    }

    #[test]
    fn a_nested_body_does_not_reach_the_end_of_the_stack() {
        let nested = |open: &str, close: &str, levels| {
            parse(&format!("{{\"a\":{}1{}}}", open.repeat(levels), close.repeat(levels)))
        };
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            assert_eq!(nested(open, close, 100).unwrap().optional("a"), Err(InvalidBody::NotAString("a")));
            assert_eq!(nested(open, close, 1_000_000).unwrap_err(), InvalidBody::NotAnObject);
        }
        assert_eq!(parse(&"{\"a\":".repeat(1_000_000)).unwrap_err(), InvalidBody::NotAnObject);
    }

    #[test]
    fn what_is_wrong_is_said_with_what_to_send() {
        for (error, text) in [
            (
                InvalidBody::NotAnObject,
                "The body must be a JSON object such as {\"mobileNumber\":\"+14155550123\"}.",
            ),
            (InvalidBody::NotAString("otp"), "otp must be a JSON string, in quotes."),
            (InvalidBody::Missing("otp"), "otp is required. Send it as a JSON string."),
            (InvalidBody::Repeated, "A field stands in the body more than once. Send each field once."),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn a_field_that_the_call_does_not_have_is_refused_with_what_was_meant() {
        const KNOWN: &[&str] = &["mobileNumber", "email", "channel", "otp", "otpId"];
        let only = |body: &str| parse(body).unwrap().only(KNOWN).err();
        assert_eq!(only(r#"{"mobileNumber":"+14155550123","email":null}"#), None);
        assert_eq!(only("{}"), None);
        for (name, meant) in [
            ("mobile_number", "mobileNumber"),
            ("mobilenumber", "mobileNumber"),
            ("MobileNumber", "mobileNumber"),
            ("mobile-number", "mobileNumber"),
            ("mobileNumer", "mobileNumber"),
            ("moblieNumber", "mobileNumber"),
            ("E-Mail", "email"),
            ("emial", "email"),
            ("chanel", "channel"),
            ("OTP", "otp"),
            ("opt", "otp"),
            ("otp_id", "otpId"),
        ] {
            assert_eq!(only(&json!({ name: "x" }).to_string()), Some(InvalidBody::Misspelt(meant)), "{name}");
        }
        let long = "m".repeat(1_000_000);
        for name in ["", "ttl", "code", "x", "+14155550123", "日本語", &long] {
            assert_eq!(only(&json!({ name: "x" }).to_string()), Some(InvalidBody::Unknown(KNOWN)), "{name}");
        }
        // What was sent as a name may be a number or a code.
        let error = only(r#"{"+14155550123":"x"}"#).unwrap().to_string();
        assert_eq!(
            error,
            "There is a field that this call does not have. It has mobileNumber, email, channel, otp, otpId."
        );
    }

    #[test]
    fn what_was_sent_is_not_printable() {
        let fields = parse(r#"{"otp":"042137"}"#).unwrap();
        assert_eq!(format!("{fields:?}"), "Fields");
    }

    proptest! {
        #[test]
        fn every_string_comes_through(text in any::<String>(), other in any::<String>()) {
            let body = json!({ "text": text, "other": other }).to_string();
            let fields = parse(&body).unwrap();
            prop_assert_eq!(fields.required("text"), Ok(&*text));
            prop_assert_eq!(fields.required("other"), Ok(&*other));
        }

        #[test]
        fn bytes_of_any_kind_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = Fields::parse(&bytes);
        }

        #[test]
        fn what_looks_like_json_is_read_as_the_parser_reads_it(
            text in "[\\[\\]{}:,\"\\\\a-c0-2eu. -]{0,24}",
        ) {
            let body = format!("{{\"a\":{text}}}");
            match (serde_json::from_str::<Value>(&body), parse(&body)) {
                (Ok(value), Ok(fields)) => prop_assert_eq!(&value["a"], &fields.0["a"]),
                (Ok(_), Err(error)) => prop_assert_eq!(error, InvalidBody::Repeated),
                (Err(_), found) => prop_assert_eq!(found.unwrap_err(), InvalidBody::NotAnObject),
            }
        }
    }
}
