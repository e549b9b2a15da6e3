//! The contract as a pure function: what a number's state is, and what a request may hear in it.
//!
//! The model knows no clock of the service. Each request comes with the span from its sending to its answer,
//! and happened at some moment of it; so did all that earlier requests left behind. Where such spans touch an
//! edge (a life, a window, a lock), the model allows what is right on either side of it.

use crate::heard::{Heard, Told, seconds_of};
use std::{collections::BTreeMap, fmt, ops::RangeInclusive};

/// What the service was set to, as far as it shows in answers. Times are in milliseconds.
#[derive(Debug, Clone)]
pub struct Rules {
    pub length: usize,
    pub life: i64,
    pub attempts: i64,
    pub failures: i64,
    pub lock: i64,
    pub limit: usize,
    pub window: i64,
}

/// Some moment between two, both included, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    pub from: i64,
    pub to: i64,
}

impl Span {
    fn plus(self, millis: i64) -> Self {
        Self { from: self.from + millis, to: self.to + millis }
    }

    /// Whether an edge that lies somewhere here has been reached by then: one answer, or both with what each
    /// of them tells of the edge.
    fn reached(self, now: Self) -> Vec<(bool, Self)> {
        let mut possible = Vec::new();
        if self.from <= now.to {
            possible.push((true, Self { to: self.to.min(now.to), ..self }));
        }
        if self.to > now.from {
            possible.push((false, Self { from: self.from.max(now.from + 1), ..self }));
        }
        possible
    }

    /// Whole seconds from `now` until here, rounded up.
    fn seconds_up(self, now: Self) -> RangeInclusive<i64> {
        let up = |millis: i64| (millis.max(0) + 999) / 1_000;
        up(self.from - now.to)..=up(self.to - now.from)
    }

    /// Whole seconds from `now` until here, rounded down.
    fn seconds_down(self, now: Self) -> RangeInclusive<i64> {
        (self.from - now.to).max(0) / 1_000..=(self.to - now.from).max(0) / 1_000
    }
}

/// Which of a world's numbers.
pub type Who = usize;

/// How a code is to be delivered; addresses are told by their index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Delivery {
    Sms,
    /// By text message, while an address is told as well.
    SmsWith(u8),
    Mail(u8),
}

impl Delivery {
    /// The address that the request tells.
    fn told(self) -> Option<u8> {
        match self {
            Self::Sms => None,
            Self::SmsWith(address) | Self::Mail(address) => Some(address),
        }
    }

    /// The address that the code goes to, if by mail.
    fn mailed_to(self) -> Option<u8> {
        if let Self::Mail(address) = self { Some(address) } else { None }
    }
}

/// A request, as far as its answer depends on it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Request {
    Generate { who: Who, delivery: Delivery, key: Option<u8> },
    Resend { who: Who },
    Regenerate { who: Who, key: Option<u8> },
    Verify { who: Who, otp: String, id: Option<String> },
    Erase { who: Who },
}

impl Request {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Generate { .. } => "generate",
            Self::Resend { .. } => "resend",
            Self::Regenerate { .. } => "regenerate",
            Self::Verify { .. } => "verify",
            Self::Erase { .. } => "erase",
        }
    }

    /// Its Idempotency-Key, as the service keeps them apart: by the call.
    fn key(&self) -> Option<(&'static str, u8)> {
        match self {
            Self::Generate { key, .. } | Self::Regenerate { key, .. } => key.map(|key| (self.name(), key)),
            _ => None,
        }
    }

    pub fn who(&self) -> Who {
        match self {
            Self::Generate { who, .. }
            | Self::Resend { who }
            | Self::Regenerate { who, .. }
            | Self::Verify { who, .. }
            | Self::Erase { who } => *who,
        }
    }
}

/// All that the service has to know of a few numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct World {
    users: BTreeMap<Who, User>,
    /// What was answered under an Idempotency-Key.
    kept: BTreeMap<(&'static str, u8), Kept>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Kept {
    request: Request,
    told: Told,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct User {
    code: Code,
    /// Wrong codes in a row.
    failures: i64,
    locked_until: Option<Span>,
    /// Sends that may still count, oldest first.
    sends: Vec<Span>,
    email: Email,
}

/// The addresses of a user, told by their index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Email {
    address: Option<u8>,
    confirmed: bool,
    pending: Option<u8>,
}

impl Email {
    /// A confirmed address stays until another one is confirmed.
    fn told(self, told: u8) -> Self {
        match self {
            Self { confirmed: false, .. } => Self { address: Some(told), ..Self::default() },
            Self { address, .. } if address == Some(told) => Self { pending: None, ..self },
            _ => Self { pending: Some(told), ..self },
        }
    }

    /// A code that went there was the right one.
    fn proved(self, by: Option<u8>) -> Self {
        match by {
            None => self,
            _ if self.pending == by => Self { address: by, confirmed: true, pending: None },
            _ if self.address == by => Self { confirmed: true, ..self },
            _ => self,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Code {
    /// As it was last told.
    told: Told,
    /// The address that it went to, if by mail.
    to: Option<u8>,
    expires: Span,
    attempts: i64,
    used: bool,
}

/// An answer that the contract allows.
#[derive(Debug, Clone)]
pub enum Answer {
    Code {
        status: u16,
        /// `otp` is `None` where it has to be left out.
        told: Told,
        /// When it was made, where that is now.
        made: Option<Span>,
        seconds: RangeInclusive<i64>,
        /// Sends that remain, and seconds until there is one more.
        quota: Option<(usize, RangeInclusive<i64>)>,
        replayed: bool,
    },
    Verified {
        id: String,
        channel: String,
        at: Span,
    },
    Refused {
        status: u16,
        code: &'static str,
        more: More,
    },
    Nothing,
}

/// What a refusal carries beside its code.
#[derive(Debug, Clone)]
pub enum More {
    Nothing,
    Remaining(i64),
    RetryAfter(RangeInclusive<i64>),
    Limited(RangeInclusive<i64>),
}

impl World {
    /// The code of a number as far as it matters for making up requests.
    pub fn code(&self, who: Who) -> Option<&Told> {
        self.users.get(&who).map(|user| &user.code.told)
    }

    /// The next edges of a number: its code's life, its window and its lock.
    pub fn edges(&self, who: Who, rules: &Rules) -> [Option<Span>; 3] {
        let Some(user) = self.users.get(&who) else { return [None; 3] };
        [Some(user.code.expires), user.sends.first().map(|sent| sent.plus(rules.window)), user.locked_until]
    }

    /// Every answer that `request` may have at a moment of `now`, with what the world is then. `drawn` is what
    /// no model can know beforehand: the code that the answer brought, if it brought one.
    pub fn possible(
        &self,
        rules: &Rules,
        request: &Request,
        drawn: Option<&Told>,
        now: Span,
    ) -> Vec<(Answer, Self)> {
        if let Some(kept) = request.key().and_then(|key| self.kept.get(&key)) {
            return self.replay(rules, kept, request, now);
        }
        let who = request.who();
        let Some(user) = self.users.get(&who) else { return self.unknown(rules, request, drawn, now) };
        match request {
            Request::Generate { delivery, .. } => {
                let email = delivery.told().map_or(user.email, |told| user.email.told(told));
                let told = User { email, ..user.clone() };
                self.new_code(rules, user, &told, request, drawn, delivery.mailed_to(), now)
            }
            Request::Regenerate { .. } => {
                self.new_code(rules, user, user, request, drawn, user.later_codes_go_to(), now)
            }
            Request::Resend { .. } => self.same_code(rules, user, who, now),
            Request::Verify { otp, id, .. } => self.check(rules, user, who, otp, id.as_deref(), now),
            Request::Erase { .. } => vec![(Answer::Nothing, self.without(who))],
        }
    }

    fn unknown(
        &self,
        rules: &Rules,
        request: &Request,
        drawn: Option<&Told>,
        now: Span,
    ) -> Vec<(Answer, Self)> {
        match request {
            Request::Generate { delivery, .. } => {
                let Some(drawn) = drawn else { return Vec::new() };
                let quota = (rules.limit - 1, now.plus(rules.window).seconds_up(now));
                let email = delivery.told().map_or_else(Email::default, |told| Email::default().told(told));
                let to = delivery.mailed_to();
                vec![self.issued(rules, Err(email), request, drawn, to, now, vec![now], quota)]
            }
            Request::Erase { .. } => vec![(Answer::Nothing, self.without(request.who()))],
            _ => vec![(refused(404, "otp_not_found"), self.clone())],
        }
    }

    /// The same request hears the same answer, without the code if that is not live any more; another one is
    /// told that the key was used.
    fn replay(&self, rules: &Rules, kept: &Kept, request: &Request, now: Span) -> Vec<(Answer, Self)> {
        if kept.request != *request {
            return vec![(refused(422, "idempotency_key_reused"), self.clone())];
        }
        let answer = |otp: Option<String>| Answer::Code {
            status: 201,
            told: Told { otp, ..kept.told.clone() },
            made: None,
            seconds: rules.life / 1_000..=rules.life / 1_000,
            quota: None,
            replayed: true,
        };
        let who = request.who();
        let live = self.users.get(&who).filter(|user| {
            user.code.told.id == kept.told.id && !user.code.used && user.code.attempts < rules.attempts
        });
        let Some(user) = live else { return vec![(answer(None), self.clone())] };
        let mut possible = Vec::new();
        // No code can be used while the number is locked.
        if user.locked(now).is_some() {
            possible.push((answer(None), self.clone()));
        }
        if let Some(open) = user.open(now) {
            for (expired, expires) in user.code.expires.reached(now) {
                let code = Code { expires, ..user.code.clone() };
                let otp = kept.told.otp.clone().filter(|_| !expired);
                possible.push((answer(otp), self.with(who, User { code, ..open.clone() })));
            }
        }
        possible
    }

    /// `told` is the user if the code is sent.
    #[allow(clippy::too_many_arguments, reason = "all of it makes the answer")]
    fn new_code(
        &self,
        rules: &Rules,
        user: &User,
        told: &User,
        request: &Request,
        drawn: Option<&Told>,
        to: Option<u8>,
        now: Span,
    ) -> Vec<(Answer, Self)> {
        let mut possible = Vec::new();
        for admitted in user.admitted(rules, now) {
            match admitted {
                Admitted::Refused(answer, user) => possible.push((answer, self.with(request.who(), user))),
                Admitted::Sent { user, sends, quota } => {
                    let user = User { email: told.email, ..user };
                    possible
                        .extend(drawn.map(|drawn| {
                            self.issued(rules, Ok(user), request, drawn, to, now, sends, quota)
                        }));
                }
            }
        }
        possible
    }

    /// `user` is the one that there was, or what is known of the addresses of one that there was not.
    #[allow(clippy::too_many_arguments, reason = "all of it makes the answer")]
    fn issued(
        &self,
        rules: &Rules,
        user: Result<User, Email>,
        request: &Request,
        drawn: &Told,
        to: Option<u8>,
        now: Span,
        sends: Vec<Span>,
        quota: (usize, RangeInclusive<i64>),
    ) -> (Answer, Self) {
        let told = Told { channel: channel(to).to_owned(), ..drawn.clone() };
        let code = Code { told: told.clone(), to, expires: now.plus(rules.life), attempts: 0, used: false };
        let user = match user {
            Ok(user) => User { code, sends, ..user },
            Err(email) => User { code, sends, failures: 0, locked_until: None, email },
        };
        let mut world = self.with(request.who(), user);
        if let Some(key) = request.key() {
            world.kept.insert(key, Kept { request: request.clone(), told: told.clone() });
        }
        let seconds = rules.life / 1_000;
        let answer = Answer::Code {
            status: 201,
            told,
            made: Some(now),
            seconds: seconds..=seconds,
            quota: Some(quota),
            replayed: false,
        };
        (answer, world)
    }

    fn same_code(&self, rules: &Rules, user: &User, who: Who, now: Span) -> Vec<(Answer, Self)> {
        let mut possible = Vec::new();
        let gone = |code| (refused(410, code), self.clone());
        for admitted in user.admitted(rules, now) {
            match admitted {
                // What is wrong with the code is said first.
                Admitted::Refused(answer, limited) => {
                    let first = match &answer {
                        Answer::Refused { more: More::Limited(_), .. } => {
                            user.gone(rules, now).iter().any(|(gone, _)| gone.is_none())
                        }
                        _ => true,
                    };
                    if first {
                        possible.push((answer, self.with(who, limited)));
                    }
                    possible.extend(
                        user.open(now)
                            .iter()
                            .flat_map(|user| user.gone(rules, now))
                            .filter_map(|(code, _)| code)
                            .map(gone),
                    );
                }
                Admitted::Sent { user, sends, quota } => {
                    for (code, user) in user.gone(rules, now) {
                        if let Some(code) = code {
                            possible.push(gone(code));
                            continue;
                        }
                        let to = user.later_codes_go_to();
                        let told = Told { channel: channel(to).to_owned(), ..user.code.told.clone() };
                        let code = Code { told: told.clone(), to, ..user.code.clone() };
                        let answer = Answer::Code {
                            status: 200,
                            told,
                            made: None,
                            seconds: user.code.expires.seconds_down(now),
                            quota: Some(quota.clone()),
                            replayed: false,
                        };
                        possible.push((answer, self.with(who, User { code, sends: sends.clone(), ..user })));
                    }
                }
            }
        }
        possible
    }

    fn check(
        &self,
        rules: &Rules,
        user: &User,
        who: Who,
        otp: &str,
        id: Option<&str>,
        now: Span,
    ) -> Vec<(Answer, Self)> {
        let mut possible = Vec::new();
        // What is no id at all names no code, and need not be looked up.
        let no_id = id.is_some_and(|id| id.len() != 36);
        if no_id {
            possible.push((refused(404, "otp_not_found"), self.clone()));
        }
        if let Some(answer) = user.locked(now) {
            possible.push((answer, self.clone()));
        }
        for user in user.open(now).into_iter().filter(|_| !no_id) {
            if id.is_some_and(|id| !id.eq_ignore_ascii_case(&user.code.told.id)) {
                possible.push((refused(404, "otp_not_found"), self.with(who, user)));
                continue;
            }
            for (gone, user) in user.gone(rules, now) {
                match gone {
                    Some("otp_locked") => {
                        possible.push((refused(429, "attempts_exceeded"), self.with(who, user)));
                    }
                    Some(code) => possible.push((refused(410, code), self.with(who, user))),
                    None => possible.push(self.compared(rules, user, who, otp, now)),
                }
            }
        }
        possible
    }

    /// A guess at a live code.
    fn compared(&self, rules: &Rules, mut user: User, who: Who, otp: &str, now: Span) -> (Answer, Self) {
        if user.code.told.otp.as_deref() == Some(otp) {
            let Told { id, channel, .. } = user.code.told.clone();
            user.code.used = true;
            user.failures = 0;
            user.email = user.email.proved(user.code.to);
            return (Answer::Verified { id, channel, at: now }, self.with(who, user));
        }
        user.code.attempts += 1;
        user.failures += 1;
        if user.failures >= rules.failures {
            user.failures = 0;
            user.locked_until = Some(now.plus(rules.lock));
        }
        let more = More::Remaining(rules.attempts - user.code.attempts);
        (Answer::Refused { status: 422, code: "otp_mismatch", more }, self.with(who, user))
    }

    fn with(&self, who: Who, user: User) -> Self {
        let mut world = self.clone();
        world.users.insert(who, user);
        world
    }

    /// Erased: nothing is left of the number, nor of the answers that it had.
    fn without(&self, who: Who) -> Self {
        let mut world = self.clone();
        world.users.remove(&who);
        world.kept.retain(|_, kept| kept.request.who() != who);
        world
    }
}

/// What a code is said to go by.
fn channel(mailed_to: Option<u8>) -> &'static str {
    if mailed_to.is_some() { "email" } else { "sms" }
}

/// Whether a number is sent a code.
enum Admitted {
    Refused(Answer, User),
    Sent { user: User, sends: Vec<Span>, quota: (usize, RangeInclusive<i64>) },
}

impl User {
    /// Where codes go that do not say where: to the address that is confirmed if the last one went by mail, and else to
    /// the number.
    fn later_codes_go_to(&self) -> Option<u8> {
        self.code.to.and(self.email.address.filter(|_| self.email.confirmed))
    }

    /// The refusal of a number that is, or may still be, locked.
    fn locked(&self, now: Span) -> Option<Answer> {
        let until = self.locked_until?;
        let (_, until) = until.reached(now).into_iter().find(|(over, _)| !over)?;
        let seconds = until.seconds_up(now);
        let more = More::RetryAfter((*seconds.start()).max(1)..=*seconds.end());
        Some(Answer::Refused { status: 429, code: "number_locked", more })
    }

    /// The number if it is not locked, or may not be any more.
    fn open(&self, now: Span) -> Option<Self> {
        let Some(until) = self.locked_until else { return Some(self.clone()) };
        let (_, until) = until.reached(now).into_iter().find(|(over, _)| *over)?;
        Some(Self { locked_until: Some(until), ..self.clone() })
    }

    /// Why its code cannot be used, in the order of the contract; `None` if it can.
    fn gone(&self, rules: &Rules, now: Span) -> Vec<(Option<&'static str>, Self)> {
        if self.code.used {
            return vec![(Some("otp_used"), self.clone())];
        }
        let locked = (self.code.attempts >= rules.attempts).then_some("otp_locked");
        let reached = self.code.expires.reached(now).into_iter();
        reached
            .map(|(expired, expires)| {
                let user = Self { code: Code { expires, ..self.code.clone() }, ..self.clone() };
                (if expired { Some("otp_expired") } else { locked }, user)
            })
            .collect()
    }

    /// Whether lock and limit let the number be sent one more code.
    fn admitted(&self, rules: &Rules, now: Span) -> Vec<Admitted> {
        let mut possible = Vec::new();
        let open = self.open(now);
        // A clock that goes back does not make room: a send is never before the one that was last.
        let last = self.sends.last().copied().unwrap_or(now);
        let at = Span { from: now.from.max(last.from), to: now.to.max(last.to) };
        let surely = self.sends.iter().filter(|sent| sent.from > at.to - rules.window).count();
        let maybe = self.sends.iter().filter(|sent| sent.to > at.from - rules.window).count();
        for count in surely..=maybe {
            let within = &self.sends[self.sends.len() - count..];
            if count >= rules.limit {
                if let Some(open) = &open {
                    let answer = limited(within[count - rules.limit].plus(rules.window), now);
                    possible.push(Admitted::Refused(answer, open.clone()));
                }
            } else if let Some(open) = &open {
                let sends: Vec<_> = within.iter().copied().chain([at]).collect();
                let more_in = sends[0].plus(rules.window).seconds_up(now);
                let quota = (rules.limit - sends.len(), more_in);
                possible.push(Admitted::Sent { user: open.clone(), sends, quota });
            }
        }
        possible.extend(self.locked(now).map(|answer| Admitted::Refused(answer, self.clone())));
        possible
    }
}

fn refused(status: u16, code: &'static str) -> Answer {
    Answer::Refused { status, code, more: More::Nothing }
}

fn limited(free: Span, now: Span) -> Answer {
    let seconds = free.seconds_up(now);
    let more = More::Limited((*seconds.start()).max(1)..=*seconds.end());
    Answer::Refused { status: 429, code: "rate_limited", more }
}

impl Answer {
    /// Whether this was heard, and if not, what is different.
    pub fn fits(&self, heard: &Heard) -> Result<(), String> {
        match self {
            Self::Code { status, told, made, seconds, quota, replayed } => {
                same("status", &heard.status, status)?;
                let got = heard.told.as_ref().ok_or("no code")?;
                same("otp", &got.otp, &told.otp)?;
                same("otpId", &got.id, &told.id)?;
                same("channel", &got.channel, &told.channel)?;
                same("createdAt", &got.created_at, &told.created_at)?;
                same("expiresAt", &got.expires_at, &told.expires_at)?;
                within("expiresInSeconds", heard.number_at("expiresInSeconds")?, seconds)?;
                same(
                    "idempotent-replayed",
                    &heard.field("idempotent-replayed"),
                    &if *replayed { "true" } else { "" },
                )?;
                if let Some(now) = made {
                    let created = seconds_of(&got.created_at)?;
                    within("createdAt", created, &(now.from.div_euclid(1_000)..=now.to.div_euclid(1_000)))?;
                    same("expiresAt", &seconds_of(&got.expires_at)?, &(created + seconds.start()))?;
                }
                match quota {
                    Some((remaining, seconds)) => heard.quota(*remaining, seconds),
                    None => Ok(()),
                }
            }
            Self::Verified { id, channel, at } => {
                same("status", &heard.status, &200)?;
                same("otpId", &heard.text_at("otpId")?, &id.as_str())?;
                same("channel", &heard.text_at("channel")?, &channel.as_str())?;
                same("verified", &heard.json["verified"].as_bool(), &Some(true))?;
                let verified = seconds_of(heard.text_at("verifiedAt")?)?;
                within("verifiedAt", verified, &(at.from.div_euclid(1_000)..=at.to.div_euclid(1_000)))
            }
            Self::Refused { status, code, more } => {
                same("status", &heard.status, status)?;
                same("code", &heard.code.as_str(), code)?;
                let remaining = if let More::Remaining(left) = more { Some(*left) } else { None };
                same("attemptsRemaining", &heard.json["attemptsRemaining"].as_i64(), &remaining)?;
                match more {
                    More::Nothing | More::Remaining(_) => {
                        same("retry-after", &heard.field("retry-after"), &"")
                    }
                    More::RetryAfter(seconds) => within("retry-after", heard.retry_after()?, seconds),
                    More::Limited(seconds) => {
                        within("retry-after", heard.retry_after()?, seconds)?;
                        heard.quota(0, seconds)
                    }
                }
            }
            Self::Nothing => same("status", &heard.status, &204),
        }
    }
}

pub fn same<T: PartialEq + fmt::Debug>(what: &str, got: &T, expected: &T) -> Result<(), String> {
    if got == expected { Ok(()) } else { Err(format!("{what} is {got:?}, not {expected:?}")) }
}

pub(crate) fn within(what: &str, got: i64, expected: &RangeInclusive<i64>) -> Result<(), String> {
    if expected.contains(&got) { Ok(()) } else { Err(format!("{what} is {got}, not in {expected:?}")) }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code { status, told, quota, replayed, .. } => {
                write!(f, "{status} {told}")?;
                if *replayed {
                    write!(f, ", replayed")?;
                }
                if let Some((remaining, _)) = quota {
                    write!(f, ", {remaining} sends left")?;
                }
                Ok(())
            }
            Self::Verified { id, .. } => write!(f, "200 verified {id}"),
            Self::Refused { status, code, more } => {
                write!(f, "{status} {code}")?;
                match more {
                    More::Nothing => Ok(()),
                    More::Remaining(left) => write!(f, ", {left} attempts left"),
                    More::RetryAfter(seconds) | More::Limited(seconds) => {
                        write!(f, ", retry after {seconds:?} s")
                    }
                }
            }
            Self::Nothing => write!(f, "204"),
        }
    }
}
