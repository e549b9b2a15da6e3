//! What an event says.

use serde::{Deserialize, Serialize};

/// The type of an event. One that this version does not know is kept as it came.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum EventType {
    /// A code was made.
    Generated,
    /// The same code was asked for again.
    Resent,
    /// A new code took the place of another.
    Regenerated,
    /// The right code was given.
    Verified,
    /// A check failed.
    VerificationFailed,
    /// A wrong guess used up the last attempt.
    Locked,
    /// A request was refused: for a limit, or for what it asked.
    Limited,
    /// The user was erased.
    Erased,
    /// A range of numbers gets no codes for now: many were sent there, and few came back.
    DestinationSuspended,
    /// Something that a newer version says.
    Other(String),
}

static KNOWN: [(EventType, &str); 9] = [
    (EventType::Generated, "otp.generated.v1"),
    (EventType::Resent, "otp.resent.v1"),
    (EventType::Regenerated, "otp.regenerated.v1"),
    (EventType::Verified, "otp.verified.v1"),
    (EventType::VerificationFailed, "otp.verification-failed.v1"),
    (EventType::Locked, "otp.locked.v1"),
    (EventType::Limited, "otp.limited.v1"),
    (EventType::Erased, "user.erased.v1"),
    (EventType::DestinationSuspended, "destination.suspended.v1"),
];

impl EventType {
    /// The name on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Other(name) => name,
            known => KNOWN.iter().find(|(other, _)| other == known).map_or("", |(_, name)| name),
        }
    }

    /// Every type that this version knows.
    pub fn known() -> impl Iterator<Item = &'static Self> {
        KNOWN.iter().map(|(known, _)| known)
    }

    /// Whether a code is to be delivered.
    pub fn delivers(&self) -> bool {
        matches!(self, Self::Generated | Self::Resent | Self::Regenerated)
    }
}

impl From<String> for EventType {
    fn from(name: String) -> Self {
        KNOWN.iter().find(|(_, known)| *known == name).map_or(Self::Other(name), |(known, _)| known.clone())
    }
}

impl From<EventType> for String {
    fn from(event_type: EventType) -> Self {
        event_type.as_str().to_owned()
    }
}

impl std::fmt::Display for EventType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_read_as_it_is_written_and_an_unknown_one_is_kept() {
        for (known, name) in &KNOWN {
            assert_eq!(EventType::from((*name).to_owned()), *known);
            assert_eq!(known.to_string(), *name);
        }
        let newer = EventType::from("otp.generated.v2".to_owned());
        assert_eq!(newer.as_str(), "otp.generated.v2");
        assert!(!newer.delivers(), "what it means is not known");
    }
}
