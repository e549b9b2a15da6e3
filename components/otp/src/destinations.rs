//! What ranges of numbers are sent and verify: counted after the answers, and judged by the guard.
//!
//! An instance gathers for a moment, so that the counts of many requests are one statement. What it has
//! gathered when it is killed is lost: the guard judges by hundreds, not by one.

use crate::{
    config::Config,
    environment::Environment,
    log,
    store::{Place, Store},
};
use otp_core::{
    Guard, Judgement, MobileNumber, Tally, Timestamp,
    ports::{Clock, Unavailable},
};
use otp_events::{Event, EventType, SuspensionData};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};

/// How long an instance gathers before it writes.
const GATHER: Duration = Duration::from_millis(500);

/// Codes of one range.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) sent: i64,
    pub(crate) verified: i64,
}

thread_local! {
    static GATHERED: RefCell<BTreeMap<String, Counts>> = const { RefCell::new(BTreeMap::new()) };
    /// Whether a task of this instance will write what was gathered.
    static RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// A code was sent.
pub(crate) fn sent(config: &Rc<Config>, number: &MobileNumber) {
    count(config, number, |counts| counts.sent += 1);
}

/// A code was verified.
pub(crate) fn verified(config: &Rc<Config>, number: &MobileNumber) {
    count(config, number, |counts| counts.verified += 1);
}

fn count(config: &Rc<Config>, number: &MobileNumber, add: impl FnOnce(&mut Counts)) {
    let Some(guard) = config.guard else { return };
    GATHERED.with_borrow_mut(|gathered| add(gathered.entry(number.range().to_owned()).or_default()));
    if RUNNING.replace(true) {
        return;
    }
    let place = config.database.clone();
    spin_sdk::wasip3::spawn(async move {
        loop {
            spin_sdk::time::sleep(GATHER).await;
            let gathered = GATHERED.take();
            if gathered.is_empty() {
                break;
            }
            if let Err(Unavailable(reason)) = write(&place, &guard, &gathered).await {
                log::line(format_args!("the pumping guard could not count: {reason}"));
            }
        }
        RUNNING.set(false);
    });
}

async fn write(place: &Place, guard: &Guard, gathered: &BTreeMap<String, Counts>) -> Result<(), Unavailable> {
    let now = Environment.now();
    let store = Store::aside(place);
    for (range, tally) in store.count_destinations(guard, now, gathered).await? {
        match guard.judge(&tally, now) {
            Judgement::Leave => {}
            Judgement::Lift => {
                store.lift(&range, now).await?;
                log::line(format_args!("range {range} is let go: its codes are verified after all"));
            }
            Judgement::Suspend { until, strikes } => {
                let event = suspended(&range, &tally, now, until);
                if store.suspend(&range, now, until, strikes, &event).await? {
                    log::line(format_args!(
                        "range {range} is suspended until {until}: of {} codes sent to it {} were verified",
                        tally.sent, tally.verified
                    ));
                }
            }
        }
    }
    Ok(())
}

/// The event that says so.
fn suspended(range: &str, tally: &Tally, now: Timestamp, until: Timestamp) -> String {
    let id = otp_core::OtpId::generate(now, &Environment);
    let mut event = Event::new(id.as_str(), EventType::DestinationSuspended);
    event.subject = Some(range.to_owned());
    event.time = Some(now.to_string());
    event.datacontenttype = Some("application/json".to_owned());
    event.sequence = Some(format!("{:020}", now.unix_millis()));
    let data = SuspensionData {
        prefix: Some(range.to_owned()),
        sent: Some(tally.sent),
        verified: Some(tally.verified),
        suspended_until: Some(until.to_string()),
    };
    event.data = serde_json::to_value(data).ok();
    // An event is a plain struct of strings, which always serialises.
    serde_json::to_string(&event).unwrap_or_default()
}
