//! Over a file of the test's own.

use super::*;
use std::time::{Duration, Instant};

struct Folder {
    database: Arc<Database>,
    /// Removed with this.
    _folder: tempfile::TempDir,
}

impl Folder {
    fn open(&self) -> Arc<Session> {
        Arc::new(Session::open(Arc::clone(&self.database)))
    }
}

fn folder() -> Folder {
    let folder = tempfile::tempdir().unwrap();
    let database = Arc::new(Database::in_folder(&folder.path().join("state")).unwrap());
    Folder { database, _folder: folder }
}

async fn run(connection: &Session, statement: &str) -> Result<Vec<Vec<Value>>, Error> {
    let (_, rows) = connection.execute(statement.to_owned(), Vec::new()).await;
    rows.map(|rows| rows.into_iter().map(|row| row.values).collect())
}

fn integer(rows: &[Vec<Value>]) -> i64 {
    match rows {
        [row] => match row[..] {
            [Value::Integer(integer)] => integer,
            _ => panic!("{row:?}"),
        },
        _ => panic!("{rows:?}"),
    }
}

#[tokio::test]
async fn values_of_every_type_come_back_as_they_went_in() {
    let folder = folder();
    let connection = folder.open();
    let values = vec![
        Value::Integer(i64::MIN),
        Value::Real(0.5),
        Value::Text("grüße\0 '\"".to_owned()),
        Value::Blob(vec![0, 255]),
        Value::Null,
    ];
    let statement = "SELECT ?1 AS a, ?2 AS b, ?3 AS c, ?4 AS d, ?5 AS e".to_owned();
    let (columns, rows) = connection.execute(statement, values.clone()).await;
    assert_eq!(columns, ["a", "b", "c", "d", "e"]);
    assert_eq!(format!("{:?}", rows.unwrap()[0].values), format!("{values:?}"));
}

#[tokio::test]
async fn the_file_is_where_spin_keeps_it_and_outlives_its_connections() {
    let folder = folder();
    assert!(folder.database.path().ends_with("state/sqlite_db.db"));
    let first = folder.open();
    run(&first, "CREATE TABLE t (x)").await.unwrap();
    run(&first, "INSERT INTO t VALUES (7)").await.unwrap();
    drop(first);
    assert_eq!(integer(&run(&folder.open(), "SELECT x FROM t").await.unwrap()), 7);
}

#[tokio::test]
async fn an_error_is_told_and_the_connection_lives_on() {
    let folder = folder();
    let connection = folder.open();
    for (statement, said) in [
        ("SELEC 1", "syntax error"),
        ("SELECT * FROM nowhere", "no such table"),
        ("ATTACH 'other.db' AS other", "not authorized"),
    ] {
        match run(&connection, statement).await {
            Err(Error::Io(reason)) => assert!(reason.contains(said), "{reason}"),
            other => panic!("{statement}: {other:?}"),
        }
    }
    assert_eq!(integer(&run(&connection, "SELECT 1").await.unwrap()), 1);
}

#[tokio::test]
async fn each_open_is_a_connection_of_its_own() {
    let folder = folder();
    let (one, two) = (folder.open(), folder.open());
    run(&one, "CREATE TEMP TABLE mine (x)").await.unwrap();
    assert!(run(&two, "SELECT * FROM mine").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_at_once_all_get_their_turn() {
    let folder = folder();
    let first = folder.open();
    run(&first, "PRAGMA journal_mode = WAL").await.unwrap();
    run(&first, "CREATE TABLE t (x)").await.unwrap();
    let writers = (0..32).map(|_| {
        let connection = folder.open();
        tokio::spawn(async move {
            // Refuse rather than wait: without turns this would fail at once.
            run(&connection, "PRAGMA busy_timeout = 0").await.unwrap();
            for _ in 0..20 {
                run(&connection, "INSERT INTO t VALUES (1)").await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    assert_eq!(integer(&run(&first, "SELECT count(*) FROM t").await.unwrap()), 640);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_keeps_its_turn_until_it_ends_or_its_connection_does() {
    let folder = folder();
    let (one, two) = (folder.open(), folder.open());
    for connection in [&one, &two] {
        run(connection, "PRAGMA busy_timeout = 0").await.unwrap();
    }
    run(&one, "CREATE TABLE t (x)").await.unwrap();
    run(&one, "BEGIN IMMEDIATE").await.unwrap();
    run(&one, "INSERT INTO t VALUES (1)").await.unwrap();

    let waiting = tokio::spawn({
        let two = two.clone();
        async move { run(&two, "INSERT INTO t VALUES (2)").await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    run(&one, "COMMIT").await.unwrap();
    waiting.await.unwrap().unwrap();

    run(&one, "BEGIN IMMEDIATE").await.unwrap();
    run(&one, "INSERT INTO t VALUES (3)").await.unwrap();
    drop(one);
    run(&two, "INSERT INTO t VALUES (4)").await.unwrap();
    assert_eq!(integer(&run(&two, "SELECT sum(x) FROM t").await.unwrap()), 7, "3 was rolled back");
}

#[test]
fn only_what_the_manifest_grants_can_be_opened() {
    let folder = folder();
    let mut granted = Sqlite::new(Some(folder.database), Requests::default());
    assert!(granted.open("default").is_ok());
    assert!(matches!(granted.open("other"), Err(Error::AccessDenied)));
    let mut denied = Sqlite::new(None, Requests::default());
    assert!(matches!(denied.open("default"), Err(Error::AccessDenied)));
}

/// A connection of another process, as far as SQLite can tell.
fn outside(folder: &Folder) -> rusqlite::Connection {
    rusqlite::Connection::open(folder.database.path()).unwrap()
}

async fn setting(session: &Session, name: &str) -> i64 {
    integer(&run(session, &format!("PRAGMA {name}")).await.unwrap())
}

#[tokio::test]
async fn what_a_guest_sets_holds_for_its_connection_only() {
    let folder = folder();
    let (one, two) = (folder.open(), folder.open());
    for _ in 0..2 {
        run(&one, "PRAGMA busy_timeout = 1234").await.unwrap();
        run(&one, "PRAGMA synchronous = NORMAL").await.unwrap();
        run(&one, "CREATE TABLE IF NOT EXISTS t (x)").await.unwrap();
        for (session, busy_timeout, synchronous) in
            [(&one, 1234, 1), (&two, 5000, 2), (&folder.open(), 5000, 2)]
        {
            run(session, "SELECT count(*) FROM t").await.unwrap();
            assert_eq!(setting(session, "synchronous").await, synchronous);
            assert_eq!(setting(session, "busy_timeout").await, busy_timeout);
        }
    }
    run(&one, "PRAGMA foreign_keys = OFF").await.unwrap();
    assert_eq!((setting(&one, "foreign_keys").await, setting(&one, "synchronous").await), (0, 1));
    assert_eq!(setting(&two, "foreign_keys").await, 1);
}

#[tokio::test]
async fn guests_share_a_connection_and_what_was_prepared_on_it() {
    let folder = folder();
    let keeps_it = folder.open();
    for number in 0..50 {
        let session = folder.open();
        run(&session, "PRAGMA busy_timeout = 2000").await.unwrap();
        run(&session, "PRAGMA synchronous = NORMAL").await.unwrap();
        if number == 0 {
            run(&session, "CREATE TABLE t (x)").await.unwrap();
        }
        run(&session, "INSERT INTO t VALUES (1)").await.unwrap();
        assert_eq!(integer(&run(&session, "SELECT count(*) FROM t").await.unwrap()), number + 1);
    }
    let descriptors = || {
        let links = std::fs::read_dir("/proc/self/fd").unwrap();
        let targets = links.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        targets.filter(|target| target == folder.database.path()).count()
    };
    assert!(descriptors() <= 4, "one for each stage of the settings, and the writer's: {}", descriptors());
    drop(keeps_it);
    // All are closed with the last guest.
    while descriptors() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_transaction_is_its_guest_s_until_it_ends() {
    let folder = folder();
    let (one, two) = (folder.open(), folder.open());
    run(&one, "PRAGMA journal_mode = WAL").await.unwrap();
    run(&one, "CREATE TABLE t (x)").await.unwrap();
    let count = async |session: &Session| integer(&run(session, "SELECT count(*) FROM t").await.unwrap());
    for (end, left) in [("ROLLBACK", 0), ("COMMIT", 2)] {
        run(&one, "BEGIN IMMEDIATE").await.unwrap();
        for _ in 0..2 {
            run(&one, "INSERT INTO t VALUES (1)").await.unwrap();
        }
        assert_eq!((count(&one).await, count(&two).await), (2, 0));
        run(&one, end).await.unwrap();
        assert_eq!((count(&one).await, count(&two).await), (left, left));
    }
    run(&two, "INSERT INTO t VALUES (1)").await.unwrap();
    assert_eq!(count(&one).await, 3);
    // One begun without a word of writing, and one that a failure ends.
    run(&two, "BEGIN").await.unwrap();
    run(&two, "INSERT INTO t VALUES (1)").await.unwrap();
    assert!(run(&two, "INSERT OR ROLLBACK INTO t SELECT abs(-9223372036854775808)").await.is_err());
    run(&two, "ROLLBACK").await.unwrap();
    assert_eq!(count(&two).await, 3);
}

#[tokio::test]
async fn a_lock_of_another_process_holds_up_its_statement_and_nothing_else() {
    let folder = folder();
    let session = folder.open();
    run(&session, "PRAGMA busy_timeout = 300").await.unwrap();
    run(&session, "PRAGMA journal_mode = WAL").await.unwrap();
    run(&session, "CREATE TABLE t (x)").await.unwrap();
    let insert = "INSERT INTO t VALUES (1)";
    for _ in 0..3 {
        run(&session, insert).await.unwrap();
    }
    let other = outside(&folder);
    for _ in 0..2 {
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        // On one thread: a statement that blocked it would hold up the timer.
        let start = Instant::now();
        let (refused, late) = tokio::join!(run(&session, insert), async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            start.elapsed()
        });
        assert!(late < Duration::from_millis(200), "{late:?}");
        assert!(matches!(&refused, Err(Error::Io(reason)) if reason.contains("locked")), "{refused:?}");
        assert!(start.elapsed() >= Duration::from_millis(250), "{:?}", start.elapsed());
        // In time it is waited for.
        let (inserted, ()) = tokio::join!(run(&session, insert), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            other.execute_batch("COMMIT").unwrap();
        });
        inserted.unwrap();
    }
    assert_eq!(integer(&run(&session, "SELECT count(*) FROM t").await.unwrap()), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_given_up_happens_as_a_whole_or_not_at_all() {
    let folder = folder();
    let session = folder.open();
    run(&session, "PRAGMA journal_mode = WAL").await.unwrap();
    run(&session, "CREATE TABLE t (x)").await.unwrap();
    let insert =
        "WITH n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 50000) INSERT INTO t SELECT x FROM n";
    for millis in 0..10 {
        let call = run(&session, insert);
        let _ = tokio::time::timeout(Duration::from_millis(millis), call).await;
    }
    run(&session, "INSERT INTO t VALUES (1)").await.unwrap();
    let count = integer(&run(&session, "SELECT count(*) FROM t").await.unwrap());
    assert_eq!(count % 50_000, 1);

    // Neither does one that waits for its turn take it along.
    let holder = folder.open();
    run(&holder, "BEGIN IMMEDIATE").await.unwrap();
    for _ in 0..5 {
        let call = run(&session, "INSERT INTO t VALUES (2)");
        assert!(tokio::time::timeout(Duration::from_millis(10), call).await.is_err());
    }
    run(&holder, "COMMIT").await.unwrap();
    run(&session, "INSERT INTO t VALUES (3)").await.unwrap();
    assert_eq!(integer(&run(&session, "SELECT count(*) FROM t").await.unwrap()), count + 1);
}

#[tokio::test]
async fn functions_that_tell_of_the_statement_before_are_refused_outside_of_triggers() {
    let folder = folder();
    let session = folder.open();
    run(&session, "CREATE TABLE t (x)").await.unwrap();
    run(&session, "CREATE TABLE seen (x)").await.unwrap();
    let trigger =
        "CREATE TRIGGER i AFTER INSERT ON t BEGIN INSERT INTO seen VALUES (last_insert_rowid()); END";
    run(&session, trigger).await.unwrap();
    run(&session, "INSERT INTO t VALUES (7)").await.unwrap();
    assert_eq!(integer(&run(&session, "SELECT x FROM seen").await.unwrap()), 1);
    for statement in ["SELECT changes()", "SELECT Last_Insert_Rowid()", "SELECT total_changes()"] {
        let refused = run(&session, statement).await;
        assert!(
            matches!(&refused, Err(Error::Io(reason)) if reason.contains("not authorized")),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn a_guest_that_opens_the_database_sees_the_file_that_is_there() {
    let folder = folder();
    let before = folder.open();
    run(&before, "CREATE TABLE t (x)").await.unwrap();
    std::fs::remove_file(folder.database.path()).unwrap();
    let after = folder.open();
    assert!(run(&after, "SELECT * FROM t").await.is_err());
    run(&after, "CREATE TABLE t (x)").await.unwrap();
    run(&after, "INSERT INTO t VALUES (1)").await.unwrap();
    assert_eq!(integer(&run(&after, "SELECT count(*) FROM t").await.unwrap()), 1);
}

#[tokio::test]
async fn the_log_does_not_grow_for_ever() {
    let folder = folder();
    let session = folder.open();
    run(&session, "PRAGMA journal_mode = WAL").await.unwrap();
    run(&session, "PRAGMA synchronous = NORMAL").await.unwrap();
    run(&session, "CREATE TABLE t (x)").await.unwrap();
    let log = folder.database.path().with_extension("db-wal");
    let header = || u32::from_be_bytes(std::fs::read(&log).unwrap()[12..16].try_into().unwrap());
    let first = header();
    // How often it was begun anew stands in its head. The more often, the shorter it has stayed.
    let mut written = 0;
    while header() < first + 3 {
        assert!(written < 100_000, "the log was never begun anew");
        for _ in 0..1000 {
            run(&session, "INSERT INTO t VALUES (1)").await.unwrap();
        }
        written += 1000;
    }
    assert!(written >= 8000, "each time waits for the disk: not after so little as {written}");
}

#[tokio::test]
async fn a_statement_that_turns_out_to_be_long_holds_up_nothing_else() {
    let folder = folder();
    let session = folder.open();
    run(&session, "CREATE TABLE t (x)").await.unwrap();
    let insert = async |count: i64| {
        let statement = "WITH n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < ?1) INSERT INTO t SELECT x FROM n";
        session.execute(statement.to_owned(), vec![Value::Integer(count)]).await.1.unwrap();
    };
    for _ in 0..3 {
        insert(1).await;
    }
    let begun = Instant::now();
    let ((), late) = tokio::join!(insert(2_000_000), async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        begun.elapsed()
    });
    assert!(late < begun.elapsed() / 4, "{late:?} of {:?}", begun.elapsed());
    assert_eq!(integer(&run(&session, "SELECT count(*) FROM t").await.unwrap()), 2_000_003);
}

#[tokio::test]
async fn what_is_written_at_once_is_committed_together_and_each_hears_its_own_outcome() {
    let folder = folder();
    let session = folder.open();
    run(&session, "PRAGMA journal_mode = WAL").await.unwrap();
    run(&session, "CREATE TABLE t (x INTEGER PRIMARY KEY)").await.unwrap();
    let insert = async |number: i64| {
        let statement = "INSERT INTO t VALUES (?1) RETURNING x".to_owned();
        session.execute(statement, vec![Value::Integer(number)]).await.1
    };
    insert(0).await.unwrap();
    let log = folder.database.path().with_extension("db-wal");
    let length = || std::fs::metadata(&log).unwrap().len();
    let before = length();
    // Every other one is there already.
    for number in (10..30).step_by(2) {
        insert(number).await.unwrap();
    }
    let one_by_one = length() - before;
    let before = length();
    let outcomes = futures::future::join_all((10..30).map(&insert)).await;
    let together = length() - before;
    for (number, outcome) in (10..).zip(outcomes) {
        match outcome {
            Ok(rows) => {
                assert!(number % 2 == 1 && matches!(rows[0].values[..], [Value::Integer(x)] if x == number))
            }
            Err(Error::Io(reason)) => assert!(number % 2 == 0 && reason.contains("UNIQUE"), "{reason}"),
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(together * 5 <= one_by_one, "{together} bytes of log for ten, {one_by_one} one by one");
    assert_eq!(integer(&run(&session, "SELECT count(*) FROM t").await.unwrap()), 21);
}

#[tokio::test]
async fn one_that_undoes_the_transaction_takes_none_of_the_others_along() {
    let folder = folder();
    let session = folder.open();
    run(&session, "PRAGMA journal_mode = WAL").await.unwrap();
    run(&session, "CREATE TABLE t (x INTEGER PRIMARY KEY)").await.unwrap();
    let statements = ["INSERT INTO t SELECT max(x) + 1 FROM t", "INSERT OR ROLLBACK INTO t VALUES (1)"];
    run(&session, "INSERT INTO t VALUES (1)").await.unwrap();
    for _ in 0..3 {
        let at_once = [0, 0, 1, 0, 1, 0].map(|which| run(&session, statements[which]));
        let outcomes = futures::future::join_all(at_once).await;
        assert_eq!(
            outcomes.iter().map(Result::is_ok).collect::<Vec<_>>(),
            [true, true, false, true, false, true]
        );
    }
    assert_eq!(integer(&run(&session, "SELECT count(*) FROM t").await.unwrap()), 13);
}

#[tokio::test]
async fn one_that_turns_out_to_be_long_takes_none_of_the_others_along() {
    let folder = folder();
    let session = folder.open();
    run(&session, "PRAGMA journal_mode = WAL").await.unwrap();
    run(&session, "CREATE TABLE t (x)").await.unwrap();
    // All of its time is spent before it writes anything: broken off, it undoes nothing.
    let insert = async |count: i64| {
        let statement = "INSERT INTO t SELECT max(x) FROM (WITH n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < ?1) SELECT x FROM n)";
        session.execute(statement.to_owned(), vec![Value::Integer(count)]).await.1
    };
    for _ in 0..3 {
        insert(1).await.unwrap();
    }
    // Many quick ones are not taken for a long one, either.
    let pairs = (0..1_000).map(|_| [1, 1, 1]);
    for counts in [[1, 500_000, 1], [2, 3, 4]].into_iter().chain(pairs) {
        for outcome in futures::future::join_all(counts.map(&insert)).await {
            outcome.unwrap();
        }
    }
    assert_eq!(integer(&run(&session, "SELECT sum(x) FROM t").await.unwrap()), 3 + 500_002 + 9 + 3_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_that_want_the_same_row_do_not_get_in_each_other_s_way_for_long() {
    let folder = folder();
    let session = folder.open();
    run(&session, "PRAGMA journal_mode = WAL").await.unwrap();
    run(&session, "CREATE TABLE t (x)").await.unwrap();
    run(&session, "INSERT INTO t VALUES (0)").await.unwrap();
    let looks = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    // As a guest does that writes only what nobody has written since it looked.
    let count = async |session: Arc<Session>, looks: Arc<std::sync::atomic::AtomicUsize>| loop {
        looks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let seen = integer(&run(&session, "SELECT x FROM t").await.unwrap());
        let write = "UPDATE t SET x = x + 1 WHERE x = ?1 RETURNING x".to_owned();
        if !session.execute(write, vec![Value::Integer(seen)]).await.1.unwrap().is_empty() {
            break;
        }
    };
    for _ in 0..3 {
        count(Arc::clone(&session), Arc::clone(&looks)).await;
    }
    looks.store(0, std::sync::atomic::Ordering::Relaxed);
    const WRITERS: usize = 100;
    futures::future::join_all((0..WRITERS).map(|_| count(Arc::clone(&session), Arc::clone(&looks)))).await;
    assert_eq!(integer(&run(&session, "SELECT x FROM t").await.unwrap()), 3 + WRITERS as i64);
    // One that gets through at a time, with all others in vain, would be half the square of their number; it is a tenth of
    // that, and a third on a machine that is very busy.
    let looks = looks.load(std::sync::atomic::Ordering::Relaxed);
    assert!(looks < WRITERS * WRITERS * 2 / 5, "{looks} looks for {WRITERS} writes");
}
