//! What a retry is to hear.

use crate::otp_id::OtpId;
use otp_terms::{Channel, Timestamp};

/// What was answered to a request with an Idempotency-Key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAnswer {
    /// The fingerprint of what was asked for.
    pub request: String,
    /// The code's id, its channel, when it was made and when it dies; `None` where a refusal was answered as if there
    /// were one.
    pub code: Option<(OtpId, Channel, Timestamp, Timestamp)>,
}
