//! Random sequences of requests, and the machine that runs them.

use crate::{
    arena::Arena,
    wire::{KEY, Stateless, Style, Wire},
};
use harness::at_once;
use otp_oracle::{Asked, Delivery, Heard, Request, Span, Told, Who, World};
use proptest::{prelude::*, sample::Index};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};
use std::{
    cell::RefCell,
    collections::BTreeSet,
    fmt::Write,
    panic::resume_unwind,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

/// Numbers that a sequence is about.
pub(crate) const NUMBERS: usize = 2;

/// How long a wait for an edge may be.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How long after an edge it is surely over, and before it surely not yet.
const MARGIN: Duration = Duration::from_millis(25);

/// A step of a sequence. What it means depends on what was answered so far, so that steps can be taken away
/// from a sequence, and the rest still means something.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    One(Call, u8),
    /// The same call several times at once.
    Same(Call, usize),
    /// Several at once.
    Mixed(Vec<Call>),
    /// Of a kind, and one of that kind.
    Invalid(Who, Index, Index),
    Reading(Index),
    Wait(Who, Edge, Side),
}

impl Step {
    /// Steps that do less.
    pub(crate) fn simpler(&self) -> Vec<Self> {
        match self {
            Self::One(call, style) if *style > 0 => vec![Self::One(call.clone(), 0)],
            Self::Same(call, times) => {
                let less = (2..*times).map(|times| Self::Same(call.clone(), times));
                std::iter::once(Self::One(call.clone(), 0)).chain(less).collect()
            }
            Self::Mixed(calls) => {
                let alone = calls.iter().map(|call| Self::One(call.clone(), 0));
                let without = |left_out: usize| {
                    let others = calls.iter().enumerate().filter(move |(place, _)| *place != left_out);
                    Self::Mixed(others.map(|(_, call)| call.clone()).collect())
                };
                alone.chain((0..calls.len()).filter(|_| calls.len() > 2).map(without)).collect()
            }
            _ => Vec::new(),
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Edge {
    Life,
    Window,
    Lock,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Side {
    Before,
    Upon,
    After,
}

#[derive(Debug, Clone)]
pub(crate) enum Call {
    Generate {
        who: Who,
        delivery: Delivery,
        key: Option<u8>,
    },
    Resend {
        who: Who,
    },
    Regenerate {
        who: Who,
        key: Option<u8>,
    },
    Verify {
        who: Who,
        guess: Guess,
        id: Naming,
    },
    Erase {
        who: Who,
    },
    /// One of the requests with an Idempotency-Key once more.
    Retry(Index),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Guess {
    Right,
    Wrong,
    /// The one before the newest.
    Old,
    /// The other number's.
    Others,
}

/// Whether a check names its code.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Naming {
    None,
    Right,
    Old,
    Unknown,
    Garbage,
}

/// What a sequence is mainly about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Anything,
    Sending,
    Guessing,
    Retrying,
    Together,
}

/// What is likely to be the state of the service, as far as it makes some steps more interesting than others.
/// It is no more than a guess: what is right is for the model to say.
#[derive(Debug, Clone)]
pub(crate) struct Sketch {
    mood: Mood,
    /// Whether edges can be waited for.
    quick: bool,
    known: [bool; NUMBERS],
    /// Wrong guesses at the newest code.
    wrong: [u8; NUMBERS],
    used: [bool; NUMBERS],
    keyed: bool,
}

thread_local! {
    /// Where this thread's machines run: the traits have no place for it.
    static ARENA: RefCell<Option<(Arc<Arena>, Mood)>> = const { RefCell::new(None) };
}

/// Has the machines of this thread run there; the moods take turns.
pub(crate) fn enter(arena: &Arc<Arena>, turn: u64) {
    let moods = [Mood::Anything, Mood::Guessing, Mood::Retrying, Mood::Together, Mood::Sending];
    let mood = moods[(turn % moods.len() as u64) as usize];
    ARENA.with(|here| *here.borrow_mut() = Some((Arc::clone(arena), mood)));
}

fn entered() -> (Arc<Arena>, Mood) {
    ARENA.with(|here| here.borrow().clone()).expect("the thread has entered an arena")
}

impl ReferenceStateMachine for Sketch {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        let (arena, mood) = entered();
        Just(Self { mood, quick: arena.is_quick(), ..Self::default() }).boxed()
    }

    fn transitions(state: &Self) -> BoxedStrategy<Step> {
        let among = |weights: [u32; 5]| weights[state.mood as usize];
        let one = (state.calls(), any::<u8>()).prop_map(|(call, style)| Step::One(call, style));
        let same = (state.calls(), prop::sample::select(&[2, 2, 3, 4, 6, 8][..]))
            .prop_map(|(call, times)| Step::Same(call, times));
        let mixed = prop::collection::vec(state.calls(), 2..=4).prop_map(Step::Mixed);
        let who = 0..NUMBERS;
        let invalid = (who.clone(), any::<Index>(), any::<Index>())
            .prop_map(|(who, kind, which)| Step::Invalid(who, kind, which));
        let reading = any::<Index>().prop_map(Step::Reading);
        let edge = prop::sample::select(&[Edge::Life, Edge::Window, Edge::Lock][..]);
        let side = prop::sample::select(&[Side::Before, Side::Upon, Side::After, Side::After][..]);
        let wait = (who, edge, side).prop_map(|(who, edge, side)| Step::Wait(who, edge, side));
        prop_oneof![
            among([60, 70, 80, 70, 30]) => one,
            among([8, 6, 4, 6, 25]) => same,
            among([10, 8, 5, 8, 30]) => mixed,
            among([16, 6, 4, 6, 6]) => invalid,
            among([4, 2, 1, 2, 1]) => reading,
            (if state.quick { among([6, 6, 4, 4, 3]) } else { 0 }) => wait,
        ]
        .boxed()
    }

    fn apply(mut state: Self, step: &Step) -> Self {
        match step {
            Step::One(call, _) | Step::Same(call, 2) => state.imagine(call),
            Step::Same(call, _) => (0..3).for_each(|_| state.imagine(call)),
            Step::Mixed(calls) => calls.iter().for_each(|call| state.imagine(call)),
            Step::Invalid(..) | Step::Reading(_) | Step::Wait(..) => {}
        }
        state
    }
}

impl Sketch {
    /// Calls that are worth making.
    fn calls(&self) -> BoxedStrategy<Call> {
        let Self { known, wrong, used, keyed, .. } = self.clone();
        let mood = self.mood;
        // Mostly the first number, so that something comes of it.
        prop_oneof![4 => Just(0_usize), 1 => Just(1_usize)]
            .prop_flat_map(move |who| {
                let among = |weights: [u32; 5]| weights[mood as usize];
                // A number that is unknown, or whose code is spent, first needs another code.
                let spent = !known[who] || used[who] || wrong[who] >= 3;
                let rarely = |weight: u32| if spent { 1 + weight / 5 } else { weight };
                let often = |weight: u32| if spent { weight * 3 } else { weight };
                let generate = (deliveries(), keys(mood)).prop_map(move |(delivery, key)| Call::Generate {
                    who,
                    delivery,
                    key,
                });
                let regenerate = keys(mood).prop_map(move |key| Call::Regenerate { who, key });
                let guess = match mood {
                    Mood::Guessing => {
                        prop_oneof![4 => Just(Guess::Right), 24 => Just(Guess::Wrong), 2 => Just(Guess::Old)]
                            .boxed()
                    }
                    _ => prop_oneof![
                        5 => Just(Guess::Right),
                        4 => Just(Guess::Wrong),
                        2 => Just(Guess::Old),
                        1 => Just(Guess::Others),
                    ]
                    .boxed(),
                };
                let id = prop_oneof![
                    10 => Just(Naming::None),
                    3 => Just(Naming::Right),
                    1 => Just(Naming::Old),
                    1 => Just(Naming::Unknown),
                    1 => Just(Naming::Garbage),
                ];
                let verify = (guess, id).prop_map(move |(guess, id)| Call::Verify { who, guess, id });
                prop_oneof![
                    often(among([8, 12, 4, 12, 8])) => generate,
                    rarely(among([5, 10, 2, 3, 5])) => Just(Call::Resend { who }),
                    often(among([5, 10, 4, 8, 6])) => regenerate,
                    rarely(among([14, 4, 60, 8, 14])) => verify,
                    among([3, 3, 1, 3, 3]) => Just(Call::Erase { who }),
                    (if keyed { among([3, 3, 1, 16, 3]) } else { 0 }) => any::<Index>().prop_map(Call::Retry),
                ]
            })
            .boxed()
    }

    fn imagine(&mut self, call: &Call) {
        match call {
            Call::Generate { who, key, .. } | Call::Regenerate { who, key } => {
                if matches!(call, Call::Generate { .. }) || self.known[*who] {
                    self.known[*who] = true;
                    self.wrong[*who] = 0;
                    self.used[*who] = false;
                    self.keyed |= key.is_some();
                }
            }
            Call::Verify { who, guess: Guess::Right, id: Naming::None | Naming::Right } => {
                self.used[*who] = true
            }
            Call::Verify { who, id: Naming::None | Naming::Right, .. } => self.wrong[*who] += 1,
            Call::Erase { who } => self.known[*who] = false,
            Call::Verify { .. } | Call::Resend { .. } | Call::Retry(_) => {}
        }
    }
}

fn deliveries() -> impl Strategy<Value = Delivery> {
    prop_oneof![
        4 => Just(Delivery::Sms),
        1 => (0..2_u8).prop_map(Delivery::SmsWith),
        2 => (0..2_u8).prop_map(Delivery::Mail),
    ]
}

/// Few keys, so that they are used again.
fn keys(mood: Mood) -> impl Strategy<Value = Option<u8>> {
    let share = if mood == Mood::Retrying { 0.8 } else { 0.2 };
    prop::option::weighted(share, 0..4_u8)
}

/// A sequence as it runs, against the service and the model.
pub(crate) struct Machine {
    arena: Arc<Arena>,
    /// All that the service may know by now.
    worlds: BTreeSet<World>,
    numbers: [String; NUMBERS],
    /// What the Idempotency-Keys begin with.
    keys: String,
    /// Codes that were told, newest last.
    told: [Vec<Told>; NUMBERS],
    /// Requests with an Idempotency-Key.
    keyed: Vec<Request>,
    requests: usize,
    started: Instant,
    /// For whoever has to find out what went wrong.
    history: String,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Machine")
    }
}

impl StateMachineTest for Machine {
    type SystemUnderTest = Self;
    type Reference = Sketch;

    fn init_test(_: &Sketch) -> Self {
        let (arena, _) = entered();
        let numbers = std::array::from_fn(|_| arena.new_number());
        Self {
            worlds: BTreeSet::from([World::default()]),
            keys: format!("sequence-{}-", arena.next_sequence()),
            numbers,
            told: Default::default(),
            keyed: Vec::new(),
            requests: 0,
            started: Instant::now(),
            history: String::new(),
            arena,
        }
    }

    fn apply(mut machine: Self, _: &Sketch, step: Step) -> Self {
        if let Err(wrong) = machine.take(step) {
            let settings = machine.arena.name;
            // Not a panic, which is printed: there are many while a sequence shrinks, and the last tells it all.
            resume_unwind(Box::new(format!("with {settings} settings:\n{}{wrong}", machine.history)));
        }
        machine
    }
}

impl Machine {
    fn take(&mut self, step: Step) -> Result<(), String> {
        self.arena.coverage.step(match &step {
            Step::One(..) => "one call".to_owned(),
            Step::Same(_, times) => format!("the same call {times} times at once"),
            Step::Mixed(calls) => format!("{} calls at once", calls.len()),
            Step::Invalid(..) => "invalid request".to_owned(),
            Step::Reading(_) => "reading".to_owned(),
            Step::Wait(_, edge, side) => format!("wait: {side:?} {edge:?}"),
        });
        match step {
            Step::One(call, style) => {
                let request = self.request(&call);
                self.run(vec![(request, Style(style))])
            }
            Step::Same(call, times) => {
                let request = self.request(&call);
                self.run((0..times).map(|style| (request.clone(), Style(style as u8))).collect())
            }
            Step::Mixed(calls) => {
                let requests = calls.iter().map(|call| (self.request(call), Style(0))).collect();
                self.run(requests)
            }
            Step::Invalid(who, kind, which) => {
                let otp = self.newest(who).and_then(|told| told.otp.clone());
                let otp = otp.unwrap_or_else(|| "1".repeat(self.arena.rules.length));
                let mut all = Stateless::invalid(&self.numbers[who], &otp, self.arena.with_keys);
                // Some kinds have many more members than others.
                let kinds: BTreeSet<_> = all.iter().map(|invalid| (invalid.status, invalid.code)).collect();
                let kind = kinds.iter().nth(kind.index(kinds.len())).copied();
                all.retain(|invalid| Some((invalid.status, invalid.code)) == kind);
                self.stateless(&all[which.index(all.len())], &self.numbers[who].clone())
            }
            Step::Reading(which) => {
                let all = Stateless::reading();
                self.stateless(&all[which.index(all.len())], "")
            }
            Step::Wait(who, edge, side) => {
                self.wait(who, edge, side);
                Ok(())
            }
        }
    }

    fn world(&self) -> &World {
        self.worlds.first().expect("there is always a world")
    }

    fn newest(&self, who: Who) -> Option<&Told> {
        self.world().code(who)
    }

    /// What a call means by now.
    fn request(&self, call: &Call) -> Request {
        match *call {
            Call::Generate { who, delivery, key } => Request::Generate { who, delivery, key },
            Call::Resend { who } => Request::Resend { who },
            Call::Regenerate { who, key } => Request::Regenerate { who, key },
            Call::Erase { who } => Request::Erase { who },
            Call::Verify { who, guess, id } => {
                let otp = self.guess(who, guess);
                let newest = self.newest(who);
                let old = self.old(who);
                let id = match id {
                    Naming::None => None,
                    Naming::Right => newest.map(|told| told.id.clone()),
                    Naming::Old => old.map(|told| told.id.clone()),
                    Naming::Unknown => Some("00000000-0000-7000-8000-000000000000".to_owned()),
                    Naming::Garbage => Some("no id".to_owned()),
                };
                Request::Verify { who, otp, id }
            }
            Call::Retry(which) if self.keyed.is_empty() => {
                let who = which.index(NUMBERS);
                Request::Generate { who, delivery: Delivery::Sms, key: Some(0) }
            }
            Call::Retry(which) => self.keyed[which.index(self.keyed.len())].clone(),
        }
    }

    /// The newest code that was told and is not the one that counts.
    fn old(&self, who: Who) -> Option<&Told> {
        let newest = self.newest(who).map(|told| &told.id);
        self.told[who].iter().rev().find(|told| Some(&told.id) != newest)
    }

    fn guess(&self, who: Who, guess: Guess) -> String {
        let newest = self.newest(who).and_then(|told| told.otp.clone());
        let length = self.arena.rules.length;
        let chosen = match guess {
            Guess::Right => newest.clone(),
            Guess::Wrong => None,
            Guess::Old => self.old(who).and_then(|told| told.otp.clone()),
            Guess::Others => self.newest((who + 1) % NUMBERS).and_then(|told| told.otp.clone()),
        };
        // One digit off: whoever compares less than all of them takes it for right.
        chosen.unwrap_or_else(|| match newest {
            Some(otp) => {
                let place = self.requests % length;
                let digit = (otp.as_bytes()[place] - b'0' + 1) % 10;
                format!("{}{digit}{}", &otp[..place], &otp[place + 1..])
            }
            None => "0".repeat(length),
        })
    }

    /// Sends these at once, and has the model explain what they heard.
    fn run(&mut self, requests: Vec<(Request, Style)>) -> Result<(), String> {
        let first = self.requests;
        self.requests += requests.len();
        let wires: Vec<_> = requests
            .iter()
            .map(|(request, style)| Wire::of(request, &self.numbers[request.who()], &self.keys, *style))
            .collect();
        let at = self.started.elapsed();
        let answers: Vec<Result<Heard, String>> = {
            let this = &*self;
            let send = |index: usize| {
                let who = requests[index].0.who();
                this.send(&wires[index], first + index, &this.numbers[who])
            };
            if requests.len() == 1 { vec![send(0)] } else { at_once(requests.len(), send) }
        };
        let mut burst = Vec::new();
        for (index, ((request, _), answer)) in requests.into_iter().zip(answers).enumerate() {
            let together = if index == 0 { ' ' } else { '|' };
            let wire = &wires[index];
            let _ = write!(self.history, "{:8.3} s {together} {wire}\n             ", at.as_secs_f64());
            match &answer {
                Ok(heard) => {
                    let Span { from, to } = heard.during;
                    let _ = writeln!(self.history, "→ {heard}, in {} ms", to - from);
                }
                Err(_) => self.history.push_str("→ an answer that nobody may hear\n"),
            }
            let heard = answer?;
            self.arena.coverage.outcome(request.name(), &heard.outcome());
            burst.push((request, heard));
        }
        if burst.iter().any(|(_, heard)| heard.status == 503) {
            return self.start_over(&burst);
        }
        self.learn(&burst)?;
        let after = otp_oracle::explained(&self.arena.rules, &self.worlds, &burst);
        if after.is_empty() {
            return Err(match &*burst {
                [(request, heard)] => otp_oracle::objection(&self.arena.rules, &self.worlds, request, heard),
                _ => format!(
                    "no order of these {} explains what they heard; before them, {} could be\n{:?}",
                    burst.len(),
                    self.worlds.len(),
                    self.world()
                ),
            });
        }
        if !otp_oracle::is_clear(&after) {
            return Err(format!("{} worlds are possible: the model does not follow any more", after.len()));
        }
        self.arena.coverage.worlds(after.len());
        self.worlds = after;
        Ok(())
    }

    /// Keeps what was told, for later requests. A new code has a new id, on whichever number.
    fn learn(&mut self, burst: &[(Request, Heard)]) -> Result<(), String> {
        for (request, heard) in burst {
            let Some(told) = &heard.told else { continue };
            if heard.status == 201 && heard.field("idempotent-replayed").is_empty() {
                if !self.arena.is_new_id(&told.id) {
                    return Err(format!("the id {} was told before", told.id));
                }
                let otp = told.otp.as_deref().unwrap_or_default();
                if otp.len() != self.arena.rules.length || !otp.bytes().all(|digit| digit.is_ascii_digit()) {
                    return Err(format!("{otp:?} is no code of {} digits", self.arena.rules.length));
                }
                self.arena.told(otp);
                self.told[request.who()].push(told.clone());
                if let Request::Generate { key: Some(_), .. } | Request::Regenerate { key: Some(_), .. } =
                    request
                {
                    self.keyed.push(request.clone());
                }
            }
        }
        Ok(())
    }

    /// 503 leaves it open what was done, which is promised so: the sequence goes on with other numbers.
    fn start_over(&mut self, burst: &[(Request, Heard)]) -> Result<(), String> {
        for (_, heard) in burst.iter().filter(|(_, heard)| heard.status == 503) {
            if heard.code != "unavailable" || heard.retry_after()? < 1 {
                return Err("a 503 that does not say when to try again".to_owned());
            }
        }
        let reasons = self.arena.bad_reasons();
        if !reasons.is_empty() {
            return Err(format!(
                "503, and the log has another reason than that something was slow: {reasons:?}"
            ));
        }
        let shown: Vec<_> = burst.iter().map(|(request, heard)| format!("{request:?}: {heard}")).collect();
        println!("not served: {}", shown.join(" | "));
        let history = std::mem::take(&mut self.history);
        *self = Self::init_test(&Sketch::default());
        self.history = history + "                the numbers are new from here on\n";
        Ok(())
    }

    fn stateless(&mut self, asked: &Stateless, number: &str) -> Result<(), String> {
        let index = self.requests;
        self.requests += 1;
        let _ = writeln!(self.history, "{:8.3} s   {}", self.started.elapsed().as_secs_f64(), asked.wire);
        let number = if asked.code.is_empty() { "" } else { number };
        let heard = self.send(&asked.wire, index, number)?;
        let _ = writeln!(self.history, "             → {heard}");
        self.arena.coverage.outcome("invalid or reading", &heard.outcome());
        let fields = asked.field.iter().all(|(name, value)| heard.field(name) == *value);
        let challenged = heard.status != 401 || heard.field("www-authenticate").starts_with("Bearer");
        let fits = heard.status == asked.status && heard.code == asked.code;
        if fits && fields && challenged {
            return Ok(());
        }
        let Stateless { name, status, code, field, .. } = asked;
        Err(format!("this is {name}: it has to hear {status} {code} {field:?}"))
    }

    fn send(&self, wire: &Wire, index: usize, number: &str) -> Result<Heard, String> {
        let request_id = format!("{}{index}", self.keys);
        let mut headers: Vec<_> = wire.headers.iter().map(|(name, value)| (*name, &**value)).collect();
        headers.push(("x-request-id", &request_id));
        let authorization = format!("Bearer {KEY}");
        if self.arena.with_keys && wire.headers.iter().all(|(name, _)| *name != "authorization") {
            headers.push(("authorization", &authorization));
        }
        let client = self.arena.client(index);
        let from = now();
        let answer = client.try_send(wire.method, &wire.path, &headers, &wire.body);
        let during = Span { from, to: now() + 1 };
        let answer = answer.map_err(|error| format!("{wire} got no answer: {error}"))?;
        let headers = answer.headers.iter().map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        });
        let asked = Asked { method: wire.method, number, request_id: &request_id };
        Heard::read(answer.status, headers.collect(), &answer.body, during, asked)
    }

    fn wait(&mut self, who: Who, edge: Edge, side: Side) {
        let edges = self.world().edges(who, &self.arena.rules);
        let Some(edge) = edges[edge as usize] else { return };
        let at = |millis: i64| Duration::from_millis(u64::try_from(millis - now()).unwrap_or(0));
        let time = match side {
            Side::Before => at(edge.from).saturating_sub(MARGIN),
            Side::Upon => at((edge.from + edge.to) / 2),
            Side::After => at(edge.to) + MARGIN,
        };
        if time < LONGEST_WAIT {
            let _ = writeln!(
                self.history,
                "{:8.3} s   wait {} ms",
                self.started.elapsed().as_secs_f64(),
                time.as_millis()
            );
            thread::sleep(time);
        }
    }
}

impl Default for Sketch {
    fn default() -> Self {
        Self {
            mood: Mood::Anything,
            quick: false,
            known: [false; NUMBERS],
            wrong: [0; NUMBERS],
            used: [false; NUMBERS],
            keyed: false,
        }
    }
}

/// Milliseconds since the Unix epoch, as the service counts them.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or_default()
}
