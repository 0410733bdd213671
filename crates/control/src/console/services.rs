//! Services: how each is, and its switches.
//!
//! A switch is confirmed on a page of its own that says what it means, and sets what was looked at, or nothing. Deliberately absent: rights
//! (`access`).

use std::collections::BTreeSet;
use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::response::Response;
use runtime::settings::Verify;
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::changes::Change;
use super::failure::failed;
use super::fleet::Seen;
use super::page::{Frame, escaped, figure, html, message, see_other};
use super::platform::{NOT_BEFORE, SIGN, Settings, VERIFY, WriteError, is_namespace};
use super::{Console, Posted, Signed, blocking};

/// Changes of a service that its page shows.
const HISTORY: usize = 10;

/// A service in the list.
pub(super) struct Row {
    pub(super) namespace: String,
    /// Of the settings as saved; `None`: there are none.
    pub(super) sign: &'static str,
    pub(super) verify: &'static str,
    pub(super) mistakes: usize,
    pub(super) decisions: String,
    pub(super) denials: String,
    pub(super) sidecars: Vec<SidecarRow>,
}

/// A sidecar in a list.
pub(super) struct SidecarRow {
    pub(super) pod: String,
    pub(super) version: String,
    pub(super) generation: String,
    pub(super) sign: &'static str,
    pub(super) verify: &'static str,
    pub(super) sessions: String,
    pub(super) decisions: String,
    pub(super) denials: String,
    pub(super) trouble: Option<String>,
    /// It goes by what is saved.
    pub(super) follows: bool,
}

#[derive(Template)]
#[template(path = "console/services.html")]
struct List<'a> {
    frame: &'a Frame,
    rows: Vec<Row>,
    /// What would be set by "everywhere".
    not_verifying: usize,
    troubles: Vec<String>,
}

/// The part of the list that is kept up to date.
#[derive(Template)]
#[template(path = "console/_services.html")]
pub(super) struct ListPart<'a> {
    pub(super) frame: &'a Frame,
    pub(super) rows: Vec<Row>,
}

#[derive(Template)]
#[template(path = "console/service.html")]
struct Show<'a> {
    frame: &'a Frame,
    namespace: &'a str,
    settings: &'a Settings,
    sign: &'static str,
    verify: &'static str,
    not_before: &'a str,
    rows: Vec<SidecarRow>,
    holders: Vec<Holder>,
    history: Vec<Change>,
    namespaces: BTreeSet<String>,
}

/// The part of a service's page that is kept up to date.
#[derive(Template)]
#[template(path = "console/_pods.html")]
pub(super) struct PodsPart<'a> {
    pub(super) frame: &'a Frame,
    pub(super) rows: Vec<SidecarRow>,
}

/// Who has a role, and by what.
struct Holder {
    subject: String,
    role: String,
    grant: String,
}

/// What is asked before something is done.
#[derive(Template)]
#[template(path = "console/confirm.html")]
pub(super) struct Confirm<'a> {
    pub(super) frame: &'a Frame,
    pub(super) title: String,
    pub(super) lines: Vec<String>,
    pub(super) action: String,
    /// Hidden fields that come back with it.
    pub(super) fields: Vec<(&'a str, String)>,
    pub(super) back: String,
    /// It opens something, or takes something away.
    pub(super) grave: bool,
}

pub(super) async fn list(Signed(console): Signed, frame: Frame) -> Response {
    let frame = frame.at("services");
    let rows = rows(&console);
    let not_verifying = rows.iter().filter(|row| row.verify != "on").count();
    html(StatusCode::OK, &List { frame: &frame, rows, not_verifying, troubles: console.platform.troubles() })
}

#[derive(Deserialize)]
pub(super) struct Chosen {
    namespace: String,
}

/// From the drop-down.
pub(super) async fn chosen(Query(Chosen { namespace }): Query<Chosen>) -> Response {
    see_other(&format!("/services/{}", escaped(&namespace)))
}

pub(super) async fn show(Signed(console): Signed, frame: Frame, Path(namespace): Path<String>) -> Response {
    let frame = frame.at("services");
    let namespaces = namespaces(&console);
    let Some(settings) = known(&console, &namespace) else { return unknown(&frame) };
    let settings = match settings {
        Ok(settings) => settings,
        Err(error) => return failed(&frame, &error, "/"),
    };
    let rows = sidecars(&console, &namespace, Some(&settings));
    let history = console.common.changes.of(&what(&namespace), HISTORY);
    let page = Show {
        frame: &frame,
        namespace: &namespace,
        sign: on_off(settings.meaning.sign),
        verify: verifying(settings.meaning.verify),
        not_before: settings.values.get(NOT_BEFORE).map_or("", String::as_str),
        settings: &settings,
        rows,
        holders: holders(&console, &namespace),
        history,
        namespaces,
    };
    html(StatusCode::OK, &page)
}

/// One key to one value, once it is confirmed.
pub(super) async fn set(Signed(console): Signed, Path(namespace): Path<String>, posted: Posted) -> Response {
    let (key, value, version) = (posted.field("key"), posted.field("value"), posted.field("version"));
    let is_value = matches!((key, value), (SIGN, "true" | "false") | (VERIFY, "true" | "observe" | "false"));
    if !is_value || !is_namespace(&namespace) || known(&console, &namespace).is_none() {
        return unknown(&posted.frame);
    }
    let path = format!("/services/{namespace}");
    if posted.field("confirmed") != "yes" {
        let word = if key == SIGN { "sign" } else { "verify" };
        let name = posted.frame.t(if key == SIGN { "signing" } else { "verification" });
        let meaning = posted.frame.language.text(&format!("means-{word}-{value}"));
        let confirm = Confirm {
            frame: &posted.frame,
            title: format!("{namespace}: {name} → {}", posted.frame.language.text(shown(value))),
            lines: vec![meaning.to_owned()],
            action: format!("{path}/settings"),
            fields: vec![("key", key.to_owned()), ("value", value.to_owned()), ("version", version.to_owned())],
            back: path,
            grave: value != "true",
        };
        return html(StatusCode::OK, &confirm);
    }
    change(&console, &posted, &namespace, version, key, value).await
}

/// Every token issued before now is void.
pub(super) async fn refresh_tokens(Signed(console): Signed, Path(namespace): Path<String>, posted: Posted) -> Response {
    let version = posted.field("version");
    if !is_namespace(&namespace) || known(&console, &namespace).is_none() {
        return unknown(&posted.frame);
    }
    if posted.field("confirmed") != "yes" {
        let path = format!("/services/{namespace}");
        let confirm = Confirm {
            frame: &posted.frame,
            title: format!("{namespace}: {}", posted.frame.t("refresh-tokens")),
            lines: vec![posted.frame.t("means-refresh").to_owned()],
            action: format!("{path}/refresh-tokens"),
            fields: vec![("version", version.to_owned())],
            back: path,
            grave: false,
        };
        return html(StatusCode::OK, &confirm);
    }
    let now = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap_or_else(|_| OffsetDateTime::now_utc());
    let now = now.format(&Rfc3339).unwrap_or_default();
    change(&console, &posted, &namespace, version, NOT_BEFORE, &now).await
}

/// Verification on, wherever it is not; each as it was looked at.
pub(super) async fn verify_everywhere(Signed(console): Signed, posted: Posted) -> Response {
    let wanting: Vec<(String, Settings)> = namespaces(&console)
        .into_iter()
        .filter_map(|namespace| Some((namespace.clone(), console.platform.settings(&namespace).ok()?)))
        .filter(|(_, settings)| settings.meaning.verify != Verify::Enforce)
        .collect();
    if posted.field("confirmed") != "yes" {
        let names = wanting.iter().map(|(namespace, _)| namespace.clone());
        let versions: Vec<String> =
            wanting.iter().map(|(name, settings)| format!("{name}={}", settings.version)).collect();
        let confirm = Confirm {
            frame: &posted.frame,
            title: posted.frame.t("everywhere").to_owned(),
            lines: std::iter::once(posted.frame.t("means-everywhere").to_owned()).chain(names).collect(),
            action: "/all/verification".to_owned(),
            fields: vec![("versions", versions.join(" "))],
            back: "/".to_owned(),
            grave: false,
        };
        return html(StatusCode::OK, &confirm);
    }
    let looked_at = posted.field("versions").split_ascii_whitespace().filter_map(|pair| pair.split_once('='));
    // Only what pages show; no namespace comes into being here.
    let known = namespaces(&console);
    let (mut done, mut problems) = (Vec::new(), Vec::new());
    for (namespace, version) in looked_at.filter(|(namespace, _)| known.contains(*namespace)) {
        match write(&console, &posted.viewer.who, namespace, version, VERIFY, "true").await {
            Ok(()) => done.push(namespace),
            Err(error) => problems.push(format!("{namespace}: {error}")),
        }
    }
    if problems.is_empty() {
        return see_other("/");
    }
    problems.push(format!(
        "{}: {}",
        posted.frame.t("saved"),
        if done.is_empty() { "—".to_owned() } else { done.join(", ") }
    ));
    message(&posted.frame, StatusCode::CONFLICT, posted.frame.t("conflict"), &problems, "/")
}

async fn change(
    console: &Arc<Console>,
    posted: &Posted,
    namespace: &str,
    version: &str,
    key: &str,
    value: &str,
) -> Response {
    let back = format!("/services/{namespace}");
    match write(console, &posted.viewer.who, namespace, version, key, value).await {
        Ok(()) => see_other(&back),
        Err(WriteError::Conflict) => {
            let now = console.platform.settings(namespace).map(|settings| settings.values).unwrap_or_default();
            let now = now.into_iter().map(|(key, value)| format!("{key}: {value}"));
            let lines: Vec<String> = std::iter::once(posted.frame.t("conflict-what").to_owned()).chain(now).collect();
            message(&posted.frame, StatusCode::CONFLICT, posted.frame.t("conflict"), &lines, &back)
        }
        Err(error) => failed(&posted.frame, &error, &back),
    }
}

/// Recorded, or not done.
async fn write(
    console: &Arc<Console>,
    who: &str,
    namespace: &str,
    version: &str,
    key: &str,
    value: &str,
) -> Result<(), WriteError> {
    let [who, namespace, version, key, value] = [who, namespace, version, key, value].map(str::to_owned);
    let console = console.clone();
    blocking(move || {
        let before = console.platform.settings(&namespace)?.values.get(&key).cloned().unwrap_or_default();
        if !console.common.changes.can_record() {
            return Err(WriteError::Unrecorded);
        }
        console.platform.set(&namespace, &version, &[(&key, &value)])?;
        let (from, to) = (format!("{key}: {before}"), format!("{key}: {value}"));
        let recorded = console.common.changes.record(Change::new(&who, &what(&namespace), &from, &to));
        tracing::info!(by = who, namespace, key, value, recorded, "settings changed by somebody");
        if recorded { Ok(()) } else { Err(WriteError::DoneUnrecorded) }
    })
    .await?
}

/// What a namespace's settings are called in the record of changes.
fn what(namespace: &str) -> String {
    format!("settings/{namespace}")
}

/// Every namespace that has settings, documents or a sidecar.
pub(super) fn namespaces(console: &Console) -> BTreeSet<String> {
    let mut names = console.platform.namespaces().unwrap_or_default();
    if let Ok(documents) = console.platform.documents() {
        names.extend(documents.parts().into_iter().map(|part| part.namespace));
    }
    names.extend(console.fleet.all().into_iter().map(|seen| seen.sidecar.service.namespace));
    names.retain(|name| is_namespace(name));
    names
}

fn known(console: &Console, namespace: &str) -> Option<std::io::Result<Settings>> {
    namespaces(console).contains(namespace).then(|| console.platform.settings(namespace))
}

pub(super) fn rows(console: &Console) -> Vec<Row> {
    let all = console.fleet.all();
    let row = |namespace: String| {
        let settings = console.platform.settings(&namespace).ok();
        let own: Vec<&Seen> = all.iter().filter(|seen| seen.sidecar.service.namespace == namespace).collect();
        let total = |of: fn(&Seen) -> f64| figure(own.iter().map(|seen| of(seen)).sum());
        Row {
            sign: settings.as_ref().map_or("", |settings| on_off(settings.meaning.sign)),
            verify: settings.as_ref().map_or("", |settings| verifying(settings.meaning.verify)),
            mistakes: settings.as_ref().map_or(0, |settings| settings.mistakes.len()),
            decisions: total(|seen| seen.decisions),
            denials: total(|seen| seen.denials),
            sidecars: own.iter().map(|seen| sidecar(seen, settings.as_ref())).collect(),
            namespace,
        }
    };
    namespaces(console).into_iter().map(row).collect()
}

pub(super) fn sidecars(console: &Console, namespace: &str, settings: Option<&Settings>) -> Vec<SidecarRow> {
    console.fleet.of(namespace).iter().map(|seen| sidecar(seen, settings)).collect()
}

fn sidecar(seen: &Seen, saved: Option<&Settings>) -> SidecarRow {
    let now = seen.settings.as_ref();
    let follows = now.zip(saved).is_some_and(|(now, saved)| {
        let meaning = &saved.meaning;
        now.sign == meaning.sign
            && shown(&now.verify) == verifying(meaning.verify)
            && now.tokens_not_before == meaning.tokens_not_before
    });
    SidecarRow {
        pod: seen.sidecar.pod.clone(),
        version: now.map(|now| now.version.clone()).unwrap_or_default(),
        generation: now.map(|now| now.generation.to_string()).unwrap_or_default(),
        sign: now.map_or("", |now| on_off(now.sign)),
        verify: now.map_or("", |now| shown(&now.verify)),
        sessions: figure(seen.sessions),
        decisions: figure(seen.decisions),
        denials: figure(seen.denials),
        trouble: seen.trouble.clone(),
        follows,
    }
}

fn holders(console: &Console, namespace: &str) -> Vec<Holder> {
    let snapshot = console.platform.documents().ok().and_then(|documents| documents.in_force());
    let Some(snapshot) = snapshot else { return Vec::new() };
    let own = snapshot.grants().filter(|grant| grant.service.namespace == namespace);
    let mut holders = Vec::new();
    for grant in own {
        for subject in &grant.subjects {
            holders.extend(grant.roles.iter().map(|(role, _)| Holder {
                subject: subject.to_string(),
                role: role.clone(),
                grant: grant.name.clone(),
            }));
        }
    }
    holders
}

fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

fn verifying(verify: Verify) -> &'static str {
    match verify {
        Verify::Enforce => "on",
        Verify::Observe => "observe",
        Verify::Off => "off",
    }
}

/// The word for a value as it is written.
fn shown(value: &str) -> &'static str {
    match value {
        "false" => "off",
        "observe" => "observe",
        _ => "on",
    }
}

fn unknown(frame: &Frame) -> Response {
    message(frame, StatusCode::NOT_FOUND, frame.t("failed"), &[frame.t("not-found").to_owned()], "/")
}
