//! What an event means for the ledger.

use crate::{erasure::Erasure, moment::parse_rfc3339};
use otp_events::{Event, EventType};
use serde::Serialize;

/// The reason of a lock that is one of the number, and not of its code.
const NUMBER_LOCKED: &str = "number_locked";

/// What is said of a number, for `numbers`, where everything only ever grows.
#[derive(Debug, Default, Clone, Serialize)]
pub(super) struct News<'a> {
    pub(super) subject: &'a str,
    pub(super) version: i64,
    pub(super) ended: i64,
    pub(super) erased: i64,
    pub(super) erased_sequence: String,
}

/// A row to be inserted into `deliveries`, and into `contents`.
#[derive(Debug, Serialize)]
pub(super) struct NewDelivery<'a> {
    pub(super) event_id: &'a str,
    pub(super) otp_id: String,
    pub(super) subject: &'a str,
    pub(super) version: i64,
    pub(super) sequence: &'a str,
    pub(super) channel: String,
    pub(super) expires_at: i64,
    pub(super) event: String,
}

/// What an event means for the ledger.
pub(super) enum Said<'a> {
    /// Nothing. It is on the topic for others.
    Nothing,
    /// Which code is the newest of a number, and which has come to its end.
    News(News<'a>),
    /// A code that is to be delivered.
    Code(News<'a>, NewDelivery<'a>),
    /// A number that is to be forgotten.
    Erased { subject: &'a str, erasure: Erasure },
}

impl<'a> Said<'a> {
    /// Of a type that this version does not know, nothing follows. What says that a code is to be
    /// delivered, and not which, is dead.
    pub(super) fn by(event: &'a Event) -> Result<Self, String> {
        let subject = event.subject.as_deref();
        if event.r#type == EventType::Erased {
            let subject = subject.ok_or("subject is needed")?;
            return Ok(Self::Erased { subject, erasure: Erasure::by(event) });
        }
        let delivers = event.r#type.delivers();
        let ends = matches!(event.r#type, EventType::Verified | EventType::Locked);
        if !delivers && !ends {
            return Ok(Self::Nothing);
        }
        // The parser's own message is not passed on: it may repeat what was sent.
        let data = event.code().map_err(|_| "a field of data has the wrong type".to_owned())?;
        let (Some(subject), Some(version)) = (subject, data.version) else {
            return if delivers {
                Err("subject and data.version are needed".to_owned())
            } else {
                Ok(Self::Nothing)
            };
        };
        // A number that is locked for a while may have a code that outlives that: its code has not ended.
        let for_a_while = data.reason.as_deref() == Some(NUMBER_LOCKED);
        let ended = if ends && !for_a_while { version } else { 0 };
        let news = News { subject, version, ended, ..News::default() };
        if !delivers {
            return Ok(Self::News(news));
        }
        let missing = |name: &str| format!("data.{name} is needed");
        let expires_at = data.expires_at.as_deref().ok_or_else(|| missing("expiresAt"))?;
        let expires_at = parse_rfc3339(expires_at).ok_or("data.expiresAt is not RFC 3339")?;
        data.sealed_otp.as_deref().ok_or_else(|| missing("sealedOtp"))?;
        data.recipient().ok_or("data.mobileNumber or data.email is needed")?;
        event.application.as_deref().ok_or("application is needed")?;
        let delivery = NewDelivery {
            event_id: &event.id,
            otp_id: data.otp_id.ok_or_else(|| missing("otpId"))?,
            subject,
            version,
            sequence: event.sequence.as_deref().unwrap_or_default(),
            channel: data.channel.ok_or_else(|| missing("channel"))?,
            expires_at,
            event: serde_json::to_string(event).map_err(|error| error.to_string())?,
        };
        Ok(Self::Code(news, delivery))
    }
}
