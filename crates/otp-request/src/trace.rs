//! What ties a request to the caller's own records.

use crate::field_line::{is_printable, single_text};
use http::HeaderMap;

/// Longest `traceparent` that is passed on, in bytes: that of version 00 has 55, later ones may have more.
const MAX_TRACEPARENT: usize = 128;

/// The caller's id for the request, from `X-Request-Id`: 1 to 128 printable ASCII characters. One that is
/// longer, or that stands twice, is treated as if it were not there.
pub fn request_id(headers: &HeaderMap) -> Option<&str> {
    single_text(headers, "x-request-id").filter(|id| (1..=128).contains(&id.len()))
}

/// The caller's trace context, from `traceparent` (W3C Trace Context, section 3.2). One that is malformed,
/// or that stands twice, is treated as if it were not there, as the recommendation wants it.
pub fn traceparent(headers: &HeaderMap) -> Option<&str> {
    single_text(headers, "traceparent").filter(|value| is_traceparent(value))
}

/// `version-traceid-parentid-flags` in lower-case hexadecimal. Nothing may follow in version 00; in a later
/// one a dash and whatever it says.
fn is_traceparent(value: &str) -> bool {
    let hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    let mut parts = value.split('-');
    let mut part = |length: usize| parts.next().filter(|part| part.len() == length && hex(part));
    let (version, trace, parent, flags) = (part(2), part(32), part(16), part(2));
    value.len() <= MAX_TRACEPARENT
        && is_printable(value)
        && version.is_some_and(|version| version != "ff")
        && trace.is_some_and(|trace| !zero(trace))
        && parent.is_some_and(|parent| !zero(parent))
        && flags.is_some()
        && (version != Some("00") || parts.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field_line::sent;
    use proptest::prelude::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn context(value: &str) -> Option<String> {
        traceparent(&sent::lines(&[("traceparent", value)])).map(str::to_owned)
    }

    #[test]
    fn a_request_id_is_taken_if_it_is_sane() {
        let long = "x".repeat(128);
        for id in ["1", "0198c7a4-0000-7000-8000-000000000000", "a request", "!~", &long] {
            assert_eq!(request_id(&sent::lines(&[("x-request-id", id)])), Some(id));
        }
        for id in ["", "a\tb", "é", &format!("{long}x")] {
            assert_eq!(request_id(&sent::lines(&[("x-request-id", id)])), None, "{id}");
        }
        assert_eq!(request_id(&HeaderMap::new()), None);
        assert_eq!(request_id(&sent::lines(&[("x-request-id", "1"), ("x-request-id", "2")])), None);
    }

    #[test]
    fn a_trace_context_is_taken_as_the_recommendation_has_it() {
        let later = PARENT.replacen("00-", "01-", 1);
        let more = format!("{later}-what the future brings");
        for value in [PARENT, &PARENT.replace("-01", "-ff"), &later, &more, &PARENT.replacen("00-", "fe-", 1)]
        {
            assert_eq!(context(value).as_deref(), Some(value));
        }
        let trace = &PARENT[3..35];
        for value in [
            "",
            "-",
            "00",
            &PARENT[..54],
            &PARENT.to_uppercase(),
            &PARENT.replacen("00-", "ff-", 1),
            &PARENT.replace(trace, &"0".repeat(32)),
            &PARENT.replace("b7ad6b7169203331", "0000000000000000"),
            &PARENT.replace(trace, &trace[1..]),
            &PARENT.replace('-', "_"),
            &format!("{PARENT}-"),
            &format!("{PARENT}-more"),
            &format!("{PARENT}, {PARENT}"),
            &format!("{later}.more"),
            &format!("{later}-a\tb"),
            &format!("{later}-{}", "x".repeat(73)),
        ] {
            assert_eq!(context(value), None, "{value}");
        }
        let twice = sent::lines(&[("traceparent", PARENT), ("traceparent", PARENT)]);
        assert_eq!(traceparent(&twice), None);
    }

    proptest! {
        #[test]
        fn whatever_is_taken_can_be_passed_on(value in sent::value()) {
            let headers = sent::lines(&[("x-request-id", &value), ("traceparent", &value)]);
            for text in [request_id(&headers), traceparent(&headers)].into_iter().flatten() {
                prop_assert!((1..=128).contains(&text.len()) && is_printable(text));
                prop_assert_eq!(text.as_bytes(), &*value);
            }
        }

        #[test]
        fn every_context_of_version_00_is_taken(trace in 1u128.., parent in 1u64.., flags: u8) {
            let value = format!("00-{trace:032x}-{parent:016x}-{flags:02x}");
            prop_assert_eq!(context(&value), Some(value));
        }
    }
}
