//! Documents right and wrong; of the wrong ones the place and the words of every error.

use super::*;

fn errors(text: &str) -> Vec<String> {
    let (_, errors) = parse(&Source { path: "f.yaml".into(), text: text.into() });
    errors.iter().map(ToString::to_string).collect()
}

fn good(text: &str) -> Vec<Document> {
    let (documents, errors) = parse(&Source { path: "f.yaml".into(), text: text.into() });
    assert_eq!(errors, [], "{text}");
    documents
}

const ROLE: &str = r#"
apiVersion: sidegate.dev/v1alpha1
kind: AccessRole
metadata: {namespace: postgres-b, name: orders-writer, labels: {a: b}, annotations: {c: d}, uid: x}
spec:
  service: postgres-b
  postgres:
    user: app_writer
    database: [orders]
    rules:
      - {actions: [select, insert], tables: ["public.orders", "public.*", 'app."na.me"', "public.Invoice"]}
      - {actions: [execute], functions: ["public.place_order", "public.+"]}
  http:
    rules:
      - {methods: [GET, POST], paths: ["/api/v1/query*"]}
"#;

#[test]
fn reads_a_role_as_the_design_writes_it() {
    let documents = good(ROLE);
    let [Document::Role(role)] = documents.as_slice() else { panic!("{documents:?}") };
    assert_eq!((role.name.as_str(), role.service.to_string().as_str()), ("orders-writer", "postgres-b/postgres-b"));
    let detail = role.postgresql_detail().unwrap();
    assert_eq!(detail.user.as_deref(), Some("app_writer"));
    assert_eq!(detail.database, ["orders"]);
    assert_eq!(detail.rules[0].tables, ["public.orders", "public.*", "app.na.me", "public.Invoice"]);
    assert_eq!(detail.rules[1].functions, ["public.place_order", "public.+"]);
    assert_eq!(
        role.http,
        [HttpRule { methods: vec!["GET".into(), "POST".into()], paths: vec!["/api/v1/query*".into()] }]
    );
    assert_eq!(role.details().len(), 2);
}

#[test]
fn reads_the_roles_of_the_corpus() {
    let text = include_str!("../../../../corpus/roles.yaml");
    let count = text.matches("kind: AccessRole").count();
    assert_eq!(good(text).len(), count);
}

#[test]
fn reads_json_and_skips_empty_documents() {
    let json = r#"{"kind": "AccessGrant", "metadata": {"namespace": "a", "name": "g"}, "spec": {"service": "s",
        "subjects": [{"serviceAccount": "x.y", "namespace": "b"}], "roles": ["reader"]}}"#;
    let documents = good(&format!("---\n---\n# nothing\n---\n{json}\n---\n"));
    let [Document::Grant(grant)] = documents.as_slice() else { panic!("{documents:?}") };
    assert_eq!(grant.subjects[0].to_string(), "system:serviceaccount:b:x.y");
    assert!(good("").is_empty());
}

/// A role with one thing changed, the place and a part of the message that must come.
#[test]
fn says_what_is_wrong_where_and_what_would_be_right() {
    let table: &[(&str, &str, &[&str])] = &[
        ("kind: AccessRole", "kind: AccessRoll", &["f.yaml:3:7", "unknown kind `AccessRoll`", "AccessGrant"]),
        ("kind: AccessRole", "", &["kind is missing", "`kind: AccessRole`"]),
        ("v1alpha1", "v1", &["f.yaml:2:13", "sidegate.dev/v1alpha1"]),
        ("namespace: postgres-b, ", "", &["metadata.namespace", "missing"]),
        ("namespace:", "namespce:", &["f.yaml:4", "namespce", "namespace"]),
        ("name: orders-writer", "name: Orders_Writer", &["f.yaml:4:41", "metadata.name", "lower-case"]),
        ("name: orders-writer", "name: writer", &["built-in role"]),
        ("service: postgres-b", "service: other/postgres-b", &["f.yaml:6:12", "write `service: postgres-b`"]),
        ("service: postgres-b", "service: postgres-b\n  servce: x", &["f.yaml:7", "servce", "service"]),
        ("service: postgres-b", "service: postgres-b\n  service: postgres-c", &["f.yaml:7", "duplicate"]),
        ("service: postgres-b", "service: postgres-b\n  roles: [reader]", &["`roles` is a field of AccessGrant"]),
        ("user: app_writer", "", &["`postgres.user` is missing"]),
        ("user: app_writer", "user: ''", &["1 to 63 bytes"]),
        ("[select, insert]", "[select, SELECT]", &["f.yaml:11:28", "unknown action `SELECT`", "want select, insert"]),
        ("[select, insert]", "[]", &["no actions"]),
        ("[select, insert]", "[execute]", &["execute needs `functions`"]),
        ("[select, insert]", "select", &["f.yaml:11"]),
        ("[execute]", "[select]", &["need the action execute"]),
        ("public.orders", "orders", &["f.yaml:11:46", "no schema", "`public.orders`"]),
        ("public.orders", "shop.public.orders", &["more than two parts", "database"]),
        ("public.orders", "public.ord*", &["write every name"]),
        ("public.orders", "*.orders", &["schema must be written out"]),
        ("public.orders", "*", &["no schema"]),
        ("public.orders", "public.", &["lacks a part"]),
        ("public.orders", "public. orders", &["blanks"]),
        (r#"app."na.me""#, r#"app."na"#, &["closing quote"]),
        (r#"app."na.me""#, r#"app."*""#, &["wildcard"]),
        (r#"app."na.me""#, r#"app."na""me""#, &["without quotes"]),
        ("GET", "get", &["upper case"]),
        ("/api/v1/query*", "/api/*/query", &["only at its end"]),
        ("/api/v1/query*", "/a/../b", &["normal form", "`/b`"]),
        ("/api/v1/query*", "/a//b*", &["normal form", "`/a/b*`"]),
        ("/api/v1/query*", "/%61%3a", &["f.yaml:15:40", "`/a%3A`"]),
        ("/api/v1/query*", "/a/..%2f", &["slash"]),
        ("/api/v1/query*", "/a;x", &["parameters"]),
        ("/api/v1/query*", "/a?x", &["query"]),
        ("/api/v1/query*", "api", &["begins with `/`"]),
        ("/api/v1/query*", "*", &["begins with `/`"]),
        ("/api/v1/query*", "/a**", &["only at its end"]),
        ("[\"/api/v1/query*\"]", "[]", &["both methods and paths"]),
        ("spec:", "specs:", &["specs"]),
    ];
    for (from, to, parts) in table {
        assert!(ROLE.contains(from), "{from}");
        let all = errors(&ROLE.replacen(from, to, 1)).join("\n");
        for part in *parts {
            assert!(all.contains(part), "{from} -> {to}: want {part:?} in:\n{all}");
        }
    }
}

#[test]
fn a_role_or_grant_that_opens_nothing_is_an_error() {
    let head = "metadata: {namespace: a, name: n}\nspec:\n  service: s\n";
    for (text, part) in [
        ("kind: AccessRole\n", "opens nothing"),
        ("kind: AccessRole\n|  postgres: {user: u, rules: []}", "no rules"),
        ("kind: AccessRole\n|  http: {rules: []}", "no rules"),
        ("kind: AccessGrant\n|  subjects: []\n  roles: [reader]", "no subjects"),
        ("kind: AccessGrant\n|  subjects: [{serviceAccount: x, namespace: y}]", "no roles"),
        ("kind: AccessGrant\n|  subjects: [{serviceAccount: x}]\n  roles: [reader]", "serviceAccount and namespace"),
        (
            "kind: AccessGrant\n|  subjects: [{serviceAccount: 'x:y', namespace: z}]\n  roles: [reader]",
            "no service account",
        ),
        (
            "kind: AccessGrant\n|  subjects: [{serviceAccount: x, namespace: z}]\n  roles: [reader]\n  http: {}",
            "field of AccessRole",
        ),
    ] {
        let (kind, rest) = text.split_once('|').unwrap_or((text, ""));
        let all = errors(&format!("{kind}{head}{rest}\n")).join("\n");
        assert!(all.contains(part), "{text}: {all}");
    }
}

#[test]
fn all_errors_of_all_documents_come_at_once() {
    let wrong = ROLE.replacen("[select, insert]", "[selekt, insrt]", 1).replacen("user: app_writer", "user: ''", 1);
    let strange = "kind: Deployment\nmetadata: {name: x}\nspec: {replicas: 3}";
    let unknown_field = "kind: AccessRole\nmetadata: {namspace: x}";
    let list = "- 1\n- 2";
    let all = errors(&[&wrong, strange, unknown_field, list, ROLE].join("\n---\n"));
    assert_eq!(all.len(), 3 + 1 + 1 + 1, "{all:#?}");
    assert!(all.iter().any(|e| e.contains("unknown kind `Deployment`")), "{all:#?}");
}

#[test]
fn a_text_that_is_no_yaml_is_one_error_with_its_place() {
    let all = errors("kind: AccessRole\nmetadata: {a: [b\nspec: }\n");
    assert_eq!(all.len(), 1, "{all:#?}");
    assert!(all[0].starts_with("f.yaml:") && !all[0].starts_with("f.yaml:0"), "{all:#?}");
}

#[test]
fn bombs_are_errors() {
    let mut bomb = String::from("kind: AccessRole\nmetadata: {annotations: {a0: &a0 [x,x,x,x,x,x,x,x,x,x]");
    for n in 1..12 {
        let before = format!("*a{}", n - 1);
        bomb.push_str(&format!(", a{n}: &a{n} [{}]", [before.as_str(); 10].join(",")));
    }
    bomb.push_str("}}\n");
    assert_eq!(errors(&bomb).len(), 1);
    assert!(!errors(&"[".repeat(100_000)).is_empty());
}

#[test]
fn every_role_read_is_a_role_that_sessions_can_hold() {
    let documents = good(&format!("{ROLE}\n---\n{}", include_str!("../../../../corpus/roles.yaml")));
    for document in documents {
        let Document::Role(role) = document else { continue };
        let detail = role.postgresql_detail().unwrap();
        crate::Role::from_detail(&detail).unwrap_or_else(|e| panic!("{}: {e}", role.name));
        if let Some(detail) = role.http_detail() {
            crate::http::HttpRole::from_detail(&detail).unwrap_or_else(|e| panic!("{}: {e}", role.name));
        }
    }
}
