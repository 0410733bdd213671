//! `sidegate policy check`: documents held against a real PostgreSQL's tables, functions and logins.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;
use testkit::Demo;

const PROGRAM: &str = env!("CARGO_BIN_EXE_sidegate");

/// One role a mistake, and one that is right; `app_owner` owns all tables of the demo, `app_admin` is its superuser.
const DOCUMENTS: &str = r#"
apiVersion: sidegate.dev/v1alpha1
kind: AccessRole
metadata: {namespace: postgres-b, name: misspelled}
spec:
  service: postgres-b
  postgres: {user: app_orders_writer, rules: [{actions: [select], tables: [public.oders]}]}
---
apiVersion: sidegate.dev/v1alpha1
kind: AccessRole
metadata: {namespace: postgres-b, name: elsewhere}
spec:
  service: postgres-b
  postgres: {user: app_reader, rules: [{actions: [select], tables: ["shop.*"]}, {actions: [execute], functions: [public.orders]}]}
---
apiVersion: sidegate.dev/v1alpha1
kind: AccessRole
metadata: {namespace: postgres-b, name: nobody}
spec:
  service: postgres-b
  postgres: {user: app_nobody, rules: [{actions: [select], tables: [public.orders]}]}
---
apiVersion: sidegate.dev/v1alpha1
kind: AccessRole
metadata: {namespace: postgres-b, name: too-strong}
spec:
  service: postgres-b
  postgres: {user: app_owner, rules: [{actions: [select], tables: [public.orders]}]}
---
apiVersion: sidegate.dev/v1alpha1
kind: AccessRole
metadata: {namespace: postgres-b, name: beyond}
spec:
  service: postgres-b
  postgres: {user: app_admin, rules: [{actions: [select], tables: [public.orders]}]}
---
apiVersion: sidegate.dev/v1alpha1
kind: AccessRole
metadata: {namespace: postgres-b, name: other-database}
spec:
  service: postgres-b
  postgres: {user: app_legacy, database: [not_shop], rules: [{actions: [select], tables: [nowhere.to_be_found]}]}
---
apiVersion: sidegate.dev/v1alpha1
kind: AccessRole
metadata: {namespace: postgres-b, name: right}
spec:
  service: postgres-b
  postgres: {user: app_writer, rules: [{actions: [insert], tables: [public.log]}]}
---
apiVersion: sidegate.dev/v1alpha1
kind: AccessGrant
metadata: {namespace: postgres-b, name: all}
spec:
  service: postgres-b
  subjects: [{serviceAccount: service-a, namespace: service-a}]
  roles: [misspelled, elsewhere, nobody, too-strong, beyond, other-database, right]
"#;

fn check(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(["policy", "check"]).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Code and text of what is found with `--json`, but for the note that a subject has several roles.
fn found(output: &Output) -> Vec<(String, String)> {
    let lines = text(&output.stdout).lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let field = |line: &Value, name: &str| line[name].as_str().unwrap().to_owned();
    lines.map(|line| (field(&line, "code"), field(&line, "what"))).filter(|(code, _)| code != "several-roles").collect()
}

#[test]
fn what_the_database_has_not_is_told() {
    let demo = Demo::start_without_prometheus(PROGRAM);
    let dir = tempfile::tempdir().unwrap();
    let roles = dir.path().to_str().unwrap();
    fs::write(dir.path().join("roles.yaml"), DOCUMENTS).unwrap();

    // Documents alone have no mistake.
    let alone = check(&[roles, "--json"]);
    assert_eq!((alone.status.code(), found(&alone)), (Some(0), Vec::new()), "{alone:?}");

    let own = format!("host={} user=app_reader dbname=shop", demo.socket_dir("postgres-b"));
    let through_the_pair = format!("{}?user=reader", demo.outbound("service-a", "postgres-b"));
    for dsn in [own.as_str(), through_the_pair.as_str()] {
        let output = check(&[roles, "--json", "--database", dsn]);
        let found = found(&output);
        let codes: Vec<&str> = found.iter().map(|(code, _)| code.as_str()).collect();
        let all = ["unknown-name", "unknown-name", "wrong-kind", "unknown-login", "strong-login", "strong-login"];
        assert_eq!(codes, all, "{dsn}: {}", text(&output.stderr));
        let what: Vec<&str> = found.iter().map(|(_, what)| what.as_str()).collect();
        assert!(what[0].contains("`public.oders`") && what[0].contains("Is `public.orders` meant?"), "{}", what[0]);
        assert!(what[1].contains("`shop.*`") && what[2].contains("is a table"), "{what:?}");
        assert!(what[3].contains("`app_nobody`") && what[4].contains("owns"), "{what:?}");
        assert!(what[5].contains("is a superuser"), "{}", what[5]);
        assert_eq!(output.status.code(), Some(3));
    }

    // The demo's own documents fit the demo's own databases.
    let documents = demo.dir().join("documents");
    let service = ["--service", "postgres-b/postgres-b"];
    let fits = check(&[&[documents.to_str().unwrap(), "--strict", "--database", &own], &service[..]].concat());
    assert_eq!((fits.status.code(), text(&fits.stdout)), (Some(0), "errors: 0, warnings: 0, notes: 0\n"), "{fits:?}");
}

#[test]
fn what_cannot_be_looked_at_is_no_agreement() {
    let dir = tempfile::tempdir().unwrap();
    let roles = dir.path().to_str().unwrap();
    let fails = |arguments: &[&str], why: &str| {
        let output = check(arguments);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(text(&output.stderr).contains(why), "{}", text(&output.stderr));
    };
    fails(&[roles], "no *.yaml");
    fs::write(dir.path().join("roles.yaml"), DOCUMENTS).unwrap();
    fails(&[roles, "--database", "host=127.0.0.1 port=1 user=x"], "cannot connect to");
    fails(&[roles, "--database", "host=127.0.0.1 sslmode=require"], "outbound sidecar");
    fails(&[roles, "--database", "host=127.0.0.1", "--service", "postgres-b/else"], "no document speaks of");

    fs::write(dir.path().join("broken.yaml"), "kind: AccessRule").unwrap();
    let broken = check(&[roles]);
    assert_eq!(broken.status.code(), Some(3));
    assert!(text(&broken.stdout).contains("error[document]"), "{}", text(&broken.stdout));
}
