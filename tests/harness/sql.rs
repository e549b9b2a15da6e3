//! SQL of the tests themselves: written once, understood by both databases.

use crate::{postgres::Postgres, service::Store};
use postgres::{
    SimpleQueryMessage, SimpleQueryRow,
    types::{Kind, Type},
};
use rusqlite::types::ValueRef;
use serde_json::{Value, json};
use std::{cell::RefCell, path::Path, time::Duration};

/// How long a test's own statement waits for the service's.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// A statement.
///
/// In the form that both databases know, with two exceptions that are taken from SQLite: parameters are `?1`, `?2`
/// and so on, and what stands in JSON is `event ->> '$.data.channel'`.
#[derive(Debug, Clone)]
pub struct Statement {
    sqlite: String,
    postgres: String,
}

impl Statement {
    /// One that has to be another for each of them.
    pub fn either(sqlite: &str, postgres: &str) -> Self {
        Self { sqlite: sqlite.to_owned(), postgres: postgres.to_owned() }
    }

    fn filled_in(&self, store: Store, parameters: &[&dyn Literal]) -> String {
        let text = match store {
            Store::Sqlite => self.sqlite.clone(),
            Store::Postgres => with_json_paths(&self.postgres),
        };
        with_literals(&text, &parameters.iter().map(|parameter| parameter.literal(store)).collect::<Vec<_>>())
    }
}

impl<T: AsRef<str>> From<T> for Statement {
    fn from(text: T) -> Self {
        Self::either(text.as_ref(), text.as_ref())
    }
}

/// `a ->> '$.b.c'` becomes `a #>> '{b,c}'`.
fn with_json_paths(statement: &str) -> String {
    let mut parts = statement.split("->> '$.");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (path, rest) = part.split_once('\'').expect("a path ends");
        text += &format!("#>> '{{{}}}'{rest}", path.replace('.', ","));
    }
    text
}

/// Puts `?1` and the others in, wherever they do not stand in quotes.
fn with_literals(statement: &str, literals: &[String]) -> String {
    let mut text = String::with_capacity(statement.len());
    let mut quoted = false;
    let mut letters = statement.chars().peekable();
    while let Some(letter) = letters.next() {
        quoted ^= letter == '\'';
        if letter != '?' || quoted {
            text.push(letter);
            continue;
        }
        let mut place = 0;
        while let Some(digit) = letters.peek().and_then(|letter| letter.to_digit(10)) {
            place = place * 10 + digit as usize;
            letters.next();
        }
        text +=
            place.checked_sub(1).and_then(|index| literals.get(index)).expect("a parameter for each place");
    }
    text
}

/// What can stand in a statement.
pub trait Literal {
    /// As it stands there.
    fn literal(&self, store: Store) -> String;
}

impl Literal for &str {
    fn literal(&self, _: Store) -> String {
        format!("'{}'", self.replace('\'', "''"))
    }
}

impl Literal for String {
    fn literal(&self, store: Store) -> String {
        self.as_str().literal(store)
    }
}

impl Literal for i64 {
    fn literal(&self, _: Store) -> String {
        self.to_string()
    }
}

/// A connection to a service's database.
///
/// It gives integers as numbers, truth as 1 and 0, bytes as hexadecimal digits and all else as text; arrays have the
/// form that they have in JSON.
#[derive(Debug)]
pub struct Sql(Connection);

pub(crate) enum Connection {
    Sqlite(rusqlite::Connection),
    Postgres(RefCell<postgres::Client>),
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sqlite(_) => "SQLite",
            Self::Postgres(_) => "Postgres",
        })
    }
}

impl Sql {
    /// To the file, which is made if it is not there.
    pub fn sqlite(file: &Path) -> Self {
        Self::in_sqlite(rusqlite::Connection::open(file).unwrap())
    }

    pub(crate) fn in_sqlite(connection: rusqlite::Connection) -> Self {
        connection.busy_timeout(BUSY_TIMEOUT).unwrap();
        Self(Connection::Sqlite(connection))
    }

    /// To that server.
    pub fn postgres(postgres: &Postgres) -> Self {
        Self(Connection::Postgres(RefCell::new(postgres.connect())))
    }

    /// See [`Statement::either`].
    pub fn either(sqlite: &str, postgres: &str) -> Statement {
        Statement::either(sqlite, postgres)
    }

    /// Which database it is.
    pub fn store(&self) -> Store {
        match &self.0 {
            Connection::Sqlite(_) => Store::Sqlite,
            Connection::Postgres(_) => Store::Postgres,
        }
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.0
    }

    /// Runs several statements without parameters and results.
    #[track_caller]
    pub fn batch(&self, statements: impl Into<Statement>) {
        let text = statements.into().filled_in(self.store(), &[]);
        match &self.0 {
            Connection::Sqlite(connection) => connection.execute_batch(&text).unwrap(),
            Connection::Postgres(client) => client.borrow_mut().batch_execute(&text).unwrap(),
        }
    }

    /// Runs a statement that writes. How many rows it wrote.
    #[track_caller]
    pub fn execute(&self, statement: impl Into<Statement>, parameters: &[&dyn Literal]) -> usize {
        let text = statement.into().filled_in(self.store(), parameters);
        match &self.0 {
            Connection::Sqlite(connection) => connection.execute(&text, []).unwrap(),
            Connection::Postgres(client) => {
                let written = |message: &SimpleQueryMessage| match message {
                    SimpleQueryMessage::CommandComplete(rows) => usize::try_from(*rows).ok(),
                    _ => None,
                };
                client.borrow_mut().simple_query(&text).unwrap().iter().rev().find_map(written).unwrap()
            }
        }
    }

    /// The rows that a statement gives.
    #[track_caller]
    pub fn rows(&self, statement: impl Into<Statement>, parameters: &[&dyn Literal]) -> Vec<Vec<Value>> {
        let text = statement.into().filled_in(self.store(), parameters);
        match &self.0 {
            Connection::Sqlite(connection) => {
                sqlite_rows(connection.prepare(&text).unwrap().query([]).unwrap())
            }
            Connection::Postgres(client) => {
                let mut client = client.borrow_mut();
                let types = column_types(&mut client, &text);
                postgres_rows(&client.simple_query(&text).unwrap(), &types)
            }
        }
    }

    /// The one value that a statement gives.
    #[track_caller]
    pub fn value(&self, statement: impl Into<Statement>, parameters: &[&dyn Literal]) -> Value {
        let mut rows = self.rows(statement, parameters);
        assert_eq!(rows.len(), 1, "one row: {rows:?}");
        assert_eq!(rows[0].len(), 1, "one column: {rows:?}");
        rows.remove(0).remove(0)
    }

    /// The one number that a statement gives.
    #[track_caller]
    pub fn number(&self, statement: impl Into<Statement>, parameters: &[&dyn Literal]) -> i64 {
        let value = self.value(statement, parameters);
        value.as_i64().unwrap_or_else(|| panic!("a number: {value}"))
    }

    /// The one text that a statement gives.
    #[track_caller]
    pub fn text(&self, statement: impl Into<Statement>, parameters: &[&dyn Literal]) -> String {
        let value = self.value(statement, parameters);
        value.as_str().unwrap_or_else(|| panic!("a text: {value}")).to_owned()
    }

    /// The JSON that stands in the only column of each row.
    #[track_caller]
    pub fn documents(&self, statement: impl Into<Statement>, parameters: &[&dyn Literal]) -> Vec<Value> {
        let rows = self.rows(statement, parameters);
        rows.iter().map(|row| serde_json::from_str(row[0].as_str().unwrap()).unwrap()).collect()
    }

    /// The names of all tables.
    pub fn tables(&self) -> Vec<String> {
        let names = Statement::either(
            "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name",
            "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename",
        );
        self.rows(names, &[]).iter().map(|row| row[0].as_str().unwrap().to_owned()).collect()
    }

    /// Lets nobody else write, until what is returned is released or dropped: they wait.
    #[track_caller]
    pub fn hold_writes(self) -> Hold {
        self.hold("BEGIN IMMEDIATE", "EXCLUSIVE")
    }

    /// Lets nobody else read, either.
    #[track_caller]
    pub fn hold_all(self) -> Hold {
        self.hold("BEGIN EXCLUSIVE", "ACCESS EXCLUSIVE")
    }

    #[track_caller]
    fn hold(self, sqlite: &str, mode: &str) -> Hold {
        if self.store() == Store::Sqlite {
            self.batch(sqlite);
            return Hold(self);
        }
        let mut tables = self.tables();
        assert!(!tables.is_empty(), "nobody has used the database yet: ask /readyz first");
        // In the order in which statements take them.
        tables.sort_by_key(|table| (table != "accounts", table.clone()));
        self.batch(format!("BEGIN; LOCK TABLE {} IN {mode} MODE", tables.join(", ")));
        Hold(self)
    }
}

/// A database that others wait for, until it is dropped.
#[derive(Debug)]
pub struct Hold(Sql);

impl Hold {
    /// Lets them go on.
    pub fn release(self) {
        drop(self);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // The server may have been killed meanwhile.
        let _ = match &self.0.0 {
            Connection::Sqlite(connection) => connection.execute_batch("ROLLBACK").is_ok(),
            Connection::Postgres(client) => client.borrow_mut().batch_execute("ROLLBACK").is_ok(),
        };
    }
}

pub(crate) fn sqlite_rows(mut rows: rusqlite::Rows<'_>) -> Vec<Vec<Value>> {
    let columns = rows.as_ref().unwrap().column_count();
    let mut all = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        let value = |column| match row.get_ref(column).unwrap() {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(number) => json!(number),
            ValueRef::Real(number) => json!(number),
            ValueRef::Text(text) => json!(String::from_utf8_lossy(text)),
            ValueRef::Blob(bytes) => json!(hex::encode(bytes)),
        };
        all.push((0..columns).map(value).collect());
    }
    all
}

/// What the columns are that a statement gives.
pub(crate) fn column_types(client: &mut postgres::Client, statement: &str) -> Vec<Type> {
    let prepared = client.prepare(statement).unwrap();
    prepared.columns().iter().map(|column| column.type_().clone()).collect()
}

pub(crate) fn postgres_rows(messages: &[SimpleQueryMessage], types: &[Type]) -> Vec<Vec<Value>> {
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    rows.map(|row| postgres_row(row, types)).collect()
}

fn postgres_row(row: &SimpleQueryRow, types: &[Type]) -> Vec<Value> {
    let value = |(column, r#type): (usize, &Type)| {
        let Some(text) = row.get(column) else { return Value::Null };
        match (r#type, r#type.kind()) {
            (&Type::INT2 | &Type::INT4 | &Type::INT8, _) => json!(text.parse::<i64>().unwrap()),
            // What a sum of integers is.
            (&Type::NUMERIC, _) => text.parse::<i64>().map_or_else(|_| json!(text), |number| json!(number)),
            (&Type::BOOL, _) => json!(i64::from(text == "t")),
            (&Type::BYTEA, _) => json!(text.trim_start_matches("\\x")),
            (_, Kind::Array(_)) => json!(format!("[{}]", text.trim_matches(['{', '}']))),
            _ => json!(text),
        }
    };
    types.iter().enumerate().map(value).collect()
}
