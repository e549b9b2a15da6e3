//! `allowed_outbound_hosts`: where the component may connect to.

use crate::variables::Variables;
use anyhow::{Context, Result, bail};
use url::Host;

/// What the component may call, by scheme, host and port.
#[derive(Debug, Default)]
pub(crate) struct AllowedHosts(Vec<Allowed>);

/// One entry.
#[derive(Debug, PartialEq, Eq)]
struct Allowed {
    scheme: String,
    host: Host,
    port: u16,
}

impl AllowedHosts {
    /// Reads the manifest's entries with its variables filled in. An entry that becomes empty allows
    /// nothing, and the others stand.
    pub(crate) fn resolve(templates: &[String], variables: &Variables) -> Result<Self> {
        let mut allowed = Vec::new();
        for template in templates {
            let entry = || -> Result<Option<Allowed>> {
                let entry = variables.fill(template)?;
                let entry = entry.trim();
                if entry.is_empty() && template.contains("{{") {
                    Ok(None)
                } else {
                    Allowed::parse(entry).map(Some)
                }
            };
            allowed.extend(entry().with_context(|| format!("allowed_outbound_hosts: {template:?}"))?);
        }
        Ok(Self(allowed))
    }

    /// Whether a call to this place is allowed. Without a port, the scheme's own.
    pub(crate) fn allow(&self, scheme: &str, host: &str, port: Option<u16>) -> bool {
        let (Ok(host), Some(port)) = (Host::parse(host), port.or_else(|| well_known_port(scheme))) else {
            return false;
        };
        self.0.contains(&Allowed { scheme: scheme.to_owned(), host, port })
    }
}

impl Allowed {
    fn parse(entry: &str) -> Result<Self> {
        let Some((scheme, place)) = entry.split_once("://") else {
            bail!("write scheme://host:port");
        };
        let (host, port) = match place.rsplit_once(':') {
            // The colons of an IPv6 address stand inside brackets.
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (place.strip_suffix('/').unwrap_or(place), None),
        };
        if !scheme.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            bail!("the scheme is not made of letters");
        }
        if host.contains(['/', '@']) {
            bail!("an entry is scheme, host and port: no path and no credentials");
        }
        if entry.contains('*') {
            bail!("this host takes no *; write out scheme, host and port, or use spin");
        }
        let port = match port {
            Some(port) => port.strip_suffix('/').unwrap_or(port).parse().context("the port is no number")?,
            None => well_known_port(scheme).context("the port is missing")?,
        };
        Ok(Self { scheme: scheme.to_owned(), host: Host::parse(host)?, port })
    }
}

fn well_known_port(scheme: &str) -> Option<u16> {
    Some(match scheme {
        "http" => 80,
        "https" => 443,
        "redis" => 6379,
        "postgres" => 5432,
        _ => return None,
    })
}

#[cfg(test)]
impl AllowedHosts {
    /// For tests of what connects somewhere.
    pub(crate) fn only(entries: &[&str]) -> std::sync::Arc<Self> {
        std::sync::Arc::new(Self(entries.iter().map(|entry| Allowed::parse(entry).unwrap()).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scheme_host_and_port_must_all_match() {
        let hosts =
            AllowedHosts::only(&["http://127.0.0.1:3100", "https://a.Example.com", "redis://[::1]:7000/"]);
        for (scheme, host, port, allow) in [
            ("http", "127.0.0.1", Some(3100), true),
            ("https", "127.0.0.1", Some(3100), false),
            ("http", "127.0.0.1", Some(3101), false),
            ("http", "127.0.0.1", None, false),
            ("http", "127.0.0.2", Some(3100), false),
            ("https", "a.example.com", None, true),
            ("https", "A.EXAMPLE.com", Some(443), true),
            ("https", "example.com", None, false),
            ("https", "b.a.example.com", None, false),
            ("redis", "[::1]", Some(7000), true),
            ("redis", "[::1]", None, false),
        ] {
            assert_eq!(hosts.allow(scheme, host, port), allow, "{scheme}://{host}:{port:?}");
        }
        assert!(!AllowedHosts::default().allow("http", "127.0.0.1", None));
    }

    #[test]
    fn what_spin_refuses_is_refused_and_so_is_a_wildcard() {
        for entry in [
            "",
            "example.com",
            "redis://:secret@host:6379",
            "redis://host:6379/0",
            "http://host/path",
            "tcp://host",
            "http://host:http",
            "http://host:1..3",
            "h2-c://host:1",
            "*",
            "*://*:*",
            "http://*.example.com",
            "http://host:*",
        ] {
            assert!(Allowed::parse(entry).is_err(), "{entry}");
        }
    }
}
