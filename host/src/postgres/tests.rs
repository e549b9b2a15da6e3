//! Against a PostgreSQL of the test's own.

use super::{
    bindings::postgres::{DbError, DbValue, QueryError},
    *,
};
use crate::allowed_hosts::AllowedHosts;
use harness::Postgres as Server;
use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

/// The harness waits for its servers as no thread of a runtime may.
fn started(start: impl FnOnce() -> Server) -> Server {
    tokio::task::block_in_place(start)
}

fn servers(allowed: &[&str]) -> Servers {
    Servers::new(AllowedHosts::only(allowed))
}

async fn open(servers: &Servers, address: &str) -> Connection {
    Connection(Session::open(servers, address, None).await.unwrap())
}

/// Runs a statement to its end.
async fn query(
    connection: &Connection,
    statement: &str,
    parameters: Vec<ParameterValue>,
) -> Result<(Vec<Column>, Vec<Row>), Error> {
    let (columns, mut batches, outcome) = connection.start(statement, parameters).await?;
    let mut rows = std::mem::take(&mut batches.ready);
    while batches.coming.is_some() {
        std::future::poll_fn(|context| batches.poll_fill(context)).await;
        rows.append(&mut batches.ready);
    }
    outcome.await.unwrap().map(|()| (columns, rows))
}

async fn rows(connection: &Connection, statement: &str) -> Result<Vec<Row>, Error> {
    query(connection, statement, Vec::new()).await.map(|(_, rows)| rows)
}

/// The one value of a statement.
async fn value(connection: &Connection, statement: &str) -> String {
    let rows = rows(connection, statement).await.unwrap();
    let [row] = &rows[..] else { panic!("{statement}: {rows:?}") };
    let [value] = &row[..] else { panic!("{statement}: {row:?}") };
    format!("{value:?}")
}

#[track_caller]
fn refused_by_postgres(outcome: Result<impl Debug, Error>) -> DbError {
    match outcome {
        Err(Error::QueryFailed(QueryError::DbError(error))) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_the_types_in_use_come_back_as_they_went_in() {
    use ParameterValue as Parameter;
    let server = started(Server::start);
    let connection = open(&servers(&[&server.endpoint()]), &server.url()).await;
    for (kind, parameter, value) in [
        ("int4", Parameter::Int32(i32::MIN), DbValue::Int32(i32::MIN)),
        ("int8", Parameter::Int64(i64::MIN), DbValue::Int64(i64::MIN)),
        ("text", Parameter::Str("grüße '\"".into()), DbValue::Str("grüße '\"".into())),
        ("varchar", Parameter::Str("v".into()), DbValue::Str("v".into())),
        ("char(3)", Parameter::Str("c".into()), DbValue::Str("c  ".into())),
        ("bytea", Parameter::Binary(vec![0, 255]), DbValue::Binary(vec![0, 255])),
        ("text", Parameter::DbNull, DbValue::DbNull),
        ("int8", Parameter::DbNull, DbValue::DbNull),
    ] {
        let given = format!("{parameter:?}");
        let statement = format!("SELECT $1::{kind} AS value");
        let (columns, rows) = query(&connection, &statement, vec![parameter]).await.unwrap();
        assert_eq!(format!("{rows:?}"), format!("{:?}", [[value]]), "{kind} {given}");
        assert_eq!(columns[0].name, "value");
    }
    for kind in ["json", "jsonb"] {
        let json = Parameter::Jsonb(b"{\"a\":\"b\"}".to_vec());
        let (_, rows) = query(&connection, &format!("SELECT $1::{kind}->>'a'"), vec![json]).await.unwrap();
        assert_eq!(format!("{rows:?}"), "[[DbValue::Str(\"b\")]]", "{kind}");
    }
    let none = query(&connection, "SELECT $1::jsonb::text", vec![Parameter::Jsonb(b"{".to_vec())]).await;
    assert_eq!(refused_by_postgres(none).code, "22P02");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_postgres_says_is_passed_on_and_the_connection_lives() {
    let server = started(Server::start);
    let connection = open(&servers(&[&server.endpoint()]), &server.url()).await;
    let execute = async |statement: &str| rows(&connection, statement).await;
    execute("CREATE TABLE t (x int CONSTRAINT small CHECK (x < 10) CONSTRAINT one UNIQUE)").await.unwrap();
    execute("INSERT INTO t VALUES (1), (2)").await.unwrap();

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
    let statement = "SELECT x, 'a' AS y FROM t WHERE false";
    let (columns, rows) = query(&connection, statement, Vec::new()).await.unwrap();
    assert_eq!(columns.iter().map(|column| &column.name[..]).collect::<Vec<_>>(), ["x", "y"]);
    assert!(rows.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_other_types_are_refused_before_anything_is_executed() {
    use ParameterValue as Parameter;
    let server = started(Server::start);
    let connection = open(&servers(&[&server.endpoint()]), &server.url()).await;
    rows(&connection, "CREATE TABLE t (x bool)").await.unwrap();
    for parameter in [
        Parameter::Boolean(true),
        Parameter::Floating64(0.5),
        Parameter::Date((2024, 2, 29)),
        Parameter::Uuid("01234567-89ab-cdef-0123-456789abcdef".into()),
        Parameter::Decimal("1".into()),
        Parameter::RangeInt32((None, None)),
        Parameter::ArrayStr(vec![None]),
    ] {
        let given = format!("{parameter:?}");
        match query(&connection, "INSERT INTO t VALUES ($1)", vec![parameter]).await {
            Err(Error::BadParameter(reason)) => {
                assert!(reason.contains("$1 is unsupported") && !reason.contains("2024"), "{reason}");
            }
            other => panic!("{given}: {other:?}"),
        }
    }
    for kind in ["bool", "float8", "timestamptz", "uuid", "jsonb", "numeric", "int4range", "text[]", "inet"] {
        let statement = format!("INSERT INTO t VALUES (true) RETURNING NULL::{kind} AS c");
        match rows(&connection, &statement).await {
            Err(Error::QueryFailed(QueryError::Text(reason))) => {
                assert!(reason.contains("column c is unsupported"), "{kind}: {reason}");
            }
            other => panic!("{kind}: {other:?}"),
        }
    }
    // What a parameter is for is known once the statement is prepared.
    for (statement, parameters) in
        [("SELECT $1::int4", vec![Parameter::Int64(1)]), ("SELECT $1::int4", Vec::new())]
    {
        let refused = query(&connection, statement, parameters).await;
        assert!(matches!(&refused, Err(Error::QueryFailed(QueryError::Text(_)))), "{statement}: {refused:?}");
    }
    assert_eq!(value(&connection, "SELECT count(*) FROM t").await, "DbValue::Int64(0)");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_forms_of_an_address_lead_there_and_only_where_the_manifest_allows() {
    let server = started(Server::start);
    let (host, port) = server.address().split_once(':').unwrap();
    let pairs = format!(
        "host={host} port={port} user={} password='{}' dbname={} sslmode=disable",
        server.user(),
        server.password(),
        server.database()
    );
    let allowed = servers(&[&server.endpoint()]);
    for address in [&pairs, &server.url(), &format!("{}?sslmode=prefer", server.url())] {
        assert_eq!(value(&open(&allowed, address).await, "SELECT 1").await, "DbValue::Int32(1)");
    }
    for (address, manifest) in [
        (pairs.clone(), "postgres://127.0.0.1:1".to_owned()),
        (server.url(), "redis://127.0.0.1:1".to_owned()),
        // The one that it would go to, and one of several.
        (format!("{pairs} hostaddr=127.0.0.2"), server.endpoint()),
        (format!("postgres://u@127.0.0.2:1,{}/d", server.address()), server.endpoint()),
        // Without a port it is PostgreSQL's own.
        (format!("postgres://u@{host}/d"), server.endpoint()),
        (server.url().replace("127.0.0.1", "sesame@127.0.0.1"), server.endpoint()),
    ] {
        let refused = Session::open(&servers(&[&manifest]), &address, None).await;
        match &refused {
            Err(Error::ConnectionFailed(reason)) => {
                assert!(reason.contains("is not permitted"), "{address}: {reason}");
                assert!(!reason.contains("sesame"), "{reason}");
            }
            _ => panic!("{address}: {refused:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_cannot_connect_is_told_why_without_the_password() {
    let server = started(Server::start);
    let nothing = format!("postgres://{}", harness::unused_address());
    let allowed = servers(&[&server.endpoint(), &nothing, "postgres://127.0.0.1"]);
    let right = server.url();
    let address = |credentials: &str| format!("postgres://{credentials}@{}/postgres", server.address());
    for (address, said) in [
        (address("spin_otp:sesame"), "password authentication failed"),
        (address("nobody:sesame"), "authentication failed"),
        (format!("{right}?sslmode=require"), "TLS"),
        (format!("{right}?port=sesame"), "connection string"),
        ("host=127.0.0.1 password=open sesame user=u".to_owned(), "connection string"),
        ("host=127.0.0.1 password=open sesame=x".to_owned(), "connection string"),
        ("sesame".to_owned(), "connection string"),
        ("user=sesame".to_owned(), "host"),
        ("host=/tmp user=u password=sesame".to_owned(), "Unix"),
        (nothing.replace("//", "//u:sesame@"), "refused"),
    ] {
        match Session::open(&allowed, &address, None).await {
            Err(Error::ConnectionFailed(reason)) => {
                assert!(reason.contains(said) && !reason.contains("sesame"), "{address}: {reason}");
            }
            other => panic!("{address}: {other:?}"),
        }
    }
    let connection = open(&allowed, &right).await;
    assert!(!format!("{allowed:?} {connection:?}").contains("password that"));
}

/// Opens the way a guest does that trusts an authority.
async fn open_trusting(servers: &Arc<Servers>, authority: &str, address: &str) -> Result<String, Error> {
    let mut postgres = &mut Postgres::new(Arc::clone(servers), Requests::default());
    let resource = HostConnectionBuilder::new(&mut postgres, address.to_owned()).unwrap();
    postgres.set_ca_root(Resource::new_borrow(resource.rep()), authority.to_owned())?;
    let builder = postgres.builder(&resource)?.clone();
    let session = Session::open(servers, &builder.address, builder.authority.as_ref()).await?;
    let resource_of_connection = postgres.keep(session)?;
    let connection = postgres.connection(&resource_of_connection)?;
    HostConnection::drop(&mut postgres, resource_of_connection).unwrap();
    HostConnectionBuilder::drop(&mut postgres, resource).unwrap();
    Ok(value(&connection, "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()").await)
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_the_authority_and_the_name_are_checked() {
    let server = started(Server::with_tls);
    let other = started(Server::with_tls);
    let authority = |server: &Server| std::fs::read_to_string(server.authority()).unwrap();
    let url = server.url();
    let (_, port) = server.address().split_once(':').unwrap();
    let names = ["127.0.0.1", "localhost", "db.example"].map(|name| format!("postgres://{name}:{port}"));
    let allowed = Arc::new(servers(&names.each_ref().map(|name| &name[..])));
    let by_name = url.replace("127.0.0.1", "localhost");
    for address in [format!("{url}?sslmode=require"), url.clone(), by_name] {
        let seen = open_trusting(&allowed, &authority(&server), &address).await.unwrap();
        assert_eq!(seen, "DbValue::Str(\"true\")", "{address}");
    }
    // Several in one text, as a bundle has them.
    let both = [authority(&other), authority(&server)].concat();
    open_trusting(&allowed, &both, &url).await.unwrap();

    let pairs =
        format!("port={port} user={} password='{}' dbname=postgres", server.user(), server.password());
    let misnamed = format!("host=db.example hostaddr=127.0.0.1 {pairs}");
    for (refused, said) in [
        (open_trusting(&allowed, &authority(&other), &url).await, "certificate"),
        (open_trusting(&allowed, &authority(&server), &misnamed).await, "not valid for name"),
        (Session::open(&allowed, &url, None).await.map(|_| String::new()), "certificate"),
        (
            open_trusting(&allowed, &authority(&server), &format!("{url}?sslmode=disable")).await,
            "no encryption",
        ),
    ] {
        match refused {
            Err(Error::ConnectionFailed(reason)) => assert!(reason.contains(said), "{said}: {reason}"),
            other => panic!("{said}: {other:?}"),
        }
    }
    for text in ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let refused = open_trusting(&allowed, text, &url).await;
        assert!(
            matches!(&refused, Err(Error::Other(reason)) if reason.starts_with("invalid root certificate: ")),
            "{refused:?}"
        );
    }
}

/// A guest's connections, and one beside them that sees what they are at.
struct Watched {
    guests: Servers,
    address: String,
    watcher: Connection,
}

impl Watched {
    async fn on(server: &Server) -> Self {
        let guests = servers(&[&server.endpoint()]);
        let address = format!("{}?application_name=guest", server.url());
        let watcher = open(&servers(&[&server.endpoint()]), &server.url()).await;
        Self { guests, address, watcher }
    }

    async fn open(&self) -> Connection {
        open(&self.guests, &self.address).await
    }

    /// How many of the server's processes serve guests, of those that the condition holds for.
    async fn count(&self, condition: &str) -> String {
        let from = "FROM pg_stat_activity WHERE application_name = 'guest'";
        value(&self.watcher, &format!("SELECT count(*)::int4 {from} AND {condition}")).await
    }

    async fn until(&self, count: u32, condition: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        let wanted = format!("DbValue::Int32({count})");
        while self.count(condition).await != wanted {
            assert!(Instant::now() < deadline, "{condition}: {}", self.count(condition).await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn process(connection: &Connection) -> String {
    value(connection, "SELECT pg_backend_pid()").await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_takes_the_connection_that_is_there_with_its_prepared_statements() {
    let server = started(Server::start);
    let watched = Watched::on(&server).await;
    let first = process(&watched.open().await).await;
    for number in 0..10 {
        let connection = watched.open().await;
        let (_, rows) =
            query(&connection, "SELECT $1::int4", vec![ParameterValue::Int32(number)]).await.unwrap();
        assert_eq!(format!("{rows:?}"), format!("[[DbValue::Int32({number})]]"));
    }
    let connection = watched.open().await;
    assert_eq!(process(&connection).await, first);
    let statement = "SELECT count(*)::text || sum(generic_plans + custom_plans)::text \
                     FROM pg_prepared_statements WHERE statement = 'SELECT $1::int4'";
    assert_eq!(value(&connection, statement).await, "DbValue::Str(\"110\")");
    assert_eq!(watched.count("true").await, "DbValue::Int32(1)");

    // A guest that writes its values into its statements does not fill the server's memory.
    for number in 0..600 {
        value(&connection, &format!("SELECT {number}")).await;
    }
    let statement = "SELECT (count(*) <= 256)::text FROM pg_prepared_statements";
    assert_eq!(value(&connection, statement).await, "DbValue::Str(\"true\")");
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_64_connections_and_whoever_finds_none_waits() {
    let server = started(Server::start);
    let watched = Watched::on(&server).await;
    let mut held = Vec::new();
    for _ in 0..64 {
        held.push(watched.open().await);
    }
    let mut waiting = Box::pin(watched.open());
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut waiting).await.is_err());
    assert_eq!(watched.count("true").await, "DbValue::Int32(64)");
    held.pop();
    let late = tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap();
    assert_eq!(value(&late, "SELECT 1").await, "DbValue::Int32(1)");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_is_prepared_anew_where_it_cannot_be_executed_as_it_was() {
    let server = started(Server::start);
    let connection = open(&servers(&[&server.endpoint()]), &server.url()).await;
    let execute = async |statement: &str| rows(&connection, statement).await.unwrap();
    execute("CREATE TABLE t AS SELECT 1 AS x").await;
    assert_eq!(value(&connection, "SELECT * FROM t").await, "DbValue::Int32(1)");
    execute("ALTER TABLE t ALTER x TYPE text").await;
    assert_eq!(value(&connection, "SELECT * FROM t").await, "DbValue::Str(\"1\")");
    execute("DEALLOCATE ALL").await;
    assert_eq!(value(&connection, "SELECT * FROM t").await, "DbValue::Str(\"1\")");

    // Inside a transaction that is too late, and what is said is why.
    execute("BEGIN").await;
    execute("ALTER TABLE t ADD y int").await;
    let error = refused_by_postgres(rows(&connection, "SELECT * FROM t").await);
    assert!(error.message.contains("cached plan"), "{error:?}");
    execute("ROLLBACK").await;
    assert_eq!(value(&connection, "SELECT * FROM t").await, "DbValue::Str(\"1\")");
}

const PATIENCE: Duration = Duration::from_millis(300);

/// What a guest does that does not wait for ever.
async fn in_time<T>(work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(PATIENCE, work).await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_is_given_up_is_cancelled_and_its_connection_closed() {
    let server = started(Server::start);
    let watched = Watched::on(&server).await;
    let connection = watched.open().await;
    let first = process(&connection).await;
    assert!(in_time(rows(&connection, "SELECT pg_sleep(60)::text")).await.is_none());
    // It can still be used, behind what was given up.
    assert!(in_time(rows(&connection, "SELECT 1")).await.is_none());
    assert_eq!(watched.count("state = 'active'").await, "DbValue::Int32(1)");
    drop(connection);
    watched.until(0, "true").await;
    assert_ne!(process(&watched.open().await).await, first);

    // What came after it has shown that it is over.
    let connection = watched.open().await;
    let second = process(&connection).await;
    assert!(in_time(rows(&connection, "SELECT pg_sleep(0.5)::text")).await.is_none());
    assert_eq!(value(&connection, "SELECT 1").await, "DbValue::Int32(1)");
    drop(connection);
    assert_eq!(process(&watched.open().await).await, second);

    // Neither its transaction nor a lock stays.
    rows(&watched.watcher, "CREATE TABLE t (x int)").await.unwrap();
    let connection = watched.open().await;
    for statement in ["BEGIN", "LOCK TABLE t", "INSERT INTO t VALUES (1)"] {
        rows(&connection, statement).await.unwrap();
    }
    assert!(in_time(rows(&connection, "SELECT pg_sleep(60)::text")).await.is_none());
    drop(connection);
    assert_eq!(value(&watched.watcher, "SELECT count(*) FROM t").await, "DbValue::Int64(0)");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_come_as_they_are_taken_and_the_rest_is_given_up_with_them() {
    let server = started(Server::start);
    let watched = Watched::on(&server).await;
    let connection = watched.open().await;
    let statement = "SELECT repeat('x', 1000) FROM generate_series(1, 100000)";
    let (columns, mut batches, mut outcome) = connection.start(statement, Vec::new()).await.unwrap();
    assert_eq!(columns[0].name, "repeat");
    let mut count = 0;
    for _ in 0..5 {
        std::future::poll_fn(|context| batches.poll_fill(context)).await;
        assert!((1..100).contains(&batches.ready.len()), "{}", batches.ready.len());
        count += std::mem::take(&mut batches.ready).len();
    }
    assert!(outcome.try_recv().is_err());
    // The server waits for whoever reads.
    watched.until(1, "wait_event = 'ClientWrite'").await;
    while batches.coming.is_some() {
        std::future::poll_fn(|context| batches.poll_fill(context)).await;
        count += std::mem::take(&mut batches.ready).len();
    }
    assert_eq!(count, 100_000);
    outcome.await.unwrap().unwrap();

    let (_, batches, _) = connection.start(statement, Vec::new()).await.unwrap();
    drop((connection, batches));
    watched.until(0, "true").await;

    // What goes wrong on the way is the outcome's.
    let connection = watched.open().await;
    let statement = "SELECT 1 / (1000 - x) FROM generate_series(1, 2000) x";
    let (_, mut batches, outcome) = connection.start(statement, Vec::new()).await.unwrap();
    while batches.coming.is_some() {
        batches.ready.clear();
        std::future::poll_fn(|context| batches.poll_fill(context)).await;
    }
    assert_eq!(refused_by_postgres(outcome.await.unwrap()).code, "22012");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_would_fill_the_memory_is_refused() {
    let server = started(Server::start);
    let guests = servers(&[&server.endpoint()]);
    let connection = open(&guests, &server.url()).await;
    let statement = "SELECT repeat('x', 135000000)";
    match rows(&connection, statement).await {
        Err(Error::QueryFailed(QueryError::Text(reason))) => assert!(reason.contains("exceeds"), "{reason}"),
        other => panic!("{:?}", other.map(|rows| rows.len())),
    }
    drop(connection);
    assert_eq!(value(&open(&guests, &server.url()).await, "SELECT 1").await, "DbValue::Int32(1)");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_holds_up_nobody_once_it_goes_on() {
    let server = started(Server::start);
    let watched = Watched::on(&server).await;
    let held: Vec<_> = futures::future::join_all((0..8).map(|_| watched.open())).await;
    drop(held);
    server.freeze();
    // Those that are there, and new ones: each of them hangs.
    let start = Instant::now();
    let guests = (0..100).map(|_| in_time(async { rows(&watched.open().await, "SELECT 1").await }));
    let outcomes = futures::future::join_all(guests).await;
    assert!(outcomes.iter().all(Option::is_none), "{outcomes:?}");
    assert!(start.elapsed() < PATIENCE * 5, "{:?}", start.elapsed());
    // Who has more patience hears of it in the end.
    let refused =
        Session::open(&watched.guests, &format!("{}&connect_timeout=1", watched.address), None).await;
    match refused {
        Err(Error::ConnectionFailed(reason)) => assert!(reason.ends_with("within 1 s"), "{reason}"),
        other => panic!("{other:?}"),
    }
    server.thaw();
    for _ in 0..20 {
        let outcome = tokio::time::timeout(Duration::from_secs(2), async {
            value(&watched.open().await, "SELECT 1").await
        });
        assert_eq!(outcome.await.unwrap(), "DbValue::Int32(1)");
    }
    watched.until(1, "true").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_the_first_statement_goes_to_a_connection_that_lives() {
    let mut server = started(Server::start);
    let watched = Watched::on(&server).await;
    let held: Vec<_> = futures::future::join_all((0..8).map(|_| watched.open())).await;
    for connection in &held {
        rows(connection, "SELECT 1").await.unwrap();
    }
    drop(held);
    let (unused, used) = (watched.open().await, watched.open().await);
    rows(&used, "SELECT 1").await.unwrap();
    tokio::task::block_in_place(|| server.restart());
    assert_eq!(value(&watched.open().await, "SELECT 1").await, "DbValue::Int32(1)");
    assert_eq!(value(&unused, "SELECT 1").await, "DbValue::Int32(1)");
    // Here a transaction might have been open: what is done next must not be done without its beginning.
    assert!(rows(&used, "SELECT 1").await.is_err());

    tokio::task::block_in_place(|| server.kill());
    let refused = Session::open(&watched.guests, &watched.address, None).await;
    assert!(matches!(&refused, Err(Error::ConnectionFailed(_))), "{refused:?}");
}
