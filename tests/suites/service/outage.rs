//! A database that hangs, is damaged or is away.

use harness::{Service, at_once, eventually, number};
use rusqlite::Connection;
use std::time::{Duration, Instant};

/// What a client waits at most, whatever hangs.
const PATIENCE: Duration = Duration::from_secs(3);

#[test]
fn while_another_process_holds_the_write_lock_every_call_hears_503_in_time() {
    let service = Service::start();
    let client = service.client();
    let known = number();
    client.generate(&known);
    let call = |index: usize| match index % 4 {
        // Giving a code again writes, too: that it is to be delivered again.
        0 => client.resend(&known),
        1 => client.verify(&known, "000000"),
        2 => client.post("/generate-otp", &serde_json::json!({ "mobileNumber": number() })),
        _ => client.regenerate(&known),
    };

    let other = Connection::open(service.database()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let answers = at_once(8, |index| {
        let start = Instant::now();
        (call(index), start.elapsed())
    });
    for (answer, took) in answers {
        answer.expect_problem(503, "unavailable");
        assert_eq!(answer.header("retry-after"), "1");
        assert!(took < PATIENCE, "{took:?}");
    }
    // Reading is still possible; what those calls have left behind may take a moment to give up.
    eventually("readiness", Duration::from_secs(10), || client.get("/readyz").status == 200);
    other.execute_batch("ROLLBACK").unwrap();

    // What was given up on may have happened since, or not; the service is as it was.
    let fresh = client.regenerate(&known).expect(201);
    client.verify(&known, fresh["otp"].as_str().unwrap()).expect(200);
}

#[test]
fn a_file_that_is_no_database_is_not_ready_and_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sqlite_db.db");
    let garbage = "this is no database ".repeat(500);
    std::fs::write(&file, &garbage).unwrap();
    let service = Service::builder().state(folder.path()).start();
    let client = service.client();
    let start = Instant::now();
    let answer = client.get("/readyz");
    let problem = answer.expect_problem(503, "unavailable");
    assert_eq!(problem["dependencies"]["database"]["status"], "down");
    assert!(start.elapsed() < PATIENCE);
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
