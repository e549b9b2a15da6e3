//! Migrations.

use harness::{Service, at_once, number, repository};
use rusqlite::Connection;

fn steps() -> Vec<String> {
    let mut files: Vec<_> = std::fs::read_dir(repository().join("migrations/sqlite"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect()
}

fn tables(database: &Connection) -> Vec<String> {
    let mut query =
        database.prepare("SELECT sql FROM sqlite_schema WHERE type = 'table' ORDER BY name").unwrap();
    query
        .query_map([], |row| row.get::<_, String>(0))
        .unwrap()
        .map(|sql| sql.unwrap().trim_end().to_owned())
        .collect()
}

fn version(database: &Connection) -> usize {
    let version: i64 = database.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    usize::try_from(version).unwrap()
}

#[test]
fn every_step_is_one_statement_and_the_service_takes_them_all() {
    let by_hand = Connection::open_in_memory().unwrap();
    for step in steps() {
        // prepare refuses a second statement.
        by_hand.prepare(&step).unwrap().execute([]).unwrap();
    }
    let service = Service::start();
    service.client().generate(&number());
    let database = Connection::open(service.database()).unwrap();
    assert_eq!(tables(&database), tables(&by_hand));
    assert_eq!(version(&database), steps().len());
    let mode: String = database.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
}

#[test]
fn services_that_start_together_on_an_empty_file_agree() {
    for _ in 0..3 {
        let folder = tempfile::tempdir().unwrap();
        let services = at_once(3, |_| Service::builder().state(folder.path()).start());
        let clients: Vec<_> = services.iter().map(Service::client).collect();
        // Sixty requests at once, each the first of some instance.
        let made = at_once(60, |index| {
            let number = number();
            (clients[index % 3].generate(&number)["otp"].clone(), number)
        });
        for (otp, number) in made {
            assert_eq!(clients[0].resend(&number).expect(200)["otp"], otp);
        }
        let database = Connection::open(services[0].database()).unwrap();
        assert_eq!(version(&database), steps().len());
    }
}

#[test]
fn a_file_that_a_newer_version_has_brought_further_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let first = Service::builder().state(folder.path()).start();
    first.client().generate(&number());
    drop(first);
    let database = Connection::open(folder.path().join("sqlite_db.db")).unwrap();
    database.execute_batch("ALTER TABLE users ADD COLUMN later TEXT; PRAGMA user_version = 99").unwrap();
    let service = Service::builder().state(folder.path()).start();
    service.client().generate(&number());
    assert_eq!(version(&database), 99);
}

#[test]
fn a_version_grows_even_when_the_clock_stands_behind_it() {
    let service = Service::start();
    let (client, number) = (service.client(), number());
    client.generate(&number);
    let database = Connection::open(service.database()).unwrap();
    let version =
        |statement: &str| -> i64 { database.query_row(statement, [&number], |row| row.get(0)).unwrap() };
    let ahead =
        version("UPDATE users SET version = version + 1000000 WHERE mobile_number = ?1 RETURNING version");
    client.generate(&number);
    client.regenerate(&number).expect(201);
    assert_eq!(version("SELECT version FROM users WHERE mobile_number = ?1"), ahead + 2);
}

#[test]
fn a_write_that_comes_too_late_does_nothing() {
    let database = Connection::open_in_memory().unwrap();
    steps().iter().for_each(|step| database.execute_batch(step).unwrap());
    let statement = |name: &str| {
        let file = repository().join("components/otp/src/store/sqlite").join(name);
        std::fs::read_to_string(file).unwrap()
    };
    let now: i64 = database
        .query_row("SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)", [], |row| row.get(0))
        .unwrap();
    let ids = std::cell::Cell::new(0);
    let event = |at: i64| {
        format!(
            "{{\"id\":\"{}\",\"type\":\"otp.generated.v1\",\"data\":{{}}}}",
            ids.replace(ids.get() + 1) + at
        )
    };
    let written = |name: &str, at: i64| -> usize {
        use rusqlite::types::Value::{self, Blob, Integer, Null};
        let text = |text: &str| Value::Text(text.to_owned());
        let number = text("+14155550123");
        let common = [number, Integer(at), text(&event(at)), Null, Integer(0)];
        let sends = [Integer(100), Integer(600_000), Null];
        let code = [text(&format!("id-{at}")), Blob(vec![1]), Blob(vec![2]), Integer(at + 600_000)];
        let delivery = [text("sms"), Null, Null];
        let parameters: Vec<Value> = match name {
            "issue.sql" => common.into_iter().chain(sends).chain(code).chain(delivery).collect(),
            "reissue.sql" => common.into_iter().chain(sends).chain(code).collect(),
            "resend.sql" => common.into_iter().chain(sends).chain([Null, Integer(5)]).collect(),
            _ => {
                let guess = [Integer(30), Integer(1_000), Null, Blob(vec![3]), Integer(5)];
                common.into_iter().chain(guess).collect()
            }
        };
        let mut statement = database.prepare(&statement(name)).unwrap();
        statement.query_map(rusqlite::params_from_iter(parameters), |_| Ok(())).unwrap().count()
    };
    let events =
        || -> i64 { database.query_row("SELECT count(*) FROM outbox", [], |row| row.get(0)).unwrap() };
    for (name, events_by_now) in [("issue.sql", 1), ("resend.sql", 2), ("reissue.sql", 3), ("check.sql", 4)] {
        assert_eq!(written(name, now), 1, "{name} in time");
        assert_eq!(events(), events_by_now, "{name} leaves its event");
        assert_eq!(written(name, now - 10_000), 0, "{name} too late");
        assert_eq!(events(), events_by_now, "{name} too late leaves none");
    }
}
