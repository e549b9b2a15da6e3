//! Migrations, whichever database it is.

use crate::now;
use harness::{Parameter, Service, Sql, Statements, at_once, migrations, number, store, temporary_folder};

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
    first.sql().batch("ALTER TABLE accounts ADD COLUMN later TEXT");
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
    let revision = |statement: &str| database.number(statement, &[&number]);
    let ahead =
        revision("UPDATE accounts SET revision = revision + 1000000 WHERE recipient = ?1 RETURNING revision");
    client.generate(&number);
    client.regenerate(&number).expect(201);
    assert_eq!(revision("SELECT version FROM accounts WHERE recipient = ?1"), ahead + 2);
    assert_eq!(revision("SELECT revision FROM accounts WHERE recipient = ?1"), ahead + 2);
}

/// An account on its way into the database, as the columns have it, and what goes with it.
struct Writing {
    revision: i64,
    expected: Parameter,
    late: i64,
    key: Option<&'static str>,
    meters: Option<&'static str>,
}

impl Writing {
    fn parameters(&self) -> Vec<Parameter> {
        use Parameter::{Bytes, Integer, Json, Null, Text};
        let text = |text: &str| Text(text.to_owned());
        let whose = [text("subject"), text("default"), text("+14155550123"), Integer(self.revision)];
        let nothing = [Null, Null, Null, text("[]"), Null, Integer(0), Null, Null];
        let code =
            [text("id"), Integer(self.revision), Bytes(vec![1]), Bytes(vec![2; 32]), text("sms"), Null];
        let life = [Integer(1), Integer(2), Integer(0), Null];
        let event = format!("{{\"revision\":{}}}", self.revision);
        let terms = [self.expected.clone(), Integer(self.late), text(&event), text("subject"), text("+1415")];
        let optional = |value: Option<Parameter>| value.unwrap_or(Null);
        let far = Integer(self.late + 1_000_000);
        let answer = [
            optional(self.key.map(text)),
            optional(self.key.map(|_| text("request"))),
            Null,
            Null,
            Null,
            Null,
            optional(self.key.map(|_| far)),
        ];
        let meters = optional(self.meters.map(|meters| Json(meters.to_owned())));
        let all = whose.into_iter().chain(nothing).chain(code).chain(life).chain(terms).chain(answer);
        all.chain([meters]).collect()
    }
}

/// All rows of the tables that a commit writes.
fn everything(database: &Sql) -> Vec<Vec<Vec<serde_json::Value>>> {
    ["accounts", "outbox", "idempotency", "meters"]
        .map(|table| database.rows(format!("SELECT * FROM {table} ORDER BY 1"), &[]))
        .into()
}

#[test]
fn a_commit_writes_all_of_it_or_nothing_if_something_is_not_as_it_was() {
    use Parameter::{Integer, Null};
    let statements = Statements::new();
    let (database, now) = (statements.sql(), now());
    let far = now + 60_000;
    let new = || Writing { revision: now, expected: Integer(0), late: far, key: None, meters: None };
    let commit = |writing: &Writing| statements.run("commit.sql", writing.parameters()).len();
    let refused = |what: &str, writing: Writing| {
        let before = everything(database);
        assert_eq!(commit(&writing), 0, "{what}");
        assert_eq!(everything(database), before, "{what} leaves nothing");
    };
    let full = Some(r#"[["full",1000000,0],["empty",1000000,0]]"#);
    let all = Writing { key: Some("key"), meters: Some(r#"[["full",3600000000,0]]"#), ..new() };
    refused("too late", Writing { late: now - 10, ..new() });
    refused("an account that is not there", Writing { expected: Integer(now - 1), ..new() });
    database.execute("UPDATE forgotten SET up_to = ?1", &[&now]);
    refused("a revision of before an erasure", new());
    database.execute("UPDATE forgotten SET up_to = 0", &[]);
    assert_eq!(commit(&all), 1);
    let next = || Writing { revision: now + 1, expected: Integer(now), ..new() };
    refused("an account that is there already", new());
    refused("another revision", Writing { expected: Integer(now + 1), ..next() });
    refused("a key that was answered", Writing { key: Some("key"), ..next() });
    refused("a full meter beside an empty one", Writing { meters: full, ..next() });
    let range = Sql::either(
        "INSERT INTO suspensions VALUES ('default', '+1415', 0, ?1, 1, '{}')",
        "INSERT INTO suspensions VALUES ('default', '+1415', 0, ?1, 1)",
    );
    database.execute(range, &[&far]);
    refused("a suspended range", next());
    database.execute("UPDATE suspensions SET application = 'other'", &[]);
    refused("no such revision, whoever says so late", Writing { late: now - 10, expected: Null, ..next() });
    let before = everything(database);
    assert_eq!(commit(&Writing { key: Some("another"), ..next() }), 1);
    let after = everything(database);
    for (table, (before, after)) in
        ["accounts", "outbox", "idempotency"].iter().zip(before.iter().zip(&after))
    {
        assert_ne!(before, after, "{table}");
    }
    assert_eq!(commit(&Writing { revision: now + 9, expected: Null, ..next() }), 1, "whatever a decoy has");
}

#[test]
fn an_erasure_does_all_of_it_or_nothing() {
    use Parameter::{Integer, Text};
    let statements = Statements::new();
    let (database, now) = (statements.sql(), now());
    let erase = |subject: &str, expected: i64, late: i64| {
        let parameters = [
            Text(subject.to_owned()),
            Integer(expected),
            Integer(now + 5),
            Integer(late),
            Text("{\"erased\":1}".to_owned()),
        ];
        statements.run("erase.sql", parameters).len()
    };
    let writing =
        Writing { revision: now, expected: Integer(0), late: now + 60_000, key: Some("k"), meters: None };
    assert_eq!(statements.run("commit.sql", writing.parameters()).len(), 1);
    let before = everything(database);
    assert_eq!(erase("subject", now, now - 10), 0, "too late");
    assert_eq!(erase("subject", now + 1, now + 60_000), 0, "another revision");
    assert_eq!(erase("subject", 0, now + 60_000), 0, "known after all");
    assert_eq!(everything(database), before);
    assert_eq!(erase("subject", now, now + 60_000), 1);
    assert_eq!(database.number("SELECT count(*) FROM accounts WHERE application <> ''", &[]), 0);
    assert_eq!(database.number("SELECT count(*) FROM idempotency", &[]), 0);
    assert_eq!(database.documents("SELECT event FROM outbox", &[]), [serde_json::json!({ "erased": 1 })]);
    assert_eq!(database.number("SELECT up_to FROM forgotten", &[]), now + 5);
    // Of what is not known, only the event is left, and what an erasure has left before stays.
    assert_eq!(erase("unknown", 0, now + 60_000), 1);
    assert_eq!(database.number("SELECT count(*) FROM outbox", &[]), 2);
}
