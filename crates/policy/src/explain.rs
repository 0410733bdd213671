//! Explaining a decision: facts, verdict and reason for a role and a text, or a request, for people and for machines.
//!
//! The roles come from documents that are already compiled. Absent: files, and how an answer is printed.

use serde::Serialize;

use crate::documents::AccessRole;
use crate::facts::Fact;
use crate::http::{HttpRole, HttpVerdict, Path, PathError};
use crate::role::{Role, RoleError};
use crate::snapshot::Snapshot;
use crate::{Verdict, analyze, decide, http};

mod decision;

pub use decision::{DecisionExplanation, Needed, Remedy, explain_decision};

/// What a role may do with a text, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// `allow` or `deny`.
    pub verdict: &'static str,
    /// Everything that the text needs; empty if it was not understood.
    pub facts: Vec<ExplainedFact>,
    /// A bounded label: `allowed`, or why not.
    pub reason: &'static str,
    /// The message that the client of a sidecar would get.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What would allow it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The rule that would allow it, if one would.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// A fact as text. For a role of rules, unqualified names are spelt as its fixed search path finds them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplainedFact {
    /// What is done.
    pub action: &'static str,
    /// To what.
    pub object: String,
}

/// Why a role's name names no role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRole {
    /// Neither built in nor in any document.
    #[error("there is no role `{0}`: built in are reader, writer, owner and admin; others need --roles-dir")]
    Unknown(String),
    /// In several namespaces.
    #[error("the role `{name}` is in several namespaces: say {}", choices.join(" or "))]
    Ambiguous {
        /// The name.
        name: String,
        /// The names that are not ambiguous.
        choices: Vec<String>,
    },
    /// It opens nothing of PostgreSQL.
    #[error("the role `{0}` opens nothing of PostgreSQL")]
    NotPostgres(String),
    /// It opens nothing of HTTP.
    #[error("the role `{0}` opens nothing of HTTP: an AccessRole with `http.rules` does")]
    NotHttp(String),
    /// Its rules are not understood.
    #[error("the role `{0}`: {1}")]
    NotUnderstood(String, RoleError),
}

/// What a role may do with an HTTP request, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HttpExplanation {
    /// `allow` or `deny`.
    pub verdict: &'static str,
    /// The method.
    pub method: String,
    /// The path in normal form, as it is decided on and forwarded; `None` if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// A bounded label: `allowed`, or why not; `path` if the path is refused whatever the role.
    pub reason: &'static str,
    /// The message that the client of a sidecar would get.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What would allow it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The rule that would allow it, if one would.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// The role of a name: built in, or an AccessRole as `name` or `namespace/name`.
///
/// # Errors
/// When the name does not name exactly one role that opens something of PostgreSQL.
pub fn role(snapshot: &Snapshot, name: &str) -> Result<Role, NoRole> {
    if let Some(role) = Role::built_in(name) {
        return Ok(role);
    }
    let detail = find(snapshot, name)?.postgresql_detail().ok_or_else(|| NoRole::NotPostgres(name.to_owned()))?;
    Role::from_detail(&detail).map_err(|error| NoRole::NotUnderstood(name.to_owned(), error))
}

/// The role for HTTP of a name: an AccessRole as `name` or `namespace/name`.
///
/// # Errors
/// When the name does not name exactly one role that opens something of HTTP.
pub fn http_role(snapshot: &Snapshot, name: &str) -> Result<HttpRole, NoRole> {
    if Role::built_in(name).is_some() {
        return Err(NoRole::NotHttp(name.to_owned()));
    }
    let detail = find(snapshot, name)?.http_detail().ok_or_else(|| NoRole::NotHttp(name.to_owned()))?;
    HttpRole::from_detail(&detail).map_err(|error| NoRole::NotUnderstood(name.to_owned(), error))
}

fn find<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a AccessRole, NoRole> {
    let (namespace, short) = match name.split_once('/') {
        Some((namespace, short)) => (Some(namespace), short),
        None => (None, name),
    };
    let found: Vec<_> = snapshot
        .roles()
        .filter(|role| role.name == short && namespace.is_none_or(|wanted| role.service.namespace == wanted))
        .collect();
    match found.as_slice() {
        [] => Err(NoRole::Unknown(name.to_owned())),
        [role] => Ok(role),
        several => Err(NoRole::Ambiguous {
            name: name.to_owned(),
            choices: several.iter().map(|role| format!("{}/{}", role.service.namespace, role.name)).collect(),
        }),
    }
}

/// Decides, and says all there is to say about it.
pub fn explain(role: &Role, text: &[u8]) -> Explanation {
    let facts = match analyze(text) {
        Ok(facts) => facts,
        Err(error) => return denied(Vec::new(), &error.denial(role)),
    };
    let explained = facts.needs().iter().map(|fact| explained(role, fact)).collect();
    match decide(role, &facts) {
        Verdict::Allow(_) => {
            Explanation { verdict: "allow", facts: explained, reason: "allowed", message: None, hint: None, rule: None }
        }
        Verdict::Deny(denial) => denied(explained, &denial),
    }
}

/// Decides on an HTTP request, and says all there is to say about it. `target` is a path, with or without a query.
pub fn explain_http(role: HttpRole, method: &str, target: &str) -> HttpExplanation {
    let raw = target.split_once('?').map_or(target, |(path, _)| path);
    let path = match Path::normalize(raw) {
        Ok(path) => path,
        Err(error) => return path_refused(method, error),
    };
    let denial = match http::decide(&[role], method, &path) {
        HttpVerdict::Allow(_) => None,
        HttpVerdict::Deny(denial) => Some(denial),
    };
    HttpExplanation {
        verdict: if denial.is_none() { "allow" } else { "deny" },
        method: method.to_owned(),
        path: Some(path.to_string()),
        reason: denial.as_ref().map_or("allowed", |denial| denial.reason()),
        message: denial.as_ref().map(|denial| denial.message().to_owned()),
        hint: denial.as_ref().map(|denial| denial.hint().to_owned()),
        rule: denial.and_then(|denial| denial.rule()),
    }
}

fn path_refused(method: &str, error: PathError) -> HttpExplanation {
    HttpExplanation {
        verdict: "deny",
        method: method.to_owned(),
        path: None,
        reason: "path",
        message: Some(format!("sidegate: {error}")),
        hint: Some("no rule opens such a path: write it in a form that every service reads alike".to_owned()),
        rule: None,
    }
}

fn denied(facts: Vec<ExplainedFact>, denial: &crate::Denial) -> Explanation {
    Explanation {
        verdict: "deny",
        facts,
        reason: denial.reason(),
        message: Some(denial.message().to_owned()),
        hint: Some(denial.hint().to_owned()),
        rule: denial.rule().map(str::to_owned),
    }
}

fn explained(role: &Role, fact: &Fact) -> ExplainedFact {
    let object = if role.is_scoped() { fact.object.rule_name() } else { fact.object.to_string() };
    ExplainedFact { action: fact.action.label(), object }
}
