//! Each lint with what it finds and what it leaves alone.

use super::*;
use crate::snapshot::Source;

/// A role of postgres rules and a grant of it, as YAML.
fn role(rules: &str) -> String {
    format!(
        "kind: AccessRole\nmetadata: {{namespace: b, name: orders}}\nspec: {{service: b, postgres: {{user: app, rules: [{rules}]}}}}\n---\n{}",
        grant("one", "a", "orders")
    )
}

fn grant(name: &str, subject: &str, roles: &str) -> String {
    format!(
        "kind: AccessGrant\nmetadata: {{namespace: b, name: {name}}}\nspec: {{service: b, subjects: \
         [{{serviceAccount: {subject}, namespace: {subject}}}], roles: [{roles}]}}\n---\n"
    )
}

fn snapshot(text: &str) -> Snapshot {
    let source = Source { path: "t.yaml".to_owned(), text: text.to_owned() };
    Snapshot::compile(&[source]).unwrap_or_else(|errors| panic!("{errors:?} in {text}"))
}

fn codes(text: &str) -> Vec<&'static str> {
    lint(&snapshot(text)).into_iter().map(|finding| finding.code).collect()
}

#[test]
fn rules_that_never_match_are_found() {
    for (rules, expected) in [
        ("{actions: [select, insert], tables: [public.a]}", vec![]),
        ("{actions: [select], tables: [public.a]}, {actions: [select], tables: [public.b]}", vec![]),
        (
            "{actions: [select], tables: [public.a, public.b]}, {actions: [select], tables: [public.b]}",
            vec!["rule-covered"],
        ),
        ("{actions: [select], tables: [public.a]}, {actions: [select], tables: [\"public.*\"]}", vec!["rule-covered"]),
        ("{actions: [select, insert], tables: [public.a]}, {actions: [select], tables: [\"public.*\"]}", vec![]),
        ("{actions: [select], tables: [public.a]}, {actions: [select], tables: [public.a]}", vec!["rule-covered"]),
        ("{actions: [select], tables: [\"x.*\"]}, {actions: [select], tables: [\"x.*\"]}", vec!["rule-covered"]),
        ("{actions: [execute], functions: [pg_catalog.now]}", vec!["rule-everyone"]),
        ("{actions: [select], tables: [pg_catalog.pg_class]}", vec!["rule-everyone"]),
        ("{actions: [select], tables: [pg_catalog.pg_class, public.a]}", vec![]),
        ("{actions: [select], tables: [pg_catalog.pg_authid]}", vec!["rule-never"]),
        ("{actions: [insert], tables: [pg_catalog.pg_class]}", vec!["rule-never"]),
        ("{actions: [execute], functions: [pg_catalog.pg_read_file]}", vec!["rule-never"]),
        ("{actions: [execute], functions: [public.place_order]}", vec![]),
    ] {
        assert_eq!(codes(&role(rules)), expected, "{rules}");
    }
}

#[test]
fn what_opens_too_much_is_found() {
    for (rules, expected) in [
        ("{actions: [select], tables: [\"public.*\"]}", vec![]),
        ("{actions: [select, delete], tables: [\"public.*\"]}", vec!["wide-write"]),
        ("{actions: [execute], functions: [\"public.*\"]}", vec!["wide-execute"]),
    ] {
        assert_eq!(codes(&role(rules)), expected, "{rules}");
    }
    for (methods, path, expected) in
        [("GET", "/*", vec![]), ("GET, POST", "/*", vec!["wide-http"]), ("POST", "/api/*", vec![])]
    {
        let text = format!(
            "kind: AccessRole\nmetadata: {{namespace: b, name: web}}\nspec: {{service: b, http: {{rules: [{{methods: [{methods}], paths: \
             [\"{path}\"]}}]}}}}\n---\n{}",
            grant("one", "a", "web")
        );
        assert_eq!(codes(&text), expected, "{methods} {path}");
    }
    assert_eq!(codes(&grant("one", "a", "admin")), ["grant-admin"]);
    assert_eq!(codes(&grant("one", "a", "owner")), ["grant-owner"]);
    assert!(codes(&grant("one", "a", "reader")).is_empty());
}

#[test]
fn grants_are_looked_at_together() {
    let two = |first: &str, second: &str| codes(&(grant("one", "a", first) + &grant("two", "a", second)));
    assert_eq!(two("reader", "reader"), ["granted-twice"]);
    assert_eq!(two("reader", "writer"), ["role-redundant", "several-roles"]);
    assert!(codes(&(grant("one", "a", "reader") + &grant("two", "c", "writer"))).is_empty(), "two subjects");
    let orders = role("{actions: [select], tables: [public.a]}");
    assert_eq!(codes(&(orders.clone() + &grant("two", "a", "reader"))), ["several-roles"]);
    let ungranted = orders.split("---").next().unwrap().to_owned();
    assert_eq!(codes(&ungranted), ["role-unused"]);
}

#[test]
fn a_login_of_two_roles_is_told_if_their_rules_differ() {
    let named = |name: &str, table: &str| {
        role(&format!("{{actions: [select], tables: [public.{table}]}}"))
            .replace("name: orders}", &format!("name: {name}}}"))
            .replace("roles: [orders]", &format!("roles: [{name}]"))
            .replace("name: one}", &format!("name: {name}}}"))
            .replace("namespace: a}", &format!("namespace: {name}}}"))
    };
    assert_eq!(codes(&(named("x", "a") + &named("y", "b"))), ["shared-login"]);
    assert!(codes(&(named("x", "a") + &named("y", "a"))).is_empty());
}

fn catalogue() -> Catalogue {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let login = Login { can_log_in: true, ..Login::default() };
    Catalogue {
        database: "shop".to_owned(),
        relations: names(&["public.orders", "public.items"]),
        functions: names(&["public.place_order"]),
        logins: [("app".to_owned(), login)].into(),
    }
}

#[test]
fn names_are_looked_up_in_the_database() {
    let found =
        |rules: &str, catalogue: &Catalogue| lint_database(&snapshot(&role(rules)), &"b/b".parse().unwrap(), catalogue);
    for (rules, expected) in [
        ("{actions: [select], tables: [public.orders, \"public.*\"]}", None),
        ("{actions: [select], tables: [pg_catalog.pg_class]}", None),
        ("{actions: [select], tables: [public.order]}", Some(("unknown-name", "Is `public.orders` meant?"))),
        ("{actions: [select], tables: [\"sales.*\"]}", Some(("unknown-name", "the schema has no table"))),
        ("{actions: [select], tables: [public.place_order]}", Some(("wrong-kind", "put it under `functions`"))),
        ("{actions: [execute], functions: [public.items]}", Some(("wrong-kind", "put it under `tables`"))),
        ("{actions: [execute], functions: [public.nothing_like_it]}", Some(("unknown-name", "no such function."))),
        ("{actions: [execute], functions: [pg_catalog.now]}", None),
    ] {
        let told = found(rules, &catalogue());
        let told = told.first().map(|finding| (finding.code, finding.what.as_str()));
        match (told, expected) {
            (Some((code, what)), Some((wanted, words))) => assert!(code == wanted && what.contains(words), "{what}"),
            (told, expected) => assert_eq!(told.is_some(), expected.is_some(), "{rules}: {told:?}"),
        }
    }
    let rules = "{actions: [select], tables: [public.orders]}";
    let with = |login: Option<Login>| {
        let mut catalogue = catalogue();
        catalogue.logins = login.into_iter().map(|login| ("app".to_owned(), login)).collect();
        found(rules, &catalogue).first().map(|finding| (finding.code, finding.what.clone()))
    };
    let login = Login { can_log_in: true, ..Login::default() };
    assert_eq!(with(Some(login.clone())), None);
    assert_eq!(with(None).unwrap().0, "unknown-login");
    assert_eq!(with(Some(Login::default())).unwrap().0, "unknown-login", "it may not log in");
    let strong = with(Some(Login { is_superuser: true, owns: Some("public.orders".to_owned()), ..login })).unwrap();
    assert!(strong.0 == "strong-login" && strong.1.contains("is a superuser and owns public.orders"), "{strong:?}");
    let other = Catalogue { database: "other".to_owned(), ..catalogue() };
    let elsewhere =
        role("{actions: [select], tables: [public.order]}").replace("user: app,", "user: app, database: [shop],");
    assert!(
        lint_database(&snapshot(&elsewhere), &"b/b".parse().unwrap(), &other).is_empty(),
        "another database's role"
    );
}

#[test]
fn the_table_of_codes_is_that_of_the_manual() {
    let manual = include_str!("../../../../docs/DOCUMENTS.md");
    for (code, severity, meaning) in CODES {
        let severity = serde_json::to_value(severity).unwrap();
        let row = format!("| `{code}` | {} | {meaning} |", severity.as_str().unwrap());
        assert!(manual.contains(&row), "docs/DOCUMENTS.md lacks: {row}");
    }
}
