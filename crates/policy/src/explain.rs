//! Explaining a decision: facts, verdict and reason for a role and a text, for people and for machines.
//!
//! The roles come from documents that are already compiled. Absent: files, and how an answer is printed.

use serde::Serialize;

use crate::facts::Fact;
use crate::role::{Role, RoleError};
use crate::snapshot::Snapshot;
use crate::{Verdict, analyze, decide};

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
    /// Its rules are not understood.
    #[error("the role `{0}`: {1}")]
    NotUnderstood(String, RoleError),
}

/// The role of a name: built in, or an AccessRole as `name` or `namespace/name`.
pub fn role(snapshot: &Snapshot, name: &str) -> Result<Role, NoRole> {
    if let Some(role) = Role::built_in(name) {
        return Ok(role);
    }
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
        [role] => {
            let detail = role.detail().ok_or_else(|| NoRole::NotPostgres(name.to_owned()))?;
            Role::from_detail(&detail).map_err(|error| NoRole::NotUnderstood(name.to_owned(), error))
        }
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
