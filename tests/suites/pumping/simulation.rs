//! Lets a day go by.

use crate::{
    dice::Dice,
    guarded::{Counts, Guarded},
    traffic::{Arrival, Day},
};
use otp_core::GuardSettings;
use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, BinaryHeap},
};

/// Midnight, in milliseconds since the Unix epoch.
const MIDNIGHT: i64 = 1_795_305_600_000;

/// How long an instance gathers before it writes, in seconds.
const GATHER: f64 = 0.2;

/// How long a code lives, in seconds.
const LIFE: f64 = 600.0;

/// How often people who were refused, or heard nothing, try once more: 37 percent, says a vendor.
const TRIES_AGAIN: f64 = 0.37;

/// Requests of somebody, and those that were refused.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Requests {
    pub(crate) all: u64,
    pub(crate) refused: u64,
}

impl Requests {
    pub(crate) fn refused_percent(self) -> f64 {
        100.0 * self.refused as f64 / self.all.max(1) as f64
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self { all: self.all + other.all, refused: self.refused + other.refused }
    }
}

/// What became of a day.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) honest: Requests,
    /// In order of the campaigns.
    pub(crate) fraud: Vec<Requests>,
    /// Of the honest ones, those in ranges that nobody pumped into.
    pub(crate) honest_elsewhere: Requests,
    pub(crate) suspensions: i64,
}

impl Outcome {
    pub(crate) fn all_fraud(&self) -> Requests {
        self.fraud.iter().fold(Requests::default(), |sum, campaign| sum.and(*campaign))
    }
}

#[derive(Debug, Clone, Copy)]
enum What {
    /// Somebody asks for a code, for so many times before.
    Asks {
        by: Arrival,
        tries: u8,
    },
    Verifies {
        range: usize,
    },
    /// What was gathered is written.
    Writes,
}

/// Something to come. The number tells those of the same moment apart.
#[derive(Debug)]
struct Coming(f64, u64, What);

impl PartialEq for Coming {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Coming {}

impl PartialOrd for Coming {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Coming {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0).then(self.1.cmp(&other.1))
    }
}

#[derive(Debug, Default)]
struct Agenda {
    heap: BinaryHeap<Reverse<Coming>>,
    entered: u64,
}

impl Agenda {
    fn enter(&mut self, at: f64, what: What) {
        self.entered += 1;
        self.heap.push(Reverse(Coming(at, self.entered, what)));
    }
}

/// What of a day's traffic is refused with these settings.
pub(crate) fn live(day: &Day, settings: GuardSettings, dice: &mut Dice) -> Outcome {
    let guarded = Guarded::new(settings);
    let mut agenda = Agenda::default();
    day.arrivals.iter().for_each(|arrival| agenda.enter(arrival.at, What::Asks { by: *arrival, tries: 0 }));
    let mut pumped = vec![false; day.ranges.len()];
    day.arrivals.iter().filter(|by| by.campaign.is_some()).for_each(|by| pumped[by.range] = true);
    let mut outcome = Outcome {
        honest: Requests::default(),
        fraud: vec![Requests::default(); day.campaigns.len()],
        honest_elsewhere: Requests::default(),
        suspensions: 0,
    };
    let mut gathered = BTreeMap::<&str, Counts>::new();
    let mut running = false;
    while let Some(Reverse(Coming(at, _, what))) = agenda.heap.pop() {
        let now = MIDNIGHT + (at * 1_000.0) as i64;
        let counted = match what {
            What::Writes => {
                let gathered = std::mem::take(&mut gathered);
                running = !gathered.is_empty();
                if running {
                    guarded.write(&gathered, now);
                    agenda.enter(at + GATHER, What::Writes);
                }
                continue;
            }
            What::Verifies { range } => (range, Counts { sent: 0, verified: 1 }),
            What::Asks { by, tries } => {
                let refused = guarded.suspended(&day.ranges[by.range].prefix, now);
                let asked = Requests { all: 1, refused: refused.into() };
                match by.campaign {
                    Some(campaign) => outcome.fraud[campaign] = outcome.fraud[campaign].and(asked),
                    None => {
                        outcome.honest = outcome.honest.and(asked);
                        if !pumped[by.range] {
                            outcome.honest_elsewhere = outcome.honest_elsewhere.and(asked);
                        }
                    }
                }
                goes_on(day, by, tries, refused, (at, dice), &mut agenda);
                if refused {
                    continue;
                }
                (by.range, Counts { sent: 1, verified: 0 })
            }
        };
        let (range, more) = counted;
        let counts = gathered.entry(&day.ranges[range].prefix).or_default();
        counts.sent += more.sent;
        counts.verified += more.verified;
        if !running {
            running = true;
            agenda.enter(at + GATHER, What::Writes);
        }
    }
    outcome.suspensions = guarded.suspensions();
    outcome
}

/// What somebody does who was sent a code, or was not.
fn goes_on(
    day: &Day,
    by: Arrival,
    tries: u8,
    refused: bool,
    (at, dice): (f64, &mut Dice),
    agenda: &mut Agenda,
) {
    let again = What::Asks { by, tries: tries + 1 };
    // Delivery and typing: a median of 20 s, one in twenty over 80 s, one in a hundred over 160 s.
    let delay = 5.0 + dice.log_normal(15.0, 1.0);
    let verifies = What::Verifies { range: by.range };
    if let Some(campaign) = by.campaign {
        if !refused && dice.chance(day.campaigns[campaign].converts) {
            agenda.enter(at + delay, verifies);
        }
        return;
    }
    let patience = dice.between(30.0, 90.0);
    if refused {
        if tries < 2 && dice.chance(TRIES_AGAIN) {
            agenda.enter(at + patience, again);
        }
    } else if tries > 0 {
        // The second message is as good as the first one was.
        if tries < 2 && dice.chance(day.ranges[by.range].converts) {
            agenda.enter(at + delay.min(LIFE), verifies);
        }
    } else if !dice.chance(day.ranges[by.range].converts) {
        if dice.chance(TRIES_AGAIN) {
            // In vain.
            agenda.enter(at + patience, What::Asks { by, tries: 9 });
        }
    } else if delay > patience && dice.chance(0.6) {
        // The impatient ask once more, and type what comes.
        agenda.enter(at + patience, What::Asks { by, tries: 9 });
        if delay < LIFE {
            agenda.enter(at + delay, verifies);
        }
    } else if delay < LIFE {
        agenda.enter(at + delay, verifies);
    }
}
