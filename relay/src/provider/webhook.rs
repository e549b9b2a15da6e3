//! Posts messages as JSON to a gateway of the operator's choice.
//!
//! Requests are signed by the Standard Webhooks specification 1.0.0, symmetric form:
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use super::{
    CONNECT_DEADLINE, DEADLINE, Provider, SendError, certificates, idempotency_key, is_loopback, root_cause,
};
use crate::{message::Message, template::JsonTemplate};
use anyhow::{Context, anyhow, bail, ensure};
use base64ct::{Base64, Encoding};
use futures::future::BoxFuture;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
    redirect,
};
use rustls::{ClientConfig, RootCertStore};
use sha2::Sha256;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use zeroize::Zeroizing;

/// The shortest key to sign with, in bytes. The specification asks for 24, and older gateways have less.
const MIN_SECRET_BYTES: usize = 16;

/// What the specification puts in front of a secret in base64.
const SECRET_PREFIX: &str = "whsec_";

/// Headers that say what the request is, and so are not the operator's to change.
const OWN_HEADERS: [&str; 10] = [
    "connection",
    "content-length",
    "content-type",
    "host",
    "idempotency-key",
    "traceparent",
    "transfer-encoding",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
];

/// As much of an answer is read as leaves its connection usable; a longer one costs the connection.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// A provider of `kind = "webhook"` in the delivery file.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookTable {
    url: String,
    /// `whsec_` and base64, or else the bytes as they stand.
    secret: Option<String>,
    body: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    ca_file: Option<PathBuf>,
}

/// One URL that messages are posted to.
pub(crate) struct Webhook {
    client: Client,
    url: Url,
    headers: HeaderMap,
    /// The keyed state rather than the key.
    mac: Hmac<Sha256>,
    body: JsonTemplate,
    deadline: Duration,
}

impl Webhook {
    /// Checks all that can be checked without a request. `ca_file` is looked for in `folder`. An error
    /// begins with the key of the delivery file that it is about, and repeats no secret.
    pub(crate) fn new(table: WebhookTable, folder: &Path) -> anyhow::Result<Self> {
        let url = url(&table.url)?;
        let headers = headers(&table.headers)?;
        let mac = key(table.secret.as_deref())?;
        let body = JsonTemplate::new(table.body.unwrap_or_else(|| JsonTemplate::DEFAULT.to_owned()))?;
        let roots = roots(url.scheme(), table.ca_file.map(|file| folder.join(file)).as_deref())?;
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .context("url: this build cannot speak TLS")?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = Client::builder()
            .user_agent(concat!("spin-otp-relay/", env!("CARGO_PKG_VERSION")))
            .tls_backend_preconfigured(tls)
            // A redirect would carry the code to where nobody said that it may go; a proxy likewise.
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_DEADLINE)
            .pool_idle_timeout(Duration::from_secs(30))
            .build()
            .map_err(|error| anyhow!("url: {}", root_cause(&error)))?;
        Ok(Self { client, url, headers, mac, body, deadline: DEADLINE })
    }

    async fn post(&self, message: &Message) -> Result<(), SendError> {
        let id = idempotency_key(message)?;
        let body = self.body.render(message).map_err(|error| SendError::Permanent(error.to_string()))?;
        // Of this attempt, not of the event: receivers refuse what was signed long ago.
        let timestamp = chrono::Utc::now().timestamp();
        let mut request = self
            .client
            .post(self.url.clone())
            .headers(self.headers.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("idempotency-key", id)
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature(&self.mac, id, timestamp, &body))
            .timeout(self.deadline);
        if let Some(Ok(traceparent)) = message.traceparent.as_deref().map(HeaderValue::from_str) {
            request = request.header("traceparent", traceparent);
        }
        let answer = request.body(body).send().await.map_err(|error| self.failure(&error))?;
        let status = answer.status();
        tokio::spawn(finish(answer));
        outcome(status)
    }

    fn failure(&self, error: &reqwest::Error) -> SendError {
        if error.is_builder() {
            SendError::Permanent("the request cannot be built".to_owned())
        } else if error.is_timeout() && !error.is_connect() {
            SendError::no_answer(self.deadline)
        } else if error.is_connect() {
            SendError::Temporary(format!("no connection: {}", root_cause(error)))
        } else {
            SendError::Temporary(format!("the connection broke: {}", root_cause(error)))
        }
    }
}

impl Provider for Webhook {
    fn send<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<(), SendError>> {
        Box::pin(self.post(message))
    }
}

impl std::fmt::Debug for Webhook {
    /// Neither key nor headers, and of the URL the host only: some gateways want a token in the path.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("host", &self.url.host_str()).finish_non_exhaustive()
    }
}

/// `v1,` and the HMAC-SHA-256 of what the specification has signed.
fn signature(mac: &Hmac<Sha256>, id: &str, timestamp: i64, body: &str) -> String {
    let mut mac = mac.clone();
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body.as_bytes());
    format!("v1,{}", Base64::encode_string(&mac.finalize().into_bytes()))
}

/// What a status means for the message.
fn outcome(status: StatusCode) -> Result<(), SendError> {
    let status = status.as_u16();
    match status {
        200..=299 => Ok(()),
        // A key or an address that is wrong is most often the operator's slip, and mended while codes live. 409 is what a
        // gateway says to a repetition while it is still at work on the first (draft-ietf-httpapi-idempotency-key-header,
        // section 2.6).
        401 | 403 | 404 | 408 | 409 | 425 | 429 | 500..=599 => {
            Err(SendError::Temporary(format!("HTTP {status}")))
        }
        300..=399 => Err(SendError::Permanent(format!("HTTP {status}: redirects are not followed"))),
        _ => Err(SendError::Permanent(format!("HTTP {status}"))),
    }
}

/// Reads the rest of an answer, so that its connection can serve again. It is nobody's to wait for; the
/// deadline of the request ends it.
async fn finish(mut answer: Response) {
    let mut read = 0;
    while let Ok(Some(chunk)) = answer.chunk().await {
        read += chunk.len();
        if read > MAX_ANSWER_BYTES {
            break;
        }
    }
}

fn url(text: &str) -> anyhow::Result<Url> {
    let url = Url::parse(text).map_err(|error| {
        anyhow!("url: {error}; write an address such as \"https://sms.example/messages\"")
    })?;
    match url.scheme() {
        "https" => Ok(url),
        "http" if url.host_str().is_some_and(is_loopback) => Ok(url),
        "http" => bail!("url: codes go unencrypted to this machine only: write https:// instead of http://"),
        _ => bail!("url: write an address that begins with https://"),
    }
}

fn headers(table: &BTreeMap<String, String>) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in table {
        let key = HeaderName::from_bytes(name.as_bytes())
            .with_context(|| format!("headers: {name:?} is no name of a header"))?;
        ensure!(
            !OWN_HEADERS.contains(&key.as_str()),
            "headers.{name}: the relay sets it itself: take it out"
        );
        // Not the parser's error: it may show the value.
        let Ok(mut value) = HeaderValue::from_str(value) else {
            bail!("headers.{name}: write the value in ASCII, on one line");
        };
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    Ok(headers)
}

fn key(secret: Option<&str>) -> anyhow::Result<Hmac<Sha256>> {
    let Some(secret) = secret else {
        bail!("secret: write the key that requests are signed with, such as \"env:WEBHOOK_SECRET\"");
    };
    let key = Zeroizing::new(match secret.strip_prefix(SECRET_PREFIX) {
        Some(base64) => Base64::decode_vec(base64)
            .map_err(|_| anyhow!("secret: what stands behind {SECRET_PREFIX} is not base64"))?,
        None => secret.as_bytes().to_vec(),
    });
    ensure!(
        key.len() >= MIN_SECRET_BYTES,
        "secret: the key has {} bytes, fewer than {MIN_SECRET_BYTES}: write {SECRET_PREFIX} and behind it \
         what this prints: openssl rand -base64 32",
        key.len()
    );
    Hmac::new_from_slice(&key).context("secret: it is no key")
}

/// Whom to trust: the system's authorities and those of `ca_file`.
fn roots(scheme: &str, ca_file: Option<&Path>) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let trusted = ca_file.map(certificates).transpose().map_err(|error| anyhow!("ca_file: {error:#}"))?;
    for certificate in trusted.unwrap_or_default() {
        roots.add(certificate).context("ca_file: there is a certificate in it that is none")?;
    }
    if scheme == "https" {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        ensure!(
            !roots.is_empty(),
            "url: this machine trusts no authority: install its package of CA certificates, or name one \
             with ca_file"
        );
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::samples;
    use axum::{
        Router,
        extract::State,
        http::{Method, Uri, header::LOCATION},
        response::IntoResponse,
    };
    use std::{net::SocketAddr, sync::Mutex};

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn table(url: &str) -> WebhookTable {
        WebhookTable {
            url: url.to_owned(),
            secret: Some(SECRET.to_owned()),
            body: None,
            headers: BTreeMap::new(),
            ca_file: None,
        }
    }

    fn webhook(url: &str) -> Webhook {
        Webhook::new(table(url), Path::new(".")).unwrap()
    }

    type Requests = Arc<Mutex<Vec<(Method, Uri, HeaderMap, String)>>>;

    /// Answers `/201` with 201, and `/302` with a way to `/200`. `/silence` is never answered.
    async fn gateway() -> (SocketAddr, Requests) {
        async fn answer(
            State(requests): State<Requests>,
            method: Method,
            uri: Uri,
            headers: HeaderMap,
            body: String,
        ) -> impl IntoResponse {
            requests.lock().unwrap().push((method, uri.clone(), headers, body));
            if uri.path() == "/silence" {
                std::future::pending::<()>().await;
            }
            let status = uri.path()[1..].parse().unwrap_or(200);
            (StatusCode::from_u16(status).unwrap(), [(LOCATION, "/200")], "the gateway says +14155550123")
        }
        let requests = Requests::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(requests.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (address, requests)
    }

    #[test]
    fn the_signature_is_the_one_that_a_receiver_computes() {
        // printf '%s' 'event-1.1795333302.{"text":"é"}' | openssl dgst -sha256 -binary \
        //   -mac HMAC -macopt key:0123456789abcdef0123456789abcdef | base64
        let mac = key(Some(SECRET)).unwrap();
        let expected = "6b/lojCGKjTemewfHWJX5mAO3wmXsgx/HeCblbQDR3o=";
        assert_eq!(signature(&mac, "event-1", 1_795_333_302, "{\"text\":\"é\"}"), format!("v1,{expected}"));
        // The same key, written as the specification has it.
        let mac = key(Some("whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")).unwrap();
        assert_eq!(signature(&mac, "event-1", 1_795_333_302, "{\"text\":\"é\"}"), format!("v1,{expected}"));
    }

    #[tokio::test]
    async fn a_message_is_posted_signed_and_under_its_id() {
        let (address, requests) = gateway().await;
        let mut table = table(&format!("http://{address}/messages?account=7"));
        table.headers.insert("Authorization".to_owned(), "Bearer gateway-token".to_owned());
        let webhook = Webhook::new(table, Path::new(".")).unwrap();
        let [mut message, ..] = samples();
        message.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned());
        webhook.send(&message).await.unwrap();

        let requests = requests.lock().unwrap();
        let (method, uri, headers, body) = &requests[0];
        assert_eq!((method, uri.to_string().as_str()), (&Method::POST, "/messages?account=7"));
        for (name, value) in [
            ("content-type", "application/json"),
            ("authorization", "Bearer gateway-token"),
            ("idempotency-key", message.event_id.as_str()),
            ("webhook-id", message.event_id.as_str()),
            ("traceparent", message.traceparent.as_deref().unwrap()),
        ] {
            let values: Vec<_> = headers.get_all(name).iter().collect();
            assert_eq!(values, [value], "{name}");
        }
        let timestamp: i64 = headers["webhook-timestamp"].to_str().unwrap().parse().unwrap();
        assert!((chrono::Utc::now().timestamp() - timestamp).abs() <= 5);
        let expected = signature(&key(Some(SECRET)).unwrap(), &message.event_id, timestamp, body);
        assert_eq!(headers["webhook-signature"], expected);
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!((&body["to"], &body["text"]), (&"+14155550123".into(), &"428193 is your code.".into()));
    }

    #[tokio::test]
    async fn a_status_says_whether_to_try_again() {
        let (address, requests) = gateway().await;
        let [message, ..] = samples();
        let send = async |status: u16| webhook(&format!("http://{address}/{status}")).send(&message).await;
        for status in [200, 201, 202, 204] {
            assert_eq!(send(status).await, Ok(()), "{status}");
        }
        for status in [401, 403, 404, 408, 409, 425, 429, 500, 502, 503, 504, 599] {
            assert_eq!(send(status).await, Err(SendError::Temporary(format!("HTTP {status}"))));
        }
        for status in [400, 402, 410, 422] {
            assert_eq!(send(status).await, Err(SendError::Permanent(format!("HTTP {status}"))));
        }
        requests.lock().unwrap().clear();
        for status in [301, 302, 303, 307, 308] {
            let error = SendError::Permanent(format!("HTTP {status}: redirects are not followed"));
            assert_eq!(send(status).await, Err(error));
        }
        assert_eq!(requests.lock().unwrap().len(), 5, "nobody went where a redirect pointed");
    }

    #[tokio::test]
    async fn a_gateway_that_is_away_or_silent_is_tried_again() {
        let (address, _) = gateway().await;
        let [message, ..] = samples();
        let mut silent = webhook(&format!("http://user:hunter2@{address}/silence?token=hunter2"));
        silent.deadline = Duration::from_millis(100);
        assert_eq!(
            silent.send(&message).await,
            Err(SendError::Temporary("no answer within 100ms".to_owned()))
        );

        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let away = webhook(&format!("http://user:hunter2@127.0.0.1:{port}/?token=hunter2"));
        let error = away.send(&message).await.unwrap_err();
        assert!(
            matches!(&error, SendError::Temporary(text) if text.starts_with("no connection: ")),
            "{error}"
        );
        assert!(!format!("{error} {error:?} {away:?}").contains("hunter2"), "{error} {away:?}");
    }

    #[tokio::test]
    async fn a_server_without_the_tls_that_was_asked_for_gets_no_code() {
        let (address, requests) = gateway().await;
        let Ok(webhook) = Webhook::new(table(&format!("https://{address}/")), Path::new(".")) else {
            return; // a machine without authorities, which is refused
        };
        let [message, ..] = samples();
        assert!(matches!(webhook.send(&message).await, Err(SendError::Temporary(_))));
        assert!(requests.lock().unwrap().is_empty());
    }

    #[test]
    fn tables_that_cannot_work_or_would_leak_are_refused() {
        let with = |change: &dyn Fn(&mut WebhookTable)| {
            let mut table = table("http://127.0.0.1:1/");
            change(&mut table);
            format!("{:#}", Webhook::new(table, Path::new("/nowhere")).unwrap_err())
        };
        let url = |text: &str| with(&|table| table.url = text.to_owned());
        let secret = |text: &str| with(&|table| table.secret = Some(text.to_owned()));
        let header = |name: &str, value: &str| {
            with(&|table| drop(table.headers.insert(name.to_owned(), value.to_owned())))
        };
        for (refusal, error) in [
            (url("sms.example"), "url: relative URL without a base; write an address such as"),
            (url("http://sms.example/"), "url: codes go unencrypted to this machine only: write https://"),
            (url("http://localhost.example/"), "url: codes go unencrypted"),
            (url("ftp://sms.example/"), "url: write an address that begins with https://"),
            (with(&|table| table.secret = None), "secret: write the key that requests are signed with"),
            (secret("too short"), "secret: the key has 9 bytes, fewer than 16"),
            (secret("whsec_MDEyMzQ1Njc4OWE="), "secret: the key has 11 bytes, fewer than 16"),
            (secret("whsec_hunter2 hunter2 hunter2"), "secret: what stands behind whsec_ is not base64"),
            (header("Content-Type", "text/xml"), "headers.Content-Type: the relay sets it itself"),
            (header("webhook-id", "1"), "headers.webhook-id: the relay sets it itself"),
            (header("a b", "1"), "headers: \"a b\" is no name of a header"),
            (header("authorization", "hunter2\n"), "headers.authorization: write the value in ASCII"),
            (with(&|table| table.ca_file = Some("ca.pem".into())), "ca_file: cannot read /nowhere/ca.pem"),
            (with(&|table| table.body = Some("{{ text }".to_owned())), "body: syntax error"),
        ] {
            assert!(refusal.starts_with(error), "{refusal}");
            assert!(!refusal.contains("hunter2"), "{refusal}");
        }
        for url in ["http://localhost:8080/", "http://[::1]:8080/", "http://127.0.0.1/"] {
            webhook(url);
        }
    }
}
