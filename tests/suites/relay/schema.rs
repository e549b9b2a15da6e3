//! The ledger's schema: brought to where the relay needs it, and never changed behind its back.

use crate::{GENERATED, Otp, ends_up, hand_over_one};
use harness::{Relay, at_once};

#[track_caller]
fn delivers(relay: &Relay) {
    let event = Otp::new().event(GENERATED);
    hand_over_one(relay, &event);
    ends_up(relay, &event, "delivered");
}

#[test]
fn a_ledger_that_a_newer_version_has_brought_further_is_left_alone() {
    let mut relay = Relay::start();
    let ledger = relay.ledger();
    // While it runs, as when the new version takes the old one's place.
    ledger.execute(
        "INSERT INTO migrations (version, description, success, checksum, execution_time)
         VALUES (999, 'later', true, 'a', 0)",
    );
    ledger.execute("ALTER TABLE deliveries ADD COLUMN later TEXT");
    delivers(&relay);
    // As when it is taken back.
    assert!(relay.terminate().success());
    relay.restart();
    delivers(&relay);
    assert_eq!(ledger.number("SELECT max(version) FROM migrations"), 999);
}

#[test]
fn a_step_that_is_not_the_one_that_was_applied_ends_the_start() {
    let mut relay = Relay::start();
    assert!(relay.terminate().success());
    relay.ledger().execute("UPDATE migrations SET checksum = 'another' WHERE version = 1");
    let (status, said) = Relay::builder().ledger_of(&relay).refused();
    assert!(!status.success());
    assert!(said.contains("migration 1") && said.contains("modified"), "{said}");
}

#[test]
fn the_commands_may_begin_while_the_ledger_is_made() {
    let mut relay = Relay::builder().on_a_file().start();
    assert!(relay.terminate().success());
    for _ in 0..5 {
        let file = relay.state().join("ledger.db");
        for name in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
            let _ = std::fs::remove_file(file.with_file_name(name));
        }
        std::fs::write(&file, "").unwrap();
        for listed in at_once(4, |_| relay.run(&["dlq", "list"])) {
            assert!(listed.status.success(), "{listed:?}");
        }
    }
}
