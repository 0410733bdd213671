//! A line of the decision log, put into words on the log's own thread.
//!
//! Deliberately absent: SQL text, parameter values and anything else that a client chose but for the names of objects
//! and paths, as those are what a decision is about.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use policy::record::{OBJECTS_LIMIT, RecordedVerdict, SCHEMA, Touched};
use policy::{Fact, Role};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::{Caller, Needs};

/// RFC 3339 with as many digits always, so that lines sort by it.
const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// What a record holds without what was needed, in bytes.
const BASE_WEIGHT: usize = 400;
/// What a thing that was needed holds: a fact with its names, or the same in words.
const FACT_WEIGHT: usize = 160;

impl Needs {
    /// About the memory that a record holds by it.
    fn weight(&self) -> usize {
        match self {
            Self::Login | Self::Unknown | Self::Fact(_) => 0,
            Self::Text(analysis) => analysis.facts.as_ref().map_or(0, |facts| facts.needs().len() * FACT_WEIGHT),
            Self::Many(many) => many.shown.len() * FACT_WEIGHT,
            Self::Request { method, path } => method.len() + path.as_ref().map_or(0, String::len),
        }
    }

    /// The same, with no more than what a line shows of it: a record may be kept for long, and a text can need a hundred
    /// thousand things. What decides a denial comes first.
    pub(super) fn bounded(self, role: Option<&Role>, allowed: bool) -> Self {
        let Self::Text(analysis) = &self else { return self };
        let Ok(facts) = analysis.facts.as_ref().map(policy::Facts::needs) else { return self };
        let omitted = facts.len().saturating_sub(OBJECTS_LIMIT);
        if omitted == 0 {
            return self;
        }
        let touched = |fact| Touched::of_fact(fact, role);
        let mut shown: Vec<Touched> = facts.iter().take(OBJECTS_LIMIT).map(touched).collect();
        if !allowed && !shown.iter().any(|touched| touched.denied) {
            let decisive = facts.iter().skip(OBJECTS_LIMIT).map(touched).find(|touched| touched.denied);
            if let Some(decisive) = decisive {
                shown.pop();
                shown.push(decisive);
            }
        }
        shown.sort_by_key(|touched| !touched.denied);
        let rule = role.filter(|_| allowed).and_then(|role| policy::opened_by(role, facts)).map(Cow::into_owned);
        Self::Many(Box::new(Many { fingerprint: analysis.fingerprint.clone(), shown, omitted, rule }))
    }
}

/// What is shown of what a text needs that needs much.
#[derive(Clone)]
pub(crate) struct Many {
    fingerprint: String,
    shown: Vec<Touched>,
    omitted: usize,
    /// What allowed it.
    rule: Option<String>,
}

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

    fn weight(&self) -> usize {
        match self {
            Self::Decided(decided) => BASE_WEIGHT + decided.needs.weight(),
            Self::Started { .. } | Self::Lost { .. } => BASE_WEIGHT,
        }
    }

    fn is_denial(&self) -> bool {
        matches!(self, Self::Decided(decided) if decided.verdict == RecordedVerdict::Deny)
    }
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let event = |at, event, service, count| Event { schema: SCHEMA, time: timestamp(at), event, service, count };
        match self {
            Self::Decided(decided) => decided.line().serialize(serializer),
            Self::Started { at, service } => event(*at, "started", Some(service), None).serialize(serializer),
            Self::Lost { at, count } => event(*at, "lost", None, Some(*count)).serialize(serializer),
        }
    }
}

/// A decision as [`policy::record::Record`] has it, with the same fields in the same order, borrowed from where they are:
/// there may be many thousand of them a second.
#[derive(Serialize)]
struct Line<'a> {
    schema: u32,
    time: String,
    decision: &'a str,
    subject: Option<&'a str>,
    act: Option<&'a str>,
    service: &'a str,
    role: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<&'a str>,
    action: &'a str,
    objects: Option<Objects<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    objects_omitted: Option<usize>,
    verdict: RecordedVerdict,
    rule: Option<Cow<'a, str>>,
    reason: &'a str,
    mode: &'a str,
    duration_us: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<&'a str>,
}

/// What was needed: of a text that is repeated and allowed, the words are made once.
#[derive(Serialize)]
#[serde(untagged)]
enum Objects<'a> {
    Known(&'a RawValue),
    Borrowed(&'a [Touched]),
    Listed(Vec<Touched>),
}

impl Decided {
    fn line(&self) -> Line<'_> {
        let (objects, omitted) = self.objects();
        let caller = &*self.caller;
        Line {
            schema: SCHEMA,
            time: timestamp(self.at),
            decision: &self.id,
            subject: caller.subject.as_deref(),
            act: caller.act.as_deref(),
            service: &caller.service,
            role: caller.role.as_deref(),
            user: caller.user.as_deref(),
            database: caller.database.as_deref(),
            action: self.action,
            objects,
            objects_omitted: (omitted > 0).then_some(omitted),
            verdict: self.verdict,
            rule: self.rule.as_deref().map(Cow::Borrowed).or_else(|| self.opened_by()),
            reason: self.reason,
            mode: self.mode,
            duration_us: self.took.as_nanos() as f64 / 1e3,
            fingerprint: match &self.needs {
                Needs::Text(analysis) => Some(&analysis.fingerprint),
                Needs::Many(many) => Some(&many.fingerprint),
                _ => None,
            },
        }
    }

    fn is_allowed(&self) -> bool {
        self.verdict == RecordedVerdict::Allow
    }

    fn facts(&self) -> Option<&[Fact]> {
        match &self.needs {
            Needs::Text(analysis) => analysis.facts.as_ref().ok().map(policy::Facts::needs),
            Needs::Fact(fact) => Some(std::slice::from_ref(*fact)),
            Needs::Login => Some(&[]),
            Needs::Unknown | Needs::Request { .. } | Needs::Many(_) => None,
        }
    }

    /// What is shown of what was needed, and how much is left out.
    fn objects(&self) -> (Option<Objects<'_>>, usize) {
        if let Needs::Request { method, path } = &self.needs {
            let touched = |path| vec![Touched::of_request(method, path, !self.is_allowed())];
            return (path.as_deref().map(touched).map(Objects::Listed), 0);
        }
        if let Needs::Many(many) = &self.needs {
            return (Some(Objects::Borrowed(&many.shown)), many.omitted);
        }
        let Some(facts) = self.facts() else { return (None, 0) };
        if let Needs::Text(analysis) = &self.needs
            && let Some(known) = analysis.in_words().filter(|_| self.is_allowed())
        {
            return (Some(Objects::Known(known)), 0);
        }
        let shown = facts.iter().map(|fact| Touched::of_fact(fact, self.role.as_deref())).collect();
        (Some(Objects::Listed(shown)), 0)
    }

    fn opened_by(&self) -> Option<Cow<'_, str>> {
        if let Needs::Many(many) = &self.needs {
            return many.rule.as_deref().map(Cow::Borrowed);
        }
        let role = self.role.as_deref().filter(|_| self.is_allowed())?;
        policy::opened_by(role, self.facts()?)
    }
}

fn timestamp(at: SystemTime) -> String {
    OffsetDateTime::from(at).format(TIME).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use policy::record::Record;

    use super::*;
    use crate::analysis::Analysis;

    fn decided(needs: Needs, role: &str, verdict: RecordedVerdict) -> Decided {
        let role = Arc::new(Role::built_in(role).unwrap());
        let caller = Caller {
            subject: Some("system:serviceaccount:a:a".to_owned()),
            act: None,
            service: "b/b".into(),
            role: Some(role.name().to_owned()),
            user: Some("app_reader".to_owned()),
            database: Some("shop".to_owned()),
        };
        let denied = verdict == RecordedVerdict::Deny;
        let needs = needs.bounded(Some(&role), !denied);
        Decided {
            at: SystemTime::UNIX_EPOCH + Duration::from_micros(1_500_000),
            id: "d".to_owned(),
            caller: Arc::new(caller),
            role: Some(role),
            action: "select",
            needs,
            verdict,
            rule: None,
            reason: if denied { "role" } else { "allowed" },
            mode: "enforce",
            took: Duration::from_nanos(1500),
        }
    }

    fn text(sql: &str) -> Needs {
        Needs::Text(Arc::new(Analysis::of(sql.as_bytes())))
    }

    #[test]
    fn a_line_is_a_record_field_by_field() {
        let wide: String = (0..150).map(|n| format!("table t{n};")).collect::<String>() + "drop table last";
        for (needs, verdict) in [
            (text("select * from public.orders"), RecordedVerdict::Allow),
            (text("delete from orders"), RecordedVerdict::Deny),
            (text("not sql"), RecordedVerdict::Deny),
            (text(&wide), RecordedVerdict::Deny),
            (Needs::Login, RecordedVerdict::Allow),
            (Needs::Unknown, RecordedVerdict::Deny),
            (Needs::Fact(&policy::FUNCTION_CALL), RecordedVerdict::Deny),
            (Needs::Request { method: "GET".to_owned(), path: Some("/x".to_owned()) }, RecordedVerdict::Deny),
            (Needs::Request { method: "GET".to_owned(), path: None }, RecordedVerdict::Deny),
        ] {
            let line = serde_json::to_string(&Entry::decided(decided(needs, "reader", verdict))).unwrap();
            let record: Record = serde_json::from_str(&line).unwrap();
            assert_eq!(serde_json::to_string(&record).unwrap(), line);
        }
    }

    #[test]
    fn what_was_denied_is_shown_where_not_all_is() {
        let wide: String = (0..150).map(|n| format!("table t{n};")).collect::<String>() + "drop table last";
        let decided = decided(text(&wide), "reader", RecordedVerdict::Deny);
        let line = serde_json::to_value(Entry::decided(decided)).unwrap();
        assert_eq!(line["objects"].as_array().unwrap().len(), OBJECTS_LIMIT);
        assert_eq!(line["objects"][0]["denied"], true);
        assert_eq!(line["objects_omitted"], 51);
        assert_eq!(line["time"], "1970-01-01T00:00:01.500000Z");
    }

    #[test]
    fn an_allowed_text_names_what_allowed_it() {
        let decided = decided(text("select 1 from orders"), "writer", RecordedVerdict::Allow);
        let line = serde_json::to_value(Entry::decided(decided)).unwrap();
        assert_eq!((&line["rule"], &line["duration_us"]), (&"writer".into(), &1.5.into()));
        assert!(line["objects"][0].get("denied").is_none());
    }
}
