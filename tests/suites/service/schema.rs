//! Migrations, whichever database it is.

use crate::now;
use harness::{Parameter, Service, Sql, Statements, at_once, migrations, number, store, temporary_folder};
use std::cell::Cell;

/// How many steps were taken.
fn taken(service: &Service) -> usize {
    let database = service.sql();
    let steps = Sql::either("SELECT user_version FROM pragma_user_version", "SELECT max(step) FROM steps");
    usize::try_from(database.number(steps, &[])).unwrap()
}

#[test]
fn services_that_start_together_on_an_empty_database_agree() {
    for _ in 0..3 {
        let folder = temporary_folder();
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
        assert_eq!(taken(&services[0]), migrations(store()).len());
    }
}

#[test]
fn a_database_that_a_newer_version_has_brought_further_is_left_alone() {
    let folder = temporary_folder();
    let first = Service::builder().state(folder.path()).start();
    first.client().generate(&number());
    let further = Sql::either("PRAGMA user_version = 99", "INSERT INTO steps (step) VALUES (99)");
    first.sql().batch("ALTER TABLE users ADD COLUMN later TEXT");
    first.sql().batch(further);
    drop(first);
    let service = Service::builder().state(folder.path()).start();
    service.client().generate(&number());
    assert_eq!(taken(&service), 99);
}

#[test]
fn a_version_grows_even_when_the_clock_stands_behind_it() {
    let service = Service::start();
    let (client, number) = (service.client(), number());
    client.generate(&number);
    let database = service.sql();
    let version = |statement: &str| database.number(statement, &[&number]);
    let ahead =
        version("UPDATE users SET version = version + 1000000 WHERE mobile_number = ?1 RETURNING version");
    client.generate(&number);
    client.regenerate(&number).expect(201);
    assert_eq!(version("SELECT version FROM users WHERE mobile_number = ?1"), ahead + 2);
}

#[test]
fn a_write_that_comes_too_late_does_nothing() {
    use Parameter::{Bytes, Integer, Json, Null, Text};
    let statements = Statements::new();
    let (database, now, ids) = (statements.sql(), now(), Cell::new(0));
    let text = |text: &str| Text(text.to_owned());
    // Runs a statement whose time ends at that moment.
    let run = |name: &str, end: i64| {
        let id = ids.replace(ids.get() + 1);
        let event = Json(format!("{{\"id\":\"{id}\",\"type\":\"otp.generated.v1\",\"data\":{{}}}}"));
        let number = text("+14155550123");
        let common = [number.clone(), Integer(now), event.clone(), Null, Integer(0)];
        let sends = [Integer(100), Integer(600_000), Null];
        let code = [text(&format!("id-{id}")), Bytes(vec![1]), Bytes(vec![2]), Integer(now + 600_000)];
        let own = match name {
            "issue.sql" => sends.into_iter().chain(code).chain([text("sms"), Null, Null]).collect(),
            "reissue.sql" => sends.into_iter().chain(code).collect(),
            "resend.sql" => sends.into_iter().chain([Null, Integer(5)]).collect(),
            _ => vec![Integer(30), Integer(1_000), Null, Bytes(vec![3]), Integer(5)],
        };
        let mut parameters: Vec<_> = common.into_iter().chain(own).collect();
        if name == "erase.sql" {
            parameters = vec![number, Integer(now), text("index"), event];
        }
        parameters.push(Integer(end));
        statements.run(name, parameters).len()
    };
    let left = || {
        let user = database.rows("SELECT * FROM users WHERE id > 0", &[]);
        (user, database.rows("SELECT event FROM outbox ORDER BY sequence", &[]))
    };
    for (name, rows) in
        [("issue.sql", 1), ("resend.sql", 1), ("reissue.sql", 1), ("check.sql", 1), ("erase.sql", 0)]
    {
        let before = left();
        assert_eq!(run(name, now - 10), 0, "{name} too late");
        assert_eq!(left(), before, "{name} too late leaves nothing");
        assert_eq!(run(name, now + 60_000), rows, "{name} in time");
        let after = left();
        assert_ne!(after.0, before.0, "{name} changes its user");
        assert_ne!(after.1.last(), before.1.last(), "{name} leaves its event");
    }
}
