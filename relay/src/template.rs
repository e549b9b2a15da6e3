//! What messages say, and the JSON that a webhook is sent: templates of the delivery file.
//!
//! The syntax is Jinja's, the engine minijinja. A template is tried with samples when it is read, so that
//! one that does not work stops the relay at its start and not a message at night.

use crate::message::Message;
use anyhow::{anyhow, bail, ensure};
use minijinja::{Environment, ErrorKind, UndefinedBehavior, context};
use otp_terms::{Channel, Timestamp};
use zeroize::Zeroizing;

/// What the texts of messages can name.
const MESSAGE_VARIABLES: [&str; 3] = ["app_name", "code", "minutes"];

/// What the body of a webhook can name.
const BODY_VARIABLES: [&str; 9] =
    ["to", "text", "subject", "channel", "code", "minutes", "otp_id", "event_id", "expires_at"];

const SMS: &str = "messages.sms";
const EMAIL_SUBJECT: &str = "messages.email_subject";
const EMAIL_TEXT: &str = "messages.email_text";
const BODY: &str = "body";

/// The `[messages]` of the delivery file.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct MessagesTable {
    sms: String,
    email_subject: String,
    email_text: String,
}

impl Default for MessagesTable {
    fn default() -> Self {
        // Letters of GSM 03.38 only: one other letter halves what fits into a text message.
        let sms = "{{ code }} is your {{ app_name }} code. \
                   It is valid for {{ minutes }} minute{% if minutes != 1 %}s{% endif %}.";
        Self {
            sms: sms.to_owned(),
            email_subject: "Your {{ app_name }} code".to_owned(),
            email_text: format!(
                "{sms}\n\nIf you did not ask for it, there is nothing that you need to do.\n"
            ),
        }
    }
}

/// The texts of the messages.
pub(crate) struct Messages {
    templates: Environment<'static>,
    app_name: String,
    webotp_domain: Option<String>,
}

/// What there is to say to one user.
pub(crate) struct RenderInput<'a> {
    /// The event's id, which becomes the idempotency key.
    pub(crate) event_id: &'a str,
    /// The code's id.
    pub(crate) otp_id: &'a str,
    /// How it goes.
    pub(crate) channel: Channel,
    /// E.164 for `sms`, an address for `email`.
    pub(crate) to: &'a str,
    /// The code itself.
    pub(crate) code: &'a str,
    /// When the code dies.
    pub(crate) expires_at: Timestamp,
    /// The moment of this attempt: a later one names fewer minutes.
    pub(crate) now: Timestamp,
    /// W3C trace context of the request that asked for the code.
    pub(crate) traceparent: Option<&'a str>,
}

/// A template did not work. It says where, and repeats no value.
#[derive(Debug, thiserror::Error)]
#[error("{template} of the delivery file does not work for this message: {reason}")]
pub(crate) struct RenderError {
    template: &'static str,
    reason: String,
}

impl RenderError {
    fn new(template: &'static str, error: &minijinja::Error) -> Self {
        // The error's detail may show the value that it is about.
        let reason = match error.line() {
            Some(line) => format!("{} in line {line}", error.kind()),
            None => error.kind().to_string(),
        };
        Self { template, reason }
    }
}

impl Messages {
    /// Reads and tries the templates. An error begins with the key of the delivery file that it is about.
    pub(crate) fn new(
        app_name: String,
        webotp_domain: Option<String>,
        table: MessagesTable,
    ) -> anyhow::Result<Self> {
        ensure!(
            !app_name.trim().is_empty() && !app_name.contains(char::is_control),
            "app_name: write a name on one line, as users know it"
        );
        if let Some(domain) = &webotp_domain {
            ensure!(
                is_host_name(domain),
                "webotp_domain: write the bare host name of the page that asks for the code, \
                 such as \"shop.example\""
            );
        }
        let mut templates = Environment::new();
        templates.set_undefined_behavior(UndefinedBehavior::Strict);
        add(&mut templates, SMS, table.sms, &MESSAGE_VARIABLES)?;
        add(&mut templates, EMAIL_SUBJECT, table.email_subject, &MESSAGE_VARIABLES)?;
        add(&mut templates, EMAIL_TEXT, table.email_text, &MESSAGE_VARIABLES)?;
        let messages = Self { templates, app_name, webotp_domain };
        messages.try_out()?;
        Ok(messages)
    }

    fn try_out(&self) -> anyhow::Result<()> {
        const CODE: &str = "428193";
        for minutes in [1, 10] {
            for name in [SMS, EMAIL_SUBJECT, EMAIL_TEXT] {
                let text = self
                    .fill(name, CODE, minutes)
                    .map_err(|error| anyhow!("{name}: {}", describe(&error)))?;
                if name == EMAIL_SUBJECT {
                    ensure!(is_subject(&text), "{name}: write it on one line, and not empty");
                } else {
                    ensure!(text.contains(CODE), "{name}: it does not show the code: write {{{{ code }}}}");
                }
            }
        }
        Ok(())
    }

    /// The message for one user at one moment.
    pub(crate) fn render(&self, input: RenderInput<'_>) -> Result<Message, RenderError> {
        let minutes = minutes_left(input.now, input.expires_at);
        let fill = |name| {
            self.fill(name, input.code, minutes)
                .map(Zeroizing::new)
                .map_err(|error| RenderError::new(name, &error))
        };
        let (subject, text) = match input.channel {
            Channel::Sms => {
                let mut text = fill(SMS)?;
                if let Some(domain) = &self.webotp_domain {
                    // The last line by the format of origin-bound one-time codes, for autofill:
                    // https://wicg.github.io/sms-one-time-codes/#format
                    text = Zeroizing::new(format!("{}\n\n@{domain} #{}", *text, input.code));
                }
                (None, text)
            }
            Channel::Email => {
                let subject = fill(EMAIL_SUBJECT)?;
                if !is_subject(&subject) {
                    let reason = "it is not one line".to_owned();
                    return Err(RenderError { template: EMAIL_SUBJECT, reason });
                }
                (Some(subject.to_string()), fill(EMAIL_TEXT)?)
            }
        };
        Ok(Message {
            event_id: input.event_id.to_owned(),
            otp_id: input.otp_id.to_owned(),
            channel: input.channel,
            to: input.to.to_owned(),
            subject,
            text,
            code: Zeroizing::new(input.code.to_owned()),
            minutes,
            expires_at: input.expires_at.to_string(),
            traceparent: input.traceparent.map(str::to_owned),
        })
    }

    fn fill(&self, name: &str, code: &str, minutes: i64) -> Result<String, minijinja::Error> {
        let values = context! { app_name => self.app_name.as_str(), code, minutes };
        // A block of lines in TOML ends with an empty one that nobody means to send.
        Ok(self.templates.get_template(name)?.render(values)?.trim().to_owned())
    }
}

impl std::fmt::Debug for Messages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Messages").field("app_name", &self.app_name).finish_non_exhaustive()
    }
}

/// The body of a webhook: JSON with values in it.
///
/// Every value is written as JSON, with its own quotes: `{"to": {{ to }}}`, not `{"to": "{{ to }}"}`. To
/// put a value into a longer text, join them: `{{ "tel:" ~ to }}`. Nothing writes a value unescaped, so
/// no number, name or text can break out of its place.
pub(crate) struct JsonTemplate {
    templates: Environment<'static>,
}

impl JsonTemplate {
    /// The body if the delivery file names none.
    pub(crate) const DEFAULT: &str = r#"{
  "eventId": {{ event_id }},
  "otpId": {{ otp_id }},
  "channel": {{ channel }},
  "to": {{ to }},
  {% if subject %}"subject": {{ subject }},{% endif %}
  "text": {{ text }},
  "expiresAt": {{ expires_at }}
}"#;

    /// Reads and tries a template. An error begins with the key of the delivery file that it is about.
    pub(crate) fn new(source: String) -> anyhow::Result<Self> {
        let mut templates = Environment::new();
        templates.set_undefined_behavior(UndefinedBehavior::Strict);
        templates.set_formatter(|out, _, value| {
            let json = serde_json::to_string(value)
                .map_err(|_| minijinja::Error::from(ErrorKind::BadSerialization))?;
            Ok(out.write_str(&json)?)
        });
        // They would escape what is escaped, or, by their name, promise not to.
        for filter in ["e", "escape", "safe", "tojson"] {
            templates.remove_filter(filter);
        }
        add(&mut templates, BODY, source, &BODY_VARIABLES)?;
        let template = Self { templates };
        for sample in &samples() {
            let body = template.fill(sample).map_err(|error| anyhow!("{BODY}: {}", describe(&error)))?;
            let json: serde_json::Value = serde_json::from_str(&body).map_err(|error| {
                anyhow!(
                    "{BODY}: it gives no JSON ({error}): write {{{{ to }}}} without quotes around it, for \
                     each value brings its own, and join texts by {{{{ \"tel:\" ~ to }}}}"
                )
            })?;
            ensure!(
                shows(&json, &sample.code),
                "{BODY}: it does not show the code: write \"text\": {{{{ text }}}}, or \"code\": \
                 {{{{ code }}}}"
            );
        }
        Ok(template)
    }

    /// The body for one message.
    pub(crate) fn render(&self, message: &Message) -> Result<String, RenderError> {
        let body = self.fill(message).map_err(|error| RenderError::new(BODY, &error))?;
        // Conditions in a template may let through what the samples did not meet.
        match serde_json::from_str::<serde::de::IgnoredAny>(&body) {
            Ok(_) => Ok(body),
            Err(error) => Err(RenderError { template: BODY, reason: format!("it gives no JSON ({error})") }),
        }
    }

    fn fill(&self, message: &Message) -> Result<String, minijinja::Error> {
        let values = context! {
            to => message.to.as_str(),
            text => message.text.as_str(),
            subject => message.subject.as_deref(),
            channel => message.channel.as_str(),
            code => message.code.as_str(),
            minutes => message.minutes,
            otp_id => message.otp_id.as_str(),
            event_id => message.event_id.as_str(),
            expires_at => message.expires_at.as_str(),
        };
        self.templates.get_template(BODY)?.render(values)
    }
}

impl std::fmt::Debug for JsonTemplate {
    /// Not its text: that may hold a provider's key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JsonTemplate")
    }
}

/// Adds a template that names nothing but `variables`. What no sample reaches would otherwise be found
/// missing by a user.
fn add(
    templates: &mut Environment<'static>,
    name: &'static str,
    source: String,
    variables: &[&str],
) -> anyhow::Result<()> {
    templates.add_template_owned(name, source).map_err(|error| anyhow!("{name}: {}", describe(&error)))?;
    let unknown = templates
        .get_template(name)?
        .undeclared_variables(false)
        .into_iter()
        .filter(|variable| !variables.contains(&variable.as_str()))
        .filter(|variable| templates.globals().all(|(global, _)| global != variable))
        .min();
    if let Some(unknown) = unknown {
        bail!("{name}: there is no {{{{ {unknown} }}}}, only {}", variables.join(", "));
    }
    Ok(())
}

/// What is wrong with a template, for whoever wrote it.
fn describe(error: &minijinja::Error) -> String {
    let mut text = error.kind().to_string();
    if let Some(line) = error.line() {
        text.push_str(&format!(" in line {line}"));
    }
    if let Some(detail) = error.detail() {
        text.push_str(&format!(": {detail}"));
    }
    text
}

/// Whole minutes until `expires_at`, rounded up, and never less than one: "0 minutes" helps nobody.
fn minutes_left(now: Timestamp, expires_at: Timestamp) -> i64 {
    let millis = expires_at.unix_millis().saturating_sub(now.unix_millis()).max(1);
    (millis - 1) / 60_000 + 1
}

/// A subject of more lines than one would be more headers than one.
fn is_subject(text: &str) -> bool {
    !text.is_empty() && !text.contains(char::is_control)
}

/// Labels of letters, digits and hyphens: nothing else may stand behind the `@` of the last line.
fn is_host_name(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        })
}

/// Whether one of the strings in `json` has `code` in it.
fn shows(json: &serde_json::Value, code: &str) -> bool {
    match json {
        serde_json::Value::String(text) => text.contains(code),
        serde_json::Value::Array(values) => values.iter().any(|value| shows(value, code)),
        serde_json::Value::Object(values) => values.values().any(|value| shows(value, code)),
        _ => false,
    }
}

/// Messages to try a webhook's body with: of both channels, and one of everything that JSON escapes.
pub(crate) fn samples() -> [Message; 3] {
    let sample = |channel, to: &str, subject: Option<&str>, text: &str| Message {
        event_id: "01933a6e-7e1c-7b3a-9f5e-3d2c1b0a9f8e".to_owned(),
        otp_id: "01933a6e-7e1c-7b3a-9f5e-0a1b2c3d4e5f".to_owned(),
        channel,
        to: to.to_owned(),
        subject: subject.map(str::to_owned),
        text: Zeroizing::new(text.to_owned()),
        code: Zeroizing::new("428193".to_owned()),
        minutes: 10,
        expires_at: "2026-11-22T07:41:42Z".to_owned(),
        traceparent: None,
    };
    let nasty = "\"428193\\\", \"x\": {{ to }} </script>'\n\r\t\u{0}\u{7f}\u{2028}é😀]}";
    [
        sample(Channel::Sms, "+14155550123", None, "428193 is your code."),
        sample(Channel::Email, "ada@example.com", Some("Your code"), "428193 is your code.\n"),
        sample(Channel::Email, nasty, Some(nasty), nasty),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn messages(webotp_domain: Option<&str>, table: MessagesTable) -> anyhow::Result<Messages> {
        Messages::new("Shop".to_owned(), webotp_domain.map(str::to_owned), table)
    }

    fn input(channel: Channel, code: &str) -> RenderInput<'_> {
        RenderInput {
            event_id: "event",
            otp_id: "otp",
            channel,
            to: "+14155550123",
            code,
            expires_at: Timestamp::from_unix_millis(1_795_333_302_000),
            now: Timestamp::from_unix_millis(1_795_333_302_000 - 600_000),
            traceparent: None,
        }
    }

    #[test]
    fn a_text_message_says_what_it_is_and_how_long_it_lives() {
        let message =
            messages(None, MessagesTable::default()).unwrap().render(input(Channel::Sms, "042137")).unwrap();
        assert_eq!(message.text.as_str(), "042137 is your Shop code. It is valid for 10 minutes.");
        assert_eq!(message.subject, None);
        assert_eq!(message.expires_at, "2026-11-22T07:41:42Z");
        assert_eq!(message.minutes, 10);
    }

    #[test]
    fn a_mail_has_a_subject_without_the_code() {
        let message = messages(None, MessagesTable::default())
            .unwrap()
            .render(input(Channel::Email, "042137"))
            .unwrap();
        assert_eq!(message.subject.as_deref(), Some("Your Shop code"));
        assert!(message.text.starts_with("042137 is your Shop code."));
    }

    #[test]
    fn minutes_are_rounded_up_and_never_none() {
        for (seconds, minutes) in
            [(600, 10), (599, 10), (541, 10), (540, 9), (61, 2), (60, 1), (1, 1), (-5, 1)]
        {
            let mut input = input(Channel::Sms, "042137");
            input.now = Timestamp::from_unix_millis(input.expires_at.unix_millis() - seconds * 1_000);
            let message = messages(None, MessagesTable::default()).unwrap().render(input).unwrap();
            assert_eq!(message.minutes, minutes, "{seconds}");
            let words = if minutes == 1 { "1 minute." } else { &format!("{minutes} minutes.") };
            assert!(message.text.ends_with(words), "{}", *message.text);
        }
    }

    #[test]
    fn the_last_line_binds_the_code_to_the_page() {
        let render = |sms: &str| {
            let table = MessagesTable { sms: sms.to_owned(), ..MessagesTable::default() };
            messages(Some("shop.example"), table).unwrap().render(input(Channel::Sms, "042137")).unwrap()
        };
        assert_eq!(*render("Code: {{ code }}\n").text, "Code: 042137\n\n@shop.example #042137");
        let message = messages(Some("shop.example"), MessagesTable::default()).unwrap();
        assert!(!message.render(input(Channel::Email, "042137")).unwrap().text.contains('@'));
    }

    #[test]
    fn what_is_sent_by_default_fits_into_one_text_message() {
        // GSM 03.38, what of it the defaults may use
        let gsm =
            |letter: char| letter.is_ascii_alphanumeric() || "@$_!\"#%&'()*+,-./:;<=>? \n".contains(letter);
        let shop = messages(Some("accounts.shop.example"), MessagesTable::default()).unwrap();
        let text = shop.render(input(Channel::Sms, "0421370421")).unwrap().text;
        assert!(text.chars().all(gsm) && text.len() <= 160, "{}", *text);
    }

    #[test]
    fn texts_that_do_not_work_are_refused() {
        let sms = |text: &str| MessagesTable { sms: text.to_owned(), ..MessagesTable::default() };
        let subject =
            |text: &str| MessagesTable { email_subject: text.to_owned(), ..MessagesTable::default() };
        for (table, error) in [
            (sms("{{ code"), "messages.sms: syntax error in line 1"),
            (sms("{{ code|nope }}"), "messages.sms: unknown filter"),
            (
                sms("{{ code }} {{ name }}"),
                "messages.sms: there is no {{ name }}, only app_name, code, minutes",
            ),
            (sms("{{ code }}{% if false %}{{ x }}{% endif %}"), "messages.sms: there is no {{ x }}"),
            (sms("Hello"), "messages.sms: it does not show the code: write {{ code }}"),
            (subject("a\nBcc: eve@example.com"), "messages.email_subject: write it on one line"),
            (subject(" \n"), "messages.email_subject: write it on one line"),
        ] {
            let refusal = messages(None, table).unwrap_err().to_string();
            assert!(refusal.starts_with(error), "{refusal}");
        }
        for name in ["", " ", "a\nb", "a\r"] {
            assert!(Messages::new(name.to_owned(), None, MessagesTable::default()).is_err(), "{name:?}");
        }
        for domain in
            ["", "https://shop.example", "shop.example/", "shop example", "shop.example:443", "a..b"]
        {
            assert!(messages(Some(domain), MessagesTable::default()).is_err(), "{domain:?}");
        }
    }

    #[test]
    fn a_failure_while_sending_repeats_no_value() {
        // Only this code divides by nothing.
        let sms = "{{ code }}{% if code == '042137' %}{{ code|int // 0 }}{{ code|replace }}{% endif %}";
        let table = MessagesTable { sms: sms.to_owned(), ..MessagesTable::default() };
        let error = messages(None, table).unwrap().render(input(Channel::Sms, "042137")).err().unwrap();
        assert!(!format!("{error} {error:?}").contains("042137"), "{error:?}");
        assert!(error.to_string().contains("messages.sms"), "{error}");
    }

    #[test]
    fn the_default_body_has_what_a_gateway_needs() {
        let template = JsonTemplate::new(JsonTemplate::DEFAULT.to_owned()).unwrap();
        let [sms, email, nasty] = samples();
        let body = |message| -> serde_json::Value {
            serde_json::from_str(&template.render(message).unwrap()).unwrap()
        };
        assert_eq!(
            body(&sms),
            json!({
                "eventId": "01933a6e-7e1c-7b3a-9f5e-3d2c1b0a9f8e",
                "otpId": "01933a6e-7e1c-7b3a-9f5e-0a1b2c3d4e5f",
                "channel": "sms",
                "to": "+14155550123",
                "text": "428193 is your code.",
                "expiresAt": "2026-11-22T07:41:42Z",
            })
        );
        assert_eq!(body(&email)["subject"], "Your code");
        assert_eq!(body(&nasty)["text"], nasty.text.as_str());
    }

    #[test]
    fn bodies_that_do_not_work_are_refused() {
        for (source, error) in [
            (r#"{"to": "{{ to }}", "text": {{ text }}}"#, "body: it gives no JSON"),
            (r#"{"text": "Hi {{ text }}"}"#, "body: it gives no JSON"),
            (r#"["{{ to }}{{ text }}"]"#, "body: it gives no JSON"),
            (r#"{"text": {{ text }}"#, "body: it gives no JSON"),
            ("", "body: it gives no JSON"),
            (r#"{"text": {{ text|safe }}}"#, "body: unknown filter in line 1: filter safe is unknown"),
            (r#"{"text": {{ text|tojson }}}"#, "body: unknown filter"),
            (r#"{"text": {{ text }}, "to": {{ number }}}"#, "body: there is no {{ number }}, only to, text"),
            (r#"{"to": {{ to }}}"#, "body: it does not show the code"),
            (r#"{"text": {{ text }}"#, "body: it gives no JSON"),
            ("{{", "body: syntax error in line 1"),
        ] {
            let refusal = JsonTemplate::new(source.to_owned()).unwrap_err().to_string();
            assert!(refusal.starts_with(error), "{source}: {refusal}");
        }
    }

    #[test]
    fn a_body_can_join_and_change_values() {
        let source = r#"{% set number = to|replace("+", "") %}
            {"to": [{{ number }}, {{ "tel:" ~ to }}, {{ to[1:] }}], "code": {{ code }},
             "ttl": {{ minutes * 60 }},
             "kind": {% if channel == "sms" %}1{% else %}2{% endif %}, "subject": {{ subject }},
             "block": {% autoescape false %}{{ text }}{% endautoescape %}}"#;
        let body = JsonTemplate::new(source.to_owned()).unwrap().render(&samples()[0]).unwrap();
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&body).unwrap(),
            json!({
                "to": ["14155550123", "tel:+14155550123", "14155550123"],
                "code": "428193", "ttl": 600, "kind": 1, "subject": null,
                "block": "428193 is your code.",
            })
        );
    }

    #[test]
    fn a_body_that_fails_for_one_message_is_not_sent() {
        let source = r#"{"text": {{ text }}{% if to == "+1" %}"{% endif %}}"#;
        let template = JsonTemplate::new(source.to_owned()).unwrap();
        let [mut message, ..] = samples();
        assert!(template.render(&message).is_ok());
        message.to = "+1".to_owned();
        let error = template.render(&message).unwrap_err();
        assert!(error.to_string().contains("it gives no JSON"), "{error}");
        assert!(!error.to_string().contains("428193"), "{error}");
    }

    proptest! {
        #[test]
        fn no_value_breaks_out_of_its_place(to: String, text: String, code: String, subject: Option<String>) {
            let [mut message, ..] = samples();
            message.to = to;
            message.subject = subject;
            message.text = Zeroizing::new(text);
            message.code = Zeroizing::new(code);
            let template = JsonTemplate::new(
                r#"{"to":{{ to }},"both":{{ to ~ text }},"list":[{{ text }},{{ code }}],
                    "subject":{{ subject }}}"#
                    .to_owned(),
            )
            .unwrap();
            let body: serde_json::Value = serde_json::from_str(&template.render(&message).unwrap()).unwrap();
            prop_assert_eq!(body, json!({
                "to": message.to,
                "both": format!("{}{}", message.to, *message.text),
                "list": [message.text.as_str(), message.code.as_str()],
                "subject": message.subject,
            }));
        }

        #[test]
        fn a_code_is_shown_as_it_is(code in "[0-9]{4,10}") {
            let message = messages(Some("shop.example"), MessagesTable::default())
                .unwrap()
                .render(input(Channel::Sms, &code))
                .unwrap();
            let last_line = format!("@shop.example #{code}");
            prop_assert_eq!(message.text.lines().last(), Some(last_line.as_str()));
            let first_words = format!("{code} is your");
            prop_assert!(message.text.starts_with(&first_words));
        }
    }
}
