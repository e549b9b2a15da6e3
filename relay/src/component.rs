//! The component, which is asked now and then to push what waits in its outbox and to clean up. A host
//! that died between an answer and its push has left events there.

use crate::{ledger::Ledger, metrics::Metrics, stop::Stop};
use anyhow::Result;
use std::{collections::HashMap, future::pending, sync::Arc, time::Duration};
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval, sleep},
};
use url::Url;

/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Cleaning is done in rounds of a bounded number of rows, with a pause in between for others.
const BETWEEN_ROUNDS: Duration = Duration::from_millis(100);
const MAX_ROUNDS: usize = 10_000;

/// At the start, and when the brokers are back, the component is asked that many times more, at this interval: an event
/// that was written a moment before is still left to its writer the first time, and the writer spares the relay for up to
/// ten seconds after a failure.
const AFTERWARDS: u32 = 4;
const BETWEEN_FLUSHES: Duration = Duration::from_secs(4);

/// Fewer rows of a kind than a round removes if there are more: these have just become due, and more of them will
/// while the service is used.
const FEW: i64 = 500;

/// Asks the component.
#[derive(Debug)]
pub(crate) struct Component {
    client: reqwest::Client,
    url: Url,
    token: String,
}

impl Component {
    pub(crate) fn new(url: Url, token: String) -> Result<Self> {
        let client = reqwest::Client::builder()
            .timeout(DEADLINE)
            .redirect(reqwest::redirect::Policy::none())
            // The token is for the component alone.
            .no_proxy()
            .build()?;
        Ok(Self { client, url, token })
    }

    /// Asks, and hears the numbers that the component answers with.
    async fn ask(&self, path: &str) -> Option<HashMap<String, i64>> {
        let url = self.url.join(path).ok()?;
        let response = match self.client.post(url).bearer_auth(&self.token).send().await {
            Ok(response) => response,
            Err(error) => {
                // It may be starting, or ending.
                tracing::debug!(path, "the component cannot be asked: {}", error.without_url());
                return None;
            }
        };
        let status = response.status();
        if !status.is_success() {
            tracing::warn!(path, %status, "the component refuses; its relay_token must be RELAY_TOKEN");
            return None;
        }
        serde_json::from_slice(&response.bytes().await.ok()?).ok()
    }

    /// Has it push what waits, as long as that helps, and notes what is left. What has only just come is pushed by
    /// whoever made it.
    async fn flush(&self, metrics: &Metrics) {
        loop {
            let counts = self.ask("/internal/outbox/flush").await;
            metrics.component_up.with_label_values::<&str>(&[]).set(counts.is_some().into());
            let Some(counts) = counts else { break };
            let count = |name| counts.get(name).copied().unwrap_or_default();
            metrics.outbox_waiting.set(count("waiting"));
            metrics.outbox_dead.set(count("dead"));
            metrics.outbox_oldest_seconds.set(count("oldestSeconds"));
            if count("oldestSeconds") == 0 || count("published") == 0 {
                break;
            }
            sleep(BETWEEN_ROUNDS).await;
        }
    }

    /// Has it clean up until there is hardly anything left to clean.
    async fn purge(&self) {
        for _ in 0..MAX_ROUNDS {
            let counts = self.ask("/internal/purge").await.unwrap_or_default();
            if counts.values().all(|count| *count < FEW) {
                break;
            }
            sleep(BETWEEN_ROUNDS).await;
        }
    }
}

async fn clean(ledger: &Ledger, remember: Duration) {
    for _ in 0..MAX_ROUNDS {
        match ledger.clean(remember).await {
            Ok(true) => sleep(BETWEEN_ROUNDS).await,
            Ok(false) => break,
            Err(error) => {
                tracing::warn!("the ledger cannot be cleaned: {error:#}");
                break;
            }
        }
    }
}

/// Asks the component, where there is one to be asked, and cleans the ledger, until told to stop.
pub(crate) async fn run(
    component: Option<Component>,
    ledger: Ledger,
    metrics: Arc<Metrics>,
    bus_is_back: Arc<Notify>,
    (flush, purge): (Duration, Duration),
    remember: Duration,
    stop: Stop,
) {
    let every = |period| {
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    };
    let (mut flush, mut purge) = (every(flush), every(purge));
    let flushing = async {
        let Some(component) = &component else { return pending().await };
        let mut afterwards = AFTERWARDS;
        loop {
            tokio::select! {
                _ = flush.tick() => {}
                // What was turned away while the brokers were away has waited long enough.
                () = bus_is_back.notified() => afterwards = AFTERWARDS,
                () = sleep(BETWEEN_FLUSHES), if afterwards > 0 => afterwards -= 1,
            }
            component.flush(&metrics).await;
        }
    };
    // Beside it: under a load that never lets the outbox be empty, there is the most to clean up.
    let cleaning = async {
        loop {
            purge.tick().await;
            if let Some(component) = &component {
                component.purge().await;
            }
            clean(&ledger, remember).await;
        }
    };
    tokio::select! {
        () = flushing => {}
        () = cleaning => {}
        () = stop.stopped() => {}
    }
}
