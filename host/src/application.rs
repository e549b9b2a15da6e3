//! The component: compiled, linked, and instantiated as requests need it.
//!
//! Requests go through wasmtime's own [`ProxyHandler`], the one that Spin's HTTP trigger is built on,
//! as Spin has it: an instance serves many requests, 16 of them at once, and is dropped after a second
//! without one.

use crate::{
    allowed_hosts::AllowedHosts,
    manifest::Manifest,
    outbound_http::{self, OutboundHttp, OutboundHttpView},
    postgres::{self, Postgres},
    redis::{self, Redis},
    sqlite::{self, Database, Sqlite},
    telemetry::Requests,
    variables::{self, Variables},
};
use anyhow::{Context as _, Result, anyhow};
use opentelemetry::trace::SpanContext;
use std::{
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, watch};
use wasmtime::{
    Cache, CacheConfig, Config, Engine, ProfilingStrategy, Store, StoreContextMut, StoreLimits,
    StoreLimitsBuilder,
    component::{Component, GuestTaskId, Linker, ResourceTable},
};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{
    WasiHttpCtx, WasiHttpCtxView, WasiHttpView,
    handler::{
        HandlerState, Instance, ProxyHandler, ProxyPre, ShouldAccept, WorkerExpiration, WorkerState,
        WorkerStatus,
    },
    p3::bindings::ServicePre,
};

/// Requests that an instance serves before it is dropped. Spin's default is 128; but a new instance reads its
/// configuration, opens its database and decodes the phone metadata, which take milliseconds, and its requests share them.
const REQUESTS_PER_INSTANCE: usize = 2_048;

/// Requests that an instance serves at once, as with Spin.
const REQUESTS_AT_ONCE: usize = 16;

/// How long an instance waits for its next request, as with Spin.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a request, or what an instance does after its answer, may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Most memory of an instance, in bytes. The component uses a few megabytes.
const MAX_MEMORY: usize = 128 * 1024 * 1024;

/// The fuel that an instance gets where it is counted: no instance uses as much.
const FUEL: u64 = 1 << 60;

/// What the host keeps for an instance.
pub(crate) struct State {
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    outbound_http: OutboundHttp,
    postgres: Postgres,
    redis: Redis,
    sqlite: Sqlite,
    variables: Arc<Variables>,
    requests: Requests,
    limits: StoreLimits,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.outbound_http, table: &mut self.table, ctx: &mut self.http }
    }
}

impl OutboundHttpView for State {
    fn outbound_http(&mut self) -> &mut OutboundHttp {
        &mut self.outbound_http
    }
}

/// What all instances share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) variables: Arc<Variables>,
    pub(crate) allowed_hosts: Arc<AllowedHosts>,
    /// `None` where the manifest grants none.
    pub(crate) database: Option<Arc<Database>>,
}

/// A component that is ready to be instantiated.
pub(crate) struct Application {
    engine: Engine,
    service: ServicePre<State>,
    shared: Shared,
    postgres: Arc<postgres::Servers>,
    /// What instances that are gone have used.
    fuel: Option<Arc<AtomicU64>>,
    /// Becomes true when instances that have nothing to do shall end.
    stopping: watch::Receiver<bool>,
    /// A clone in each instance: the channel closes when the last one is gone.
    alive: mpsc::Sender<()>,
}

/// What is measured of the component while it runs.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) perf_map: bool,
    /// Where the fuel is counted.
    pub(crate) fuel: Option<Arc<AtomicU64>>,
}

/// What [`Application::load`] gives.
pub(crate) struct Loaded {
    pub(crate) application: Application,
    pub(crate) stopper: Stopper,
    /// Whether the cache had nothing.
    pub(crate) compiled: bool,
}

/// Ends an [`Application`].
#[derive(Debug)]
pub(crate) struct Stopper {
    stopping: watch::Sender<bool>,
    alive: mpsc::Receiver<()>,
}

impl Stopper {
    /// Lets instances finish what they do after their answers, and returns when the last one is gone.
    pub(crate) async fn stop(mut self) {
        let _ = self.stopping.send(true);
        let none_left = self.alive.recv().await;
        debug_assert!(none_left.is_none());
    }
}

impl Application {
    /// Compiles the manifest's component, or takes it from the cache beside the manifest.
    pub(crate) fn load(manifest: &Manifest, shared: Shared, measured: Measured) -> Result<Loaded> {
        let source = &manifest.source;
        let bytes = std::fs::read(source).with_context(|| {
            format!("cannot read the component {}; build it first with: make build", source.display())
        })?;
        let mut config = Config::new();
        let cache = cache(&manifest.folder.join(".spin/component-cache"));
        config.cache(cache.clone());
        if measured.perf_map {
            config.profiler(ProfilingStrategy::PerfMap);
        }
        config.consume_fuel(measured.fuel.is_some());
        let engine = Engine::new(&config).map_err(anyhow::Error::from)?;
        let unusable = || format!("{} is not a component that this host can run", source.display());
        let component =
            Component::from_binary(&engine, &bytes).map_err(anyhow::Error::from).with_context(unusable)?;
        let instance = linker(&engine)
            .and_then(|linker| linker.instantiate_pre(&component))
            .map_err(anyhow::Error::from)
            .with_context(unusable)?;
        let service = ServicePre::new(instance).map_err(anyhow::Error::from).with_context(unusable)?;
        let (stop, stopping) = watch::channel(false);
        let (alive, gone) = mpsc::channel(1);
        let postgres = Arc::new(postgres::Servers::new(Arc::clone(&shared.allowed_hosts)));
        let fuel = measured.fuel;
        let application = Self { engine, service, shared, postgres, fuel, stopping, alive };
        let stopper = Stopper { stopping: stop, alive: gone };
        Ok(Loaded { application, stopper, compiled: cache.is_none_or(|cache| cache.cache_hits() == 0) })
    }

    /// Starts to take requests.
    pub(crate) fn into_handler(self) -> ProxyHandler<Self> {
        ProxyHandler::new(self)
    }

    fn store(&self) -> wasmtime::Result<Store<State>> {
        let mut wasi = WasiCtx::builder();
        wasi.inherit_stdout().inherit_stderr();
        let requests = Requests::default();
        let state = State {
            table: ResourceTable::new(),
            wasi: wasi.build(),
            http: WasiHttpCtx::new(),
            outbound_http: OutboundHttp::new(Arc::clone(&self.shared.allowed_hosts), requests.clone()),
            postgres: Postgres::new(Arc::clone(&self.postgres), requests.clone()),
            redis: Redis::new(Arc::clone(&self.shared.allowed_hosts), requests.clone()),
            sqlite: Sqlite::new(self.shared.database.clone(), requests.clone()),
            variables: Arc::clone(&self.shared.variables),
            requests,
            limits: StoreLimitsBuilder::new().memory_size(MAX_MEMORY).build(),
        };
        let mut store = Store::new(&self.engine, state);
        store.limiter(|state| &mut state.limits);
        if self.fuel.is_some() {
            store.set_fuel(FUEL)?;
        }
        Ok(store)
    }
}

/// Compiled components, so that only the first start compiles. Without a folder that can be written,
/// every start does.
fn cache(folder: &Path) -> Option<Cache> {
    let made = std::fs::create_dir_all(folder).and_then(|()| std::path::absolute(folder));
    let cache = made.map_err(|error| anyhow!(error)).and_then(|folder| {
        let mut config = CacheConfig::new();
        config.with_directory(folder);
        Cache::new(config).map_err(anyhow::Error::from)
    });
    cache
        .inspect_err(|error| {
            tracing::warn!(
                "the component is compiled at every start: no cache in {}: {error:#}",
                folder.display()
            );
        })
        .ok()
}

fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi::p3::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    outbound_http::add_to_linker(&mut linker)?;
    postgres::add_to_linker(&mut linker, |state: &mut State| &mut state.postgres)?;
    redis::add_to_linker(&mut linker, |state: &mut State| &mut state.redis)?;
    sqlite::add_to_linker(&mut linker, |state: &mut State| &mut state.sqlite)?;
    variables::add_to_linker(&mut linker, |state: &mut State| &state.variables)?;
    Ok(linker)
}

impl HandlerState for Application {
    type StoreData = State;
    type WorkerExpiration = Expiration;
    type WorkerState = Worker;

    async fn instantiate(&self) -> wasmtime::Result<Instance<State, Expiration, Worker>> {
        let mut store = self.store()?;
        let proxy = ProxyPre::P3(self.service.clone()).instantiate_async(&mut store).await?;
        let mut stopping = self.stopping.clone();
        Ok(Instance {
            store,
            proxy,
            view: WasiHttpView::http,
            expiration: Expiration {
                sleep: Box::pin(tokio::time::sleep(IDLE_TIMEOUT)),
                stopping: Box::pin(async move {
                    // An error is a host that is gone, and that is the end, too.
                    let _ = stopping.wait_for(|stopping| *stopping).await;
                }),
                stopped: false,
            },
            state: Worker { fuel: self.fuel.clone(), _alive: self.alive.clone() },
        })
    }
}

/// Tells when an instance is to be dropped.
pub(crate) struct Expiration {
    sleep: Pin<Box<tokio::time::Sleep>>,
    stopping: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
    stopped: bool,
}

impl WorkerExpiration for Expiration {
    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        status: WorkerStatus,
        since: Instant,
    ) -> Poll<()> {
        if !self.stopped {
            self.stopped = self.stopping.as_mut().poll(cx).is_ready();
        }
        let timeout = match status {
            WorkerStatus::Idle if self.stopped => return Poll::Ready(()),
            WorkerStatus::Idle => IDLE_TIMEOUT,
            WorkerStatus::Requests | WorkerStatus::PostReturn => REQUEST_TIMEOUT,
        };
        let deadline = (since + timeout).into();
        if self.sleep.deadline() != deadline {
            self.sleep.as_mut().reset(deadline);
        }
        self.sleep.as_mut().poll(cx)
    }
}

/// Tells which requests an instance takes.
#[derive(Debug)]
pub(crate) struct Worker {
    fuel: Option<Arc<AtomicU64>>,
    _alive: mpsc::Sender<()>,
}

impl WorkerState for Worker {
    type StoreData = State;
    type RequestData = Option<SpanContext>;

    fn should_accept_request(&self, at_once: usize, total: usize) -> ShouldAccept {
        if total >= REQUESTS_PER_INSTANCE {
            ShouldAccept::Never
        } else if at_once >= REQUESTS_AT_ONCE {
            ShouldAccept::No
        } else {
            ShouldAccept::Yes
        }
    }

    fn on_request_start(
        &self,
        mut store: StoreContextMut<'_, State>,
        request: Option<SpanContext>,
        task: GuestTaskId,
    ) -> Pin<Box<dyn Future<Output = ()> + 'static + Send + Sync>> {
        store.data_mut().requests.begin(task, request);
        Box::pin(tokio::time::sleep(REQUEST_TIMEOUT))
    }

    fn drop(&self, store: Store<State>, result: wasmtime::Result<()>) {
        if let Err(error) = result {
            tracing::error!("an instance of the component failed: {error:#}");
        }
        if let Some(fuel) = &self.fuel {
            fuel.fetch_add(FUEL - store.get_fuel().unwrap_or(FUEL), Ordering::Relaxed);
        }
        drop(store);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_serves_so_many_requests_and_16_at_once() {
        let worker = Worker { fuel: None, _alive: mpsc::channel(1).0 };
        let last = REQUESTS_PER_INSTANCE - 1;
        assert!(matches!(worker.should_accept_request(15, last), ShouldAccept::Yes));
        assert!(matches!(worker.should_accept_request(16, last), ShouldAccept::No));
        assert!(matches!(worker.should_accept_request(0, REQUESTS_PER_INSTANCE), ShouldAccept::Never));
    }
}
