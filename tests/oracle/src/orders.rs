//! Requests at once, and whether some order of them explains what they heard.

use crate::{
    heard::Heard,
    model::{Request, Rules, World},
};
use std::collections::BTreeSet;

/// More worlds than ever come up side by side; beyond that the model has lost the thread.
const MOST_WORLDS: usize = 2_000;

/// The worlds that there may be after these requests were answered so, whatever order they took effect in: none
/// if no order explains all the answers (linearizability, Herlihy and Wing 1990). A request that was answered
/// before another was sent comes before it.
///
/// Goes by subsets, not by permutations: the worlds after a subset of the requests are those after each subset
/// with one less, one request on.
pub fn explained(rules: &Rules, worlds: &BTreeSet<World>, burst: &[(Request, Heard)]) -> BTreeSet<World> {
    let all = 1_usize << burst.len();
    let mut after = vec![BTreeSet::new(); all];
    after[0] = worlds.clone();
    for done in 0..all {
        let reached = std::mem::take(&mut after[done]);
        if done == all - 1 {
            return reached;
        }
        let waits = |index: &usize| done & (1 << index) == 0;
        for (index, (request, heard)) in burst.iter().enumerate().filter(|(index, _)| waits(index)) {
            let is_first = burst.iter().enumerate().all(|(other, (_, earlier))| {
                !waits(&other) || other == index || earlier.during.to >= heard.during.from
            });
            if is_first {
                let next = reached.iter().flat_map(|world| one_on(rules, world, request, heard));
                after[done | 1 << index].extend(next);
            }
        }
    }
    unreachable!("the last subset has all of them")
}

/// The worlds after one request that heard this.
fn one_on(rules: &Rules, world: &World, request: &Request, heard: &Heard) -> Vec<World> {
    let possible = world.possible(rules, request, heard.told.as_ref(), heard.during);
    possible.into_iter().filter(|(answer, _)| answer.fits(heard).is_ok()).map(|(_, world)| world).collect()
}

/// Why a single answer is none of those that the worlds allow.
pub fn objection(rules: &Rules, worlds: &BTreeSet<World>, request: &Request, heard: &Heard) -> String {
    let mut allowed: Vec<_> = worlds
        .iter()
        .flat_map(|world| world.possible(rules, request, heard.told.as_ref(), heard.during))
        .map(|(answer, _)| match answer.fits(heard) {
            Ok(()) => format!("  {answer}"),
            Err(different) => format!("  {answer}: {different}"),
        })
        .collect();
    allowed.sort_unstable();
    allowed.dedup();
    if allowed.is_empty() {
        return "no answer that is made without a new code is allowed here".to_owned();
    }
    format!("allowed would be\n{}", allowed.join("\n"))
}

/// Whether the model can still follow.
pub fn is_clear(worlds: &BTreeSet<World>) -> bool {
    worlds.len() <= MOST_WORLDS
}
