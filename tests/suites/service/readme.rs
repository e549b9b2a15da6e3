//! What the README shows is what happens.

use harness::{Client, Relay, Service, repository};
use serde_json::Value;
use std::collections::HashMap;

fn readme() -> String {
    std::fs::read_to_string(repository().join("README.md")).unwrap()
}

/// The commands of the `console` blocks, each with the output that stands below it.
fn console(readme: &str) -> Vec<(String, String)> {
    let mut commands: Vec<(String, String)> = Vec::new();
    let mut inside = false;
    for line in readme.lines() {
        match line {
            "```console" => inside = true,
            "```" => inside = false,
            _ if !inside => {}
            _ => match line.strip_prefix("$ ") {
                Some(command) => commands.push((command.to_owned(), String::new())),
                None => commands.last_mut().unwrap().1.push_str(line),
            },
        }
    }
    commands
}

/// Does what `curl [-H 'field: value'] [-d 'body'] http://127.0.0.1:3000/path` does.
fn curl(client: &Client, command: &str) -> Value {
    let arguments = command.strip_prefix("curl ").unwrap();
    let (field, arguments) = match arguments.strip_prefix("-H '") {
        Some(rest) => {
            let (field, rest) = rest.split_once("' ").unwrap();
            (field.split_once(": "), rest)
        }
        None => (None, arguments),
    };
    let fields: Vec<_> = field.into_iter().collect();
    let (method, body, url) = match arguments.strip_prefix("-d '") {
        Some(rest) => {
            let (body, url) = rest.split_once("' ").unwrap();
            ("POST", body, url)
        }
        None => ("GET", "", arguments),
    };
    client.send(method, url.strip_prefix("http://127.0.0.1:3000").unwrap(), &fields, body.as_bytes()).json()
}

#[test]
fn every_command_of_the_readme_answers_as_printed() {
    // As `make run` has it: with a relay, a file, and without a cache.
    let relay = Relay::start();
    let service = Service::builder()
        .variable("postgres_endpoint", "")
        .variable("redis_endpoint", "")
        .variable("relay_url", &relay.url())
        .start();
    let client = service.client();
    let commands = console(&readme());
    assert!(commands.len() > 5);
    // Codes and ids differ every time: what the README prints stands for what was answered.
    let mut actual: HashMap<String, String> = HashMap::new();
    for (command, printed) in commands {
        let command = actual.iter().fold(command, |command, (old, new)| command.replace(old, new));
        let answer = curl(&client, &command);
        let printed: Value = serde_json::from_str(&printed).unwrap();
        let fields = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(fields(&answer), fields(&printed), "{command}");
        for (field, value) in printed.as_object().unwrap() {
            match field.as_str() {
                "otp" | "otpId" => {
                    let printed = value.as_str().unwrap().to_owned();
                    let now = answer[field].as_str().unwrap();
                    assert_eq!(now.len(), printed.len());
                    assert_eq!(actual.entry(printed).or_insert_with(|| now.to_owned()), now, "{command}");
                }
                "createdAt" | "expiresAt" | "verifiedAt" => {
                    assert_eq!(answer[field].as_str().unwrap().len(), value.as_str().unwrap().len());
                }
                // A moment has passed in the README, too.
                "expiresInSeconds" => assert!((599..=600).contains(&answer[field].as_i64().unwrap())),
                _ => assert_eq!(&answer[field], value, "{command}: {field}"),
            }
        }
    }
}

#[test]
fn the_readme_lists_every_variable_with_its_default() {
    let readme = readme();
    let manifest = std::fs::read_to_string(repository().join("spin.toml")).unwrap();
    let (_, variables) = manifest.split_once("[variables]\n").unwrap();
    let (variables, _) = variables.split_once("\n\n").unwrap();
    assert!(variables.lines().count() > 5);
    for line in variables.lines() {
        let (name, rest) = line.split_once(" = { default = \"").unwrap();
        let (default, _) = rest.split_once('"').unwrap();
        let cell = if default.is_empty() { "empty".to_owned() } else { format!("`{default}`") };
        assert!(readme.contains(&format!("| `{name}` | {cell} |")), "{name} = {default:?}");
    }
}
