//! The decision: a role and facts in, a verdict out, with the one sealed proof that it was made.
//!
//! Allowing allocates nothing; only a denial writes words. Absent: caches, logs, and modes such as
//! `observe`, which are the caller's.

use std::borrow::Cow;

use crate::facts::{Action, Fact, Facts, Object, Opens};
use crate::role::{Level, May, Role, Rule};
use crate::sql;

/// Proof that a decision allowed something. Nothing outside this module can make one.
#[derive(Debug)]
pub struct Permit(());

/// What was decided.
#[derive(Debug)]
pub enum Verdict {
    /// All of it may run.
    Allow(Permit),
    /// None of it may run.
    Deny(Denial),
}

/// Why a text may not run, in words for the client, the log and the metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    message: String,
    hint: String,
    reason: &'static str,
    action: Action,
    object: String,
    rule: Option<String>,
}

impl Denial {
    /// `sidegate: <role> may not <action> <object>`.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What would allow it, or why nothing does.
    pub fn hint(&self) -> &str {
        &self.hint
    }

    /// A bounded label for metrics: `no_rule`, `role`, `read_only`, `fixed`, or why the text was not
    /// understood.
    pub fn reason(&self) -> &'static str {
        self.reason
    }

    /// The denied action, a bounded label for metrics.
    pub fn action(&self) -> &'static str {
        self.action.label()
    }

    /// The denied object, as the message names it.
    pub fn object(&self) -> &str {
        &self.object
    }

    /// The rule that an AccessRole would need, in YAML flow style, where one would help.
    pub fn rule(&self) -> Option<&str> {
        self.rule.as_deref()
    }

    /// A text that was not understood is denied to every role.
    pub(crate) fn not_understood(role: &Role, what: &str, hint: String, reason: &'static str) -> Self {
        Self {
            message: format!("sidegate: {} may not run {what}", role.name()),
            hint,
            reason,
            action: Action::Run,
            object: what.to_owned(),
            rule: None,
        }
    }
}

/// Holds facts against a role: all must be allowed.
pub fn decide(role: &Role, facts: &Facts) -> Verdict {
    match facts.needs().iter().find(|fact| !may(role, fact)) {
        None => Verdict::Allow(Permit(())),
        Some(fact) => Verdict::Deny(denial(role, fact)),
    }
}

/// A startup parameter, judged as `SET name TO value`.
pub fn decide_setting(role: &Role, name: &str, value: &str) -> Verdict {
    let opens = sql::setting_opens(name, Some(value));
    let fact = Fact { action: Action::Set, object: Object::Thing(sql::setting_name(name)), opens };
    if may(role, &fact) { Verdict::Allow(Permit(())) } else { Verdict::Deny(denial(role, &fact)) }
}

/// The `FunctionCall` message names its function by a number that only the server can read: admin's.
pub const FUNCTION_CALL: Fact = Fact {
    action: Action::CallByOid,
    object: Object::Fixed("a function by its number"),
    opens: Opens::Level(Level::Admin),
};

/// Decides on a `FunctionCall` message, which needs [`FUNCTION_CALL`].
pub fn decide_function_call(role: &Role) -> Verdict {
    if may(role, &FUNCTION_CALL) { Verdict::Allow(Permit(())) } else { Verdict::Deny(denial(role, &FUNCTION_CALL)) }
}

/// Whether a role opens a fact.
pub(crate) fn may(role: &Role, fact: &Fact) -> bool {
    match (role.may(), fact.opens) {
        (_, Opens::Everyone) => true,
        (_, Opens::Nobody) => false,
        (May::BuiltIn(level), Opens::NotReader) => *level > Level::Reader,
        (May::BuiltIn(level), Opens::Rule(least) | Opens::ExactRule(least) | Opens::Level(least)) => *level >= least,
        (May::Rules(_), Opens::NotReader) => true,
        (May::Rules(_), Opens::Level(_)) => false,
        (May::Rules(rules), Opens::Rule(_) | Opens::ExactRule(_)) => opening_rule(rules, fact).is_some(),
    }
}

/// The first of an AccessRole's rules that opens a fact.
fn opening_rule<'a>(rules: &'a [Rule], fact: &Fact) -> Option<&'a Rule> {
    let exact = matches!(fact.opens, Opens::ExactRule(_));
    let (Object::Named { name, .. }, Some(schema)) = (&fact.object, fact.object.scoped_schema()) else {
        return None;
    };
    rules.iter().find(|rule| rule.opens(fact.action, schema, name, exact))
}

/// What of a role opens the facts: the built-in role's name, or the AccessRole's with the places of its rules, counted
/// from 0, as in `orders-writer.rules[0,2]`. `None` where every role may, or this one may not.
#[must_use]
pub fn opened_by<'a>(role: &'a Role, facts: &[Fact]) -> Option<Cow<'a, str>> {
    if !facts.iter().all(|fact| may(role, fact)) || facts.iter().all(|fact| fact.opens == Opens::Everyone) {
        return None;
    }
    let May::Rules(rules) = role.may() else { return Some(role.name().into()) };
    let mut places: Vec<usize> = facts.iter().filter_map(|fact| opening_rule(rules, fact)).map(Rule::index).collect();
    places.sort_unstable();
    places.dedup();
    let places: Vec<String> = places.iter().map(ToString::to_string).collect();
    (!places.is_empty()).then(|| format!("{}.rules[{}]", role.name(), places.join(",")).into())
}

fn denial(role: &Role, fact: &Fact) -> Denial {
    let object = if role.is_scoped() { fact.object.rule_name() } else { fact.object.to_string() };
    let rule = rule_for(role, fact);
    Denial {
        message: format!("sidegate: {} may not {} {object}", role.name(), fact.action),
        hint: hint(fact.opens, rule.as_deref()),
        reason: reason(role, fact.opens),
        action: fact.action,
        object,
        rule,
    }
}

/// The rule that would open this fact to a role of rules.
fn rule_for(role: &Role, fact: &Fact) -> Option<String> {
    if !role.is_scoped() || !matches!(fact.opens, Opens::Rule(_) | Opens::ExactRule(_)) {
        return None;
    }
    let list = match fact.action {
        Action::Execute => "functions",
        _ => "tables",
    };
    let name = quoted(&fact.object.rule_name());
    Some(format!("{{actions: [{}], {list}: [{name}]}}", fact.action))
}

/// A YAML double-quoted string.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\U{:08X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn hint(opens: Opens, rule: Option<&str>) -> String {
    match (rule, opens) {
        (Some(rule), _) => format!("add {rule} to the AccessRole"),
        (None, Opens::Rule(least) | Opens::ExactRule(least) | Opens::Level(least)) => {
            let roles: Vec<_> = Level::ALL.into_iter().filter(|level| *level >= least).map(Level::name).collect();
            format!("the built-in role {} may", roles.join(" or "))
        }
        (None, Opens::NotReader) => {
            "a session with the role reader is read only; the built-in role writer or owner or admin may".to_owned()
        }
        (None, Opens::Nobody | Opens::Everyone) => "no role may: it is fixed for every session".to_owned(),
    }
}

fn reason(role: &Role, opens: Opens) -> &'static str {
    match opens {
        Opens::Rule(_) | Opens::ExactRule(_) if role.is_scoped() => "no_rule",
        Opens::Rule(_) | Opens::ExactRule(_) | Opens::Level(_) => "role",
        Opens::NotReader => "read_only",
        Opens::Nobody | Opens::Everyone => "fixed",
    }
}
