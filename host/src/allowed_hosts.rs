//! `allowed_outbound_hosts`: where the component may connect to.

use crate::variables::Variables;
use anyhow::{Context, Result, bail};
use url::Host;

/// What the component may call, by scheme, host and port.
#[derive(Debug, Default)]
pub(crate) struct AllowedHosts(Vec<Allowed>);

/// One entry. `None` stands for `*`.
#[derive(Debug)]
struct Allowed {
    scheme: Option<String>,
    host: AllowedHost,
    port: Option<(u16, u16)>,
}

#[derive(Debug)]
enum AllowedHost {
    Any,
    /// `*.example.com`, as `.example.com`
    Below(String),
    Exactly(Host),
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
        self.0.iter().any(|allowed| {
            allowed.scheme.as_ref().is_none_or(|allowed| allowed == scheme)
                && allowed.port.is_none_or(|(first, last)| (first..=last).contains(&port))
                && match (&allowed.host, &host) {
                    (AllowedHost::Any, _) => true,
                    (AllowedHost::Below(suffix), Host::Domain(domain)) => domain.ends_with(suffix.as_str()),
                    (AllowedHost::Below(_), _) => false,
                    (AllowedHost::Exactly(allowed), host) => allowed == host,
                }
        })
    }
}

impl Allowed {
    fn parse(entry: &str) -> Result<Self> {
        let Some((scheme, place)) = entry.split_once("://") else {
            bail!("write scheme://host:port, each of which may be *");
        };
        let (host, port) = match place.rsplit_once(':') {
            // The colons of an IPv6 address stand inside brackets.
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (place.strip_suffix('/').unwrap_or(place), None),
        };
        if scheme != "*" && !scheme.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            bail!("the scheme is not made of letters");
        }
        Ok(Self {
            scheme: (scheme != "*").then(|| scheme.to_owned()),
            host: AllowedHost::parse(host)?,
            port: match port {
                Some("*") => None,
                Some(port) => Some(ports(port.strip_suffix('/').unwrap_or(port))?),
                None => {
                    let port = well_known_port(scheme).context("the port is missing")?;
                    Some((port, port))
                }
            },
        })
    }
}

impl AllowedHost {
    fn parse(host: &str) -> Result<Self> {
        if host == "*" {
            return Ok(Self::Any);
        }
        if host.contains(['/', '@']) {
            bail!("an entry is scheme, host and port: no path and no credentials");
        }
        match host.strip_prefix("*.") {
            Some(domain) => match Host::parse(domain)? {
                Host::Domain(domain) => Ok(Self::Below(format!(".{domain}"))),
                _ => bail!("what follows *. must be a domain"),
            },
            None if host.contains('*') => bail!("* stands for a whole host or its first part"),
            None => Ok(Self::Exactly(Host::parse(host)?)),
        }
    }
}

/// A port, or `first..end` without the end.
fn ports(text: &str) -> Result<(u16, u16)> {
    let number = |text: &str| text.parse::<u16>().context("the port is no number");
    match text.split_once("..") {
        Some((first, end)) => {
            let (first, end) = (number(first)?, number(end)?);
            let last = end.checked_sub(1).filter(|last| *last >= first).context("the port range is empty")?;
            Ok((first, last))
        }
        None => number(text).map(|port| (port, port)),
    }
}

fn well_known_port(scheme: &str) -> Option<u16> {
    Some(match scheme {
        "http" => 80,
        "https" => 443,
        "redis" => 6379,
        "postgres" => 5432,
        "mysql" => 3306,
        "mqtt" => 1883,
        _ => return None,
    })
}

#[cfg(test)]
impl AllowedHosts {
    /// For tests of what connects somewhere.
    pub(crate) fn only(entry: &str) -> std::sync::Arc<Self> {
        std::sync::Arc::new(Self(vec![Allowed::parse(entry).unwrap()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(entries: &[&str]) -> AllowedHosts {
        AllowedHosts(entries.iter().map(|entry| Allowed::parse(entry).unwrap()).collect())
    }

    #[test]
    fn scheme_host_and_port_must_all_match() {
        let hosts = allowed(&["http://127.0.0.1:3100", "https://*.example.com", "redis://[::1]:7000..7002"]);
        for (scheme, host, port, allow) in [
            ("http", "127.0.0.1", Some(3100), true),
            ("https", "127.0.0.1", Some(3100), false),
            ("http", "127.0.0.1", Some(3101), false),
            ("http", "127.0.0.1", None, false),
            ("http", "127.0.0.2", Some(3100), false),
            ("https", "a.example.com", None, true),
            ("https", "A.EXAMPLE.com", Some(443), true),
            ("https", "example.com", None, false),
            ("https", "evil-example.com", None, false),
            ("redis", "[::1]", Some(7001), true),
            ("redis", "[::1]", Some(7002), false),
        ] {
            assert_eq!(hosts.allow(scheme, host, port), allow, "{scheme}://{host}:{port:?}");
        }
        assert!(allowed(&["*://*:*"]).allow("redis", "anything", Some(1)));
        assert!(!AllowedHosts::default().allow("http", "127.0.0.1", None));
    }

    #[test]
    fn what_spin_refuses_is_refused() {
        for entry in [
            "",
            "*",
            "example.com",
            "redis://:secret@host:6379",
            "redis://host:6379/0",
            "http://host/path",
            "tcp://host",
            "http://host:http",
            "http://*a.example.com",
            "http://*.127.0.0.1",
            "h2-c://host:1",
        ] {
            assert!(Allowed::parse(entry).is_err(), "{entry}");
        }
    }
}
