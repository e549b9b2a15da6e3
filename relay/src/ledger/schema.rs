//! The schema of a ledger, which sqlx's migrator brings to where this relay needs it.

use anyhow::Result;
use sqlx::{
    SqlSafeStr,
    migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator},
};

/// A step that has landed: its name and its SQL. It never changes again, see migrations/README.md.
pub(super) type Step = (&'static str, &'static str);

/// Applies the steps that are missing, which are numbered from 1, and notes them in `table`. One that was applied and is
/// another here is an error.
///
/// A ledger that a newer relay has brought further is left as it is: each step leaves what the version before asks for,
/// so that both can run while one takes the other's place, and the older one again when that goes wrong.
///
/// It takes no lock of its own: the caller has one, and applies all that is missing in one transaction.
pub(super) async fn apply(
    steps: &[Step],
    table: &'static str,
    transaction: &mut (impl Migrate + Send),
) -> Result<()> {
    let steps = (1..).zip(steps).map(|(number, (name, sql))| {
        Migration::new(number, (*name).into(), MigrationType::Simple, (*sql).into_sql_str(), false)
    });
    let mut migrator = Migrator::with_migrations(steps.collect());
    migrator.set_ignore_missing(true).set_locking(false);
    migrator.dangerous_set_table_name(table);
    // `run` would do the same, but with a bound that no future of a spawned task can meet.
    migrator.run_direct(None, transaction, false).await.map_err(|error| match error {
        // What stands in the way is known by the database's own error.
        MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _) => cause.into(),
        other => other.into(),
    })
}
