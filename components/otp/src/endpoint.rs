//! Where another program listens, as the variables name it.

/// `scheme://host:port`. There are no credentials and no path: Spin refuses those in
/// `allowed_outbound_hosts`, where an endpoint stands as it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Endpoint<'a> {
    pub(crate) scheme: &'a str,
    /// `host:port`
    pub(crate) place: &'a str,
    pub(crate) host: &'a str,
}

impl<'a> Endpoint<'a> {
    /// `None` for what has not that form.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (scheme, place) = text.split_once("://")?;
        let (host, port) = place.rsplit_once(':')?;
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
        let sound = !host.is_empty() && host.chars().all(known) && port.parse::<u16>().is_ok();
        sound.then_some(Self { scheme, place, host })
    }

    /// Whether the host is this very machine: `localhost`, 127.0.0.0/8 or ::1.
    pub(crate) fn is_loopback(self) -> bool {
        otp_request::is_loopback_host(self.host)
    }
}
