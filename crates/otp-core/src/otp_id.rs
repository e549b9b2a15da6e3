//! The id of a code.

use crate::random::Random;
use otp_terms::Timestamp;

/// Names one code for good: a UUID version 7 (RFC 9562), so that ids sort by time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtpId(String);

impl OtpId {
    /// A new id.
    pub fn generate(now: Timestamp, random: &impl Random) -> Self {
        let mut bytes = [0; 10];
        random.fill(&mut bytes);
        let millis = now.unix_millis().unsigned_abs();
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid().to_string())
    }

    /// Reads an id in any of a UUID's usual spellings. `None` if it is none: then it names no code.
    pub fn parse(text: &str) -> Option<Self> {
        uuid::Uuid::try_parse(text).ok().map(|id| Self(id.to_string()))
    }

    /// What the database holds.
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// The id in lower case with dashes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::seeded::Seeded;

    #[test]
    fn ids_sort_by_time_and_read_back() {
        let random = Seeded::new(1);
        let early = OtpId::generate(Timestamp::from_unix_millis(1_795_333_302_000), &random);
        let late = OtpId::generate(Timestamp::from_unix_millis(1_795_333_302_001), &random);
        assert!(early.as_str() < late.as_str());
        assert_eq!(&early.as_str()[14..15], "7");
        assert_eq!(OtpId::parse(&early.as_str().to_uppercase()), Some(early));
        assert_eq!(OtpId::parse("not an id"), None);
    }
}
