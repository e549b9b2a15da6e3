//! The component, which is asked now and then to push what waits in its outbox and to clean up. A host
//! that died between an answer and its push has left events there.

use crate::{ledger::Ledger, stop::Stop};
use anyhow::Result;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use url::Url;

/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(10);

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

    async fn ask(&self, path: &str) {
        let Ok(url) = self.url.join(path) else { return };
        match self.client.post(url).bearer_auth(&self.token).send().await {
            Ok(response) if response.status().is_success() => {}
            Ok(response) => {
                let status = response.status();
                tracing::warn!(path, %status, "the component refuses; its relay_token must be RELAY_TOKEN");
            }
            // It may be starting, or ending.
            Err(error) => tracing::debug!(path, "the component cannot be asked: {}", error.without_url()),
        }
    }
}

/// Asks the component, where there is one to be asked, and cleans the ledger, until told to stop.
pub(crate) async fn run(
    component: Option<Component>,
    ledger: Ledger,
    (flush, purge): (Duration, Duration),
    remember: Duration,
    stop: Stop,
) {
    let (mut flush, mut purge) = (interval(flush), interval(purge));
    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
    purge.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = flush.tick() => {
                if let Some(component) = &component {
                    component.ask("/internal/outbox/flush").await;
                }
            }
            _ = purge.tick() => {
                if let Some(component) = &component {
                    component.ask("/internal/purge").await;
                }
                if let Err(error) = ledger.clean(remember).await {
                    tracing::warn!("the ledger cannot be cleaned: {error:#}");
                }
            }
            () = stop.stopped() => return,
        }
    }
}
