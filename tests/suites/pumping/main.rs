//! How well the guard against pumping tells it from honest traffic: simulated days, with the service's own
//! judgement and statements. `cargo test --release --test pumping -- --nocapture` prints the tables.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod dice;
mod guarded;
mod simulation;
mod traffic;

use dice::Dice;
use guarded::defaults;
use harness::at_once;
use simulation::{Outcome, Requests, live};
use traffic::Day;

/// What becomes of a day of each seed.
fn outcomes<const N: usize>(seeds: [u64; N], day: impl Fn(&mut Dice) -> Day + Sync) -> Vec<(Day, Outcome)> {
    at_once(N, |place| {
        let mut dice = Dice(seeds[place]);
        let day = day(&mut dice);
        let outcome = live(&day, defaults(), &mut dice);
        (day, outcome)
    })
}

/// One line for each campaign, one column for each seed.
fn print(title: &str, outcomes: &[(Day, Outcome)]) {
    let line = |name: &str, of: &dyn Fn(&Outcome) -> Requests| {
        let parts: Vec<_> =
            outcomes.iter().map(|(_, outcome)| format!("{:6.2} %", of(outcome).refused_percent())).collect();
        println!("{name:<42} {:>8} {}", of(&outcomes[0].1).all, parts.join(" "));
    };
    println!("\n{title}, refused with {:?}", defaults());
    let campaigns = &outcomes[0].0.campaigns;
    for (place, campaign) in campaigns.iter().enumerate() {
        line(campaign.name, &|outcome| outcome.fraud[place]);
    }
    line("all fraud", &Outcome::all_fraud);
    line("all honest requests", &|outcome| outcome.honest);
    line("those in ranges that nobody pumped into", &|outcome| outcome.honest_elsewhere);
    let suspensions: Vec<_> = outcomes.iter().map(|(_, outcome)| outcome.suspensions).collect();
    println!("suspensions: {suspensions:?}");
}

#[test]
fn on_a_mixed_day_most_fraud_is_stopped_and_hardly_any_honest_request() {
    let outcomes = outcomes([1, 2, 3], Day::mixed);
    print("mixed day", &outcomes);
    for (_, outcome) in &outcomes {
        assert!(outcome.all_fraud().refused_percent() > 95.0, "fraud that is stopped");
        assert!(outcome.honest.refused_percent() < 0.5, "honest requests that are refused");
    }
}

#[test]
fn on_an_honest_day_nobody_is_refused_not_even_in_a_crowd() {
    let outcomes = outcomes([4, 5], |dice| Day::honest(dice).in_order());
    print("honest day", &outcomes);
    for (_, outcome) in &outcomes {
        assert!(outcome.honest.refused_percent() < 0.1, "honest requests that are refused");
    }
}

/// Says what the guard does not do: an attacker who knows the settings, and has ranges enough, stays below.
#[test]
fn who_stays_below_the_least_number_harms_no_honest_user() {
    let settings = defaults();
    let just_below =
        |dice: &mut Dice| Day::just_below(dice, settings.least as usize, settings.window_seconds as f64);
    let outcomes = outcomes([6], just_below);
    print("just below", &outcomes);
    let [(_, outcome)] = &outcomes[..] else { unreachable!() };
    assert!(outcome.honest.refused_percent() < 0.1, "honest requests that are refused");
}

/// A hundred a second within seconds, in a range that nobody came from before: for as long as nobody can have
/// typed a code, that looks like a flood.
#[test]
fn a_sudden_crowd_is_let_go_when_it_verifies() {
    let outcomes = outcomes([7, 8, 9, 10], Day::crowd);
    print("a sudden crowd", &outcomes);
    for (_, outcome) in &outcomes {
        assert!(outcome.honest.refused_percent() < 40.0, "not for long");
    }
}
