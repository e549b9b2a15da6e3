//! Reading a header field that stands once or not at all.

use http::HeaderMap;

/// A field that may stand once was sent several times. Which line is meant would be a guess, and whoever
/// stands in between may guess otherwise (RFC 9110, section 5.3).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Repeated;

/// The value of the one line of a field, if there is one.
pub(crate) fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a [u8]>, Repeated> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(None),
        (Some(line), None) => Ok(Some(line.as_bytes())),
        (Some(_), Some(_)) => Err(Repeated),
    }
}

/// The same as text, which in a field that we know is printable ASCII.
pub(crate) fn single_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let line = single(headers, name).ok().flatten()?;
    std::str::from_utf8(line).ok().filter(|text| is_printable(text))
}

/// Whether all of it is printable ASCII, the space among it.
pub(crate) fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// For tests of any reader: the field lines of a request, in this order.
#[cfg(test)]
pub(crate) mod sent {
    use http::{HeaderMap, HeaderName, HeaderValue};
    use proptest::prelude::*;

    const PIECES: [&str; 13] = [
        "for=",
        "for=192.0.2.1",
        "192.0.2.1",
        "10.0.0.1",
        "[2001:db8::1]:80",
        "for=\"",
        "\\\"",
        "unknown",
        "Bearer ",
        "http://localhost",
        "://",
        ", ",
        "\t",
    ];

    pub(crate) fn lines<V: AsRef<[u8]>>(lines: &[(&str, V)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_bytes(value.as_ref()).unwrap());
        }
        headers
    }

    /// Whatever can stand in a field's value (RFC 9110, section 5.5), and much of what means something there.
    pub(crate) fn value() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => prop::sample::select(&b",;=\"\\[]:. %_-+for10a"[..]).prop_map(|byte| vec![byte]),
            1 => any::<u8>().prop_filter("no control characters", |byte| *byte >= b' ' && *byte != 127)
                .prop_map(|byte| vec![byte]),
            1 => prop::sample::select(&PIECES[..]).prop_map(|piece| piece.as_bytes().to_vec()),
        ];
        prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    #[test]
    fn a_field_that_stands_twice_is_not_guessed_at() {
        let headers = lines(&[("a", "1"), ("b", "2"), ("b", "2"), ("c", "é")]);
        assert_eq!(super::single(&headers, "a"), Ok(Some(&b"1"[..])));
        assert_eq!(super::single(&headers, "b"), Err(super::Repeated));
        assert_eq!(super::single(&headers, "d"), Ok(None));
        assert_eq!((super::single_text(&headers, "a"), super::single_text(&headers, "b")), (Some("1"), None));
        assert_eq!(super::single_text(&headers, "c"), None, "not ASCII");
    }
}
