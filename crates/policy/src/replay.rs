//! Deciding again what a log says was decided, by documents that are not in force: what would break, and what would open.
//!
//! A session has the role that a sidecar would give it: the only one, else that of the name that its client asked for,
//! which no record has. What cannot be decided again is counted and never called allowed. Absent on purpose: files, and what a sidecar's own
//! configuration decides.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use identity::access::AuthorizationDetail;
use identity::{ServiceName, Subject};
use serde::Serialize;

use crate::facts::Facts;
use crate::http::{HttpRole, HttpVerdict, Path};
use crate::record::{METHOD_LIMIT, Reason, Record, Touched};
use crate::role::Role;
use crate::snapshot::Snapshot;
use crate::{Verdict, decide, http};

/// Kinds of changes that are told one by one; a log whose every line is of another kind must not fill the memory.
const GROUPS_LIMIT: usize = 10_000;

/// What a draft says of a recorded decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Again {
    /// It would be allowed, by this role.
    Allow(String),
    /// It would be denied.
    Deny(Denied),
    /// It cannot be told; why, in words of a short list.
    Unknown(&'static str),
}

/// Why a draft denies something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// The role that the session would have; none: it would not begin.
    pub role: Option<String>,
    /// What is denied.
    pub action: String,
    /// To what.
    pub object: String,
    /// `no_rule`, `role`, …, as records say it, or in words why there would be no role.
    pub reason: String,
}

/// Documents that are not in force.
pub struct Draft {
    snapshot: Snapshot,
    known: HashMap<(String, String), Option<Arc<Granted>>>,
}

/// The roles of a subject for a service.
#[derive(Debug, Default)]
struct Granted {
    postgres: Vec<Role>,
    http: Vec<HttpRole>,
}

impl Draft {
    /// The draft that these documents are.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Self {
        Self { snapshot, known: HashMap::new() }
    }

    /// Decides again.
    pub fn decide(&mut self, record: &Record) -> Again {
        match record.kind_of_reason() {
            Reason::Request => return Again::Deny(denied(None, record.objects.as_deref(), record, &record.reason)),
            Reason::Configuration if record.role.is_none() => {
                return Again::Unknown("the sidecar's configuration decided");
            }
            Reason::Configuration | Reason::Unverified | Reason::Policy => {}
        }
        let Some(subject) = &record.subject else { return Again::Unknown("no subject") };
        let Some(objects) = &record.objects else { return Again::Unknown("what it needed was not recorded") };
        let Some(granted) = self.granted(subject, &record.service) else {
            return Again::Unknown("the name of the subject or the service is none that documents can say");
        };
        if record.is_http() { requested(&granted, objects, record) } else { stated(&granted, objects, record) }
    }

    fn granted(&mut self, subject: &str, service: &str) -> Option<Arc<Granted>> {
        let key = (subject.to_owned(), service.to_owned());
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let granted = self.compile(subject, service).map(Arc::new);
        if self.known.len() < GROUPS_LIMIT {
            self.known.insert(key, granted.clone());
        }
        granted
    }

    fn compile(&self, subject: &str, service: &str) -> Option<Granted> {
        let (subject, service): (Subject, ServiceName) = (subject.parse().ok()?, service.parse().ok()?);
        let mut granted = Granted::default();
        for detail in self.snapshot.granted(&subject, &service) {
            match detail {
                AuthorizationDetail::Postgresql(detail) => granted.postgres.push(Role::from_detail(&detail).ok()?),
                AuthorizationDetail::Http(detail) => granted.http.push(HttpRole::from_detail(&detail).ok()?),
            }
        }
        Some(granted)
    }
}

/// A login or a statement, by the role that the session would have. A client with several roles asks for one by name;
/// with one it gets that, whatever name it says, so that a recorded role does not tell which name that was.
fn stated(granted: &Granted, objects: &[Touched], record: &Record) -> Again {
    let several = match granted.postgres.as_slice() {
        [] => return Again::Deny(denied(None, Some(objects), record, "role not granted")),
        [only] => return by_role(only, objects, record),
        several => several,
    };
    let same = several.iter().find(|role| Some(role.name()) == record.role.as_deref());
    if let Some(denied @ Again::Deny(_)) = same.map(|role| by_role(role, objects, record)) {
        return denied;
    }
    if several.iter().all(|role| matches!(by_role(role, objects, record), Again::Deny(_))) {
        let names: Vec<_> = several.iter().map(Role::name).collect();
        return Again::Deny(denied(None, Some(objects), record, &format!("several roles: {}", names.join(", "))));
    }
    Again::Unknown("several roles: it depends on the name that clients ask for")
}

fn by_role(role: &Role, objects: &[Touched], record: &Record) -> Again {
    let Some(database) = record.database.as_deref() else {
        return Again::Unknown("what it needed was not recorded");
    };
    if !role.databases().is_empty() && !role.databases().iter().any(|name| name == database) {
        return Again::Deny(Denied {
            role: Some(role.name().to_owned()),
            action: "connect".to_owned(),
            object: format!("database {database}"),
            reason: "database".to_owned(),
        });
    }
    if record.kind_of_reason() == Reason::Configuration && role.user().is_none() {
        return Again::Unknown("the sidecar's configuration decided");
    }
    // A fact that is not understood may be one that denies, but one that is denied is enough.
    let facts: Vec<_> = objects.iter().filter_map(Touched::fact).collect();
    let all = facts.len() == objects.len() && record.objects_omitted == 0;
    match decide(role, &Facts::from_parts(facts, Default::default())) {
        Verdict::Deny(denial) => Again::Deny(Denied {
            role: Some(role.name().to_owned()),
            action: denial.action().to_owned(),
            object: denial.object().to_owned(),
            reason: denial.reason().to_owned(),
        }),
        Verdict::Allow(_) if all => Again::Allow(role.name().to_owned()),
        Verdict::Allow(_) => Again::Unknown("not all that it needed was recorded"),
    }
}

fn requested(granted: &Granted, objects: &[Touched], record: &Record) -> Again {
    let [Touched { action: method, path: Some(path), .. }] = objects else {
        return Again::Unknown("what it needed was not recorded");
    };
    if method.len() >= METHOD_LIMIT {
        return Again::Unknown("not all that it needed was recorded");
    }
    let Ok(path) = Path::normalize(path) else { return Again::Unknown("what it needed was not recorded") };
    match http::decide(&granted.http, method, &path) {
        HttpVerdict::Allow(permit) => Again::Allow(permit.role().to_owned()),
        HttpVerdict::Deny(denial) => {
            let names: Vec<_> = granted.http.iter().map(HttpRole::name).collect();
            let role = (!names.is_empty()).then(|| names.join(", "));
            Again::Deny(denied(role, Some(objects), record, denial.reason()))
        }
    }
}

/// A denial in the words of what was recorded.
fn denied(role: Option<String>, objects: Option<&[Touched]>, record: &Record, reason: &str) -> Denied {
    let first = objects.and_then(|objects| objects.iter().find(|one| one.denied).or_else(|| objects.first()));
    let (action, object) = match first {
        Some(touched) => (touched.action.clone().into_owned(), touched.shown()),
        None => (record.action.clone().into_owned(), record.database.clone().unwrap_or_default()),
    };
    Denied { role, action, object, reason: reason.to_owned() }
}

/// How a draft's verdict differs from the recorded one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Allowed then, denied by the draft.
    NewlyDenied,
    /// Denied then, allowed by the draft.
    NewlyAllowed,
    /// Denied then and by the draft.
    StillDenied,
}

/// Decisions that differ in nothing but time and values.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Group {
    /// How they differ from what was recorded.
    pub change: Change,
    /// What was called.
    pub service: String,
    /// Who called.
    pub subject: String,
    /// The role that they would have.
    pub role: Option<String>,
    /// What is denied, or was.
    pub action: String,
    /// To what.
    pub object: String,
    /// Why it is denied, or was.
    pub reason: String,
}

/// How many there are of a group, and one of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Count {
    /// How many.
    pub count: u64,
    /// The id of the first.
    pub example: String,
}

/// Numbers of decisions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// All that were read.
    pub decisions: u64,
    /// Allowed then and by the draft.
    pub allowed: u64,
    /// Allowed then, denied by the draft.
    pub newly_denied: u64,
    /// Denied then, allowed by the draft.
    pub newly_allowed: u64,
    /// Denied then and by the draft.
    pub still_denied: u64,
    /// Those that cannot be decided again, by why.
    pub not_decided: BTreeMap<&'static str, u64>,
    /// Changes that are in the totals and in no group, as there were too many groups.
    pub ungrouped: u64,
}

/// What a draft would have done, gathered.
#[derive(Debug, Default)]
pub struct Replay {
    groups: BTreeMap<Group, Count>,
    totals: Totals,
}

impl Replay {
    /// Decides a record again, and counts.
    pub fn add(&mut self, draft: &mut Draft, record: &Record) {
        self.totals.decisions += 1;
        let again = draft.decide(record);
        let change = match (record.is_allowed(), &again) {
            (_, Again::Unknown(why)) => return *self.totals.not_decided.entry(why).or_default() += 1,
            (true, Again::Allow(_)) => return self.totals.allowed += 1,
            (true, Again::Deny(_)) => Change::NewlyDenied,
            (false, Again::Allow(_)) => Change::NewlyAllowed,
            (false, Again::Deny(_)) => Change::StillDenied,
        };
        *match change {
            Change::NewlyDenied => &mut self.totals.newly_denied,
            Change::NewlyAllowed => &mut self.totals.newly_allowed,
            Change::StillDenied => &mut self.totals.still_denied,
        } += 1;
        self.group(change, again, record);
    }

    /// Counts records of another version, which are not decided again.
    pub fn add_unreadable(&mut self, count: u64) {
        if count > 0 {
            self.totals.decisions += count;
            *self.totals.not_decided.entry("a schema that this version does not know").or_default() += count;
        }
    }

    /// The groups, what is newly denied first.
    pub fn groups(&self) -> impl Iterator<Item = (&Group, &Count)> {
        self.groups.iter()
    }

    /// The numbers.
    #[must_use]
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    fn group(&mut self, change: Change, again: Again, record: &Record) {
        let denied = match again {
            Again::Deny(denied) => denied,
            Again::Allow(role) => denied(Some(role), record.objects.as_deref(), record, &record.reason),
            Again::Unknown(_) => return,
        };
        let group = Group {
            change,
            service: record.service.clone(),
            subject: record.subject.clone().unwrap_or_default(),
            role: denied.role,
            action: denied.action,
            object: denied.object,
            reason: denied.reason,
        };
        if let Some(count) = self.groups.get_mut(&group) {
            count.count += 1;
        } else if self.groups.len() < GROUPS_LIMIT {
            self.groups.insert(group, Count { count: 1, example: record.decision.clone() });
        } else {
            self.totals.ungrouped += 1;
        }
    }
}

#[cfg(test)]
mod tests;
