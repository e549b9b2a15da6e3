//! `relay serve`: puts the parts together, and takes them apart in the right order.

use crate::{
    arguments::{Profile, Serve},
    brokers,
    bus::{Bus, in_process::InProcess, kafka::Kafka},
    callers::Callers,
    component::{self, Component},
    consumer::Consumer,
    delivery::Delivery,
    heartbeat,
    ledger::Ledger,
    metrics::Metrics,
    scrub,
    server::{self, Face},
    settings::{INBOX, Settings},
    signatures::Signatures,
    stop::Stop,
};
use anyhow::{Context, Result, bail};
use std::{
    fs::{File, TryLockError},
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::Notify,
    task::{JoinError, JoinSet},
    time::timeout,
};

/// Connections that the system takes in before the relay does: each instance of a component begins one, and whoever
/// finds no room tries again only after a second.
const BACKLOG: u32 = 1024;

/// How long the intake may go on after the end has begun.
const INTAKE_DRAIN: Duration = Duration::from_secs(7);

/// How long everything else may: with the intake, less than the 30 s that Kubernetes allows by default.
const DRAIN: Duration = Duration::from_secs(15);

/// Runs until SIGTERM or SIGINT.
pub(crate) async fn run(arguments: Serve) -> Result<()> {
    // What is wrong with the configuration is said before anything is begun.
    let token = arguments.token()?;
    let keys = Arc::new(arguments.keys()?);
    let event_keys = arguments.event_keys()?;
    let production = arguments.profile == Profile::Production;
    let settings =
        Arc::new(Settings::load(arguments.delivery_file(), production).context("RELAY_DELIVERY_FILE")?);
    let component = arguments.component_url()?.zip(token.clone());
    let component = component.map(|(url, token)| Component::new(url, token)).transpose()?;
    let with_kafka = !arguments.kafka.brokers()?.is_empty();
    if with_kafka {
        arguments.kafka.check()?;
        brokers::tls(&arguments.kafka)?;
    }

    let listener = listen(arguments.listen)
        .with_context(|| format!("RELAY_LISTEN: cannot listen on {}", arguments.listen))?;
    let shared = arguments.state.database()?.is_some();
    let _alone = if shared { None } else { Some(alone(&arguments.state.state_dir)?) };
    let ledger = Ledger::open(&arguments.state).await?;
    // Not among the tasks that end with the rest: to the last one of them this relay is alive.
    let mut heart = JoinSet::new();
    if ledger.is_shared() {
        heart.spawn(heartbeat::run(ledger.clone()));
    }

    let metrics = Arc::new(Metrics::new()?);
    let signatures = Arc::new(Signatures::new(event_keys, Arc::clone(&metrics)));
    let work = Arc::new(Notify::new());
    let erased = Arc::new(Notify::new());
    let bus_is_back = Arc::new(Notify::new());
    let consumer = Consumer::new(
        ledger.clone(),
        Arc::clone(&metrics),
        Arc::clone(&signatures),
        Arc::clone(&work),
        Arc::clone(&erased),
    );
    let stop = Stop::default();
    let mut tasks = JoinSet::new();
    let bus = if !with_kafka {
        metrics.bus_up.set(1);
        Bus::InProcess(InProcess::new(consumer))
    } else {
        let kafka =
            Arc::new(Kafka::new(arguments.kafka.clone(), Arc::clone(&metrics), Arc::clone(&bus_is_back)));
        tasks.spawn(Arc::clone(&kafka).run(consumer, stop.clone()));
        Bus::Kafka(kafka)
    };
    let settled = Arc::<Notify>::default();
    let delivery = Delivery {
        ledger: ledger.clone(),
        settings: Arc::clone(&settings),
        keys: Arc::clone(&keys),
        metrics: Arc::clone(&metrics),
        work,
        max_attempts: arguments.max_attempts,
        gates: Arc::default(),
        settled: Arc::clone(&settled),
    };
    tasks.spawn(delivery.run(stop.clone()));
    tasks.spawn(scrub::run(ledger.clone(), erased, stop.clone()));
    let times = (arguments.flush_every(), arguments.purge_every());
    tasks.spawn(component::run(
        component,
        ledger.clone(),
        Arc::clone(&metrics),
        bus_is_back,
        times,
        arguments.remember(),
        stop.clone(),
    ));
    let face = Face {
        inbox: settings.provider_names().contains(INBOX),
        settled,
        bus,
        ledger: ledger.clone(),
        metrics,
        settings: Arc::clone(&settings),
        keys,
        signatures,
        callers: Callers::new(token),
        production,
        intake: Face::intake(),
        stop: stop.clone(),
    };
    tracing::info!(
        listen = %arguments.listen,
        bus = face.bus.kind(),
        ledger = face.ledger.kind(),
        providers = ?settings.provider_names(),
        "the relay is ready to take events"
    );
    let mut server = tokio::spawn(server::serve(listener, face, stop.clone()));

    stop.at_signals(arguments.drain())?;
    let ended = tokio::select! {
        () = stop.stopped() => None,
        ended = &mut server => Some(ended),
        failed = panicked(&mut tasks) => Some(Ok(Err(failed))),
        failed = panicked(&mut heart) => Some(Ok(Err(failed))),
    };
    tracing::info!("ending: what is under way is finished first");
    stop.begin();
    // Batches that came in want their broker's word; after that nobody hands anything over.
    if ended.is_none() {
        let _ = timeout(INTAKE_DRAIN, &mut server).await;
    }
    stop.finish();
    let drained = timeout(DRAIN, async { while tasks.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!("ended before all was finished; it is done after the next start");
    }
    heart.shutdown().await;
    // Nobody has to wait until what this relay has runs out.
    if let Err(error) = ledger.leave().await {
        tracing::debug!("other relays are not told of the end: {error:#}");
    }
    // A connection that is still out comes back when its work is given up.
    let _ = timeout(Duration::from_secs(2), ledger.close()).await;
    outcome(ended, stop.failure())
}

/// How the relay has ended: `server` is what its server came to, where that was heard of before anything else. A server
/// that ends in order has been told to, and is no reason why.
fn outcome(server: Option<Result<Result<()>, JoinError>>, failure: Option<&str>) -> Result<()> {
    server.transpose()?.transpose().context("the relay cannot go on")?;
    match failure {
        Some(reason) => bail!("the relay cannot go on: {reason}"),
        None => Ok(()),
    }
}

/// Listens there.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Connections of before, which the system still remembers, are no reason not to start again.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Makes sure that no other relay delivers from this folder: two would send everything twice. The lock goes
/// with the process, however it ends.
fn alone(folder: &Path) -> Result<File> {
    let file = folder.join("relay.lock");
    let say = || format!("RELAY_STATE_DIR: cannot use {}", file.display());
    std::fs::create_dir_all(folder).with_context(say)?;
    let lock = File::options().create(true).append(true).open(&file).with_context(say)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            bail!(
                "RELAY_STATE_DIR: another relay uses {}; give this one a folder of its own",
                folder.display()
            )
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(say),
    }
}

/// Comes back only when a part has failed; one that ended by itself is none.
async fn panicked(tasks: &mut JoinSet<()>) -> anyhow::Error {
    loop {
        match tasks.join_next().await {
            Some(Err(error)) => return error.into(),
            Some(Ok(())) => {}
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_said_whichever_part_has_ended_first() {
        let said = |server, failure| outcome(server, failure).map_err(|error| format!("{error:#}"));
        let reason = "the topic has more partitions";
        for server in [None, Some(Ok(Ok(())))] {
            assert_eq!(said(server, Some(reason)), Err(format!("the relay cannot go on: {reason}")));
        }
        let broken = Some(Ok(Err(anyhow::anyhow!("no more files"))));
        assert_eq!(said(broken, None), Err("the relay cannot go on: no more files".to_owned()));
        for server in [None, Some(Ok(Ok(())))] {
            assert_eq!(said(server, None), Ok(()));
        }
    }
}
