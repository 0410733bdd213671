//! The least that opens a fact: a rule that names its object, or, where no rule does, a built-in role.
//!
//! Absent on purpose: wildcards. Whoever wants to open more than was needed writes that himself.

use std::collections::{BTreeMap, BTreeSet};

use crate::documents::{MAX_NAMES, sql_rule, written_name};
use crate::facts::{Action, Fact, Object, Opens};
use crate::http::{Pattern, is_method};
use crate::record::METHOD_LIMIT;
use crate::role::Level;

/// What opens a fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// Nothing is needed.
    Free,
    /// Any role but `reader`.
    NotReader,
    /// A rule, or a built-in role from the level on.
    Rule { target: Target, action: Action, level: Level },
    /// A built-in role from this level on.
    Level(Level),
    /// Nothing does.
    Closed,
}

/// What a rule names: a table or function, as a document writes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target {
    pub(crate) is_function: bool,
    pub(crate) name: String,
}

/// What opens this fact.
pub(crate) fn way(fact: &Fact) -> Way {
    match fact.opens {
        Opens::Everyone => Way::Free,
        Opens::NotReader => Way::NotReader,
        Opens::Nobody => Way::Closed,
        Opens::Level(level) => Way::Level(level),
        Opens::Rule(level) | Opens::ExactRule(level) => match target(fact) {
            Some(target) => Way::Rule { target, action: fact.action, level },
            None => Way::Level(level),
        },
    }
}

fn target(fact: &Fact) -> Option<Target> {
    let (Object::Named { name, .. }, Some(schema)) = (&fact.object, fact.object.scoped_schema()) else { return None };
    let action = Action::of_rule(fact.action.label())?;
    Some(Target { is_function: action == Action::Execute, name: written_name(schema, name)? })
}

/// Whether a rule can open a request, and no other.
pub(crate) fn is_request_of_rules(method: &str, path: &str) -> bool {
    // A method that long may have been cut off.
    method.len() < METHOD_LIMIT && is_method(method) && !path.ends_with('*') && Pattern::parse(path).is_ok()
}

/// Rules that open actions on targets: those with the same actions share one, tables before functions.
pub(crate) fn grouped(needs: &BTreeMap<Target, BTreeSet<Action>>) -> Vec<(Vec<Target>, String)> {
    let mut groups: BTreeMap<(bool, &BTreeSet<Action>), Vec<&Target>> = BTreeMap::new();
    for (target, actions) in needs {
        groups.entry((target.is_function, actions)).or_default().push(target);
    }
    let mut rules: Vec<_> = groups.into_iter().flat_map(|((_, actions), targets)| written(actions, &targets)).collect();
    rules.sort();
    rules
}

fn written(actions: &BTreeSet<Action>, targets: &[&Target]) -> Vec<(Vec<Target>, String)> {
    let actions: Vec<_> = actions.iter().map(|action| action.label()).collect();
    let rule = |part: &[&Target]| {
        let names: Vec<_> = part.iter().map(|target| &*target.name).collect();
        (part.iter().map(|target| (*target).clone()).collect(), sql_rule(&actions, &names))
    };
    targets.chunks(MAX_NAMES).map(rule).collect()
}

/// What is said of a role that must be there and needs to open nothing, and its rule: a role without rules is none.
pub(crate) const NOTHING: (&str, &str) = (
    "opens nothing that is not everyone's anyway, but a role has at least one rule",
    r#"{actions: [execute], functions: ["pg_catalog.now"]}"#,
);

/// What statements needed altogether.
#[derive(Debug, Clone, Default)]
pub(crate) struct Needs {
    pub(crate) rules: BTreeMap<Target, BTreeSet<Action>>,
    /// What no rule opens.
    pub(crate) forced: BTreeSet<String>,
    /// The least built-in role that opens all of it.
    pub(crate) level: Option<Level>,
}

impl Needs {
    /// Adds what a statement needed; `None`, and nothing is added, if one of its facts is open to nobody.
    pub(crate) fn add<'a>(&mut self, facts: impl IntoIterator<Item = &'a Fact>) -> Option<()> {
        let ways: Vec<_> = facts.into_iter().map(|fact| (fact, way(fact))).collect();
        if ways.iter().any(|(_, way)| *way == Way::Closed) {
            return None;
        }
        for (fact, way) in ways {
            let level = match way {
                Way::Free | Way::Closed => continue,
                Way::NotReader => Level::Writer,
                Way::Level(level) => {
                    self.forced.insert(fact.to_string());
                    level
                }
                Way::Rule { target, action, level } => {
                    self.rules.entry(target).or_default().insert(action);
                    level
                }
            };
            self.level = self.level.max(Some(level));
        }
        Some(())
    }

    /// The built-in role that is needed because rules are not enough.
    pub(crate) fn forced(&self) -> Option<Level> {
        self.level.filter(|_| !self.forced.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze;

    fn needs(texts: &[&str]) -> (Needs, usize) {
        let mut needs = Needs::default();
        let closed = texts.iter().filter(|text| needs.add(analyze(text.as_bytes()).unwrap().needs()).is_none()).count();
        (needs, closed)
    }

    #[test]
    fn tables_with_the_same_actions_share_a_rule() {
        let (needs, closed) = needs(&[
            "select * from orders join items using (id)",
            "insert into log select * from \"Odd.Name\"",
            "select place_order(1), now()",
            "insert into orders values (1)",
            "begin",
        ]);
        assert_eq!((closed, needs.forced()), (0, None));
        let rules: Vec<_> = grouped(&needs.rules).into_iter().map(|(_, rule)| rule).collect();
        assert_eq!(
            rules,
            [
                r#"{actions: [select], tables: ["public.\"Odd.Name\"", "public.items"]}"#,
                r#"{actions: [insert], tables: ["public.log"]}"#,
                r#"{actions: [select, insert], tables: ["public.orders"]}"#,
                r#"{actions: [execute], functions: ["public.place_order"]}"#,
            ]
        );
    }

    #[test]
    fn what_no_rule_opens_forces_a_built_in_role() {
        let level = |texts: &[&str]| needs(texts).0.forced().map(Level::name);
        assert_eq!(level(&["table a", "create table t ()"]), Some("owner"));
        assert_eq!(level(&["table \"a*b\""]), Some("reader"));
        assert_eq!(level(&["table \"a*b\"", "delete from b"]), Some("writer"));
        assert_eq!(level(&["create role x", "table a"]), Some("admin"));
        let (needs, closed) = needs(&["set sidegate.sub to 'x'", "set sidegate.sub to 'x'; create table t ()"]);
        assert_eq!((needs.forced(), closed), (None, 2));
    }

    #[test]
    fn long_lists_are_parted() {
        let names: Vec<_> = (0..300).map(|n| format!("select from t{n}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let parts: Vec<_> = grouped(&needs(&names).0.rules).into_iter().map(|(targets, _)| targets.len()).collect();
        assert_eq!(parts, [256, 44]);
    }

    #[test]
    fn requests_that_a_rule_would_open_with_others_have_none() {
        assert!(is_request_of_rules("GET", "/a/b"));
        for (method, path) in [("GET", "/a*"), ("GET", "/a;b"), ("get", "/a"), ("GET", "a"), (&*"A".repeat(32), "/a")] {
            assert!(!is_request_of_rules(method, path), "{method} {path}");
        }
    }
}
