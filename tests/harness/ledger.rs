//! The relay's ledger as a test sees it, whichever it is: to look into, and to leave as another relay would.

use postgres::{Client, NoTls};
use std::{
    cell::RefCell,
    path::{Path, PathBuf},
};

/// The ledger. Tables have the same names in both, and most columns.
#[derive(Debug)]
pub struct Ledger(Store);

#[allow(missing_debug_implementations, reason = "a connection says nothing")]
enum Store {
    Sqlite { connection: rusqlite::Connection, folder: PathBuf },
    Postgres(RefCell<Client>),
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind())
    }
}

impl Store {
    fn kind(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "sqlite",
            Self::Postgres(_) => "postgres",
        }
    }
}

impl Ledger {
    pub fn in_folder(folder: &Path) -> Self {
        let connection = rusqlite::Connection::open(folder.join("ledger.db")).unwrap();
        Self(Store::Sqlite { connection, folder: folder.to_owned() })
    }

    pub(crate) fn in_postgres(url: &str) -> Self {
        let mut client = Client::connect(url, NoTls).unwrap();
        client.batch_execute("SET search_path TO relay").unwrap();
        Self(Store::Postgres(RefCell::new(client)))
    }

    /// `sqlite` or `postgres`
    pub fn kind(&self) -> &'static str {
        self.0.kind()
    }

    /// Runs a statement, and tells how many rows it changed.
    pub fn execute(&self, sql: &str) -> u64 {
        match &self.0 {
            Store::Sqlite { connection, .. } => connection.execute(sql, []).unwrap() as u64,
            Store::Postgres(client) => client.borrow_mut().execute(sql, &[]).unwrap(),
        }
    }

    /// The one number that a query gives.
    pub fn number(&self, sql: &str) -> i64 {
        match &self.0 {
            Store::Sqlite { connection, .. } => connection.query_row(sql, [], |row| row.get(0)).unwrap(),
            Store::Postgres(client) => client.borrow_mut().query_one(sql, &[]).unwrap().get(0),
        }
    }

    /// The two texts of each row that a query gives.
    pub fn pairs(&self, sql: &str) -> Vec<(String, String)> {
        match &self.0 {
            Store::Sqlite { connection, .. } => {
                let mut query = connection.prepare(sql).unwrap();
                let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
                rows.map(Result::unwrap).collect()
            }
            Store::Postgres(client) => {
                let rows = client.borrow_mut().query(sql, &[]).unwrap();
                rows.iter().map(|row| (row.get(0), row.get(1))).collect()
            }
        }
    }

    /// Keeps everybody from writing until [`release`](Self::release).
    pub fn block(&self) {
        match &self.0 {
            Store::Sqlite { connection, .. } => connection.execute_batch("BEGIN IMMEDIATE").unwrap(),
            Store::Postgres(client) => {
                client.borrow_mut().batch_execute("BEGIN; LOCK TABLE events, deliveries").unwrap()
            }
        }
    }

    /// Lets them go on.
    pub fn release(&self) {
        match &self.0 {
            Store::Sqlite { connection, .. } => connection.execute_batch("ROLLBACK").unwrap(),
            Store::Postgres(client) => client.borrow_mut().batch_execute("ROLLBACK").unwrap(),
        }
    }

    /// All that it holds: the bytes of its files, or its rows as text.
    pub fn contents(&self) -> Vec<u8> {
        match &self.0 {
            Store::Sqlite { folder, .. } => {
                let files = std::fs::read_dir(folder).unwrap();
                // The log comes and goes.
                files.filter_map(|file| std::fs::read(file.unwrap().path()).ok()).flatten().collect()
            }
            Store::Postgres(client) => {
                let mut client = client.borrow_mut();
                let tables = client
                    .query(
                        "SELECT table_name::text FROM information_schema.tables
                         WHERE table_schema = 'relay' AND table_type = 'BASE TABLE'",
                        &[],
                    )
                    .unwrap();
                let mut queries: Vec<_> = tables
                    .iter()
                    .map(|table| format!("SELECT rows::text FROM {} AS rows", table.get::<_, &str>(0)))
                    .collect();
                // Rows have it in hexadecimal.
                queries.push("SELECT encode(value, 'escape') FROM dead".to_owned());
                let rows = queries.iter().flat_map(|query| client.query(query, &[]).unwrap());
                rows.flat_map(|row| row.get::<_, String>(0).into_bytes()).collect()
            }
        }
    }
}
