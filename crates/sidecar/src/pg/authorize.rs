//! May they: every message that carries a decision is put to the policy here, and nowhere else.
//!
//! `forward` can pass such a message on only with a [`Passage`], and only this file makes one: from the policy's
//! `Permit`, or because verification does not enforce.

use std::sync::Arc;
use std::time::Instant;

use policy::{Denial, Facts, Permit, Role, Verdict};
use runtime::settings::{Settings, Verify};
use tokio::sync::watch;
use wire::ErrorFields;
use wire::session::{self, ClientMessage, Session};

use super::earlier::{Lax, Named};
use crate::analysis::{Analyses, Analysis, TEXT_LIMIT};
use crate::audit::{Audit, Caller, Decision, Needs, new_decision_id};
use crate::traces::Traced;

/// Proof that a message may pass. Holds what the session is to remember of it.
pub(crate) struct Passage {
    handle: Option<Handle>,
    decision: Option<String>,
    _why: Why,
}

impl Passage {
    /// The decision's id, if there was one.
    pub(crate) fn decision(&self) -> Option<&str> {
        self.decision.as_deref()
    }

    /// What the session is to remember of the message.
    pub(super) fn into_handle(self) -> Option<Handle> {
        self.handle
    }
}

/// Why a message passes; the permit is the policy's own proof.
enum Why {
    /// It carries no text of its own, and what it refers to was decided.
    NoDecision,
    Permitted {
        _permit: Permit,
    },
    NotEnforced,
}

/// What a session remembers of a text.
pub(crate) type Handle = Arc<Analysis>;

/// What is to happen to a message.
pub(crate) enum Ruling {
    Pass(Passage),
    Deny(Denied),
    /// A long text must be analysed first, on another thread.
    Analyze(Vec<u8>),
    /// Nothing may pass unrecorded, and the decision log has no room.
    LogFull,
}

/// A denial, and the label it is counted under.
pub(crate) struct Denied {
    pub(crate) denied: session::Denied,
    pub(crate) reason: &'static str,
}

/// The rights of one session.
pub(crate) struct Gate {
    /// `None`: a session without a valid token; it passes, and lives only while verification does not enforce.
    pub(crate) role: Option<Arc<Role>>,
    pub(crate) caller: Arc<Caller>,
    pub(crate) settings: watch::Receiver<Arc<Settings>>,
    pub(crate) analyses: Analyses,
    pub(crate) audit: Audit,
    /// A long text that was analysed aside, for the message that waits for it.
    pub(crate) prepared: Option<Handle>,
    /// What was let through that the role may not run, while nothing was enforced.
    pub(crate) lax: Option<Lax>,
    /// What was let through under a name, for the day that the role changes.
    pub(crate) named: Named,
    /// The span of the request that is ruled on.
    pub(crate) traced: Option<Traced>,
}

impl Gate {
    /// Rules on the client's next message.
    pub(super) fn rule(&mut self, message: &ClientMessage<'_>, session: &Session<Handle>) -> Ruling {
        if !self.audit.log.has_room() {
            return Ruling::LogFull;
        }
        match message {
            ClientMessage::Text { name, text, .. } => {
                let ruling = self.text(text);
                if let Ruling::Pass(passage) = &ruling {
                    self.named.parsed(name, passage.handle.as_ref());
                }
                ruling
            }
            ClientMessage::TextTooLong { .. } => self.too_long(),
            ClientMessage::FunctionCall { .. } => self.function_call(),
            ClientMessage::Bind { portal, statement, .. } if self.decides_again() || !portal.is_empty() => {
                let earlier = session.statement(statement);
                self.named.bound(portal, &earlier);
                if self.decides_again() { self.again(statement, &earlier) } else { pass(None, Why::NoDecision) }
            }
            ClientMessage::Execute { portal, .. } if self.decides_again() => {
                self.again(portal, &session.portal(portal))
            }
            _ => pass(None, Why::NoDecision),
        }
    }

    /// Gives the session the rights of a fresh token from the next message on.
    pub(super) fn renew(&mut self, role: &Arc<Role>) {
        if self.role.as_ref() != Some(role) {
            self.named.role_changed(role);
            self.role = Some(role.clone());
        }
    }

    /// Whether anything may be prepared or bound that the rights of now do not cover.
    fn decides_again(&self) -> bool {
        self.lax.is_some() || self.role.is_none() || self.named.role_has_changed()
    }

    /// Whether texts that were let through may have changed what later ones mean.
    pub(super) fn is_tainted(&self) -> bool {
        self.lax.as_ref().is_some_and(Lax::changed_session)
    }

    /// Whether a name in a text may stand for what the rights of now do not cover.
    fn distrusts_names(&self) -> bool {
        self.lax.is_some() || self.named.is_distrusted()
    }

    fn mode(&self) -> Verify {
        self.settings.borrow().verify
    }

    /// Rules on an SQL text.
    pub(crate) fn text(&mut self, text: &[u8]) -> Ruling {
        if text.len() > TEXT_LIMIT {
            return self.too_long();
        }
        if self.role.is_none() && self.mode() != Verify::Observe {
            return self.unverified();
        }
        let started = Instant::now();
        let prepared = self.prepared.take();
        let Some(analysis) = prepared.or_else(|| self.analyses.get(text)) else {
            return Ruling::Analyze(text.to_vec());
        };
        let Some(role) = self.role.clone() else {
            return self.observed(analysis, started);
        };
        let verdict = match &analysis.facts {
            Ok(facts) if self.mode() == Verify::Enforce && self.distrusts_names() && uses_names(facts) => {
                return self.unknown_statement(started);
            }
            Ok(facts) => policy::decide(&role, facts),
            Err(reason) => Verdict::Deny(reason.denial(&role)),
        };
        self.conclude(verdict, Some(&analysis), started)
    }

    /// A session without a role is let through until verification enforces; then it ends, and until it has, nothing
    /// more passes.
    fn unverified(&self) -> Ruling {
        if self.mode() != Verify::Enforce {
            return pass(None, Why::NotEnforced);
        }
        let id = new_decision_id();
        self.record(&id, false, ("statement", "unverified", None), Needs::Unknown, Instant::now());
        let fields = ErrorFields::error("42501", "sidegate: this session has shown no token");
        deny("unverified", id.clone(), fields.detail(detail(&id, &self.caller)))
    }

    /// The same where everything is to be recorded: what is done without a role now, somebody will want to grant.
    fn observed(&self, analysis: Handle, started: Instant) -> Ruling {
        let id = new_decision_id();
        let action = action_of(Some(&analysis));
        self.record(&id, false, (action, "unverified", None), Needs::Text(analysis.clone()), started);
        Ruling::Pass(Passage { handle: Some(analysis), decision: Some(id), _why: Why::NotEnforced })
    }

    fn function_call(&mut self) -> Ruling {
        let started = Instant::now();
        match self.role.clone() {
            Some(role) => self.conclude(policy::decide_function_call(&role), None, started),
            None => self.unverified_without_text(Needs::Fact(&policy::FUNCTION_CALL), started),
        }
    }

    /// What has no text that could be looked at is recorded, too, where everything is.
    fn unverified_without_text(&self, needs: Needs, started: Instant) -> Ruling {
        if self.mode() == Verify::Observe {
            self.record(&new_decision_id(), false, ("statement", "unverified", None), needs, started);
        }
        self.unverified()
    }

    fn too_long(&mut self) -> Ruling {
        let limit = TEXT_LIMIT;
        let fields = ErrorFields::error("54000", format!("sidegate: the statement is longer than {limit} bytes"))
            .hint("Send bulk data by COPY, or as parameters.");
        self.without_facts("too_long", fields, Instant::now())
    }

    /// A denial that no role could lift.
    fn without_facts(&mut self, reason: &'static str, fields: ErrorFields, started: Instant) -> Ruling {
        if self.role.is_none() {
            return self.unverified_without_text(Needs::Unknown, started);
        }
        let id = new_decision_id();
        let mode = self.mode();
        self.record(&id, false, ("statement", reason, None), Needs::Unknown, started);
        let fields = fields.detail(detail(&id, &self.caller));
        self.deny_or_observe(mode, None, id, |id| deny(reason, id, fields))
    }

    /// Decides anew what was prepared or bound when the rights were others.
    fn again(&mut self, name: &[u8], earlier: &[&Handle]) -> Ruling {
        let Some(role) = self.role.clone() else {
            return self.unverified();
        };
        let started = Instant::now();
        let mut permit = None;
        let known = if self.named.may_be_sqls(name) { &[] } else { earlier };
        for analysis in known {
            let verdict = match &analysis.facts {
                Ok(facts) => policy::decide(&role, facts),
                Err(reason) => Verdict::Deny(reason.denial(&role)),
            };
            match verdict {
                Verdict::Allow(allowed) => permit = Some(allowed),
                Verdict::Deny(_) => return self.conclude(verdict, Some(analysis), started),
            }
        }
        match permit {
            Some(permit) => pass(None, Why::Permitted { _permit: permit }),
            None => self.unknown_statement(started),
        }
    }

    fn unknown_statement(&mut self, started: Instant) -> Ruling {
        let fields = ErrorFields::error("42501", "sidegate: what this statement does was never decided")
            .hint("It may be from when other rights held, or none were enforced: reconnect.");
        self.without_facts("unknown_statement", fields, started)
    }

    fn conclude(&mut self, verdict: Verdict, analysis: Option<&Handle>, started: Instant) -> Ruling {
        let id = new_decision_id();
        let needs = analysis.map_or(Needs::Fact(&policy::FUNCTION_CALL), |analysis| Needs::Text(analysis.clone()));
        match verdict {
            Verdict::Allow(permit) => {
                let labels = (action_of(analysis), "allowed", None);
                self.record(&id, true, labels, needs, started);
                let why = Why::Permitted { _permit: permit };
                self.named.passed(analysis);
                Ruling::Pass(Passage { handle: analysis.cloned(), decision: Some(id), _why: why })
            }
            Verdict::Deny(denial) => {
                let labels = (denial.action(), denial.reason(), denial.rule().map(ToOwned::to_owned));
                self.record(&id, false, labels, needs, started);
                let mode = self.mode();
                let caller = self.caller.clone();
                self.deny_or_observe(mode, analysis, id, |id| denied(id, &denial, &caller))
            }
        }
    }

    fn deny_or_observe(
        &mut self,
        mode: Verify,
        analysis: Option<&Handle>,
        id: String,
        denied: impl FnOnce(String) -> Ruling,
    ) -> Ruling {
        if mode == Verify::Enforce {
            return denied(id);
        }
        self.lax.get_or_insert_default().note(analysis);
        self.named.passed(analysis);
        Ruling::Pass(Passage { handle: analysis.cloned(), decision: Some(id), _why: Why::NotEnforced })
    }

    fn record(
        &self,
        id: &str,
        allowed: bool,
        (action, reason, rule): (&'static str, &'static str, Option<String>),
        needs: Needs,
        started: Instant,
    ) {
        let role = self.role.as_ref();
        let mode = self.mode();
        let decision = Decision { id, allowed, mode, action, reason, rule, role, needs, started };
        if let Some(traced) = &self.traced {
            traced.decided(&self.caller, &decision);
        }
        self.audit.record(&self.caller, decision);
    }
}

/// Whether a text runs what an earlier one prepared or declared.
fn uses_names(facts: &Facts) -> bool {
    !facts.executes().is_empty() || !facts.fetches().is_empty()
}

fn pass(handle: Option<Handle>, why: Why) -> Ruling {
    Ruling::Pass(Passage { handle, decision: None, _why: why })
}

/// The label of an allowed text: its first fact's action, as a text may need many.
fn action_of(analysis: Option<&Handle>) -> &'static str {
    let facts = analysis.and_then(|analysis| analysis.facts.as_ref().ok());
    facts.map(Facts::needs).and_then(<[_]>::first).map_or("none", |fact| fact.action.label())
}

fn deny(reason: &'static str, id: String, fields: ErrorFields) -> Ruling {
    Ruling::Deny(Denied { denied: session::Denied { id, fields }, reason })
}

fn denied(id: String, denial: &Denial, caller: &Caller) -> Ruling {
    let fields = ErrorFields::error("42501", denial.message()).detail(detail(&id, caller)).hint(denial.hint());
    deny(denial.reason(), id, fields)
}

fn detail(id: &str, caller: &Caller) -> String {
    match &caller.subject {
        Some(subject) => format!("Decision {id} on {subject}."),
        None => format!("Decision {id} on a session without a token."),
    }
}
