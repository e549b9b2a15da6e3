//! PostgreSQL: `spin:postgres` over `tokio-postgres`, and where it may connect to.
//!
//! As with Spin, an `open` is one of at most 64 pooled connections to its address, and values, errors and
//! addresses are the same in every case. Unlike Spin,
//!
//! - statements stay prepared on their connection, so that a repeated one is one round trip;
//! - taking a connection from the pool is no round trip: what a guest left behind in its session is
//!   cleared when it gives the connection back, and an open transaction with it;
//! - a connection on which a guest has given up in the middle of a statement is closed, and the statement
//!   cancelled: a server that hangs holds up nobody once it goes on;
//! - `hostaddr`, and what `build` opens, have to be in `allowed_outbound_hosts`, too;
//! - nothing waits for ever to connect.

#![allow(clippy::result_large_err, reason = "the interface's error holds all that PostgreSQL says")]

mod numeric;
mod pool;
mod range;
mod session;
mod values;

use crate::telemetry::{Requests, Span};
use bindings::postgres::{
    Column, Error, Host, HostConnection, HostConnectionBuilder, HostConnectionBuilderWithStore,
    HostConnectionWithStore, ParameterValue, Row, RowSet,
};
use pool::Authority;
pub(crate) use pool::Servers;
use session::{Rows, Session};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::sync::oneshot;
use wasmtime::{
    AsContextMut, StoreContextMut,
    component::{
        Accessor, Destination, FutureReader, HasData, Linker, Resource, ResourceTable, StreamProducer,
        StreamReader, StreamResult, VecBuffer,
    },
};

mod bindings {
    //! What `wit/` says, as Rust traits.
    #![allow(clippy::all, clippy::pedantic, reason = "generated")]

    wasmtime::component::bindgen!({
        path: "../wit",
        world: "uses-postgres",
        with: {
            "spin:postgres/postgres.connection": super::Connection,
            "spin:postgres/postgres.connection-builder": super::ConnectionBuilder,
        },
        imports: {
            "spin:postgres/postgres.[constructor]connection-builder": trappable,
            "spin:postgres/postgres.[method]connection-builder.build": async | exact,
            "spin:postgres/postgres.[static]connection.open": async | exact,
            "spin:postgres/postgres.[method]connection.query": async | exact,
            "spin:postgres/postgres.[method]connection.execute": async | exact,
        },
        require_store_data_send: true,
    });

    pub(crate) use spin::postgres::postgres;
}

/// Most bytes of a result, as with Spin: a guest's mistake shall not fill the host's memory.
const MAX_RESULT_BYTES: usize = 128 * 1024 * 1024;

/// Bytes of rows that are handed to the guest at a time.
const BATCH_BYTES: usize = 64 * 1024;

/// A guest's connection. Cheap to clone; the last one gives it back.
#[expect(unreachable_pub, reason = "the generated bindings export it again")]
#[derive(Debug, Clone)]
pub struct Connection(Arc<Session>);

/// A guest's connection to be.
#[expect(unreachable_pub, reason = "the generated bindings export it again")]
#[derive(Debug, Clone)]
pub struct ConnectionBuilder {
    address: String,
    authority: Option<Authority>,
}

impl Connection {
    async fn query(&self, statement: &str, parameters: Vec<ParameterValue>) -> Result<RowSet, Error> {
        let mut running = self.0.query(statement, &values::parameters(parameters)?).await?;
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while let Some(row) = running.next().await {
            let row = row?;
            bytes += values::size(&row);
            if bytes > MAX_RESULT_BYTES {
                return Err(too_large());
            }
            rows.push(row);
        }
        Ok(RowSet { columns: running.columns(), rows })
    }

    async fn start(
        &self,
        statement: &str,
        parameters: Vec<ParameterValue>,
    ) -> Result<(Vec<Column>, Batches, oneshot::Receiver<Outcome>), Error> {
        let rows = self.0.query(statement, &values::parameters(parameters)?).await?;
        let columns = rows.columns();
        let (sender, outcome) = oneshot::channel();
        let mut batches = Batches { ready: Vec::new(), coming: Some((rows, sender)) };
        // Of most statements all is there as soon as anything is.
        std::future::poll_fn(|context| batches.poll_fill(context)).await;
        Ok((columns, batches, outcome))
    }

    async fn execute(&self, statement: &str, parameters: Vec<ParameterValue>) -> Result<u64, Error> {
        let parameters = values::parameters(parameters).map_err(|error| match error {
            Error::BadParameter(reason) => Error::ValueConversionFailed(reason),
            other => other,
        })?;
        self.0.execute(statement, &parameters).await
    }
}

fn too_large() -> Error {
    session::failed(format!("query result exceeds limit of {MAX_RESULT_BYTES} bytes"))
}

/// How a statement ended.
type Outcome = Result<(), Error>;

/// The rows of a statement on their way to the guest, no more at a time than it takes.
#[derive(Debug)]
struct Batches {
    ready: Vec<Row>,
    /// `None` after the last one.
    coming: Option<(Rows, oneshot::Sender<Outcome>)>,
}

impl Batches {
    /// Gathers the rows that are there; pending only as long as there is none, and more to come.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut bytes = self.ready.iter().map(|row| values::size(row)).sum::<usize>();
        while bytes < BATCH_BYTES
            && let Some((rows, _)) = &mut self.coming
        {
            let outcome = match rows.poll_next(context) {
                Poll::Pending if self.ready.is_empty() => return Poll::Pending,
                Poll::Pending => break,
                Poll::Ready(Some(Ok(row))) => match values::size(&row) {
                    size if size > MAX_RESULT_BYTES => Err(too_large()),
                    size => {
                        bytes += size;
                        self.ready.push(row);
                        continue;
                    }
                },
                Poll::Ready(Some(Err(error))) => Err(error),
                Poll::Ready(None) => Ok(()),
            };
            if let Some((_, sender)) = self.coming.take() {
                // A guest that does not want to know it has dropped the future.
                let _ = sender.send(outcome);
            }
        }
        Poll::Ready(())
    }
}

impl<D> StreamProducer<D> for Batches {
    type Item = Row;
    type Buffer = VecBuffer<Row>;

    fn poll_produce<'a>(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        _: StoreContextMut<'a, D>,
        mut destination: Destination<'a, Row, VecBuffer<Row>>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let batches = self.get_mut();
        if batches.poll_fill(context).is_pending() {
            return if finish { Poll::Ready(Ok(StreamResult::Cancelled)) } else { Poll::Pending };
        }
        destination.set_buffer(std::mem::take(&mut batches.ready).into());
        let more = batches.coming.is_some();
        Poll::Ready(Ok(if more { StreamResult::Completed } else { StreamResult::Dropped }))
    }
}

/// What an instance has of PostgreSQL.
#[derive(Debug)]
pub(crate) struct Postgres {
    servers: Arc<Servers>,
    /// The guest's connections.
    table: ResourceTable,
    requests: Requests,
}

impl Postgres {
    pub(crate) fn new(servers: Arc<Servers>, requests: Requests) -> Self {
        Self { servers, table: ResourceTable::new(), requests }
    }
}

/// Links the interface to a store that has `get` for it.
pub(crate) fn add_to_linker<T: Send + 'static>(
    linker: &mut Linker<T>,
    get: fn(&mut T) -> &mut Postgres,
) -> wasmtime::Result<()> {
    bindings::postgres::add_to_linker::<_, PostgresData>(linker, get)
}

/// Gives the linker access to the [`Postgres`] of an instance.
#[derive(Debug)]
struct PostgresData;

impl HasData for PostgresData {
    type Data<'a> = &'a mut Postgres;
}

impl Host for &mut Postgres {}

impl Postgres {
    async fn connect(
        &mut self,
        address: &str,
        authority: Option<&Authority>,
    ) -> Result<Resource<Connection>, Error> {
        let session = Session::open(&self.servers, address, authority).await?;
        self.keep(session)
    }

    fn keep(&mut self, session: Arc<Session>) -> Result<Resource<Connection>, Error> {
        self.table
            .push(Connection(session))
            .map_err(|_| Error::ConnectionFailed("too many connections".to_owned()))
    }

    fn builder(&self, builder: &Resource<ConnectionBuilder>) -> Result<ConnectionBuilder, Error> {
        self.table.get(builder).cloned().map_err(|_| no_longer_there())
    }

    fn connection(&self, connection: &Resource<Connection>) -> Result<Connection, Error> {
        self.table.get(connection).cloned().map_err(|_| no_longer_there())
    }
}

fn no_longer_there() -> Error {
    Error::ConnectionFailed("no connection found".to_owned())
}

// Functions that are not asynchronous hold up the whole instance until they return.

impl HostConnectionBuilder for &mut Postgres {
    fn new(&mut self, address: String) -> wasmtime::Result<Resource<ConnectionBuilder>> {
        Ok(self.table.push(ConnectionBuilder { address, authority: None })?)
    }

    fn set_ca_root(
        &mut self,
        builder: Resource<ConnectionBuilder>,
        certificate: String,
    ) -> Result<(), Error> {
        let authority = Authority::parse(&certificate)?;
        let builder = self.table.get_mut(&builder).map_err(|_| no_longer_there())?;
        builder.authority = Some(authority);
        Ok(())
    }

    async fn build(&mut self, builder: Resource<ConnectionBuilder>) -> Result<Resource<Connection>, Error> {
        let ConnectionBuilder { address, authority } = self.builder(&builder)?;
        self.connect(&address, authority.as_ref()).await
    }

    fn drop(&mut self, builder: Resource<ConnectionBuilder>) -> wasmtime::Result<()> {
        self.table.delete(builder)?;
        Ok(())
    }
}

impl HostConnection for &mut Postgres {
    async fn open(&mut self, address: String) -> Result<Resource<Connection>, Error> {
        self.connect(&address, None).await
    }

    async fn query(
        &mut self,
        connection: Resource<Connection>,
        statement: String,
        parameters: Vec<ParameterValue>,
    ) -> Result<RowSet, Error> {
        self.connection(&connection)?.query(&statement, parameters).await
    }

    async fn execute(
        &mut self,
        connection: Resource<Connection>,
        statement: String,
        parameters: Vec<ParameterValue>,
    ) -> Result<u64, Error> {
        self.connection(&connection)?.execute(&statement, parameters).await
    }

    fn drop(&mut self, connection: Resource<Connection>) -> wasmtime::Result<()> {
        self.table.delete(connection)?;
        Ok(())
    }
}

impl PostgresData {
    /// The connection on which a guest calls, and what is traced of the call.
    fn call<T: Send + 'static>(
        accessor: &Accessor<T, Self>,
        connection: &Resource<Connection>,
        statement: &str,
    ) -> (Result<Connection, Error>, Span) {
        accessor.with(|mut access| {
            let postgres = access.get();
            let (connection, requests) = (postgres.connection(connection), postgres.requests.clone());
            (connection, requests.database(access.as_context_mut(), "postgresql", statement))
        })
    }

    async fn connect<T>(
        accessor: &Accessor<T, Self>,
        address: &str,
        authority: Option<&Authority>,
    ) -> Result<Resource<Connection>, Error> {
        let servers = accessor.with(|mut access| Arc::clone(&access.get().servers));
        let session = Session::open(&servers, address, authority).await?;
        accessor.with(|mut access| access.get().keep(session))
    }
}

impl<T: Send + 'static> HostConnectionBuilderWithStore<T> for PostgresData {
    async fn build_async(
        accessor: &Accessor<T, Self>,
        builder: Resource<ConnectionBuilder>,
    ) -> Result<Resource<Connection>, Error> {
        let ConnectionBuilder { address, authority } =
            accessor.with(|mut access| access.get().builder(&builder))?;
        Self::connect(accessor, &address, authority.as_ref()).await
    }
}

impl<T: Send + 'static> HostConnectionWithStore<T> for PostgresData {
    async fn open_async(
        accessor: &Accessor<T, Self>,
        address: String,
    ) -> Result<Resource<Connection>, Error> {
        Self::connect(accessor, &address, None).await
    }

    async fn query_async(
        accessor: &Accessor<T, Self>,
        connection: Resource<Connection>,
        statement: String,
        parameters: Vec<ParameterValue>,
    ) -> Result<(Vec<Column>, StreamReader<Row>, FutureReader<Outcome>), Error> {
        let (connection, mut span) = Self::call(accessor, &connection, &statement);
        let started = connection?.start(&statement, parameters).await;
        if started.is_err() {
            span.failed("postgresql");
        }
        drop(span);
        let (columns, rows, outcome) = started?;
        // Of rows that nobody wants there is nothing to complain about.
        let outcome = async move { wasmtime::error::Ok(outcome.await.unwrap_or(Ok(()))) };
        accessor
            .with(|mut access| {
                let rows = StreamReader::new(&mut access, rows)?;
                Ok((columns, rows, FutureReader::new(&mut access, outcome)?))
            })
            .map_err(|error: wasmtime::Error| Error::Other(error.to_string()))
    }

    async fn execute_async(
        accessor: &Accessor<T, Self>,
        connection: Resource<Connection>,
        statement: String,
        parameters: Vec<ParameterValue>,
    ) -> Result<u64, Error> {
        let (connection, mut span) = Self::call(accessor, &connection, &statement);
        let executed = connection?.execute(&statement, parameters).await;
        if executed.is_err() {
            span.failed("postgresql");
        }
        executed
    }
}

#[cfg(test)]
mod tests;
