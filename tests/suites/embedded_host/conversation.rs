//! What goes over one connection, byte by byte: what no HTTP client would send.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

/// Longer than any answer takes here.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the host has said on a connection.
#[derive(Debug)]
pub(crate) struct Conversation {
    said: Vec<u8>,
    /// Whether the host closed, and did not only fall silent.
    pub(crate) closed: bool,
}

impl Conversation {
    /// Sends the bytes and hears all that the host says, to the end of the connection.
    pub(crate) fn with(address: &str, bytes: &[u8]) -> Self {
        let mut stream = connect(address);
        // The host may close before it has read everything.
        let _ = stream.write_all(bytes);
        Self::rest_of(&mut stream)
    }

    /// Hears all that is still said on a connection.
    pub(crate) fn rest_of(stream: &mut TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut said = Vec::new();
        let closed = match stream.read_to_end(&mut said) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        };
        Self { said, closed }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.said).into_owned()
    }

    /// The statuses of all answers, in their order. No body of an answer here looks like a status line.
    pub(crate) fn statuses(&self) -> Vec<u16> {
        let text = self.text();
        let versions = text.split("HTTP/1.").skip(1);
        versions.filter_map(|line| line.get(2..5)?.parse().ok()).collect()
    }
}

pub(crate) fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}
