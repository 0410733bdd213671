//! What is wrong with an installation, and what to do: `sidegate check`.
//!
//! Facts are fetched first (`fetch` -> `facts`); each area is a function of the facts to findings, without I/O and clock, so
//! that whoever doubts an answer can test it. `report` prints. Deliberately absent: anything that changes the cluster, and
//! any right but the caller's own: what they may not ask is said to be unknown, never to be well.

use serde::Serialize;

mod access;
mod bypass;
mod catalogue;
mod cluster;
mod documents;
mod facts;
mod fetch;
mod injector;
mod issuer;
pub(crate) mod objects;
mod preflight;
mod report;
mod routes;
mod scrape;
mod settings;
mod sidecars;

pub use facts::{Asked, Facts, Preflight};
pub use fetch::{FetchError, Scope, fetch, fetch_preflight};
pub use report::{Report, Style};

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// It works, but somebody should look at it.
    Warning,
    /// It does not work, or does not protect.
    Failed,
    /// It could not be asked.
    Unknown,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check, of those in docs/KUBERNETES.md; it stays the same from version to version.
    pub id: &'static str,
    /// How it ended.
    pub status: Status,
    /// The object that it is about: NAMESPACE/NAME; empty for the cluster.
    pub subject: String,
    /// What was found; empty where the check's title says it all.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

/// What the areas add their findings to.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, status: Status, id: &'static str, subject: &str, message: String, remedy: String) {
        self.0.push(Finding { id, status, subject: subject.to_owned(), message, remedy });
    }

    fn ok(&mut self, id: &'static str, subject: &str) {
        self.add(Status::Ok, id, subject, String::new(), String::new());
    }

    fn warning(&mut self, id: &'static str, subject: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.add(Status::Warning, id, subject, message.into(), remedy.into());
    }

    fn failed(&mut self, id: &'static str, subject: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.add(Status::Failed, id, subject, message.into(), remedy.into());
    }

    fn unknown(&mut self, id: &'static str, subject: &str, why: &str) {
        let remedy = "ask somebody who may read it to run this check, or let yourself be given the right to read it";
        self.add(Status::Unknown, id, subject, why.to_owned(), remedy.to_owned());
    }

    /// What was fetched; or, if it could not be, that.
    fn asked<'a, T>(&mut self, id: &'static str, subject: &str, asked: &'a Asked<T>) -> Option<&'a T> {
        asked.as_ref().map_err(|why| self.unknown(id, subject, why)).ok()
    }
}

/// Checks an installation and what it protects.
#[must_use]
pub fn check(facts: &Facts) -> Report {
    let mut findings = Findings::default();
    cluster::check(&facts.cluster, &mut findings);
    cluster::check_definitions(&facts.definitions, &facts.expected, &mut findings);
    access::check(&facts.rights, &mut findings);
    issuer::check(facts, &mut findings);
    injector::check(facts, &mut findings);
    documents::check(facts, &mut findings);
    settings::check(facts, &mut findings);
    sidecars::check(facts, &mut findings);
    bypass::check(facts, &mut findings);
    Report::new(findings.0)
}

/// Checks a cluster before the installation.
#[must_use]
pub fn check_before_install(facts: &Preflight) -> Report {
    let mut findings = Findings::default();
    cluster::check(&facts.cluster, &mut findings);
    preflight::check(facts, &mut findings);
    Report::new(findings.0)
}

#[cfg(test)]
mod tests;
