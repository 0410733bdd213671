//! What the policy opens against what PostgreSQL lets a login do, both ways.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Login, RELATION_PRIVILEGES};

/// Something that rights are held on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A table, view or the like, by its stored name.
    Relation(String),
    /// A sequence: its stored name, and the schemas and names of the tables whose defaults take numbers from it.
    Sequence {
        /// Stored name.
        name: String,
        /// Stored names.
        feeds: Vec<(String, String)>,
    },
    /// The schema itself, in which things can be made.
    Schema,
    /// A function or procedure: its stored name, its arguments' types, and the operators that it is behind.
    Function {
        /// Stored name.
        name: String,
        /// As PostgreSQL writes them.
        arguments: String,
        /// Stored names.
        operators: Vec<String>,
    },
}

/// One privilege of a login as a server tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Privilege {
    /// As PostgreSQL calls it: `SELECT`, `EXECUTE`, and also those that no rule opens, like `TRIGGER`.
    pub name: String,
    /// Whether the login has it on the whole.
    pub whole: bool,
    /// Whether it has it on a part, a column or more.
    pub part: bool,
    /// By what it has it.
    pub why: String,
}

/// What a login holds on one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The thing's schema.
    pub schema: String,
    /// The thing.
    pub target: Target,
    /// One of its privileges.
    pub privilege: Privilege,
}

/// Where policy and PostgreSQL disagree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Difference {
    /// The login.
    pub login: String,
    /// `more`: PostgreSQL lets it do what no rule opens; `less`: PostgreSQL forbids what a rule opens.
    pub way: &'static str,
    /// The privilege, in lower case; empty where the thing itself is missing.
    pub privilege: String,
    /// `schema.name` as stored, or the login.
    pub object: String,
    /// By what it has more, or what is missing.
    pub why: String,
}

/// Whether a login's rights can be compared: what owners and administrators may do is no matter of privileges.
#[must_use]
pub fn is_compared(login: &Login) -> bool {
    login.beyond().is_none()
}

/// What a server says of a login itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Whether sessions can run as it.
    pub can_log_in: bool,
    /// Whether no privilege is asked of it: there is nothing left to compare.
    pub is_superuser: bool,
    /// What else is beyond privileges, as a reason: it creates databases, passes row-level security, is a member of a role
    /// that reads the server's files, and so on.
    pub powers: Vec<String>,
}

/// All differences of a login in a database, by kind and object. `standing` is none where there is no such login; `held` has
/// every relation and function.
#[must_use]
pub fn compare(login: &Login, database: &str, standing: Option<&Standing>, held: &[Held]) -> Vec<Difference> {
    let Some(standing) = standing else {
        return vec![less(login, "", login.name.clone(), "there is no such login")];
    };
    let mut found = BTreeSet::new();
    if !standing.can_log_in {
        found.insert(less(login, "", login.name.clone(), "it may not log in"));
    }
    let powers = standing.powers.iter().map(String::as_str);
    let powers = powers.chain(standing.is_superuser.then_some("it is a superuser, whom no privilege binds"));
    found.extend(powers.map(|why| more(login, "", login.name.clone(), why)));
    if !standing.is_superuser {
        found.extend(held.iter().filter_map(|held| judge(login, database, held)));
        found.extend(missing(login, database, held));
    }
    found.into_iter().collect()
}

fn judge(login: &Login, database: &str, held: &Held) -> Option<Difference> {
    let Held { schema, target, privilege } = held;
    let (open, object) = match target {
        Target::Schema => (false, schema.clone()),
        Target::Sequence { name, feeds } => {
            let (opened, besides) = login.opened_sequence(database, (schema, name), feeds);
            let wanted = opened.contains(privilege.name.as_str());
            if !wanted && besides.contains(privilege.name.as_str()) {
                return None;
            }
            (wanted, format!("{schema}.{name}"))
        }
        Target::Relation(name) => {
            let opened = login.opened(database, schema, name);
            (opened.contains(privilege.name.as_str()), format!("{schema}.{name}"))
        }
        Target::Function { name, arguments, operators } => {
            let names: Vec<String> = std::iter::once(name).chain(operators).cloned().collect();
            (login.opens_function(database, schema, &names), format!("{schema}.{name}({arguments})"))
        }
    };
    match (open, privilege.part, privilege.whole) {
        (false, true, _) => Some(more(login, &privilege.name, object, &privilege.why)),
        (true, _, false) => Some(less(login, &privilege.name, object, "the privilege is missing")),
        _ => None,
    }
}

/// What rules name and the database does not have.
fn missing(login: &Login, database: &str, held: &[Held]) -> Vec<Difference> {
    let mut there: BTreeMap<bool, BTreeSet<(&str, &str)>> = BTreeMap::new();
    for Held { schema, target, .. } in held {
        match target {
            Target::Schema => {}
            Target::Relation(name) | Target::Sequence { name, .. } => {
                _ = there.entry(false).or_default().insert((schema, name))
            }
            Target::Function { name, operators, .. } => {
                let names = std::iter::once(name).chain(operators).map(|name| (schema.as_str(), name.as_str()));
                there.entry(true).or_default().extend(names);
            }
        }
    }
    let is_there = |function: bool, schema: &str, name: &str| {
        super::is_system(schema) || there.get(&function).is_some_and(|names| names.contains(&(schema, name)))
    };
    let mut found = Vec::new();
    for rights in login.rights_in(database) {
        for ((schema, name), privileges) in &rights.relations {
            let Some(name) = name.as_ref().filter(|name| !is_there(false, schema, name)) else { continue };
            for privilege in RELATION_PRIVILEGES.iter().filter(|privilege| privileges.contains(*privilege)) {
                found.push(less(login, privilege, format!("{schema}.{name}"), "the relation is not there"));
            }
        }
        for (schema, name) in &rights.functions {
            let Some(name) = name.as_ref().filter(|name| !is_there(true, schema, name)) else { continue };
            found.push(less(login, "EXECUTE", format!("{schema}.{name}"), "the function is not there"));
        }
    }
    found
}

fn more(login: &Login, privilege: &str, object: String, why: &str) -> Difference {
    difference(login, "more", privilege, object, why)
}

fn less(login: &Login, privilege: &str, object: String, why: &str) -> Difference {
    difference(login, "less", privilege, object, why)
}

fn difference(login: &Login, way: &'static str, privilege: &str, object: String, why: &str) -> Difference {
    Difference { login: login.name.clone(), way, privilege: privilege.to_lowercase(), object, why: why.to_owned() }
}
