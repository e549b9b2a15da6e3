//! From a sequence that fails to a short one that still does.
//!
//! proptest's own shrinking gives up when a sequence that has failed passes as it is run again. Here many fail
//! only now and then, for it is a race that they find: each is given several tries.

use crate::machine::{Machine, Sketch, Step};
use proptest::test_runner::Config;
use proptest_state_machine::StateMachineTest;
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

/// How long the search may take.
const LONGEST: Duration = Duration::from_secs(45);

/// How often a shorter sequence is tried until it is believed to pass.
const TRIES: usize = 3;

/// What goes wrong in the shortest sequence that can be found, which is `why` in this one.
pub(crate) fn shortest(config: &Config, mut steps: Vec<Step>, mut why: String) -> String {
    let deadline = Instant::now() + LONGEST;
    loop {
        let shorter = candidates(&steps).find_map(|shorter| {
            let tries = (0..TRIES).take_while(|_| Instant::now() < deadline);
            tries.into_iter().find_map(|_| failure(config, &shorter)).map(|why| (shorter, why))
        });
        match shorter {
            Some(found) => (steps, why) = found,
            None => return why,
        }
    }
}

/// Sequences with less in them, those with the least first.
fn candidates(steps: &[Step]) -> impl Iterator<Item = Vec<Step>> {
    let sizes =
        std::iter::successors(Some(steps.len() / 2), |size| Some(size / 2)).take_while(|size| *size > 0);
    let without = sizes.flat_map(move |size| {
        let ends = (size..=steps.len()).rev().step_by(size);
        ends.map(move |end| [&steps[..end - size], &steps[end..]].concat())
    });
    let simpler = steps.iter().enumerate().flat_map(move |(place, step)| {
        step.simpler().into_iter().map(move |simpler| {
            let mut steps = steps.to_vec();
            steps[place] = simpler;
            steps
        })
    });
    without.chain(simpler)
}

/// How a sequence fails, if it does.
pub(crate) fn failure(config: &Config, steps: &[Step]) -> Option<String> {
    let run = || Machine::test_sequential(config.clone(), Sketch::default(), steps.to_vec(), None);
    catch_unwind(AssertUnwindSafe(run)).err().map(|thrown| message(&*thrown))
}

fn message(thrown: &(dyn Any + Send)) -> String {
    match (thrown.downcast_ref::<String>(), thrown.downcast_ref::<&str>()) {
        (Some(message), _) => message.clone(),
        (None, Some(message)) => (*message).to_owned(),
        (None, None) => "a panic without a message".to_owned(),
    }
}
