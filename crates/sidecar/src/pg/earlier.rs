//! What a session let through earlier and may yet run: of interest once its rights are others than they were.
//!
//! Deliberately absent: the decision itself, which is `authorize`'s.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use policy::{Action, Facts, Role, Verdict};
use wire::session::significant;

use super::authorize::Handle;

/// Actions that leave nothing behind in a session.
const ROW_ACTIONS: [&str; 5] = ["select", "insert", "update", "delete", "merge"];

/// Texts and names that a session remembers, and bytes of the texts' facts. Beyond that it is only stricter, and only
/// once its rights have changed.
const NAMED_LIMIT: usize = 4096;
const NAMED_BYTES: usize = 4 << 20;

/// What texts that should not have passed may have left behind. Where there was any, statements and portals of the
/// protocol are decided again before they run, and those of SQL's own `PREPARE` and `DECLARE` do not run at all: both
/// kinds share their names, so that a name in a text does not tell what it stands for.
#[derive(Default)]
pub(crate) struct Lax {
    /// One did more than to read and write rows: settings, a role, objects that later texts may meet.
    changed_session: bool,
}

impl Lax {
    /// Whether a text did more than to read and write rows.
    pub(super) fn changed_session(&self) -> bool {
        self.changed_session
    }

    /// A text was let through.
    pub(super) fn note(&mut self, analysis: Option<&Handle>) {
        self.changed_session |= match analysis.map(|analysis| &analysis.facts) {
            Some(Ok(facts)) => facts.needs().iter().any(|fact| !ROW_ACTIONS.contains(&fact.action.label())),
            _ => true,
        };
    }
}

/// What a later message may run by a name. SQL's own `PREPARE` and `DECLARE` share their names with the protocol's
/// statements and portals, and `DEALLOCATE` and `CLOSE` free them unseen, so that neither side's name tells which of the
/// two it stands for. Once the rights are others than they were:
///
/// * texts run nothing by its name if the new role does not cover all that was ever put under one;
/// * the protocol's statements and portals are decided one by one when they are used, but for names that SQL has used.
#[derive(Default)]
pub(crate) struct Named {
    texts: HashMap<usize, Handle>,
    /// Of all these texts' facts.
    bytes: usize,
    /// There were more than are remembered, or one that is not known.
    incomplete: bool,
    /// Names that SQL texts put something under.
    sql_names: HashSet<Box<[u8]>>,
    /// There were more, or some that are not known.
    any_name: bool,
    /// The role is not the one that the session began with.
    changed: bool,
    distrusted: bool,
}

impl Named {
    fn note(&mut self, analysis: &Handle) {
        let key = Arc::as_ptr(analysis).addr();
        if self.texts.contains_key(&key) {
            return;
        }
        let bytes = analysis.facts.as_ref().map_or(0, Facts::size_hint);
        if self.texts.len() >= NAMED_LIMIT || self.bytes.saturating_add(bytes) > NAMED_BYTES {
            self.incomplete = true;
            return;
        }
        self.bytes += bytes;
        self.texts.insert(key, analysis.clone());
    }

    /// A text was let through, whatever the reason; `None`: one that is not understood.
    pub(super) fn passed(&mut self, analysis: Option<&Handle>) {
        let Some((analysis, facts)) = analysis.and_then(|analysis| Some((analysis, analysis.facts.as_ref().ok()?)))
        else {
            self.incomplete = true;
            self.any_name = true;
            return;
        };
        for name in facts.prepares().iter().chain(facts.declares()) {
            if self.sql_names.len() < NAMED_LIMIT {
                self.sql_names.insert(significant(name.as_bytes()).into());
            } else {
                self.any_name |= !self.sql_names.contains(significant(name.as_bytes()));
            }
        }
        let names_something = !(facts.prepares().is_empty() && facts.declares().is_empty());
        // Code that a text runs can open a cursor, too.
        if names_something || facts.needs().iter().any(|fact| matches!(fact.action, Action::Execute | Action::Do)) {
            self.note(analysis);
        }
    }

    /// A `Parse` was let through: what it puts under a name, a text can run.
    pub(super) fn parsed(&mut self, name: &[u8], analysis: Option<&Handle>) {
        match analysis {
            _ if name.is_empty() => {}
            Some(analysis) => self.note(analysis),
            None => self.incomplete = true,
        }
    }

    /// A portal was bound.
    pub(super) fn bound(&mut self, portal: &[u8], earlier: &[&Handle]) {
        if !portal.is_empty() {
            self.incomplete |= earlier.is_empty();
            earlier.iter().for_each(|analysis| self.note(analysis));
        }
    }

    /// The session goes on with other rights.
    pub(super) fn role_changed(&mut self, role: &Role) {
        let covered = |analysis: &Handle| match &analysis.facts {
            Ok(facts) => matches!(policy::decide(role, facts), Verdict::Allow(_)),
            Err(_) => false,
        };
        self.changed = true;
        self.distrusted = self.incomplete || !self.texts.values().all(covered);
    }

    /// Whether the role is not the one that the session began with.
    pub(super) fn role_has_changed(&self) -> bool {
        self.changed
    }

    /// Whether a name in a text may stand for what the role of now does not cover.
    pub(super) fn is_distrusted(&self) -> bool {
        self.distrusted
    }

    /// Whether a name of the protocol's may stand for something that SQL put under it.
    pub(super) fn may_be_sqls(&self, name: &[u8]) -> bool {
        !name.is_empty() && (self.any_name || self.sql_names.contains(significant(name)))
    }
}
