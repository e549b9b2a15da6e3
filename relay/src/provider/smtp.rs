//! Sends mails through a mail server, encrypted.

use super::{
    CONNECT_DEADLINE, DEADLINE, Provider, SendError, certificates, idempotency_key, is_loopback, root_cause,
};
use crate::message::Message;
use anyhow::{anyhow, bail, ensure};
use futures::future::BoxFuture;
use lettre::{
    Address,
    message::{
        Mailbox, SinglePart,
        header::{Header, HeaderName, HeaderValue},
    },
    transport::smtp::{
        authentication::{Credentials, DEFAULT_MECHANISMS},
        client::{AsyncSmtpConnection, Certificate, TlsParameters},
        extension::ClientId,
    },
};
use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use url::Url;

/// For how long a connection waits for the next mail. Servers hang up after minutes.
const IDLE: Duration = Duration::from_secs(30);

/// How many connections wait for the next mail.
const MAX_IDLE: usize = 4;

/// A provider of `kind = "smtp"` in the delivery file.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SmtpTable {
    url: String,
    from: String,
    username: Option<String>,
    password: Option<String>,
    ca_file: Option<PathBuf>,
}

/// One mail server.
pub(crate) struct Smtp {
    host: String,
    port: u16,
    encryption: Encryption,
    credentials: Option<Credentials>,
    /// The name in EHLO: the sender's domain, for the name of this machine is nobody's business.
    hello: ClientId,
    from: Mailbox,
    /// Connections that wait for the next mail, with the time since when.
    ///
    /// Not lettre's own pool: that takes back a connection whose mail was given up half way, and the
    /// next mail would become part of it.
    idle: Mutex<Vec<(AsyncSmtpConnection, Instant)>>,
    deadline: Duration,
}

enum Encryption {
    /// From the first byte (RFC 8314), `smtps://`.
    Implicit(TlsParameters),
    /// By STARTTLS (RFC 3207), before anything that matters, or not at all. `smtp://`.
    StartTls(TlsParameters),
    /// To this machine only, `smtp://…?tls=none`.
    None,
}

impl Smtp {
    /// Checks all that can be checked without a connection. `ca_file` is looked for in `folder`. An
    /// error begins with the key of the delivery file that it is about, and repeats no secret.
    pub(crate) fn new(table: SmtpTable, folder: &Path) -> anyhow::Result<Self> {
        let url = Url::parse(&table.url).map_err(|error| {
            anyhow!("url: {error}; write the mail server's address, such as \"smtps://mail.example:465\"")
        })?;
        let host = match url.host_str() {
            Some(host) if !host.is_empty() => host.trim_matches(['[', ']']).to_owned(),
            _ => bail!("url: write the mail server's address, such as \"smtps://mail.example:465\""),
        };
        ensure!(
            matches!(url.path(), "" | "/") && url.fragment().is_none(),
            "url: take out what stands behind the mail server's name and port"
        );
        let (encryption, port) = match (url.scheme(), url.query()) {
            ("smtps", None) => (Encryption::Implicit(tls(&host, &table, folder)?), 465),
            ("smtp", None) => (Encryption::StartTls(tls(&host, &table, folder)?), 587),
            ("smtp", Some("tls=none")) if is_loopback(&host) => (Encryption::None, 25),
            ("smtp", Some("tls=none")) => bail!(
                "url: codes go unencrypted to this machine only: take out ?tls=none, which leaves \
                 STARTTLS, or write smtps://"
            ),
            ("smtp" | "smtps", _) => bail!("url: take out what stands behind the ?"),
            _ => bail!("url: write smtps:// for TLS from the start, or smtp:// for STARTTLS"),
        };
        let from: Mailbox = table
            .from
            .parse()
            .map_err(|_| anyhow!("from: write a mailbox such as \"Shop <no-reply@shop.example>\""))?;
        ensure!(
            from.email.to_string().is_ascii() && !table.from.contains(char::is_control),
            "from: write the address in ASCII, a domain in other letters as xn--…, and all on one line"
        );
        Ok(Self {
            credentials: credentials(&url, table.username, table.password)?,
            hello: ClientId::Domain(from.email.domain().to_owned()),
            port: url.port().unwrap_or(port),
            idle: Mutex::default(),
            deadline: DEADLINE,
            host,
            encryption,
            from,
        })
    }

    async fn deliver(&self, message: &Message) -> Result<(), SendError> {
        let mail = self.compose(message)?;
        let mut connection = match self.waiting().await {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        connection.send(mail.envelope(), &mail.formatted()).await.map_err(|error| refusal(&error))?;
        self.keep(connection);
        Ok(())
    }

    fn compose(&self, message: &Message) -> Result<lettre::Message, SendError> {
        let id = idempotency_key(message)?;
        let to: Address = message
            .to
            .parse()
            .map_err(|_| SendError::Permanent("the recipient is no mail address".to_owned()))?;
        lettre::Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(message.subject.as_deref().unwrap_or_default())
            .message_id(Some(format!("<{id}@{}>", self.from.email.domain())))
            .date_now()
            .header(AutoSubmitted)
            .singlepart(SinglePart::plain(message.text.to_string()))
            .map_err(|_| SendError::Permanent("the mail cannot be written".to_owned()))
    }

    /// A connection that has waited, if it still is one.
    async fn waiting(&self) -> Option<AsyncSmtpConnection> {
        loop {
            let (mut connection, since) = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if since.elapsed() < IDLE && connection.test_connected().await {
                return Some(connection);
            }
        }
    }

    fn keep(&self, connection: AsyncSmtpConnection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(_, since)| since.elapsed() < IDLE);
        if idle.len() < MAX_IDLE {
            idle.push((connection, Instant::now()));
        }
    }

    /// Whatever a server refuses before there is a mail says nothing about the mail, so it is worth
    /// another attempt, with this provider or the next.
    async fn connect(&self) -> Result<AsyncSmtpConnection, SendError> {
        let refused = |step: &str, error| {
            let (SendError::Temporary(reason) | SendError::Permanent(reason)) = refusal(&error);
            SendError::Temporary(format!("{step}: {reason}"))
        };
        let implicit = match &self.encryption {
            Encryption::Implicit(tls) => Some(tls.clone()),
            Encryption::StartTls(_) | Encryption::None => None,
        };
        let server = (self.host.as_str(), self.port);
        let mut connection =
            AsyncSmtpConnection::connect_tokio1(server, Some(CONNECT_DEADLINE), &self.hello, implicit, None)
                .await
                .map_err(|error| refused("no connection", error))?;
        if let Encryption::StartTls(tls) = &self.encryption {
            connection
                .starttls(tls.clone(), &self.hello)
                .await
                .map_err(|error| refused("no STARTTLS", error))?;
        }
        if let Some(credentials) = &self.credentials {
            connection
                .auth(DEFAULT_MECHANISMS, credentials)
                .await
                .map_err(|error| refused("no login, check username and password", error))?;
        }
        Ok(connection)
    }
}

impl Provider for Smtp {
    fn send<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<(), SendError>> {
        Box::pin(async move {
            tokio::time::timeout(self.deadline, self.deliver(message))
                .await
                .unwrap_or_else(|_| Err(SendError::no_answer(self.deadline)))
        })
    }
}

impl std::fmt::Debug for Smtp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Smtp").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

/// Nobody's vacation notice shall answer a code (RFC 3834, section 5).
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

/// What an error means for the mail. Of an answer it shows the codes alone, for servers repeat addresses.
fn refusal(error: &lettre::transport::smtp::Error) -> SendError {
    let cause = || root_cause(error);
    if let Some(code) = error.status() {
        let reason = match enhanced_code(&cause()) {
            Some(enhanced) => format!("SMTP {code} {enhanced}"),
            None => format!("SMTP {code}"),
        };
        if error.is_permanent() { SendError::Permanent(reason) } else { SendError::Temporary(reason) }
    } else if error.is_response() {
        SendError::Temporary("the answer is not SMTP".to_owned())
    } else if error.is_client() {
        // The server lacks an extension that this mail needs, such as SMTPUTF8 for its address.
        SendError::Permanent(cause())
    } else {
        SendError::Temporary(cause())
    }
}

/// The code of RFC 3463 that an answer begins with, such as 5.1.1.
fn enhanced_code(answer: &str) -> Option<&str> {
    let code = answer.split_whitespace().next()?;
    let mut parts = code.split('.');
    let number = |part: Option<&str>| {
        part.is_some_and(|part| {
            (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    let fits = matches!(parts.next(), Some("2" | "4" | "5")) && number(parts.next()) && number(parts.next());
    (fits && parts.next().is_none()).then_some(code)
}

fn tls(host: &str, table: &SmtpTable, folder: &Path) -> anyhow::Result<TlsParameters> {
    let mut tls = TlsParameters::builder(host.to_owned());
    if let Some(file) = &table.ca_file {
        let certificates = certificates(&folder.join(file)).map_err(|error| anyhow!("ca_file: {error:#}"))?;
        for certificate in certificates {
            let certificate = Certificate::from_der(certificate.to_vec())
                .map_err(|error| anyhow!("ca_file: {}", root_cause(&error)))?;
            tls = tls.add_root_certificate(certificate);
        }
    }
    tls.build().map_err(|error| anyhow!("ca_file: {}", root_cause(&error)))
}

/// The login, which stands in the URL or beside it.
fn credentials(
    url: &Url,
    username: Option<String>,
    password: Option<String>,
) -> anyhow::Result<Option<Credentials>> {
    let in_url = !url.username().is_empty() || url.password().is_some();
    match (username, password) {
        (None, None) if !in_url => Ok(None),
        (None, None) => {
            let (Some(username), Some(password)) =
                (percent_decoded(url.username()), url.password().and_then(percent_decoded))
            else {
                bail!("url: write smtps://username:password@…, with %40 for an @ in either, or neither");
            };
            Ok(Some(Credentials::new(username, password)))
        }
        (Some(_), Some(_)) if in_url => {
            bail!("username: the url has a login already: write it in one place")
        }
        (Some(username), Some(password)) => Ok(Some(Credentials::new(username, password))),
        (Some(_), None) => bail!("password: write it, for there is a username"),
        (None, Some(_)) => bail!("username: write it, for there is a password"),
    }
}

/// Undoes the percent-encoding of a part of a URL (RFC 3986, section 2.1).
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::samples;
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };
    use tokio::{
        io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
        net::{TcpListener, TcpStream},
    };

    fn table(url: &str) -> SmtpTable {
        SmtpTable {
            url: url.to_owned(),
            from: "Shöp <no-reply@shop.example>".to_owned(),
            username: None,
            password: None,
            ca_file: None,
        }
    }

    fn smtp(url: &str) -> Smtp {
        Smtp::new(table(url), Path::new(".")).unwrap()
    }

    fn mail() -> Message {
        let [_, mail, _] = samples();
        mail
    }

    /// A mail server that answers each command with what stands beside its name, and as usual otherwise.
    #[derive(Default)]
    struct Server {
        answers: Vec<(&'static str, &'static str)>,
        connections: AtomicUsize,
        lines: Mutex<Vec<String>>,
    }

    impl Server {
        async fn start(answers: &[(&'static str, &'static str)]) -> (Arc<Self>, String) {
            let server = Arc::new(Self { answers: answers.to_vec(), ..Self::default() });
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("smtp://{}", listener.local_addr().unwrap());
            let running = server.clone();
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    running.connections.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(running.clone().talk(stream));
                }
            });
            (server, url)
        }

        async fn talk(self: Arc<Self>, stream: TcpStream) -> std::io::Result<()> {
            let (reader, mut writer) = stream.into_split();
            let mut lines = BufReader::new(reader).lines();
            let mut command = "GREETING".to_owned();
            loop {
                let usual = match command.as_str() {
                    "GREETING" => "220 mail.example",
                    "EHLO" => "250-mail.example\r\n250 AUTH PLAIN",
                    "AUTH" => "235 2.7.0 welcome",
                    "DATA" => "354 go ahead",
                    "QUIT" => "221 bye",
                    _ => "250 2.0.0 fine",
                };
                let answer =
                    self.answers.iter().find(|(name, _)| *name == command).map_or(usual, |&(_, it)| it);
                if answer == "silence" {
                    std::future::pending::<()>().await;
                }
                writer.write_all(format!("{answer}\r\n").as_bytes()).await?;
                let in_mail = answer.starts_with("354");
                command = loop {
                    let Some(line) = lines.next_line().await? else { return Ok(()) };
                    self.lines.lock().unwrap().push(line.clone());
                    match line.as_str() {
                        "." if in_mail => break "END".to_owned(),
                        _ if in_mail => {}
                        _ => break line.split([' ', ':']).next().unwrap().to_owned(),
                    }
                };
            }
        }

        fn lines(&self) -> Vec<String> {
            self.lines.lock().unwrap().clone()
        }
    }

    #[tokio::test]
    async fn a_mail_is_what_mailboxes_expect_and_has_the_event_in_its_id() {
        let (server, url) = Server::start(&[]).await;
        let mut mail = mail();
        mail.subject = Some("Dein Schlüssel".to_owned());
        smtp(&format!("{url}?tls=none")).send(&mail).await.unwrap();
        let lines = server.lines();
        for line in [
            "EHLO shop.example",
            "MAIL FROM:<no-reply@shop.example>",
            "RCPT TO:<ada@example.com>",
            "To: ada@example.com",
            "Message-ID: <01933a6e-7e1c-7b3a-9f5e-3d2c1b0a9f8e@shop.example>",
            "Auto-Submitted: auto-generated",
            "MIME-Version: 1.0",
            "Content-Type: text/plain; charset=utf-8",
            "428193 is your code.",
        ] {
            assert!(lines.iter().any(|it| it.trim_end() == line), "{line}: {lines:#?}");
        }
        for start in ["From: ", "Date: ", "Subject: "] {
            assert_eq!(lines.iter().filter(|line| line.starts_with(start)).count(), 1, "{lines:#?}");
        }
        assert!(lines.iter().all(|line| line.is_ascii()), "{lines:#?}");
    }

    #[tokio::test]
    async fn mails_share_a_connection() {
        let (server, url) = Server::start(&[]).await;
        let smtp = smtp(&format!("{url}?tls=none"));
        for _ in 0..3 {
            smtp.send(&mail()).await.unwrap();
        }
        assert_eq!(server.connections.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_mail_that_was_given_up_half_way_does_not_run_into_the_next() {
        let (server, url) = Server::start(&[("END", "silence")]).await;
        let mut smtp = smtp(&format!("{url}?tls=none"));
        smtp.deadline = Duration::from_millis(200);
        for _ in 0..2 {
            let error = SendError::Temporary("no answer within 200ms".to_owned());
            assert_eq!(smtp.send(&mail()).await, Err(error));
        }
        assert_eq!(server.connections.load(Ordering::Relaxed), 2);
        assert!(!server.lines().contains(&"NOOP".to_owned()));
    }

    #[tokio::test]
    async fn an_answer_says_whether_to_try_again() {
        let temporary = |text: &str| SendError::Temporary(text.to_owned());
        let permanent = |text: &str| SendError::Permanent(text.to_owned());
        for (command, answer, error) in [
            ("RCPT", "450 4.2.0 <ada@example.com> greylisted", temporary("SMTP 450 4.2.0")),
            ("RCPT", "550 5.1.1 <ada@example.com> unknown", permanent("SMTP 550 5.1.1")),
            ("RCPT", "550-5.1.1 <ada@example.com>\r\n550 5.1.1 unknown", permanent("SMTP 550 5.1.1")),
            ("RCPT", "550 ada@example.com unknown", permanent("SMTP 550")),
            ("MAIL", "552 5.3.4 too big", permanent("SMTP 552 5.3.4")),
            ("DATA", "451 4.3.0 later", temporary("SMTP 451 4.3.0")),
            ("END", "554 5.7.1 ada@example.com: spam", permanent("SMTP 554 5.7.1")),
            ("END", "421 4.3.2 going down", temporary("SMTP 421 4.3.2")),
            ("GREETING", "554 5.3.2 not here", temporary("no connection: SMTP 554 5.3.2")),
            ("RCPT", "ada@example.com", temporary("the answer is not SMTP")),
        ] {
            let (_, url) = Server::start(&[(command, answer)]).await;
            assert_eq!(smtp(&format!("{url}?tls=none")).send(&mail()).await, Err(error), "{answer}");
        }
    }

    #[tokio::test]
    async fn a_login_that_is_refused_says_nothing_about_the_mail() {
        let (server, url) = Server::start(&[("AUTH", "535 5.7.8 no")]).await;
        let url = url.replace("smtp://", "smtp://ada%40shop:hunter%322@");
        let smtp = smtp(&format!("{url}?tls=none"));
        let error = smtp.send(&mail()).await.unwrap_err();
        let text = "no login, check username and password: SMTP 535 5.7.8";
        assert_eq!(error, SendError::Temporary(text.to_owned()));
        assert!(!format!("{error:?} {smtp:?}").contains("hunter"), "{error:?} {smtp:?}");
        // printf '\0ada@shop\0hunter22' | base64
        assert!(server.lines().contains(&"AUTH PLAIN AGFkYUBzaG9wAGh1bnRlcjIy".to_owned()));
        assert!(!server.lines().iter().any(|line| line.starts_with("MAIL")));
    }

    #[tokio::test]
    async fn without_starttls_nothing_is_said() {
        let (server, url) = Server::start(&[]).await;
        let url = url.replace("smtp://", "smtp://ada:hunter2@");
        let error = smtp(&url).send(&mail()).await.unwrap_err();
        assert!(matches!(&error, SendError::Temporary(text) if text.starts_with("no STARTTLS")), "{error}");
        assert!(server.lines().iter().all(|line| line.starts_with("EHLO") || line == "QUIT"));
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_tried_again() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let error = smtp(&format!("smtps://127.0.0.1:{port}")).send(&mail()).await.unwrap_err();
        assert!(
            matches!(&error, SendError::Temporary(text) if text.starts_with("no connection: ")),
            "{error}"
        );
    }

    #[tokio::test]
    async fn an_address_that_the_server_cannot_write_is_for_another_provider() {
        let (_, url) = Server::start(&[]).await;
        let mut mail = mail();
        for to in ["øda@example.com", "ada", ""] {
            mail.to = to.to_owned();
            let error = smtp(&format!("{url}?tls=none")).send(&mail).await.unwrap_err();
            assert!(matches!(&error, SendError::Permanent(text) if !text.contains("øda")), "{error}");
        }
    }

    #[tokio::test]
    async fn no_value_becomes_a_header() {
        let (server, url) = Server::start(&[]).await;
        let mut mail = mail();
        mail.subject = Some("Hi\r\nBcc: eve@example.com".to_owned());
        let _ = smtp(&format!("{url}?tls=none")).send(&mail).await;
        assert!(server.lines().iter().all(|line| !line.starts_with("Bcc")), "{:#?}", server.lines());
        mail.to = "ada@example.com\r\nBcc: eve@example.com".to_owned();
        assert!(matches!(smtp(&url).send(&mail).await, Err(SendError::Permanent(_))));
    }

    #[test]
    fn tables_that_cannot_work_or_would_leak_are_refused() {
        let with = |change: &dyn Fn(&mut SmtpTable)| {
            let mut table = table("smtp://localhost?tls=none");
            change(&mut table);
            format!("{:#}", Smtp::new(table, Path::new("/nowhere")).unwrap_err())
        };
        let url = |text: &str| with(&|table| table.url = text.to_owned());
        let from = |text: &str| with(&|table| table.from = text.to_owned());
        for (refusal, error) in [
            (url("mail.example"), "url: relative URL without a base; write the mail server's address"),
            (url("smtp:mail.example"), "url: write the mail server's address"),
            (url("https://mail.example"), "url: write smtps:// for TLS from the start"),
            (url("smtp://mail.example?tls=none"), "url: codes go unencrypted to this machine only"),
            (url("smtps://localhost?tls=none"), "url: take out what stands behind the ?"),
            (url("smtp://mail.example?tls=opportunistic"), "url: take out what stands behind the ?"),
            (url("smtps://mail.example/hunter2"), "url: take out what stands behind the mail server's name"),
            (url("smtps://hunter2@mail.example"), "url: write smtps://username:password@…"),
            (url("smtps://hunter2:%zz@mail.example"), "url: write smtps://username:password@…"),
            (from("Shop"), "from: write a mailbox such as"),
            (from(""), "from: write a mailbox such as"),
            (from("shöp@shop.example"), "from: write the address in ASCII"),
            (with(&|table| table.username = Some("hunter2".to_owned())), "password: write it"),
            (with(&|table| table.password = Some("hunter2".to_owned())), "username: write it"),
            (
                with(&|table| {
                    table.url = "smtps://hunter2:hunter2@mail.example".to_owned();
                    table.username = Some("hunter2".to_owned());
                    table.password = Some("hunter2".to_owned());
                }),
                "username: the url has a login already",
            ),
            (
                with(&|table| {
                    table.url = "smtps://mail.example".to_owned();
                    table.ca_file = Some("ca.pem".into());
                }),
                "ca_file: cannot read /nowhere/ca.pem",
            ),
        ] {
            assert!(refusal.starts_with(error), "{refusal}");
            assert!(!refusal.contains("hunter2"), "{refusal}");
        }
    }

    #[test]
    fn ports_are_those_of_submission() {
        for (url, port) in [
            ("smtps://mail.example", 465),
            ("smtp://mail.example", 587),
            ("smtp://localhost?tls=none", 25),
            ("smtps://[::1]:2465/", 2465),
        ] {
            assert_eq!(smtp(url).port, port, "{url}");
        }
        assert_eq!(smtp("smtps://[::1]:2465/").host, "::1");
    }

    #[test]
    fn percent_encoding_is_undone() {
        assert_eq!(percent_decoded("a%40b%3a%C3%A9+").as_deref(), Some("a@b:é+"));
        for bad in ["%", "%4", "%4g", "%ff", "a%"] {
            assert_eq!(percent_decoded(bad), None, "{bad}");
        }
    }
}
