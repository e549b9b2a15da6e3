//! One connection to a server, kept as long as it lasts. Nothing is sent twice: what fails has failed.

use serde_json::Value;
use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// Longer than any answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client of one server.
#[derive(Debug)]
pub(crate) struct Line {
    address: SocketAddr,
    stream: Option<TcpStream>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Status line and fields, in lower case.
    head: String,
    body: Vec<u8>,
}

impl Answer {
    /// A header field; empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        let fields = self.head.lines().filter_map(|line| line.split_once(':'));
        fields.into_iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value.trim())
    }

    /// The body as JSON; null if it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The code of a problem document; empty for anything else.
    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// That it is a problem document which says that the request can be sent again, and when.
    #[track_caller]
    pub(crate) fn is_unavailable(&self) {
        assert_eq!((self.status, &*self.code()), (503, "unavailable"), "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        assert_eq!(self.header("cache-control"), "no-store", "{self:?}");
        assert!(self.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0), "{self:?}");
        for member in ["type", "title", "detail"] {
            assert!(!self.json()[member].as_str().unwrap_or_default().is_empty(), "{member}: {self:?}");
        }
    }
}

impl Line {
    /// To this `host:port`. Nothing is connected yet.
    pub(crate) fn to(address: &str) -> Self {
        Self { address: address.parse().unwrap(), stream: None }
    }

    /// Connects, if it is not connected.
    pub(crate) fn connect(&mut self) -> io::Result<&mut TcpStream> {
        if self.stream.as_ref().is_some_and(is_over) {
            self.stream = None;
        }
        if self.stream.is_none() {
            let stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            self.stream = Some(stream);
        }
        Ok(self.stream.as_mut().unwrap())
    }

    /// Whether the server has closed it.
    pub(crate) fn is_closed(&self) -> bool {
        self.stream.as_ref().is_none_or(is_over)
    }

    /// Sends a request and hears the answer.
    pub(crate) fn send(&mut self, method: &str, path: &str, body: &str) -> io::Result<Answer> {
        self.write(request(method, path, body).as_bytes())?;
        self.answer()
    }

    /// `GET`
    pub(crate) fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.send("GET", path, "")
    }

    /// `POST` with a JSON body.
    pub(crate) fn post(&mut self, path: &str, body: &Value) -> io::Result<Answer> {
        self.send("POST", path, &body.to_string())
    }

    /// Sends bytes as they are.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self.connect()?.write_all(bytes);
        if written.is_err() {
            self.stream = None;
        }
        written
    }

    /// Hears the answer to what was sent.
    pub(crate) fn answer(&mut self) -> io::Result<Answer> {
        let answer = self.stream.as_mut().ok_or(ErrorKind::NotConnected.into()).and_then(read);
        if !answer.as_ref().is_ok_and(|answer| answer.header("connection") != "close") {
            self.stream = None;
        }
        answer
    }
}

/// A request as it is written.
pub(crate) fn request(method: &str, path: &str, body: &str) -> String {
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// Whether the other side has said the last word.
fn is_over(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let heard = stream.peek(&mut [0; 1]);
    stream.set_nonblocking(false).unwrap();
    !heard.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

fn read(stream: &mut TcpStream) -> io::Result<Answer> {
    let mut said = Vec::new();
    let mut more = |said: &mut Vec<u8>| {
        let mut space = [0; 4096];
        match stream.read(&mut space)? {
            0 if said.is_empty() => Err(io::Error::new(ErrorKind::UnexpectedEof, "closed without an answer")),
            0 => Err(io::Error::new(ErrorKind::UnexpectedEof, "closed in the middle of an answer")),
            length => {
                said.extend_from_slice(&space[..length]);
                Ok(())
            }
        }
    };
    let end = loop {
        if let Some(end) = said.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        more(&mut said)?;
    };
    let head = String::from_utf8_lossy(&said[..end]).to_lowercase();
    let status = head.get(9..12).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, head.clone()))?;
    let mut answer = Answer { status, head, body: said.split_off(end) };
    let length = answer.header("content-length").parse::<usize>().unwrap_or_default();
    while answer.body.len() < length {
        more(&mut answer.body)?;
    }
    Ok(answer)
}
