//! What is brought to the user.

use otp_terms::Channel;
use zeroize::Zeroizing;

/// A message with a code in it, ready to be sent. Not printable.
pub(crate) struct Message {
    /// The event's id: the same for every attempt at this message, and for no other.
    pub(crate) event_id: String,
    /// The code's id.
    pub(crate) otp_id: String,
    /// How it goes.
    pub(crate) channel: Channel,
    /// E.164 for `sms`, an address for `email`.
    pub(crate) to: String,
    /// The subject of a mail.
    pub(crate) subject: Option<String>,
    /// What the user reads.
    pub(crate) text: Zeroizing<String>,
    /// The code alone, for providers that have templates of their own.
    pub(crate) code: Zeroizing<String>,
    /// Whole minutes that the code has left, rounded up.
    pub(crate) minutes: i64,
    /// When the code dies, RFC 3339.
    pub(crate) expires_at: String,
    /// W3C trace context of the request that asked for it.
    pub(crate) traceparent: Option<String>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message").field("event_id", &self.event_id).finish_non_exhaustive()
    }
}
