//! A database that hangs, whichever it is.

use harness::{IN_TIME, Service, Store, at_once, eventually, number, store};
use std::time::{Duration, Instant};

#[test]
fn while_somebody_else_holds_the_database_every_call_hears_503_in_time() {
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

    let hold = service.hold_writes();
    let answers = at_once(8, |index| {
        let start = Instant::now();
        (call(index), start.elapsed())
    });
    for (answer, took) in answers {
        answer.expect_problem(503, "unavailable");
        assert_eq!(answer.header("retry-after"), "1");
        assert!(took < IN_TIME, "{took:?}");
    }
    // Reading is still possible, and serving is not. In Postgres it is the accounts that are held, and no more.
    if store() == Store::Sqlite {
        let start = Instant::now();
        client.get("/readyz").expect_problem(503, "unavailable");
        assert!(start.elapsed() < IN_TIME, "{:?}", start.elapsed());
    }
    hold.release();
    // What those calls have left behind may take a moment to give up.
    eventually("readiness", Duration::from_secs(10), || client.get("/readyz").status == 200);

    // What was given up on may have happened since, or not; the service is as it was.
    let fresh = client.regenerate(&known).expect(201);
    client.verify(&known, fresh["otp"].as_str().unwrap()).expect(200);
}
