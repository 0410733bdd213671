//! From traffic to policy: the least AccessRoles and AccessGrants that cover what a decision log has seen.
//!
//! One role a service and subject: a session whose token grants exactly one role gets it, whatever name the client asks
//! for, so nothing needs to change in clients. Nothing is widened: no wildcard is written, only proposed. What cannot be
//! covered is counted and named in comments. Absent on purpose: files; documents that are there already.

use std::collections::BTreeMap;

use identity::{ServiceName, Subject};

use crate::documents::is_identifier;
use crate::facts::Fact;
use crate::least::{self, Needs, Target, Way};
use crate::record::{Reason, Record, RecordedVerdict, Touched};
use crate::role::Level;

mod print;

/// Bytes of names and paths that are kept: clients choose both, and a log of a year must not fill the memory.
const ROOM: usize = 64 << 20;

/// What one more name costs beside its bytes, roughly.
const ENTRY: usize = 200;

/// What is to be suggested for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only this service.
    pub service: Option<ServiceName>,
    /// PostgreSQL's login in all roles, instead of those that were seen.
    pub user: Option<String>,
}

/// The traffic seen, gathered.
#[derive(Debug)]
pub struct Suggestion {
    options: Options,
    room: usize,
    pairs: BTreeMap<(ServiceName, Subject), Pair>,
    uncovered: Uncovered,
    records: u64,
}

/// Records that no document can cover, by why.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Uncovered {
    /// By service.
    without_subject: BTreeMap<String, u64>,
    foreign_subject: u64,
    unknown_service: u64,
    other_schema: u64,
    lost: u64,
    no_room: u64,
}

/// What a subject did with a service.
#[derive(Debug, Default)]
struct Pair {
    seen: Seen,
    /// The roles that sessions had.
    roles: BTreeMap<String, u64>,
    logins: u64,
    /// Whether a login or statement needs a role for PostgreSQL.
    sql: bool,
    users: BTreeMap<String, User>,
    databases: BTreeMap<String, Seen>,
    needs: Needs,
    /// How often each object of a rule was needed.
    targets: BTreeMap<Target, Seen>,
    /// The same for what no rule opens.
    forced: BTreeMap<String, (Level, Seen)>,
    requests: BTreeMap<(String, String), Seen>,
    /// What nobody may, or no rule can say, by how it is called.
    closed: BTreeMap<String, Seen>,
    /// Refused whatever the rules.
    refused: u64,
    /// What was needed is not known, or not all.
    unknown: u64,
    configuration: u64,
}

/// Who statements ran as.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct User {
    writes: u64,
    statements: u64,
}

/// How often and when.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Seen {
    count: u64,
    denied: u64,
    first: String,
    last: String,
}

impl Seen {
    fn note(&mut self, record: &Record, denied: bool) {
        if self.count == 0 || record.time < self.first {
            self.first.clone_from(&record.time);
        }
        if record.time > self.last {
            self.last.clone_from(&record.time);
        }
        self.count += 1;
        self.denied += u64::from(denied);
    }
}

impl Suggestion {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self { options, room: ROOM, pairs: BTreeMap::new(), uncovered: Uncovered::default(), records: 0 }
    }

    /// Takes a record in.
    pub fn add(&mut self, record: &Record) {
        let Ok(service) = record.service.parse::<ServiceName>() else {
            return self.uncovered.unknown_service += 1;
        };
        if self.options.service.as_ref().is_some_and(|only| *only != service) {
            return;
        }
        self.records += 1;
        let Some(subject) = &record.subject else {
            return *self.uncovered.without_subject.entry(record.service.clone()).or_default() += 1;
        };
        let Ok(subject) = subject.parse::<Subject>() else { return self.uncovered.foreign_subject += 1 };
        let pair = self.pairs.entry((service, subject)).or_default();
        if pair.add(record, &mut self.room).is_none() {
            self.uncovered.no_room += 1;
        }
    }

    /// Counts records of another version, which are not covered.
    pub fn add_unreadable(&mut self, count: u64) {
        self.uncovered.other_schema += count;
    }

    /// Counts records that the log itself says are missing.
    pub fn add_lost(&mut self, count: u64) {
        self.uncovered.lost += count;
    }
}

/// Takes room for a name; `None` if there is none left.
fn take(room: &mut usize, name: usize) -> Option<()> {
    *room = room.checked_sub(name + ENTRY)?;
    Some(())
}

impl Pair {
    /// `None` if there was no room, and nothing is covered.
    fn add(&mut self, record: &Record, room: &mut usize) -> Option<()> {
        self.seen.note(record, !record.is_allowed());
        match (record.kind_of_reason(), &record.objects) {
            (Reason::Request, _) => self.refused += 1,
            (_, None) => self.unknown += 1,
            _ if record.objects_omitted > 0 => self.unknown += 1,
            // A login that was refused before anybody knew to which database.
            _ if record.is_login() && record.database.is_none() => self.unknown += 1,
            (_, Some(objects)) if record.is_http() => self.request(record, objects, room)?,
            (_, Some(objects)) => self.statement(record, objects, room)?,
        }
        Some(())
    }

    fn request(&mut self, record: &Record, objects: &[Touched], room: &mut usize) -> Option<()> {
        let [Touched { action: method, path: Some(path), .. }] = objects else {
            self.unknown += 1;
            return Some(());
        };
        if !least::is_request_of_rules(method, path) {
            return note(&mut self.closed, format!("{method} {path}"), record, !record.is_allowed(), room);
        }
        let key = (method.clone().into_owned(), path.clone());
        if !self.requests.contains_key(&key) {
            take(room, method.len() + path.len())?;
        }
        self.requests.entry(key).or_default().note(record, !record.is_allowed());
        Some(())
    }

    fn statement(&mut self, record: &Record, objects: &[Touched], room: &mut usize) -> Option<()> {
        let facts: Option<Vec<_>> = objects.iter().map(|touched| Some((touched.fact()?, touched.denied))).collect();
        let Some(facts) = facts else {
            self.unknown += 1;
            return Some(());
        };
        let closed = facts.iter().find(|(fact, _)| least::way(fact) == Way::Closed);
        if let Some((fact, _)) = closed {
            return note(&mut self.closed, fact.to_string(), record, true, room);
        }
        let database = record.database.clone().unwrap_or_default();
        if !is_identifier(&database) {
            return note(&mut self.closed, format!("connect to the database {database:?}"), record, true, room);
        }
        let size: usize = facts.iter().map(|(fact, _)| self.size_of(fact)).sum();
        if size > 0 {
            take(room, size)?;
        }
        self.session(record, database, room)?;
        self.needs.add(facts.iter().map(|(fact, _)| fact));
        self.count(record, &facts);
        Some(())
    }

    /// What a fact would take in memory that is not there yet.
    fn size_of(&self, fact: &Fact) -> usize {
        match least::way(fact) {
            Way::Rule { target, .. } if !self.targets.contains_key(&target) => 2 * target.name.len() + ENTRY,
            Way::Level(_) if !self.forced.contains_key(&fact.to_string()) => 2 * fact.to_string().len() + ENTRY,
            _ => 0,
        }
    }

    /// What its session needs.
    fn session(&mut self, record: &Record, database: String, room: &mut usize) -> Option<()> {
        self.sql = true;
        self.logins += u64::from(record.is_login());
        self.configuration += u64::from(record.kind_of_reason() == Reason::Configuration);
        note(&mut self.databases, database, record, !record.is_allowed(), room)?;
        if let Some(role) = &record.role {
            *self.roles.entry(role.clone()).or_default() += 1;
        }
        if let Some(user) = &record.user {
            let user = self.users.entry(user.clone()).or_default();
            user.statements += u64::from(!record.is_login());
            user.writes += u64::from(record.objects.iter().flatten().any(is_write));
        }
        Some(())
    }

    /// Counts each object once a statement, whatever was done to it.
    fn count(&mut self, record: &Record, facts: &[(Fact, bool)]) {
        let unknown_role = record.role.is_none() && record.verdict == RecordedVerdict::Deny;
        let mut targets: BTreeMap<Target, bool> = BTreeMap::new();
        let mut forced: BTreeMap<String, (Level, bool)> = BTreeMap::new();
        for (fact, denied) in facts {
            let denied = *denied || unknown_role;
            match least::way(fact) {
                Way::Rule { target, .. } => *targets.entry(target).or_default() |= denied,
                Way::Level(level) => {
                    let entry = forced.entry(fact.to_string()).or_insert((level, false));
                    *entry = (entry.0.max(level), entry.1 || denied);
                }
                Way::Free | Way::NotReader | Way::Closed => {}
            }
        }
        for (target, denied) in targets {
            self.targets.entry(target).or_default().note(record, denied);
        }
        for (words, (level, denied)) in forced {
            let entry = self.forced.entry(words).or_insert((level, Seen::default()));
            entry.0 = entry.0.max(level);
            entry.1.note(record, denied);
        }
    }
}

/// Whether an object says that a row was changed.
fn is_write(touched: &Touched) -> bool {
    matches!(&*touched.action, "insert" | "update" | "delete" | "merge" | "truncate")
}

fn note(
    names: &mut BTreeMap<String, Seen>,
    name: String,
    record: &Record,
    denied: bool,
    room: &mut usize,
) -> Option<()> {
    if !names.contains_key(&name) {
        take(room, name.len())?;
    }
    names.entry(name).or_default().note(record, denied);
    Some(())
}

#[cfg(test)]
mod tests;
