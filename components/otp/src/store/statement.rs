//! The statements of both databases. Those of one name take the same parameters and give the same columns.

/// A statement as each database has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Statement {
    pub(super) sqlite: &'static str,
    pub(super) postgres: &'static str,
}

macro_rules! statement {
    ($name:literal) => {
        Statement {
            sqlite: include_str!(concat!("sqlite/", $name, ".sql")),
            postgres: include_str!(concat!("postgres/", $name, ".sql")),
        }
    };
}

pub(super) const COMMIT: Statement = statement!("commit");
/// Of Postgres only. Its many columns would make each commit dearer than the look that this one saves.
pub(super) const COMMIT_OR_TELL: &str = include_str!("postgres/commit_or_tell.sql");
pub(super) const ERASE: Statement = statement!("erase");
pub(super) const LOAD: Statement = statement!("load");
pub(super) const PING: Statement = statement!("ping");

pub(super) const DESTINATIONS_COUNT: Statement = statement!("destinations/count");
pub(super) const DESTINATIONS_LIFT: Statement = statement!("destinations/lift");
pub(super) const DESTINATIONS_SUSPEND: Statement = statement!("destinations/suspend");
pub(super) const DESTINATIONS_TALLY: Statement = statement!("destinations/tally");

pub(super) const OUTBOX_BURY: Statement = statement!("outbox/bury");
pub(super) const OUTBOX_CLAIM: Statement = statement!("outbox/claim");
pub(super) const OUTBOX_CLEAR: Statement = statement!("outbox/clear");
pub(super) const OUTBOX_COUNT: Statement = statement!("outbox/count");
pub(super) const OUTBOX_EXPIRE: Statement = statement!("outbox/expire");
pub(super) const OUTBOX_FORGET: Statement = statement!("outbox/forget");
pub(super) const OUTBOX_FORGET_OWN: Statement = statement!("outbox/forget_own");
pub(super) const OUTBOX_RELEASE: Statement = statement!("outbox/release");
pub(super) const OUTBOX_WAITS: Statement = statement!("outbox/waits");

pub(super) const PURGE_DESTINATIONS: Statement = statement!("purge/destinations");
pub(super) const PURGE_IDEMPOTENCY: Statement = statement!("purge/idempotency");
pub(super) const PURGE_METERS: Statement = statement!("purge/meters");
pub(super) const PURGE_SUSPENSIONS: Statement = statement!("purge/suspensions");
