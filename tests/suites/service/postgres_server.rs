//! A Postgres server that is new, of another version, refuses, hangs, dies or asks for TLS. These have one of their
//! own, also where the suites run on SQLite.

use harness::{
    Builder, Client, IN_TIME, Postgres, Proxy, Response, Service, Sql, Store, at_once, eventually,
    migrations, number, unused_address,
};
use serde_json::json;
use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

/// How soon it serves again when what was wrong is over.
const SOON: Duration = Duration::from_secs(10);

fn on(postgres: &Postgres) -> Builder {
    Service::builder().without_limits().postgres(postgres)
}

/// One of the calls, each of which needs the database.
fn call(client: &Client, index: usize, known: &str) -> Response {
    match index % 5 {
        0 => client.resend(known),
        1 => client.verify(known, "000000"),
        2 => client.post("/generate-otp", &json!({ "mobileNumber": number() })),
        3 => client.erase(&number()),
        _ => client.regenerate(known),
    }
}

/// Everybody hears that the service is unavailable, and in time.
#[track_caller]
fn is_unavailable(client: &Client, known: &str) {
    let answers = at_once(10, |index| {
        let start = Instant::now();
        (call(client, index, known), start.elapsed())
    });
    for (answer, took) in answers {
        answer.expect_problem(503, "unavailable");
        assert_eq!(answer.header("retry-after"), "1");
        assert!(took < IN_TIME, "{took:?}");
    }
    client.get("/healthz").expect(200);
}

/// It is not ready and says what is wrong, to the operator alone and without the password.
#[track_caller]
fn is_down(service: &Service, password: &str, why: &str) {
    let client = service.client();
    let start = Instant::now();
    let answer = client.get("/readyz");
    assert!(start.elapsed() < IN_TIME, "{:?}", start.elapsed());
    let problem = answer.expect_problem(503, "unavailable");
    assert_eq!(problem["dependencies"]["database"], json!({ "kind": "postgres", "status": "down" }));
    let generated = client.post("/generate-otp", &json!({ "mobileNumber": number() }));
    let told = generated.expect_problem(503, "unavailable").to_string() + &problem.to_string();
    let log = service.log();
    let reason = log.lines().find(|line| line.contains("Postgres"));
    let reason = reason.unwrap_or_else(|| panic!("the log does not say why: {log}"));
    assert!(reason.contains(why), "{reason}");
    for secret in [password, "spin_otp", why] {
        assert!(secret.is_empty() || !told.contains(secret), "{told}");
    }
    assert!(password.is_empty() || !log.contains(password), "{log}");
}

#[track_caller]
fn serves(client: &Client) {
    let number = number();
    let made = client.generate(&number);
    assert_eq!(client.resend(&number).expect(200)["otp"], made["otp"]);
    client.verify(&number, made["otp"].as_str().unwrap()).expect(200);
}

/// All that the tables, their indexes and functions are made of.
fn schema(database: &Sql) -> Vec<String> {
    let parts = [
        "SELECT table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable || ' ' ||
                coalesce(column_default, identity_generation, '')
         FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'steps'",
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'steps'",
        "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
        "SELECT conrelid::regclass || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
         WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text <> 'steps'",
    ];
    let rows = parts.iter().flat_map(|part| database.rows(part, &[]));
    let mut schema: Vec<_> = rows.map(|row| row[0].as_str().unwrap().to_owned()).collect();
    schema.sort();
    schema
}

#[test]
fn the_service_takes_all_steps_once_and_each_after_the_one_before_it() {
    let by_hand = Postgres::start();
    let steps = migrations(Store::Postgres);
    steps.iter().for_each(|step| Sql::postgres(&by_hand).batch(step));
    let postgres = Postgres::start();
    let hosts = at_once(3, |_| on(&postgres).start());
    let answers = at_once(30, |index| hosts[index % 3].client().try_generate(&number()).status);
    assert_eq!(answers, [201; 30]);
    let database = Sql::postgres(&postgres);
    assert_eq!(schema(&database), schema(&Sql::postgres(&by_hand)));
    let taken = database.rows("SELECT step FROM steps ORDER BY step", &[]);
    let taken: Vec<_> = taken.iter().map(|row| row[0].as_u64().unwrap() as usize).collect();
    assert_eq!(taken, (1..=steps.len()).collect::<Vec<_>>());
}

#[test]
fn whoever_finds_the_steps_being_taken_waits_no_longer_than_any_request() {
    let postgres = Postgres::start();
    let other = Sql::postgres(&postgres);
    // As another host has it that takes them just now.
    other.batch("BEGIN; SELECT pg_advisory_xact_lock(7310593858020254320)");
    let service = on(&postgres).start();
    is_unavailable(&service.client(), &number());
    assert_eq!(other.tables(), [""; 0]);
    other.batch("COMMIT");
    let client = service.client();
    eventually("readiness", SOON, || client.get("/readyz").status == 200);
    serves(&client);
}

#[test]
fn what_is_wrong_with_the_way_to_it_is_said_to_the_operator() {
    let postgres = Postgres::start();
    let with = |variable: &str, value: &str| on(&postgres).variable(variable, value).start();
    let password = "a password that is not the right one";
    is_down(&with("postgres_password", password), password, "password authentication failed");
    is_down(&with("postgres_user", "nobody"), postgres.password(), "password authentication failed");
    is_down(&with("postgres_database", "nothing"), postgres.password(), "\"nothing\" does not exist");
    // It does not speak TLS, and that was asked for.
    is_down(&with("postgres_tls", "require"), postgres.password(), "TLS");
    let nobody = format!("postgres://{}", unused_address());
    is_down(&with("postgres_endpoint", &nobody), postgres.password(), "cannot connect");
    assert_eq!(Sql::postgres(&postgres).tables(), [""; 0]);
}

#[test]
fn a_user_who_may_not_make_tables_is_told_so() {
    let postgres = Postgres::start();
    let owner = Sql::postgres(&postgres);
    owner.batch("CREATE ROLE guest LOGIN PASSWORD 'guest''s password'");
    let as_guest =
        || on(&postgres).variable("postgres_user", "guest").variable("postgres_password", "guest's password");
    is_down(&as_guest().start(), "guest's password", "permission denied for schema public");
    // Where the owner has made them, rights on the rows are enough.
    serves(&on(&postgres).start().client());
    owner.batch("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO guest");
    serves(&as_guest().start().client());
}

#[test]
fn with_tls_only_the_authority_that_was_named_is_trusted() {
    let (postgres, other) = (Postgres::with_tls(), Postgres::with_tls());
    let [right, wrong] =
        [&postgres, &other].map(|postgres| std::fs::read_to_string(postgres.authority()).unwrap());
    let with = |tls: &str, authority: &str| {
        on(&postgres).variable("postgres_tls", tls).variable("postgres_ca", authority).start()
    };
    serves(&with("require", &right).client());
    // Several may be named, as when one takes the place of another.
    serves(&with("require", &format!("{wrong}\n{right}")).client());
    is_down(&with("require", &wrong), postgres.password(), "certificate");
    // Those that this machine trusts have nothing to do with it.
    is_down(&with("require", ""), postgres.password(), "certificate");
    let named = with("require", "ca.pem").client().get("/readyz").expect_problem(503, "misconfigured");
    assert!(named["detail"].as_str().unwrap().contains("postgres_ca"), "{named}");
    // On this machine nobody asks for TLS by default, and the server does.
    is_down(&with("", ""), postgres.password(), "no encryption");
    is_down(&with("disable", &right), postgres.password(), "no encryption");
}

#[test]
fn the_name_in_the_certificate_has_to_be_that_of_the_endpoint() {
    let postgres = Postgres::with_tls();
    let authority = std::fs::read_to_string(postgres.authority()).unwrap();
    let (_, port) = postgres.address().rsplit_once(':').unwrap();
    let at = |host: &str| {
        on(&postgres)
            .variable("postgres_endpoint", &format!("postgres://{host}:{port}"))
            .variable("postgres_tls", "require")
            .variable("postgres_ca", &authority)
            .start()
    };
    serves(&at("localhost").client());
    // The same machine, by an address that the certificate does not have.
    is_down(&at("127.0.0.2"), postgres.password(), "");
}

#[test]
fn while_it_is_away_everybody_hears_503_in_time_and_then_it_serves_again() {
    let mut postgres = Postgres::start();
    let service = on(&postgres).start();
    let (client, known) = (service.client(), number());
    let made = client.generate(&known);
    for _ in 0..3 {
        postgres.kill();
        is_unavailable(&client, &known);
        is_unavailable(&client, &known);
        postgres.restart();
        // The connections that it has lost cost no request: each is made anew.
        let start = Instant::now();
        eventually("serving again", SOON, || client.resend(&known).status == 200);
        assert!(start.elapsed() < IN_TIME);
        let answers = at_once(20, |_| client.resend(&known));
        assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    }
    client.verify(&known, made["otp"].as_str().unwrap()).expect(200);
    assert!(!service.log().contains(postgres.password()));
}

#[test]
fn killed_in_the_middle_of_a_load_it_loses_no_code_that_was_answered() {
    let mut postgres = Postgres::start();
    let service = on(&postgres).start();
    let client = service.client();
    client.get("/readyz").expect(200);
    for _ in 0..3 {
        let (made, over) = (AtomicUsize::new(0), AtomicBool::new(false));
        let answered = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..8)
                .map(|_| {
                    let (client, made, over) = (&client, &made, &over);
                    scope.spawn(move || {
                        let mut answered = Vec::new();
                        while !over.load(Ordering::Relaxed) {
                            let number = number();
                            let answer = client.try_generate(&number);
                            match answer.status {
                                201 => {
                                    answered.push((number, answer.json()["otp"].clone()));
                                    made.fetch_add(1, Ordering::Relaxed);
                                }
                                _ => drop(answer.expect_problem(503, "unavailable")),
                            }
                        }
                        answered
                    })
                })
                .collect();
            eventually("a load", SOON, || made.load(Ordering::Relaxed) > 100);
            postgres.kill();
            // What was sent to it just then is answered, and some more.
            std::thread::sleep(Duration::from_millis(300));
            over.store(true, Ordering::Relaxed);
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
        });
        postgres.restart();
        eventually("readiness", SOON, || client.get("/readyz").status == 200);
        for (number, otp) in answered {
            assert_eq!(client.resend(&number).expect(200)["otp"], otp);
        }
    }
}

#[test]
fn while_it_is_frozen_everybody_hears_503_in_time_and_right_after_it_serves() {
    let postgres = Postgres::start();
    let service = on(&postgres).start();
    let (client, known) = (service.client(), number());
    client.generate(&known);
    for _ in 0..2 {
        postgres.freeze();
        is_unavailable(&client, &known);
        is_unavailable(&client, &known);
        postgres.thaw();
        let start = Instant::now();
        let answers = at_once(20, |_| client.resend(&known));
        assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
        assert!(start.elapsed() < IN_TIME, "{:?}", start.elapsed());
    }
}

#[test]
fn what_was_given_up_on_while_it_was_frozen_does_not_happen_later() {
    let postgres = Postgres::start();
    let service = on(&postgres).start();
    let client = service.client();
    let numbers: Vec<_> = (0..10).map(|_| number()).collect();
    let made: Vec<_> = numbers.iter().map(|number| client.generate(number)).collect();
    postgres.freeze();
    let answers = at_once(10, |index| client.regenerate(&numbers[index]).status);
    assert_eq!(answers, [503; 10]);
    postgres.thaw();
    // Long enough for whatever was under way.
    std::thread::sleep(Duration::from_millis(500));
    for (number, made) in numbers.iter().zip(made) {
        assert_eq!(client.resend(number).expect(200)["otp"], made["otp"]);
    }
}

#[test]
fn more_requests_at_once_than_there_are_connections_are_all_answered() {
    let postgres = Postgres::start();
    let service = on(&postgres).start();
    service.client().get("/readyz").expect(200);
    // A connection each, so that none of them waits here.
    let burst = || at_once(150, |_| service.client().try_generate(&number()));
    // The first has to wait until the server has let all of the host's connections in: that may be too long.
    for answer in burst().iter().filter(|answer| answer.status != 201) {
        answer.expect_problem(503, "unavailable");
    }
    let answers: Vec<_> = burst().iter().map(|answer| answer.status).collect();
    assert_eq!(answers, [201; 150]);
    let open = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'spin-otp'";
    assert!(Sql::postgres(&postgres).number(open, &[]) <= 128);
}

#[test]
fn nothing_is_left_open_on_the_connections() {
    let postgres = Postgres::start();
    let service = on(&postgres).start();
    let (client, known) = (service.client(), number());
    client.generate(&known);
    at_once(20, |index| call(&client, index, &known));
    let open = "SELECT count(*) FROM pg_stat_activity
                WHERE application_name = 'spin-otp' AND (state <> 'idle' OR xact_start IS NOT NULL)";
    let database = Sql::postgres(&postgres);
    eventually("rest", SOON, || database.number(open, &[]) == 0);
}

/// A plan is made when a table is empty, and kept: whatever has been written since, a request reads no table from its
/// beginning to its end.
#[test]
fn each_request_looks_up_what_it_names_however_much_there_is_besides() {
    let postgres = Postgres::start();
    let database = Sql::postgres(&postgres);
    // The server writes down how it goes about each statement, and those inside of functions.
    database.batch("LOAD 'auto_explain'");
    for setting in [
        "session_preload_libraries = 'auto_explain'",
        "auto_explain.log_min_duration = 0",
        "auto_explain.log_nested_statements = on",
    ] {
        database.batch(format!("ALTER SYSTEM SET {setting}").as_str());
    }
    database.batch("SELECT pg_reload_conf()");
    let service = Service::builder()
        .postgres(&postgres)
        .variable("redis_endpoint", "")
        .variable("client_rate_limit", "100000/1")
        .variable("global_rate_limit", "100000/1")
        .start();
    let client = service.client();
    let all_calls = || {
        let (known, key) = (number(), [("idempotency-key", "a-key")]);
        let asked = |number: &str| json!({ "mobileNumber": number });
        client.post_with("/generate-otp", &key, &asked(&known)).expect(201);
        // Again: once with the key's answer, once anew.
        assert!([201, 422].contains(&client.post_with("/generate-otp", &key, &asked(&known)).status));
        client.generate(&known);
        client.resend(&known).expect(200);
        client.regenerate(&known).expect(201);
        client.verify(&known, "000000").expect(422);
        for answer in [client.resend(&number()), client.verify(&number(), "000000")] {
            answer.expect(404);
        }
        assert_eq!(client.erase(&known).status, 204);
    };
    all_calls();
    eventually("a count of ranges", SOON, || database.number("SELECT count(*) FROM destinations", &[]) > 0);
    database.batch(
        "INSERT INTO accounts (subject, application, recipient, revision, sends, failures)
         SELECT 'of ' || i, 'a', '+1999' || i, 1, '[]', 0 FROM generate_series(1, 5000) AS i;
         INSERT INTO outbox (event, created_at, subject) SELECT '{}', 0, subject FROM accounts;
         INSERT INTO outbox_dead SELECT i, '{}', 0, 0, '', 'of ' || i FROM generate_series(1, 5000) AS i;
         INSERT INTO idempotency (id, request, subject, expires_at) SELECT subject, '', subject, 0 FROM accounts;
         INSERT INTO meters SELECT subject, 0 FROM accounts;
         INSERT INTO destinations SELECT 'a', '+' || i % 50, i, 1, 1 FROM generate_series(1, 5000) AS i;
         INSERT INTO suspensions SELECT 'a', '+' || i, 0, 0, 1 FROM generate_series(1, 5000) AS i",
    );
    let before = postgres.log().len();
    all_calls();
    let said = || postgres.log().split_off(before);
    eventually("another count of ranges", SOON, || {
        said().lines().any(|line| line.contains("Scan") && line.contains("destinations_pkey"))
    });
    let said = said();
    for index in ["accounts_pkey", "meters_pkey", "idempotency_pkey", "suspensions_pkey"] {
        assert!(said.contains(index), "{index} is of use: {said}");
    }
    let read: Vec<_> = said.lines().filter(|line| line.contains("Seq Scan on")).collect();
    let large = ["accounts", "outbox", "outbox_dead", "idempotency", "meters", "destinations", "suspensions"];
    let whole: Vec<_> = read
        .iter()
        .filter(|line| large.iter().any(|table| line.contains(&format!("Seq Scan on {table} "))))
        .collect();
    assert!(whole.is_empty(), "{whole:#?}");
}

/// An account that comes into being while the erasure of what nobody knew is under way is not meant by it: its event
/// waits to be delivered.
#[test]
fn an_erasure_of_somebody_unknown_takes_nothing_of_one_who_comes_into_being_meanwhile() {
    let postgres = Postgres::start();
    let database = || Sql::postgres(&postgres);
    migrations(Store::Postgres).iter().for_each(|step| database().batch(step));
    let late = 9_000_000_000_000_i64;
    let hold = database();
    // The erasure waits here, having seen that there is no account.
    hold.batch("BEGIN; LOCK TABLE idempotency IN EXCLUSIVE MODE");
    std::thread::scope(|scope| {
        let erasing = scope.spawn(|| {
            let erase = format!(
                "DO $$ BEGIN PERFORM erase_record('subject', 0, 1, {late}, '{{}}');
                 EXCEPTION WHEN SQLSTATE 'OTP02' THEN NULL; END $$"
            );
            database().batch(erase.as_str());
        });
        let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        eventually("the erasure to wait", SOON, || database().number(waits, &[]) == 1);
        let code = "'id', 5, '\\x01', '\\x02', 'sms', NULL, 1, 2, 0, NULL";
        let account = format!("'subject', 'a', '+1', 5, NULL, NULL, NULL, '[]', NULL, 0, NULL, NULL, {code}");
        let commit = format!(
            "SELECT commit_record(ROW({account})::account_as_decided, 0, {late}, '{{\"made\":1}}', 'subject', NULL,
                                  ROW(NULL, NULL, NULL, NULL, NULL, NULL, NULL)::answer_as_given, NULL)::int::bigint"
        );
        assert_eq!(database().number(&commit, &[]), 1);
        hold.batch("COMMIT");
        erasing.join().unwrap();
    });
    assert_eq!(database().documents("SELECT event FROM outbox", &[]), [json!({ "made": 1 })]);
    assert_eq!(database().number("SELECT count(*) FROM accounts WHERE subject = 'subject'", &[]), 1);
}

#[test]
fn a_database_of_before_the_baseline_is_named_and_left_alone() {
    let postgres = Postgres::start();
    let database = Sql::postgres(&postgres);
    database.batch("CREATE TABLE steps (step bigint PRIMARY KEY); INSERT INTO steps VALUES (9)");
    let service = on(&postgres).start();
    service.client().get("/readyz").expect_problem(503, "unavailable");
    assert!(service.log().contains("before 0.1.0"), "{}", service.log());
    assert_eq!(database.tables(), ["steps"]);
}

#[test]
fn after_a_failover_the_sessions_on_the_old_primary_are_given_up() {
    let (old, new) = (Postgres::start(), Postgres::start());
    // What a replica would have: the schema.
    on(&new).start().client().generate(&number());
    let proxy = Proxy::to(old.address());
    let service = on(&old).variable("postgres_endpoint", &format!("postgres://{}", proxy.address())).start();
    let client = service.client();
    at_once(16, |_| client.generate(&number()));
    let ready = client.get("/readyz").expect(200);
    assert_eq!(ready["dependencies"]["database"], json!({ "kind": "postgres", "status": "up" }));

    // It became a replica, and its connections stay.
    let mut administrator = old.connect();
    administrator.batch_execute("ALTER SYSTEM SET default_transaction_read_only = on").unwrap();
    administrator.batch_execute("SELECT pg_reload_conf()").unwrap();
    let read_only =
        json!({ "kind": "postgres", "status": "down", "reason": "it can be read, and not written" });
    eventually("a service that is not ready", SOON, || {
        let answer = client.get("/readyz");
        answer.status == 503 && answer.json()["dependencies"]["database"] == read_only
    });
    client.try_generate(&number()).expect_problem(503, "unavailable");

    // The name leads to the new primary by now.
    proxy.lead_to(new.address());
    let begun = Instant::now();
    eventually("a code", SOON, || client.try_generate(&number()).status == 201);
    println!("served {:?} after the new primary was there", begun.elapsed());
    at_once(16, |_| drop(client.try_generate(&number()).expect(201)));
    eventually("a service that is ready", SOON, || client.get("/readyz").status == 200);
}
