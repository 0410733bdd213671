//! What logins hold, as text, and against what a server might say. That the text does what it says is tested on PostgreSQL
//! (`crates/sidegate/tests/policy_grants.rs`).

use super::*;
use crate::documents::Source;

const DOCUMENTS: &str = r#"
apiVersion: sidegate.dev/v1alpha1
kind: AccessRole
metadata: {namespace: ns, name: orders}
spec:
  service: db
  postgres:
    user: app_orders
    database: [shop]
    rules:
      - {actions: [select, insert], tables: [public.orders]}
      - {actions: [merge], tables: ["odd 'schema.Items"]}
      - {actions: [execute], functions: [public.total]}
"#;

fn snapshot(text: &str) -> Snapshot {
    Snapshot::compile(&[Source { path: "roles.yaml".to_owned(), text: text.to_owned() }]).unwrap()
}

fn of(text: &str, users: &[(Level, &str)]) -> Result<Vec<Login>, NoLogin> {
    let users = users.iter().map(|(level, name)| (*level, (*name).to_owned())).collect();
    logins(&snapshot(text), &"ns/db".parse().unwrap(), &users)
}

fn held(target: Target, name: &str, (whole, part): (bool, bool)) -> Held {
    let privilege = Privilege { name: name.to_owned(), whole, part, why: "granted to PUBLIC".to_owned() };
    Held { schema: "public".to_owned(), target, privilege }
}

const PLAIN: Standing = Standing { can_log_in: true, is_superuser: false, powers: Vec::new() };

#[test]
fn rules_become_privileges_in_the_databases_they_are_for() {
    let logins = of(DOCUMENTS, &[]).unwrap();
    let [login] = logins.as_slice() else { panic!("{logins:?}") };
    assert_eq!(login.opened("shop", "public", "orders"), BTreeSet::from(["SELECT", "INSERT"]));
    assert_eq!(login.opened("other", "public", "orders"), BTreeSet::new());
    assert_eq!(login.opened("shop", "odd 'schema", "Items").len(), 4, "MERGE wants all of them");
    assert!(login.opens_function("shop", "public", &["total".to_owned()]));
    assert!(!login.opens_function("shop", "public", &["other".to_owned()]));
}

#[test]
fn names_are_names_whatever_is_in_them() {
    let text = script(&"ns/db".parse().unwrap(), &of(DOCUMENTS, &[]).unwrap());
    assert!(
        text.contains(r#"GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE "odd 'schema"."Items" TO app_orders;"#),
        "{text}"
    );
    assert_eq!(text.matches("\nBEGIN;\n").count() + text.matches("\nCOMMIT;\n").count(), 2);
    assert_eq!(quote::name("select"), "\"select\"");
    assert_eq!(quote::literal(r"o'\b"), r"E'o''\\b'");
    assert_eq!(quote::comment("a\n; DROP"), "-- a\u{FFFD}; DROP\n");
    assert!(quote::block("$sidegate$").starts_with("DO $sidegate_$\n"));
}

#[test]
fn a_login_that_is_everybody_is_refused() {
    for login in ["public", "none", "pg_read_all_data"] {
        let text = DOCUMENTS.replace("app_orders", login);
        assert!(of(&text, &[]).unwrap_err().to_string().contains(login));
    }
}

#[test]
fn what_owners_may_is_no_matter_of_grant() {
    let logins = of(DOCUMENTS, &[(Level::Owner, "app_owner"), (Level::Reader, "app_reader")]).unwrap();
    let compared: Vec<&str> =
        logins.iter().filter(|login| is_compared(login)).map(|login| login.name.as_str()).collect();
    assert_eq!(compared, ["app_orders", "app_reader"]);
    let text = script(&"ns/db".parse().unwrap(), &logins);
    assert!(text.contains("-- app_owner: left as it is") && !text.contains("CREATE ROLE app_owner"), "{text}");
    assert!(text.contains("GRANT pg_read_all_data TO app_reader;") && !text.contains("pg_write_all_data"), "{text}");
}

#[test]
fn both_ways_of_disagreement_are_told() {
    let logins = of(DOCUMENTS, &[]).unwrap();
    let orders = || Target::Relation("orders".to_owned());
    let total = Target::Function { name: "total".to_owned(), arguments: "integer".to_owned(), operators: Vec::new() };
    let held = [
        held(orders(), "SELECT", (true, true)),
        held(orders(), "INSERT", (false, true)),
        held(orders(), "UPDATE", (false, true)),
        held(orders(), "DELETE", (false, false)),
        held(total, "EXECUTE", (true, true)),
        held(Target::Schema, "CREATE", (true, true)),
    ];
    let found = compare(&logins[0], "shop", Some(&PLAIN), &held);
    let told: Vec<(&str, &str, &str)> =
        found.iter().map(|one| (one.way, one.privilege.as_str(), one.object.as_str())).collect();
    let items = "odd 'schema.Items";
    let expected = [
        ("less", "delete", items),
        ("less", "insert", items),
        ("less", "insert", "public.orders"),
        ("less", "select", items),
        ("less", "update", items),
        ("more", "create", "public"),
        ("more", "update", "public.orders"),
    ];
    assert_eq!(told, expected);
}

#[test]
fn what_is_beyond_privileges_is_told_first() {
    let logins = of(DOCUMENTS, &[]).unwrap();
    let whys = |standing: Option<&Standing>| -> Vec<String> {
        compare(&logins[0], "other", standing, &[]).into_iter().map(|one| format!("{}: {}", one.way, one.why)).collect()
    };
    assert_eq!(whys(None), ["less: there is no such login"]);
    let strong = Standing { can_log_in: false, is_superuser: true, powers: vec!["it creates roles".to_owned()] };
    assert_eq!(
        whys(Some(&strong)),
        ["less: it may not log in", "more: it creates roles", "more: it is a superuser, whom no privilege binds"]
    );
    assert_eq!(whys(Some(&PLAIN)), Vec::<String>::new());
}
