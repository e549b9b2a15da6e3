//! Redis through Spin's interface: one connection an instance, opened once, reopened when it fails.
//!
//! Spin's client has no deadline for answers and does not reconnect, so both are done here. The
//! scripts stand in `redis/`, one file each.

use crate::{deadline, endpoint::Endpoint, environment::Environment, log};
use otp_core::{Breaker, Revision, ports::Clock};
use sha1::{Digest, Sha1};
use spin_sdk::redis::{Connection, Error, RedisParameter, RedisResult};
use std::{
    cell::{Cell, RefCell},
    fmt::Write,
    rc::Rc,
    sync::LazyLock,
    time::Duration,
};

/// Where Redis is, with the credentials in it. Not printable.
pub(crate) struct Address(String);

impl Address {
    /// From the endpoint `redis://host:port` and what goes with it.
    pub(crate) fn new(
        endpoint: &str,
        username: &str,
        password: &str,
        database: u32,
    ) -> Result<Self, &'static str> {
        const FORM: &str =
            "must be redis://host:port; user, password and database have variables of their own";
        let endpoint = Endpoint::parse(endpoint).filter(|endpoint| endpoint.scheme == "redis").ok_or(FORM)?;
        let credentials = match (username, password) {
            ("", "") => String::new(),
            _ => format!("{}:{}@", percent_encoded(username), percent_encoded(password)),
        };
        Ok(Self(format!("redis://{credentials}{}/{database}", endpoint.place)))
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Address")
    }
}

/// RFC 3986, section 2.1: everything but unreserved characters as `%XX`.
fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

/// What is asked of Redis. Each is one command, and one step.
#[derive(Debug)]
pub(super) enum Command {
    /// The account as it was last put, and counts a request on all of these meters, if all of them let it in: of each
    /// its share and its room, in microseconds.
    Look { account: Option<String>, meters: Vec<String>, limits: Vec<(i64, i64)> },
    /// Takes back what was counted.
    Uncount { keys: Vec<String>, shares: Vec<i64> },
    /// Keeps an account for `life` milliseconds, unless the same or a newer state of it is kept.
    Put { key: String, revision: Revision, account: Vec<u8>, life: i64 },
    /// Writes a key and removes it, to see whether it can be used.
    Probe,
}

/// A script and the name that Redis knows it by once it has seen it.
struct Script {
    source: &'static str,
    sha1: String,
}

static LOOK: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("redis/look.lua")));
static UNCOUNT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("redis/uncount.lua")));
static PUT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("redis/put.lua")));
static PROBE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("redis/probe.lua")));

impl Script {
    fn new(source: &'static str) -> Self {
        let sha1 = Sha1::digest(source).iter().fold(String::new(), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        Self { source, sha1 }
    }

    /// By its name, or with its text where Redis does not know it: after a restart, or at first.
    async fn run(
        &self,
        connection: &Connection,
        keys: &[String],
        arguments: &[RedisParameter],
    ) -> Result<Vec<RedisResult>, Error> {
        let call = async |command: &str, script: &str| {
            let count = keys.len().to_string();
            let fixed = [script, &count].into_iter().chain(keys.iter().map(String::as_str)).map(text);
            connection.execute(command, fixed.chain(arguments.iter().cloned())).await
        };
        match call("EVALSHA", &self.sha1).await {
            Err(Error::Other(reason)) if reason.to_ascii_lowercase().contains("noscript") => {
                call("EVAL", self.source).await
            }
            outcome => outcome,
        }
    }
}

impl Command {
    async fn run(&self, connection: &Connection) -> Result<Vec<RedisResult>, Error> {
        match self {
            // With nothing to count, it is quicker without a script.
            Self::Look { account: Some(key), meters, .. } if meters.is_empty() => {
                connection.execute("HMGET", [key, "revision", "account"].map(text)).await
            }
            Self::Look { account, meters, limits } => {
                let keys: Vec<_> = account.iter().chain(meters).cloned().collect();
                let limits = limits.iter().flat_map(|(share, room)| [*share, *room]);
                let arguments = std::iter::once(i64::from(account.is_some())).chain(limits);
                let arguments: Vec<_> = arguments.map(RedisParameter::Int64).collect();
                LOOK.run(connection, &keys, &arguments).await
            }
            Self::Uncount { keys, shares } => {
                let arguments: Vec<_> = shares.iter().copied().map(RedisParameter::Int64).collect();
                UNCOUNT.run(connection, keys, &arguments).await
            }
            Self::Put { key, revision, account, life } => {
                let account = RedisParameter::Binary(account.clone());
                let arguments =
                    [RedisParameter::Int64(revision.get()), account, RedisParameter::Int64(*life)];
                PUT.run(connection, std::slice::from_ref(key), &arguments).await
            }
            Self::Probe => PROBE.run(connection, &["spin-otp:probe:{otp}".to_owned()], &[]).await,
        }
    }
}

fn text(text: &str) -> RedisParameter {
    RedisParameter::Binary(text.as_bytes().to_vec())
}

/// What [`Command::Look`] found.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// The account, sealed, and its revision.
    pub(super) account: Option<(i64, Vec<u8>)>,
    /// Which meter is full and for how long, in microseconds, if one is.
    pub(super) full: Option<(usize, i64)>,
}

/// Reads the reply to [`Command::Look`]: revision and account, and where meters were counted the place of a full one
/// and its wait. `None` for what is not of its form.
pub(super) fn looked(reply: &[RedisResult]) -> Option<Looked> {
    let (found, counted) = reply.split_at_checked(2)?;
    let account = match found {
        [RedisResult::Binary(revision), RedisResult::Binary(account)] if !account.is_empty() => {
            let revision = std::str::from_utf8(revision).ok().and_then(|text| text.parse().ok());
            revision.map(|revision| (revision, account.clone()))
        }
        _ => None,
    };
    let full = match counted {
        [] | [RedisResult::Int64(0), ..] => None,
        [RedisResult::Int64(place), RedisResult::Int64(wait)] => {
            Some((usize::try_from(*place).ok()?.checked_sub(1)?, *wait))
        }
        _ => return None,
    };
    Some(Looked { account, full })
}

/// The connection of this instance.
#[derive(Clone)]
enum Slot {
    Closed,
    /// Somebody is opening it: an instance opens one connection, not one for each request.
    Opening,
    Open(Rc<Connection>),
}

thread_local! {
    static SLOT: RefCell<Slot> = const { RefCell::new(Slot::Closed) };
    static BREAKER: RefCell<Breaker> = RefCell::default();
}

/// How often those who wait for somebody else's opening look again. A task of an instance cannot wake
/// another one, so they have to look.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The reply to `command`, or `None` if there is none in time. While somebody else is opening the
/// connection, those who are not `patient` go without.
pub(super) async fn call(
    address: &Address,
    limit: Duration,
    patient: bool,
    command: &Command,
) -> Option<Vec<RedisResult>> {
    let now = || Environment.now();
    if !BREAKER.with_borrow(|breaker| breaker.allows(now())) {
        return None;
    }
    if !patient && SLOT.with_borrow(|slot| matches!(slot, Slot::Opening)) {
        return None;
    }
    match exchange(address, limit, command).await {
        Ok(reply) => {
            BREAKER.with_borrow_mut(Breaker::succeeded);
            match reply {
                Reply::Given(reply) => Some(reply),
                // It is there, and has nothing for us.
                Reply::Refused(reason) => {
                    say_once(&reason);
                    Some(Vec::new())
                }
            }
        }
        Err(reason) => {
            if BREAKER.with_borrow_mut(|breaker| breaker.failed(now())) {
                away(&reason);
            }
            None
        }
    }
}

/// Whether Redis does at this moment what is asked of it, whatever the breaker thinks; if not, why.
pub(super) async fn probe(address: &Address, limit: Duration) -> Result<(), &'static str> {
    match exchange(address, limit, &Command::Probe).await {
        Ok(Reply::Given(_)) => Ok(()),
        Ok(Reply::Refused(reason)) | Err(reason) => Err(why(&reason)),
    }
}

/// What Redis says to a command.
enum Reply {
    Given(Vec<RedisResult>),
    /// It is there, and will not do it.
    Refused(String),
}

/// By which word in its answer Redis says why it refuses, and what that means to an operator. An answer itself is not
/// shown to everybody: it may name a host or a user.
const REFUSALS: [(&str, &str); 12] = [
    (
        "OOM",
        "it is out of memory and evicts nothing: raise maxmemory, or set maxmemory-policy to allkeys-lru",
    ),
    ("READONLY", "it is a read-only replica: name the primary in redis_endpoint"),
    (
        "NOPERM",
        "its user may not do that: allow it EVAL, EVALSHA, GET, HMGET, HGET, HSET, SET, DEL, PEXPIRE and TIME",
    ),
    (
        "ACL",
        "its user may not do that: allow it EVAL, EVALSHA, GET, HMGET, HGET, HSET, SET, DEL, PEXPIRE and TIME",
    ),
    ("MOVED", "it is a node of a cluster: name a server without cluster mode in redis_endpoint"),
    ("ASK", "it is a node of a cluster: name a server without cluster mode in redis_endpoint"),
    ("CLUSTERDOWN", "it is a node of a cluster: name a server without cluster mode in redis_endpoint"),
    ("MISCONF", "it cannot save to its disk, and so refuses to write"),
    ("WRONGTYPE", "its keys are somebody else's: give the service a database of its own"),
    ("NOAUTH", "it wants a password: set redis_password"),
    ("WRONGPASS", "it does not know this user and password: see redis_username and redis_password"),
    ("LOADING", "it is still loading its data"),
];

/// The refusal that an answer is, if it is one of those.
fn refusal(answer: &str) -> Option<(&'static str, &'static str)> {
    // A client has its own words for some of them: "ReadOnly", "An error was signalled by the server - Moved".
    let answer = answer.to_ascii_uppercase();
    // Of a command inside a script Redis says so in words, under the code ERR.
    let answer = if answer.contains("CAN'T RUN THIS COMMAND") { "NOPERM" } else { &answer };
    let mut words = answer.split(|c: char| !c.is_ascii_alphanumeric());
    words.find_map(|word| REFUSALS.iter().find(|(known, _)| *known == word).copied())
}

/// For an operator: why Redis cannot be used.
fn why(answer: &str) -> &'static str {
    refusal(answer).map_or("it does not answer", |(_, meaning)| meaning)
}

/// Sends `command` on the connection there is, and if that fails at once, on a new one: Redis may have
/// been restarted since. Done twice, a command does the same; only a count may be one too many then.
async fn exchange(address: &Address, limit: Duration, command: &Command) -> Result<Reply, String> {
    let used = RefCell::new(None);
    let attempt = async {
        let connection = connection(address).await?;
        used.replace(Some(Rc::clone(&connection)));
        if let Ok(reply) = run(command, &connection).await {
            return Ok(reply);
        }
        close(&connection);
        let connection = self::connection(address).await?;
        used.replace(Some(Rc::clone(&connection)));
        run(command, &connection).await.inspect_err(|_| close(&connection))
    };
    match deadline::within(limit, attempt).await {
        Some(reply) => reply.map_err(|error| said(&error)),
        None => {
            // Whatever hangs on it would hang the next one, too.
            if let Some(connection) = used.take() {
                close(&connection);
            }
            Err(format!("Redis: no answer within {} ms", limit.as_millis()))
        }
    }
}

async fn run(command: &Command, connection: &Connection) -> Result<Reply, Error> {
    match command.run(connection).await {
        Ok(reply) => Ok(Reply::Given(reply)),
        Err(error) if refused(&error) => Ok(Reply::Refused(said(&error))),
        Err(error) => Err(error),
    }
}

/// Whether Redis is well and will not do this: it is full, a replica, or lets this user do less. The connection is not to
/// blame, as it is for one who was not let in, or came too early.
fn refused(error: &Error) -> bool {
    let Error::Other(reason) = error else { return false };
    refusal(reason).is_some_and(|(word, _)| !["NOAUTH", "WRONGPASS", "LOADING"].contains(&word))
}

fn said(error: &Error) -> String {
    match error {
        Error::Other(reason) => format!("Redis: {reason}"),
        other => format!("Redis: {other}"),
    }
}

/// Tells the operator of a refusal, once an instance.
fn say_once(reason: &str) {
    thread_local! {
        static SAID: Cell<bool> = const { Cell::new(false) };
    }
    if !SAID.replace(true) {
        away(reason);
    }
}

/// The connection that there is, or a new one.
async fn connection(address: &Address) -> Result<Rc<Connection>, Error> {
    /// Whoever gives up opening leaves it to the next one.
    struct Attempt;
    impl Drop for Attempt {
        fn drop(&mut self) {
            SLOT.with_borrow_mut(|slot| {
                if matches!(slot, Slot::Opening) {
                    *slot = Slot::Closed;
                }
            });
        }
    }

    loop {
        match SLOT.with_borrow(Clone::clone) {
            Slot::Open(connection) => return Ok(connection),
            Slot::Opening => spin_sdk::time::sleep(LOOK_AGAIN).await,
            Slot::Closed => {
                SLOT.set(Slot::Opening);
                let _attempt = Attempt;
                let connection = Rc::new(Connection::open(&address.0).await?);
                SLOT.set(Slot::Open(Rc::clone(&connection)));
                return Ok(connection);
            }
        }
    }
}

/// Forgets this connection, not one that somebody has opened in its place.
fn close(connection: &Rc<Connection>) {
    SLOT.with_borrow_mut(|slot| {
        if matches!(slot, Slot::Open(current) if Rc::ptr_eq(current, connection)) {
            *slot = Slot::Closed;
        }
    });
}

/// Logs that the cache is away. The caller limits how often: not once a request.
fn away(reason: &str) {
    log::line(format_args!("cache unavailable: {reason}; the database is asked instead"));
}
