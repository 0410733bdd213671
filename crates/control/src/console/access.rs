//! Access: roles and grants, edited as the documents that they are, with the compiler's own messages, and what would have come of it.
//!
//! Nothing is saved before somebody has seen what it would have changed in the last hour, and nothing over what somebody else has
//! saved meanwhile. Deliberately absent: rights of who edits, which in a cluster is its API server's.

mod edit;
mod rehearsal;

use askama::Template;
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::response::Response;
use policy::documents::DocumentError;
use policy::explain::explain_decision;
use policy::snapshot::Snapshot;
use serde::Deserialize;

use super::Signed;
use super::changes::Change;
use super::failure::failed;
use super::page::{Frame, escaped, html, message};
use super::platform::{Kind, Part};
pub(super) use edit::{check, save};
use rehearsal::Rehearsal;

/// Changes of a document that its page shows.
const HISTORY: usize = 10;

/// A document in the list.
struct Row {
    namespace: String,
    name: String,
    kind: &'static str,
    /// What a role opens, or whom a grant is for.
    what: String,
    roles: String,
}

impl Row {
    fn path(&self) -> String {
        path(&self.namespace, self.kind, &self.name)
    }
}

#[derive(Template)]
#[template(path = "console/access.html")]
struct List<'a> {
    frame: &'a Frame,
    roles: Vec<Row>,
    grants: Vec<Row>,
    errors: Vec<String>,
    namespaces: Vec<String>,
    note: Option<&'static str>,
    troubles: Vec<String>,
}

#[derive(Template)]
#[template(path = "console/document.html")]
struct Editor<'a> {
    frame: &'a Frame,
    title: String,
    /// Of what is edited; empty for what is new.
    namespace: &'a str,
    kind: &'a str,
    name: &'a str,
    version: &'a str,
    text: &'a str,
    outcome: Option<Outcome>,
    /// It was looked at as it would be saved: the next step is to save it.
    confirming: bool,
    history: Vec<Change>,
}

/// What the compiler says, and, if asked, what would have come of it.
struct Outcome {
    errors: Vec<String>,
    rehearsal: Option<Rehearsal>,
    /// Of what would be replaced.
    version: String,
}

#[derive(Deserialize)]
pub(super) struct Note {
    #[serde(default)]
    note: String,
}

pub(super) async fn list(Signed(console): Signed, frame: Frame, Query(Note { note }): Query<Note>) -> Response {
    let frame = frame.at("access");
    let documents = match console.platform.documents() {
        Ok(documents) => documents,
        Err(error) => return failed(&frame, &error, "/"),
    };
    let snapshot = documents.in_force();
    let rows = documents.parts().into_iter().map(|part| row(&part, snapshot.as_ref()));
    let (roles, grants): (Vec<Row>, Vec<Row>) = rows.partition(|row| row.kind == Kind::Role.name());
    let note = ["saved-note", "deleted-note"].into_iter().find(|key| *key == note);
    let page = List {
        frame: &frame,
        roles,
        grants,
        errors: told(&documents.errors()),
        troubles: console.platform.troubles(),
        namespaces: super::services::namespaces(&console).into_iter().collect(),
        note: note.map(|key| frame.t(key)),
    };
    html(StatusCode::OK, &page)
}

fn row(part: &Part, snapshot: Option<&Snapshot>) -> Row {
    let (mut what, mut roles) = (String::new(), String::new());
    match (part.kind, snapshot) {
        (Kind::Role, Some(snapshot)) => {
            if let Some(role) = snapshot.role(&part.namespace, &part.name) {
                let postgres = role
                    .postgres
                    .as_ref()
                    .map(|postgres| format!("PostgreSQL: {} ({})", postgres.rules.len(), postgres.user));
                let http = (!role.http.is_empty()).then(|| format!("HTTP: {}", role.http.len()));
                what = postgres.into_iter().chain(http).collect::<Vec<_>>().join(", ");
            }
        }
        (Kind::Grant, Some(snapshot)) => {
            let is_it = |grant: &&policy::documents::AccessGrant| {
                grant.service.namespace == part.namespace && grant.name == part.name
            };
            if let Some(grant) = snapshot.grants().find(is_it) {
                what = grant.subjects.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                roles = grant.roles.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>().join(", ");
            }
        }
        (_, None) => {}
    }
    Row { namespace: part.namespace.clone(), name: part.name.clone(), kind: part.kind.name(), what, roles }
}

pub(super) async fn show(
    Signed(console): Signed,
    frame: Frame,
    Path((namespace, kind, name)): Path<(String, String, String)>,
) -> Response {
    let frame = frame.at("access");
    let part = match (Kind::of(&kind), console.platform.documents()) {
        (Some(kind), Ok(documents)) => documents.part(&namespace, kind, &name),
        (None, _) => None,
        (_, Err(error)) => return failed(&frame, &error, "/access"),
    };
    let Some(part) = part else {
        return message(
            &frame,
            StatusCode::NOT_FOUND,
            frame.t("failed"),
            &[frame.t("not-found").to_owned()],
            "/access",
        );
    };
    let page = Editor {
        frame: &frame,
        title: format!("{kind} {namespace}/{name}"),
        namespace: &namespace,
        kind: &kind,
        name: &name,
        version: &part.version,
        text: &part.text,
        outcome: None,
        confirming: false,
        history: console.common.changes.of(&what(&kind, &namespace, &name), HISTORY),
    };
    html(StatusCode::OK, &page)
}

/// What a draft begins with: a decision that is to be allowed, or the fields of the form.
#[derive(Deserialize)]
pub(super) struct Beginning {
    #[serde(default)]
    decision: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    account: String,
    #[serde(default)]
    account_namespace: String,
    #[serde(default)]
    roles: String,
}

pub(super) async fn new(Signed(console): Signed, frame: Frame, Query(wanted): Query<Beginning>) -> Response {
    let frame = frame.at("access");
    let text = match wanted.decision.as_str() {
        "" if wanted.kind == Kind::Role.name() => role_draft(&wanted),
        "" => grant_draft(&wanted),
        id => {
            let record = super::decisions::one(&console, id).await;
            let snapshot = console.platform.documents().ok().and_then(|documents| documents.in_force());
            let remedy = record.as_ref().and_then(|record| explain_decision(record, snapshot.as_ref()).remedy);
            remedy.and_then(|remedy| remedy.yaml).unwrap_or_default()
        }
    };
    html(StatusCode::OK, &editor_of_new(&frame, &text, None, false))
}

fn editor_of_new<'a>(frame: &'a Frame, text: &'a str, outcome: Option<Outcome>, confirming: bool) -> Editor<'a> {
    Editor {
        frame,
        title: frame.t("new-documents").to_owned(),
        namespace: "",
        kind: "",
        name: "",
        version: "",
        text,
        outcome,
        confirming,
        history: Vec::new(),
    }
}

/// JSON's strings are YAML's, so that nothing that somebody types is taken for more than a text.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text.trim()).to_string()
}

fn grant_draft(wanted: &Beginning) -> String {
    let roles: Vec<String> = wanted.roles.split(',').map(quoted).collect();
    let account_namespace =
        if wanted.account_namespace.trim().is_empty() { &wanted.account } else { &wanted.account_namespace };
    format!(
        "apiVersion: sidegate.dev/v1alpha1\nkind: AccessGrant\nmetadata:\n  namespace: {namespace}\n  name: {account}\nspec:\n  \
         service: {namespace}\n  subjects:\n    - {{serviceAccount: {account}, namespace: {account_namespace}}}\n  roles: [{roles}]\n",
        namespace = quoted(&wanted.namespace),
        account = quoted(&wanted.account),
        account_namespace = quoted(account_namespace),
        roles = roles.join(", "),
    )
}

fn role_draft(wanted: &Beginning) -> String {
    let namespace = quoted(&wanted.namespace);
    format!(
        "apiVersion: sidegate.dev/v1alpha1\nkind: AccessRole\nmetadata:\n  namespace: {namespace}\n  name: new-role\nspec:\n  \
         service: {namespace}\n  postgres:\n    user: app_new_role\n    rules:\n      - {{actions: [select], tables: [\"public.orders\"]}}\n"
    )
}

fn told(errors: &[DocumentError]) -> Vec<String> {
    let one = |error: &DocumentError| match error.place.line {
        0 => error.what.clone(),
        line => format!("{}:{line}:{} {}", error.place.path, error.place.column, error.what),
    };
    errors.iter().map(one).collect()
}

fn what(kind: &str, namespace: &str, name: &str) -> String {
    format!("{kind}/{namespace}/{name}")
}

fn path(namespace: &str, kind: &str, name: &str) -> String {
    format!("/access/{}/{}/{}", escaped(namespace), escaped(kind), escaped(name))
}

#[cfg(test)]
mod tests {
    use policy::snapshot::Source;

    use super::super::platform::parts;
    use super::*;

    #[test]
    fn what_somebody_types_stays_a_text() {
        let wanted = Beginning {
            decision: String::new(),
            kind: String::new(),
            namespace: "b".to_owned(),
            account: "x\"}]\nroles: [admin] #".to_owned(),
            account_namespace: String::new(),
            roles: "reader, '; DROP".to_owned(),
        };
        let source = Source { path: "x".to_owned(), text: grant_draft(&wanted) };
        let found = parts(&source);
        assert_eq!((found.len(), found[0].name.as_str()), (1, "x\"}]\nroles: [admin] #"));
        let errors = Snapshot::compile(&[source]).unwrap_err();
        assert!(!errors.is_empty());
    }

    #[test]
    fn drafts_are_right_as_they_are() {
        let wanted = Beginning {
            decision: String::new(),
            kind: "AccessRole".to_owned(),
            namespace: "b".to_owned(),
            account: "a".to_owned(),
            account_namespace: String::new(),
            roles: "reader,new-role".to_owned(),
        };
        let text = [role_draft(&wanted), grant_draft(&wanted)].join("---\n");
        Snapshot::compile(&[Source { path: "x".to_owned(), text }]).unwrap();
    }
}
