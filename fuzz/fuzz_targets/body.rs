//! A request's body, read as the component reads it, and beside it by the parser alone.
#![no_main]

use libfuzzer_sys::fuzz_target;
use otp_request::{Fields, InvalidBody};
use serde_json::Value;

const NAMES: [&str; 5] = ["mobileNumber", "email", "channel", "otp", "otpId"];

fuzz_target!(|bytes: &[u8]| {
    let plain = serde_json::from_slice::<Value>(bytes);
    match (Fields::parse(bytes), plain) {
        (Ok(fields), Ok(Value::Object(plain))) => {
            for name in NAMES {
                let expected = match plain.get(name) {
                    None | Some(Value::Null) => Ok(None),
                    Some(Value::String(text)) => Ok(Some(&**text)),
                    Some(_) => Err(InvalidBody::NotAString(name)),
                };
                assert_eq!(fields.optional(name), expected);
                let required = expected.and_then(|text| text.ok_or(InvalidBody::Missing(name)));
                assert_eq!(fields.required(name), required);
            }
        }
        // The parser alone takes the last of several values.
        (Err(InvalidBody::Repeated), Ok(Value::Object(_))) => {}
        (Err(InvalidBody::NotAnObject), Ok(other)) => assert!(!other.is_object()),
        (Err(InvalidBody::NotAnObject), Err(_)) => {}
        (found, plain) => panic!("{found:?} where the parser says {plain:?}"),
    }
});
