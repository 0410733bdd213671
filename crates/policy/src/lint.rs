//! What is right, but can hardly be meant: rules that never match, roles that nobody has, grants that open too much, and
//! what the documents name that the database does not have.
//!
//! Absent on purpose: what is wrong in itself, which is an error where documents are read; and any look at a database:
//! what there is comes as a [`Catalogue`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use identity::{ServiceName, Subject};
use serde::Serialize;

use crate::documents::{AccessGrant, AccessRole, Place};
use crate::role::Level;
use crate::snapshot::Snapshot;

mod catalogue;
mod rules;

pub use catalogue::{Catalogue, Login, lint_database};

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Note,
    /// It can hardly be meant.
    Warning,
    /// It cannot work.
    Error,
}

/// Something found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub place: Place,
    /// How much it matters.
    pub severity: Severity,
    /// A stable name for this kind of finding.
    pub code: &'static str,
    /// What, and what to do about it.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{}: {severity}[{}]: {}", self.place, self.code, self.what)
    }
}

/// Every code there is, with its severity and what it means.
pub const CODES: [(&str, Severity, &str); 18] = [
    ("document", Severity::Error, "a document is broken, or documents do not fit together"),
    ("rule-covered", Severity::Warning, "all that a rule opens is opened by other rules of its role"),
    ("rule-everyone", Severity::Warning, "a rule opens only what every role may"),
    ("rule-never", Severity::Warning, "a rule names what no rule can open"),
    ("role-unused", Severity::Warning, "no grant gives the role to anybody"),
    ("wide-write", Severity::Warning, "a wildcard lets every table of a schema be written"),
    ("wide-execute", Severity::Warning, "a wildcard lets every function of a schema be called"),
    ("wide-http", Severity::Warning, "every path may be asked with a method that changes something"),
    ("grant-admin", Severity::Warning, "somebody is given the role admin"),
    ("grant-owner", Severity::Note, "somebody is given the role owner"),
    (
        "role-redundant",
        Severity::Warning,
        "a subject has two built-in roles, one of which opens all that the other does",
    ),
    (
        "several-roles",
        Severity::Note,
        "a subject has several roles for one database, so that its clients must name one",
    ),
    ("granted-twice", Severity::Note, "a subject is given the same role twice"),
    ("shared-login", Severity::Warning, "roles with different rules share a login, whom PostgreSQL cannot tell apart"),
    ("unknown-name", Severity::Error, "the database has no such table or function"),
    ("wrong-kind", Severity::Error, "what a rule names as a table is a function, or the reverse"),
    ("unknown-login", Severity::Error, "PostgreSQL has no such login, or it may not log in"),
    (
        "strong-login",
        Severity::Warning,
        "PostgreSQL's own rights do not bind the login: a superuser, an owner, one beyond row-level security",
    ),
];

fn finding(place: &Place, code: &'static str, what: String) -> Finding {
    // A code that is not in the table is a defect, which a test finds; nobody is to be misled meanwhile.
    let severity = CODES.iter().find(|known| known.0 == code).map_or(Severity::Error, |known| known.1);
    Finding { place: place.clone(), severity, code, what }
}

/// Looks at documents that are right in themselves and fit together, in the order of their places.
#[must_use]
pub fn lint(snapshot: &Snapshot) -> Vec<Finding> {
    let mut found: Vec<Finding> = snapshot.roles().flat_map(rules::of_role).collect();
    found.extend(unused(snapshot));
    found.extend(shared_logins(snapshot));
    found.extend(snapshot.grants().flat_map(of_grant));
    found.extend(of_subjects(snapshot));
    found.sort_by(|a, b| (&a.place, a.code, &a.what).cmp(&(&b.place, b.code, &b.what)));
    found
}

fn unused(snapshot: &Snapshot) -> Vec<Finding> {
    let named = |role: &AccessRole| {
        let grants = snapshot.grants().filter(|grant| grant.service == role.service);
        grants.flat_map(|grant| &grant.roles).any(|(name, _)| *name == role.name)
    };
    let unused = snapshot.roles().filter(|role| !named(role));
    let told = |role: &AccessRole| {
        let what = format!("no AccessGrant gives `{}` to anybody: grant it, or remove it", role.name);
        finding(&role.place, "role-unused", what)
    };
    unused.map(told).collect()
}

/// PostgreSQL sees only the login: what one of the roles may, its own rights must leave to the others.
fn shared_logins(snapshot: &Snapshot) -> Vec<Finding> {
    let mut first: BTreeMap<(&ServiceName, &str), &AccessRole> = BTreeMap::new();
    let mut found = Vec::new();
    for role in snapshot.roles() {
        let Some(postgres) = &role.postgres else { continue };
        let known = *first.entry((&role.service, &postgres.user)).or_insert(role);
        if known.postgres.as_ref().is_some_and(|other| other.rules != postgres.rules) {
            let what = format!(
                "`{}` and `{}` run as the same login `{}` with different rules: give each a login of its own, so that PostgreSQL's \
                 GRANTs can tell them apart",
                known.name, role.name, postgres.user
            );
            found.push(finding(&role.place, "shared-login", what));
        }
    }
    found
}

fn of_grant(grant: &AccessGrant) -> Vec<Finding> {
    let mut found = Vec::new();
    for (name, place) in &grant.roles {
        if name == Level::Admin.name() {
            let what =
                "`admin` may do everything, GRANT and server files included: give an AccessRole with what is needed";
            found.push(finding(place, "grant-admin", what.to_owned()));
        } else if name == Level::Owner.name() {
            let what = "`owner` may change the schema and call every function: for a service that only uses the tables, an \
                        AccessRole is enough";
            found.push(finding(place, "grant-owner", what.to_owned()));
        }
    }
    found
}

/// What all grants together give to one subject.
fn of_subjects(snapshot: &Snapshot) -> Vec<Finding> {
    let mut held: BTreeMap<(&ServiceName, &Subject), BTreeMap<&str, &Place>> = BTreeMap::new();
    let mut found = Vec::new();
    for grant in snapshot.grants() {
        for subject in &grant.subjects {
            let roles = held.entry((&grant.service, subject)).or_default();
            for (name, place) in &grant.roles {
                if let Some(before) = roles.insert(name, place) {
                    let what = format!("{subject} has `{name}` already, by {before}");
                    found.push(finding(place, "granted-twice", what));
                }
            }
        }
    }
    for ((service, subject), roles) in &held {
        found.extend(redundant(subject, roles));
        found.extend(several(snapshot, service, subject, roles));
    }
    found
}

fn redundant(subject: &Subject, roles: &BTreeMap<&str, &Place>) -> Vec<Finding> {
    let levels = || Level::ALL.into_iter().filter_map(|level| Some((level, *roles.get(level.name())?)));
    let Some((strongest, _)) = levels().next_back() else { return Vec::new() };
    let weaker = levels().filter(|(level, _)| *level < strongest);
    let told = |(level, place): (Level, &Place)| {
        let what = format!("{subject} has `{strongest}`, which may all that `{level}` may: leave one of them out");
        finding(place, "role-redundant", what)
    };
    weaker.map(told).collect()
}

fn several(
    snapshot: &Snapshot,
    service: &ServiceName,
    subject: &Subject,
    roles: &BTreeMap<&str, &Place>,
) -> Option<Finding> {
    let opens_database = |name: &&&str| {
        let role = snapshot.role(&service.namespace, name);
        Level::of(name).is_some() || role.is_some_and(|role| role.postgres.is_some())
    };
    let names: BTreeSet<&str> = roles.keys().filter(opens_database).copied().collect();
    let place = roles.values().max()?;
    (names.len() > 1).then(|| {
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        let what =
            format!("{subject} has several roles ({names}): its clients log in with one of them as the user name");
        finding(place, "several-roles", what)
    })
}

#[cfg(test)]
mod tests;
