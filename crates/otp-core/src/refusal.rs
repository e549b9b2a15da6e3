//! Why a call is refused: the one type that goes from a decision to the answer.

use crate::{send_limit::Quota, unavailable::Unavailable};

/// Why a call was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The recipient, or the code that the request names, is not known.
    #[error("no code is known for this recipient")]
    NotFound,
    /// The code's life is over, or it cannot be opened any more.
    #[error("the code has expired")]
    Expired,
    /// The code was verified already.
    #[error("the code was used already")]
    Used,
    /// Too many wrong values: the code is not given out again.
    #[error("the code is locked after too many wrong attempts")]
    Locked,
    /// Too many wrong values: nothing is compared any more.
    #[error("the attempts at this code are used up")]
    AttemptsExceeded,
    /// Not this code.
    #[error("this is not the code")]
    Mismatch {
        /// Wrong values that may still be tried.
        attempts_remaining: i64,
    },
    /// Not a code that can be used, in uniform mode: nothing more is said.
    #[error("this is not a code that can be used")]
    NotTheCode,
    /// A limit is used up.
    #[error("a limit is used up")]
    RateLimited(Quota),
    /// Too many wrong values of the recipient's codes, in a row.
    #[error("the recipient is locked")]
    RecipientLocked {
        /// Whole seconds until it is not.
        retry_after: i64,
    },
    /// Nothing is sent to the number's range for now.
    #[error("the range of the number is suspended")]
    Suspended {
        /// Whole seconds until it is not.
        retry_after: i64,
    },
    /// The Idempotency-Key was used for something else.
    #[error("the Idempotency-Key was used for another request")]
    KeyReused,
    /// The database could not be asked.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl Refusal {
    /// What events call it. Only what depends on the state of an account has a name there: an answer that showed it
    /// would tell whether the recipient is known, which uniform mode does not allow.
    pub fn reason(&self) -> Option<&'static str> {
        Some(match self {
            Self::NotFound => "not_found",
            Self::Expired => "expired",
            Self::Used => "used",
            Self::Locked | Self::AttemptsExceeded => "locked",
            Self::Mismatch { .. } => "wrong",
            Self::RecipientLocked { .. } => "number_locked",
            Self::RateLimited(quota) if quota.name == Quota::RECIPIENT => "rate_limited",
            Self::NotTheCode
            | Self::RateLimited(_)
            | Self::Suspended { .. }
            | Self::KeyReused
            | Self::Unavailable(_) => return None,
        })
    }
}
