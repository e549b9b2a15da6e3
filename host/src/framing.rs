//! Where a request ends and the next one begins.
//!
//! Whoever reads a request's length otherwise than a proxy in front takes a part of one client's body for
//! the next client's request: request smuggling. hyper tolerates what RFC 9112 allows to be tolerated: it
//! drops a `Content-Length` beside a `Transfer-Encoding` and the second one of two that agree, goes on after
//! a bare LF, and takes `identity, chunked`. Its service cannot see any of it. So all that a client
//! sends passes here before hyper reads it, and what could be read in two ways goes no further.

use bytes::BytesMut;
use http::{Method, StatusCode, Uri};

/// Most bytes of a request's head, or of its trailers.
const MAX_HEAD: usize = 16 * 1024;

/// Most fields of a head, or of trailers.
pub(crate) const MAX_FIELDS: usize = 64;

/// Most bytes of a method, which no registered one has half of.
const MAX_METHOD: usize = 32;

/// Most digits of a `Content-Length`: its number then fits whatever a proxy may hold it in.
const MAX_LENGTH_DIGITS: usize = 18;

/// Most hexadecimal digits of a chunk's size, for the same reason.
const MAX_CHUNK_DIGITS: usize = 8;

/// Most bytes of a line with a chunk's size and extensions, which nothing here understands.
const MAX_CHUNK_LINE: usize = 256;

/// Why a request goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// What the client is told.
    pub(crate) reason: &'static str,
}

impl Refusal {
    /// 400
    pub(crate) const fn bad(reason: &'static str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, reason }
    }

    const fn too_large(reason: &'static str) -> Self {
        Self { status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, reason }
    }
}

/// Follows one connection's requests through their bytes.
#[derive(Debug, Default)]
pub(crate) struct Framing {
    expected: Expected,
    /// A head, the line of a chunk or trailers, up to where they are whole and found good.
    held: Vec<u8>,
    /// Where the line begins in `held` that is not whole yet.
    line: usize,
    head: Head,
    /// How many heads have passed.
    heads: u64,
    refused: Option<Refusal>,
}

/// What the next byte belongs to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Expected {
    #[default]
    RequestLine,
    Fields,
    /// So many bytes of a body.
    Body(u64),
    ChunkSize,
    /// So many bytes of a chunk.
    Chunk(u64),
    /// The end of line that closes a chunk.
    ChunkEnd,
    Trailers,
}

/// What a head says about its body.
#[derive(Debug, Default)]
struct Head {
    /// RFC 9112, section 2.2, wants one empty line before a request to be ignored.
    empty_line: bool,
    http_1_0: bool,
    fields: usize,
    length: Option<u64>,
    chunked: bool,
}

impl Framing {
    /// Appends to `passed` what may be read of these bytes and of those held back before. After a refusal
    /// nothing passes any more.
    pub(crate) fn pass(&mut self, mut bytes: &[u8], passed: &mut BytesMut) -> Result<(), Refusal> {
        if let Some(refusal) = self.refused {
            return Err(refusal);
        }
        while let Some((&byte, rest)) = bytes.split_first() {
            let (Expected::Body(left) | Expected::Chunk(left)) = self.expected else {
                bytes = rest;
                self.take(byte, passed).inspect_err(|refusal| self.refused = Some(*refusal))?;
                continue;
            };
            let length = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
            let (data, rest) = bytes.split_at(length);
            passed.extend_from_slice(data);
            bytes = rest;
            let left = left - length as u64;
            self.expected = match self.expected {
                Expected::Chunk(_) if left == 0 => Expected::ChunkEnd,
                Expected::Chunk(_) => Expected::Chunk(left),
                _ if left == 0 => Expected::RequestLine,
                _ => Expected::Body(left),
            };
        }
        Ok(())
    }

    /// Whether the last request is over and no byte of another one has come.
    pub(crate) fn between_requests(&self) -> bool {
        self.refused.is_none() && self.expected == Expected::RequestLine && self.held.is_empty()
    }

    /// Whether what comes, or was refused, is a head and not what follows one.
    pub(crate) fn in_head(&self) -> bool {
        matches!(self.expected, Expected::RequestLine | Expected::Fields)
    }

    /// The number of the request that the next byte, or what was refused, belongs to, from 0 on.
    pub(crate) fn request(&self) -> u64 {
        self.heads - u64::from(!self.in_head())
    }

    /// Why nothing passes any more, if so.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        self.refused
    }

    /// One byte of a line. All lines end with CRLF, and control characters stand in none.
    fn take(&mut self, byte: u8, passed: &mut BytesMut) -> Result<(), Refusal> {
        let after_cr = self.held[self.line..].last() == Some(&b'\r');
        if (byte == b'\n') != after_cr {
            return Err(Refusal::bad("a line does not end with CR and LF"));
        }
        if byte.is_ascii_control() && !matches!(byte, b'\t' | b'\r' | b'\n') {
            return Err(Refusal::bad("there is a control character where none may be"));
        }
        self.held.push(byte);
        match self.expected {
            Expected::ChunkEnd if !matches!(byte, b'\r' | b'\n') => {
                return Err(Refusal::bad("a chunk is longer than its size"));
            }
            Expected::ChunkSize if self.held.len() > MAX_CHUNK_LINE => {
                return Err(Refusal::bad("the extensions of a chunk are too long"));
            }
            _ if self.held.len() > MAX_HEAD => {
                return Err(Refusal::too_large("the request's head is too long"));
            }
            _ => {}
        }
        if byte == b'\n' {
            self.end_line()?;
            if !matches!(self.expected, Expected::Fields | Expected::Trailers) {
                passed.extend_from_slice(&self.held);
                self.held.clear();
            }
            self.line = self.held.len();
        }
        Ok(())
    }

    /// The line is whole: what it says decides what comes next.
    fn end_line(&mut self) -> Result<(), Refusal> {
        let line = &self.held[self.line..self.held.len() - 2];
        self.expected = match self.expected {
            Expected::RequestLine if line.is_empty() && !self.head.empty_line => {
                self.head.empty_line = true;
                self.held.clear();
                Expected::RequestLine
            }
            Expected::RequestLine => {
                self.head.http_1_0 = request_line(line)?;
                Expected::Fields
            }
            Expected::Fields if line.is_empty() => {
                let body = self.body()?;
                self.heads += 1;
                body
            }
            Expected::Fields => {
                self.head.field(line)?;
                Expected::Fields
            }
            Expected::ChunkSize => match chunk_size(line)? {
                0 => Expected::Trailers,
                size => Expected::Chunk(size),
            },
            Expected::ChunkEnd => Expected::ChunkSize,
            Expected::Trailers if line.is_empty() => Expected::RequestLine,
            Expected::Trailers => {
                self.head.trailer(line)?;
                Expected::Trailers
            }
            // No lines: their bytes are not looked at.
            Expected::Body(_) | Expected::Chunk(_) => self.expected,
        };
        Ok(())
    }

    /// What follows the head that has just ended.
    fn body(&mut self) -> Result<Expected, Refusal> {
        match std::mem::take(&mut self.head) {
            // RFC 9112, section 6.3, lets a server take the first and has it close the connection then:
            // "ought to be handled as an error".
            Head { chunked: true, length: Some(_), .. } => {
                Err(Refusal::bad("there is a Content-Length beside a Transfer-Encoding"))
            }
            Head { chunked: true, http_1_0: true, .. } => {
                Err(Refusal::bad("HTTP/1.0 has no Transfer-Encoding"))
            }
            Head { chunked: true, .. } => Ok(Expected::ChunkSize),
            Head { length: None | Some(0), .. } => Ok(Expected::RequestLine),
            Head { length: Some(length), .. } => Ok(Expected::Body(length)),
        }
    }
}

impl Head {
    fn field(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let (name, value) = self.counted(line)?;
        if name.eq_ignore_ascii_case(b"content-length") {
            if self.length.is_some() {
                return Err(Refusal::bad("there is more than one Content-Length"));
            }
            self.length = Some(length(value).ok_or(Refusal::bad("the Content-Length is not a length"))?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Refusal::bad("the only Transfer-Encoding that is taken is chunked, once"));
            }
            self.chunked = true;
        }
        Ok(())
    }

    fn trailer(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let (name, _) = self.counted(line)?;
        // RFC 9110, section 6.5.1: none of those that say where a message ends or where it goes.
        let of_the_head: [&[u8]; 3] = [b"content-length", b"transfer-encoding", b"host"];
        if of_the_head.iter().any(|field| name.eq_ignore_ascii_case(field)) {
            return Err(Refusal::bad("there is a trailer that belongs in the head"));
        }
        Ok(())
    }

    /// Name and value of one more field.
    fn counted<'a>(&mut self, line: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), Refusal> {
        self.fields += 1;
        if self.fields > MAX_FIELDS {
            return Err(Refusal::too_large("the request has too many fields"));
        }
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return Err(Refusal::bad("a field goes on in the next line"));
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.ok_or(Refusal::bad("a field has no colon"))?);
        if !is_token(name) {
            return Err(Refusal::bad("the name of a field is not valid"));
        }
        Ok((name, value[1..].trim_ascii()))
    }
}

/// Whether it is one of HTTP/1.0.
fn request_line(line: &[u8]) -> Result<bool, Refusal> {
    const BAD: Refusal = Refusal::bad("the first line is not METHOD TARGET HTTP/1.1");
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(BAD);
    };
    // As hyper will read them, or it would answer in its own way.
    if method.len() > MAX_METHOD || Method::from_bytes(method).is_err() {
        return Err(Refusal::bad("the method is not valid"));
    }
    if !target.iter().all(u8::is_ascii_graphic) || Uri::try_from(target).is_err() {
        return Err(Refusal::bad("the request's target is not valid"));
    }
    match version {
        b"HTTP/1.1" => Ok(false),
        b"HTTP/1.0" => Ok(true),
        _ => Err(BAD),
    }
}

/// RFC 9110, section 8.6: digits and nothing else, no sign and no list.
fn length(value: &[u8]) -> Option<u64> {
    let digits =
        !value.is_empty() && value.len() <= MAX_LENGTH_DIGITS && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()
}

/// The size at the beginning of a chunk's line. Extensions may follow, and are nobody's business.
fn chunk_size(line: &[u8]) -> Result<u64, Refusal> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
    let good = (1..=MAX_CHUNK_DIGITS).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    let text = std::str::from_utf8(digits).ok().filter(|_| good);
    text.and_then(|text| u64::from_str_radix(text, 16).ok())
        .ok_or(Refusal::bad("the size of a chunk is not a hexadecimal number"))
}

/// RFC 9110, section 5.6.2
fn is_token(name: &[u8]) -> bool {
    !name.is_empty()
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What passes of these bytes, given in pieces of so many.
    fn passed(bytes: &[u8], piece: usize) -> (BytesMut, Result<(), Refusal>, Framing) {
        let (mut framing, mut passed) = (Framing::default(), BytesMut::new());
        let outcome = bytes.chunks(piece).try_for_each(|piece| framing.pass(piece, &mut passed));
        (passed, outcome, framing)
    }

    const GOOD: &[&str] = &[
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET http://a/b?c HTTP/1.0\r\nHost: a\r\nx:\r\ny: \t z \r\n\r\n",
        "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab\n\r\0",
        "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n3;a=b\r\na\r\n\r\n0\r\nx: y\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n",
    ];

    #[test]
    fn what_is_clear_passes_unchanged_however_it_is_cut() {
        let all = GOOD.concat();
        for piece in [1, 2, 3, 7, all.len()] {
            let (passed, outcome, framing) = passed(all.as_bytes(), piece);
            assert_eq!((&passed[..], outcome), (all.as_bytes(), Ok(())));
            assert!(framing.between_requests());
            assert_eq!(framing.request(), GOOD.len() as u64);
        }
    }

    #[test]
    fn a_request_is_held_back_until_its_head_is_whole() {
        let (request, _) = GOOD[0].split_at(GOOD[0].len() - 1);
        let (passed, outcome, framing) = passed(request.as_bytes(), 5);
        assert_eq!((passed.len(), outcome), (0, Ok(())));
        assert!(framing.in_head() && !framing.between_requests());
    }

    #[test]
    fn of_what_is_refused_and_of_all_that_follows_nothing_passes() {
        let good = GOOD.concat();
        for bad in ["GET / HTTP/1.1\nhost: a\n\n", "GET / HTTP/1.1\r\nhost : a\r\n\r\n", "\r\n\r\n", "\0"] {
            for piece in [1, 1000] {
                let (passed, outcome, mut framing) = passed(format!("{good}{bad}{good}").as_bytes(), piece);
                assert_eq!(passed, good.as_bytes(), "{bad:?}");
                assert!(outcome.is_err() && framing.in_head() && !framing.between_requests());
                assert_eq!(framing.request(), GOOD.len() as u64, "as many as have passed: {bad:?}");
                let mut more = BytesMut::new();
                assert_eq!(framing.pass(good.as_bytes(), &mut more), outcome);
                assert!(more.is_empty());
            }
        }
    }

    #[test]
    fn one_empty_line_before_a_request_is_ignored() {
        let (passed, outcome, _) = passed(format!("\r\n{}\r\n{}", GOOD[0], GOOD[0]).as_bytes(), 1000);
        assert_eq!((&passed[..], outcome), (GOOD[0].repeat(2).as_bytes(), Ok(())));
    }
}
