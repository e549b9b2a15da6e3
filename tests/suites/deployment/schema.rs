//! What Compose files and Kubernetes' objects have to look like. scripts/test-servers.sh fetches the schemas.

use crate::yaml;
use boon::{Compiler, Draft, SchemaIndex, Schemas};
use harness::repository;
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, path::PathBuf};

/// Where the schemas are.
fn folder() -> PathBuf {
    let cache = repository().join(".cache");
    let found = fs::read_dir(&cache).ok().and_then(|entries| {
        entries
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("schemas-")))
    });
    found.unwrap_or_else(|| panic!("there are no schemas in {}: run make servers", cache.display()))
}

fn files(kind: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(folder().join(kind)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{kind}");
    files
}

fn json_file(path: &PathBuf) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Schemas that are ready to be used.
pub(crate) struct Checker {
    schemas: Schemas,
    /// By `apiVersion/kind`; the Compose specification by nothing.
    known: BTreeMap<String, SchemaIndex>,
}

impl Checker {
    /// The Compose specification.
    pub(crate) fn compose() -> Self {
        let specification = json_file(&files("compose")[0]);
        let mut checker = Self { schemas: Schemas::new(), known: BTreeMap::new() };
        let mut compiler = Compiler::new();
        compiler.set_default_draft(Draft::V7);
        checker.add(&mut compiler, "compose.json", specification, &[(String::new(), String::new())]);
        checker
    }

    /// Kubernetes' own kinds, and those that the operators add.
    pub(crate) fn kubernetes() -> Self {
        let mut checker = Self { schemas: Schemas::new(), known: BTreeMap::new() };
        let mut compiler = Compiler::new();
        // OpenAPI's dialect is closest to this one.
        compiler.set_default_draft(Draft::V4);
        for path in files("kubernetes") {
            let mut document = json_file(&path);
            close(&mut document["components"]["schemas"]);
            let mut kinds = Vec::new();
            for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
                for kind in schema["x-kubernetes-group-version-kind"].as_array().into_iter().flatten() {
                    let text = |field: &str| kind[field].as_str().unwrap_or_default().to_owned();
                    kinds.push((name_of(&text("group"), &text("version"), &text("kind")), name.clone()));
                }
            }
            // An index of the kinds in which only what stands alone has a single entry.
            let kinds: Vec<_> = kinds
                .iter()
                .filter(|(kind, _)| kinds.iter().filter(|(other, _)| other == kind).count() == 1)
                .map(|(kind, name)| (kind.clone(), format!("#/components/schemas/{name}")))
                .filter(|(kind, _)| !checker.known.contains_key(kind))
                .collect();
            let url = path.file_name().unwrap().to_string_lossy().into_owned();
            checker.add(&mut compiler, &url, document, &kinds);
        }
        for path in files("resources") {
            let definition = yaml::file(&path);
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let (group, kind) =
                (text(&definition["spec"]["group"]), text(&definition["spec"]["names"]["kind"]));
            for version in definition["spec"]["versions"].as_array().unwrap() {
                let name = name_of(&group, &text(&version["name"]), &kind);
                let mut schema = version["schema"]["openAPIV3Schema"].clone();
                close(&mut schema);
                let url = format!("{}.json", name.replace('/', "_"));
                checker.add(&mut compiler, &url, schema, &[(name, String::new())]);
            }
        }
        checker
    }

    fn add(&mut self, compiler: &mut Compiler, url: &str, document: Value, places: &[(String, String)]) {
        let url = format!("http://schemas.test/{url}");
        compiler.add_resource(&url, document).unwrap();
        for (name, place) in places {
            let compiled = compiler.compile(&format!("{url}{place}"), &mut self.schemas);
            self.known.insert(name.clone(), compiled.unwrap_or_else(|error| panic!("{name}: {error:#}")));
        }
    }

    /// What is wrong with a Compose file; nothing if it is one.
    pub(crate) fn of_compose(&self, document: &Value) -> Option<String> {
        self.of("", document)
    }

    /// What is wrong with an object; nothing if it is one of its kind.
    pub(crate) fn of_object(&self, object: &Value) -> Option<String> {
        let text = |field: &str| object[field].as_str().unwrap_or_default();
        let name = format!("{}/{}", text("apiVersion"), text("kind"));
        if !self.known.contains_key(&name) {
            return Some(format!("there is no schema of {name}"));
        }
        self.of(&name, object)
    }

    /// Whether the kind is known.
    pub(crate) fn knows(&self, object: &Value) -> bool {
        let text = |field: &str| object[field].as_str().unwrap_or_default();
        self.known.contains_key(&format!("{}/{}", text("apiVersion"), text("kind")))
    }

    fn of(&self, name: &str, document: &Value) -> Option<String> {
        self.schemas.validate(document, self.known[name]).err().map(|error| format!("{error:#}"))
    }
}

fn name_of(group: &str, version: &str, kind: &str) -> String {
    if group.is_empty() { format!("{version}/{kind}") } else { format!("{group}/{version}/{kind}") }
}

/// Closes what is left open by default: a field that is not named is a mistake. So says an API server that is asked
/// for strict validation, too.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            let open = object.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(true));
            if object.get("properties").is_some_and(Value::is_object)
                && !object.contains_key("additionalProperties")
                && !open
            {
                object.insert("additionalProperties".to_owned(), json!(false));
            }
            // A schema has no say in what an API server puts in by itself, and its values need not be of a schema's
            // form.
            object.remove("default");
            object.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}
