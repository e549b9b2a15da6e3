//! What an event says about a code.

use serde::{Deserialize, Serialize};

/// The `data` of an event about a code. All of it may be missing: what an event needs is for whoever
/// reads it to say.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CodeData {
    /// Whose code, in E.164.
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
