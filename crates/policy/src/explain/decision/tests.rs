//! That the documents which an explanation gives do allow it, and that no less would.

use super::*;
use crate::record::SCHEMA;
use crate::replay::{Again, Draft};
use crate::snapshot::Source;
use crate::{Role, Verdict, analyze, decide};

const DOCUMENTS: &str = r#"
kind: AccessRole
metadata: {namespace: b, name: orders}
spec: {service: b, postgres: {user: u, database: [shop], rules: [{actions: [select], tables: [public.orders]}]}}
---
kind: AccessGrant
metadata: {namespace: b, name: one}
spec: {service: b, subjects: [{serviceAccount: one, namespace: a}], roles: [orders]}
"#;

fn compiled(text: &str) -> Snapshot {
    Snapshot::compile(&[Source { path: "d".into(), text: text.into() }])
        .unwrap_or_else(|errors| panic!("{errors:?}\n{text}"))
}

fn record(role: Option<&Role>, text: &str) -> Record {
    let facts = analyze(text.as_bytes()).unwrap();
    let (verdict, reason) = match role.map(|role| decide(role, &facts)) {
        Some(Verdict::Allow(_)) => (RecordedVerdict::Allow, "allowed"),
        Some(Verdict::Deny(denial)) => (RecordedVerdict::Deny, denial.reason()),
        None => (RecordedVerdict::Deny, "unverified"),
    };
    Record {
        schema: SCHEMA,
        time: "2026-11-23T10:00:00.000000Z".into(),
        decision: "d1".into(),
        subject: Some("system:serviceaccount:a:one".into()),
        act: None,
        service: "b/b".into(),
        role: role.map(|role| role.name().to_owned()),
        user: Some("app".into()),
        database: Some("shop".into()),
        action: "select".into(),
        objects: Some(facts.needs().iter().map(|fact| Touched::of_fact(fact, role)).collect()),
        objects_omitted: 0,
        verdict,
        rule: None,
        reason: reason.into(),
        mode: "enforce".into(),
        duration_us: 1.0,
        fingerprint: None,
    }
}

fn orders() -> Role {
    crate::explain::role(&compiled(DOCUMENTS), "orders").unwrap()
}

fn remedy(record: &Record, documents: Option<&Snapshot>) -> Remedy {
    explain_decision(record, documents).remedy.unwrap()
}

#[test]
fn all_missing_rules_are_told_and_where_they_go() {
    let denied = record(Some(&orders()), "insert into items select 1 from orders, log");
    let told = remedy(&denied, None);
    assert_eq!(
        told.rules,
        [r#"{actions: [insert], tables: ["public.items"]}"#, r#"{actions: [select], tables: ["public.log"]}"#]
    );
    assert_eq!(told.yaml, None);
    let whole = remedy(&denied, Some(&compiled(DOCUMENTS))).yaml.unwrap();
    let grants = DOCUMENTS.split("---").nth(1).unwrap();
    let again = Draft::new(compiled(&format!("{whole}---{grants}"))).decide(&denied);
    assert_eq!(again, Again::Allow("orders".into()), "{whole}");
}

#[test]
fn what_is_given_allows_it_and_nothing_beside() {
    let reader = Role::built_in("reader").unwrap();
    for (role, text, gets) in [
        (None, "select 1", "one"),
        (None, "table orders", "one"),
        (Some(&reader), "insert into items select 1 from orders, \"A.b\"", "one"),
        (Some(&reader), "select * from orders for update", "one"),
        (Some(&reader), "create table t ()", "owner"),
        (None, "grant select on x to y", "admin"),
        (None, "table \"a*b\"", "reader"),
    ] {
        let denied = record(role, text);
        let yaml = remedy(&denied, None).yaml.unwrap();
        let mut draft = Draft::new(compiled(&yaml));
        assert_eq!(draft.decide(&denied), Again::Allow(gets.into()), "{text}\n{yaml}");
        let more = record(role, &format!("{text}; create role more"));
        assert_eq!(matches!(draft.decide(&more), Again::Allow(_)), gets == "admin", "{text}\n{yaml}");
    }
}

#[test]
fn what_is_given_takes_no_name_that_is_taken() {
    let standing = "apiVersion: sidegate.dev/v1alpha1\nkind: AccessGrant\nmetadata: {namespace: b, name: NAME}\n\
         spec: {service: b, subjects: [{serviceAccount: one, namespace: a}], roles: [reader]}\n";
    let reader = Role::built_in("reader").unwrap();
    for (text, name) in [("delete from orders", "one"), ("create table t ()", "one-owner")] {
        let denied = record(Some(&reader), text);
        let standing = standing.replace("NAME", name);
        let yaml = remedy(&denied, Some(&compiled(&standing))).yaml.unwrap();
        assert!(!yaml.contains(&format!("name: {name}}}")), "{yaml}");
        compiled(&format!("{standing}{yaml}"));
    }
}

#[test]
fn where_nothing_helps_it_says_so() {
    let reader = Role::built_in("reader").unwrap();
    let fixed = remedy(&record(Some(&reader), "set sidegate.sub to 'x'"), None);
    assert_eq!(fixed, words("Nothing: nobody may set sidegate.sub."));
    let cut = Record { objects_omitted: 2, ..record(Some(&reader), "delete from x") };
    assert!(remedy(&cut, None).what.starts_with("Not all"), "{cut:?}");
    let nobody = Record { subject: None, ..record(Some(&reader), "delete from x") };
    assert!(remedy(&nobody, None).what.starts_with("Who called"), "{nobody:?}");
    let text = Record { objects: None, reason: "syntax".into(), ..record(Some(&reader), "delete from x") };
    assert!(remedy(&text, None).what.contains("no SQL"));
    assert_eq!(explain_decision(&record(Some(&reader), "table x"), None).remedy, None);
}

#[test]
fn requests_and_logins_have_documents_too() {
    let request = |path: &str| Record {
        objects: Some(vec![Touched::of_request("GET", path, true)]),
        database: None,
        reason: "no_rule".into(),
        rule: Some("{methods: [GET], paths: [\"/a*\"]}".into()),
        ..record(None, "table x")
    };
    let yaml = remedy(&request("/a"), None).yaml.unwrap();
    assert_eq!(Draft::new(compiled(&yaml)).decide(&request("/a")), Again::Allow("one".into()));
    let cut = remedy(&request("/a;b"), None);
    assert_eq!((cut.yaml, cut.what.contains("paths: [\"/a*\"]")), (None, true));
    let login = |reason: &'static str, role: Option<&Role>, database: &str| Record {
        action: "connect".into(),
        reason: reason.into(),
        verdict: RecordedVerdict::Deny,
        database: Some(database.into()),
        ..record(role, "")
    };
    let refused = login("role_not_granted", None, "shop");
    let yaml = remedy(&refused, Some(&compiled(DOCUMENTS))).yaml.unwrap();
    // "one" is a grant's name already.
    assert_eq!(Draft::new(compiled(&yaml)).decide(&refused), Again::Allow("a-one".into()));
    let elsewhere = login("database", Some(&orders()), "other");
    let yaml = remedy(&elsewhere, Some(&compiled(DOCUMENTS))).yaml.unwrap();
    assert!(yaml.contains("database: [shop, other]"), "{yaml}");
    let any = DOCUMENTS.replace("database: [shop], ", "");
    let open = remedy(&elsewhere, Some(&compiled(&any)));
    assert!(open.yaml.is_none() && open.what.starts_with("The role opens this database now"), "{open:?}");
    let full: Vec<_> = (0..64).map(|number| format!("d{number}")).collect();
    let full = DOCUMENTS.replace("database: [shop]", &format!("database: [{}]", full.join(", ")));
    let full = remedy(&elsewhere, Some(&compiled(&full)));
    assert!(full.yaml.is_none() && full.what.starts_with("Another role for \"other\""), "{full:?}");
    for name in ["", "a\nb", &"x".repeat(64)] {
        for odd in [login("database", Some(&orders()), name), login("role_not_granted", None, name)] {
            let odd = remedy(&odd, Some(&compiled(DOCUMENTS)));
            assert!(odd.yaml.is_none() && odd.what.starts_with("Nothing: no document can name"), "{odd:?}");
        }
    }
    let unknown = Record { database: None, ..login("no_token", None, "") };
    assert!(remedy(&unknown, None).what.starts_with("A token"), "{unknown:?}");
    assert!(remedy(&login("no_database_login", None, "shop"), None).what.contains("postgres.users"));
}
