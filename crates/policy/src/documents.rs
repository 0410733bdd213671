//! The documents that say who may what: `AccessRole` and `AccessGrant`, as YAML or JSON text.
//!
//! Parse, don't validate: a text becomes [`AccessRole`]s and [`AccessGrant`]s that are right in themselves, or
//! [`DocumentError`]s, all that can be found at once, each with its place and with what would be right. Whether
//! documents fit together is `snapshot`'s. Absent on purpose: files and watching them.

use std::fmt;
use std::sync::Arc;

use identity::access::{AuthorizationDetail, HttpDetail, HttpRule, PostgresqlDetail, Rule};
use identity::{ServiceName, Subject};

mod check;
mod names;
mod raw;
pub mod schema;
mod write;

pub use check::is_identifier;
pub use names::{stored_name, written_name};
pub(crate) use write::{
    MAX_NAMES, MAX_RULES, MAX_SHORT_LIST, RoleText, RuleText, comment, grant, http_rule, labelled, rule, sql_rule,
};

/// A text and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What errors call it; a path, mostly.
    pub path: String,
    /// One or more YAML documents, or one JSON document.
    pub text: String,
}

/// Where something stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The source's path.
    pub path: Arc<str>,
    /// Counted from 1; 0 if it is not known.
    pub line: u64,
    /// Counted from 1; 0 if it is not known.
    pub column: u64,
}

/// What is wrong with a document, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{place}: {what}")]
pub struct DocumentError {
    /// Where.
    pub place: Place,
    /// What, and what to write instead.
    pub what: String,
}

/// A document that is right in itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// What may be done.
    Role(AccessRole),
    /// Who may.
    Grant(AccessGrant),
}

/// WHAT: a role that opens a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessRole {
    /// The role's name; unique in its namespace.
    pub name: String,
    /// The service it opens; it lives in that service's namespace.
    pub service: ServiceName,
    /// What it opens of PostgreSQL.
    pub postgres: Option<PostgresAccess>,
    /// What it opens of HTTP; empty if it opens nothing.
    pub http: Vec<HttpRule>,
    /// Where it is written.
    pub place: Place,
}

/// What a role opens of PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresAccess {
    /// The database login that a session with this role runs as.
    pub user: String,
    /// The databases; empty means any.
    pub database: Vec<String>,
    /// What is allowed; the names are stored names, without the quotes that a document may use.
    pub rules: Vec<Rule>,
}

/// WHO: roles of a service for subjects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessGrant {
    /// The grant's name; unique in its namespace.
    pub name: String,
    /// The service that is opened; the grant lives in its namespace.
    pub service: ServiceName,
    /// Who gets the roles.
    pub subjects: Vec<Subject>,
    /// The roles' names, each with its place: whether they exist is seen when all documents are there.
    pub roles: Vec<(String, Place)>,
    /// Where it is written.
    pub place: Place,
}

impl AccessRole {
    /// The role as an access token carries it: a detail for each of PostgreSQL and HTTP that it opens.
    #[must_use]
    pub fn details(&self) -> Vec<AuthorizationDetail> {
        let postgresql = self.postgresql_detail().map(AuthorizationDetail::Postgresql);
        postgresql.into_iter().chain(self.http_detail().map(AuthorizationDetail::Http)).collect()
    }

    /// What the role opens of PostgreSQL, as an access token carries it.
    #[must_use]
    pub fn postgresql_detail(&self) -> Option<PostgresqlDetail> {
        self.postgres.as_ref().map(|postgres| PostgresqlDetail {
            role: self.name.clone(),
            user: Some(postgres.user.clone()),
            database: postgres.database.clone(),
            rules: postgres.rules.clone(),
        })
    }

    /// What the role opens of HTTP, as an access token carries it.
    #[must_use]
    pub fn http_detail(&self) -> Option<HttpDetail> {
        let opens = !self.http.is_empty();
        opens.then(|| HttpDetail { role: self.name.clone(), rules: self.http.clone() })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.path, self.line, self.column)
    }
}

/// Reads all documents of a text. Empty ones are skipped; of the others each is either returned or has an error.
#[must_use]
pub fn parse(source: &Source) -> (Vec<Document>, Vec<DocumentError>) {
    let path: Arc<str> = source.path.as_str().into();
    let mut documents = Vec::new();
    let mut errors = Vec::new();
    for raw in raw::read(&path, &source.text) {
        match raw.map_err(|e| vec![e]).and_then(|raw| check::document(&path, raw)) {
            Ok(document) => documents.push(document),
            Err(more) => errors.extend(more),
        }
    }
    (documents, errors)
}

#[cfg(test)]
mod tests;
