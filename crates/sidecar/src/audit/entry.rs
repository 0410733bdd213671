//! A line of the decision log, put into words on the log's own thread.
//!
//! Deliberately absent: SQL text, parameter values and anything else that a client chose but for the names of objects
//! and paths, as those are what a decision is about.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use policy::record::{OBJECTS_LIMIT, Record, RecordedVerdict, SCHEMA, Touched};
use policy::{Fact, Role};
use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::{Caller, Needs};

/// RFC 3339 with as many digits always, so that lines sort by it.
const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// What is in the log.
pub(crate) enum Entry {
    /// A decision.
    Decided(Box<Decided>),
    /// The sidecar of a service begins to serve.
    Started { at: SystemTime, service: String },
    /// Decisions are missing here.
    Lost { at: SystemTime, count: u64 },
}

/// A decision, not yet in words.
pub(crate) struct Decided {
    pub(super) at: SystemTime,
    pub(super) id: String,
    pub(super) caller: Arc<Caller>,
    pub(super) role: Option<Arc<Role>>,
    pub(super) action: &'static str,
    pub(super) needs: Needs,
    pub(super) verdict: RecordedVerdict,
    pub(super) rule: Option<String>,
    pub(super) reason: &'static str,
    pub(super) mode: &'static str,
    pub(super) took: Duration,
}

/// A line that is no decision. The order of fields is the order of the line.
#[derive(Serialize)]
struct Event<'a> {
    schema: u32,
    time: String,
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
}

impl Entry {
    pub(super) fn decided(decided: Decided) -> Self {
        Self::Decided(Box::new(decided))
    }

    pub(crate) fn started(service: String) -> Self {
        Self::Started { at: SystemTime::now(), service }
    }
}

impl runtime::decision_log::Entry for Entry {
    fn lost(count: u64) -> Self {
        Self::Lost { at: SystemTime::now(), count }
    }

    fn has_id(&self, id: &str) -> bool {
        matches!(self, Self::Decided(decided) if decided.id == id)
    }
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let event = |at, event, service, count| Event { schema: SCHEMA, time: timestamp(at), event, service, count };
        match self {
            Self::Decided(decided) => decided.record().serialize(serializer),
            Self::Started { at, service } => event(*at, "started", Some(service), None).serialize(serializer),
            Self::Lost { at, count } => event(*at, "lost", None, Some(*count)).serialize(serializer),
        }
    }
}

impl Decided {
    fn record(&self) -> Record {
        let (objects, objects_omitted) = self.objects();
        let caller = &*self.caller;
        Record {
            schema: SCHEMA,
            time: timestamp(self.at),
            decision: self.id.clone(),
            subject: caller.subject.as_ref().map(ToString::to_string),
            act: caller.act.clone(),
            service: caller.service.to_string(),
            role: caller.role.clone(),
            user: caller.user.clone(),
            database: caller.database.clone(),
            action: self.action.into(),
            objects,
            objects_omitted,
            verdict: self.verdict,
            rule: self.rule.clone().or_else(|| self.opened_by()),
            reason: self.reason.into(),
            mode: self.mode.into(),
            duration_us: self.took.as_nanos() as f64 / 1e3,
            fingerprint: match &self.needs {
                Needs::Text(analysis) => Some(analysis.fingerprint.clone()),
                _ => None,
            },
        }
    }

    fn facts(&self) -> Option<&[Fact]> {
        match &self.needs {
            Needs::Text(analysis) => analysis.facts.as_ref().ok().map(policy::Facts::needs),
            Needs::Fact(fact) => Some(std::slice::from_ref(*fact)),
            Needs::Login => Some(&[]),
            Needs::Unknown | Needs::Request { .. } => None,
        }
    }

    /// What is shown of what was needed, and how much is left out.
    fn objects(&self) -> (Option<Vec<Touched>>, usize) {
        if let Needs::Request { method, path } = &self.needs {
            let denied = self.verdict == RecordedVerdict::Deny;
            return (path.as_ref().map(|path| vec![Touched::of_request(method, path, denied)]), 0);
        }
        let Some(facts) = self.facts() else { return (None, 0) };
        let role = self.role.as_deref();
        let touched = |fact| Touched::of_fact(fact, role);
        // What was denied comes first where not all of it is shown.
        let mut shown: Vec<Touched> = facts.iter().map(touched).collect();
        let omitted = shown.len().saturating_sub(OBJECTS_LIMIT);
        if omitted > 0 {
            shown.sort_by_key(|touched| !touched.denied);
            shown.truncate(OBJECTS_LIMIT);
        }
        (Some(shown), omitted)
    }

    fn opened_by(&self) -> Option<String> {
        let allowed = self.verdict == RecordedVerdict::Allow;
        let role = self.role.as_deref().filter(|_| allowed)?;
        policy::opened_by(role, self.facts()?)
    }
}

fn timestamp(at: SystemTime) -> String {
    OffsetDateTime::from(at).format(TIME).unwrap_or_default()
}
