//! Shows that a message would have gone out, and delivers nothing.

use super::{Provider, SendError};
use crate::message::Message;
use futures::future::BoxFuture;
use otp_terms::Channel;

/// Writes a line for each message, without the code.
#[derive(Debug)]
pub(crate) struct Log;

impl Provider for Log {
    fn send<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<(), SendError>> {
        tracing::info!(
            event_id = message.event_id,
            otp_id = message.otp_id,
            channel = message.channel.as_str(),
            to = masked(&message.to, message.channel),
            "a message is ready; the log delivers nothing"
        );
        Box::pin(std::future::ready(Ok(())))
    }
}

/// As much of a recipient as a log may show: the last two digits of a number, the first letter of a
/// mailbox and its domain. Not even the length of the rest.
pub(crate) fn masked(to: &str, channel: Channel) -> String {
    match channel {
        Channel::Sms => {
            let end = to.char_indices().nth_back(1).map_or(to.len(), |(index, _)| index);
            format!("...{}", &to[end..])
        }
        Channel::Email => match (to.chars().next(), to.rsplit_once('@')) {
            (Some(first), Some((mailbox, domain))) if !mailbox.is_empty() => format!("{first}...@{domain}"),
            _ => "...".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::samples;
    use std::{
        io::Write,
        sync::{Arc, Mutex},
    };

    #[test]
    fn a_recipient_is_known_again_and_not_known() {
        for (to, channel, shown) in [
            ("+14155550123", Channel::Sms, "...23"),
            ("+", Channel::Sms, "..."),
            ("", Channel::Sms, "..."),
            ("ada@example.com", Channel::Email, "a...@example.com"),
            ("øda@example.com", Channel::Email, "ø...@example.com"),
            ("\"a@b\"@example.com", Channel::Email, "\"...@example.com"),
            ("@example.com", Channel::Email, "..."),
            ("ada", Channel::Email, "..."),
            ("", Channel::Email, "..."),
        ] {
            assert_eq!(masked(to, channel), shown);
        }
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_line_has_neither_the_code_nor_the_recipient() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            for message in &samples() {
                futures::executor::block_on(Log.send(message)).unwrap();
            }
        });
        let lines = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        for message in &samples() {
            assert!(lines.contains(&message.otp_id), "{lines}");
            assert!(!lines.contains(message.code.as_str()), "{lines}");
            assert!(!lines.contains(&message.to), "{lines}");
        }
    }
}
