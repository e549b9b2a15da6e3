//! The rounds.

use crate::{
    load::{self, Answer, Model, Outcome, Request},
    settings::Settings,
    subject::{Call, Numbers, PARTS, Subject},
};
use std::{
    thread,
    time::{Duration, Instant},
};

/// More requests a second than any call here can answer on two cores: so many are made ready.
const MOST: f64 = 25_000.0;

/// Warming up ends when three loads in a row differ by less than this share, or after [`LONGEST_WARM_UP`].
const STEADY: f64 = 0.05;
const LONGEST_WARM_UP: Duration = Duration::from_secs(120);

/// The share of failures from which on there is nothing to measure.
const MOST_FAILED: f64 = 0.05;

/// What a load of one call has shown.
#[derive(Debug, Default, Clone)]
pub(crate) struct Sample {
    pub(crate) rate: f64,
    /// At the median, 99 % and 99.9 %, in milliseconds.
    pub(crate) latency: [f64; 3],
    /// Of each of [`PARTS`], in microseconds a request, with what it did for them after the last answer.
    pub(crate) cpu: [Option<f64>; PARTS.len()],
    /// The share of the answers that were not as they should be.
    pub(crate) failed: f64,
}

/// What was measured of a subject.
pub(crate) struct Measured {
    pub(crate) name: String,
    pub(crate) calls: Vec<(Call, Vec<Sample>, Vec<Sample>)>,
    /// Resident memory of host and relay after all of it, in KiB.
    pub(crate) memory: (u64, Option<u64>),
}

/// A subject, and what is known of it.
struct Run {
    subject: Subject,
    numbers: Numbers,
    closed: Vec<Vec<Sample>>,
    open: Vec<Vec<Sample>>,
}

/// Measures them in turns: each call as fast as it goes, then at half of that.
pub(crate) fn all(subjects: Vec<Subject>, settings: &Settings, connections: usize) -> Vec<Measured> {
    let samples = || vec![Vec::new(); Call::ALL.len()];
    let mut runs: Vec<_> = subjects
        .into_iter()
        .map(|subject| Run { subject, numbers: Numbers::default(), closed: samples(), open: samples() })
        .collect();
    for run in &mut runs {
        run.warm_up(settings, connections);
    }
    for round in 0..settings.rounds {
        for run in &mut runs {
            eprintln!("round {} of {}: {}", round + 1, settings.rounds, run.subject.name);
            for (index, call) in Call::ALL.into_iter().enumerate() {
                if run.subject.calls.contains(&call) {
                    run.measure(index, call, false, settings, connections);
                    run.measure(index, call, true, settings, connections);
                }
            }
        }
        // The order alternates, so that no subject always runs after the same other one.
        runs.reverse();
    }
    if settings.rounds % 2 == 1 {
        runs.reverse();
    }
    runs.into_iter()
        .map(|run| Measured {
            name: run.subject.name.clone(),
            memory: run.subject.memory(),
            calls: Call::ALL
                .into_iter()
                .zip(run.closed.into_iter().zip(run.open))
                .filter(|(_, (closed, _))| !closed.is_empty())
                .map(|(call, (closed, open))| (call, closed, open))
                .collect(),
        })
        .collect()
}

impl Run {
    fn warm_up(&mut self, settings: &Settings, connections: usize) {
        for call in Call::ALL {
            if !self.subject.calls.contains(&call) {
                continue;
            }
            let begun = Instant::now();
            let mut rates = Vec::<f64>::new();
            loop {
                let (outcome, expected) = self.load(call, Model::Closed, settings, connections);
                let failed = failed(&outcome, expected);
                assert!(
                    failed < MOST_FAILED,
                    "{}, {}: {:.0} % of the answers are not {expected:?}",
                    self.subject.name,
                    call.name(),
                    failed * 100.0
                );
                rates.push(outcome.answers.len() as f64 / outcome.lasted.as_secs_f64());
                let last = &rates[rates.len().saturating_sub(3)..];
                let (least, most) = last
                    .iter()
                    .fold((f64::MAX, 0.0_f64), |(least, most), rate| (least.min(*rate), most.max(*rate)));
                let steady = last.len() == 3 && most / least < 1.0 + STEADY;
                if !self.subject.warms_up() || steady || begun.elapsed() > LONGEST_WARM_UP {
                    break;
                }
            }
            if self.subject.warms_up() {
                let rates: Vec<_> = rates.iter().map(|rate| format!("{rate:.0}")).collect();
                eprintln!(
                    "{}, {}: {} a second in {:.0} s of warming up",
                    self.subject.name,
                    call.name(),
                    rates.join(" "),
                    begun.elapsed().as_secs_f64()
                );
            }
        }
    }

    fn measure(&mut self, index: usize, call: Call, open: bool, settings: &Settings, connections: usize) {
        let model = if open {
            Model::Open(median(self.closed[index].iter().map(|sample| sample.rate)) / 2.0)
        } else {
            Model::Closed
        };
        self.prepare(call, settings, connections);
        self.settle();
        let before = self.subject.cpu_times();
        let (outcome, expected) = self.load(call, model, settings, connections);
        self.settle();
        let after = self.subject.cpu_times();
        let count = outcome.answers.len().max(1) as f64;
        let mut sample = Sample {
            rate: count / outcome.lasted.as_secs_f64(),
            failed: failed(&outcome, expected),
            ..Sample::default()
        };
        for (part, (before, after)) in before.into_iter().zip(after).enumerate() {
            sample.cpu[part] = before
                .zip(after)
                .map(|(before, after)| after.saturating_sub(before).as_secs_f64() * 1e6 / count);
        }
        let mut took: Vec<_> = outcome.answers.iter().map(|answer| answer.took).collect();
        took.sort_unstable();
        sample.latency = [0.5, 0.99, 0.999]
            .map(|share| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3);
        let samples = if open { &mut self.open } else { &mut self.closed };
        samples[index].push(sample);
    }

    /// Has codes ready for the calls that need some.
    fn prepare(&mut self, call: Call, settings: &Settings, connections: usize) {
        if matches!(call, Call::Hello | Call::Generate) {
            return;
        }
        // New ones: what was verified is used up, and what was sent often is refused.
        self.numbers.known.clear();
        self.load(Call::Generate, Model::Closed, settings, connections);
    }

    /// One load, and the statuses that are right.
    fn load(
        &mut self,
        call: Call,
        model: Model,
        settings: &Settings,
        connections: usize,
    ) -> (Outcome, &'static [u16]) {
        if matches!(call, Call::Resend | Call::Regenerate | Call::Verify | Call::Mix)
            && self.numbers.known.is_empty()
        {
            self.load(Call::Generate, Model::Closed, settings, connections);
        }
        let rate = match model {
            Model::Closed => MOST,
            Model::Open(rate) => rate.max(1.0),
        };
        let most = (rate * settings.duration.as_secs_f64()) as usize + connections;
        let requests = self.requests(call, most, settings);
        let outcome =
            load::send(self.subject.address(), requests.into_iter(), connections, model, settings.duration);
        if matches!(call, Call::Generate | Call::Regenerate) {
            let codes = outcome.answers.iter().filter_map(|Answer { body, .. }| self.subject.code(body));
            let codes: std::collections::HashMap<_, _> = codes.collect();
            self.numbers.known = codes.into_iter().collect();
        }
        let expected: &[u16] = match call {
            // What otpgateway answers is 200 throughout.
            Call::Generate | Call::Regenerate => &[201, 200],
            Call::Mix => &[200, 201],
            Call::Hello | Call::Resend | Call::Verify => &[200],
        };
        (outcome, expected)
    }

    fn requests(&mut self, call: Call, most: usize, settings: &Settings) -> Vec<Request> {
        let known = std::mem::take(&mut self.numbers.known);
        let again = || known.iter().cycle().take(if known.is_empty() { 0 } else { most });
        let requests = match call {
            Call::Hello => (0..most).map(|_| self.subject.request(call, "", "")).collect(),
            Call::Generate => {
                let numbers = self.numbers.fresh(settings.few_numbers, most);
                numbers.map(|number| self.subject.request(call, &number, "")).collect()
            }
            // A code is good once.
            Call::Verify => {
                known.iter().take(most).map(|(number, otp)| self.subject.request(call, number, otp)).collect()
            }
            Call::Resend | Call::Regenerate => {
                again().map(|(number, otp)| self.subject.request(call, number, otp)).collect()
            }
            Call::Mix => {
                let fresh: Vec<_> = self.numbers.fresh(settings.few_numbers, most * 12 / 20 + 12).collect();
                let mut fresh = fresh.iter();
                // Each known number is used for one thing: a code that was replaced would be wrong.
                let mut known = known.iter();
                let mut requests = Vec::with_capacity(most);
                'all: for index in 0..most {
                    let call = match index % 20 {
                        0 | 7 | 14 => Call::Resend,
                        10 => Call::Regenerate,
                        3 | 8 | 13 | 18 => Call::Verify,
                        _ => Call::Generate,
                    };
                    let request = if call == Call::Generate {
                        let Some(number) = fresh.next() else { break 'all };
                        self.subject.request(call, number, "")
                    } else {
                        let Some((number, otp)) = known.next() else { break 'all };
                        self.subject.request(call, number, otp)
                    };
                    requests.push(request);
                }
                requests
            }
        };
        if matches!(call, Call::Resend) {
            self.numbers.known = known;
        }
        requests
    }

    /// Waits until what was set going has been done: no part has anything to do any more.
    fn settle(&self) {
        let until = Instant::now() + Duration::from_secs(60);
        let busy = || -> Duration { self.subject.cpu_times().into_iter().take(2).flatten().sum() };
        let mut before = busy();
        let mut quiet = 0;
        while quiet < 2 && Instant::now() < until {
            thread::sleep(Duration::from_millis(200));
            let now = busy();
            // Two ticks of the clock are what being idle may cost.
            quiet = if now.saturating_sub(before) <= Duration::from_millis(20) { quiet + 1 } else { 0 };
            before = now;
        }
    }
}

/// The share of the answers that are not as expected; all, if there are none.
fn failed(outcome: &Outcome, expected: &[u16]) -> f64 {
    let count = outcome.answers.len();
    let failed = outcome.answers.iter().filter(|answer| !expected.contains(&answer.status)).count();
    if count == 0 { 1.0 } else { failed as f64 / count as f64 }
}

/// The middle one.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
