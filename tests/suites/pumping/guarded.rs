//! The guard as the service has it: its judgement, and its statements on a database.

use harness::{Parameter, Statements, repository};
use otp_core::{Guard, GuardSettings, Judgement, Tally, Timestamp};
use serde_json::json;
use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
};

/// What the service has where nobody sets anything.
pub(crate) fn defaults() -> GuardSettings {
    let manifest = std::fs::read_to_string(repository().join("spin.toml")).unwrap();
    let value = |name: &str| {
        let line = manifest.lines().find(|line| line.starts_with(&format!("{name} = "))).unwrap();
        line.split('"').nth(1).unwrap().parse().unwrap()
    };
    GuardSettings {
        least: value("pumping_min_sends"),
        percent: value("pumping_min_percent"),
        window_seconds: value("pumping_window_seconds"),
        suspend_seconds: value("pumping_suspend_seconds"),
    }
}

/// Codes that were gathered of a range.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) sent: i64,
    pub(crate) verified: i64,
}

#[derive(Debug)]
pub(crate) struct Guarded {
    guard: Guard,
    statements: Statements,
    /// Until when each range is suspended, as it was last written.
    suspended: RefCell<HashMap<String, i64>>,
}

impl Guarded {
    pub(crate) fn new(settings: GuardSettings) -> Self {
        Self {
            guard: Guard::new(settings).unwrap(),
            statements: Statements::new(),
            suspended: RefCell::default(),
        }
    }

    /// Whether nothing is sent to the range, as a commit asks.
    pub(crate) fn suspended(&self, prefix: &str, now: i64) -> bool {
        self.suspended.borrow().get(prefix).is_some_and(|until| *until > now)
    }

    /// Writes what was gathered, and does what follows from it.
    pub(crate) fn write(&self, gathered: &BTreeMap<&str, Counts>, now: i64) {
        use Parameter::{Integer, Json, Text};
        let clock = Timestamp::from_unix_millis(now);
        let list: Vec<_> = gathered
            .iter()
            .map(|(prefix, counts)| {
                json!({ "application": "a", "prefix": prefix, "sent": counts.sent, "verified": counts.verified })
            })
            .collect();
        let run = |name: &str, parameters: Vec<Parameter>| {
            self.statements.run(&format!("destinations/{name}.sql"), parameters)
        };
        run("count", vec![Integer(Guard::slot(clock)), Json(json!(list).to_string())]);
        let prefixes: Vec<_> =
            gathered.keys().map(|prefix| json!({ "application": "a", "prefix": prefix })).collect();
        let asked = vec![
            Json(json!(prefixes).to_string()),
            Integer(self.guard.first_slot(clock)),
            Integer(Guard::first_unsettled_slot(clock)),
            Integer(now),
            Integer(Guard::SLOT),
        ];
        let mut changed = false;
        for row in run("tally", asked) {
            let number = |column: usize| row[column].as_i64().unwrap();
            let tally = Tally {
                sent: number(2),
                settled: number(3),
                verified: number(4),
                suspended_until: row[5].as_i64().map(Timestamp::from_unix_millis),
                strikes: row[6].as_i64().unwrap_or_default(),
            };
            let range = || [0, 1].map(|column: usize| Text(row[column].as_str().unwrap().to_owned()));
            let judgement = self.guard.judge(&tally, clock);
            changed |= judgement != Judgement::Leave;
            match judgement {
                Judgement::Leave => {}
                Judgement::Lift => drop(run("lift", range().into_iter().chain([Integer(now)]).collect())),
                Judgement::Suspend { until, strikes } => {
                    let until = Integer(until.unix_millis());
                    let more = [Integer(now), until, Integer(strikes), Text("{}".to_owned())];
                    assert!(!run("suspend", range().into_iter().chain(more).collect()).is_empty());
                }
            }
        }
        if !changed {
            return;
        }
        let rows = self.statements.sql().rows("SELECT prefix, until FROM suspensions", &[]);
        let suspensions =
            rows.iter().map(|row| (row[0].as_str().unwrap().to_owned(), row[1].as_i64().unwrap()));
        self.suspended.replace(suspensions.collect());
    }

    /// How many suspensions there were.
    pub(crate) fn suspensions(&self) -> i64 {
        self.statements.sql().number("SELECT count(*) FROM outbox", &[])
    }
}
