//! The load: requests of all kinds, many for the same numbers, from several clients.

use crate::{chaos::Stack, dice::Dice};
use harness::{Client, bulk_number};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const CLIENTS: u64 = 8;

/// Numbers that the clients share, so that codes are replaced under way.
const NUMBERS: u64 = 300;

/// Longest that a load may take.
const LIMIT: Duration = Duration::from_secs(120);

/// A request that was answered 2xx.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// Sent as x-request-id, and so in its event.
    pub(crate) request_id: String,
    /// The type that its event must have.
    pub(crate) event_type: &'static str,
    /// The code, where the answer has it.
    pub(crate) otp: Option<String>,
}

/// What was sent and what came of it.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) sent: u64,
    pub(crate) accepted: Vec<Accepted>,
    /// How often each part was killed meanwhile.
    pub(crate) kills: Vec<(String, usize)>,
}

/// Sends the requests while parts of the stack die.
pub(crate) fn run(stack: &mut Stack, seed: u64, requests: u64) -> Load {
    let client = stack.service.client();
    let accepted = Mutex::new(Vec::new());
    let codes = Mutex::new(HashMap::new());
    let (sent, loading) = (AtomicU64::new(0), AtomicBool::new(true));
    let kills = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|index| {
                let (client, accepted, codes, sent) = (client.clone(), &accepted, &codes, &sent);
                scope.spawn(move || {
                    let mut dice = Dice::new(seed * CLIENTS + index);
                    let until = Instant::now() + LIMIT;
                    while sent.fetch_add(1, Ordering::Relaxed) < requests && Instant::now() < until {
                        let request_id = format!("{seed}-{index}-{:016x}", dice.below(u64::MAX));
                        accepted.lock().unwrap().extend(request(&client, request_id, codes, &mut dice));
                        thread::sleep(Duration::from_millis(20 + dice.below(60)));
                    }
                })
            })
            .collect();
        let trouble = scope.spawn(|| stack.trouble(&mut Dice::new(seed), &loading));
        clients.into_iter().for_each(|client| client.join().unwrap());
        loading.store(false, Ordering::Relaxed);
        trouble.join().unwrap()
    });
    Load { sent: requests, accepted: accepted.into_inner().unwrap(), kills }
}

/// One request. An answer that does not come says nothing: the request may have happened, or not.
fn request(
    client: &Client,
    request_id: String,
    codes: &Mutex<HashMap<String, String>>,
    dice: &mut Dice,
) -> Option<Accepted> {
    let index = u32::try_from(dice.below(NUMBERS)).unwrap();
    let number = bulk_number(index);
    let known = codes.lock().unwrap().get(&number).cloned();
    let (path, event_type) = match (*dice.pick(&[0, 0, 0, 0, 1, 1, 2, 2, 3, 3]), &known) {
        (1, Some(_)) => ("/resend-otp", "otp.resent.v1"),
        (2, Some(_)) => ("/regenerate-otp", "otp.regenerated.v1"),
        (3, Some(_)) => ("/verify-otp", "otp.verified.v1"),
        _ => ("/generate-otp", "otp.generated.v1"),
    };
    let body = match path {
        "/verify-otp" => json!({ "mobileNumber": number, "otp": known }),
        // Every other number has its codes by mail.
        "/generate-otp" if index.is_multiple_of(2) => {
            json!({ "mobileNumber": number, "channel": "email", "email": format!("user{index}@example.com") })
        }
        _ => json!({ "mobileNumber": number }),
    };
    let headers = [("x-request-id", &*request_id)];
    let answer = client.try_send("POST", path, &headers, body.to_string().as_bytes()).ok()?;
    if !(200..300).contains(&answer.status) {
        return None;
    }
    // A body that was cut off came from no host that had answered.
    let answer: Value = serde_json::from_slice(&answer.body).ok()?;
    let otp = answer["otp"].as_str().map(str::to_owned);
    if let Some(otp) = &otp {
        codes.lock().unwrap().insert(number, otp.clone());
    }
    Some(Accepted { request_id, event_type, otp })
}
