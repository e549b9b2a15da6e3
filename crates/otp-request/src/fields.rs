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
}

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
