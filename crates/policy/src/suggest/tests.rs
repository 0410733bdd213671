//! What is printed for traffic by hand, and for any traffic that it is valid, and that replaying it denies nothing else
//! than it says.

use proptest::prelude::*;

use super::*;
use crate::analyze;
use crate::record::SCHEMA;
use crate::replay::{Again, Draft};
use crate::snapshot::{Snapshot, Source};

fn record(account: &str, service: &str) -> Record {
    Record {
        schema: SCHEMA,
        time: "2026-11-23T10:00:00.000000Z".into(),
        decision: "d".into(),
        subject: Some(format!("system:serviceaccount:{account}:{account}")),
        act: None,
        service: format!("{service}/{service}"),
        role: None,
        user: Some("app_legacy".into()),
        database: Some("shop".into()),
        action: "connect".into(),
        objects: Some(Vec::new()),
        objects_omitted: 0,
        verdict: RecordedVerdict::Deny,
        rule: None,
        reason: "unverified".into(),
        mode: "observe".into(),
        duration_us: 1.0,
        fingerprint: None,
    }
}

fn statement(account: &str, user: &str, text: &str) -> Record {
    let facts = analyze(text.as_bytes()).unwrap();
    let objects = facts.needs().iter().map(|fact| Touched::of_fact(fact, None)).collect();
    let action = facts.needs().first().map_or("none", |fact| fact.action.label()).into();
    Record { action, objects: Some(objects), user: Some(user.into()), ..record(account, "postgres-b") }
}

fn request(account: &str, method: &str, path: &str) -> Record {
    let objects = vec![Touched::of_request(method, path, true)];
    let action = "get".into();
    Record { action, database: None, user: None, objects: Some(objects), ..record(account, "web") }
}

fn suggested(records: &[Record], options: Options) -> String {
    let mut suggestion = Suggestion::new(options);
    records.iter().for_each(|record| suggestion.add(record));
    suggestion.to_yaml()
}

fn compiled(yaml: &str) -> Snapshot {
    let source = Source { path: "suggestion".into(), text: yaml.into() };
    Snapshot::compile(&[source]).unwrap_or_else(|errors| panic!("{errors:?}\n{yaml}"))
}

#[test]
fn one_role_covers_all_that_a_subject_did() {
    let mut records = vec![
        record("service-b", "postgres-b"),
        statement("service-b", "app_reader", "select * from customers"),
        statement("service-b", "app_writer", "insert into orders select * from items"),
        statement("service-b", "app_writer", "select place_order(1)"),
        statement("service-b", "app_writer", "set sidegate.sub = 'x'"),
    ];
    records[1] = Record {
        verdict: RecordedVerdict::Allow,
        reason: "allowed".into(),
        role: Some("reader".into()),
        time: "2026-11-22T10:00:00.000000Z".into(),
        ..records[1].clone()
    };
    records.push(Record { subject: None, ..records[1].clone() });
    records.push(Record { objects: None, ..records[1].clone() });
    let yaml = suggested(&records, Options::default());
    compiled(&yaml);
    assert_eq!(
        yaml,
        r#"# What 7 decisions of the log need, and no more. Read it before you apply it.
# NOT COVERED: 1 on postgres-b/postgres-b by callers who are not known. Nobody can be granted what nobody asked for: let them call through a sidecar, or with a token, and record again.

# system:serviceaccount:service-b:service-b on postgres-b/postgres-b: 6 (4 denied now) from 2026-11-22T10:00:00.000000Z to 2026-11-23T10:00:00.000000Z
# Its sessions had: reader.
# NOT COVERED: 1 of which is not recorded all that they needed (a text that is not understood or too long).
# NOT COVERED, as nobody may or no rule can say it:
#   set sidegate.sub: 1 (all denied now) 2026-11-23T10:00:00.000000Z
---
apiVersion: sidegate.dev/v1alpha1
kind: AccessRole
metadata: {namespace: postgres-b, name: service-b}
spec:
  service: postgres-b
  postgres:
    # Some ran as app_reader, app_legacy. This one must have the rights of all: see `sidegate policy grants`.
    user: app_writer
    database: [shop]
    rules:
      # public.customers: 1 2026-11-22T10:00:00.000000Z
      # public.items: 1 (all denied now) 2026-11-23T10:00:00.000000Z
      - {actions: [select], tables: ["public.customers", "public.items"]}
      # public.orders: 1 (all denied now) 2026-11-23T10:00:00.000000Z
      - {actions: [insert], tables: ["public.orders"]}
      # public.place_order: 1 (all denied now) 2026-11-23T10:00:00.000000Z
      - {actions: [execute], functions: ["public.place_order"]}
---
apiVersion: sidegate.dev/v1alpha1
kind: AccessGrant
metadata: {namespace: postgres-b, name: service-b}
spec:
  service: postgres-b
  subjects: [{serviceAccount: service-b, namespace: service-b}]
  roles: [service-b]
"#
    );
}

#[test]
fn what_no_rule_opens_takes_a_built_in_role() {
    let yaml = suggested(
        &[statement("a", "u", "create table t ()"), statement("a", "u", "table x"), statement("b", "u", "select 1")],
        Options { user: Some("chosen".into()), ..Options::default() },
    );
    let snapshot = compiled(&yaml);
    let roles: Vec<_> = snapshot.grants().map(|grant| (grant.name.as_str(), grant.roles[0].0.as_str())).collect();
    assert_eq!(roles, [("a", "owner"), ("b", "b")]);
    assert!(yaml.contains("The built-in role owner, as no rule opens:\n#   create "), "{yaml}");
    assert!(yaml.contains(" (owner): 1 "), "{yaml}");
    let rest = snapshot.role("postgres-b", "b").unwrap().postgres.clone().unwrap();
    assert_eq!((rest.user.as_str(), rest.rules.len()), ("chosen", 1));
    assert_eq!(rest.rules[0].functions, ["pg_catalog.now"]);
}

#[test]
fn requests_are_exact_and_a_wildcard_is_only_proposed() {
    let mut records: Vec<_> = (0..25).map(|number| request("a", "GET", &format!("/items/{number}"))).collect();
    records.extend([request("a", "POST", "/items/1"), request("a", "GET", "/x;y"), request("a", "GET", "/top")]);
    let yaml = suggested(&records, Options::default());
    let snapshot = compiled(&yaml);
    assert!(yaml.contains("24 of the paths begin with /items/: if all such paths are meant"), "{yaml}");
    assert!(yaml.contains("#   GET /x;y: 1 (all denied now)"), "{yaml}");
    let rules = &snapshot.role("web", "a").unwrap().http;
    assert_eq!(rules.iter().map(|rule| rule.paths.len()).collect::<Vec<_>>(), [25, 1]);
    assert_eq!(rules[1].methods, ["GET", "POST"]);
    assert!(!rules.iter().flat_map(|rule| &rule.paths).any(|path| path.contains('*')));
}

#[test]
fn two_of_a_name_are_told_apart() {
    let mut other = record("a", "postgres-b");
    other.subject = Some("system:serviceaccount:other:a".into());
    let same_namespace = Record { service: "postgres-b/second".into(), ..record("a", "postgres-b") };
    let reader = record("reader", "postgres-b");
    let yaml = suggested(&[record("a", "postgres-b"), other, same_namespace, reader], Options::default());
    let snapshot = compiled(&yaml);
    let names: Vec<_> = snapshot.roles().map(|role| role.name.as_str()).collect();
    assert_eq!(names, ["a-a", "other-a", "reader-account", "second-a-a"]);
}

#[test]
fn there_is_room_for_so_many_names() {
    let mut suggestion = Suggestion::new(Options::default());
    suggestion.room = 3 * ENTRY;
    for number in 0..9 {
        suggestion.add(&request("a", "GET", &format!("/{number}")));
    }
    assert_eq!(suggestion.uncovered.no_room, 7);
    assert!(suggestion.to_yaml().contains("NOT COVERED: 7 with more different names"));
}

#[test]
fn no_document_is_larger_than_its_schema() {
    let mut records: Vec<_> = (0..70)
        .map(|number| Record { database: Some(format!("d{number:02}")), ..record("a", "web") })
        .chain([Record { database: Some("d69".into()), ..record("a", "web") }])
        .collect();
    // As many sets of methods as paths, so that none shares a rule; and one path with more methods than a rule has.
    let methods = ["A", "B", "C", "D", "E", "F", "G", "H", "I"];
    for number in 1_usize..300 {
        let set = methods.iter().enumerate().filter(|(bit, _)| number >> bit & 1 == 1);
        records.extend(set.map(|(_, method)| request("a", method, &format!("/{number}"))));
    }
    records.extend(('A'..='Z').flat_map(|a| ["X", "Y", "Z"].map(|b| request("a", &format!("{a}{b}"), "/many"))));
    let yaml = suggested(&records, Options::default());
    let snapshot = compiled(&yaml);
    let role = snapshot.role("web", "a").unwrap();
    let databases = &role.postgres.as_ref().unwrap().database;
    assert_eq!((databases.len(), databases.last().unwrap().as_str()), (64, "d69"), "the most used one stays");
    assert!(yaml.contains("NOT COVERED: 6 databases more than the 64 that a role has:\n#   d63\n"), "{yaml}");
    assert_eq!((role.http.len(), role.http.iter().map(|rule| rule.methods.len()).max()), (256, Some(64)));
    assert!(yaml.contains("NOT COVERED: 45 rules more than the 256 for HTTP that a role has:"), "{yaml}");
}

fn touched() -> impl Strategy<Value = Touched> {
    const ACTIONS: &[&str] = &["select", "insert", "update", "truncate", "execute", "create", "lock", "set", "run"];
    const OPENS: &[&str] =
        &["everyone", "not-reader", "rule:reader", "rule:writer", "exact-rule:admin", "role:owner", "nobody"];
    let name = prop_oneof!["[a-c]", "[a-c.*\"+ \u{85}\u{2028}\\\\#:\n]{0,3}", "\\PC{0,4}"];
    let words = (proptest::sample::select(ACTIONS), proptest::option::of(name.clone()), name);
    (words, proptest::sample::select(OPENS), any::<(bool, bool)>()).prop_map(
        |((action, schema, name), opens, (is_thing, denied))| Touched {
            action: action.into(),
            schema: schema.filter(|_| !is_thing),
            name: (!is_thing).then(|| name.clone()),
            thing: is_thing.then_some(name),
            path: None,
            opens: Some(opens.into()),
            denied,
        },
    )
}

fn any_record() -> impl Strategy<Value = Record> {
    let subject = proptest::sample::select(
        &[
            None,
            Some("system:serviceaccount:a:a"),
            Some("system:serviceaccount:b:a"),
            Some("system:serviceaccount:b:reader"),
            Some("system:serviceaccount:b:a.b.c"),
            Some("joe"),
        ][..],
    );
    let service = proptest::sample::select(&["b/b", "b/c", "c/c", "none"][..]);
    let database = prop_oneof![Just("shop".to_owned()), "[a-b]{0,2}", "\\PC{0,3}", Just("1".to_owned())];
    let user =
        proptest::option::of(prop_oneof![Just("app".to_owned()), "[a-z]{1,2}", "\\PC{0,3}", Just("true".to_owned())]);
    let reason = proptest::sample::select(&["allowed", "no_rule", "unverified", "no_database_login", "path"][..]);
    let sql = (proptest::option::weighted(0.9, proptest::collection::vec(touched(), 0..4)), database, any::<bool>());
    let path = prop_oneof!["/[a-c]{0,2}", "/[a-c;*%\"{]{0,4}", "\\PC{0,6}", Just("/a/../b".to_owned())];
    let http = (proptest::sample::select(&["GET", "POST", "get", "A-B"][..]), path);
    let what = prop_oneof![
        3 => sql.prop_map(|(objects, database, login)| {
            let (action, objects) = if login { ("connect", Some(Vec::new())) } else { ("select", objects) };
            (action, objects, Some(database))
        }),
        1 => http.prop_map(|(method, path)| ("get", Some(vec![Touched::of_request(method, &path, true)]), None)),
    ];
    (subject, service, user, what, reason, any::<bool>(), proptest::bool::weighted(0.05)).prop_map(
        |(subject, service, user, (action, objects, database), reason, allowed, omitted)| Record {
            subject: subject.map(Into::into),
            service: service.into(),
            user,
            database,
            action: action.into(),
            objects,
            objects_omitted: usize::from(omitted),
            verdict: if allowed { RecordedVerdict::Allow } else { RecordedVerdict::Deny },
            reason: reason.into(),
            ..record("a", "b")
        },
    )
}

/// Whether the suggestion says of the record that it cannot be covered.
fn is_named(record: &Record, yaml: &str) -> bool {
    let objects = record.objects.as_deref().unwrap_or_default();
    let closed = objects.iter().filter_map(Touched::fact).any(|fact| least::way(&fact) == Way::Closed);
    let request = objects
        .iter()
        .any(|touched| touched.path.as_ref().is_some_and(|path| !least::is_request_of_rules(&touched.action, path)));
    let database = record.database.as_ref().is_some_and(|name| !is_identifier(name));
    let refused = record.kind_of_reason() == Reason::Request;
    let omitted = record.objects_omitted > 0 || objects.iter().any(|one| one.path.is_none() && one.fact().is_none());
    (closed || request || database || refused || omitted) && yaml.contains("NOT COVERED")
}

proptest! {
    #[test]
    fn it_is_valid_and_covers_what_it_does_not_name(records in proptest::collection::vec(any_record(), 0..24)) {
        let yaml = suggested(&records, Options::default());
        prop_assert_eq!(&yaml, &suggested(&records, Options::default()));
        let reversed: Vec<_> = records.iter().rev().cloned().collect();
        prop_assert_eq!(&yaml, &suggested(&reversed, Options::default()));
        let mut draft = Draft::new(compiled(&yaml));
        for record in &records {
            if let Again::Deny(denied) = draft.decide(record) {
                prop_assert!(is_named(record, &yaml), "{:?} {:?}\n{}", denied, record, yaml);
            }
        }
    }
}
