//! Replay agrees with enforcement: every case of the corpus, as a sidecar records it, for every role.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::PathBuf;

use policy::record::{Line, OBJECTS_LIMIT, Record, RecordedVerdict, SCHEMA, Touched};
use policy::replay::{Again, Draft};
use policy::snapshot::{Snapshot, Source};
use policy::{Role, Verdict, analyze, decide};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    role: String,
    sql: String,
    expect: String,
}

fn corpus(file: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../../corpus", file].iter().collect();
    std::fs::read_to_string(path).unwrap()
}

/// Everybody has one role, and is called like it.
fn documents(names: &[String]) -> String {
    let grant = |name: &String| {
        format!(
            "\n---\nkind: AccessGrant\nmetadata: {{namespace: postgres-b, name: {name}}}\nspec:\n  service: postgres-b\n  \
             subjects: [{{serviceAccount: {name}, namespace: a}}]\n  roles: [{name}]"
        )
    };
    corpus("roles.yaml") + &names.iter().map(grant).collect::<String>()
}

/// The record that a sidecar writes of a text that a role wants to run.
fn record(role: &Role, text: &str) -> (Record, bool) {
    let facts = analyze(text.as_bytes());
    let allowed = facts.as_ref().is_ok_and(|facts| matches!(decide(role, facts), Verdict::Allow(_)));
    let mut objects = facts.as_ref().ok().map(|facts| {
        let mut objects: Vec<_> = facts.needs().iter().map(|fact| Touched::of_fact(fact, Some(role))).collect();
        objects.sort_by_key(|touched| !touched.denied);
        objects
    });
    let omitted = objects.as_ref().map_or(0, |objects| objects.len().saturating_sub(OBJECTS_LIMIT));
    objects.iter_mut().for_each(|objects| objects.truncate(OBJECTS_LIMIT));
    let record = Record {
        schema: SCHEMA,
        time: "2026-11-23T10:00:00.000000Z".into(),
        decision: "d".into(),
        subject: Some(format!("system:serviceaccount:a:{}", role.name())),
        act: None,
        service: "postgres-b/postgres-b".into(),
        role: Some(role.name().to_owned()),
        user: Some("u".into()),
        database: Some("shop".into()),
        action: "select".into(),
        objects,
        objects_omitted: omitted,
        verdict: if allowed { RecordedVerdict::Allow } else { RecordedVerdict::Deny },
        rule: None,
        reason: "allowed".into(),
        mode: "enforce".into(),
        duration_us: 1.0,
        fingerprint: None,
    };
    (record, facts.is_err())
}

#[test]
fn every_case_is_decided_again_as_it_was() {
    let text = corpus("sql.jsonl") + &corpus("more.jsonl");
    let cases: Vec<Case> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(cases.len() > 900);
    let mut names: Vec<String> = ["reader", "writer", "owner", "admin"].map(str::to_owned).into();
    let roles = Source { path: "roles.yaml".into(), text: corpus("roles.yaml") };
    names.extend(Snapshot::compile(&[roles]).unwrap().roles().map(|role| role.name.clone()));
    assert!(names.len() > 10);
    let documents = documents(&names);
    let snapshot = Snapshot::compile(&[Source { path: "all".into(), text: documents }]).unwrap();
    let roles: Vec<Role> = names.iter().map(|name| policy::explain::role(&snapshot, name).unwrap()).collect();
    let mut draft = Draft::new(snapshot);
    let (mut decided, mut unknown) = (0, 0);
    for case in &cases {
        for role in &roles {
            let (record, not_understood) = record(role, &case.sql);
            let own = case.role == role.name();
            assert!(!own || (record.verdict == RecordedVerdict::Allow) == (case.expect == "allow"), "{}", case.sql);
            let line = serde_json::to_vec(&record).unwrap();
            let Line::Record(read) = Line::read(&line).unwrap() else { panic!("{}", case.sql) };
            assert_eq!(*read, record);
            match (draft.decide(&read), record.verdict) {
                (Again::Allow(by), RecordedVerdict::Allow) => assert_eq!(by, role.name()),
                (Again::Deny(_), RecordedVerdict::Deny) => {}
                // What is not understood nobody may, and a record has no more to say.
                (Again::Unknown(_), RecordedVerdict::Deny) if not_understood => unknown += 1,
                (Again::Unknown(_), _) if record.objects_omitted > 0 => unknown += 1,
                (again, was) => panic!("{} {}: {was:?}, and again {again:?}", role.name(), case.sql),
            }
            decided += 1;
        }
    }
    assert!(unknown * 10 < decided, "{unknown} of {decided}");
}
