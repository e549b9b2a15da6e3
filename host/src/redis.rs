//! Redis: `spin:redis` over the `redis` crate, and where it may connect to.
//!
//! As with Spin, each `open` is a TCP connection of its own, no command has a deadline, and a connection
//! that broke stays broken: the guest sees to both.

use crate::{allowed_hosts::AllowedHosts, telemetry::Requests};
use ::redis::{
    AsyncConnectionConfig, Client, FromRedisValue, IntoConnectionInfo, ParsingError, RedisError, Value,
    aio::MultiplexedConnection, io::tcp::TcpSettings,
};
use bindings::redis::{Error, Host, HostConnection, HostConnectionWithStore, RedisParameter, RedisResult};
use std::sync::Arc;
use url::Url;
use wasmtime::{
    AsContextMut,
    component::{Accessor, HasData, Linker, Resource, ResourceTable},
};

mod bindings {
    //! What `wit/` says, as Rust traits.
    #![allow(clippy::all, clippy::pedantic, reason = "generated")]

    wasmtime::component::bindgen!({
        path: "../wit",
        world: "uses-redis",
        with: { "spin:redis/redis.connection": super::Connection },
        require_store_data_send: true,
    });

    pub(crate) use spin::redis::redis;
}

/// A guest's connection. Cheap to clone; the last one closes it.
#[expect(unreachable_pub, reason = "the generated bindings export it again")]
#[derive(Debug, Clone)]
pub struct Connection(MultiplexedConnection);

impl Connection {
    async fn open(address: &str, allowed: &AllowedHosts) -> Result<Self, Error> {
        let url = Url::parse(address).map_err(|_| Error::InvalidAddress)?;
        let host = url.host_str().ok_or(Error::InvalidAddress)?;
        if !allowed.allow(url.scheme(), host, url.port()) {
            tracing::warn!(host, "Redis refused; add it to allowed_outbound_hosts in spin.toml");
            return Err(Error::InvalidAddress);
        }
        // Or a small command waits 40 ms for the acknowledgement of the one before.
        let info = address
            .into_connection_info()
            .map_err(|_| Error::InvalidAddress)?
            .set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let client = Client::open(info).map_err(|_| Error::InvalidAddress)?;
        client.get_multiplexed_async_connection_with_config(&config).await.map(Self).map_err(other)
    }

    async fn execute(
        mut self,
        command: &str,
        arguments: Vec<RedisParameter>,
    ) -> Result<Vec<RedisResult>, Error> {
        let mut command = ::redis::cmd(command);
        for argument in arguments {
            match argument {
                RedisParameter::Int64(integer) => command.arg(integer),
                RedisParameter::Binary(bytes) => command.arg(bytes),
            };
        }
        command.query_async(&mut self.0).await.map(|Flat(results)| results).map_err(other)
    }
}

fn other(error: RedisError) -> Error {
    Error::Other(error.to_string())
}

/// A reply as the interface has it: nested lists flattened.
struct Flat(Vec<RedisResult>);

impl FromRedisValue for Flat {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let mut flat = Self(Vec::new());
        flat.append(value)?;
        Ok(flat)
    }
}

impl Flat {
    fn append(&mut self, value: Value) -> Result<(), ParsingError> {
        let result = match value {
            Value::Nil => RedisResult::Nil,
            Value::Int(integer) => RedisResult::Int64(integer),
            Value::BulkString(bytes) => RedisResult::Binary(bytes),
            Value::SimpleString(text) => RedisResult::Status(text),
            Value::Okay => RedisResult::Status("OK".to_owned()),
            Value::Array(values) => return values.into_iter().try_for_each(|value| self.append(value)),
            // Of the newer protocol, which the connection does not speak.
            _ => return Err("a reply of this type is not supported".into()),
        };
        self.0.push(result);
        Ok(())
    }
}

/// What an instance has of Redis.
#[derive(Debug)]
pub(crate) struct Redis {
    allowed: Arc<AllowedHosts>,
    /// The guest's connections.
    table: ResourceTable,
    requests: Requests,
}

impl Redis {
    pub(crate) fn new(allowed: Arc<AllowedHosts>, requests: Requests) -> Self {
        Self { allowed, table: ResourceTable::new(), requests }
    }
}

/// Links the interface to a store that has `get` for it.
pub(crate) fn add_to_linker<T: Send + 'static>(
    linker: &mut Linker<T>,
    get: fn(&mut T) -> &mut Redis,
) -> wasmtime::Result<()> {
    bindings::redis::add_to_linker::<_, RedisData>(linker, get)
}

/// Gives the linker access to the [`Redis`] of an instance.
#[derive(Debug)]
struct RedisData;

impl HasData for RedisData {
    type Data<'a> = &'a mut Redis;
}

impl Host for &mut Redis {}

impl HostConnection for &mut Redis {
    fn drop(&mut self, connection: Resource<Connection>) -> wasmtime::Result<()> {
        self.table.delete(connection)?;
        Ok(())
    }
}

impl<T: Send + 'static> HostConnectionWithStore<T> for RedisData {
    async fn open(accessor: &Accessor<T, Self>, address: String) -> Result<Resource<Connection>, Error> {
        let allowed = accessor.with(|mut access| Arc::clone(&access.get().allowed));
        let connection = Connection::open(&address, &allowed).await?;
        accessor.with(|mut access| access.get().table.push(connection)).map_err(|_| Error::TooManyConnections)
    }

    async fn execute(
        accessor: &Accessor<T, Self>,
        connection: Resource<Connection>,
        command: String,
        arguments: Vec<RedisParameter>,
    ) -> Result<Vec<RedisResult>, Error> {
        let (connection, mut span) = accessor.with(|mut access| {
            let redis = access.get();
            let (connection, requests) = (redis.table.get(&connection).cloned(), redis.requests.clone());
            (connection, requests.database(access.as_context_mut(), "redis", &command))
        });
        let connection = connection.map_err(|error| Error::Other(error.to_string()))?;
        let replied = connection.execute(&command, arguments).await;
        if replied.is_err() {
            span.failed("redis");
        }
        replied
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn open(redis: &harness::Redis) -> Connection {
        Connection::open(&redis.endpoint(), &AllowedHosts::only(&[&redis.endpoint()])).await.unwrap()
    }

    async fn run(
        connection: &Connection,
        command: &str,
        arguments: &[&str],
    ) -> Result<Vec<RedisResult>, Error> {
        let binary = |argument: &&str| RedisParameter::Binary(argument.as_bytes().to_vec());
        connection.clone().execute(command, arguments.iter().map(binary).collect()).await
    }

    fn shown(results: Result<Vec<RedisResult>, Error>) -> String {
        format!("{:?}", results.unwrap())
    }

    #[tokio::test]
    async fn replies_of_every_kind_come_back_flat() {
        let redis = harness::Redis::start();
        let connection = open(&redis).await;
        let binary = RedisParameter::Binary(vec![0, 255]);
        let set =
            connection.clone().execute("SET", vec![RedisParameter::Binary(b"k".to_vec()), binary]).await;
        assert_eq!(shown(set), r#"[RedisResult::Status("OK")]"#);
        assert_eq!(shown(run(&connection, "GET", &["k"]).await), "[RedisResult::Binary([0, 255])]");
        assert_eq!(shown(run(&connection, "GET", &["none"]).await), "[RedisResult::Nil]");
        assert_eq!(shown(run(&connection, "PING", &[]).await), r#"[RedisResult::Status("PONG")]"#);
        let nested = "return {1, {redis.call('GET', 'none'), 'x'}, 2}";
        assert_eq!(
            shown(run(&connection, "EVAL", &[nested, "0"]).await),
            "[RedisResult::Int64(1), RedisResult::Nil, RedisResult::Binary([120]), RedisResult::Int64(2)]"
        );
        let incremented = connection
            .clone()
            .execute("INCRBY", vec![RedisParameter::Binary(b"n".to_vec()), RedisParameter::Int64(-7)])
            .await;
        assert_eq!(shown(incremented), "[RedisResult::Int64(-7)]");
    }

    #[tokio::test]
    async fn what_redis_says_is_passed_on_and_the_connection_lives() {
        let redis = harness::Redis::start();
        let connection = open(&redis).await;
        for (command, arguments, said) in [
            ("EVALSHA", &["0000000000000000000000000000000000000000", "0"][..], "noscript"),
            ("NOSUCHCOMMAND", &[], "unknown command"),
        ] {
            match run(&connection, command, arguments).await {
                Err(Error::Other(reason)) => assert!(reason.to_lowercase().contains(said), "{reason}"),
                other => panic!("{command}: {other:?}"),
            }
        }
        run(&connection, "PING", &[]).await.unwrap();
    }

    #[tokio::test]
    async fn only_what_the_manifest_allows_is_connected_to() {
        let redis = harness::Redis::start();
        for (address, allowed) in [
            (redis.endpoint(), "redis://127.0.0.1:1"),
            (redis.endpoint(), "http://127.0.0.1:1"),
            ("no address".to_owned(), "redis://127.0.0.1:6379"),
            ("http://127.0.0.1:6379".to_owned(), "http://127.0.0.1:6379"),
        ] {
            let refused = Connection::open(&address, &AllowedHosts::only(&[allowed])).await;
            assert!(matches!(refused, Err(Error::InvalidAddress)), "{address}: {refused:?}");
        }
        Connection::open(&format!("{}/3", redis.endpoint()), &AllowedHosts::only(&[&redis.endpoint()]))
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn each_open_is_a_connection_of_its_own_and_a_dropped_one_is_closed() {
        let redis = harness::Redis::start();
        let (one, two) = (open(&redis).await, open(&redis).await);
        assert_ne!(shown(run(&one, "CLIENT", &["ID"]).await), shown(run(&two, "CLIENT", &["ID"]).await));
        drop(two);
        let clients = async || {
            let list = run(&one, "CLIENT", &["LIST"]).await.unwrap();
            let [RedisResult::Binary(list)] = &list[..] else { panic!("{list:?}") };
            list.iter().filter(|byte| **byte == b'\n').count()
        };
        for _ in 0..200 {
            if clients().await == 1 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("still {} connections", clients().await);
    }

    #[tokio::test]
    async fn no_command_has_a_deadline_and_a_broken_connection_stays_broken() {
        let mut redis = harness::Redis::start();
        let connection = open(&redis).await;
        // The client's own default would give up after half a second.
        assert_eq!(shown(run(&connection, "BLPOP", &["nothing", "1"]).await), "[RedisResult::Nil]");
        redis.restart_empty();
        for _ in 0..2 {
            assert!(run(&connection, "PING", &[]).await.is_err());
        }
        run(&open(&redis).await, "PING", &[]).await.unwrap();
        redis.kill();
        assert!(matches!(
            Connection::open(&redis.endpoint(), &AllowedHosts::only(&[&redis.endpoint()])).await,
            Err(Error::Other(_))
        ));
    }

    #[tokio::test]
    async fn credentials_in_the_address_are_used() {
        let redis = harness::Redis::with_password("p@ss");
        let allowed = AllowedHosts::only(&[&redis.endpoint()]);
        let address = |password: &str| format!("redis://:{password}@{}", redis.address());
        let connection = Connection::open(&address("p%40ss"), &allowed).await.unwrap();
        run(&connection, "PING", &[]).await.unwrap();
        assert!(Connection::open(&address("wrong"), &allowed).await.is_err());
    }
}
