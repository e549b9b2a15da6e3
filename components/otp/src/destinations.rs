//! What ranges of numbers are sent and verify: counted after the answers, and judged by the guard.
//!
//! An instance gathers for a moment, so that the counts of many requests are one statement. What it has
//! gathered when it is killed is lost: the guard judges by hundreds, not by one.

use crate::{
    config::Config,
    environment::Environment,
    event, log, publish,
    store::{
        Store,
        destinations::{Counts, Range},
    },
};
use otp_core::{
    Guard, Judgement, OtpId, Recipient, Revision, Tally, Timestamp,
    ports::{Clock, Unavailable},
};
use otp_events::{Data, Event, EventType, SuspensionData};
use otp_seal::EventKeys;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};

/// How long an instance gathers before it writes.
const GATHER: Duration = Duration::from_millis(500);

thread_local! {
    static GATHERED: RefCell<BTreeMap<Range, Counts>> = const { RefCell::new(BTreeMap::new()) };
    /// Whether a task of this instance will write what was gathered.
    static RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// Counts a code that was sent, or one that was verified.
pub(crate) fn count(config: &Rc<Config>, application: &str, recipient: &Recipient, what: otp_core::Counts) {
    let (Some(guard), Some(prefix)) = (config.guard, recipient.range()) else { return };
    let range = Range { application: application.to_owned(), prefix: prefix.to_owned() };
    GATHERED.with_borrow_mut(|gathered| {
        let counts: &mut Counts = gathered.entry(range).or_default();
        match what {
            otp_core::Counts::Sent => counts.sent += 1,
            otp_core::Counts::Verified => counts.verified += 1,
        }
    });
    if RUNNING.replace(true) {
        return;
    }
    let config = Rc::clone(config);
    spin_sdk::wasip3::spawn(async move {
        loop {
            spin_sdk::time::sleep(GATHER).await;
            let gathered = GATHERED.take();
            if gathered.is_empty() {
                break;
            }
            if let Err(Unavailable(reason)) = write(&config, &guard, &gathered).await {
                log::line(format_args!("the pumping guard could not count: {reason}"));
            }
        }
        RUNNING.set(false);
    });
}

async fn write(
    config: &Config,
    guard: &Guard,
    gathered: &BTreeMap<Range, Counts>,
) -> Result<(), Unavailable> {
    let now = Environment.now();
    let store = Store::aside(&config.database);
    for (range, tally) in store.count_destinations(guard, now, gathered).await? {
        match guard.judge(&tally, now) {
            Judgement::Leave => {}
            Judgement::Lift => {
                store.lift(&range, now).await?;
                log::line(format_args!("range {} is let go: its codes are verified after all", range.prefix));
            }
            Judgement::Suspend { until, strikes } => {
                let event = suspended(&range, &tally, now, until, &config.event_keys);
                if store.suspend(&range, now, until, strikes, &event).await? {
                    publish::for_anybody();
                    log::line(format_args!(
                        "range {} is suspended until {until}: of {} codes sent to it {} were verified",
                        range.prefix, tally.sent, tally.verified
                    ));
                }
            }
        }
    }
    Ok(())
}

/// The event that says so.
fn suspended(range: &Range, tally: &Tally, now: Timestamp, until: Timestamp, keys: &EventKeys) -> String {
    let mut event = Event::new(OtpId::generate(now, &Environment).as_str(), EventType::DestinationSuspended);
    event.subject = Some(range.prefix.clone());
    event.time = Some(now.to_string());
    event.application = Some(range.application.clone());
    event.sequence = Some(event::sequence(Revision::default().next(now)));
    let data = SuspensionData {
        prefix: Some(range.prefix.clone()),
        sent: Some(tally.sent),
        verified: Some(tally.verified),
        suspended_until: Some(until.to_string()),
    };
    event::signed(event, Data::of(&data), keys)
}
