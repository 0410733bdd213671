//! All documents together, compiled: who has which roles of which service.
//!
//! A snapshot is made of documents that are all right, or not at all: [`Snapshot::compile`] gives every error there is,
//! and the caller keeps the snapshot it has. So a broken document neither widens nor narrows what stands. In a cluster each
//! object is somebody else's, and one must not hold up all others: [`Snapshot::assemble`] takes those that are right, and
//! a role that is not there opens nothing. Absent on purpose: what a role allows (`decide`), and the watching of files.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use identity::access::{AuthorizationDetail, PostgresqlDetail};
use identity::{ServiceName, Subject};

use crate::documents::{self, AccessGrant, AccessRole, Document, Place};
use crate::role::Level;

pub use crate::documents::{DocumentError, Source};

/// What stands.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// By namespace and name, as Kubernetes keeps them.
    roles: BTreeMap<(String, String), AccessRole>,
    grants: BTreeMap<(String, String), AccessGrant>,
    granted: HashMap<Subject, BTreeMap<ServiceName, BTreeSet<String>>>,
    services: BTreeSet<ServiceName>,
}

/// A grant's role that opens nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unresolved {
    /// The namespace of the grant.
    pub namespace: String,
    /// The name of the grant.
    pub grant: String,
    /// What is wrong, and what there is.
    pub what: String,
}

impl Snapshot {
    /// Compiles all documents of all sources.
    ///
    /// # Errors
    /// All that is wrong anywhere, in the order of the sources.
    pub fn compile(sources: &[Source]) -> Result<Self, Vec<DocumentError>> {
        let mut snapshot = Self::default();
        let mut errors = Vec::new();
        for source in sources {
            let (documents, more) = documents::parse(source);
            errors.extend(more);
            for document in documents {
                errors.extend(snapshot.add(document));
            }
        }
        // Grants name roles that may stand in a later source, so they are looked at when all are there. If a role's own
        // document is broken, "no such role" would be a false trail: then only the broken document is reported.
        if errors.is_empty() {
            errors = snapshot.connect();
        }
        if errors.is_empty() { Ok(snapshot) } else { Err(errors) }
    }

    /// Puts together documents that are right in themselves, whether or not they fit each other: a role that a grant names
    /// and that is not there, or opens another service, opens nothing, and is told. A name that is taken is not taken twice.
    #[must_use]
    pub fn assemble(documents: impl IntoIterator<Item = Document>) -> (Self, Vec<Unresolved>) {
        let mut snapshot = Self::default();
        for document in documents {
            snapshot.add(document);
        }
        snapshot.connect();
        let unresolved = snapshot.grants.values().flat_map(|grant| snapshot.unresolved(grant)).collect();
        (snapshot, unresolved)
    }

    /// The roles that a subject has of a service, over all grants, each once, in the order of their names; one that opens
    /// both PostgreSQL and HTTP is two details.
    #[must_use]
    pub fn granted(&self, subject: &Subject, service: &ServiceName) -> Vec<AuthorizationDetail> {
        let names = self.granted.get(subject).and_then(|services| services.get(service));
        names.into_iter().flatten().flat_map(|name| self.details(service, name)).collect()
    }

    /// Whether any document speaks of the service.
    #[must_use]
    pub fn knows(&self, service: &ServiceName) -> bool {
        self.services.contains(service)
    }

    /// The `AccessRole` of that name in a namespace; built-in roles are in none.
    #[must_use]
    pub fn role(&self, namespace: &str, name: &str) -> Option<&AccessRole> {
        self.roles.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// All `AccessRole`s, by namespace and name.
    pub fn roles(&self) -> impl Iterator<Item = &AccessRole> {
        self.roles.values()
    }

    /// All `AccessGrant`s, by namespace and name.
    pub fn grants(&self) -> impl Iterator<Item = &AccessGrant> {
        self.grants.values()
    }

    /// The services that documents speak of.
    pub fn services(&self) -> impl Iterator<Item = &ServiceName> {
        self.services.iter()
    }

    fn details(&self, service: &ServiceName, name: &str) -> Vec<AuthorizationDetail> {
        if is_built_in(name) {
            return vec![built_in(name)];
        }
        let role = self.role(&service.namespace, name).filter(|role| role.service == *service);
        role.map(AccessRole::details).unwrap_or_default()
    }

    fn unresolved(&self, grant: &AccessGrant) -> Vec<Unresolved> {
        let missing = grant.roles.iter().filter_map(|(name, place)| self.missing(grant, name, place));
        let told = |error: DocumentError| Unresolved {
            namespace: grant.service.namespace.clone(),
            grant: grant.name.clone(),
            what: error.what,
        };
        missing.map(told).collect()
    }

    fn add(&mut self, document: Document) -> Option<DocumentError> {
        match document {
            Document::Role(role) => {
                self.services.insert(role.service.clone());
                insert(&mut self.roles, key(&role.service, &role.name), role, "AccessRole", |r| &r.place)
            }
            Document::Grant(grant) => {
                self.services.insert(grant.service.clone());
                insert(&mut self.grants, key(&grant.service, &grant.name), grant, "AccessGrant", |g| &g.place)
            }
        }
    }

    fn connect(&mut self) -> Vec<DocumentError> {
        let mut errors = Vec::new();
        let mut granted: HashMap<Subject, BTreeMap<ServiceName, BTreeSet<String>>> = HashMap::new();
        for grant in self.grants.values() {
            errors.extend(grant.roles.iter().filter_map(|(name, place)| self.missing(grant, name, place)));
            for subject in &grant.subjects {
                let of_subject = granted.entry(subject.clone()).or_default();
                let names = of_subject.entry(grant.service.clone()).or_default();
                names.extend(grant.roles.iter().map(|(name, _)| name.clone()));
            }
        }
        self.granted = granted;
        errors.sort();
        errors
    }

    /// The error if a grant's role is not there, or opens another service.
    fn missing(&self, grant: &AccessGrant, name: &str, place: &Place) -> Option<DocumentError> {
        if is_built_in(name) {
            return None;
        }
        let what = match self.role(&grant.service.namespace, name) {
            Some(role) if role.service == grant.service => return None,
            Some(role) => format!(
                "the role `{name}` opens the service `{}`, this grant is for `{}`: use a role of that service",
                role.service, grant.service
            ),
            None => format!("no role `{name}` for `{}`: there are {}", grant.service, self.names(&grant.service)),
        };
        Some(DocumentError { place: place.clone(), what })
    }

    fn names(&self, service: &ServiceName) -> String {
        let own = self.roles.values().filter(|r| r.service == *service).map(|r| r.name.as_str());
        let all: Vec<&str> = Level::ALL.iter().map(|level| level.name()).chain(own).collect();
        all.join(", ")
    }
}

fn insert<T>(
    map: &mut BTreeMap<(String, String), T>,
    key: (String, String),
    value: T,
    kind: &str,
    place: impl Fn(&T) -> &Place,
) -> Option<DocumentError> {
    if let Some(first) = map.get(&key) {
        let what = format!(
            "{kind} `{}/{}` is defined twice, first at {}: remove one or rename it",
            key.0,
            key.1,
            place(first)
        );
        return Some(DocumentError { place: place(&value).clone(), what });
    }
    map.insert(key, value);
    None
}

fn key(service: &ServiceName, name: &str) -> (String, String) {
    (service.namespace.clone(), name.to_owned())
}

fn is_built_in(name: &str) -> bool {
    Level::ALL.iter().any(|level| level.name() == name)
}

fn built_in(name: &str) -> AuthorizationDetail {
    AuthorizationDetail::Postgresql(PostgresqlDetail { role: name.to_owned(), ..PostgresqlDetail::default() })
}

#[cfg(test)]
mod tests;
