//! The second lock: the rights of PostgreSQL's own that say what the policy says, should a sidecar ever be passed by.
//!
//! [`logins`] tells what each database login of a service may hold, [`script`] writes it as SQL, [`compare`] holds it
//! against what a server answered. Absent on purpose: connections, and rights that no rule speaks of (on types,
//! languages, large objects, foreign servers).

use std::collections::{BTreeMap, BTreeSet};

use identity::ServiceName;
use identity::access::Rule;

use crate::documents::AccessRole;
use crate::role::Level;
use crate::snapshot::Snapshot;

mod compare;
mod quote;
mod script;

pub use compare::{Difference, Held, Privilege, Standing, Target, compare, is_compared};
pub use script::script;

/// What PostgreSQL calls the things that rules can open of a relation.
pub const RELATION_PRIVILEGES: [&str; 5] = ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE"];

/// And of a sequence.
pub const SEQUENCE_PRIVILEGES: [&str; 3] = ["SELECT", "UPDATE", "USAGE"];

/// A database login and what the policy opens to the sessions that run as it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// Its stored name.
    pub name: String,
    /// The built-in roles whose sessions run as it.
    pub levels: BTreeSet<Level>,
    /// The AccessRoles whose sessions run as it.
    pub roles: BTreeSet<String>,
    /// Whether AccessRoles with different rules share it: PostgreSQL then gives each what any of them has.
    pub shared: bool,
    /// What the AccessRoles open, by the databases that they open; none of them is any.
    pub rights: BTreeMap<BTreeSet<String>, Rights>,
}

/// What rules open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rights {
    /// By schema and name (`None` is the whole schema), privileges as PostgreSQL calls them.
    pub relations: BTreeMap<Name, BTreeSet<&'static str>>,
    /// By schema and name, all overloads.
    pub functions: BTreeSet<Name>,
}

/// A schema, and a stored name in it or all that is in it.
pub type Name = (String, Option<String>);

/// A login that cannot have rights of its own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{of} runs as `{login}`, which is no login of its own in PostgreSQL: give it a name that begins otherwise than pg_ and is neither public nor none"
)]
pub struct NoLogin {
    /// The role.
    pub of: String,
    /// The name.
    pub login: String,
}

/// The logins of a service, by name: those of its AccessRoles, and those of built-in roles as given.
///
/// # Errors
/// A name that PostgreSQL takes for something else: granting to `public` would grant to everyone.
pub fn logins(
    snapshot: &Snapshot,
    service: &ServiceName,
    users: &BTreeMap<Level, String>,
) -> Result<Vec<Login>, NoLogin> {
    let mut logins: BTreeMap<&str, Login> = BTreeMap::new();
    for (level, name) in users {
        usable(level.name(), name)?;
        logins.entry(name).or_insert_with(|| Login::new(name)).levels.insert(*level);
    }
    for role in snapshot.roles().filter(|role| role.service == *service) {
        let Some(postgres) = &role.postgres else { continue };
        usable(&role.name, &postgres.user)?;
        logins.entry(&postgres.user).or_insert_with(|| Login::new(&postgres.user)).add(role, &postgres.rules);
    }
    Ok(logins.into_values().collect())
}

fn usable(of: &str, login: &str) -> Result<(), NoLogin> {
    let special = login == "public" || login == "none" || login.starts_with("pg_");
    if special { Err(NoLogin { of: of.to_owned(), login: login.to_owned() }) } else { Ok(()) }
}

impl Login {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            levels: BTreeSet::new(),
            roles: BTreeSet::new(),
            shared: false,
            rights: BTreeMap::new(),
        }
    }

    fn add(&mut self, role: &AccessRole, rules: &[Rule]) {
        let databases = role.postgres.iter().flat_map(|postgres| postgres.database.iter().cloned()).collect();
        let own = Rights::of(rules);
        let same = self.rights.get(&databases).is_some_and(|rights| *rights == own);
        self.shared |= !self.roles.is_empty() && !same;
        self.roles.insert(role.name.clone());
        self.rights.entry(databases).or_default().extend(own);
    }

    /// The built-in role that PostgreSQL's rights cannot express, if sessions of one run as this login.
    #[must_use]
    pub fn beyond(&self) -> Option<Level> {
        self.levels.iter().rev().find(|level| **level >= Level::Owner).copied()
    }

    /// The AccessRoles' rights in a database.
    pub(crate) fn rights_in<'a>(&'a self, database: &'a str) -> impl Iterator<Item = &'a Rights> {
        let there = move |databases: &BTreeSet<String>| databases.is_empty() || databases.contains(database);
        self.rights.iter().filter(move |(databases, _)| there(databases)).map(|(_, rights)| rights)
    }

    /// What the policy opens of a relation.
    pub(crate) fn opened(&self, database: &str, schema: &str, name: &str) -> BTreeSet<&'static str> {
        let of_levels = self.levels.iter().flat_map(|level| level_privileges(*level)).copied();
        let keys = [(schema.to_owned(), Some(name.to_owned())), (schema.to_owned(), None)];
        let of_rules =
            self.rights_in(database).flat_map(|rights| keys.iter().filter_map(|key| rights.relations.get(key)));
        of_levels.chain(of_rules.flatten().copied()).collect()
    }

    /// What the policy opens of a sequence that feeds defaults of these tables, and what a person may have given besides.
    ///
    /// A rule for `nextval` is for all sequences; which of them PostgreSQL shall give, a person says.
    pub(crate) fn opened_sequence(
        &self,
        database: &str,
        (schema, name): (&str, &str),
        feeds: &[(String, String)],
    ) -> (BTreeSet<&'static str>, BTreeSet<&'static str>) {
        let mut opened = BTreeSet::new();
        if self.opened(database, schema, name).contains("SELECT") {
            opened.insert("SELECT");
        }
        if feeds.iter().any(|(schema, table)| self.opened(database, schema, table).contains("INSERT")) {
            opened.insert("USAGE");
        }
        if self.levels.contains(&Level::Writer) {
            opened.extend(SEQUENCE_PRIVILEGES);
        }
        let calls = |name: &str| self.opens_function(database, "pg_catalog", &[name.to_owned()]);
        let usage = ["nextval", "currval", "lastval"].into_iter().any(calls).then_some("USAGE");
        (opened, usage.into_iter().chain(calls("setval").then_some("UPDATE")).collect())
    }

    /// The roles of PostgreSQL's that sessions of built-in roles get their rights from.
    #[must_use]
    pub fn memberships(&self) -> &'static [&'static str] {
        match self.levels.last() {
            None => &[],
            Some(Level::Reader) => &["pg_read_all_data"],
            Some(_) => &["pg_read_all_data", "pg_write_all_data"],
        }
    }

    /// Whether the policy opens a function that is called, or is behind an operator, by one of these names.
    pub(crate) fn opens_function(&self, database: &str, schema: &str, names: &[String]) -> bool {
        let named = |rights: &Rights| {
            let is = |name: Option<&String>| rights.functions.contains(&(schema.to_owned(), name.cloned()));
            is(None) || names.iter().any(|name| is(Some(name)))
        };
        self.rights_in(database).any(named)
    }
}

/// What a built-in role may do with every relation.
fn level_privileges(level: Level) -> &'static [&'static str] {
    match level {
        Level::Reader => &["SELECT"],
        Level::Writer => &["SELECT", "INSERT", "UPDATE", "DELETE"],
        Level::Owner | Level::Admin => &RELATION_PRIVILEGES,
    }
}

impl Rights {
    fn of(rules: &[Rule]) -> Self {
        let mut rights = Self::default();
        for rule in rules {
            let privileges: BTreeSet<&str> = rule.actions.iter().flat_map(|word| privileges(word)).copied().collect();
            for table in rule.tables.iter().filter_map(|text| name(text)) {
                rights.relations.entry(table).or_default().extend(&privileges);
            }
            rights.functions.extend(rule.functions.iter().filter_map(|text| name(text)));
        }
        rights
    }

    fn extend(&mut self, other: Self) {
        for (relation, privileges) in other.relations {
            self.relations.entry(relation).or_default().extend(privileges);
        }
        self.functions.extend(other.functions);
    }

    /// The schemas that it names.
    pub(crate) fn schemas(&self) -> BTreeSet<&str> {
        self.relations.keys().chain(&self.functions).map(|(schema, _)| schema.as_str()).collect()
    }
}

/// PostgreSQL has no privilege for MERGE: it wants those of what the statement's branches do.
fn privileges(action: &str) -> &'static [&'static str] {
    match action {
        "select" => &["SELECT"],
        "insert" => &["INSERT"],
        "update" => &["UPDATE"],
        "delete" => &["DELETE"],
        "truncate" => &["TRUNCATE"],
        "merge" => &["SELECT", "INSERT", "UPDATE", "DELETE"],
        _ => &[],
    }
}

/// From a stored name; a schema has no dot.
fn name(text: &str) -> Option<Name> {
    let (schema, name) = text.split_once('.')?;
    Some((schema.to_owned(), (name != "*").then(|| name.to_owned())))
}

/// Whether a schema is PostgreSQL's own.
pub(crate) fn is_system(schema: &str) -> bool {
    schema == "information_schema" || schema.starts_with("pg_")
}

#[cfg(test)]
mod tests;
