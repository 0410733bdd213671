//! Schema and compiler against each other. Rules in CEL need an API server; where one is at hand, `by: cel` was tried.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::*;
use crate::documents::{Source, parse};

#[derive(Deserialize)]
struct Wrong {
    by: String,
    says: String,
    kind: String,
    #[serde(default = "name")]
    name: String,
    spec: Value,
}

fn name() -> String {
    "some".into()
}

fn errors(kind: &str, name: &str, spec: &Value) -> Vec<String> {
    let document = json!({"kind": kind, "metadata": {"namespace": "n", "name": name}, "spec": spec});
    let source = Source { path: "f.json".into(), text: document.to_string() };
    parse(&source).1.iter().map(ToString::to_string).collect()
}

fn schema_of(kind: &str) -> Value {
    if kind == "AccessRole" { access_role_spec() } else { access_grant_spec() }
}

/// What the API server holds against a value, of the words that our schemas use.
fn refused(schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let fits = match schema["type"].as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        other => panic!("{at}: the test knows no {other}"),
    };
    let number = |key: &str| schema.get(key).map(|n| usize::try_from(n.as_u64().unwrap()).unwrap());
    let mut wrong = Vec::new();
    let mut hold = |fine: bool, what: &'static str| {
        if !fine {
            wrong.push(what)
        }
    };
    hold(fits, "type");
    if let Some(text) = value.as_str() {
        let pattern = schema.get("pattern").map(|p| regex::Regex::new(p.as_str().unwrap()).unwrap());
        hold(pattern.is_none_or(|pattern| pattern.is_match(text)), "pattern");
        hold(number("maxLength").is_none_or(|max| text.chars().count() <= max), "maxLength");
        hold(schema.get("enum").is_none_or(|known| known.as_array().unwrap().contains(value)), "enum");
    }
    if let Some(items) = value.as_array() {
        hold(number("minItems").is_none_or(|min| items.len() >= min), "minItems");
        hold(number("maxItems").is_none_or(|max| items.len() <= max), "maxItems");
        items.iter().for_each(|item| refused(&schema["items"], item, &format!("{at}[]"), found));
    }
    if let (Some(fields), Some(properties)) = (value.as_object(), schema.get("properties")) {
        for required in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            hold(fields.contains_key(required.as_str().unwrap()), "required");
        }
        for (name, field) in fields.iter().filter(|(name, _)| properties.get(name.as_str()).is_some()) {
            refused(&properties[name], field, &format!("{at}.{name}"), found);
        }
    }
    found.extend(wrong.into_iter().map(|what| format!("{at}: {what}")));
}

fn refusals(kind: &str, spec: &Value) -> Vec<String> {
    let mut found = Vec::new();
    refused(&schema_of(kind), spec, "spec", &mut found);
    found
}

#[test]
fn what_is_wrong_is_refused_and_the_schema_refuses_what_it_says() {
    let all: Vec<Wrong> = serde_saphyr::from_str(include_str!("../../../tests/wrong-documents.yaml")).unwrap();
    assert!(all.len() > 40);
    for Wrong { by, says, kind, name, spec } in all {
        let told = errors(&kind, &name, &spec).join("\n");
        assert!(told.contains(&says), "{spec}: want {says:?} in {told:?}");
        let refusals = refusals(&kind, &spec);
        assert_eq!(by == "server", !refusals.is_empty(), "{spec}: {refusals:?}");
    }
}

#[test]
fn the_schema_takes_what_the_compiler_takes() {
    let paths = [
        "/",
        "/*",
        "/a",
        "/a/",
        "/a/*",
        "/a*",
        "/.well-known/x",
        "/a.b/..c",
        "/%20",
        "/%C3%A9*",
        "/%25",
        "/%2A",
        "/%3B",
        "/a:b@c,d=e+f!$&'()~_-",
        "/...a*",
    ];
    let names = [
        "public.t",
        "public.*",
        "public.+",
        "a b.c d",
        "public.\"na.me\"",
        "public.Ünïcode",
        "public.|/",
        "p.\" x\"",
        "public.a'b",
        "public.**",
        "x.é",
    ];
    for path in paths {
        let spec = json!({"service": "s", "http": {"rules": [{"methods": ["GET"], "paths": [path]}]}});
        assert_eq!((errors("AccessRole", "r", &spec), refusals("AccessRole", &spec)), (vec![], vec![]), "{path}");
    }
    for name in names {
        let rules = json!([{"actions": ["select", "execute"], "tables": [name], "functions": [name]}]);
        let spec = json!({"service": "s", "postgres": {"user": "Ü u", "database": ["a-b"], "rules": rules}});
        assert_eq!((errors("AccessRole", "r", &spec), refusals("AccessRole", &spec)), (vec![], vec![]), "{name}");
    }
    let subject = json!({"serviceAccount": "a.b-c", "namespace": "0"});
    let spec = json!({"service": "s", "subjects": [subject], "roles": ["reader", "mine"]});
    assert_eq!((errors("AccessGrant", "g", &spec), refusals("AccessGrant", &spec)), (vec![], vec![]));
}

proptest::proptest! {
    #[test]
    fn no_path_is_taken_by_the_compiler_alone(path in "/([a.%*;/~]|%[0-9A-F]{2}){0,8}[*]?") {
        let spec = json!({"service": "s", "http": {"rules": [{"methods": ["GET"], "paths": [&path]}]}});
        if errors("AccessRole", "r", &spec).is_empty() {
            assert_eq!(refusals("AccessRole", &spec), Vec::<String>::new(), "{path}");
        }
    }

    #[test]
    fn no_name_is_taken_by_the_compiler_alone(name in "[a .*\"+é|\u{7f}]{1,6}[.][a .*\"+é|\u{a0}]{1,6}") {
        let rules = json!([{"actions": ["select"], "tables": [&name]}]);
        let spec = json!({"service": "s", "postgres": {"user": "u", "rules": rules}});
        if errors("AccessRole", "r", &spec).is_empty() {
            assert_eq!(refusals("AccessRole", &spec), Vec::<String>::new(), "{name}");
        }
    }
}

/// The reader names the fields it knows when it meets one that it does not.
fn known_to_the_reader(kind: &str, spec: &Value) -> BTreeSet<String> {
    let told = errors(kind, "some", spec).join("\n");
    let (_, expected) = told.split_once("expected").unwrap_or_else(|| panic!("{told}"));
    let words = expected.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !["", "one", "of"].contains(word));
    words.map(str::to_owned).collect()
}

fn known_to_the_schema(schema: &Value) -> BTreeSet<String> {
    schema["properties"].as_object().unwrap().keys().cloned().collect()
}

#[test]
fn reader_and_schema_know_the_same_fields() {
    let (role, grant) = (access_role_spec(), access_grant_spec());
    let table = [
        ("AccessRole", "/properties/postgres", json!({"postgres": {"?": 1}})),
        ("AccessRole", "/properties/postgres/properties/rules/items", json!({"postgres": {"rules": [{"?": 1}]}})),
        ("AccessRole", "/properties/http", json!({"http": {"?": 1}})),
        ("AccessRole", "/properties/http/properties/rules/items", json!({"http": {"rules": [{"?": 1}]}})),
        ("AccessGrant", "/properties/subjects/items", json!({"subjects": [{"?": 1}]})),
    ];
    for (kind, pointer, spec) in table {
        let schema = if kind == "AccessRole" { &role } else { &grant }.pointer(pointer).unwrap();
        assert_eq!(known_to_the_reader(kind, &spec), known_to_the_schema(schema), "{pointer}");
    }
    let both = &known_to_the_schema(&role) | &known_to_the_schema(&grant);
    assert_eq!(known_to_the_reader("AccessRole", &json!({"?": 1})), both);
}

#[test]
fn every_object_keeps_what_it_does_not_know() {
    fn each(schema: &Value, count: &mut usize) {
        if schema.get("properties").is_some() {
            *count += 1;
            assert_eq!(schema["x-kubernetes-preserve-unknown-fields"], true, "{schema}");
        }
        let below = schema.get("properties").and_then(Value::as_object).into_iter().flat_map(|p| p.values());
        below.chain(schema.get("items")).for_each(|schema| each(schema, count));
    }
    let mut count = 0;
    each(&access_role_spec(), &mut count);
    each(&access_grant_spec(), &mut count);
    assert_eq!(count, 7);
}
