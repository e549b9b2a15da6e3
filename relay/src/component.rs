//! The component, which is asked now and then to push what waits in its outbox and to clean up. A host
//! that died between an answer and its push has left events there.

use crate::{ledger::Ledger, metrics::Metrics, stop::Stop};
use anyhow::Result;
use std::{collections::HashMap, sync::Arc, time::Duration};
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

    /// Has it push what waits, as long as that helps, and notes what is left.
    async fn flush(&self, metrics: &Metrics) {
        loop {
            let counts = self.ask("/internal/outbox/flush").await;
            metrics.component_up.with_label_values::<&str>(&[]).set(counts.is_some().into());
            let Some(counts) = counts else { break };
            let count = |name| counts.get(name).copied().unwrap_or_default();
            metrics.outbox_waiting.set(count("waiting"));
            metrics.outbox_dead.set(count("dead"));
            if count("waiting") == 0 || count("published") == 0 {
                break;
            }
        }
    }

    /// Has it clean up until there is nothing left to clean.
    async fn purge(&self) {
        for _ in 0..MAX_ROUNDS {
            let counts = self.ask("/internal/purge").await.unwrap_or_default();
            if counts.values().all(|count| *count == 0) {
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
    let ask_to_flush = async || {
        if let Some(component) = &component {
            tokio::select! {
                () = component.flush(&metrics) => {}
                () = stop.stopped() => {}
            }
        }
    };
    let (mut flush, mut purge) = (interval(flush), interval(purge));
    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
    purge.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = flush.tick() => ask_to_flush().await,
            // What was turned away while the brokers were away has waited long enough.
            () = bus_is_back.notified() => ask_to_flush().await,
            _ = purge.tick() => {
                let cleaning = async {
                    if let Some(component) = &component {
                        component.purge().await;
                    }
                    clean(&ledger, remember).await;
                };
                tokio::select! {
                    () = cleaning => {}
                    () = stop.stopped() => return,
                }
            }
            () = stop.stopped() => return,
        }
    }
}
