//! The walker: what it gathers, which names of common table expressions it sees, whose columns it watches.
//!
//! Absent: the tree itself; `select`, `expression`, `dml`, `ddl` and `utility` each add their part of the walk.

use std::collections::{HashMap, HashSet};

use pg_query::NodeEnum;
use pg_query::protobuf as pb;

use super::NotUnderstood;
use crate::facts::{Action, Fact, Facts, Object, Opens};
use crate::role::Level;

/// Each step of the walk understands its node or fails.
pub(super) type Walk = Result<(), NotUnderstood>;

/// Gathers the facts of one text.
#[derive(Default)]
pub(super) struct Walker<'a> {
    needs: Vec<Fact>,
    seen: HashSet<Fact>,
    pub(super) prepares: Vec<Box<str>>,
    pub(super) executes: Vec<Box<str>>,
    pub(super) declares: Vec<Box<str>>,
    pub(super) fetches: Vec<Box<str>>,
    pub(super) controls_transaction: bool,
    pub(super) copies: bool,
    /// Names of common table expressions that are visible here, and how many times over.
    ctes: HashMap<&'a str, usize>,
    /// The targets of the statements around, whose columns count as read where they are named.
    watches: Vec<Watch<'a>>,
    /// What `name` is in this query over `pg_settings`, if its WHERE says so.
    pub(super) setting_named: Option<&'a str>,
}

/// A target of INSERT, UPDATE or DELETE: naming one of its columns needs `select` on it.
pub(super) struct Watch<'a> {
    qualifiers: Vec<&'a str>,
    read: bool,
}

impl<'a> Walker<'a> {
    /// What was gathered.
    pub(super) fn finish(self) -> Facts {
        Facts::from_parts(self.needs, [self.prepares, self.executes, self.declares, self.fetches])
            .with_protocol(self.controls_transaction, self.copies)
    }

    /// Adds a fact, once.
    pub(super) fn need(&mut self, action: Action, object: Object, opens: Opens) {
        /// So few are compared faster one by one.
        const FEW: usize = 8;
        let fact = Fact { action, object, opens };
        let new = if self.needs.len() < FEW {
            !self.needs.contains(&fact)
        } else {
            if self.seen.is_empty() {
                self.seen.extend(self.needs.iter().cloned());
            }
            self.seen.insert(fact.clone())
        };
        if new {
            self.needs.push(fact);
        }
    }

    /// Adds a fact about something that no rule names.
    pub(super) fn need_level(&mut self, action: Action, what: &'static str, least: Level) {
        self.need(action, Object::Fixed(what), Opens::Level(least));
    }

    /// Makes the name of a common table expression visible.
    pub(super) fn show_cte(&mut self, name: &'a str) {
        *self.ctes.entry(name).or_default() += 1;
    }

    /// Ends what `show_cte` began.
    pub(super) fn hide_cte(&mut self, name: &'a str) {
        if let Some(count) = self.ctes.get_mut(name) {
            *count -= 1;
            if *count == 0 {
                self.ctes.remove(name);
            }
        }
    }

    /// Whether a relation in FROM is a common table expression: never with a schema.
    pub(super) fn is_cte(&self, relation: &pb::RangeVar) -> bool {
        relation.schemaname.is_empty()
            && relation.catalogname.is_empty()
            && self.ctes.contains_key(relation.relname.as_str())
    }

    /// Walks with an eye on the columns of a target; says whether any was named.
    pub(super) fn watching(
        &mut self,
        qualifiers: Vec<&'a str>,
        walk: impl FnOnce(&mut Self) -> Walk,
    ) -> Result<bool, NotUnderstood> {
        self.watches.push(Watch { qualifiers, read: false });
        let walked = walk(self);
        let watch = self.watches.pop();
        walked.map(|()| watch.is_some_and(|watch| watch.read))
    }

    /// Takes note of a column: an unqualified one may be anybody's.
    pub(super) fn column_named(&mut self, fields: &[pb::Node]) {
        if self.watches.is_empty() {
            return;
        }
        let qualifier = match fields {
            [.., qualifier, _] => string(qualifier),
            _ => None,
        };
        for watch in &mut self.watches {
            watch.read |= qualifier.is_none_or(|name| watch.qualifiers.contains(&name));
        }
    }
}

/// What a node holds. An empty node is one that this release of the parser's crate cannot read.
pub(super) fn inner(node: &pb::Node) -> Result<&NodeEnum, NotUnderstood> {
    node.node.as_ref().ok_or(NotUnderstood::Unknown("an empty node"))
}

/// The text of a string node.
pub(super) fn string(node: &pb::Node) -> Option<&str> {
    match &node.node {
        Some(NodeEnum::String(s)) => Some(&s.sval),
        _ => None,
    }
}

/// The parts of a dotted name.
pub(super) fn strings(nodes: &[pb::Node]) -> Result<Vec<&str>, NotUnderstood> {
    nodes.iter().map(|node| string(node).ok_or(NotUnderstood::Unknown("a name"))).collect()
}

/// The text of a constant: a string, a number, or a truth value.
pub(super) fn constant(node: &pb::Node) -> Option<String> {
    match node.node.as_ref()? {
        NodeEnum::AConst(constant) => match constant.val.as_ref()? {
            pb::a_const::Val::Sval(s) => Some(s.sval.clone()),
            pb::a_const::Val::Ival(i) => Some(i.ival.to_string()),
            pb::a_const::Val::Fval(f) => Some(f.fval.clone()),
            pb::a_const::Val::Boolval(b) => Some(b.boolval.to_string()),
            pb::a_const::Val::Bsval(_) => None,
        },
        NodeEnum::String(s) => Some(s.sval.clone()),
        NodeEnum::Integer(i) => Some(i.ival.to_string()),
        NodeEnum::Float(f) => Some(f.fval.clone()),
        NodeEnum::Boolean(b) => Some(b.boolval.to_string()),
        _ => None,
    }
}
