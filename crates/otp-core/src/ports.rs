//! What the domain needs from outside.

use crate::{
    account::{Account, Owner},
    caller::Idempotency,
    decision::Record,
    meter::Meter,
    revision::Revision,
};
use otp_seal::RecipientIndex;
use otp_terms::Timestamp;

pub use crate::{kept_answer::KeptAnswer, meter::Full, random::Random, unavailable::Unavailable};

/// Tells the time.
pub trait Clock {
    /// This moment.
    fn now(&self) -> Timestamp;
}

/// The truth about accounts. It stores, compares and counts; what may happen is decided before.
pub trait Database {
    /// What is known of an account, and of what a request about it depends on.
    fn load(&self, request: &Request<'_>) -> impl Future<Output = Result<Loaded, Unavailable>>;

    /// Whether a commit that finds something not as it was can tell what is known by then.
    fn tells(&self) -> bool;

    /// Writes down what was decided, all of it or nothing: the account, the event, the answer for a retry, and what
    /// the meters count. It does so only if all is as it was when that was decided: the account has the expected
    /// revision, no answer is kept under the request's Idempotency-Key, the range is not suspended, and every meter
    /// has room. Later than the request's deadline it does nothing.
    fn commit(
        &self,
        request: &Request<'_>,
        commit: &Commit<'_>,
    ) -> impl Future<Output = Result<Committed, Unavailable>>;
}

/// Holds accounts close by, and counts. It may be empty, stale or away at any time: whatever it says, the database has
/// the last word. So nothing here fails; a cache that is away has nothing, counts nothing, and takes nothing.
pub trait Cache {
    /// The account as it was last put, if that is `wanted`, and whether the request's meters let it in; if so, it is
    /// counted on all of them.
    fn look(&self, request: &Request<'_>, wanted: bool) -> impl Future<Output = (Option<Account>, Metered)>;

    /// Takes back what was counted for a request that was refused after all. Returns at once.
    fn uncount(&self, meters: &[Meter]);

    /// Keeps an account, unless a newer state of it is kept. Returns at once; it is done after the answer, if at all.
    fn put(&self, request: &Request<'_>, account: &Account);

    /// Drops an account that was erased, before the answer, and takes none from before that `floor`.
    fn erase(&self, request: &Request<'_>, floor: Revision) -> impl Future<Output = ()>;
}

/// A request, as far as database and cache have to know.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Whose account it is about.
    pub owner: Owner<'a>,
    /// What stands for that owner.
    pub subject: &'a RecipientIndex,
    /// Which decoy is looked at and written where nothing is known, in uniform mode.
    pub decoy: Option<u32>,
    /// The recipient's range, where ranges can be suspended.
    pub range: Option<&'a str>,
    /// How its retry is known.
    pub idempotency: Option<&'a Idempotency>,
    /// Meters that it counts on.
    pub meters: &'a [Meter],
    /// When it began: what comes too late after that does nothing.
    pub begun: Timestamp,
}

/// What is known of an account, and of what a request about it depends on.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The account; `None` where nothing is known.
    pub account: Option<Account>,
    /// What all accounts that were ever erased had at most.
    pub floor: Revision,
    /// What was answered under the request's Idempotency-Key.
    pub kept: Option<KeptAnswer>,
    /// Until when nothing is sent to the recipient's range.
    pub suspended_until: Option<Timestamp>,
    /// Of each of the request's meters the moment at which it is empty, in microseconds since the Unix epoch.
    pub meters: Vec<i64>,
}

/// What is to be written.
#[derive(Debug)]
pub struct Commit<'a> {
    /// The revision that the account has to have; `None` where nothing is known of it.
    pub expected: Option<Revision>,
    /// What is written; `None` where the meters are all that counts.
    pub record: Option<&'a Record>,
    /// Meters that count the request. The cache may have counted it already.
    pub meters: &'a [Meter],
    /// Whether to tell what is known if nothing is written, where the database can.
    pub tell: bool,
}

/// What became of a commit.
#[derive(Debug)]
pub enum Committed {
    /// All of it is written.
    Yes,
    /// Nothing is: something is not as it was when it was decided. What is known by now, if it was to be told.
    Conflict(Option<Box<Loaded>>),
}

/// Whether a request is let in.
#[derive(Debug, Default)]
pub enum Metered {
    /// It is, and was counted.
    Counted,
    /// It is not: a meter is full.
    Full(Full),
    /// Nobody knows here: it is for the database to count.
    #[default]
    Unknown,
}
