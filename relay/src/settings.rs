//! The delivery file: who brings messages to users, and what they say. TOML, and everything in it can be
//! left out.
//!
//! ```toml
//! app_name = "Shop"                    # what users know the sender by; default "spin-otp"
//! webotp_domain = "shop.example"       # text messages end with the line that lets browsers fill codes in
//!
//! [channels]                           # who is asked, in this order; default ["inbox"], [] for nobody
//! sms = ["main", "spare"]
//! email = ["mail"]
//!
//! [messages]                           # Jinja templates that know app_name, code and minutes
//! sms = "{{ code }} is your {{ app_name }} code."
//! email_subject = "Your {{ app_name }} code"
//! email_text = "{{ code }} is your {{ app_name }} code."
//!
//! [providers.main]
//! kind = "webhook"
//! url = "https://sms.example/messages" # http:// to this machine only
//! secret = "env:WEBHOOK_SECRET"        # signs requests: whsec_ and base64, or 16 bytes and more as they are
//! body = '{"to": {{ to }}, "text": {{ text }}}'
//! headers = { authorization = "env:SMS_AUTH" }
//! ca_file = "ca.pem"                   # to trust besides the system's authorities; beside this file
//!
//! [providers.spare]
//! kind = "webhook"
//! url = "http://localhost:8080/sms"
//! secret = "env:WEBHOOK_SECRET"
//!
//! [providers.mail]
//! kind = "smtp"
//! url = "smtps://mail.example:465"     # smtp:// is STARTTLS; smtp://localhost?tls=none is neither
//! from = "Shop <no-reply@shop.example>"
//! username = "env:SMTP_USER"           # or both in the url: smtps://username:password@mail.example
//! password = "env:SMTP_PASSWORD"
//! ca_file = "ca.pem"
//! ```
//!
//! Any text can be `"env:NAME"`: it is then what that variable of the environment holds. `inbox` and
//! `log` are providers that need no table; in production neither is allowed.

use crate::{
    provider::{
        Provider,
        log::Log,
        smtp::{Smtp, SmtpTable},
        webhook::{Webhook, WebhookTable},
    },
    template::{Messages, MessagesTable},
};
use anyhow::{Context, anyhow, bail, ensure};
use otp_terms::Channel;
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

/// The provider that keeps messages in the ledger, for whoever tries this out.
pub(crate) const INBOX: &str = "inbox";
const LOG: &str = "log";

/// One who is asked to bring a message to its user.
#[derive(Debug, Clone)]
pub(crate) enum Route {
    /// The ledger keeps it, sealed, for a developer to read.
    Inbox,
    /// A provider takes it.
    External {
        /// Its name in the delivery file, for metrics and logs.
        name: String,
        /// Who takes it; one object wherever the name stands.
        provider: Arc<dyn Provider>,
    },
}

impl Route {
    /// The name in the delivery file.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Inbox => INBOX,
            Self::External { name, .. } => name,
        }
    }
}

/// What the delivery file says.
#[derive(Debug)]
pub(crate) struct Settings {
    messages: Messages,
    sms: Vec<Route>,
    email: Vec<Route>,
}

impl Settings {
    /// Reads and checks the delivery file; without one, both channels lead to the inbox. In production
    /// nothing but real providers is allowed. An error names the file, the key, and what to write there.
    pub(crate) fn load(file: Option<&Path>, production: bool) -> anyhow::Result<Self> {
        let environment = |name: &str| std::env::var(name).ok();
        let Some(file) = file else {
            return Self::parse("", Path::new(""), production, &environment)
                .context("no delivery file is named");
        };
        let source = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read the delivery file {}", file.display()))?;
        let folder = file.parent().unwrap_or(Path::new(""));
        Self::parse(&source, folder, production, &environment).with_context(|| file.display().to_string())
    }

    /// Whom to ask for this channel, one after the other. Empty where it is not used.
    pub(crate) fn routes(&self, channel: Channel) -> &[Route] {
        match channel {
            Channel::Sms => &self.sms,
            Channel::Email => &self.email,
        }
    }

    /// What messages say.
    pub(crate) fn messages(&self) -> &Messages {
        &self.messages
    }

    /// The names of all that are asked, each once, for metrics.
    pub(crate) fn provider_names(&self) -> BTreeSet<&str> {
        self.sms.iter().chain(&self.email).map(Route::name).collect()
    }

    fn parse(
        source: &str,
        folder: &Path,
        production: bool,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> anyhow::Result<Self> {
        let mut table: toml::Table = toml::from_str(source).map_err(|error| syntax_error(source, &error))?;
        for (key, value) in &mut table {
            fill_in(key, value, environment)?;
        }
        let file = DeliveryFile::deserialize(table).map_err(|error| anyhow!(without_values(&error)))?;
        let messages = Messages::new(file.app_name, file.webotp_domain, file.messages)?;
        let providers = file
            .providers
            .into_iter()
            .map(|(name, table)| {
                let provider = Named::new(&name, table, folder)?;
                Ok((name, provider))
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            messages,
            sms: routes(Channel::Sms, &file.channels.sms, &providers, production)?,
            email: routes(Channel::Email, &file.channels.email, &providers, production)?,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DeliveryFile {
    app_name: String,
    webotp_domain: Option<String>,
    channels: ChannelsTable,
    messages: MessagesTable,
    providers: BTreeMap<String, ProviderTable>,
}

impl Default for DeliveryFile {
    fn default() -> Self {
        Self {
            app_name: "spin-otp".to_owned(),
            webotp_domain: None,
            channels: ChannelsTable::default(),
            messages: MessagesTable::default(),
            providers: BTreeMap::new(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ChannelsTable {
    sms: Vec<String>,
    email: Vec<String>,
}

impl Default for ChannelsTable {
    fn default() -> Self {
        Self { sms: vec![INBOX.to_owned()], email: vec![INBOX.to_owned()] }
    }
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum ProviderTable {
    Webhook(WebhookTable),
    Smtp(SmtpTable),
}

/// A provider of the delivery file, and what it can do.
struct Named {
    provider: Arc<dyn Provider>,
    sends_sms: bool,
}

impl Named {
    fn new(name: &str, table: ProviderTable, folder: &Path) -> anyhow::Result<Self> {
        ensure!(
            ![INBOX, LOG].contains(&name),
            "providers.{name}: {name} is built in and has no table: take it out, or choose another name"
        );
        ensure!(
            (1..=32).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')),
            "providers.{name:?}: write a name of 1 to 32 of A-Z a-z 0-9 - _"
        );
        let (provider, sends_sms): (anyhow::Result<Arc<dyn Provider>>, _) = match table {
            ProviderTable::Webhook(table) => (Webhook::new(table, folder).map(|it| Arc::new(it) as _), true),
            ProviderTable::Smtp(table) => (Smtp::new(table, folder).map(|it| Arc::new(it) as _), false),
        };
        let provider = provider.map_err(|error| anyhow!("providers.{name}.{error:#}"))?;
        Ok(Self { provider, sends_sms })
    }
}

fn routes(
    channel: Channel,
    names: &[String],
    providers: &BTreeMap<String, Named>,
    production: bool,
) -> anyhow::Result<Vec<Route>> {
    let key = format!("channels.{}", channel.as_str());
    let mut seen = BTreeSet::new();
    names
        .iter()
        .map(|name| {
            ensure!(seen.insert(name), "{key}: {name} stands there twice");
            if production && [INBOX, LOG].contains(&name.as_str()) {
                bail!(
                    "{key}: {name} brings no code to its user, so it is refused in production: name a webhook\
                     {} of [providers]",
                    if channel == Channel::Email { " or a mail server" } else { "" }
                );
            }
            if name == INBOX {
                return Ok(Route::Inbox);
            }
            let provider: Arc<dyn Provider> = match providers.get(name) {
                Some(named) => {
                    ensure!(
                        channel == Channel::Email || named.sends_sms,
                        "{key}: {name} is a mail server, which sends no text messages: name a webhook"
                    );
                    named.provider.clone()
                }
                None if name == LOG => Arc::new(Log),
                None => bail!("{key}: there is no [providers.{name}]: write one, or name inbox, log{}", {
                    providers.keys().map(|name| format!(", {name}")).collect::<String>()
                }),
            };
            Ok(Route::External { name: name.clone(), provider })
        })
        .collect()
}

/// Puts the variable's value where `env:NAME` stands, at any depth.
fn fill_in(
    key: &str,
    value: &mut toml::Value,
    environment: &dyn Fn(&str) -> Option<String>,
) -> anyhow::Result<()> {
    match value {
        toml::Value::String(text) => {
            if let Some(name) = text.strip_prefix("env:") {
                *text = match environment(name) {
                    Some(value) if !value.is_empty() => value,
                    _ => bail!("{key}: the environment variable {name} is not set, or is empty: set it"),
                };
            }
        }
        toml::Value::Array(values) => {
            for value in values {
                fill_in(key, value, environment)?;
            }
        }
        toml::Value::Table(values) => {
            for (inner, value) in values {
                fill_in(&format!("{key}.{inner}"), value, environment)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Names the line, and does not show it as the parser would: it may hold a secret.
fn syntax_error(source: &str, error: &toml::de::Error) -> anyhow::Error {
    let line =
        error.span().and_then(|span| source.get(..span.start)).map(|before| before.matches('\n').count() + 1);
    match line {
        Some(line) => anyhow!("line {line}: {}", error.message()),
        None => anyhow!("{}", error.message()),
    }
}

/// What does not fit and where, without the values that the error quotes: one may be a secret.
fn without_values(error: &toml::de::Error) -> String {
    let mut text = error.to_string().trim_end().replace('\n', " ");
    for kind in ["integer `", "floating point `", "boolean `"] {
        if let Some((before, (_, after))) =
            text.split_once(kind).and_then(|(before, rest)| Some((before, rest.split_once('`')?)))
        {
            text = format!("{before}{kind}…`{after}");
        }
    }
    match (text.find('"'), text.rfind('"')) {
        (Some(first), Some(last)) if first < last => format!("{}\"…{}", &text[..first], &text[last..]),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(source: &str, production: bool) -> anyhow::Result<Settings> {
        let environment = |name: &str| match name {
            "SECRET" => Some("hunter2-0123456789abcdef".to_owned()),
            "NAME" => Some("Shop".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        Settings::parse(source, Path::new("/nowhere"), production, &environment)
    }

    const PROVIDERS: &str = r#"
        [providers.main]
        kind = "webhook"
        url = "https://sms.example/messages"
        secret = "env:SECRET"
        body = '{"to": {{ to }}, "text": {{ text }}}'
        headers = { authorization = "env:SECRET" }
        [providers.spare]
        kind = "webhook"
        url = "http://localhost:8080/"
        secret = "env:SECRET"
        [providers.mail]
        kind = "smtp"
        url = "smtps://mail.example:465"
        from = "Shop <no-reply@shop.example>"
        username = "shop"
        password = "env:SECRET"
    "#;

    fn names(settings: &Settings, channel: Channel) -> Vec<&str> {
        settings.routes(channel).iter().map(Route::name).collect()
    }

    #[test]
    fn without_a_file_codes_go_to_the_inbox() {
        let settings = Settings::load(None, false).unwrap();
        assert_eq!(names(&settings, Channel::Sms), ["inbox"]);
        assert_eq!(names(&settings, Channel::Email), ["inbox"]);
        let error = format!("{:#}", Settings::load(None, true).unwrap_err());
        assert!(
            error.starts_with("no delivery file is named: channels.sms: inbox brings no code"),
            "{error}"
        );
    }

    #[test]
    fn providers_are_asked_in_the_order_of_the_file() {
        let source = format!(
            "app_name = \"env:NAME\"\nwebotp_domain = \"shop.example\"\n[channels]\n\
             sms = [\"spare\", \"main\"]\n\
             email = [\"mail\", \"main\"]\n[messages]\nsms = \"{{{{ code }}}}\"\n{PROVIDERS}"
        );
        for production in [false, true] {
            let settings = parse(&source, production).unwrap();
            assert_eq!(names(&settings, Channel::Sms), ["spare", "main"]);
            assert_eq!(names(&settings, Channel::Email), ["mail", "main"]);
            assert_eq!(settings.provider_names().into_iter().collect::<Vec<_>>(), ["mail", "main", "spare"]);
            let shown = format!("{settings:?}");
            assert!(shown.contains("\"Shop\"") && !shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn the_example_of_this_module_works() {
        let example: String = include_str!("settings.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("//!"))
            .skip_while(|line| !line.contains("```toml"))
            .skip(1)
            .take_while(|line| !line.contains("```"))
            .filter(|line| !line.contains("ca_file"))
            .fold(String::new(), |example, line| example + line + "\n");
        let environment = |_: &str| Some("hunter2-0123456789abcdef".to_owned());
        let settings = Settings::parse(&example, Path::new(""), true, &environment).unwrap();
        assert_eq!(names(&settings, Channel::Sms), ["main", "spare"]);
        assert_eq!(names(&settings, Channel::Email), ["mail"]);
    }

    #[test]
    fn the_example_of_the_readme_works() {
        let (_, example) = include_str!("../../README.md").split_once("```toml\n").unwrap();
        let (example, _) = example.split_once("```").unwrap();
        let environment = |_: &str| Some("hunter2-0123456789abcdef".to_owned());
        let settings = Settings::parse(example, Path::new(""), true, &environment).unwrap();
        assert_eq!(names(&settings, Channel::Sms), ["gateway", "spare"]);
        assert_eq!(names(&settings, Channel::Email), ["mail"]);
    }

    #[test]
    fn what_is_built_in_needs_no_table() {
        let settings = parse("[channels]\nsms = [\"log\", \"inbox\"]", false).unwrap();
        assert_eq!(names(&settings, Channel::Sms), ["log", "inbox"]);
        assert!(matches!(settings.routes(Channel::Sms), [Route::External { .. }, Route::Inbox]));
    }

    #[test]
    fn a_file_that_does_not_work_is_refused_with_what_to_write() {
        let webhook = |lines: &str| format!("[providers.main]\nkind = \"webhook\"\n{lines}");
        let channels = |lines: &str| format!("[channels]\n{lines}\n{PROVIDERS}");
        for (source, error) in [
            ("app = \"Shop\"".to_owned(), "unknown field `app`, expected one of `app_name`"),
            ("app_name = \"hunter2".to_owned(), "line 1: "),
            ("\n\napp_name = \"a\"\napp_name = \"b\"".to_owned(), "line 4: duplicate key"),
            ("app_name = \"a\\nb\"".to_owned(), "app_name: write a name on one line"),
            (
                "app_name = \"env:MISSING\"".to_owned(),
                "app_name: the environment variable MISSING is not set",
            ),
            ("app_name = \"env:EMPTY\"".to_owned(), "app_name: the environment variable EMPTY is not set"),
            (
                "webotp_domain = \"https://shop.example\"".to_owned(),
                "webotp_domain: write the bare host name",
            ),
            (channels("voice = []"), "unknown field `voice`, expected `sms` or `email` in `channels`"),
            (
                channels("sms = \"hunter2\""),
                "invalid type: string \"…\", expected a sequence in `channels.sms`",
            ),
            (channels("sms = 12345678"), "invalid type: integer `…`, expected a sequence in `channels.sms`"),
            (channels("sms = 1.5"), "invalid type: floating point `…`, expected a sequence"),
            (
                channels("sms = [\"mian\"]"),
                "channels.sms: there is no [providers.mian]: write one, or name inbox, log, mail, main, \
                 spare",
            ),
            (
                channels("sms = [\"mail\"]"),
                "channels.sms: mail is a mail server, which sends no text messages",
            ),
            (channels("sms = [\"main\", \"main\"]"), "channels.sms: main stands there twice"),
            ("[messages]\nsms = \"{{ code\"".to_owned(), "messages.sms: syntax error in line 1"),
            ("[messages]\nsms = \"Hi\"".to_owned(), "messages.sms: it does not show the code"),
            ("[messages]\ntext = \"\"".to_owned(), "unknown field `text`, expected one of `sms`"),
            (
                "[providers.main]\nkind = \"fax\"".to_owned(),
                "unknown variant `fax`, expected `webhook` or `smtp`",
            ),
            ("[providers.main]\nurl = \"\"".to_owned(), "missing field `kind` in `providers.main`"),
            (webhook(""), "missing field `url` in `providers.main`"),
            (
                webhook("url = \"https://a.example\"\nsecrets = \"hunter2\""),
                "unknown field `secrets`, expected one of `url`",
            ),
            (webhook("url = \"https://a.example\""), "providers.main.secret: write the key"),
            (
                webhook("url = \"https://a.example\"\nsecret = \"hunter2\""),
                "providers.main.secret: the key has 7 bytes",
            ),
            (
                webhook("url = \"https://a.example\"\nsecret = \"env:NOPE\""),
                "providers.main.secret: the environment variable NOPE",
            ),
            (
                webhook("url = \"http://a.example\"\nsecret = \"env:SECRET\""),
                "providers.main.url: codes go unencrypted",
            ),
            (
                webhook("url = \"https://a.example\"\nheaders = { authorization = \"env:NOPE\" }"),
                "providers.main.headers.authorization: the environment variable NOPE",
            ),
            (
                webhook("url = \"https://a.example\"\nheaders = \"hunter2\""),
                "invalid type: string \"…\", expected a map in `providers.main`",
            ),
            (
                webhook("url = \"http://[::1]/\"\nsecret = \"env:SECRET\"\nbody = '{\"to\": \"{{ to }}\"}'"),
                "providers.main.body: it gives no JSON",
            ),
            (
                "[providers.mail]\nkind = \"smtp\"\nurl = \"smtp://localhost?tls=none\"\nfrom = \"Shop\""
                    .to_owned(),
                "providers.mail.from: write a mailbox",
            ),
            (PROVIDERS.replace("providers.main", "providers.log"), "providers.log: log is built in"),
            (PROVIDERS.replace("providers.main", "providers.\"a b\""), "providers.\"a b\": write a name"),
        ] {
            let refusal = format!("{:#}", parse(&source, false).unwrap_err());
            assert!(refusal.starts_with(error), "{source}\n{refusal}");
            assert!(!refusal.contains("hunter2"), "{refusal}");
        }
    }

    #[test]
    fn production_takes_only_who_delivers() {
        for (channels, error) in [
            ("", "channels.sms: inbox brings no code"),
            ("sms = [\"main\"]", "channels.email: inbox brings no code"),
            ("sms = [\"main\", \"inbox\"]\nemail = [\"mail\"]", "channels.sms: inbox brings no code"),
            ("sms = [\"main\"]\nemail = [\"log\"]", "channels.email: log brings no code"),
        ] {
            let source = format!("[channels]\n{channels}\n{PROVIDERS}");
            parse(&source, false).unwrap();
            let refusal = format!("{:#}", parse(&source, true).unwrap_err());
            assert!(refusal.starts_with(error), "{refusal}");
        }
    }

    #[test]
    fn an_error_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("delivery.toml");
        let error = format!("{:#}", Settings::load(Some(&file), false).unwrap_err());
        assert!(
            error.starts_with("cannot read the delivery file ") && error.contains("delivery.toml"),
            "{error}"
        );
        std::fs::write(&file, "[channels]\nsms = [\"none\"]").unwrap();
        let error = format!("{:#}", Settings::load(Some(&file), false).unwrap_err());
        assert!(error.contains("delivery.toml: channels.sms: there is no [providers.none]"), "{error}");
        // A channel that is not used.
        std::fs::write(&file, "[channels]\nemail = []").unwrap();
        assert!(Settings::load(Some(&file), false).unwrap().routes(Channel::Email).is_empty());
    }

    #[test]
    fn a_ca_file_stands_beside_the_delivery_file() {
        let source = PROVIDERS.replace("username = \"shop\"", "username = \"shop\"\nca_file = \"ca.pem\"");
        let error = format!("{:#}", parse(&source, false).unwrap_err());
        assert!(error.starts_with("providers.mail.ca_file: cannot read /nowhere/ca.pem"), "{error}");
    }
}
