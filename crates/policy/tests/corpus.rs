//! Every case of `corpus/sql.jsonl` and `corpus/more.jsonl` gets the verdict that it expects, and the list of those that do not is printed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::HashMap;
use std::path::PathBuf;

use policy::{Role, Verdict, analyze, decide};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    id: String,
    role: String,
    sql: String,
    expect: String,
    class: String,
    why: String,
}

#[derive(Deserialize)]
struct Document {
    metadata: Metadata,
    spec: Spec,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Deserialize)]
struct Spec {
    postgres: Postgres,
}

#[derive(Deserialize)]
struct Postgres {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    actions: Vec<String>,
    #[serde(default)]
    tables: Vec<String>,
    #[serde(default)]
    functions: Vec<String>,
}

fn corpus(file: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../../corpus", file].iter().collect();
    std::fs::read_to_string(path).unwrap()
}

fn roles() -> HashMap<String, Role> {
    let documents: Vec<Document> = serde_saphyr::from_multiple(&corpus("roles.yaml")).unwrap();
    let custom = documents.into_iter().map(|document| {
        let rules: Vec<_> = document.spec.postgres.rules;
        let rules: Vec<_> = rules.iter().map(|r| (&*r.actions, &*r.tables, &*r.functions)).collect();
        let name = document.metadata.name;
        (name.clone(), Role::scoped(&name, None, &[], &rules).unwrap())
    });
    let built_in = ["reader", "writer", "owner", "admin"];
    built_in.into_iter().map(|name| (name.to_owned(), Role::built_in(name).unwrap())).chain(custom).collect()
}

#[test]
fn every_case_gets_the_verdict_it_expects() {
    let roles = roles();
    let mut failed = Vec::new();
    let text = corpus("sql.jsonl") + &corpus("more.jsonl");
    let cases: Vec<Case> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(cases.len() > 900);
    for case in &cases {
        let role = &roles[&case.role];
        let analyzed = analyze(case.sql.as_bytes());
        let (verdict, said) = match &analyzed {
            Ok(facts) => match decide(role, facts) {
                Verdict::Allow(_) => ("allow", facts.to_string()),
                Verdict::Deny(denial) => ("deny", denial.message().to_owned()),
            },
            Err(error) => ("deny", error.denial(role).message().to_owned() + ": " + &error.to_string()),
        };
        // A text that parses must be understood, whoever sends it.
        let missed = case.expect == "deny"
            && case.class != "syntax"
            && matches!(&analyzed, Err(policy::NotUnderstood::Unknown(_)));
        if verdict != case.expect || missed {
            let sql: String = case.sql.chars().take(160).collect();
            failed.push(format!(
                "{} {} {} {}: {sql}\n    {} | {said}",
                case.id, case.role, case.expect, case.class, case.why
            ));
        }
    }
    assert!(failed.is_empty(), "{} of {} failed:\n{}", failed.len(), cases.len(), failed.join("\n"));
}
