//! The rules of one AccessRole: those that never match, and those that open more than a role should.

use identity::access::{HttpRule, Rule};

use super::{Finding, finding};
use crate::documents::AccessRole;
use crate::facts::{Action, Opens};
use crate::sql::{function_opens, relation_opens};

/// Methods that change nothing (RFC 9110 §9.2.1).
const SAFE_METHODS: [&str; 3] = ["GET", "HEAD", "OPTIONS"];

pub(super) fn of_role(role: &AccessRole) -> Vec<Finding> {
    let rules = role.postgres.iter().flat_map(|postgres| &postgres.rules).collect::<Vec<_>>();
    let mut found = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let at = format!("`{}` postgres.rules[{index}]", role.name);
        let others = || rules.iter().enumerate().filter(|(other, _)| *other != index);
        let told = of_rule(&at, rule).or_else(|| covered(&at, rule, index, others()));
        found.extend(told.map(|(code, what)| finding(&role.place, code, what)));
        found.extend(wide(&at, rule).into_iter().map(|(code, what)| finding(&role.place, code, what)));
    }
    for (index, rule) in role.http.iter().enumerate() {
        found.extend(wide_http(&role.name, index, rule).map(|what| finding(&role.place, "wide-http", what)));
    }
    found
}

type Told = (&'static str, String);

/// One action on one name, or on all of a schema.
struct Opening<'a> {
    action: Action,
    schema: &'a str,
    /// `None`: every one.
    name: Option<&'a str>,
}

impl Opening<'_> {
    /// Who may do it whatever the rules; of a wildcard, what its names have in common.
    fn opens(&self) -> Opens {
        let name = self.name.unwrap_or_default();
        match self.action {
            Action::Execute => function_opens(self.schema, name),
            action => relation_opens(action, self.schema, name),
        }
    }

    fn is_covered_by(&self, other: &Opening<'_>) -> bool {
        let exact = matches!(self.opens(), Opens::ExactRule(_));
        self.action == other.action
            && self.schema == other.schema
            && (other.name == self.name || other.name.is_none() && !exact)
    }
}

fn openings(rule: &Rule) -> impl Iterator<Item = Opening<'_>> {
    let actions = rule.actions.iter().filter_map(|word| Action::of_rule(word));
    actions.flat_map(|action| {
        let names = if action == Action::Execute { &rule.functions } else { &rule.tables };
        names.iter().filter_map(move |name| {
            let (schema, name) = name.split_once('.')?;
            Some(Opening { action, schema, name: (name != "*").then_some(name) })
        })
    })
}

/// What is odd about a rule in itself.
fn of_rule(at: &str, rule: &Rule) -> Option<Told> {
    if openings(rule).all(|opening| opening.name.is_some() && opening.opens() == Opens::Everyone) {
        return Some(("rule-everyone", format!("{at} opens only what every role may: remove it")));
    }
    if openings(rule).all(|opening| matches!(opening.opens(), Opens::Level(_) | Opens::Nobody)) {
        let what = format!("{at} names what no rule can open: remove it; a built-in role may be what is needed");
        return Some(("rule-never", what));
    }
    None
}

/// Whether others open all that it does. Of two rules that say the same, the later one is told.
fn covered<'a>(
    at: &str,
    rule: &Rule,
    index: usize,
    others: impl Iterator<Item = (usize, &'a &'a Rule)>,
) -> Option<Told> {
    let others: Vec<(usize, &Rule)> = others.map(|(other, rule)| (other, *rule)).collect();
    let by = |opening: &Opening<'_>| {
        others.iter().find(|(other, rule)| {
            openings(rule).any(|wider| {
                opening.is_covered_by(&wider) && (*other < index || wider.name.is_none() && opening.name.is_some())
            })
        })
    };
    let mut covering: Vec<usize> =
        openings(rule).map(|opening| by(&opening).map(|(other, _)| *other)).collect::<Option<_>>()?;
    covering.sort_unstable();
    covering.dedup();
    let places: Vec<String> = covering.iter().map(ToString::to_string).collect();
    let what = format!("{at} opens nothing that rules[{}] do not open already: remove it", places.join(","));
    (!places.is_empty()).then_some(("rule-covered", what))
}

fn wide(at: &str, rule: &Rule) -> Vec<Told> {
    let wildcard = |names: &[String]| names.iter().find(|name| name.ends_with(".*")).cloned();
    let writes: Vec<_> =
        rule.actions.iter().map(String::as_str).filter(|word| !["select", "execute"].contains(word)).collect();
    let mut told = Vec::new();
    if let Some(schema) = wildcard(&rule.tables).filter(|_| !writes.is_empty()) {
        let what =
            format!("{at} opens `{schema}` to {}, tables of the future included: name the tables", writes.join(", "));
        told.push(("wide-write", what));
    }
    if let Some(schema) = wildcard(&rule.functions) {
        let what = format!("{at} opens every function of `{schema}`, those of the future included: name the functions");
        told.push(("wide-execute", what));
    }
    told
}

fn wide_http(role: &str, index: usize, rule: &HttpRule) -> Option<String> {
    let changing: Vec<&str> =
        rule.methods.iter().map(String::as_str).filter(|method| !SAFE_METHODS.contains(method)).collect();
    let everything = rule.paths.iter().any(|path| path == "/*");
    (everything && !changing.is_empty()).then(|| {
        let methods = changing.join(", ");
        format!("`{role}` http.rules[{index}] opens every path to {methods}: name the paths that are meant")
    })
}
