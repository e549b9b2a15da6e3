//! SQLite's file. These have one, also where the suites run on Postgres.

use harness::{Builder, IN_TIME, Service, Sql, Store, migrations, number, temporary_folder};
use std::time::{Duration, Instant};

/// A service on SQLite, whatever the others are on.
fn in_a_file() -> Builder {
    Service::builder().variable("postgres_endpoint", "")
}

fn schema(database: &Sql) -> Vec<String> {
    let rows = database.rows("SELECT coalesce(sql, name) FROM sqlite_schema ORDER BY name", &[]);
    rows.iter().map(|row| row[0].as_str().unwrap().trim_end_matches([';', '\n']).to_owned()).collect()
}

#[test]
fn every_part_of_a_step_is_one_statement_and_the_service_takes_them_all() {
    let folder = temporary_folder();
    let by_hand = Sql::sqlite(&folder.path().join("by_hand.db"));
    let steps = migrations(Store::Sqlite);
    for statement in steps.iter().flat_map(|step| step.split("\n--;\n")) {
        // A second statement would be refused.
        by_hand.execute(statement, &[]);
    }
    let service = in_a_file().start();
    service.client().generate(&number());
    let database = service.sql();
    assert_eq!(schema(&database), schema(&by_hand));
    assert_eq!(database.number("PRAGMA user_version", &[]), steps.len() as i64);
    assert_eq!(database.text("PRAGMA journal_mode", &[]), "wal");
}

#[test]
fn a_file_that_is_no_database_is_not_ready_and_not_touched() {
    let folder = temporary_folder();
    let file = folder.path().join("sqlite_db.db");
    let garbage = "this is no database ".repeat(500);
    std::fs::write(&file, &garbage).unwrap();
    let service = in_a_file().state(folder.path()).start();
    let client = service.client();
    let start = Instant::now();
    let answer = client.get("/readyz");
    let problem = answer.expect_problem(503, "unavailable");
    assert_eq!(problem["dependencies"]["database"]["status"], "down");
    assert!(start.elapsed() < IN_TIME);
    assert_eq!(answer.header("retry-after"), "1");
    client.resend(&number()).expect_problem(503, "unavailable");
    client.get("/healthz").expect(200);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), garbage);

    // Mended, it serves again without a restart.
    std::fs::remove_file(&file).unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while client.get("/readyz").status != 200 {
        assert!(Instant::now() < deadline, "{}", service.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    client.generate(&number());
}

#[test]
fn a_file_of_before_the_baseline_is_named_and_left_alone() {
    let folder = temporary_folder();
    let file = Sql::sqlite(&folder.path().join("sqlite_db.db"));
    file.batch("CREATE TABLE users (id INTEGER PRIMARY KEY); PRAGMA user_version = 40");
    let service = in_a_file().state(folder.path()).start();
    service.client().get("/readyz").expect_problem(503, "unavailable");
    assert!(service.log().contains("before 0.1.0"), "{}", service.log());
    assert_eq!(file.tables(), ["users"]);
}
