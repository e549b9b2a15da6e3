//! The guard as the service has it: its judgement, and its statements on a database.

use harness::repository;
use otp_core::{Guard, GuardSettings, Judgement, Tally, Timestamp};
use rusqlite::{Connection, params};
use serde_json::json;
use std::collections::BTreeMap;

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

fn statement(name: &str) -> String {
    let folder = repository().join("components/otp/src/store/sqlite/destinations");
    std::fs::read_to_string(folder.join(name)).unwrap()
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
    database: Connection,
    count: String,
    tally: String,
    suspend: String,
    lift: String,
}

impl Guarded {
    pub(crate) fn new(settings: GuardSettings) -> Self {
        let database = Connection::open_in_memory().unwrap();
        let mut steps: Vec<_> = std::fs::read_dir(repository().join("migrations/sqlite"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        steps.sort();
        for step in steps {
            database.execute_batch(&std::fs::read_to_string(step).unwrap()).unwrap();
        }
        let [count, tally, suspend, lift] =
            ["count.sql", "tally.sql", "suspend.sql", "lift.sql"].map(statement);
        Self { guard: Guard::new(settings).unwrap(), database, count, tally, suspend, lift }
    }

    /// Whether nothing is sent to the range, as `issue.sql` asks.
    pub(crate) fn suspended(&self, prefix: &str, now: i64) -> bool {
        let mut query = self
            .database
            .prepare_cached("SELECT 1 FROM suspensions WHERE prefix = ?1 AND until > ?2")
            .unwrap();
        query.exists(params![prefix, now]).unwrap()
    }

    /// Writes what was gathered, and does what follows from it.
    pub(crate) fn write(&self, gathered: &BTreeMap<&str, Counts>, now: i64) {
        let clock = Timestamp::from_unix_millis(now);
        let list: Vec<_> = gathered
            .iter()
            .map(|(prefix, counts)| json!({ "prefix": prefix, "sent": counts.sent, "verified": counts.verified }))
            .collect();
        let run = |statement: &str| self.database.prepare_cached(statement).unwrap();
        run(&self.count).execute(params![Guard::slot(clock), json!(list).to_string()]).unwrap();
        let prefixes: Vec<_> = gathered.keys().collect();
        let asked = params![
            json!(prefixes).to_string(),
            self.guard.first_slot(clock),
            Guard::first_unsettled_slot(clock),
            now,
            Guard::SLOT
        ];
        let mut query = run(&self.tally);
        let tallies = query.query_map(asked, |row| {
            let tally = Tally {
                sent: row.get(1)?,
                settled: row.get(2)?,
                verified: row.get(3)?,
                suspended_until: row.get::<_, Option<i64>>(4)?.map(Timestamp::from_unix_millis),
                strikes: row.get::<_, Option<i64>>(5)?.unwrap_or_default(),
            };
            Ok((row.get::<_, String>(0)?, tally))
        });
        let tallies: Vec<_> = tallies.unwrap().map(Result::unwrap).collect();
        for (prefix, tally) in tallies {
            match self.guard.judge(&tally, clock) {
                Judgement::Leave => {}
                Judgement::Lift => drop(run(&self.lift).execute(params![prefix, now]).unwrap()),
                Judgement::Suspend { until, strikes } => {
                    let suspension = params![prefix, now, until.unix_millis(), strikes, "{}"];
                    assert!(run(&self.suspend).exists(suspension).unwrap());
                }
            }
        }
    }

    /// How many suspensions there were.
    pub(crate) fn suspensions(&self) -> i64 {
        self.database.query_row("SELECT count(*) FROM outbox", [], |row| row.get(0)).unwrap()
    }
}
