//! Access: roles and grants, edited as the documents that they are, with the compiler's own messages, and what would have come of it.
//!
//! Nothing is saved before somebody has seen what it would have changed in the last hour, and nothing over what somebody else has
//! saved meanwhile. Deliberately absent: rights of who edits; whoever is signed in is an operator.

mod rehearsal;

use std::collections::BTreeMap;
use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use policy::documents::DocumentError;
use policy::explain::explain_decision;
use policy::snapshot::{Snapshot, Source};
use serde::Deserialize;

use super::changes::Change;
use super::page::{Frame, escaped, html, message, see_other};
use super::platform::{At, Documents, Draft, Kind, Part, WriteError, parts};
use super::services::{Confirm, failed};
use super::{Console, Posted, blocking};
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

/// The same as a part of a page.
#[derive(Template)]
#[template(path = "console/_outcome.html")]
struct OutcomePart<'a> {
    frame: &'a Frame,
    outcome: Outcome,
}

#[derive(Deserialize)]
pub(super) struct Note {
    #[serde(default)]
    note: String,
}

pub(super) async fn list(
    State(console): State<Arc<Console>>,
    frame: Frame,
    Query(Note { note }): Query<Note>,
) -> Response {
    let frame = frame.at("access");
    let documents = match console.platform.documents() {
        Ok(documents) => documents,
        Err(error) => return failed(&frame, &error, "/"),
    };
    let compiled = documents.compile();
    let snapshot = compiled.as_ref().ok();
    let rows = documents.parts().into_iter().map(|part| row(&part, snapshot));
    let (roles, grants): (Vec<Row>, Vec<Row>) = rows.partition(|row| row.kind == Kind::Role.name());
    let note = ["saved-note", "deleted-note"].into_iter().find(|key| *key == note);
    let page = List {
        frame: &frame,
        roles,
        grants,
        errors: compiled.err().map(|errors| told(&errors)).unwrap_or_default(),
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
    State(console): State<Arc<Console>>,
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
        history: console.changes.of(&what(&kind, &namespace, &name), HISTORY),
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

pub(super) async fn new(
    State(console): State<Arc<Console>>,
    frame: Frame,
    Query(wanted): Query<Beginning>,
) -> Response {
    let frame = frame.at("access");
    let text = match wanted.decision.as_str() {
        "" if wanted.kind == Kind::Role.name() => role_draft(&wanted),
        "" => grant_draft(&wanted),
        id => {
            let record = super::decisions::one(&console, id).await;
            let snapshot = console.platform.documents().ok().and_then(|documents| documents.compile().ok());
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

/// What is wrong with a draft, as it is typed (`live`, a part of the page), or when somebody asks (`rehearse`).
pub(super) async fn check(State(console): State<Arc<Console>>, posted: Posted) -> Response {
    let (rehearse, live) = (posted.field("rehearse") == "yes", posted.field("live") == "yes");
    let outcome = match outcome(&console, &posted, rehearse).await {
        Ok(outcome) => outcome,
        Err(error) => return failed(&posted.frame, &error, "/access"),
    };
    if live {
        return html(StatusCode::OK, &OutcomePart { frame: &posted.frame, outcome });
    }
    again(&console, &posted, outcome, false)
}

/// Saved in two steps: first what would have come of it is shown, then it is done.
pub(super) async fn save(State(console): State<Arc<Console>>, posted: Posted) -> Response {
    let deletes = posted.field("delete") == "yes";
    if posted.field("confirmed") != "yes" {
        return match outcome(&console, &posted, true).await {
            Ok(outcome) if deletes => confirm_deletion(&posted, outcome),
            Ok(outcome) => again(&console, &posted, outcome, true),
            Err(error) => failed(&posted.frame, &error, "/access"),
        };
    }
    match write(&console, &posted).await {
        Ok(()) => see_other(&format!("/access?note={}", if deletes { "deleted-note" } else { "saved-note" })),
        Err(WriteError::Documents(errors)) => {
            let outcome = Outcome { errors: told(&errors), rehearsal: None, version: String::new() };
            again(&console, &posted, outcome, false)
        }
        Err(WriteError::Conflict) => {
            let frame = &posted.frame;
            let now = there_now(&console, &posted).unwrap_or_else(|| "—".to_owned());
            let [what, there, yours] = ["conflict-what", "there-now", "yours"].map(|key| frame.t(key).to_owned());
            let lines = [what, there, now, yours, posted.field("text").to_owned()];
            let back = path(posted.field("namespace"), posted.field("kind"), posted.field("name"));
            let back = if posted.field("name").is_empty() { "/access".to_owned() } else { back };
            message(&posted.frame, StatusCode::CONFLICT, posted.frame.t("conflict"), &lines, &back)
        }
        Err(error) => failed(&posted.frame, &error, "/access"),
    }
}

/// The documents that somebody else has saved in the place of those that a form is about.
fn there_now(console: &Console, posted: &Posted) -> Option<String> {
    let documents = console.platform.documents().ok()?;
    let (at, text) = place(posted).ok()?;
    let named = match at {
        At::Existing { namespace, kind, name } => vec![(namespace, kind, name)],
        At::Named => {
            let parts = parts(&Source { path: String::new(), text });
            parts.into_iter().map(|part| (part.namespace, part.kind, part.name)).collect()
        }
    };
    let found = named.iter().filter_map(|(namespace, kind, name)| documents.part(namespace, *kind, name));
    let texts: Vec<String> = found.map(|part| part.text).collect();
    (!texts.is_empty()).then(|| texts.join("---\n"))
}

/// What goes with a document, and what would be denied without it.
fn confirm_deletion(posted: &Posted, outcome: Outcome) -> Response {
    let frame = &posted.frame;
    let [namespace, kind, name] = ["namespace", "kind", "name"].map(|field| posted.field(field));
    let back = path(namespace, kind, name);
    if !outcome.errors.is_empty() {
        return message(frame, StatusCode::UNPROCESSABLE_ENTITY, frame.t("errors"), &outcome.errors, &back);
    }
    let rehearsal = outcome.rehearsal;
    let groups = rehearsal.iter().flat_map(|rehearsal| &rehearsal.groups);
    let change = |group: &rehearsal::Group| {
        let word = frame.language.text(group.change);
        format!("{word}: {} × {}, {} ({})", group.count, group.subject, group.needs, group.service)
    };
    let mut lines: Vec<String> = std::iter::once(frame.t("dry-run").to_owned()).chain(groups.map(change)).collect();
    if lines.len() == 1 {
        lines.push(frame.t("dry-run-none").to_owned());
    }
    let fields = ["namespace", "kind", "name", "version", "delete"];
    let confirm = Confirm {
        frame,
        title: format!("{}: {kind} {namespace}/{name}", frame.t("delete")),
        lines,
        action: "/access/save".to_owned(),
        fields: fields.map(|field| (field, posted.field(field).to_owned())).to_vec(),
        back,
        grave: true,
    };
    html(StatusCode::OK, &confirm)
}

/// The editor with what was typed.
fn again(console: &Console, posted: &Posted, outcome: Outcome, saving: bool) -> Response {
    let frame = posted.frame.clone().at("access");
    let confirming = saving && outcome.errors.is_empty();
    let status = if outcome.errors.is_empty() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    let [namespace, kind, name] = ["namespace", "kind", "name"].map(|field| posted.field(field));
    if name.is_empty() {
        // What is confirmed is what was looked at.
        let version = outcome.version.clone();
        let page =
            Editor { version: &version, ..editor_of_new(&frame, posted.field("text"), Some(outcome), confirming) };
        return html(status, &page);
    }
    let page = Editor {
        frame: &frame,
        title: format!("{kind} {namespace}/{name}"),
        namespace,
        kind,
        name,
        version: posted.field("version"),
        text: posted.field("text"),
        outcome: Some(outcome),
        confirming,
        history: console.changes.of(&what(kind, namespace, name), HISTORY),
    };
    html(status, &page)
}

async fn outcome(console: &Arc<Console>, posted: &Posted, rehearse: bool) -> Result<Outcome, WriteError> {
    let (at, text) = place(posted)?;
    let console = console.clone();
    blocking(move || {
        let draft = match console.platform.draft(&at, &text) {
            Ok(draft) => draft,
            Err(WriteError::Documents(errors)) => {
                return Ok(Outcome { errors: told(&errors), rehearsal: None, version: String::new() });
            }
            Err(error) => return Err(error),
        };
        let Draft { snapshot, version, .. } = draft;
        // Documents that are broken now say nothing of what is another.
        let now =
            rehearse.then(|| console.platform.documents()).transpose()?.and_then(|documents| documents.compile().ok());
        let rehearsal = now.map(|now| Rehearsal::of(now, snapshot, &console.config.local.sidecars));
        Ok(Outcome { errors: Vec::new(), rehearsal, version })
    })
    .await?
}

async fn write(console: &Arc<Console>, posted: &Posted) -> Result<(), WriteError> {
    let (at, text) = place(posted)?;
    let (who, expected) = (posted.viewer.who.clone(), posted.field("version").to_owned());
    let console = console.clone();
    blocking(move || {
        let before = console.platform.documents()?;
        if !console.changes.can_record() {
            return Err(WriteError::Unrecorded);
        }
        console.platform.save(&at, &expected, &text)?;
        let mut recorded = true;
        for (what, from, to) in changed(&at, &before, &text) {
            tracing::info!(by = who, what, "a document changed by somebody");
            recorded &= console.changes.record(Change::new(&who, &what, &from, &to));
        }
        if recorded { Ok(()) } else { Err(WriteError::DoneUnrecorded) }
    })
    .await?
}

/// Each document that a change touches, as it was and as it is.
fn changed(at: &At, before: &Documents, text: &str) -> Vec<(String, String, String)> {
    let after = parts(&Source { path: String::new(), text: text.to_owned() });
    let mut all: BTreeMap<String, (String, String)> = BTreeMap::new();
    let mut was = |namespace: &str, kind: Kind, name: &str| {
        if let Some(part) = before.part(namespace, kind, name) {
            all.entry(what(kind.name(), namespace, name)).or_default().0 = part.text;
        }
    };
    match at {
        At::Existing { namespace, kind, name } => was(namespace, *kind, name),
        At::Named => after.iter().for_each(|part| was(&part.namespace, part.kind, &part.name)),
    }
    for part in after {
        all.entry(what(part.kind.name(), &part.namespace, &part.name)).or_default().1 = part.text;
    }
    all.into_iter().map(|(what, (from, to))| (what, from, to)).collect()
}

/// Which document a form means, and its text.
fn place(posted: &Posted) -> Result<(At, String), WriteError> {
    let text = if posted.field("delete") == "yes" { String::new() } else { posted.field("text").replace("\r\n", "\n") };
    let [namespace, kind, name] = ["namespace", "kind", "name"].map(|field| posted.field(field).to_owned());
    if name.is_empty() {
        return Ok((At::Named, text));
    }
    let kind = Kind::of(&kind).ok_or(WriteError::Missing)?;
    Ok((At::Existing { namespace, kind, name }, text))
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
