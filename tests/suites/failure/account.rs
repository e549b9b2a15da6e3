//! What came of it all.

use crate::{chaos::Stack, load::Load};
use harness::Record;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
};

/// The counts, and what is wrong.
#[derive(Debug, Default)]
pub(crate) struct Account {
    sent: u64,
    accepted: usize,
    published: usize,
    duplicates: usize,
    delivered: usize,
    repeated: usize,
    superseded: usize,
    expired: usize,
    lost: Vec<String>,
    doubled: Vec<String>,
    wrong: Vec<String>,
    kills: Vec<(String, usize)>,
}

/// What is known of an event.
#[derive(Debug)]
struct Published {
    id: String,
    event_type: String,
    subject: String,
    version: i64,
    expires_at: String,
}

impl Account {
    /// Reads the topic, the inbox and what the provider was sent.
    pub(crate) fn of(stack: &Stack, load: &Load) -> Self {
        let mut account = Self {
            sent: load.sent,
            accepted: load.accepted.len(),
            kills: load.kills.clone(),
            ..Self::default()
        };
        let records = stack.kafka.records("otp-events");
        account.clear_text(&records, load);
        let events = account.events(&records);
        let ended = ended(&events);
        let inbox = inbox(stack);
        let sent = sent(stack);
        let states = states(stack);

        // All that was published, also what nobody heard the answer to.
        for event in events.values().flatten() {
            let delivers = ["otp.generated.v1", "otp.resent.v1", "otp.regenerated.v1"];
            if !delivers.contains(&&*event.event_type) {
                continue;
            }
            let in_inbox = inbox.get(&event.id).map_or(0, Vec::len);
            let at_provider = sent.get(&event.id).map_or(0, Vec::len);
            account.repeated += at_provider.saturating_sub(1);
            if in_inbox > 1 || (in_inbox > 0 && at_provider > 0) {
                account.doubled.push(format!("{} is {in_inbox} times in the inbox", event.id));
            }
            let (newest, end) = ended.get(&event.subject).copied().unwrap_or_default();
            match (states.get(&event.id).map_or("unknown", |state| &**state), in_inbox + at_provider > 0) {
                ("delivered", true) => account.delivered += 1,
                // Sent, and then replaced before the relay could write down that it was sent.
                ("superseded", _) if event.version < newest || event.version <= end => {
                    account.superseded += 1
                }
                ("expired", false) if event.expires_at < now() => account.expired += 1,
                (state, there) => {
                    account.lost.push(format!("{} is {state} and delivered: {there}", event.id));
                }
            }
        }
        account.requests(load, &events, &inbox, &sent);
        account
    }

    /// Each accepted request has one event, of the right type, and the code that was answered is the one
    /// that was delivered.
    fn requests(
        &mut self,
        load: &Load,
        events: &HashMap<String, Vec<Published>>,
        inbox: &BTreeMap<String, Vec<String>>,
        sent: &BTreeMap<String, Vec<String>>,
    ) {
        for request in &load.accepted {
            let found = events.get(&request.request_id).map_or(&[][..], Vec::as_slice);
            match found {
                [] => self
                    .lost
                    .push(format!("{} of {} is not on the topic", request.request_id, request.event_type)),
                [event] => {
                    if event.event_type != request.event_type {
                        self.wrong.push(format!("{} is {}", request.request_id, event.event_type));
                    }
                    let codes = [inbox.get(&event.id), sent.get(&event.id)].into_iter().flatten().flatten();
                    if request.otp.as_ref().is_some_and(|otp| codes.clone().any(|code| code != otp)) {
                        self.wrong
                            .push(format!("{} was answered one code and sent another", request.request_id));
                    }
                }
                several => self.doubled.push(format!("{} has {} events", request.request_id, several.len())),
            }
        }
    }

    /// The events by the request that left them, each once.
    fn events(&mut self, records: &[Record]) -> HashMap<String, Vec<Published>> {
        let mut seen = BTreeSet::new();
        let mut events: HashMap<String, Vec<Published>> = HashMap::new();
        for record in records {
            let header = |name: &str| record.header(name).unwrap_or_default().to_owned();
            if !seen.insert(header("ce_id")) {
                self.duplicates += 1;
                continue;
            }
            let data: Value = serde_json::from_str(&record.payload).unwrap();
            events.entry(header("ce_requestid")).or_default().push(Published {
                id: header("ce_id"),
                event_type: header("ce_type"),
                subject: record.key.clone(),
                version: data["version"].as_i64().unwrap(),
                expires_at: data["expiresAt"].as_str().unwrap().to_owned(),
            });
        }
        self.published = seen.len();
        events
    }

    /// No code stands anywhere on the topic.
    fn clear_text(&mut self, records: &[Record], load: &Load) {
        let text: String =
            records.iter().map(|record| format!("{}{:?}\n", record.payload, record.headers)).collect();
        let codes: BTreeSet<_> = load.accepted.iter().filter_map(|request| request.otp.as_deref()).collect();
        let clear = codes.iter().filter(|code| text.contains(**code)).count();
        if clear > 0 {
            self.wrong.push(format!("{clear} codes stand on the topic in clear"));
        }
    }

    /// What must not be.
    pub(crate) fn faults(&self) -> Vec<String> {
        let named = |name: &'static str, all: &[String]| -> Vec<String> {
            all.iter().map(|fault| format!("{name}: {fault}")).collect()
        };
        let mut faults =
            [named("lost", &self.lost), named("doubled", &self.doubled), named("wrong", &self.wrong)]
                .concat();
        // A run in which hardly anything got through shows nothing.
        if self.accepted < usize::try_from(self.sent / 4).unwrap() {
            faults.push(format!("only {} of {} requests were accepted", self.accepted, self.sent));
        }
        if self.delivered == 0 || self.superseded == 0 {
            faults.push("nothing was delivered, or nothing superseded".to_owned());
        }
        faults
    }
}

/// The newest code of each number, and the newest that came to its end.
fn ended(events: &HashMap<String, Vec<Published>>) -> HashMap<String, (i64, i64)> {
    let mut ended: HashMap<String, (i64, i64)> = HashMap::new();
    for event in events.values().flatten() {
        let known = ended.entry(event.subject.clone()).or_default();
        known.0 = known.0.max(event.version);
        if ["otp.verified.v1", "otp.locked.v1"].contains(&&*event.event_type) {
            known.1 = known.1.max(event.version);
        }
    }
    ended
}

/// The codes in the inbox by their event.
fn inbox(stack: &Stack) -> BTreeMap<String, Vec<String>> {
    let messages = stack.relay.client().get("/inbox?limit=10000").expect(200);
    by_event(messages.as_array().unwrap().iter().map(|message| (&message["eventId"], &message["otp"])))
}

/// The codes that the provider was sent, by idempotency key.
fn sent(stack: &Stack) -> BTreeMap<String, Vec<String>> {
    let sent: Vec<_> = stack
        .provider
        .sent()
        .iter()
        .map(|sent| (Value::from(sent.header("idempotency-key").unwrap()), sent.json()["code"].clone()))
        .collect();
    by_event(sent.iter().map(|(key, code)| (key, code)))
}

fn by_event<'a>(pairs: impl Iterator<Item = (&'a Value, &'a Value)>) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (event, code) in pairs {
        all.entry(event.as_str().unwrap().to_owned()).or_default().push(code.as_str().unwrap().to_owned());
    }
    all
}

/// What the ledger says of each delivery.
fn states(stack: &Stack) -> HashMap<String, String> {
    stack.relay.ledger().pairs("SELECT event_id, state FROM deliveries").into_iter().collect()
}

/// This moment as the events have it.
fn now() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kills: Vec<_> = self.kills.iter().map(|(part, kills)| format!("{part} {kills}")).collect();
        write!(
            f,
            "sent {}, accepted {}, published {}, duplicates in the topic {}, delivered {}, sent again under the \
             same key {}, superseded {}, expired {}, lost {}, doubled {}, wrong {}; killed: {}",
            self.sent,
            self.accepted,
            self.published,
            self.duplicates,
            self.delivered,
            self.repeated,
            self.superseded,
            self.expired,
            self.lost.len(),
            self.doubled.len(),
            self.wrong.len(),
            kills.join(", ")
        )
    }
}
