//! The service's own statements, without the service.

use crate::{
    postgres::Postgres,
    service::{Store, repository, store},
    sql::{Connection, Literal, Sql, column_types, postgres_rows, sqlite_rows},
};
use postgres::{error::SqlState, types::Type};
use rusqlite::types::Value as SqliteValue;
use serde_json::Value;
use std::{cell::RefCell, collections::HashMap, fs, path::PathBuf};

/// A parameter of a statement.
#[derive(Debug, Clone)]
pub enum Parameter {
    Null,
    Integer(i64),
    Text(String),
    /// JSON, as text.
    Json(String),
    Bytes(Vec<u8>),
}

/// An empty database of the suite's kind with the service's schema, and the service's own statements on it.
#[derive(Debug)]
pub struct Statements {
    sql: Sql,
    /// What each statement is called on the server, and the types of its columns.
    prepared: RefCell<HashMap<String, (String, Vec<Type>)>>,
    // Last, so that nobody speaks to it any more when it ends.
    _server: Option<Postgres>,
}

impl Statements {
    /// With the migrations done.
    #[expect(clippy::new_without_default, reason = "it starts a server")]
    pub fn new() -> Self {
        let server = (store() == Store::Postgres).then(Postgres::start);
        let sql = match &server {
            Some(server) => Sql::postgres(server),
            None => Sql::in_sqlite(rusqlite::Connection::open_in_memory().unwrap()),
        };
        migrations(store()).iter().for_each(|step| sql.batch(step));
        if server.is_some() {
            // As the service has it.
            sql.batch("SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET jit = off");
        }
        Self { sql, prepared: RefCell::default(), _server: server }
    }

    /// The database itself.
    pub fn sql(&self) -> &Sql {
        &self.sql
    }

    /// Runs one of the service's statements, such as `issue.sql`. As for the service, no rows come back from one
    /// that gave up: it has done nothing.
    #[track_caller]
    pub fn run(&self, file: &str, parameters: impl IntoIterator<Item = Parameter>) -> Vec<Vec<Value>> {
        let mut client = match self.sql.connection() {
            Connection::Sqlite(connection) => {
                let mut statement = connection.prepare_cached(&text(Store::Sqlite, file)).unwrap();
                let parameters = rusqlite::params_from_iter(parameters.into_iter().map(into_sqlite));
                return sqlite_rows(statement.query(parameters).unwrap());
            }
            Connection::Postgres(client) => client.borrow_mut(),
        };
        let literals: Vec<_> =
            parameters.into_iter().map(|parameter| parameter.literal(Store::Postgres)).collect();
        let mut prepared = self.prepared.borrow_mut();
        let known = prepared.len();
        let (name, types) = prepared.entry(file.to_owned()).or_insert_with(|| {
            let (name, text) = (format!("known_{known}"), text(Store::Postgres, file));
            client.batch_execute(&format!("PREPARE {name} AS {text}")).unwrap();
            (name, column_types(&mut client, &text))
        });
        match client.simple_query(&format!("EXECUTE {name} ({})", literals.join(", "))) {
            Ok(messages) => postgres_rows(&messages, types),
            Err(error) if error.code().is_some_and(gave_up) => Vec::new(),
            Err(error) => panic!("{file}: {error:?}"),
        }
    }

    /// What `work` gives, with nothing changed by it.
    #[track_caller]
    pub fn trial<T>(&self, work: impl FnOnce() -> T) -> T {
        self.sql.batch("BEGIN");
        let outcome = work();
        self.sql.batch("ROLLBACK");
        outcome
    }
}

/// How a statement on Postgres says that it gave up, see migration 0009.
fn gave_up(code: &SqlState) -> bool {
    ["OTP01", "OTP02"].contains(&code.code())
}

/// The steps of the schema, oldest first.
pub fn migrations(store: Store) -> Vec<String> {
    let folder = repository().join("migrations").join(folder(store));
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read_to_string(file).unwrap()).collect()
}

fn text(store: Store, file: &str) -> String {
    let folder = repository().join("components/otp/src/store").join(folder(store));
    fs::read_to_string(folder.join(file)).unwrap()
}

fn folder(store: Store) -> &'static str {
    match store {
        Store::Sqlite => "sqlite",
        Store::Postgres => "postgres",
    }
}

fn into_sqlite(parameter: Parameter) -> SqliteValue {
    match parameter {
        Parameter::Null => SqliteValue::Null,
        Parameter::Integer(number) => SqliteValue::Integer(number),
        Parameter::Text(text) | Parameter::Json(text) => SqliteValue::Text(text),
        Parameter::Bytes(bytes) => SqliteValue::Blob(bytes),
    }
}

impl Literal for Parameter {
    fn literal(&self, store: Store) -> String {
        match (self, store) {
            (Self::Null, _) => "NULL".to_owned(),
            (Self::Integer(number), _) => number.literal(store),
            (Self::Text(text) | Self::Json(text), _) => text.literal(store),
            (Self::Bytes(bytes), Store::Sqlite) => format!("x'{}'", hex::encode(bytes)),
            (Self::Bytes(bytes), Store::Postgres) => format!(r"'\x{}'", hex::encode(bytes)),
        }
    }
}
