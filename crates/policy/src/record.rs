//! A decision as the decision log keeps it: one JSON object a line, in the order of the fields here.
//!
//! What a statement needed is kept as facts, not as text, so that a decision can be made again with other roles, without
//! the statement and without its values. Absent on purpose: where records go to and come from, and SQL text.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::decide::may;
use crate::facts::{Action, Fact, Object, Opens};
use crate::role::{Level, Role};

mod line;

pub use line::{Event, Line, LineError, Reason};

/// Version of the schema, every record's first field. It changes when a field changes its meaning or goes; readers must
/// not mind fields that they do not know.
pub const SCHEMA: u32 = 1;

/// Objects kept in one record; one that needed more says so by `objects_omitted`.
pub const OBJECTS_LIMIT: usize = 100;

/// Characters of an HTTP method that are kept.
pub(crate) const METHOD_LIMIT: usize = 32;

/// One decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`SCHEMA`].
    pub schema: u32,
    /// When it was made: RFC 3339, UTC.
    pub time: String,
    /// Its id, which the client is told with a denial: a UUID.
    pub decision: String,
    /// Who called, `system:serviceaccount:NAMESPACE:NAME`; null if that is not known.
    pub subject: Option<String>,
    /// For whom the subject acts (RFC 8693 §4.1), if for anyone.
    pub act: Option<String>,
    /// What was called, `NAMESPACE/NAME`.
    pub service: String,
    /// The role that was decided by; null if there is none.
    pub role: Option<String>,
    /// PostgreSQL's login that the session runs as; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Absent for a service that is no database, and for a login that was refused before it was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// `connect`, or what was wanted first that decided: one of a short list.
    pub action: Cow<'static, str>,
    /// All that was needed; null if that cannot be told.
    pub objects: Option<Vec<Touched>>,
    /// How many more there were.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub objects_omitted: usize,
    /// What the policy says, whether or not it was enforced.
    pub verdict: RecordedVerdict,
    /// What allowed it, or the rule that would; null if there is none.
    pub rule: Option<String>,
    /// `allowed`, or why not: one of a short list.
    pub reason: Cow<'static, str>,
    /// `enforce`, `observe` or `off`.
    pub mode: Cow<'static, str>,
    /// Time that the decision took, in microseconds.
    pub duration_us: f64,
    /// The first half of the SHA-256 of the statement's text, hexadecimal; absent where there is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

/// What the policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordedVerdict {
    /// It may.
    Allow,
    /// It may not.
    Deny,
}

/// One thing that was needed: a relation or function (`name`, and `schema` if it was said), something else of a database
/// (`thing`), or the path of an HTTP request (`path`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touched {
    /// What was to be done; the method of an HTTP request.
    pub action: Cow<'static, str>,
    /// The schema, where the text or PostgreSQL's catalog tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// The stored name of a relation, or with the action `execute` of a function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Anything else, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thing: Option<String>,
    /// The path in its normal form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Who may, whatever the documents: `everyone`, `not-reader`, `rule:LEVEL` and `exact-rule:LEVEL` (a rule that names
    /// it, or a built-in role from that one on), `role:LEVEL`, `nobody`. Absent for HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opens: Option<Cow<'static, str>>,
    /// The role that was decided by does not open it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub denied: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for a reference.
fn is_zero(n: &usize) -> bool {
    *n == 0
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for a reference.
fn is_false(b: &bool) -> bool {
    !*b
}

impl Touched {
    /// What a statement needed, and whether the role opens it; without a role nothing is said to be denied.
    #[must_use]
    pub fn of_fact(fact: &Fact, role: Option<&Role>) -> Self {
        let (schema, name, thing) = match &fact.object {
            Object::Named { schema, name } => (schema.as_deref().map(str::to_owned), Some((**name).to_owned()), None),
            Object::Thing(words) => (None, None, Some((**words).to_owned())),
            Object::Fixed(words) => (None, None, Some((*words).to_owned())),
        };
        Self {
            action: fact.action.label().into(),
            schema,
            name,
            thing,
            path: None,
            opens: Some(opens_label(fact.opens).into()),
            denied: role.is_some_and(|role| !may(role, fact)),
        }
    }

    /// What an HTTP request wanted.
    #[must_use]
    pub fn of_request(method: &str, path: &str, denied: bool) -> Self {
        Self {
            action: method.chars().take(METHOD_LIMIT).collect::<String>().into(),
            schema: None,
            name: None,
            thing: None,
            path: Some(path.to_owned()),
            opens: None,
            denied,
        }
    }

    /// The object, for people: a path, a name with its schema if that is known, or words.
    #[must_use]
    pub fn shown(&self) -> String {
        let name = match (&self.schema, &self.name) {
            (Some(schema), Some(name)) => Some(format!("{schema}.{name}")),
            (_, name) => name.clone(),
        };
        self.path.clone().or(name).or_else(|| self.thing.clone()).unwrap_or_default()
    }

    /// The fact again, for deciding; `None` if this is a request, or is not understood.
    #[must_use]
    pub fn fact(&self) -> Option<Fact> {
        let object = match (&self.name, &self.thing) {
            (Some(name), None) => {
                Object::Named { schema: self.schema.as_deref().map(Into::into), name: name.as_str().into() }
            }
            (None, Some(thing)) => Object::Thing(thing.as_str().into()),
            _ => return None,
        };
        Some(Fact { action: Action::of_label(&self.action)?, object, opens: opens_of(self.opens.as_deref()?)? })
    }
}

fn opens_label(opens: Opens) -> &'static str {
    match opens {
        Opens::Everyone => "everyone",
        Opens::NotReader => "not-reader",
        Opens::Rule(Level::Reader) => "rule:reader",
        Opens::Rule(Level::Writer) => "rule:writer",
        Opens::Rule(Level::Owner) => "rule:owner",
        Opens::Rule(Level::Admin) => "rule:admin",
        Opens::ExactRule(Level::Reader) => "exact-rule:reader",
        Opens::ExactRule(Level::Writer) => "exact-rule:writer",
        Opens::ExactRule(Level::Owner) => "exact-rule:owner",
        Opens::ExactRule(Level::Admin) => "exact-rule:admin",
        Opens::Level(Level::Reader) => "role:reader",
        Opens::Level(Level::Writer) => "role:writer",
        Opens::Level(Level::Owner) => "role:owner",
        Opens::Level(Level::Admin) => "role:admin",
        Opens::Nobody => "nobody",
    }
}

fn opens_of(label: &str) -> Option<Opens> {
    match label.split_once(':') {
        None if label == "everyone" => Some(Opens::Everyone),
        None if label == "not-reader" => Some(Opens::NotReader),
        None if label == "nobody" => Some(Opens::Nobody),
        Some(("rule", level)) => Level::of(level).map(Opens::Rule),
        Some(("exact-rule", level)) => Level::of(level).map(Opens::ExactRule),
        Some(("role", level)) => Level::of(level).map(Opens::Level),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Verdict, analyze, decide};

    fn role(rules: &[(&[&str], &[&str], &[&str])]) -> Role {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let rules: Vec<_> = rules.iter().map(|(a, t, f)| (owned(a), owned(t), owned(f))).collect();
        let rules: Vec<_> = rules.iter().map(|(a, t, f)| (&a[..], &t[..], &f[..])).collect();
        Role::scoped("orders", None, &[], &rules).unwrap()
    }

    #[test]
    fn what_was_needed_is_written_and_read_again() {
        let role = role(&[(&["select"], &["public.orders"], &[])]);
        let facts = analyze(b"select * from orders, private.\"A.b\"; set search_path = x; create table t ()").unwrap();
        for fact in facts.needs() {
            let touched = Touched::of_fact(fact, Some(&role));
            let written = serde_json::to_string(&touched).unwrap();
            let read: Touched = serde_json::from_str(&written).unwrap();
            assert_eq!(read, touched);
            let again = read.fact().unwrap();
            assert_eq!(again.to_string(), fact.to_string());
            assert_eq!((again.opens, read.denied), (fact.opens, !may(&role, fact)), "{written}");
        }
        let shown = serde_json::to_string(&Touched::of_fact(&facts.needs()[0], Some(&role))).unwrap();
        assert_eq!(shown, r#"{"action":"select","name":"orders","opens":"rule:reader"}"#);
    }

    #[test]
    fn every_action_has_a_label_that_finds_it_again() {
        for action in Action::ALL {
            let found = Action::of_label(action.label()).unwrap();
            assert_eq!(found.label(), action.label());
            assert!(found == action || action == Action::Run, "{action:?}");
        }
    }

    #[test]
    fn what_is_not_understood_is_no_fact() {
        for text in [
            r#"{"action":"select","opens":"rule:reader"}"#,
            r#"{"action":"select","name":"x","thing":"y","opens":"rule:reader"}"#,
            r#"{"action":"devour","name":"x","opens":"rule:reader"}"#,
            r#"{"action":"select","name":"x","opens":"rule:god"}"#,
            r#"{"action":"select","name":"x"}"#,
        ] {
            assert_eq!(serde_json::from_str::<Touched>(text).unwrap().fact(), None, "{text}");
        }
    }

    #[test]
    fn the_rules_that_opened_it_are_named() {
        let role = role(&[(&["select"], &["public.a", "public.b"], &[]), (&["insert", "select"], &["public.c"], &[])]);
        let by = |role: &Role, text: &str| {
            let facts = analyze(text.as_bytes()).unwrap();
            let named = crate::opened_by(role, facts.needs()).map(Cow::into_owned);
            assert_eq!(matches!(decide(role, &facts), Verdict::Deny(_)), text.contains("d"), "{text}");
            named
        };
        assert_eq!(by(&role, "select from a, b"), Some("orders.rules[0]".to_owned()));
        assert_eq!(by(&role, "insert into c table b"), Some("orders.rules[0,1]".to_owned()));
        assert_eq!(by(&role, "select 1"), None);
        assert_eq!(by(&role, "table d"), None);
        assert_eq!(by(&Role::built_in("reader").unwrap(), "table a"), Some("reader".to_owned()));
    }
}
