//! Bringing the schema up to date.

use super::{
    address::Address,
    query::{database_error, query, unavailable},
};
use crate::{environment::Environment, row::Row};
use otp_core::ports::{Clock, Unavailable};
use spin_sdk::pg::{Connection, Error};

/// The steps, oldest first (`migrations/README.md`). The table `steps` names those that were taken. Each leaves what the version before it can still work with, for both run while the service is replaced.
const STEPS: [&str; 1] = [include_str!("../../../../../migrations/postgres/0001_baseline.sql")];

/// Takes the steps that are missing, all or none, and tells how far the server's clock is ahead of ours, in
/// milliseconds.
///
/// It is one statement, whatever there is to do: nothing is left half done or open, wherever it ends. Several
/// instances and hosts may start on the same empty database: one takes the lock, the others wait for it and find
/// the work done. A database that a newer version has brought further is left alone.
pub(super) async fn bring_up_to_date(address: &Address, connection: &Connection) -> Result<i64, Unavailable> {
    if let Some(ahead) = clock_of_a_finished_schema(connection).await? {
        return Ok(ahead);
    }
    // It may take longer than a statement of a request may. Spin lets it go on when the request has given up; the
    // embedded host ends it, and the next request begins it again.
    let patient = address.connect(0).await?;
    query(&patient, &missing_steps(), &[]).await.map_err(unavailable)?;
    clock_of_a_finished_schema(connection)
        .await?
        .ok_or_else(|| Unavailable("Postgres: the schema is not as it was left".to_owned()))
}

/// How far its clock is ahead, if no step is missing.
async fn clock_of_a_finished_schema(connection: &Connection) -> Result<Option<i64>, Unavailable> {
    const STATE: &str = include_str!("state.sql");
    let asked = now();
    let rows = match query(connection, STATE, &[]).await {
        Ok(rows) => rows,
        Err(error) if is_undefined_table(&error) => return Ok(None),
        Err(error) => return Err(unavailable(error)),
    };
    let heard = now();
    let numbers = |row: &Row| Ok::<_, Unavailable>((row.integer(0)?, row.integer(1)?, row.integer(2)?));
    let Some((steps, clock, ours)) = rows.first().map(numbers).transpose()? else { return Ok(None) };
    // One from before the baseline counted other steps, and nothing of it can be taken over.
    if steps > 0 && ours == 0 {
        let reason = "Postgres: the database is of a version before 0.1.0; make a new one, and name that";
        return Err(Unavailable(reason.to_owned()));
    }
    let finished = usize::try_from(steps).is_ok_and(|steps| steps >= STEPS.len());
    // Its clock was read at some moment in between: half way is off by no more than half of it.
    Ok(finished.then_some(clock - i64::midpoint(asked, heard)))
}

fn is_undefined_table(error: &Error) -> bool {
    database_error(error).is_some_and(|error| error.code == "42P01")
}

/// All steps as one block that takes those that are missing.
fn missing_steps() -> String {
    let steps: String = STEPS
        .iter()
        .zip(1..)
        .map(|(step, number)| {
            let step = step.trim_end().trim_end_matches(';');
            format!(
                "IF NOT EXISTS (SELECT FROM steps WHERE step = {number}) THEN\n{step};\n\
                 INSERT INTO steps (step) VALUES ({number});\nEND IF;\n"
            )
        })
        .collect();
    include_str!("steps.sql").replace("-- steps\n", &steps)
}

/// The milliseconds of our clock.
fn now() -> i64 {
    Environment.now().unix_millis()
}
