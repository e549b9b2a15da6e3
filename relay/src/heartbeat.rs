//! Says again and again that this relay is alive, and to the operator how the ledger does.

use crate::ledger::{Ledger, TICK};
use tokio::time::{MissedTickBehavior, interval};

/// Runs until it is dropped: what is under way at the end is this relay's as well.
pub(crate) async fn run(ledger: Ledger) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut away: Option<String> = None;
    loop {
        tick.tick().await;
        match ledger.renew().await {
            Ok(()) if away.take().is_some() => tracing::info!("the ledger is there"),
            Ok(()) => {}
            Err(error) => {
                let reason = format!("{error:#}");
                // Once is news.
                if away.as_ref() != Some(&reason) {
                    tracing::warn!(
                        "{reason}; events and deliveries wait where they are (RELAY_DATABASE_URL)"
                    );
                }
                away = Some(reason);
            }
        }
    }
}
