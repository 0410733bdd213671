//! Editing a document: what is wrong with a draft, what it would have changed, and saving it.
//!
//! Deliberately absent: what an edit makes of where documents are kept (`platform`).

use std::collections::BTreeMap;
use std::sync::Arc;

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;
use policy::snapshot::Source;

use super::super::changes::Change;
use super::super::config::Sidecar;
use super::super::failure::failed;
use super::super::page::{Frame, html, message, see_other};
use super::super::platform::{At, Documents, Draft, Kind, WriteError, parts};
use super::super::services::Confirm;
use super::super::{Console, Posted, Signed, blocking, decisions};
use super::rehearsal::{self, Rehearsal};
use super::{Editor, HISTORY, Outcome, editor_of_new, path, told, what};

/// The same as a part of a page.
#[derive(Template)]
#[template(path = "console/_outcome.html")]
struct OutcomePart<'a> {
    frame: &'a Frame,
    outcome: Outcome,
}

/// What is wrong with a draft, as it is typed (`live`, a part of the page), or when somebody asks (`rehearse`).
pub(in crate::console) async fn check(Signed(console): Signed, posted: Posted) -> Response {
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
pub(in crate::console) async fn save(Signed(console): Signed, posted: Posted) -> Response {
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
        history: console.common.changes.of(&what(kind, namespace, name), HISTORY),
    };
    html(status, &page)
}

async fn outcome(console: &Arc<Console>, posted: &Posted, rehearse: bool) -> Result<Outcome, WriteError> {
    let (at, text) = place(posted)?;
    let console = console.clone();
    let remembered = if rehearse { decisions::remembered(&console).await } else { Vec::new() };
    let sidecars: Vec<Sidecar> = console.fleet.all().into_iter().map(|seen| seen.sidecar).collect();
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
            rehearse.then(|| console.platform.documents()).transpose()?.and_then(|documents| documents.in_force());
        let rehearsal = now.map(|now| Rehearsal::of(now, snapshot, &sidecars, remembered));
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
        if !console.common.changes.can_record() {
            return Err(WriteError::Unrecorded);
        }
        let saved = console.platform.save(&at, &expected, &text).map(|_| ());
        let done = |what: &String| match &saved {
            Ok(()) => true,
            Err(WriteError::Partly { done, .. }) => done.contains(what),
            Err(_) => false,
        };
        let mut recorded = true;
        for (what, from, to) in changed(&at, &before, &text).into_iter().filter(|(what, ..)| done(what)) {
            tracing::info!(by = who, what, "a document changed by somebody");
            recorded &= console.common.changes.record(Change::new(&who, &what, &from, &to));
        }
        if recorded { saved } else { Err(WriteError::DoneUnrecorded) }
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
