//! YAML, as the values of JSON that it stands for.

use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::{Map, Value};
use std::path::Path;

/// The documents of a text.
pub(crate) fn documents(text: &str) -> Vec<Value> {
    let documents = Yaml::load_from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    documents.iter().map(value).filter(|document| !document.is_null()).collect()
}

/// The only document of a file.
pub(crate) fn file(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut documents = documents(&text);
    assert_eq!(documents.len(), 1, "{}", path.display());
    documents.remove(0)
}

fn value(node: &Yaml<'_>) -> Value {
    match node {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(boolean)) => Value::from(*boolean),
        Yaml::Value(Scalar::Integer(integer)) => Value::from(*integer),
        Yaml::Value(Scalar::FloatingPoint(number)) => Value::from(number.into_inner()),
        Yaml::Value(Scalar::String(text)) => Value::from(text.as_ref()),
        Yaml::Sequence(items) => items.iter().map(value).collect(),
        Yaml::Mapping(entries) => {
            let mut mapping = Map::new();
            for (key, entry) in entries {
                let entry = value(entry);
                // A merge key: what stands beside it goes first.
                match (value(key), entry) {
                    (Value::String(key), Value::Object(merged)) if key == "<<" => {
                        for (key, entry) in merged {
                            mapping.entry(key).or_insert(entry);
                        }
                    }
                    (Value::String(key), entry) => {
                        mapping.insert(key, entry);
                    }
                    (key, _) => panic!("{key} is no name"),
                }
            }
            Value::Object(mapping)
        }
        other => panic!("nothing of ours needs {other:?}"),
    }
}

#[test]
fn a_merge_key_gives_way_to_what_stands_beside_it() {
    let text = "a: &a { x: 1, y: 1 }\nb:\n  <<: *a\n  y: 2\nc:\n  y: 2\n  <<: *a\n";
    let document = &documents(text)[0];
    assert_eq!(document["b"], serde_json::json!({ "x": 1, "y": 2 }));
    assert_eq!(document["b"], document["c"]);
}
