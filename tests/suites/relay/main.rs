//! What the relay promises over HTTP, Kafka, webhooks and SMTP. One file a capability.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod erasure;
mod in_process;
mod intake;
mod kafka;
mod kafka_failures;
mod mail;
mod operations;
mod postgres;
mod schema;
mod several;
mod signatures;
mod webhook;

use base64ct::{Base64, Encoding};
use chrono::{DateTime, SecondsFormat, Utc};
use harness::{Relay, RelayBuilder, Response, SmsProvider, bulk_number, eventually};
use otp_events::{BATCH_CONTENT_TYPE, Event};
use otp_seal::{Context, EventKeys, IndexKey, KeyRing, NONCE_BYTES};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// Whatever happens in its own time happens within this, on a machine that does much else.
const SOON: Duration = Duration::from_secs(60);

const GENERATED: &str = "otp.generated.v1";
const RESENT: &str = "otp.resent.v1";
const REGENERATED: &str = "otp.regenerated.v1";
const VERIFIED: &str = "otp.verified.v1";
const VERIFICATION_FAILED: &str = "otp.verification-failed.v1";
const LOCKED: &str = "otp.locked.v1";
const ERASED: &str = "user.erased.v1";

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// As good as any.
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// What requests to providers are signed with.
const SECRET: &str = "fedcba9876543210fedcba9876543210";

/// Whose codes they are, unless it is said otherwise.
const APPLICATION: &str = "shop";

/// A code of a recipient, and what there is to say about it.
#[derive(Debug, Clone)]
struct Otp {
    /// Empty where the recipient is a mail address.
    number: String,
    email: Option<String>,
    otp_id: String,
    version: u64,
    /// Ten digits, which no time stamp and no id has by chance.
    code: String,
    expires_at: DateTime<Utc>,
}

/// A number that nothing else in this run has.
fn unique() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// As good as a UUIDv7.
fn unique_id() -> String {
    format!("0198c7a4-0000-7000-8000-{:012x}", unique())
}

impl Otp {
    /// The first code of a new number.
    fn new() -> Self {
        Self::of(bulk_number(unique()))
    }

    fn of(number: String) -> Self {
        let unique = unique();
        Self {
            number,
            email: None,
            otp_id: unique_id(),
            version: 1_795_333_302_000 + u64::from(unique),
            code: format!("{}", 7_313_000_000_u64 + 7_919 * u64::from(unique)),
            expires_at: Utc::now() + Duration::from_secs(600),
        }
    }

    /// The same code, to go by mail.
    fn by_mail(mut self) -> Self {
        self.email = Some(format!("user{}@shop.example", unique()));
        self
    }

    /// The same code, of a recipient who is known by this address alone.
    fn without_number(self) -> Self {
        Self { number: String::new(), ..self.by_mail() }
    }

    /// The same code, with another life.
    fn lives(mut self, life: Duration) -> Self {
        self.expires_at = Utc::now() + life;
        self
    }

    /// A newer code of the same number, to go the same way.
    fn next(&self) -> Self {
        Self { email: self.email.clone(), ..Self::of(self.number.clone()) }
    }

    fn channel(&self) -> &'static str {
        if self.email.is_some() { "email" } else { "sms" }
    }

    fn to(&self) -> &str {
        self.email.as_deref().unwrap_or(&self.number)
    }

    /// The number, or else the address.
    fn recipient(&self) -> &str {
        if self.number.is_empty() { self.to() } else { &self.number }
    }

    fn subject(&self) -> String {
        IndexKey::development().recipient(APPLICATION, self.recipient()).to_string()
    }

    fn sealed(&self, keys: &KeyRing) -> String {
        let mut nonce = [0; NONCE_BYTES];
        nonce[..4].copy_from_slice(&unique().to_be_bytes());
        let context = Context {
            purpose: otp_seal::CODE,
            application: APPLICATION,
            recipient: self.recipient(),
            channel: self.channel(),
            address: self.email.as_deref().unwrap_or_default(),
            otp_id: &self.otp_id,
            version: i64::try_from(self.version).unwrap(),
            expires_at: self.expires_at.timestamp_millis(),
        };
        hex::encode(keys.seal(self.code.as_bytes(), &context, nonce))
    }

    /// A new event that its number is erased, this code being the newest. It names no number.
    fn erased(&self) -> Value {
        let mut event = self.event(ERASED);
        event["data"] = json!({ "version": self.version });
        event
    }

    /// A new event about it, as the component says it, yet to be signed.
    fn event(&self, kind: &str) -> Value {
        let mut data = json!({
            "channel": self.channel(), "otpId": self.otp_id, "version": self.version,
            "createdAt": rfc3339(Utc::now()), "expiresAt": rfc3339(self.expires_at),
        });
        if !self.number.is_empty() {
            data["mobileNumber"] = json!(self.number);
        }
        if let Some(email) = &self.email {
            data["email"] = json!(email);
        }
        if [GENERATED, RESENT, REGENERATED].contains(&kind) {
            data["sealedOtp"] = json!(self.sealed(&KeyRing::development()));
        }
        json!({
            "specversion": "1.0", "id": unique_id(), "source": "spin-otp", "type": kind,
            "subject": self.subject(), "time": rfc3339(Utc::now()), "datacontenttype": "application/json",
            "sequence": format!("{:020}", unique()), "traceparent": TRACEPARENT, "requestid": "a-request",
            "application": APPLICATION, "data": data,
        })
    }
}

fn rfc3339(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// The public key for development, as a variable has it.
fn development_key() -> String {
    format!("dev:{}", Base64::encode_string(b"spin-otp public development key."))
}

/// An event as the component sends it, signed with the keys for development. What is no event stays as it is.
fn signed(event: &Value) -> Value {
    signed_with(&EventKeys::development(), event)
}

fn signed_with(keys: &EventKeys, event: &Value) -> Value {
    let Ok(mut signed) = serde_json::from_str::<Event>(&event.to_string()) else { return event.clone() };
    signed.sign(keys);
    serde_json::to_value(signed).unwrap()
}

/// An event's id, or another text of an object.
fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no text {field}: {value}"))
}

fn id(event: &Value) -> &str {
    text(event, "id")
}

/// `POST /events` as the component does, from this machine: the events are signed.
fn post(relay: &Relay, events: &[Value]) -> Response {
    post_as(relay, &[], &batch_of(events))
}

/// A batch as the component sends it: the events are signed.
fn batch_of(events: &[Value]) -> String {
    json!(events.iter().map(signed).collect::<Vec<_>>()).to_string()
}

/// `POST /events` with whatever signatures there are.
fn post_as_they_are(relay: &Relay, events: &[Value]) -> Response {
    post_as(relay, &[], &json!(events).to_string())
}

fn post_as(relay: &Relay, headers: &[(&str, &str)], body: &str) -> Response {
    let headers = [&[("content-type", BATCH_CONTENT_TYPE)], headers].concat();
    relay.client().send("POST", "/events", &headers, body.as_bytes())
}

/// Has the relay accept all of these events.
#[track_caller]
fn hand_over(relay: &Relay, events: &[Value]) {
    let answer = post(relay, events).expect(200);
    assert_eq!(answer["rejected"], json!([]));
    assert_eq!(ids(&answer["accepted"]), events.iter().map(|event| id(event).to_owned()).collect());
}

/// Has the relay accept this event.
#[track_caller]
fn hand_over_one(relay: &Relay, event: &Value) {
    hand_over(relay, std::slice::from_ref(event));
}

fn ids(list: &Value) -> BTreeSet<String> {
    list.as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
}

/// What the inbox shows, newest first.
fn inbox(relay: &Relay) -> Vec<Value> {
    shown(relay, "/inbox?limit=10000")
}

fn shown(relay: &Relay, path: &str) -> Vec<Value> {
    relay.client().get(path).expect(200).as_array().unwrap().clone()
}

fn codes(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| text(message, "otp")).collect()
}

/// What became of an event's code: `GET /deliveries/{otpId}`, and there the one of this event.
fn delivery(relay: &Relay, event: &Value) -> Option<Value> {
    let answer = relay.client().get(&format!("/deliveries/{}", text(&event["data"], "otpId")));
    if answer.status == 404 {
        return None;
    }
    let deliveries = answer.expect(200);
    deliveries.as_array().unwrap().iter().find(|delivery| delivery["eventId"] == event["id"]).cloned()
}

/// Waits until this has become of an event's code, and gives all that is said of it.
#[track_caller]
fn ends_up(relay: &Relay, event: &Value, state: &str) -> Value {
    let mut last = None;
    eventually(&format!("{state} of {}", id(event)), SOON, || {
        last = delivery(relay, event);
        last.as_ref().is_some_and(|delivery| delivery["state"] == state)
    });
    last.unwrap()
}

/// Waits until a metric has this value.
#[track_caller]
fn metric_becomes(relay: &Relay, name: &str, value: f64) {
    eventually(&format!("{name} {value}"), SOON, || metric(relay, name) >= value);
    assert_eq!(metric(relay, name), value, "{name}");
}

/// A metric, such as `delivered_total`, or `delivered_total{channel="sms"`: the sum of all lines that begin
/// so, 0 if there is none.
fn metric(relay: &Relay, name: &str) -> f64 {
    let text = String::from_utf8(relay.client().get("/metrics").body).unwrap();
    let begin = format!("spin_otp_relay_{name}");
    let lines = text.lines().filter(|line| {
        line.strip_prefix(&begin).is_some_and(|rest| name.contains('{') || rest.starts_with(['{', ' ']))
    });
    lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

/// The dead letters that `relay dlq list` prints.
fn dead_letters(relay: &Relay) -> Vec<Value> {
    let listed = relay.run(&["dlq", "list"]);
    assert!(listed.status.success(), "{listed:?}");
    let lines = String::from_utf8(listed.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// `relay dlq replay`: how many letters it put back.
fn replay(relay: &Relay, arguments: &[&str]) -> u64 {
    let replayed = relay.run(&[&["dlq", "replay"], arguments].concat());
    assert!(replayed.status.success(), "{replayed:?}");
    serde_json::from_slice::<Value>(&replayed.stdout).unwrap()["replayed"].as_u64().unwrap()
}

/// A relay that is started so has text messages brought by these, in this order, and mails to the inbox.
fn brought_by(providers: &[(&str, &SmsProvider)]) -> RelayBuilder {
    let names: Vec<_> = providers.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    let tables: String =
        providers.iter().map(|(name, provider)| webhook_table(name, &provider.url())).collect();
    Relay::builder().delivery(&format!("[channels]\nsms = [{}]\n{tables}", names.join(", ")))
}

fn webhook_table(name: &str, url: &str) -> String {
    format!("[providers.{name}]\nkind = \"webhook\"\nurl = \"{url}\"\nsecret = \"{SECRET}\"\n")
}

/// Waits until a provider has had this many requests.
#[track_caller]
fn requests_reach(provider: &SmsProvider, count: usize) {
    eventually(&format!("request {count}"), SOON, || provider.sent().len() >= count);
}

/// The idempotency key of each request, in their order.
fn keys_of(provider: &SmsProvider) -> Vec<String> {
    provider.sent().iter().map(|sent| sent.header("idempotency-key").unwrap().to_owned()).collect()
}
