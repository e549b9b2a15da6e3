//! What makes a retry the same request.

use crate::field_line::{self, is_printable};
use http::HeaderMap;

/// Longest key, in characters. The draft sets no limit; 255 is what the services that had the field before
/// it take.
const MAX_KEY: usize = 255;

/// The key of the `Idempotency-Key` field (draft-ietf-httpapi-idempotency-key-header-07, section 2): 1 to 255
/// printable ASCII characters.
///
/// The draft wants a string of Structured Fields, which stands in quotes (RFC 9651, section 3.3.3). Many
/// clients leave the quotes away, so characters without them are taken too, as they are. Both ways of writing
/// the same characters are the same key.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

/// Why an `Idempotency-Key` field cannot be used. It does not repeat the key.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum InvalidIdempotencyKey {
    /// More than one field, or more than one key in it.
    #[error("More than one Idempotency-Key was sent. Send one, such as Idempotency-Key: \"8e03978e-40d5\".")]
    Repeated,
    /// Neither a quoted string nor a bare one, or with something behind it.
    #[error(
        "Idempotency-Key must be one key of printable ASCII characters without space, quote, comma and semicolon, such as \
         Idempotency-Key: 8e03978e-40d5, or one in quotes, with \\ before \" and \\ inside it and nothing after it."
    )]
    Form,
    /// Empty or too long.
    #[error("Idempotency-Key must have 1 to {MAX_KEY} characters.")]
    Length,
}

impl IdempotencyKey {
    /// Reads the field, if it is there.
    pub fn of(headers: &HeaderMap) -> Result<Option<Self>, InvalidIdempotencyKey> {
        match field_line::single(headers, "idempotency-key") {
            Ok(None) => Ok(None),
            Ok(Some(line)) => Self::parse(line).map(Some),
            Err(field_line::Repeated) => Err(InvalidIdempotencyKey::Repeated),
        }
    }

    fn parse(line: &[u8]) -> Result<Self, InvalidIdempotencyKey> {
        let text = std::str::from_utf8(line).map_err(|_| InvalidIdempotencyKey::Form)?;
        // An item may have spaces around it (RFC 9651, section 4.2).
        let text = text.trim_matches([' ', '\t']);
        if !is_printable(text) {
            return Err(InvalidIdempotencyKey::Form);
        }
        let key = match text.strip_prefix('"') {
            Some(rest) => unquoted(rest)?,
            None => bare(text)?.to_owned(),
        };
        if (1..=MAX_KEY).contains(&key.len()) { Ok(Self(key)) } else { Err(InvalidIdempotencyKey::Length) }
    }

    /// The key's characters, without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What stands up to the closing quote (RFC 9651, section 4.2.5), if nothing stands behind that: the draft
/// defines no parameters.
fn unquoted(text: &str) -> Result<String, InvalidIdempotencyKey> {
    let mut key = String::with_capacity(text.len());
    let mut characters = text.chars();
    loop {
        match characters.next().ok_or(InvalidIdempotencyKey::Form)? {
            '"' => break,
            '\\' => match characters.next() {
                Some(escaped @ ('"' | '\\')) => key.push(escaped),
                _ => return Err(InvalidIdempotencyKey::Form),
            },
            other => key.push(other),
        }
    }
    let rest = characters.as_str().trim_start_matches(' ');
    match rest.as_bytes().first() {
        None => Ok(key),
        Some(b',') => Err(InvalidIdempotencyKey::Repeated),
        Some(_) => Err(InvalidIdempotencyKey::Form),
    }
}

/// Characters without quotes, if they cannot be taken for anything else: two keys, or one with a parameter.
fn bare(text: &str) -> Result<&str, InvalidIdempotencyKey> {
    if text.contains(',') {
        Err(InvalidIdempotencyKey::Repeated)
    } else if text.contains([' ', '"', ';']) {
        Err(InvalidIdempotencyKey::Form)
    } else {
        Ok(text)
    }
}

impl std::fmt::Debug for IdempotencyKey {
    /// Nothing of it: who knows it can have an answer given again.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IdempotencyKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field_line::sent;
    use InvalidIdempotencyKey::{Form, Length, Repeated};
    use proptest::prelude::*;

    fn key(value: &str) -> Result<String, InvalidIdempotencyKey> {
        IdempotencyKey::of(&sent::lines(&[("idempotency-key", value)])).map(|key| key.unwrap().0)
    }

    /// As a library of Structured Fields writes a string (RFC 9651, section 4.1.6).
    fn quoted(key: &str) -> String {
        format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""))
    }

    #[test]
    fn a_key_is_the_same_with_quotes_and_without() {
        let long = "k".repeat(255);
        for text in ["8e03978e-40d5-43e2-bc93-6894a57f9324", "a", "a/b+c==", "'a'", "a\\b", &long] {
            assert_eq!(key(text).unwrap(), text);
            assert_eq!(key(&quoted(text)).unwrap(), text);
        }
    }

    #[test]
    fn what_stands_in_quotes_may_be_any_printable_character() {
        for (value, text) in [
            (r#""a b""#, "a b"),
            (r#""a,b;c=d""#, "a,b;c=d"),
            (r#""\"\\""#, r#""\"#),
            (r#"" ""#, " "),
            (r#"  "a"  "#, "a"),
        ] {
            assert_eq!(key(value).unwrap(), text, "{value}");
        }
    }

    #[test]
    fn what_is_not_one_string_is_refused() {
        let long = "k".repeat(256);
        for (value, error) in [
            ("", Length),
            (" ", Length),
            (r#""""#, Length),
            (&long, Length),
            (&quoted(&long), Length),
            ("\"", Form),
            (r#""a"#, Form),
            (r#"a""#, Form),
            (r#""a\""#, Form),
            (r#""a\b""#, Form),
            (r#""a"b"#, Form),
            (r#""a" b"#, Form),
            (r#""a";v=1"#, Form),
            ("a;v=1", Form),
            ("a b", Form),
            ("a\tb", Form),
            ("\"a\tb\"", Form),
            ("é", Form),
            ("\"é\"", Form),
            ("a, b", Repeated),
            (r#""a", "b""#, Repeated),
        ] {
            assert_eq!(key(value), Err(error), "{value}");
        }
        let not_text = sent::lines(&[("idempotency-key", b"\xff")]);
        assert_eq!(IdempotencyKey::of(&not_text), Err(Form));
    }

    #[test]
    fn one_field_or_none() {
        assert_eq!(IdempotencyKey::of(&HeaderMap::new()), Ok(None));
        let twice = sent::lines(&[("idempotency-key", "a"), ("Idempotency-Key", "a")]);
        assert_eq!(IdempotencyKey::of(&twice), Err(Repeated));
    }

    #[test]
    fn the_key_is_not_printable_and_no_error_repeats_it() {
        let headers = sent::lines(&[("idempotency-key", "sesame")]);
        assert_eq!(format!("{:?}", IdempotencyKey::of(&headers).unwrap()), "Some(IdempotencyKey)");
        for value in ["sesame;", "sesame,sesame", &"sesame".repeat(50)] {
            assert!(!key(value).unwrap_err().to_string().contains("sesame"));
        }
    }

    proptest! {
        #[test]
        fn every_key_comes_through_quotes(text in "[ -~]{1,255}") {
            prop_assert_eq!(key(&quoted(&text)), Ok(text));
        }

        #[test]
        fn without_quotes_a_key_is_refused_or_the_same(text in "[!-~]{1,64}") {
            prop_assume!(!text.starts_with('"'));
            if let Ok(bare) = key(&text) {
                prop_assert_eq!(&bare, &text);
                prop_assert_eq!(key(&quoted(&text)), Ok(bare));
            }
        }

        #[test]
        fn whatever_is_taken_is_a_sound_key(value in sent::value()) {
            if let Ok(Some(key)) = IdempotencyKey::of(&sent::lines(&[("idempotency-key", value)])) {
                prop_assert!((1..=MAX_KEY).contains(&key.as_str().len()) && is_printable(key.as_str()));
            }
        }
    }
}
