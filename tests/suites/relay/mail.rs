//! Delivery by mail, over SMTP as servers speak it.

use crate::{GENERATED, Otp, SOON, dead_letters, delivery, ends_up, hand_over_one, id, metric, replay, text};
use harness::{MailServer, Relay, RelayBuilder, eventually};
use serde_json::{Value, json};
use std::path::Path;

/// A relay that has mails brought by this server, which it trusts.
fn through(server: &MailServer) -> RelayBuilder {
    with(&server.url(), Some(&server.ca_file()))
}

fn with(url: &str, ca_file: Option<&Path>) -> RelayBuilder {
    let ca_file = ca_file.map_or(String::new(), |file| format!("ca_file = \"{}\"", file.display()));
    Relay::builder().delivery(&format!(
        "app_name = \"Shop\"
        [channels]
        email = [\"mail\"]
        [providers.mail]
        kind = \"smtp\"
        url = \"{url}\"
        from = \"Shop <no-reply@shop.example>\"
        {ca_file}"
    ))
}

/// Waits until an attempt has failed, and gives what is said of it.
fn attempted(relay: &Relay, event: &Value) -> Value {
    let said = || delivery(relay, event).filter(|delivery| delivery["reason"].is_string());
    eventually("an attempt", SOON, || said().is_some());
    said().unwrap()
}

/// The one line of a mail's head with this field.
fn field<'a>(mail: &'a str, name: &str) -> &'a str {
    let head = mail.split_once("\r\n\r\n").unwrap().0;
    let found: Vec<_> = head.lines().filter_map(|line| line.strip_prefix(&format!("{name}: "))).collect();
    assert_eq!(found.len(), 1, "{name}: {mail}");
    found[0]
}

#[test]
fn a_mail_is_sent_encrypted_either_way_and_says_what_it_should() {
    for server in [MailServer::starttls(), MailServer::tls()] {
        let relay = through(&server).start();
        let otp = Otp::new().by_mail();
        let event = otp.event(GENERATED);
        hand_over_one(&relay, &event);
        assert_eq!(ends_up(&relay, &event, "delivered")["provider"], "mail");
        let [mail] = server.messages().try_into().unwrap();
        for (name, value) in [
            ("X-MailFrom", "no-reply@shop.example"),
            ("X-RcptTo", otp.to()),
            ("To", otp.to()),
            ("Subject", "Your Shop code"),
            ("Message-ID", &format!("<{}@shop.example>", id(&event))),
            ("Auto-Submitted", "auto-generated"),
        ] {
            assert_eq!(field(&mail, name), value);
        }
        assert!(
            field(&mail, "From").contains("Shop") && field(&mail, "From").contains("<no-reply@shop.example>")
        );
        assert!(field(&mail, "Content-Type").starts_with("text/plain"), "{mail}");
        let said = mail.split_once("\r\n\r\n").unwrap().1;
        assert!(
            said.starts_with(&format!("{} is your Shop code. It is valid for 10 minutes.", otp.code)),
            "{said}"
        );
        assert!(!relay.log().contains(server.password()), "{}", relay.log());
    }
}

#[test]
fn a_login_can_stand_beside_the_url_and_may_be_missing_where_none_is_wanted() {
    let server = MailServer::starttls();
    let url = format!("smtp://{}", server.url().rsplit_once('@').unwrap().1);
    let beside = Relay::builder().env("MAIL_PASSWORD", server.password()).delivery(&format!(
        "[channels]\nemail = [\"mail\"]\n[providers.mail]\nkind = \"smtp\"\nurl = \"{url}\"\nfrom = \"a@shop.example\"\n\
         username = \"{}\"\npassword = \"env:MAIL_PASSWORD\"\nca_file = \"{}\"",
        server.username(),
        server.ca_file().display()
    ));
    let open = MailServer::starttls_without_login();
    for relay in [beside.start(), through(&open).start()] {
        let event = Otp::new().by_mail().event(GENERATED);
        hand_over_one(&relay, &event);
        ends_up(&relay, &event, "delivered");
    }
    assert_eq!([server.messages().len(), open.messages().len()], [1, 1]);
}

#[test]
fn an_address_that_is_more_than_an_address_gets_nothing() {
    let server = MailServer::starttls();
    let relay = through(&server).start();
    for address in
        ["ada@shop.example\r\nBcc: eve@shop.example", "ada@shop.example, eve@shop.example", "ada", ""]
    {
        let mut event = Otp::new().by_mail().event(GENERATED);
        event["data"]["email"] = json!(address);
        hand_over_one(&relay, &event);
        ends_up(&relay, &event, "failed");
    }
    let good = Otp::new().by_mail().event(GENERATED);
    hand_over_one(&relay, &good);
    ends_up(&relay, &good, "delivered");
    assert_eq!(server.messages().len(), 1);
}

#[test]
fn a_mail_that_is_put_off_is_sent_again_with_the_same_message_id() {
    let server = MailServer::starttls();
    server.refuse_next(2, 451);
    let relay = through(&server).start();
    let event = Otp::new().by_mail().event(GENERATED);
    hand_over_one(&relay, &event);
    let told = ends_up(&relay, &event, "delivered");
    assert_eq!(told["attempts"], 3);
    let [mail] = server.messages().try_into().unwrap();
    assert_eq!(field(&mail, "Message-ID"), format!("<{}@shop.example>", id(&event)));
    assert_eq!(metric(&relay, "failed_total{channel=\"email\",provider=\"mail\""), 2.0);
}

#[test]
fn a_mail_that_is_refused_is_dead_and_can_be_replayed() {
    let server = MailServer::starttls();
    server.refuse_next(1, 550);
    let relay = through(&server).start();
    let otp = Otp::new().by_mail();
    let event = otp.event(GENERATED);
    hand_over_one(&relay, &event);
    let told = ends_up(&relay, &event, "failed");
    assert_eq!([&told["reason"], &told["attempts"]], [&json!("mail: SMTP 550"), &json!(1)]);
    let letters = dead_letters(&relay);
    assert_eq!(letters[0]["id"], event["id"]);
    assert!(
        !letters[0].to_string().contains("shop.example") && !relay.log().contains(otp.to()),
        "{letters:?}"
    );
    assert_eq!(replay(&relay, &[]), 1);
    ends_up(&relay, &event, "delivered");
    assert_eq!(server.messages().len(), 1);
}

#[test]
fn a_server_that_the_relay_has_no_reason_to_trust_gets_nothing() {
    let (server, stranger) = (MailServer::starttls(), MailServer::tls());
    let event = Otp::new().by_mail().event(GENERATED);
    let not_trusted = |relay: RelayBuilder| {
        let mut relay = relay.start();
        hand_over_one(&relay, &event);
        let told = attempted(&relay, &event);
        assert_eq!(told["state"], "waiting", "it may be mended: {told}");
        assert!(text(&told, "reason").contains("certificate"), "{told}");
        assert!(relay.terminate().success());
        relay
    };
    let first = not_trusted(with(&server.url(), None));
    not_trusted(with(&server.url(), Some(&stranger.ca_file())).ledger_of(&first));
    not_trusted(with(&stranger.url(), Some(&server.ca_file())).ledger_of(&first));
    assert_eq!([server.messages().len(), stranger.messages().len()], [0, 0]);
    let relay = through(&server).ledger_of(&first).start();
    ends_up(&relay, &event, "delivered");
}

#[test]
fn a_server_without_encryption_or_with_another_password_gets_nothing() {
    let (plain, server) = (MailServer::plain(), MailServer::starttls());
    let wrong = server.url().replace(server.password(), "another-word");
    for (relay, word) in [
        (with(&plain.url(), Some(&plain.ca_file())), "STARTTLS"),
        (with(&wrong, Some(&server.ca_file())), "no login, check username and password"),
    ] {
        let relay = relay.start();
        let event = Otp::new().by_mail().event(GENERATED);
        hand_over_one(&relay, &event);
        let told = attempted(&relay, &event);
        assert_eq!(told["state"], "waiting", "it may be mended: {told}");
        assert!(text(&told, "reason").contains(word), "{told}");
        assert!(
            !relay.log().contains("another-word") && !relay.log().contains(plain.password()),
            "{}",
            relay.log()
        );
    }
    assert_eq!([plain.messages().len(), server.messages().len()], [0, 0]);
}

#[test]
fn mails_go_on_after_the_server_was_restarted() {
    let mut server = MailServer::tls();
    let relay = through(&server).start();
    for _ in 0..2 {
        let event = Otp::new().by_mail().event(GENERATED);
        hand_over_one(&relay, &event);
        ends_up(&relay, &event, "delivered");
        // The connection that the relay has kept is gone with it.
        server.restart();
    }
    server.kill();
    let event = Otp::new().by_mail().event(GENERATED);
    hand_over_one(&relay, &event);
    attempted(&relay, &event);
    server.restart();
    ends_up(&relay, &event, "delivered");
    assert_eq!(server.messages().len(), 3);
}

#[test]
fn a_url_that_would_send_codes_unencrypted_is_refused_at_the_start() {
    let (status, said) = with("smtp://mail.example:25?tls=none", None).refused();
    assert!(!status.success());
    assert!(said.contains("providers.mail.url") && said.contains("STARTTLS"), "{said}");
    let (status, said) = with("smtps://user:hunter2-hunter2@mail.example?tls=none", None).refused();
    assert!(!status.success() && said.contains("providers.mail.url"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}
