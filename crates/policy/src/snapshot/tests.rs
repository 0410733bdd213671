//! Documents together: unions of grants, what does not fit, and that a broken one yields nothing.

use super::*;
use proptest::prelude::*;

fn source(text: &str) -> Source {
    Source { path: "f.yaml".into(), text: text.into() }
}

fn role(namespace: &str, name: &str, service: &str) -> String {
    format!(
        "---\nkind: AccessRole\nmetadata: {{namespace: {namespace}, name: {name}}}\nspec:\n  service: {service}\n  \
         postgres: {{user: u, rules: [{{actions: [select], tables: [\"public.{name}\"]}}]}}\n"
    )
}

fn grant(namespace: &str, name: &str, service: &str, subject: &str, roles: &str) -> String {
    format!(
        "---\nkind: AccessGrant\nmetadata: {{namespace: {namespace}, name: {name}}}\nspec:\n  service: {service}\n  \
         subjects: [{{serviceAccount: {subject}, namespace: {subject}}}]\n  roles: [{roles}]\n"
    )
}

fn names(snapshot: &Snapshot, subject: &str, service: &str) -> Vec<String> {
    let subject = Subject::new(subject, subject).unwrap();
    snapshot.granted(&subject, &service.parse().unwrap()).iter().map(|d| d.role().to_owned()).collect()
}

fn failures(texts: &[String]) -> Vec<String> {
    let sources: Vec<Source> = texts.iter().map(|t| source(t)).collect();
    Snapshot::compile(&sources).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn grants_are_a_union_without_repetition_in_a_fixed_order() {
    let sources = [
        source(&grant("b", "g2", "db", "svc", "reader, orders")),
        source(&grant("b", "g1", "db", "svc", "orders, items")),
        source(&(role("b", "items", "db") + &role("b", "orders", "db") + &role("c", "orders", "db"))),
    ];
    let snapshot = Snapshot::compile(&sources).unwrap();
    assert_eq!(names(&snapshot, "svc", "b/db"), ["items", "orders", "reader"]);
    assert_eq!(names(&snapshot, "other", "b/db"), [""; 0]);
    assert_eq!(names(&snapshot, "svc", "c/db"), [""; 0]);
    assert!(snapshot.knows(&"c/db".parse().unwrap()) && !snapshot.knows(&"d/db".parse().unwrap()));
    assert!(snapshot.role("b", "orders").is_some() && snapshot.role("b", "reader").is_none());
    let details = snapshot.granted(&Subject::new("svc", "svc").unwrap(), &"b/db".parse().unwrap());
    let [AuthorizationDetail::Postgresql(items), _, AuthorizationDetail::Postgresql(reader)] = details.as_slice()
    else {
        panic!("{details:?}")
    };
    assert_eq!(items.rules[0].tables, ["public.items"]);
    assert_eq!((reader.user.as_ref(), reader.rules.len()), (None, 0), "the sidecar knows the built-in's login");
}

#[test]
fn a_role_for_two_protocols_is_two_details_of_one_name() {
    let http = "  http: {rules: [{methods: [GET], paths: [\"/api/*\"]}]}\n";
    let alone = "---\nkind: AccessRole\nmetadata: {namespace: b, name: web}\nspec:\n  service: db\n".to_owned() + http;
    let texts = role("b", "both", "db") + http + &alone + &grant("b", "g", "db", "svc", "web, both");
    let snapshot = Snapshot::compile(&[source(&texts)]).unwrap();
    let details = snapshot.granted(&Subject::new("svc", "svc").unwrap(), &"b/db".parse().unwrap());
    let kinds: Vec<_> = details.iter().map(|detail| (detail.role(), detail.kind())).collect();
    assert_eq!(kinds, [("both", "sidegate_postgresql"), ("both", "sidegate_http"), ("web", "sidegate_http")]);
}

#[test]
fn what_does_not_fit_together_is_an_error() {
    let all = failures(&[grant("b", "g", "db", "svc", "nobody") + &role("b", "orders", "db")]);
    assert!(all[0].starts_with("f.yaml:7:11: no role `nobody`"), "{all:?}");
    assert!(all[0].contains("reader, writer, owner, admin, orders"), "{all:?}");

    let all = failures(&[grant("b", "g", "db", "svc", "orders"), role("b", "orders", "db2")]);
    assert!(all[0].contains("opens the service `b/db2`"), "{all:?}");

    let all = failures(&[grant("b", "g", "db", "svc", "orders"), role("c", "orders", "db")]);
    assert!(all[0].contains("no role `orders`"), "a role of another namespace is not meant: {all:?}");

    let all = failures(&[role("b", "orders", "db"), role("b", "orders", "db2")]);
    assert!(all[0].contains("defined twice, first at f.yaml:2:7"), "{all:?}");
}

#[test]
fn a_broken_role_is_not_reported_as_a_missing_one_too() {
    let all =
        failures(&[grant("b", "g", "db", "svc", "orders"), role("b", "orders", "db").replace("select", "selekt")]);
    assert_eq!(all.len(), 1, "{all:?}");
}

#[test]
fn hundreds_of_documents_are_compiled() {
    let roles: String = (0..900).map(|n| role("b", &format!("r{n}"), "db")).collect();
    let grants: Vec<Source> =
        (0..900).map(|n| source(&grant("b", &format!("g{n}"), "db", &format!("s{n}"), &format!("r{n}")))).collect();
    let sources: Vec<Source> = grants.into_iter().chain([source(&roles)]).collect();
    let snapshot = Snapshot::compile(&sources).unwrap();
    assert_eq!(names(&snapshot, "s899", "b/db"), ["r899"]);
}

/// Ways to break a text of documents.
fn damage() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("kind: AccessRoll\n".to_owned()),
        Just(role("b", "reader", "db")),
        Just(role("b", "fine", "db").replace("select", "selec")),
        Just(role("b", "fine", "db").replace("spec", "spce")),
        Just(grant("b", "bad", "db", "svc", "nobody")),
        Just(grant("b", "bad", "db", "svc", "")),
        "[a-z]{1,8}: [\\[{]{1,3}[a-z]*\n".prop_map(|s| format!("kind: AccessRole\n{s}")),
    ]
}

proptest! {
    /// With a broken document anywhere among good ones there is no snapshot at all, so what stood keeps standing.
    #[test]
    fn a_broken_document_yields_no_snapshot(damage in damage(), at in 0usize..4) {
        let mut sources: Vec<Source> =
            (0..3).map(|n| source(&(role("b", &format!("r{n}"), "db") + &grant("b", &format!("g{n}"), "db", "svc", &format!("r{n}"))))).collect();
        prop_assert!(Snapshot::compile(&sources).is_ok());
        sources.insert(at, source(&damage));
        prop_assert!(Snapshot::compile(&sources).is_err());
    }

    /// More grants never take a role away, and nobody else gets one by them.
    #[test]
    fn a_grant_adds_and_touches_nobody_else(roles in proptest::sample::subsequence(vec!["reader", "writer", "owner", "admin"], 1..4)) {
        let base = grant("b", "g", "db", "svc", "reader");
        let more = grant("b", "h", "db", "svc", &roles.join(", "));
        let before = Snapshot::compile(&[source(&base)]).unwrap();
        let after = Snapshot::compile(&[source(&base), source(&more)]).unwrap();
        let all = names(&after, "svc", "b/db");
        prop_assert!(names(&before, "svc", "b/db").iter().all(|n| all.contains(n)));
        prop_assert!(names(&after, "other", "b/db").is_empty());
    }

    /// No text makes the parser panic or hang.
    #[test]
    fn any_text_is_survived(text in "(?s).{0,200}") {
        let _ = Snapshot::compile(&[source(&text)]);
    }
}

/// In a cluster: what is right counts, and what does not fit opens nothing.
#[test]
fn assembled_documents_do_not_hold_each_other_up() {
    let text = role("b", "orders", "db")
        + &role("b", "other", "elsewhere")
        + &role("c", "orders", "db")
        + &grant("b", "g", "db", "svc", "orders, other, gone, reader")
        + &grant("b", "orphan", "db", "late", "gone");
    let (documents, errors) = documents::parse(&source(&text));
    assert!(errors.is_empty() && Snapshot::compile(&[source(&text)]).is_err());
    let (snapshot, unresolved) = Snapshot::assemble(documents);
    assert_eq!(names(&snapshot, "svc", "b/db"), ["orders", "reader"]);
    assert!(names(&snapshot, "svc", "b/elsewhere").is_empty() && names(&snapshot, "late", "b/db").is_empty());
    let told: Vec<_> = unresolved.iter().map(|u| (u.grant.as_str(), u.what.as_str())).collect();
    let [(g, other), (_, gone), (orphan, _)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((*g, *orphan), ("g", "orphan"));
    assert!(other.contains("opens the service `b/elsewhere`") && gone.contains("no role `gone`"), "{told:?}");
}
