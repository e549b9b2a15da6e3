//! PostgreSQL: `spin:postgres` over `tokio-postgres`, and where it may connect to.
//!
//! As with Spin, a connection is one of at most 64 pooled ones to its address, nothing that a guest leaves behind
//! in its session is cleared, and values, errors and addresses are the same in every case. Unlike Spin,
//!
//! - only the types that the component uses are there; the others are refused with a clear error;
//! - statements stay prepared on their connection, so that a repeated one is one round trip;
//! - a connection on which a guest has given up in the middle of a statement is closed, and the statement
//!   cancelled: a server that hangs holds up nobody once it goes on;
//! - `hostaddr` has to be in `allowed_outbound_hosts`, too;
//! - nothing waits for ever to connect.

#![allow(clippy::result_large_err, reason = "the interface's error holds all that PostgreSQL says")]

mod bindings;
mod pool;
mod session;
mod values;

use crate::telemetry::Requests;
use bindings::postgres::{
    self as interface, Column, Error, Host, HostConnection, HostConnectionBuilder,
    HostConnectionBuilderWithStore, HostConnectionWithStore, ParameterValue, Row,
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

/// Most bytes of a row, as with Spin: a guest's mistake must not fill the host's memory.
const MAX_RESULT_BYTES: usize = 128 * 1024 * 1024;

/// Bytes of rows that are handed to the guest at a time.
const BATCH_BYTES: usize = 64 * 1024;

/// A guest's connection. Cheap to clone; the last one gives it back.
#[derive(Debug, Clone)]
struct Connection(Arc<Session>);

/// A guest's connection to be.
#[derive(Debug, Clone)]
struct ConnectionBuilder {
    address: String,
    authority: Option<Authority>,
}

impl Connection {
    async fn start(
        &self,
        statement: &str,
        parameters: Vec<ParameterValue>,
    ) -> Result<(Vec<Column>, Batches, oneshot::Receiver<Outcome>), Error> {
        let (columns, rows) = self.0.query(statement, &values::parameters(parameters)?).await?;
        let (sender, outcome) = oneshot::channel();
        let mut batches = Batches { ready: Vec::new(), coming: Some((rows, sender)) };
        // Of most statements all is there as soon as anything is.
        std::future::poll_fn(|context| batches.poll_fill(context)).await;
        Ok((columns, batches, outcome))
    }
}

fn too_large() -> Error {
    session::failed(format!("query result row exceeds limit of {MAX_RESULT_BYTES} bytes"))
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
    fn keep(&mut self, session: Arc<Session>) -> Result<Resource<interface::Connection>, Error> {
        let kept = self.table.push(Connection(session));
        kept.map(|kept| Resource::new_own(kept.rep()))
            .map_err(|_| Error::ConnectionFailed("too many connections".to_owned()))
    }

    fn builder(
        &mut self,
        builder: &Resource<interface::ConnectionBuilder>,
    ) -> Result<&mut ConnectionBuilder, Error> {
        let builder = Resource::new_borrow(builder.rep());
        self.table.get_mut(&builder).map_err(|_| no_longer_there())
    }

    fn connection(&self, connection: &Resource<interface::Connection>) -> Result<Connection, Error> {
        let connection = Resource::new_borrow(connection.rep());
        self.table.get(&connection).cloned().map_err(|_| no_longer_there())
    }
}

fn no_longer_there() -> Error {
    Error::ConnectionFailed("no connection found".to_owned())
}

impl HostConnectionBuilder for &mut Postgres {
    fn new(&mut self, address: String) -> wasmtime::Result<Resource<interface::ConnectionBuilder>> {
        let builder = self.table.push(ConnectionBuilder { address, authority: None })?;
        Ok(Resource::new_own(builder.rep()))
    }

    fn set_ca_root(
        &mut self,
        builder: Resource<interface::ConnectionBuilder>,
        certificate: String,
    ) -> Result<(), Error> {
        let authority = Authority::parse(&certificate)?;
        self.builder(&builder)?.authority = Some(authority);
        Ok(())
    }

    fn drop(&mut self, builder: Resource<interface::ConnectionBuilder>) -> wasmtime::Result<()> {
        self.table.delete(Resource::<ConnectionBuilder>::new_own(builder.rep()))?;
        Ok(())
    }
}

impl HostConnection for &mut Postgres {
    fn drop(&mut self, connection: Resource<interface::Connection>) -> wasmtime::Result<()> {
        self.table.delete(Resource::<Connection>::new_own(connection.rep()))?;
        Ok(())
    }
}

impl<T: Send + 'static> HostConnectionBuilderWithStore<T> for PostgresData {
    async fn build_async(
        accessor: &Accessor<T, Self>,
        builder: Resource<interface::ConnectionBuilder>,
    ) -> Result<Resource<interface::Connection>, Error> {
        let (servers, builder) = accessor.with(|mut access| {
            let postgres = access.get();
            (Arc::clone(&postgres.servers), postgres.builder(&builder).cloned())
        });
        let ConnectionBuilder { address, authority } = builder?;
        let session = Session::open(&servers, &address, authority.as_ref()).await?;
        accessor.with(|mut access| access.get().keep(session))
    }
}

impl<T: Send + 'static> HostConnectionWithStore<T> for PostgresData {
    async fn query_async(
        accessor: &Accessor<T, Self>,
        connection: Resource<interface::Connection>,
        statement: String,
        parameters: Vec<ParameterValue>,
    ) -> Result<(Vec<Column>, StreamReader<Row>, FutureReader<Outcome>), Error> {
        let (connection, mut span) = accessor.with(|mut access| {
            let postgres = access.get();
            let (connection, requests) = (postgres.connection(&connection), postgres.requests.clone());
            (connection, requests.database(access.as_context_mut(), "postgresql", &statement))
        });
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
}

#[cfg(test)]
mod tests;
