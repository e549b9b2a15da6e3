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
