//! Against a PostgreSQL of the test's own.

use super::{
    bindings::postgres::{DbError, DbValue, Interval, QueryError, RangeBoundKind},
    *,
};
use crate::{manifest::Manifest, outbound::AllowedHosts, variables::Variables};
use harness::Postgres as Server;

/// The harness waits for its servers as no thread of a runtime may.
fn started(start: impl FnOnce() -> Server) -> Server {
    tokio::task::block_in_place(start)
}

fn servers(allowed: &str) -> Servers {
    let manifest = Manifest::parse(
        "spin_manifest_version = 2\n[application]\nname = 'app'\n[[trigger.http]]\nroute = '/...'\n\
         component = 'c'\n[component.c]\nsource = 'c.wasm'",
        ".".into(),
    );
    let variables = Variables::resolve(&manifest.unwrap(), &Default::default()).unwrap();
    Servers::new(Arc::new(AllowedHosts::resolve(&[allowed.to_owned()], &variables).unwrap()))
}

async fn open(servers: &Servers, address: &str) -> Connection {
    Connection(servers.open(address, None).await.unwrap())
}

async fn rows(connection: &Connection, statement: &str) -> Result<Vec<Row>, Error> {
    connection.query(statement, Vec::new()).await.map(|set| set.rows)
}

/// The one value of a statement.
async fn value(connection: &Connection, statement: &str) -> String {
    let rows = rows(connection, statement).await.unwrap();
    let [row] = &rows[..] else { panic!("{statement}: {rows:?}") };
    let [value] = &row[..] else { panic!("{statement}: {row:?}") };
    format!("{value:?}")
}

#[track_caller]
fn refused_by_postgres(outcome: Result<impl std::fmt::Debug, Error>) -> DbError {
    match outcome {
        Err(Error::QueryFailed(QueryError::DbError(error))) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_every_type_come_back_as_they_went_in() {
    use ParameterValue as Parameter;
    use RangeBoundKind::{Exclusive, Inclusive};
    let server = started(Server::start);
    let connection = open(&servers(&server.endpoint()), &server.url()).await;
    let some = |text: &str| Some(text.to_owned());
    let interval = || Interval { micros: -1, days: 40, months: -13 };
    let decimal = "-123456789012345678901234567890.00012300";
    for (kind, parameter, value) in [
        ("bool", Parameter::Boolean(true), DbValue::Boolean(true)),
        ("int2", Parameter::Int16(i16::MIN), DbValue::Int16(i16::MIN)),
        ("int4", Parameter::Int32(i32::MIN), DbValue::Int32(i32::MIN)),
        ("int8", Parameter::Int64(i64::MIN), DbValue::Int64(i64::MIN)),
        ("float4", Parameter::Floating32(0.1), DbValue::Floating32(0.1)),
        ("float8", Parameter::Floating64(f64::MIN), DbValue::Floating64(f64::MIN)),
        ("text", Parameter::Str("grüße '\"".into()), DbValue::Str("grüße '\"".into())),
        ("varchar", Parameter::Str("v".into()), DbValue::Str("v".into())),
        ("char(3)", Parameter::Str("c".into()), DbValue::Str("c  ".into())),
        ("bytea", Parameter::Binary(vec![0, 255]), DbValue::Binary(vec![0, 255])),
        ("date", Parameter::Date((2024, 2, 29)), DbValue::Date((2024, 2, 29))),
        ("date", Parameter::Date((-4000, 1, 1)), DbValue::Date((-4000, 1, 1))),
        ("time", Parameter::Time((23, 59, 58, 123_456_000)), DbValue::Time((23, 59, 58, 123_456_000))),
        (
            "timestamp",
            Parameter::Datetime((1999, 12, 31, 23, 59, 59, 999_999_000)),
            DbValue::Datetime((1999, 12, 31, 23, 59, 59, 999_999_000)),
        ),
        (
            "uuid",
            Parameter::Uuid("{0123456789ABCDEF0123456789abcdef}".into()),
            DbValue::Uuid("01234567-89ab-cdef-0123-456789abcdef".into()),
        ),
        ("jsonb", Parameter::Jsonb(b"[1,null]".to_vec()), DbValue::Jsonb(b"[1, null]".to_vec())),
        ("numeric", Parameter::Decimal(decimal.into()), DbValue::Decimal(decimal.into())),
        ("numeric", Parameter::Decimal(".50".into()), DbValue::Decimal("0.50".into())),
        ("numeric", Parameter::Decimal("-0".into()), DbValue::Decimal("0".into())),
        ("numeric", Parameter::Decimal("100000000".into()), DbValue::Decimal("100000000".into())),
        ("numeric", Parameter::Decimal("0.00000001".into()), DbValue::Decimal("0.00000001".into())),
        (
            "int4range",
            Parameter::RangeInt32((Some((1, Exclusive)), Some((9, Inclusive)))),
            DbValue::RangeInt32((Some((2, Inclusive)), Some((10, Exclusive)))),
        ),
        ("int4range", Parameter::RangeInt32((None, None)), DbValue::RangeInt32((None, None))),
        (
            "int8range",
            Parameter::RangeInt64((Some((9, Inclusive)), Some((1, Inclusive)))),
            DbValue::RangeInt64((None, None)),
        ),
        (
            "numrange",
            Parameter::RangeDecimal((None, Some(("-1.5".into(), Inclusive)))),
            DbValue::RangeDecimal((None, Some(("-1.5".into(), Inclusive)))),
        ),
        ("int4[]", Parameter::ArrayInt32(vec![Some(1), None]), DbValue::ArrayInt32(vec![Some(1), None])),
        ("int8[]", Parameter::ArrayInt64(vec![]), DbValue::ArrayInt64(vec![])),
        (
            "numeric[]",
            Parameter::ArrayDecimal(vec![some("1.0"), None]),
            DbValue::ArrayDecimal(vec![some("1.0"), None]),
        ),
        ("text[]", Parameter::ArrayStr(vec![some(""), None]), DbValue::ArrayStr(vec![some(""), None])),
        ("interval", Parameter::Interval(interval()), DbValue::Interval(interval())),
        ("text", Parameter::DbNull, DbValue::DbNull),
        ("int4range", Parameter::DbNull, DbValue::DbNull),
    ] {
        let given = format!("{parameter:?}");
        let set = connection.query(&format!("SELECT $1::{kind} AS value"), vec![parameter]).await.unwrap();
        assert_eq!(format!("{:?}", set.rows), format!("{:?}", [[value]]), "{kind} {given}");
        assert_eq!(set.columns[0].name, "value");
    }
    let instant = connection.query(
        "SELECT $1::timestamptz = '2001-09-09 01:46:40+00', $2::name = 'n', $3::\"char\" = 'c', $4::json->>'a' = 'b'",
        vec![
            Parameter::Timestamp(1_000_000_000),
            Parameter::Str("n".into()),
            Parameter::Int8(99),
            Parameter::Jsonb(b"{\"a\":\"b\"}".to_vec()),
        ],
    );
    let all = format!("{:?}", [[const { DbValue::Boolean(true) }; 4]]);
    assert_eq!(format!("{:?}", instant.await.unwrap().rows), all);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_postgres_says_is_passed_on_and_the_connection_lives() {
    let server = started(Server::start);
    let connection = open(&servers(&server.endpoint()), &server.url()).await;
    let execute = async |statement: &str| connection.execute(statement, Vec::new()).await;
    execute("CREATE TABLE t (x int CONSTRAINT small CHECK (x < 10) CONSTRAINT one UNIQUE)").await.unwrap();
    assert_eq!(execute("INSERT INTO t VALUES (1), (2)").await.unwrap(), 2);

    let error = refused_by_postgres(execute("INSERT INTO t VALUES (1)").await);
    assert_eq!((&error.code[..], &error.severity[..]), ("23505", "ERROR"));
    assert!(error.message.contains("unique constraint") && error.as_text.contains("23505"), "{error:?}");
    assert_eq!(error.detail.as_deref(), Some("Key (x)=(1) already exists."));
    for (name, value) in [("constraint", "one"), ("table", "t"), ("schema", "public")] {
        assert!(error.extras.contains(&(name.to_owned(), value.to_owned())), "{error:?}");
    }
    assert_eq!(refused_by_postgres(execute("INSERT INTO t VALUES (11)").await).code, "23514");
    assert_eq!(refused_by_postgres(rows(&connection, "SELEC 1").await).code, "42601");
    assert_eq!(refused_by_postgres(rows(&connection, "SELECT * FROM nowhere").await).code, "42P01");
    let error = refused_by_postgres(rows(&connection, "SELECT 1 / (x - 1) FROM t").await);
    assert_eq!(error.code, "22012");

    assert_eq!(value(&connection, "SELECT sum(x) FROM t").await, "DbValue::Int64(3)");
    let set = connection.query("SELECT x, 'a' AS y FROM t WHERE false", Vec::new()).await.unwrap();
    assert_eq!(set.columns.iter().map(|column| &column.name[..]).collect::<Vec<_>>(), ["x", "y"]);
    assert!(set.rows.is_empty());
}
