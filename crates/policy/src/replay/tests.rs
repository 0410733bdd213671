//! The role that a session would have, and what is counted how. That verdicts agree with enforcement is in
//! `tests/replay.rs`.

use super::*;
use crate::analyze;
use crate::record::{RecordedVerdict, SCHEMA};
use crate::snapshot::Source;

const DOCUMENTS: &str = r#"
kind: AccessRole
metadata: {namespace: b, name: orders}
spec: {service: b, postgres: {user: u, database: [shop], rules: [{actions: [select], tables: [public.orders]}]}}
---
kind: AccessRole
metadata: {namespace: b, name: web}
spec: {service: b, http: {rules: [{methods: [GET], paths: [/items*]}]}}
---
kind: AccessGrant
metadata: {namespace: b, name: one}
spec: {service: b, subjects: [{serviceAccount: one, namespace: a}], roles: [orders, web]}
---
kind: AccessGrant
metadata: {namespace: b, name: two}
spec: {service: b, subjects: [{serviceAccount: two, namespace: a}], roles: [orders, writer]}
---
kind: AccessGrant
metadata: {namespace: b, name: three}
spec: {service: b, subjects: [{serviceAccount: three, namespace: a}], roles: [reader]}
"#;

/// Of several roles a client asks for one by name; who had one role may have asked for any.
const DEPENDS: &str = "unknown several roles: it depends on the name that clients ask for";

fn draft() -> Draft {
    Draft::new(Snapshot::compile(&[Source { path: "d".into(), text: DOCUMENTS.into() }]).unwrap())
}

fn record(account: &str, role: Option<&str>, objects: Option<Vec<Touched>>) -> Record {
    Record {
        schema: SCHEMA,
        time: "2026-11-23T10:00:00.000000Z".into(),
        decision: "d1".into(),
        subject: Some(format!("system:serviceaccount:a:{account}")),
        act: None,
        service: "b/b".into(),
        role: role.map(Into::into),
        user: None,
        database: Some("shop".into()),
        action: "select".into(),
        objects,
        objects_omitted: 0,
        verdict: RecordedVerdict::Allow,
        rule: None,
        reason: "allowed".into(),
        mode: "enforce".into(),
        duration_us: 1.0,
        fingerprint: None,
    }
}

fn statement(account: &str, role: Option<&str>, text: &str) -> Record {
    let facts = analyze(text.as_bytes()).unwrap();
    record(account, role, Some(facts.needs().iter().map(|fact| Touched::of_fact(fact, None)).collect()))
}

fn request(account: &str, method: &str, path: &str) -> Record {
    Record { database: None, ..record(account, None, Some(vec![Touched::of_request(method, path, false)])) }
}

fn said(again: &Again) -> String {
    match again {
        Again::Allow(role) => format!("allow {role}"),
        Again::Deny(denied) => {
            format!(
                "deny {}: {} {}: {}",
                denied.role.as_deref().unwrap_or("-"),
                denied.action,
                denied.object,
                denied.reason
            )
        }
        Again::Unknown(why) => format!("unknown {why}"),
    }
}

#[test]
fn a_session_has_the_role_that_a_sidecar_would_give_it() {
    let login = |account, database: &str, role| Record {
        action: "connect".into(),
        database: Some(database.into()),
        ..record(account, role, Some(Vec::new()))
    };
    let unknown_database = |account| Record { database: None, ..login(account, "", None) };
    let omitted = |text| Record { objects_omitted: 1, ..statement("one", None, text) };
    let odd = |change: fn(&mut Record)| {
        let mut odd = statement("one", None, "table orders");
        change(&mut odd);
        odd
    };
    let mut draft = draft();
    for (record, expected) in [
        (statement("one", Some("gone"), "table orders"), "allow orders"),
        (statement("one", Some("gone"), "table items"), "deny orders: select public.items: no_rule"),
        (statement("one", None, "select 1"), "allow orders"),
        (statement("two", Some("writer"), "insert into items table x"), DEPENDS),
        (statement("two", Some("orders"), "table items"), "deny orders: select public.items: no_rule"),
        (statement("two", Some("orders"), "table orders"), DEPENDS),
        (statement("two", Some("gone"), "table orders"), DEPENDS),
        (statement("two", None, "table items"), DEPENDS),
        (statement("three", Some("writer"), "delete from items"), "deny reader: delete items: role"),
        (statement("nobody", Some("writer"), "table items"), "deny -: select items: role not granted"),
        (login("one", "shop", None), "allow orders"),
        (login("one", "other", None), "deny orders: connect database other: database"),
        (login("two", "other", Some("writer")), DEPENDS),
        (login("two", "other", Some("orders")), "deny orders: connect database other: database"),
        (unknown_database("one"), "unknown what it needed was not recorded"),
        (unknown_database("nobody"), "deny -: connect : role not granted"),
        (login("nobody", "shop", Some("reader")), "deny -: connect shop: role not granted"),
        (request("one", "GET", "/items/1"), "allow web"),
        (request("one", "POST", "/items/1"), "deny web: POST /items/1: no_rule"),
        (request("two", "GET", "/items"), "deny -: GET /items: no_role"),
        (omitted("table orders"), "unknown not all that it needed was recorded"),
        (omitted("table items"), "deny orders: select public.items: no_rule"),
        (record("one", None, None), "unknown what it needed was not recorded"),
        (odd(|record| record.subject = None), "unknown no subject"),
        (odd(|record| record.reason = "no_unverified_user".into()), "unknown the sidecar's configuration decided"),
        (odd(|record| record.reason = "override".into()), "deny -: select orders: override"),
        (
            odd(|record| record.subject = Some("joe".into())),
            "unknown the name of the subject or the service is none that documents can say",
        ),
        (odd(|record| record.objects.as_mut().unwrap()[0].opens = None), "unknown not all that it needed was recorded"),
    ] {
        assert_eq!(said(&draft.decide(&record)), expected, "{record:?}");
    }
    let of_none = said(&draft.decide(&statement("two", Some("gone"), "create table t ()")));
    assert!(
        of_none.starts_with("deny -: create ") && of_none.ends_with(": several roles: orders, writer"),
        "{of_none}"
    );
}

#[test]
fn changes_are_grouped_and_counted() {
    let mut draft = draft();
    let mut replay = Replay::default();
    let was_denied = |record: Record| Record {
        verdict: RecordedVerdict::Deny,
        reason: "no_rule".into(),
        decision: "d2".into(),
        ..record
    };
    for record in [
        statement("one", None, "table orders"),
        statement("one", None, "table items"),
        statement("one", None, "table items; table items"),
        was_denied(statement("one", None, "table orders")),
        was_denied(statement("one", None, "table items")),
        was_denied(record("one", None, None)),
        Record { reason: "unverified".into(), action: "connect".into(), ..record("nobody", None, Some(Vec::new())) },
    ] {
        replay.add(&mut draft, &record);
    }
    replay.add_unreadable(1);
    let groups: Vec<_> = replay
        .groups()
        .map(|(group, count)| {
            format!("{:?} {} {} {} {}", group.change, group.object, group.reason, count.count, count.example)
        })
        .collect();
    assert_eq!(
        groups,
        [
            "NewlyDenied public.items no_rule 2 d1",
            "NewlyAllowed orders no_rule 1 d2",
            "StillDenied shop role not granted 1 d1",
            "StillDenied public.items no_rule 1 d2",
        ]
    );
    let totals = replay.totals();
    assert_eq!((totals.decisions, totals.allowed, totals.newly_denied, totals.newly_allowed), (8, 1, 2, 1));
    assert_eq!((totals.still_denied, totals.not_decided.values().sum::<u64>()), (2, 2));
}

#[test]
fn there_is_room_for_so_many_groups() {
    let (mut draft, mut replay) = (draft(), Replay::default());
    let over = u64::try_from(GROUPS_LIMIT).unwrap() + 5;
    for number in 0..over {
        replay.add(&mut draft, &request("one", "GET", &format!("/{number}")));
    }
    assert_eq!(replay.groups().count(), GROUPS_LIMIT);
    assert_eq!((replay.totals().ungrouped, replay.totals().newly_denied), (5, over));
}
