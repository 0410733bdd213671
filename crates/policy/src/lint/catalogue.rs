//! Documents held against what a database has.

use std::collections::{BTreeMap, BTreeSet};

use identity::ServiceName;

use super::{Finding, finding};
use crate::documents::{AccessRole, Place};
use crate::facts::Opens;
use crate::snapshot::Snapshot;
use crate::sql::{function_opens, relation_opens};

/// How alike two names are that somebody may have mistaken for each other, from 0 to 1.
const NEAR: f64 = 0.8;

/// What a database has.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    /// Its name.
    pub database: String,
    /// Tables, views and the like, `schema.name`.
    pub relations: BTreeSet<String>,
    /// Functions and procedures, `schema.name`.
    pub functions: BTreeSet<String>,
    /// Its server's roles by name.
    pub logins: BTreeMap<String, Login>,
}

/// A role of PostgreSQL's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// Whether it may log in.
    pub can_log_in: bool,
    /// Whether nothing binds it.
    pub is_superuser: bool,
    /// Whether row-level security does not bind it.
    pub bypasses_rls: bool,
    /// A relation that it owns, so that no GRANT binds it there.
    pub owns: Option<String>,
}

/// Looks at the roles of one service that are for this database.
#[must_use]
pub fn lint_database(snapshot: &Snapshot, service: &ServiceName, catalogue: &Catalogue) -> Vec<Finding> {
    let roles = snapshot.roles().filter(|role| role.service == *service);
    let mut found: Vec<Finding> = roles.flat_map(|role| of_role(role, catalogue)).collect();
    found.sort_by(|a, b| (&a.place, a.code, &a.what).cmp(&(&b.place, b.code, &b.what)));
    found
}

fn of_role(role: &AccessRole, catalogue: &Catalogue) -> Vec<Finding> {
    let Some(postgres) = &role.postgres else { return Vec::new() };
    if !postgres.database.is_empty() && !postgres.database.contains(&catalogue.database) {
        return Vec::new();
    }
    let mut found = of_login(&role.place, &postgres.user, catalogue);
    for (index, rule) in postgres.rules.iter().enumerate() {
        let at = format!("`{}` postgres.rules[{index}]", role.name);
        let tables =
            rule.tables.iter().filter(|name| is_the_users(name, |s, n| relation_opens(crate::Action::Select, s, n)));
        let functions = rule.functions.iter().filter(|name| is_the_users(name, function_opens));
        found.extend(tables.filter_map(|name| table(&role.place, &at, name, catalogue)));
        found.extend(functions.filter_map(|name| function(&role.place, &at, name, catalogue)));
    }
    found
}

/// What PostgreSQL brings along is known without looking, and differs from one version to the next.
fn is_the_users(name: &str, opens: impl Fn(&str, &str) -> Opens) -> bool {
    let Some((schema, name)) = name.split_once('.') else { return false };
    let system = schema == "pg_catalog" || schema == "information_schema";
    !system && matches!(opens(schema, name), Opens::Rule(_) | Opens::ExactRule(_))
}

fn table(place: &Place, at: &str, name: &str, catalogue: &Catalogue) -> Option<Finding> {
    missing(place, at, ("table", name), (&catalogue.relations, &catalogue.functions), "function")
}

fn function(place: &Place, at: &str, name: &str, catalogue: &Catalogue) -> Option<Finding> {
    missing(place, at, ("function", name), (&catalogue.functions, &catalogue.relations), "table")
}

fn missing(
    place: &Place,
    at: &str,
    (kind, name): (&str, &str),
    (there, others): (&BTreeSet<String>, &BTreeSet<String>),
    other_kind: &str,
) -> Option<Finding> {
    if let Some(schema) = name.strip_suffix(".*") {
        let beginning = format!("{schema}.");
        let any = there.iter().any(|known| known.starts_with(&beginning));
        let what = || format!("{at} names `{name}`, but the schema has no {kind}: is it another schema?");
        return (!any).then(|| finding(place, "unknown-name", what()));
    }
    if there.contains(name) {
        return None;
    }
    if others.contains(name) {
        let what = format!("{at} names `{name}` as a {kind}, but it is a {other_kind}: put it under `{other_kind}s`");
        return Some(finding(place, "wrong-kind", what));
    }
    let near = near(name, there).map(|near| format!(" Is `{near}` meant?")).unwrap_or_default();
    let what = format!("{at} names `{name}`, but the database has no such {kind}.{near}");
    Some(finding(place, "unknown-name", what))
}

fn near<'a>(name: &str, there: &'a BTreeSet<String>) -> Option<&'a String> {
    let likeness = |known: &'a String| (strsim::jaro_winkler(name, known), known);
    let best = there.iter().map(likeness).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= NEAR).then_some(best.1)
}

fn of_login(place: &Place, name: &str, catalogue: &Catalogue) -> Vec<Finding> {
    let Some(login) = catalogue.logins.get(name).filter(|login| login.can_log_in) else {
        let what = format!(
            "PostgreSQL has no login `{name}`: `sidegate policy grants` prints what makes it, with the rights that it needs"
        );
        return vec![finding(place, "unknown-login", what)];
    };
    let owned = login.owns.as_ref().map(|relation| format!("owns {relation}"));
    let strong = [
        login.is_superuser.then(|| "is a superuser".to_owned()),
        login.bypasses_rls.then(|| "is not bound by row-level security".to_owned()),
        owned,
    ];
    let strong: Vec<String> = strong.into_iter().flatten().collect();
    if strong.is_empty() {
        return Vec::new();
    }
    let what = format!(
        "the login `{name}` {}, so PostgreSQL's own rights are no second lock: use a login that has only what it needs",
        strong.join(" and ")
    );
    vec![finding(place, "strong-login", what)]
}
