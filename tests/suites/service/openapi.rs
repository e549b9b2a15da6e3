//! `GET /openapi.json`

use harness::{Service, number};
use serde_json::{Value, json};

#[test]
fn the_description_tells_the_paths_methods_and_fields_that_there_are() {
    let service = Service::start();
    let client = service.client();
    let api = client.get("/openapi.json").expect(200);
    assert!(api["openapi"].as_str().unwrap().starts_with("3.1."));

    let number = number();
    let made = client.generate(&number);
    let examples = json!({ "mobileNumber": number, "otp": made["otp"] });
    for (path, operations) in api["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let body = if method == "post" { examples.to_string() } else { String::new() };
            let path = &path.replace("{user}", &harness::number());
            let answer = client.send(&method.to_uppercase(), path, &[], body.as_bytes());
            let described = &operation["responses"][answer.status.to_string()];
            assert!(described.is_object(), "{method} {path} answered {}", answer.status);
            let schema = resolve(&api, &described["content"]["application/json"]["schema"]);
            if schema["properties"].is_object() {
                check(&answer.json(), schema, path);
            }
            // And what it says of refusals stands in it too.
            let refused = client.send("TRACE", path, &[], b"");
            let described = &operation["responses"][refused.status.to_string()];
            let schema = &resolve(&api, described)["content"]["application/problem+json"]["schema"];
            check(&refused.json(), resolve(&api, schema), path);
        }
    }
}

fn resolve<'a>(api: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => api.pointer(reference.strip_prefix('#').unwrap()).unwrap(),
        None => value,
    }
}

/// Every field is described, and every required one is there.
fn check(answer: &Value, schema: &Value, path: &str) {
    let properties = schema["properties"].as_object().unwrap();
    for field in answer.as_object().unwrap().keys() {
        assert!(properties.contains_key(field), "{path}: {field} is not described");
    }
    for field in schema["required"].as_array().unwrap() {
        assert!(answer.get(field.as_str().unwrap()).is_some(), "{path}: {field} is missing");
    }
}
