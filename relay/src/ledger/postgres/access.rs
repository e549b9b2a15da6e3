//! The way to the database: connections with deadlines, the schema, and what stands in the way.

use crate::{
    database::Database,
    ledger::{
        not_now::NotNow,
        schema::{self, Step},
    },
};
use anyhow::Result;
use sqlx::{
    Connection, Executor, PgConnection, PgPool, Postgres, Transaction,
    postgres::{PgArguments, PgPoolOptions},
    query::Query,
};
use std::{
    fmt,
    future::Future,
    io::ErrorKind,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Mutex, OnceCell},
    time::{error::Elapsed, timeout},
};

const SCHEMA: [Step; 1] = [("ledger", include_str!("../../../../migrations/relay-postgres/0001_ledger.sql"))];

/// Several relays may start on an empty database at once; this number lets one in to make the tables.
const MIGRATING: i64 = 0x7370_696e_6f74_7072;

/// Connections of one relay: few enough that several fit into a server that takes a hundred.
const CONNECTIONS: u32 = 10;

/// How long a connection is waited for.
const ACQUIRE: Duration = Duration::from_secs(2);

/// How long whoever asks the ledger waits in all, whatever the server does.
const DEADLINE: Duration = Duration::from_secs(5);

/// The same for whoever says that this relay is alive: well before its lease runs out it is said again.
const BEAT: Duration = Duration::from_secs(3);

/// After how many attempts in a row that hung the connections are done with.
const HUNG: u32 = 5;

/// How long it may take to make the tables, or to vacuum some.
const LONG_DEADLINE: Duration = Duration::from_secs(60);

/// How transactions see each other, which the statements are written for, whatever the server's administrator has set
/// for everybody else; and what the server ends by itself: statements that nobody waits for any more, and the transaction of a
/// relay that was paused in the middle of it, which would keep the rows of a partition locked. Less than
/// [`LEASE`](crate::ledger::lease::LEASE).
const LIMITS: &str = "SET default_transaction_isolation = 'read committed';
                      SET statement_timeout = '4s'; SET lock_timeout = '3s';
                      SET idle_in_transaction_session_timeout = '5s'";

/// Why the database will not let the relay in before somebody changes something.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

/// The way to the database.
pub(super) struct Access {
    database: Database,
    /// Replaced when its connections hang though the server answers others: what became of an address may be
    /// known to nobody for a quarter of an hour.
    pool: RwLock<PgPool>,
    /// Attempts in a row for which there was no connection or no answer in time.
    hung: AtomicU32,
    /// A connection apart, to say that this relay is alive however busy the others are.
    heart: Mutex<Option<PgConnection>>,
    /// Why the database is away, as long as it is: nobody waits for what is known not to come.
    away: RwLock<Option<String>>,
    /// Whether the tables are there.
    migrated: OnceCell<()>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").finish_non_exhaustive()
    }
}

impl Access {
    pub(super) fn new(database: Database) -> Self {
        let pool = RwLock::new(pool_of(&database));
        Self {
            database,
            pool,
            hung: AtomicU32::new(0),
            heart: Mutex::new(None),
            away: RwLock::new(None),
            migrated: OnceCell::new(),
        }
    }

    /// Reaches the database and makes the tables, or says what stands in the way for good. That it is away is
    /// no error.
    pub(super) async fn open(&self) -> Result<()> {
        match timeout(LONG_DEADLINE, self.migrate()).await {
            Ok(Err(error)) => Some(explain(error)).filter(|error| !error.is::<NotNow>()).map_or(Ok(()), Err),
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }

    async fn migrate(&self) -> Result<()> {
        let migrating = async || {
            let mut connection = connect(&self.database).await?;
            migrate(&mut connection).await?;
            connection.close().await?;
            Ok(())
        };
        self.migrated.get_or_try_init(migrating).await.copied()
    }

    /// Connections to a database that has the tables.
    pub(super) async fn ready(&self) -> Result<PgPool> {
        self.migrate().await?;
        Ok(self.pool.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Begins a transaction. One that is dropped before its end has not happened.
    pub(super) async fn begin(&self) -> Result<Transaction<'static, Postgres>> {
        let pool = self.ready().await?;
        // Apart, so that it is never given up half way: the library would put a connection back into the pool with a
        // transaction that it does not know of, and whoever had it next would lock rows for ever and commit nothing.
        Ok(tokio::spawn(async move { pool.begin().await }).await??)
    }

    /// Does something with the database within the time that anybody waits for it.
    pub(super) async fn bounded<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.within(DEADLINE, work).await
    }

    /// The same for what may take longer.
    pub(super) async fn unhurried<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.within(LONG_DEADLINE, work).await
    }

    async fn within<T>(&self, time: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
        let away = self.away.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(reason) = away {
            return Err(NotNow::Away(reason).into());
        }
        let done = timeout(time, work).await;
        let hangs = match &done {
            Ok(done) => matches!(
                done.as_ref().err().and_then(|error| error.downcast_ref()),
                Some(sqlx::Error::PoolTimedOut)
            ),
            Err(_) => true,
        };
        if hangs {
            self.hung.fetch_add(1, Ordering::Relaxed);
        } else {
            self.hung.store(0, Ordering::Relaxed);
        }
        in_time(done)
    }

    /// Says something on the connection that is apart from the others. How that goes is how the database does.
    pub(super) async fn beat(&self, said: Query<'_, Postgres, PgArguments>) -> Result<()> {
        let mut heart = self.heart.lock().await;
        let beating = async {
            self.migrate().await?;
            let connection = match &mut *heart {
                Some(connection) => connection,
                None => heart.insert(connect(&self.database).await?),
            };
            said.execute(connection).await?;
            Ok(())
        };
        let beaten = in_time(timeout(BEAT, beating).await);
        if beaten.is_err() {
            *heart = None;
        } else if self.hung.load(Ordering::Relaxed) >= HUNG {
            self.hung.store(0, Ordering::Relaxed);
            let mut pool = self.pool.write().unwrap_or_else(PoisonError::into_inner);
            let old = std::mem::replace(&mut *pool, pool_of(&self.database));
            tokio::spawn(async move { old.close().await });
        }
        *self.away.write().unwrap_or_else(PoisonError::into_inner) =
            match beaten.as_ref().err().map(|error| (error.downcast_ref(), error)) {
                Some((Some(NotNow::Away(reason)), _)) => Some(reason.clone()),
                Some((_, error)) => Some(format!("{error:#}")),
                None => None,
            };
        beaten
    }

    pub(super) async fn close(&self) {
        if let Some(connection) = self.heart.lock().await.take() {
            // Nobody needs to know how that goes.
            let _ = connection.close().await;
        }
        let pool = self.pool.read().unwrap_or_else(PoisonError::into_inner).clone();
        pool.close().await;
    }
}

/// A connection beside the pool.
async fn connect(database: &Database) -> sqlx::Result<PgConnection> {
    let mut connection = PgConnection::connect_with(database.options()).await?;
    connection.execute(LIMITS).await?;
    Ok(connection)
}

/// Connections that are made as they are needed.
fn pool_of(database: &Database) -> PgPool {
    let pool = PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(ACQUIRE);
    let pool = pool
        .after_connect(|connection, _| Box::pin(async move { connection.execute(LIMITS).await.map(drop) }));
    pool.connect_lazy_with(database.options().clone())
}

/// What came of an attempt. Once a relay runs, it waits for whatever stands in the way.
fn in_time<T>(done: Result<Result<T>, Elapsed>) -> Result<T> {
    let away = |reason: String| NotNow::Away(reason).into();
    let Ok(done) = done else { return Err(away("it does not answer in time".to_owned())) };
    done.map_err(|error| match explain(error).downcast() {
        Ok(Refused(reason)) => away(reason),
        Err(other) => other,
    })
}

/// Makes the tables that are missing. Whoever comes second finds them made.
async fn migrate(connection: &mut PgConnection) -> Result<()> {
    let mut transaction = connection.begin().await?;
    transaction.execute("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0").await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(MIGRATING).execute(&mut *transaction).await?;
    // Who may not make a schema may use one that was made for it.
    let there: bool = sqlx::query_scalar("SELECT to_regnamespace('relay') IS NOT NULL")
        .fetch_one(&mut *transaction)
        .await?;
    if !there {
        transaction.execute("CREATE SCHEMA relay").await?;
    }
    // Beside the tables: the database may be another's, too, which has a list of its own.
    schema::apply(&SCHEMA, "relay.migrations", &mut *transaction).await?;
    transaction.commit().await?;
    Ok(())
}

/// Says whether an error passes, or what is to be done about it.
fn explain(error: anyhow::Error) -> anyhow::Error {
    let Some(cause) = error.downcast_ref::<sqlx::Error>() else { return error };
    let away = |reason: String| NotNow::Away(reason).into();
    let refused = |reason: String| Refused(reason).into();
    match cause {
        sqlx::Error::Database(database) => {
            let said = database.message();
            match database.code().as_deref().unwrap_or_default() {
                "28P01" => refused(format!("{said}; check user and password")),
                "28000" => refused(format!(
                    "{said}; where the server wants TLS, sslmode has to be require, verify-ca or verify-full"
                )),
                "3D000" => refused(format!("{said}; make it with: CREATE DATABASE name OWNER user")),
                "42501" => refused(format!(
                    "{said}; the user needs the schema relay: GRANT CREATE ON DATABASE name TO user, or \
                     CREATE SCHEMA relay AUTHORIZATION user"
                )),
                "25006" => away(format!("{said}; it may be a standby: name the primary")),
                // It is starting, ending, out of connections or of something else, or has ended the session.
                code if ["08", "53", "57P", "58"].iter().any(|class| code.starts_with(class)) => {
                    away(said.to_owned())
                }
                "25P03" => away(said.to_owned()),
                _ => error,
            }
        }
        sqlx::Error::Tls(reason) => refused(format!(
            "TLS: {reason}; sslmode=disable does without, where the way to the server is safe, and sslrootcert \
             names the PEM file of an authority to trust"
        )),
        // So are certificates refused.
        sqlx::Error::Io(reason) if reason.kind() == ErrorKind::InvalidData => {
            refused(format!("TLS: {reason}; sslrootcert names the PEM file of the authority to trust"))
        }
        sqlx::Error::Io(reason) => away(reason.to_string()),
        sqlx::Error::PoolTimedOut => away("no connection in time".to_owned()),
        sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed | sqlx::Error::BeginFailed => {
            away(cause.to_string())
        }
        sqlx::Error::Protocol(reason) => away(format!("the connection broke: {reason}")),
        _ => error,
    }
}
