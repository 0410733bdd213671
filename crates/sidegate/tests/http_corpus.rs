//! Every SQL case gets the verdict that it expects over HTTP and over the native protocol, through both sidecars.
//!
//! Nothing of a case runs: over HTTP it stands behind a statement that fails, in a batch whose statements are all decided
//! before the first is sent; over the native protocol it is only prepared.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Value, json};
use testkit::http::{Http, path_of, request};
use testkit::{Demo, state_directory};
use tokio_postgres::{Client, NoTls};

/// Fails when it runs, and is everybody's to run.
const FAILS: &str = "select 1/0";

/// What a batch answers that got past its decisions: a division by zero, or a refusal on other grounds: it would end its
/// own transaction, or copy, which HTTP cannot.
const PAST_DECISIONS: [&str; 3] = ["22012", "25001", "0A000"];

fn corpus(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus").join(file)).unwrap()
}

/// The corpus' roles as roles of `postgres-a`, with a login that exists, and all roles granted to `service-b`, which has
/// none of its own there.
fn documents() -> String {
    let roles = corpus("roles.yaml").replace("postgres-b", "postgres-a");
    let roles: String = roles
        .lines()
        .map(|line| match line.split_once("user: ") {
            Some((indent, _)) => format!("{indent}user: app_reader\n"),
            None => format!("{line}\n"),
        })
        .collect();
    let names: Vec<&str> = roles
        .lines()
        .filter_map(|line| line.strip_prefix("metadata: {namespace: postgres-a, name: ")?.strip_suffix('}'))
        .collect();
    format!(
        "{roles}---\nkind: AccessGrant\nmetadata: {{namespace: postgres-a, name: corpus}}\nspec:\n  service: postgres-a\n  \
         subjects: [{{serviceAccount: service-b, namespace: service-b}}]\n  \
         roles: [reader, writer, owner, admin, {}]\n",
        names.join(", ")
    )
}

struct Sql {
    native: HashMap<String, Client>,
    http: Http,
    url: String,
    native_url: String,
}

impl Sql {
    async fn native(&mut self, role: &str, sql: &str) -> (&'static str, String) {
        if !self.native.contains_key(role) {
            let url = self.native_url.replacen("postgresql://", &format!("postgresql://{role}@"), 1);
            let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
            tokio::spawn(connection);
            self.native.insert(role.to_owned(), client);
        }
        match self.native[role].prepare(sql).await {
            Ok(_) => ("allow", String::new()),
            Err(error) => match error.as_db_error() {
                Some(error) if error.message().starts_with("sidegate: ") => ("deny", error.message().to_owned()),
                Some(error) => ("allow", error.message().to_owned()),
                None => panic!("{role}: {sql}: {error}"),
            },
        }
    }

    fn http(&mut self, role: &str, sql: &str) -> (&'static str, String) {
        let body = json!([{"query": FAILS}, {"query": sql}]).to_string();
        let path = path_of(&self.url, &format!("/query?role={role}"));
        self.http.send(&request("POST", &path, &[], body.as_bytes()));
        let answer = self.http.answer().unwrap_or_else(|| panic!("no answer to {sql}"));
        let problem: Value = answer.json();
        let message = problem["message"].as_str().unwrap_or_default().to_owned();
        match (answer.status, problem["code"].as_str()) {
            (400, Some(code)) if PAST_DECISIONS.contains(&code) => ("allow", message),
            (403, Some("42501")) | (400, Some("42601")) | (413, Some("54000")) if message.starts_with("sidegate: ") => {
                assert!(problem["decision_id"].is_string(), "{answer:?}");
                ("deny", message)
            }
            _ => panic!("{role}: {sql}: {answer:?}"),
        }
    }
}

#[tokio::test]
async fn every_case_gets_one_verdict_by_either_way() {
    let dir = state_directory();
    std::fs::create_dir_all(dir.path().join("demo/documents")).unwrap();
    std::fs::write(dir.path().join("demo/documents/corpus.yaml"), documents()).unwrap();
    let demo = Demo::start_in(env!("CARGO_BIN_EXE_sidegate"), dir.path());
    let url = demo.http("service-b", "postgres-a").to_owned();
    let mut sql = Sql {
        native: HashMap::new(),
        http: Http::connect(&url, demo.ca_file()),
        url,
        native_url: demo.outbound("service-b", "postgres-a").to_owned(),
    };
    let cases = corpus("sql.jsonl") + &corpus("more.jsonl");
    let mut failed = Vec::new();
    for line in cases.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let [id, role, text, expected] = ["id", "role", "sql", "expect"].map(|name| case[name].as_str().unwrap());
        // The native protocol ends a text at its first NUL, so that there such a text cannot be sent.
        let native = if text.contains('\0') { ("deny", String::new()) } else { sql.native(role, text).await };
        let http = sql.http(role, text);
        if native.0 != expected || http.0 != expected {
            let text: String = text.chars().take(120).collect();
            failed.push(format!("{id} {role} {expected}: {text}\n  native {native:?}\n  http {http:?}"));
        }
    }
    assert!(cases.lines().count() > 900);
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}
