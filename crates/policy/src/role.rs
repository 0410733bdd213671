//! Roles: the four that are built in, and those that an access token carries as rules.
//!
//! Whatever of a role is not understood makes the whole role unusable: a word skipped could be the one
//! that narrows it. Absent: AccessRole documents (`documents`) and who holds which role (`snapshot`).

use std::fmt;

use crate::facts::Action;
use crate::http::PatternError;

/// The built-in roles in the order of their power: each may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// Reads.
    Reader,
    /// Reads and writes rows.
    Writer,
    /// Owns the schema.
    Owner,
    /// Everything.
    Admin,
}

impl Level {
    /// All four, weakest first.
    pub const ALL: [Self; 4] = [Self::Reader, Self::Writer, Self::Owner, Self::Admin];

    /// The role's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Writer => "writer",
            Self::Owner => "owner",
            Self::Admin => "admin",
        }
    }

    pub(crate) fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A role as a session holds it: a name, a database login, and what it may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    name: Box<str>,
    user: Option<Box<str>>,
    databases: Vec<String>,
    may: May,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum May {
    BuiltIn(Level),
    Rules(Vec<Rule>),
}

/// One rule, understood: these actions on these names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Its place in the AccessRole, counted from 0.
    index: usize,
    actions: u32,
    names: Vec<Pattern>,
}

/// A stored name, or every name of a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    schema: Box<str>,
    /// `None` is `schema.*`.
    name: Option<Box<str>>,
}

/// Why a role of a token or document is not understood. Each of these makes the role unusable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoleError {
    /// The role has no name.
    #[error("the role has no name")]
    NoName,
    /// A name of a built-in role comes with rules of its own.
    #[error("`{0}` is a built-in role and cannot have rules")]
    BuiltInWithRules(String),
    /// A word that is no action of rules.
    #[error("unknown action `{0}`: want select, insert, update, delete, merge, truncate or execute")]
    Action(String),
    /// A pattern that names nothing.
    #[error("malformed name `{0}`: want `schema.name` or `schema.*`")]
    Name(String),
    /// A word that is no HTTP method.
    #[error("`{0}` is no method: write it in upper case, like GET or POST")]
    Method(String),
    /// A path pattern that names nothing, or not in the way that paths are compared.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// A rule without actions, or whose actions have nothing to act on.
    #[error("a rule grants nothing: {0}")]
    Empty(&'static str),
}

impl Role {
    /// One of `reader`, `writer`, `owner`, `admin`.
    pub fn built_in(name: &str) -> Option<Self> {
        let level = Level::of(name)?;
        Some(Self { name: level.name().into(), user: None, databases: Vec::new(), may: May::BuiltIn(level) })
    }

    /// A role of rules; each rule is its actions, tables and functions as an AccessRole writes them.
    pub fn scoped(
        name: &str,
        user: Option<&str>,
        databases: &[String],
        rules: &[(&[String], &[String], &[String])],
    ) -> Result<Self, RoleError> {
        if name.is_empty() {
            return Err(RoleError::NoName);
        }
        if Level::of(name).is_some() {
            return Err(RoleError::BuiltInWithRules(name.to_owned()));
        }
        let mut understood = Vec::with_capacity(rules.len());
        for (index, &(actions, tables, functions)) in rules.iter().enumerate() {
            understood.extend(understand(index, actions, tables, functions)?);
        }
        Ok(Self {
            name: name.into(),
            user: user.map(Into::into),
            databases: databases.to_vec(),
            may: May::Rules(understood),
        })
    }

    /// The role's name, as messages and the startup `user` say it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The database login that a session with this role runs as; `None` leaves it to the sidecar.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The databases that this role opens; empty is any.
    pub fn databases(&self) -> &[String] {
        &self.databases
    }

    /// Whether sessions with this role are read only in PostgreSQL too.
    pub fn is_read_only(&self) -> bool {
        self.level() == Some(Level::Reader)
    }

    /// Whether this role is made of rules; its search path is fixed.
    pub fn is_scoped(&self) -> bool {
        self.level().is_none()
    }

    /// The level of a built-in role; `None` for a role of rules.
    pub fn level(&self) -> Option<Level> {
        match self.may {
            May::BuiltIn(level) => Some(level),
            May::Rules(_) => None,
        }
    }

    pub(crate) fn may(&self) -> &May {
        &self.may
    }
}

impl Rule {
    /// Its place in the AccessRole, counted from 0.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Whether this rule opens the action on `schema.name`; `exact` refuses wildcards.
    pub(crate) fn opens(&self, action: Action, schema: &str, name: &str, exact: bool) -> bool {
        self.actions & action.bit() != 0
            && self.names.iter().any(|pattern| {
                *pattern.schema == *schema
                    && match &pattern.name {
                        Some(stored) => **stored == *name,
                        None => !exact,
                    }
            })
    }
}

/// One written rule is up to two understood ones: actions on tables, and `execute` of functions.
fn understand(
    index: usize,
    actions: &[String],
    tables: &[String],
    functions: &[String],
) -> Result<Vec<Rule>, RoleError> {
    let mut on_tables = 0;
    let mut execute = 0;
    for word in actions {
        match Action::of_rule(word).ok_or_else(|| RoleError::Action(word.clone()))? {
            Action::Execute => execute |= Action::Execute.bit(),
            action => on_tables |= action.bit(),
        }
    }
    if on_tables == 0 && execute == 0 {
        return Err(RoleError::Empty("it has no actions"));
    }
    let half = |actions: u32, names: &[String], missing, idle| match (actions, names) {
        (0, []) => Ok(None),
        (0, _) => Err(RoleError::Empty(idle)),
        (_, []) => Err(RoleError::Empty(missing)),
        (actions, names) => {
            let names = names.iter().map(|n| pattern(n)).collect::<Result<_, _>>()?;
            Ok(Some(Rule { index, actions, names }))
        }
    };
    let tables = half(on_tables, tables, "its actions need `tables`", "`tables` need an action other than execute")?;
    let functions = half(execute, functions, "execute needs `functions`", "`functions` need the action execute")?;
    Ok(tables.into_iter().chain(functions).collect())
}

/// Whether a text is what a rule of a token can name.
pub(crate) fn is_name(text: &str) -> bool {
    pattern(text).is_ok()
}

fn pattern(text: &str) -> Result<Pattern, RoleError> {
    let malformed = || RoleError::Name(text.to_owned());
    let (schema, name) = text.split_once('.').ok_or_else(malformed)?;
    let bad = |part: &str| part.is_empty() || part.contains('\0') || part.trim() != part;
    if bad(schema) || bad(name) || schema.contains(['*', '"']) {
        return Err(malformed());
    }
    // Functions may be operators, whose names hold stars; a word with a star in it is a glob that
    // somebody expects to work, and it would not.
    let word = name.chars().any(|c| c.is_alphanumeric() || c == '_');
    if name != "*" && word && name.contains(['*', '"']) {
        return Err(malformed());
    }
    Ok(Pattern { schema: schema.into(), name: (name != "*").then(|| name.into()) })
}

#[cfg(test)]
mod tests;
