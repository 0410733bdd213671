//! What a session let through earlier and may yet run: of interest once its rights are others than they were.
//!
//! Deliberately absent: the decision itself, which is `authorize`'s.

use std::collections::HashMap;
use std::sync::Arc;

use policy::{Role, Verdict};

use super::authorize::Handle;

/// Actions that leave nothing behind in a session.
const ROW_ACTIONS: [&str; 5] = ["select", "insert", "update", "delete", "merge"];

/// Texts under a name that a session remembers. Beyond that it is only stricter, and only once its role has changed.
const NAMED_LIMIT: usize = 4096;

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

/// Texts that a later one may run by a name that stands in it: those of SQL's own `PREPARE` and `DECLARE`, and what the
/// protocol put under a name, as both kinds share their names. When the role changes, they are held against the new one;
/// if it does not cover them all, texts run nothing by its name any more in this session. The protocol's own statements
/// and portals are decided one by one whenever they are used.
#[derive(Default)]
pub(crate) struct Named {
    texts: HashMap<usize, Handle>,
    /// There were more than are remembered, or one that is not known.
    incomplete: bool,
    /// The role is not the one that the session began with.
    changed: bool,
    distrusted: bool,
}

impl Named {
    fn note(&mut self, analysis: &Handle) {
        let key = Arc::as_ptr(analysis).addr();
        if self.texts.len() < NAMED_LIMIT {
            self.texts.insert(key, analysis.clone());
        } else {
            self.incomplete |= !self.texts.contains_key(&key);
        }
    }

    /// A text was let through.
    pub(super) fn passed(&mut self, analysis: Option<&Handle>) {
        if let Some(analysis) = analysis
            && let Ok(facts) = &analysis.facts
            && !(facts.prepares().is_empty() && facts.declares().is_empty())
        {
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
}
