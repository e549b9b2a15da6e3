//! Random sequences of requests, valid and invalid, alone and many at once, from several machines side by side:
//! every answer is held against a model of the contract.
//!
//! `STEPS` says how many steps are taken in total (500 if it is not set), `SEED` with which one they are drawn.
//! A seed draws the same sequences again; what happens in them depends on the moment as well.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod arena;
mod coverage;
mod machine;
mod shorten;
mod wire;

use arena::Arena;
use coverage::Coverage;
use harness::{store, with_redis};
use machine::Sketch;
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use proptest_state_machine::ReferenceStateMachine;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Instant, SystemTime},
};

/// Steps of one sequence.
const LENGTH: std::ops::Range<usize> = 10..35;

/// Steps that the machines share, until they are used up or one of them has failed.
struct Budget {
    steps: AtomicU64,
    stop: AtomicBool,
    most: u64,
}

impl Budget {
    fn is_left(&self) -> bool {
        self.steps.load(Ordering::Relaxed) < self.most && !self.stop.load(Ordering::Relaxed)
    }
}

#[test]
fn every_answer_is_one_that_the_contract_allows() {
    let steps = setting("STEPS", 500);
    let clock = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros() as u64;
    let seed = setting("SEED", clock());
    // Each with machines, and with tenths of the steps.
    let arenas = [(Arena::quick(), 5, 4), (Arena::lasting(), 3, 4), (Arena::shared(), 3, 2)]
        .map(|(arena, machines, share)| (Arc::new(arena), machines, share));
    let started = Instant::now();
    let failures: Vec<String> = thread::scope(|scope| {
        let mut running = Vec::new();
        for (place, (arena, machines, share)) in (0..).zip(&arenas) {
            let budget = Arc::new(Budget {
                steps: AtomicU64::new(0),
                stop: AtomicBool::new(false),
                most: steps * share / 10,
            });
            for machine in 0..*machines {
                let (arena, budget) = (Arc::clone(arena), Arc::clone(&budget));
                running.push(scope.spawn(move || run(&arena, &budget, [seed, place, machine])));
            }
        }
        running.into_iter().filter_map(|machine| machine.join().unwrap()).collect()
    });
    let took = started.elapsed().as_secs_f64();
    let coverage = Coverage::default();
    arenas.iter().for_each(|(arena, ..)| coverage.add(&arena.coverage));
    println!(
        "seed {seed}, {:?}, {}: {} steps and {} requests in {took:.1} s: {:.0} and {:.0} a second\n{coverage}",
        store(),
        if with_redis() { "with Redis" } else { "without Redis" },
        coverage.steps(),
        coverage.requests(),
        coverage.steps() as f64 / took,
        coverage.requests() as f64 / took
    );
    assert!(
        failures.is_empty(),
        "seed {seed}: {} machines failed\n{}",
        failures.len(),
        failures.join("\n\n")
    );
    let faults: Vec<_> = arenas.iter().flat_map(|(arena, ..)| arena.faults()).collect();
    assert!(faults.is_empty(), "the logs are not as they should be:\n{}", faults.join("\n"));
    let reasons: Vec<_> = arenas.iter().flat_map(|(arena, ..)| arena.bad_reasons()).collect();
    assert!(reasons.is_empty(), "requests heard 503 for no good reason:\n{}", reasons.join("\n"));
    assert!(coverage.unavailable() < 0.01, "{} of all requests heard 503", coverage.unavailable());
    let missing = coverage.missing(steps);
    assert!(missing.is_empty(), "seed {seed}: {steps} steps did not come to {missing:?}");
}

/// One machine: sequence after sequence on numbers of its own, until the steps are used up. Returns what went
/// wrong in the shortest sequence that it found to fail.
fn run(arena: &Arc<Arena>, budget: &Budget, seed: [u64; 3]) -> Option<String> {
    let config = Config { failure_persistence: None, ..Config::default() };
    for sequence in 0_u64.. {
        if !budget.is_left() {
            return None;
        }
        let [_, place, machine] = seed;
        machine::enter(arena, place + machine + sequence);
        let seed: Vec<u8> = seed.iter().chain(&[sequence]).flat_map(|part| part.to_le_bytes()).collect();
        let random = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        let mut runner = TestRunner::new_with_rng(config.clone(), random);
        let drawn = Sketch::sequential_strategy(LENGTH).new_tree(&mut runner);
        let (_, steps, _) = drawn.expect("no step is ever rejected").current();
        budget.steps.fetch_add(steps.len() as u64, Ordering::Relaxed);
        if let Some(why) = shorten::failure(&config, &steps) {
            budget.stop.store(true, Ordering::Relaxed);
            return Some(shorten::shortest(&config, steps, why));
        }
    }
    None
}

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(value) => value.parse().unwrap_or_else(|_| panic!("{name} is {value}, which is no number")),
        Err(_) => default,
    }
}
