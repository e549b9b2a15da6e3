//! Whatever dies: under load, relay, broker, Redis and the component's host are killed at random moments,
//! and what was accepted still reaches the topic, and takes effect once. With STORE=postgres, Postgres too,
//! and with LEDGER=postgres it has the relay's ledger as well.
//!
//! `SEEDS` says with how many seeds (2 if it is not set), `FIRST_SEED` where they begin (1), `REQUESTS`
//! how many requests each has (3000).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod account;
mod chaos;
mod dice;
mod load;
mod several_relays;

use account::Account;
use chaos::Stack;

#[test]
fn whatever_dies_nothing_accepted_is_lost_and_nothing_takes_effect_twice() {
    let (first, seeds) = (setting("FIRST_SEED", 1), setting("SEEDS", 2));
    let mut faults = Vec::new();
    for seed in first..first + seeds {
        let mut stack = Stack::start();
        let load = load::run(&mut stack, seed, setting("REQUESTS", 3_000));
        stack.settle(&load);
        let account = Account::of(&stack, &load);
        println!("seed {seed}: {account}");
        faults.extend(account.faults().into_iter().map(|fault| format!("seed {seed}: {fault}")));
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(value) => value.parse().unwrap_or_else(|_| panic!("{name} is {value}, which is no number")),
        Err(_) => default,
    }
}
