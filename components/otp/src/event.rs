//! Events as they go out: what the domain says, in the form of CloudEvents, signed.

use crate::origin::Origin;
use otp_core::{EventKind, OtpEvent, Revision, ports::Request};
use otp_events::{CodeData, Data, Event, EventType};
use otp_seal::EventKeys;

/// What data is written in.
const JSON: &str = "application/json";

/// The event of a request, whole.
pub(crate) fn of_request(
    event: &OtpEvent,
    request: &Request<'_>,
    origin: &Origin,
    keys: &EventKeys,
) -> String {
    let r#type = match event.kind {
        EventKind::Generated => EventType::Generated,
        EventKind::Resent => EventType::Resent,
        EventKind::Regenerated => EventType::Regenerated,
        EventKind::Verified => EventType::Verified,
        EventKind::VerificationFailed => EventType::VerificationFailed,
        EventKind::Locked => EventType::Locked,
        EventKind::Limited => EventType::Limited,
        EventKind::Erased => EventType::Erased,
    };
    let data = match event.kind {
        // It names the recipient by its keyed index only: what has something to forget knows it by that.
        EventKind::Erased => CodeData { version: Some(event.sequence.get()), ..CodeData::default() },
        _ => code_data(event, request, r#type.delivers()),
    };
    let mut whole = Event::new(event.id.as_str(), r#type);
    whole.subject = Some(request.subject.to_string());
    whole.time = Some(event.at.to_string());
    whole.sequence = Some(sequence(event.sequence));
    whole.application = Some(request.owner.application.to_owned());
    whole.requestid = Some(origin.request_id.clone());
    whole.traceparent = origin.traceparent.clone();
    signed(whole, Data::of(&data), keys)
}

/// What is known of the code. It goes out sealed, and only where it is to be delivered.
fn code_data(event: &OtpEvent, request: &Request<'_>, delivers: bool) -> CodeData {
    let recipient = request.owner.recipient;
    let code = event.code.as_ref();
    let email = code.and_then(|code| code.address.clone());
    CodeData {
        mobile_number: recipient.number().map(|number| number.as_str().to_owned()),
        email: email.or_else(|| recipient.address().map(|address| address.as_str().to_owned())),
        channel: code.map(|code| code.channel.as_str().to_owned()),
        otp_id: code.map(|code| code.otp_id.as_str().to_owned()),
        version: code.map(|code| code.version.get()),
        sealed_otp: code.filter(|_| delivers).map(|code| hex(&code.sealed)),
        created_at: code.map(|code| code.created_at.rfc3339_millis()),
        expires_at: code.map(|code| code.expires_at.rfc3339_millis()),
        reason: event.reason.map(str::to_owned),
    }
}

/// Signs an event once all of it is there, and writes it down.
pub(crate) fn signed(mut event: Event, data: Data, keys: &EventKeys) -> String {
    event.datacontenttype = Some(JSON.to_owned());
    event.data = Some(data);
    event.sign(keys);
    // An event is a plain struct of strings, which always serialises.
    serde_json::to_string(&event).unwrap_or_default()
}

/// A revision as a sequence: text that sorts as the numbers do.
pub(crate) fn sequence(revision: Revision) -> String {
    format!("{:020}", revision.get())
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])).collect()
}
