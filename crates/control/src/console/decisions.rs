//! Decisions: the last ones of the sidecars, and of each what would have allowed it.
//!
//! They are the sidecars' own, which remember some hundred; the decision log has all. Deliberately absent: keeping them.

use askama::Template;
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::future::join_all;
use policy::explain::explain_decision;
use policy::record::{Record, RecordedVerdict, Touched};
use serde::Deserialize;

use super::fleet::Seen;
use super::page::{Frame, html, message};
use super::{Console, Signed};

/// Rows of the page when it is opened.
const SHOWN: usize = 100;
/// Asked of each sidecar.
const ASKED: usize = 500;
/// The same for a rehearsal.
const REMEMBERED: usize = 1000;
/// Things needed that a row names.
const NEEDS: usize = 4;

/// What is looked for; empty is anything.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Filter {
    /// A namespace.
    #[serde(default)]
    pub(super) service: String,
    /// A part of the subject's name.
    #[serde(default)]
    pub(super) subject: String,
    /// `allow` or `deny`.
    #[serde(default)]
    pub(super) verdict: String,
}

impl Filter {
    /// As far as sidecars do not choose themselves ([`Filter::asked`]).
    pub(super) fn takes(&self, record: &Record) -> bool {
        record.subject.as_deref().unwrap_or_default().contains(&self.subject)
    }

    /// What a sidecar is asked: to look through all that it remembers for a verdict, not only through its last ones.
    fn asked(&self, limit: usize) -> String {
        match self.verdict.as_str() {
            verdict @ ("allow" | "deny") => format!("limit={limit}&verdict={verdict}"),
            _ => format!("limit={limit}"),
        }
    }

    fn looks_at(&self, seen: &Seen) -> bool {
        self.service.is_empty() || self.service == seen.sidecar.service.namespace
    }

    /// For the address of what keeps this page up to date.
    fn query(&self) -> String {
        let pairs = [("service", &self.service), ("subject", &self.subject), ("verdict", &self.verdict)];
        let pairs = pairs.map(|(name, value)| format!("{name}={}", super::page::escaped(value)));
        pairs.join("&")
    }
}

/// A decision as a row.
pub(super) struct Row {
    id: String,
    time: String,
    service: String,
    subject: String,
    role: String,
    needs: String,
    /// Key of the word.
    verdict: &'static str,
    reason: String,
}

impl Row {
    fn new(record: &Record) -> Self {
        let needs: Vec<String> = record.objects.iter().flatten().take(NEEDS).map(needed).collect();
        let more = record.objects.as_ref().is_some_and(|objects| objects.len() > NEEDS);
        let action = record.action.clone().into_owned();
        Self {
            id: record.decision.clone(),
            time: record.time.get(11..19).unwrap_or(&record.time).to_owned(),
            service: record.service.clone(),
            subject: record.subject.clone().unwrap_or_default(),
            role: record.role.clone().unwrap_or_default(),
            needs: if needs.is_empty() { action } else { needs.join(", ") + if more { ", …" } else { "" } },
            verdict: match (record.verdict, &*record.mode) {
                (RecordedVerdict::Allow, _) => "allow",
                (RecordedVerdict::Deny, "enforce") => "deny",
                (RecordedVerdict::Deny, _) => "would-deny",
            },
            reason: record.reason.clone().into_owned(),
        }
    }
}

fn needed(touched: &Touched) -> String {
    format!("{} {}", touched.action, touched.shown())
}

#[derive(Template)]
#[template(path = "console/decisions.html")]
struct List<'a> {
    frame: &'a Frame,
    filter: &'a Filter,
    query: String,
    namespaces: Vec<String>,
    rows: Vec<Row>,
}

/// Rows that have come since, newest first.
#[derive(Template)]
#[template(path = "console/_decisions.html")]
pub(super) struct RowsPart<'a> {
    frame: &'a Frame,
    rows: Vec<Row>,
    passed_over: usize,
    /// More was decided than could be looked at.
    gap: bool,
}

impl<'a> RowsPart<'a> {
    /// Of records from the oldest to the newest.
    pub(super) fn new(frame: &'a Frame, records: &[Record], passed_over: usize, gap: bool) -> Self {
        Self { frame, rows: records.iter().rev().map(Row::new).collect(), passed_over, gap }
    }
}

#[derive(Template)]
#[template(path = "console/decision.html")]
struct Show<'a> {
    frame: &'a Frame,
    row: Row,
    time: &'a str,
    facts: Vec<(String, String, bool)>,
    rule: &'a str,
    what: &'a str,
    yaml: Option<&'a str>,
}

pub(super) async fn list(Signed(console): Signed, frame: Frame, Query(filter): Query<Filter>) -> Response {
    let frame = frame.at("decisions");
    let mut records = last(&console, &filter, ASKED).await;
    let rows = records.split_off(records.len().saturating_sub(SHOWN)).iter().rev().map(Row::new).collect();
    let namespaces = super::services::namespaces(&console).into_iter().collect();
    html(StatusCode::OK, &List { frame: &frame, query: filter.query(), filter: &filter, namespaces, rows })
}

pub(super) async fn show(Signed(console): Signed, frame: Frame, Path(id): Path<String>) -> Response {
    let frame = frame.at("decisions");
    let Some(record) = one(&console, &id).await else {
        let lines = [id, frame.t("decision-gone").to_owned()];
        return message(&frame, StatusCode::NOT_FOUND, frame.t("failed"), &lines, "/decisions");
    };
    let snapshot = console.platform.documents().ok().and_then(|documents| documents.in_force());
    let explained = explain_decision(&record, snapshot.as_ref());
    let facts = explained.facts.into_iter().map(|fact| (fact.action, fact.object, fact.allowed)).collect();
    let remedy = explained.remedy.unwrap_or_default();
    let page = Show {
        frame: &frame,
        row: Row::new(&record),
        time: &record.time,
        facts,
        rule: record.rule.as_deref().unwrap_or_default(),
        what: &remedy.what,
        yaml: remedy.yaml.as_deref(),
    };
    html(StatusCode::OK, &page)
}

/// The last decisions that are looked for, oldest first.
async fn last(console: &Console, filter: &Filter, limit: usize) -> Vec<Record> {
    let all = looked_at(console, filter, limit).await.into_iter().flatten();
    let mut records: Vec<Record> = all.filter(|record| filter.takes(record)).collect();
    records.sort_by(|a, b| a.time.cmp(&b.time));
    records
}

/// The last decisions of each sidecar, oldest first, of any subject.
pub(super) async fn looked_at(console: &Console, filter: &Filter, limit: usize) -> Vec<Vec<Record>> {
    let asked = filter.asked(limit);
    let all = console.fleet.all().into_iter().filter(|seen| seen.settings.is_some() && filter.looks_at(seen));
    let sidecars: Vec<_> = all.map(|seen| seen.sidecar).collect();
    join_all(sidecars.iter().map(|sidecar| console.fleet.decisions(sidecar, &asked))).await
}

/// What sidecars remember whose decision log is not here, to be held against a draft.
pub(super) async fn remembered(console: &Console) -> Vec<Record> {
    let all =
        console.fleet.all().into_iter().filter(|seen| seen.settings.is_some() && seen.sidecar.decision_log.is_none());
    let sidecars: Vec<_> = all.map(|seen| seen.sidecar).collect();
    let asked = format!("limit={REMEMBERED}");
    join_all(sidecars.iter().map(|sidecar| console.fleet.decisions(sidecar, &asked)))
        .await
        .into_iter()
        .flatten()
        .collect()
}

/// A decision by its id, from whoever remembers it.
pub(super) async fn one(console: &Console, id: &str) -> Option<Record> {
    let is_id = (1..=64).contains(&id.len()) && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if !is_id {
        return None;
    }
    let asked = format!("decision={id}");
    let all = console.fleet.all().into_iter().filter(|seen| seen.settings.is_some());
    let sidecars: Vec<_> = all.map(|seen| seen.sidecar).collect();
    let found = join_all(sidecars.iter().map(|sidecar| console.fleet.decisions(sidecar, &asked))).await;
    found.into_iter().flatten().next()
}
