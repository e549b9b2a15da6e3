//! Having codes delivered: rounds through a channel's providers, again and again while the code lives.

use crate::{
    ledger::{Due, Ledger, NotNow, Outcome, TICK},
    message::Message,
    metrics::Metrics,
    moment::{now, parse_rfc3339},
    provider::{self, Provider, SendError},
    settings::{INBOX, Route, Settings},
    stop::Stop,
    telemetry::Span,
    template::RenderInput,
};
use anyhow::{Context as _, Result};
use futures::FutureExt;
use otp_events::Event;
use otp_seal::{Context, KeyRing, OpenError};
use otp_terms::{Breaker, Channel, Timestamp};
use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep, sleep_until, timeout},
};
use zeroize::Zeroizing;

/// Rounds that are under way at once.
const AT_ONCE: usize = 256;

/// Messages that a provider has at once: one that hangs shall not take all the places of the others.
const AT_ONCE_A_PROVIDER: usize = AT_ONCE / 4;

/// The longest that nothing is looked for: `relay dlq replay` works on the ledger from another process.
const IDLE: Duration = Duration::from_secs(1);

/// How long what was seen when a round began holds: after a pause, another relay may have the delivery.
const FRESH: Duration = Duration::from_secs(1);

/// The first pause after a round that failed, doubled with each, and the longest, in milliseconds.
const BACKOFF: (i64, i64) = (1_000, 60_000);

/// How long rounds may go on after the relay was told to end.
const DRAIN: Duration = Duration::from_secs(12);

/// Delivers what the ledger says is due.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) ledger: Ledger,
    pub(crate) settings: Arc<Settings>,
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) metrics: Arc<Metrics>,
    /// Something may be due.
    pub(crate) work: Arc<Notify>,
    pub(crate) max_attempts: i64,
    /// Spares a provider that is away the messages, and the messages the wait.
    pub(crate) gates: Arc<Mutex<HashMap<String, Gate>>>,
    /// Told when outcomes are written down: the inbox may have something new.
    pub(crate) settled: Arc<Notify>,
}

/// Rounds that are under way: their events, and the claim that each has.
type InHand = HashMap<String, i64>;

/// A code that was opened, and where it is to go.
pub(crate) struct Opened {
    pub(crate) event: Event,
    pub(crate) otp_id: String,
    pub(crate) channel: Channel,
    pub(crate) to: String,
    pub(crate) code: Zeroizing<String>,
}

/// Why a code cannot be delivered.
enum Unfit {
    /// Its key is not here. It may be put there while the code lives.
    Key,
    /// It never will be.
    Never(String),
}

impl Delivery {
    /// Delivers until told to stop; then ends what is under way.
    pub(crate) async fn run(self, stop: Stop) {
        let (done, mut outcomes) = mpsc::channel(AT_ONCE);
        let mut in_hand = HashMap::new();
        let mut recover_at = Some(Instant::now());
        let mut look_at = Instant::now();
        let mut settled = Vec::new();
        let mut end: Option<Instant> = None;
        loop {
            self.metrics.in_progress.set(i64::try_from(in_hand.len()).unwrap_or(i64::MAX));
            if stop.is_stopping() && end.is_none() {
                end = Some(Instant::now() + DRAIN);
            }
            let looking = end.is_none() && in_hand.len() < AT_ONCE;
            let over = end.unwrap_or_else(|| Instant::now() + DRAIN);
            if end.is_some() && in_hand.is_empty() {
                return;
            }
            tokio::select! {
                _ = outcomes.recv_many(&mut settled, AT_ONCE) => {
                    self.settle(&settled).await;
                    for outcome in settled.drain(..) {
                        // After a pause it may have been claimed once more meanwhile; that round goes on.
                        if in_hand.get(&outcome.event_id) == Some(&outcome.claim) {
                            in_hand.remove(&outcome.event_id);
                        }
                    }
                }
                () = self.work.notified(), if looking => look_at = Instant::now(),
                () = sleep_until(look_at), if looking => {
                    if recover_at.is_some_and(|at| at <= Instant::now()) {
                        self.recover(&in_hand).await;
                        recover_at = self.ledger.is_shared().then(|| Instant::now() + TICK);
                    }
                    let started = self.start(&mut in_hand, &done).await;
                    if started.is_none() {
                        // What it may have claimed all the same is not in hand.
                        recover_at = Some(Instant::now());
                    }
                    look_at = self.next_look(started, AT_ONCE - in_hand.len()).await;
                }
                () = stop.stopped(), if end.is_none() => {}
                () = sleep_until(over), if end.is_some() => {
                    tracing::warn!(under_way = in_hand.len(), "ending before all providers have answered; they are asked again");
                    return;
                }
            }
        }
    }

    /// Starts rounds for what is due. How many; `None` if the ledger cannot be asked.
    async fn start(&self, in_hand: &mut InHand, done: &mpsc::Sender<Outcome>) -> Option<usize> {
        let round = match self.ledger.due(AT_ONCE - in_hand.len()).await {
            Ok(round) => round,
            Err(error) => {
                complain(&error, "the ledger cannot be asked what is due");
                return None;
            }
        };
        let ended = |state: &str, count: usize| {
            self.metrics.undelivered.with_label_values(&[state]).inc_by(count as u64);
        };
        ended("superseded", round.superseded);
        ended("expired", round.expired);
        let started = round.due.len();
        for due in round.due {
            in_hand.insert(due.event_id.clone(), due.claim);
            let (delivery, done) = (self.clone(), done.clone());
            tokio::spawn(async move {
                // One that panics would take its place with it for ever.
                let outcome = AssertUnwindSafe(delivery.round(&due)).catch_unwind().await;
                let outcome =
                    outcome.unwrap_or_else(|_| delivery.failed(&due, "the relay failed".to_owned()));
                // Whoever waits for it may have given up; then the round counts as lost.
                let _ = done.send(outcome).await;
            });
        }
        Some(started)
    }

    async fn next_look(&self, started: Option<usize>, free: usize) -> Instant {
        let soon = match started {
            // There may be more.
            Some(started) if started > 0 && free == 0 => return Instant::now(),
            Some(_) => self.ledger.next_due().await.ok().flatten(),
            None => None,
        };
        let wait = soon.map_or(IDLE, |at| {
            Duration::from_millis(u64::try_from(at - now()).unwrap_or_default()).min(IDLE)
        });
        Instant::now() + wait
    }

    /// Has rounds begun again that nobody goes on with.
    async fn recover(&self, in_hand: &InHand) {
        let in_hand: Vec<_> = in_hand.keys().map(String::as_str).collect();
        match self.ledger.recover(&in_hand).await {
            Ok(0) => {}
            Ok(recovered) => tracing::info!(
                recovered,
                "deliveries were under way when their relay ended; they are tried again"
            ),
            Err(error) => complain(&error, "the ledger cannot be asked what a relay has left"),
        }
    }

    /// Writes outcomes down; what cannot be written is tried again, for the provider has it.
    async fn settle(&self, outcomes: &[Outcome]) {
        while let Err(error) = self.ledger.settle(outcomes).await {
            complain(&error, "outcomes cannot be written down");
            sleep(IDLE).await;
        }
        self.settled.notify_waiters();
    }

    /// One round through the providers of the code's channel, in their order.
    async fn round(&self, due: &Due) -> Outcome {
        let opened = match open(&self.keys, &due.event) {
            Ok(opened) => opened,
            Err(Unfit::Key) => {
                tracing::warn!(
                    event_id = due.event_id,
                    "the code is sealed with a key that RELAY_ENCRYPTION_KEYS does not have"
                );
                let reason = "sealed with a key that the relay does not have".to_owned();
                return self.again(due, self.backoff(due), reason, false);
            }
            Err(Unfit::Never(reason)) => return self.failed(due, reason),
        };
        let channel = opened.channel.as_str();
        let mut last = None;
        let mut refused_by_all = true;
        let mut open_again = i64::MAX;
        let routes = self.settings.routes(opened.channel);
        if routes.is_empty() {
            return self.failed(
                due,
                format!("nobody delivers {channel}: see channels.{channel} in the delivery file"),
            );
        }
        for route in routes {
            let (name, provider) = match route {
                Route::Inbox => {
                    drop(Span::of_delivery(&opened.event, channel, INBOX, due.attempts));
                    return self.delivered(due, &opened, INBOX);
                }
                Route::External { name, provider } => (name, provider),
            };
            // The first look was when the round began; since then a provider, or a pause, took its time.
            let looked_at_just_now = last.is_none() && due.claimed_at.elapsed() < FRESH;
            if now() >= due.expires_at || (!looked_at_just_now && !self.is_live(due).await) {
                // By the ledger's clock it may live for a moment longer.
                return self.again(due, now() + BACKOFF.0, "no longer live".to_owned(), true);
            }
            if let Err(at) = self.gate(name, Gate::enter) {
                refused_by_all = false;
                open_again = open_again.min(at);
                continue;
            }
            let span = Span::of_delivery(&opened.event, channel, name, due.attempts);
            let sent = match self.message(due, &opened, &span) {
                Ok(message) => self.send(name, provider.as_ref(), &message).await,
                Err(error) => {
                    self.gate(name, |gate| gate.leave(None));
                    return self.failed(due, format!("{error:#}"));
                }
            };
            span.sent(&sent);
            let works = !matches!(sent, Err(SendError::Temporary(_)));
            self.gate(name, |gate| gate.leave(Some(works)));
            match sent {
                Ok(()) => return self.delivered(due, &opened, name),
                Err(error) => {
                    self.metrics.failed.with_label_values(&[channel, name]).inc();
                    tracing::warn!(
                        event_id = due.event_id,
                        otp_id = opened.otp_id,
                        provider = name,
                        "not sent: {error}"
                    );
                    refused_by_all &= works;
                    last = Some(format!("{name}: {error}"));
                }
            }
        }
        let tried = last.is_some();
        let reason = last.unwrap_or_else(|| "every provider is being spared after failures".to_owned());
        if tried && (refused_by_all || due.attempts >= self.max_attempts) {
            self.failed(due, reason)
        } else {
            let at = if tried { self.backoff(due) } else { open_again };
            self.again(due, at, reason, tried)
        }
    }

    async fn send(&self, name: &str, provider: &dyn Provider, message: &Message) -> Result<(), SendError> {
        let timer =
            self.metrics.send_seconds.with_label_values(&[message.channel.as_str(), name]).start_timer();
        // A provider keeps its deadline; this is for one that does not.
        let sent = timeout(provider::DEADLINE + Duration::from_secs(1), provider.send(message)).await;
        timer.observe_duration();
        sent.unwrap_or_else(|_| Err(SendError::Temporary("no answer in time".to_owned())))
    }

    fn message(&self, due: &Due, opened: &Opened, span: &Span) -> Result<Message> {
        // The provider goes on from this attempt, or, without traces of our own, from the request.
        let attempt = span.traceparent();
        Ok(self.settings.messages().render(RenderInput {
            event_id: &due.event_id,
            otp_id: &opened.otp_id,
            channel: opened.channel,
            to: &opened.to,
            code: &opened.code,
            expires_at: Timestamp::from_unix_millis(due.expires_at),
            now: Timestamp::from_unix_millis(now()),
            traceparent: attempt.as_deref().or(opened.event.traceparent.as_deref()),
        })?)
    }

    /// A ledger that cannot be asked decides nothing: what was live a moment ago is sent.
    async fn is_live(&self, due: &Due) -> bool {
        // Boxed: a round is moved when it starts, and few rounds get here.
        Box::pin(self.ledger.is_live(due)).await.unwrap_or(true)
    }

    fn gate<T>(&self, name: &str, work: impl FnOnce(&mut Gate) -> T) -> T {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        work(gates.entry(name.to_owned()).or_default())
    }

    fn delivered(&self, due: &Due, opened: &Opened, provider: &str) -> Outcome {
        let channel = opened.channel.as_str();
        self.metrics.delivered.with_label_values(&[channel, provider]).inc();
        let seconds = (now() - due.created_at).max(0) as f64 / 1_000.0;
        self.metrics.delivery_seconds.with_label_values(&[channel]).observe(seconds);
        tracing::debug!(
            event_id = due.event_id,
            otp_id = opened.otp_id,
            channel,
            provider,
            attempts = due.attempts,
            traceparent = opened.event.traceparent,
            request_id = opened.event.requestid,
            "delivered"
        );
        // The inbox shows the code as long as it is asked; nobody else needs the event any more.
        let keep = provider == INBOX;
        Outcome { provider: Some(provider.to_owned()), keep, ..outcome(due, "delivered", None) }
    }

    fn failed(&self, due: &Due, reason: String) -> Outcome {
        self.metrics.undelivered.with_label_values(&["failed"]).inc();
        self.metrics.dead.inc();
        tracing::error!(
            event_id = due.event_id,
            attempts = due.attempts,
            "not delivered: {reason}; see: relay dlq list"
        );
        outcome(due, "failed", Some(reason))
    }

    fn again(&self, due: &Due, at: i64, reason: String, tried: bool) -> Outcome {
        self.metrics.retries.inc();
        Outcome { next_at: at, keep: true, tried, ..outcome(due, "waiting", Some(reason)) }
    }

    /// When a round that failed is to be repeated.
    fn backoff(&self, due: &Due) -> i64 {
        let doubled = u32::try_from(due.attempts - 1).unwrap_or_default().min(16);
        let pause = BACKOFF.0.saturating_mul(1 << doubled).min(BACKOFF.1);
        // From half to one and a half of it, so that those that failed together do not come back so.
        now() + pause / 2 + fastrand::i64(0..=pause)
    }
}

/// Before a provider: lets in some messages at once, none while it is known to be away, and then one to see.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    breaker: Breaker,
    inside: usize,
    /// Whether the last message failed.
    failing: bool,
}

impl Gate {
    /// Lets a message in, or tells when it may come again.
    fn enter(&mut self) -> Result<(), i64> {
        let at = now();
        let most = if self.failing { 1 } else { AT_ONCE_A_PROVIDER };
        if !self.breaker.allows(Timestamp::from_unix_millis(at)) {
            // Not all at the same moment.
            return Err(self.breaker.open_until().unix_millis() + fastrand::i64(0..=BACKOFF.0));
        }
        if self.inside >= most {
            return Err(at + fastrand::i64(BACKOFF.0 / 20..=BACKOFF.0 / 2));
        }
        self.inside += 1;
        Ok(())
    }

    /// Notes how it went: whether the provider works, if that was seen.
    fn leave(&mut self, works: Option<bool>) {
        self.inside = self.inside.saturating_sub(1);
        match works {
            Some(true) => self.breaker.succeeded(),
            Some(false) => drop(self.breaker.failed(Timestamp::from_unix_millis(now()))),
            None => return,
        }
        self.failing = works == Some(false);
    }
}

fn outcome(due: &Due, state: &'static str, reason: Option<String>) -> Outcome {
    Outcome {
        event_id: due.event_id.clone(),
        claim: due.claim,
        state,
        provider: None,
        reason,
        next_at: now(),
        keep: false,
        tried: true,
    }
}

/// A ledger that is away is complained about by whoever looks after it, and once.
fn complain(error: &anyhow::Error, what: &str) {
    if error.is::<NotNow>() {
        tracing::debug!("{what}: {error:#}");
    } else {
        tracing::error!("{what}: {error:#}");
    }
}

/// Opens the code of an event in the ledger, for whoever is to show it.
pub(crate) fn opened(keys: &KeyRing, event: &str) -> Option<Opened> {
    open(keys, event).ok()
}

fn open(keys: &KeyRing, event: &str) -> Result<Opened, Unfit> {
    let never = |error: anyhow::Error| Unfit::Never(format!("{error:#}"));
    let sealed = Sealed::read(event).map_err(never)?;
    let code = keys.open(&sealed.bytes, &sealed.context()).map_err(|error| match error {
        OpenError::UnknownKey => Unfit::Key,
        other => Unfit::Never(other.to_string()),
    })?;
    let code = std::str::from_utf8(&code).map_err(|_| Unfit::Never("the code is no text".to_owned()))?;
    let code = Zeroizing::new(code.to_owned());
    let Sealed { event, channel, otp_id, to, .. } = sealed;
    Ok(Opened { event, otp_id, channel, to, code })
}

/// A sealed code, and what it was sealed for: it opens for nothing else.
struct Sealed {
    event: Event,
    bytes: Vec<u8>,
    application: String,
    /// The number, or the mail address of a recipient without one.
    recipient: String,
    channel: Channel,
    /// Where it is to go.
    to: String,
    otp_id: String,
    version: i64,
    expires_at: i64,
}

impl Sealed {
    fn read(event: &str) -> Result<Self> {
        let event: Event = serde_json::from_str(event).context("the event is damaged")?;
        let data = event.code().context("data")?;
        let channel: Channel = data.channel.as_deref().context("data.channel is missing")?.parse()?;
        let to = match channel {
            Channel::Sms => data.mobile_number.as_deref().context("data.mobileNumber is missing")?,
            Channel::Email => data.email.as_deref().context("data.email is missing")?,
        };
        let sealed = data.sealed_otp.as_deref().context("data.sealedOtp is missing")?;
        let expires_at = data.expires_at.as_deref().context("data.expiresAt is missing")?;
        Ok(Self {
            bytes: hex::decode(sealed).ok().context("data.sealedOtp is not hexadecimal")?,
            application: event.application.clone().context("application is missing")?,
            recipient: data.recipient().context("data.mobileNumber is missing")?.to_owned(),
            channel,
            to: to.to_owned(),
            otp_id: data.otp_id.context("data.otpId is missing")?,
            version: data.version.context("data.version is missing")?,
            expires_at: parse_rfc3339(expires_at).context("data.expiresAt is not RFC 3339")?,
            event,
        })
    }

    fn context(&self) -> Context<'_> {
        Context {
            purpose: otp_seal::CODE,
            application: &self.application,
            recipient: &self.recipient,
            channel: self.channel.as_str(),
            address: if self.channel == Channel::Email { &self.to } else { "" },
            otp_id: &self.otp_id,
            version: self.version,
            expires_at: self.expires_at,
        }
    }
}
