//! A pool of connections to each server that the component names.

use super::bindings::postgres::Error;
use crate::allowed_hosts::AllowedHosts;
use deadpool_postgres::{
    Client, Manager, ManagerConfig, Pool, PoolError, QueueMode, RecyclingMethod, Runtime, TimeoutType,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use std::{
    error::Error as _,
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};
use tokio_postgres::{
    CancelToken, Config, NoTls,
    config::{Host, SslMode},
};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Most connections to an address, as with Spin.
const CONNECTIONS: usize = 64;

/// Most addresses whose connections are kept, as with Spin.
const ADDRESSES: usize = 16;

/// How long connecting to one host may take, until the server is ready for a statement.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait for one of the connections when all are in use.
const WAIT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the server may take to hear that a statement shall end.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a connection is kept that nobody needs.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// A peer that is gone without a word is noticed within a minute.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

/// The pools, and where they may connect to.
#[derive(Debug)]
pub(crate) struct Servers {
    allowed: Arc<AllowedHosts>,
    /// The one used last comes first. There are never more than a few.
    known: Mutex<Vec<Arc<Server>>>,
    /// The certificate authorities that this machine trusts. Read when the first connection needs them.
    authorities: OnceLock<RootCertStore>,
}

impl Servers {
    pub(crate) fn new(allowed: Arc<AllowedHosts>) -> Self {
        Self { allowed, known: Mutex::default(), authorities: OnceLock::new() }
    }

    /// The server at the address, if the component may connect to it.
    pub(super) fn at(&self, address: &str, authority: Option<&Authority>) -> Result<Arc<Server>, Error> {
        match self.known(address, authority) {
            Some(server) => Ok(server),
            None => self.know(address, authority),
        }
    }

    fn known(&self, address: &str, authority: Option<&Authority>) -> Option<Arc<Server>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let index = known.iter().position(|server| server.is(address, authority))?;
        known[..=index].rotate_right(1);
        known.first().cloned()
    }

    fn know(&self, address: &str, authority: Option<&Authority>) -> Result<Arc<Server>, Error> {
        let config = parse(address)?;
        self.check(&config)?;
        let tls = match config.get_ssl_mode() {
            SslMode::Disable => None,
            _ => Some(self.tls(authority)?),
        };
        let server = Arc::new(Server::new(address, authority.cloned(), config, tls)?);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever was quicker has the pool already.
        if let Some(known) = known.iter().find(|known| known.is(address, authority)) {
            return Ok(Arc::clone(known));
        }
        known.insert(0, Arc::clone(&server));
        known.truncate(ADDRESSES);
        Ok(server)
    }

    /// Each place that such a connection may lead to must be allowed.
    fn check(&self, config: &Config) -> Result<(), Error> {
        let (hosts, addresses) = (config.get_hosts(), config.get_hostaddrs());
        for index in 0..hosts.len().max(addresses.len()) {
            let port = config.get_ports().get(index).or(config.get_ports().first()).copied();
            let name = match hosts.get(index) {
                Some(Host::Tcp(name)) => Some(name.clone()),
                Some(Host::Unix(_)) => {
                    let reason = "Unix sockets are not supported on WebAssembly";
                    return Err(Error::ConnectionFailed(reason.to_owned()));
                }
                None => None,
            };
            // With a `hostaddr` the name is only what the certificate is checked against.
            for host in name.into_iter().chain(addresses.get(index).map(ToString::to_string)) {
                let host = if host.contains(':') { format!("[{host}]") } else { host };
                if self.allowed.allow("postgres", &host, port) {
                    continue;
                }
                // What is no name may be the rest of a password with an @ in it.
                let host = url::Host::parse(&host)
                    .map_or_else(|_| "(no valid host name)".to_owned(), |host| host.to_string());
                tracing::warn!(host, port, "Postgres refused; add it to allowed_outbound_hosts in spin.toml");
                let port = port.map_or_else(String::new, |port| format!(":{port}"));
                return Err(Error::ConnectionFailed(format!(
                    "address postgres://{host}{port} is not permitted"
                )));
            }
        }
        Ok(())
    }

    fn tls(&self, authority: Option<&Authority>) -> Result<MakeRustlsConnect, Error> {
        let mut trusted = self.authorities.get_or_init(authorities).clone();
        for certificate in authority.into_iter().flat_map(|authority| authority.certificates.iter()) {
            trusted.add(certificate.clone()).map_err(|error| invalid_authority(&error))?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Other(error.to_string()))?
            .with_root_certificates(trusted)
            .with_no_client_auth();
        Ok(MakeRustlsConnect::new(config))
    }
}

/// The certificate authorities that this machine trusts.
fn authorities() -> RootCertStore {
    let mut trusted = RootCertStore::empty();
    trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    trusted
}

/// Reads an address of either form. What is wrong with it may be in its password, so that is not told.
fn parse(address: &str) -> Result<Config, Error> {
    let mut config: Config = address.parse().map_err(|_| {
        Error::ConnectionFailed(
            "invalid connection string: write postgres://user:password@host:port/database, with % and two \
             hexadecimal digits for what is not a letter or digit, or host=... user=... password='...' \
             dbname=..."
                .to_owned(),
        )
    })?;
    let timeout = config.get_connect_timeout().copied().filter(|timeout| !timeout.is_zero());
    config.connect_timeout(timeout.unwrap_or(CONNECT_TIMEOUT).min(CONNECT_TIMEOUT));
    config
        .keepalives_idle(KEEPALIVE_IDLE)
        .keepalives_interval(KEEPALIVE_INTERVAL)
        .keepalives_retries(KEEPALIVE_RETRIES)
        .tcp_user_timeout(KEEPALIVE_IDLE);
    Ok(config)
}

/// Certificate authorities that a guest trusts beside this machine's.
#[derive(Debug, Clone)]
pub(super) struct Authority {
    /// What the guest has given; the same text is the same pool.
    text: Arc<str>,
    certificates: Arc<[CertificateDer<'static>]>,
}

impl Authority {
    /// Reads PEM text.
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let certificates = CertificateDer::pem_slice_iter(text.as_bytes())
            .collect::<Result<Arc<[_]>, _>>()
            .map_err(|error| invalid_authority(&error))?;
        if certificates.is_empty() {
            return Err(invalid_authority(&"no -----BEGIN CERTIFICATE----- in it"));
        }
        let mut store = RootCertStore::empty();
        for certificate in &*certificates {
            store.add(certificate.clone()).map_err(|error| invalid_authority(&error))?;
        }
        Ok(Self { text: text.into(), certificates })
    }
}

fn invalid_authority(reason: &dyn fmt::Display) -> Error {
    Error::Other(format!("invalid root certificate: {reason}"))
}

/// The connections to one address.
pub(super) struct Server {
    /// With its password, and so never shown.
    address: String,
    authority: Option<Authority>,
    pool: Pool,
    tls: Option<MakeRustlsConnect>,
    last_cleared: Mutex<Instant>,
}

impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Server").field("pool", &self.pool.status()).finish_non_exhaustive()
    }
}

impl Server {
    fn new(
        address: &str,
        authority: Option<Authority>,
        config: Config,
        tls: Option<MakeRustlsConnect>,
    ) -> Result<Self, Error> {
        let hosts = config.get_hosts().len().max(config.get_hostaddrs().len()).max(1);
        // Of the whole way, and not only of the first handshake: a server that hangs takes connections.
        let each = config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT);
        let connect_timeout = each * u32::try_from(hosts).unwrap_or(u32::MAX);
        // A look at whether it is still open, and no round trip: a session is cleared when it comes back.
        let fast = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = match &tls {
            Some(tls) => Manager::from_config(config, tls.clone(), fast),
            None => Manager::from_config(config, NoTls, fast),
        };
        let pool = Pool::builder(manager)
            .max_size(CONNECTIONS)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(WAIT_TIMEOUT))
            .create_timeout(Some(connect_timeout))
            // So that those which are not needed stay unused, and can be closed.
            .queue_mode(QueueMode::Lifo)
            .build()
            .map_err(|error| Error::Other(error.to_string()))?;
        let last_cleared = Mutex::new(Instant::now());
        Ok(Self { address: address.to_owned(), authority, pool, tls, last_cleared })
    }

    fn is(&self, address: &str, authority: Option<&Authority>) -> bool {
        self.address == address
            && self.authority.as_ref().map(|authority| &authority.text)
                == authority.map(|authority| &authority.text)
    }

    /// A connection of the pool, or a new one.
    pub(super) async fn connect(&self) -> Result<Client, Error> {
        self.close_idle();
        self.pool.get().await.map_err(|error| {
            Error::ConnectionFailed(match error {
                PoolError::Timeout(TimeoutType::Wait) => {
                    format!("all {CONNECTIONS} connections to the server are in use")
                }
                PoolError::Timeout(_) => {
                    let limit = self.pool.timeouts().create.unwrap_or(CONNECT_TIMEOUT);
                    format!("the server did not answer within {} s", limit.as_secs())
                }
                PoolError::Backend(error) => explain(&error),
                other => other.to_string(),
            })
        })
    }

    /// Closes the connections that are not in use.
    pub(super) fn close_free(&self) {
        self.pool.retain(|_, _| false);
    }

    fn close_idle(&self) {
        let mut last_cleared = self.last_cleared.lock().unwrap_or_else(PoisonError::into_inner);
        if last_cleared.elapsed() > IDLE_TIMEOUT / 10 {
            *last_cleared = Instant::now();
            drop(last_cleared);
            self.pool.retain(|_, metrics| metrics.last_used() < IDLE_TIMEOUT);
        }
    }

    /// Tells the server that nobody waits for a connection's statement any more.
    pub(super) async fn cancel(&self, token: CancelToken) {
        let cancel = async {
            match &self.tls {
                Some(tls) => token.cancel_query(tls.clone()).await,
                None => token.cancel_query(NoTls).await,
            }
        };
        // A server that cannot be told ends the statement when it likes.
        let _ = tokio::time::timeout(CANCEL_TIMEOUT, cancel).await;
    }
}

/// An error and what caused it, outermost first.
fn explain(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
