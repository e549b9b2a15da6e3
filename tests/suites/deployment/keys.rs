//! scripts/env.sh: the keys of a deployment.

use crate::yaml;
use base64ct::{Base64, Encoding};
use harness::repository;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};
use tempfile::TempDir;

/// What scripts/env.sh has written, and the API key that it has shown.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) environment: BTreeMap<String, String>,
    /// To send and check.
    pub(crate) api_key: String,
    /// To erase.
    pub(crate) admin_key: String,
    folder: TempDir,
}

/// Runs it in a copy of the repository that has nothing but scripts.
fn run(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let script = folder.join("scripts/env.sh");
    if !script.exists() {
        fs::create_dir_all(script.parent().unwrap()).unwrap();
        fs::copy(repository().join("scripts/env.sh"), &script).unwrap();
    }
    // Not by itself: a child of another test may still hold it open for writing, as this one had it a moment ago.
    let mut command = Command::new("bash");
    command.arg(script);
    for name in
        ["REDIS_PASSWORD", "POSTGRES_PASSWORD", "POSTGRES_CA", "RELAY_DATABASE_URL", "KAFKA_SASL_PASSWORD"]
    {
        command.env_remove(name);
    }
    command.args(arguments).envs(variables.iter().copied()).output().unwrap()
}

/// The lines of what it has said that are nothing but a key.
fn shown(output: &Output) -> Vec<String> {
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    let keys = said.lines().map(str::trim).filter(|line| line.len() == 64);
    keys.filter(|line| line.bytes().all(|byte| byte.is_ascii_hexdigit())).map(str::to_owned).collect()
}

impl Keys {
    /// Fresh ones.
    pub(crate) fn write() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let output = run(folder.path(), &[], &[]);
        assert!(output.status.success(), "{output:?}");
        let text = fs::read_to_string(folder.path().join(".env")).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let environment = lines.map(|line| line.split_once('=').unwrap());
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let [api_key, admin_key] = shown(&output).try_into().unwrap();
        Self { environment, api_key, admin_key, folder }
    }

    fn file(&self) -> std::path::PathBuf {
        self.folder.path().join(".env")
    }
}

/// What is no secret, and for the operator to say.
const SAID: [&str; 2] = ["OTP_ALLOWED_COUNTRIES", "OTP_GLOBAL_RATE_LIMIT"];

#[test]
fn keys_are_fresh_and_of_the_form_that_is_asked_for() {
    let (first, second) = (Keys::write(), Keys::write());
    for (name, value) in &first.environment {
        assert!(!value.is_empty(), "{name}");
        assert_eq!(value == &second.environment[name], SAID.contains(&name.as_str()), "{name}");
        // Compose would put something in for a $, and ends a value at a blank or a #.
        assert!(!value.contains(['$', ' ', '#', '"', '\'']), "{name}");
    }
    let environment = &first.environment;
    let [sealing, signing] = ["OTP_ENCRYPTION_KEYS", "OTP_EVENT_KEYS"].map(|name| {
        let (id, key) = environment[name].split_once(':').unwrap();
        assert_eq!(id, "k1");
        key
    });
    for key in [sealing, signing, &environment["OTP_INDEX_KEY"]] {
        assert_eq!(Base64::decode_vec(key).unwrap().len(), 32);
    }
    assert_ne!(sealing, signing);
    let hash = |key: &str| hex::encode(Sha256::digest(key));
    let expected =
        format!("shop:send+verify:{},admin:admin:{}", hash(&first.api_key), hash(&first.admin_key));
    assert_eq!(environment["OTP_API_KEYS"], expected);
}

#[test]
fn what_is_secret_is_for_its_owner_only_and_is_never_written_over() {
    let keys = Keys::write();
    assert_eq!(fs::metadata(keys.file()).unwrap().permissions().mode() & 0o777, 0o600);
    let before = fs::read(keys.file()).unwrap();
    let again = run(keys.folder.path(), &[], &[]);
    assert!(!again.status.success());
    assert!(String::from_utf8_lossy(&again.stderr).contains("nothing was changed"), "{again:?}");
    assert!(shown(&again).is_empty(), "keys that nothing knows");
    assert_eq!(fs::read(keys.file()).unwrap(), before);
    let mut left: Vec<_> =
        fs::read_dir(keys.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [".env", "scripts"]);
}

#[test]
fn the_api_keys_are_shown_and_not_stored() {
    let keys = Keys::write();
    let text = fs::read_to_string(keys.file()).unwrap();
    assert!(!text.contains(&keys.api_key) && !text.contains(&keys.admin_key));
}

#[test]
fn what_is_written_is_never_committed_nor_part_of_an_image() {
    let ignored = |path: &str| {
        let git =
            Command::new("git").args(["check-ignore", "--quiet", path]).current_dir(repository()).status();
        git.unwrap().success()
    };
    assert!(ignored(".env") && ignored(".env.x1Y2z3") && ignored("deploy/compose/delivery.env"));
    assert!(!ignored("deploy/compose/delivery.toml"));
}

#[test]
fn the_secret_of_kubernetes_has_the_keys_of_the_example() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(
        folder.path(),
        &["--secret"],
        &[
            ("POSTGRES_PASSWORD", "it's \"quoted\" \\ $HOME"),
            ("POSTGRES_CA", "-----BEGIN\nCERTIFICATE-----\n"),
            ("RELAY_DATABASE_URL", "postgres://relay:x@host:5432/relay?sslmode=verify-full"),
        ],
    );
    assert!(output.status.success(), "{output:?}");
    assert!(!folder.path().join(".env").exists());
    let secret = yaml::documents(&String::from_utf8(output.stdout.clone()).unwrap()).remove(0);
    let example = yaml::file(&repository().join("deploy/secret.example.yaml"));
    let fields =
        |secret: &Value| secret["stringData"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(fields(&secret), fields(&example));
    assert_eq!(secret["metadata"], example["metadata"]);
    let data = &secret["stringData"];
    assert_eq!(data["postgres-password"], "it's \"quoted\" \\ $HOME");
    assert_eq!(data["postgres-ca"], "-----BEGIN\nCERTIFICATE-----\n");
    let [api_key, _] = shown(&output).try_into().unwrap();
    assert!(data["api-keys"].as_str().unwrap().contains(&hex::encode(Sha256::digest(api_key))));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("REDIS_PASSWORD is not set") && !said.contains("POSTGRES_PASSWORD is not set"),
        "{said}"
    );
}

#[test]
fn without_an_address_of_its_ledger_a_relay_that_wants_one_does_not_start() {
    let output = run(tempfile::tempdir().unwrap().path(), &["--secret"], &[]);
    let secret = yaml::documents(&String::from_utf8(output.stdout).unwrap()).remove(0);
    // The kubelet starts no container that refers to a key that is not there.
    assert!(secret["stringData"].get("relay-database-url").is_none(), "{secret}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("RELAY_DATABASE_URL is not set"));
}

#[test]
fn nothing_works_with_the_secret_of_the_example() {
    let example = yaml::file(&repository().join("deploy/secret.example.yaml"));
    for (name, value) in example["stringData"].as_object().unwrap() {
        assert_eq!(value, "", "{name}");
    }
}
