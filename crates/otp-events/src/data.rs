//! The data of an event: its bytes as they were sent, and what they say.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::{RawValue, to_raw_value};

/// The data of an event, as it was sent. A signature is over these bytes, and JSON that is read and written again
/// need not be the same: members change their order, numbers their digits.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Data(Box<RawValue>);

impl Data {
    /// What `value` is as JSON.
    ///
    /// # Panics
    ///
    /// If `value` has no form in JSON: a map whose keys are no text.
    pub fn of(value: &impl Serialize) -> Self {
        Self(to_raw_value(value).expect("what an event says has text for keys"))
    }

    /// JSON as it stands there; `None` if it is none.
    pub fn parse(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    /// The JSON.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// What it says, as a `T`.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.as_str())
    }
}

impl PartialEq for Data {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Data {}

impl std::fmt::Debug for Data {
    /// Its size: it holds a number.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Data({} bytes)", self.as_str().len())
    }
}

/// The `data` of an event about a code. All of it may be missing: what an event needs is for its reader to say.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CodeData {
    /// Whose code, in E.164. Missing where the recipient is a mail address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mobile_number: Option<String>,
    /// `sms` or `email`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// Where the code goes, if by mail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// The code's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otp_id: Option<String>,
    /// Which code of the number it is: the greater replaces the smaller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// The code, sealed, in lower-case hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sealed_otp: Option<String>,
    /// When the code was made, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// When the code dies, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// Why a check failed, or a request was refused. The README has the words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl CodeData {
    /// Whose code it is: the number, or the mail address of a recipient without one.
    pub fn recipient(&self) -> Option<&str> {
        self.mobile_number.as_deref().or(self.email.as_deref())
    }
}

/// The `data` of an event about a range of numbers that was suspended. All of it may be missing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SuspensionData {
    /// How the numbers of the range begin, such as `+99291`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Codes that were sent there lately.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent: Option<i64>,
    /// Those of them that came back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified: Option<i64>,
    /// When the range gets codes again, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspended_until: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn data_keeps_its_bytes() {
        const SENT: &str = "{ \"version\": 1.50, \"a\":\"\\u0041\",\n\"a\": 2 }";
        let data = Data::parse(SENT.as_bytes()).unwrap();
        assert_eq!(data.as_str(), SENT);
        assert_eq!(serde_json::to_string(&[&data]).unwrap(), format!("[{SENT}]"));
        assert_ne!(data, Data::of(&data.read::<Value>().unwrap()), "the same values, other bytes");
        assert!(Data::parse(b"{").is_none() && Data::parse(b"\"\xff\"").is_none());
        assert_eq!(format!("{data:?}"), format!("Data({} bytes)", SENT.len()));
    }

    #[test]
    fn the_recipient_is_the_number_or_else_the_address() {
        let mut data = CodeData { email: Some("ada@shop.example".to_owned()), ..CodeData::default() };
        assert_eq!(data.recipient(), Some("ada@shop.example"));
        data.mobile_number = Some("+14155550123".to_owned());
        assert_eq!(data.recipient(), Some("+14155550123"));
        assert_eq!(CodeData::default().recipient(), None);
    }
}
