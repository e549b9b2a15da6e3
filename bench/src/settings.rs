//! What is to be measured, from the environment.

use crate::subject::{Events, Store};
use std::{path::PathBuf, time::Duration};

#[derive(Debug)]
pub(crate) struct Settings {
    /// `STORES`: sqlite, sqlite+redis, postgres+redis.
    pub(crate) stores: Vec<Store>,
    /// `RELAYS`: none, in-process, kafka.
    pub(crate) events: Vec<Events>,
    /// `CONNECTIONS`, such as "1 8 32 128".
    pub(crate) connections: Vec<usize>,
    /// `NUMBERS`: thousand, or million. A thousand come again and again, and are others in each round.
    pub(crate) few_numbers: bool,
    /// `LIMITS`: default, or all: API keys, Idempotency-Keys, every limit and the guard.
    pub(crate) guarded: bool,
    /// `ROUNDS` that are interleaved, of which the medians count.
    pub(crate) rounds: usize,
    /// `SECONDS` of each load.
    pub(crate) duration: Duration,
    /// `PEERS`: whether others are measured in the same run.
    pub(crate) spring: bool,
    /// `OTPGATEWAY`: the program.
    pub(crate) otpgateway: Option<PathBuf>,
    /// `COMPARE`: checkouts to compare, each with what was built there.
    pub(crate) checkouts: Vec<PathBuf>,
    /// `RELAY`: whether the relay alone is measured, too.
    pub(crate) relay: bool,
}

/// Why nothing is measured.
pub(crate) type Wrong = String;

fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn count(name: &str, default: usize) -> Result<usize, Wrong> {
    let Some(text) = text(name) else { return Ok(default) };
    text.parse()
        .ok()
        .filter(|count| *count > 0)
        .ok_or_else(|| format!("{name} is {text}; it is a number from 1 on"))
}

fn one_of(name: &str, choices: [&str; 2]) -> Result<bool, Wrong> {
    match text(name) {
        None => Ok(false),
        Some(text) if text == choices[0] => Ok(false),
        Some(text) if text == choices[1] => Ok(true),
        Some(text) => Err(format!("{name} is {text}; it is either {} or {}", choices[0], choices[1])),
    }
}

fn list<T: Copy>(name: &str, default: &str, choices: &[(&str, T)]) -> Result<Vec<T>, Wrong> {
    let named = text(name).unwrap_or_else(|| default.to_owned());
    let one = |word: &str| {
        let found = choices.iter().find(|(name, _)| *name == word).map(|(_, choice)| *choice);
        found.ok_or_else(|| {
            let all: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            format!("{name} has {word}; it is a list of {}", all.join(", "))
        })
    };
    named.split_whitespace().map(one).collect()
}

impl Settings {
    pub(crate) fn from_environment() -> Result<Self, Wrong> {
        let connections = text("CONNECTIONS").unwrap_or_else(|| "32".to_owned());
        let connections = connections.split_whitespace().map(|count| {
            count
                .parse()
                .ok()
                .filter(|count| *count > 0)
                .ok_or_else(|| format!("CONNECTIONS has {count}; it is a list of numbers"))
        });
        let checkouts = text("COMPARE").unwrap_or_default().split_whitespace().map(PathBuf::from).collect();
        Ok(Self {
            stores: list("STORES", "sqlite sqlite+redis postgres+redis", &Store::ALL)?,
            events: list("RELAYS", "none in-process", &Events::ALL)?,
            connections: connections.collect::<Result<_, _>>()?,
            few_numbers: one_of("NUMBERS", ["million", "thousand"])?,
            guarded: one_of("LIMITS", ["default", "all"])?,
            rounds: count("ROUNDS", 3)?,
            duration: Duration::from_secs(count("SECONDS", 3)? as u64),
            spring: one_of("PEERS", ["none", "spring"])?,
            otpgateway: text("OTPGATEWAY").map(PathBuf::from),
            checkouts,
            relay: one_of("RELAY", ["no", "yes"])?,
        })
    }
}
