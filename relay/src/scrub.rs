//! Scrubbing where the ledger is kept: what was deleted is still in its files for a while.

use crate::{
    ledger::{Ledger, NotNow},
    stop::Stop,
};
use std::{sync::Arc, time::Duration};
use tokio::{sync::Notify, time::sleep};

/// The first pause before the files are looked at again, doubled with each, and the longest. Also the
/// least time between two scrubs: users may be erased many at a time.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Scrubs where the ledger is kept after each erasure until told to stop, and once at the start: the last relay
/// may have died in between.
pub(crate) async fn run(ledger: Ledger, erased: Arc<Notify>, stop: Stop) {
    loop {
        let scrubbing = async {
            scrub(&ledger).await;
            sleep(PAUSE.0).await;
            erased.notified().await;
        };
        tokio::select! {
            () = scrubbing => {}
            () = stop.stopped() => return,
        }
    }
}

/// Best effort, and not given up: a reader of the files, such as a backup, may be in the way.
async fn scrub(ledger: &Ledger) {
    let mut pause = PAUSE.0;
    while let Err(error) = ledger.rewrite().await {
        if !error.is::<NotNow>() {
            tracing::warn!("the ledger cannot be written anew after an erasure: {error:#}");
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
    pause = PAUSE.0;
    loop {
        match ledger.empty_log().await {
            Ok(true) => return,
            Ok(false) => tracing::debug!("somebody reads the ledger; its log is emptied later"),
            Err(error) => tracing::warn!("the ledger's log cannot be emptied after an erasure: {error:#}"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}
