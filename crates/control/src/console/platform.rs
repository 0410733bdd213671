//! Where settings and documents are kept: directories of this machine, or a cluster. Sidecars and issuer follow them by themselves.
//!
//! Everything read has a version, the digest of what it says; everything written says which version it replaces, and is refused if
//! there is another by now: two people never overwrite each other without noticing. Deliberately absent: who may do it (`session`, and
//! in a cluster its API server), and what sidecars make of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use aws_lc_rs::digest::{SHA256, digest};
use policy::documents::DocumentError;
use policy::snapshot::Snapshot;
use runtime::settings::review;

mod cluster;
mod directories;
mod documents;
mod parts;

pub(super) use cluster::Cluster;
pub(super) use directories::Directories;
pub(super) use documents::Documents;
pub(super) use parts::{Kind, Part, parts};

/// The keys that a person can set, in the order in which pages show them.
pub(super) const SIGN: &str = "SIGN_AUTH_ENABLED";
pub(super) const VERIFY: &str = "VERIFY_AUTH_ENABLED";
pub(super) const NOT_BEFORE: &str = "TOKENS_NOT_BEFORE";
const KEYS: [&str; 3] = [SIGN, VERIFY, NOT_BEFORE];

/// A value is a word or a time.
const MAX_VALUE: u64 = 4096;

/// Why something is not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// Somebody else was there first.
    #[error("it has changed since you looked at it")]
    Conflict,
    /// It would not be understood; nothing is changed.
    #[error("it is not right")]
    Documents(Vec<DocumentError>),
    /// The record of changes takes nothing now; nothing is changed.
    #[error("it cannot be recorded")]
    Unrecorded,
    /// It is done, and the record of changes does not say so.
    #[error("it is done, and could not be recorded")]
    DoneUnrecorded,
    /// There is no such thing.
    #[error("there is none")]
    Missing,
    /// The API server says no; nothing is changed.
    #[error("the cluster refuses it: {0}")]
    Refused(String),
    /// The API server said no when some of the documents were written already.
    #[error("written: {}; the rest is not, as the cluster refuses it: {why}", .done.join(", "))]
    Partly {
        /// `KIND/NAMESPACE/NAME` of each that is written.
        done: Vec<String>,
        /// What it said.
        why: String,
    },
    /// A file cannot be read or written, or the cluster not be asked.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// The settings of a namespace.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// What stands under each key, as it stands there.
    pub(super) values: BTreeMap<String, String>,
    /// What it means to sidecars.
    pub(super) meaning: runtime::settings::Settings,
    /// What is not understood of it.
    pub(super) mistakes: Vec<String>,
    /// Of all values together.
    pub(super) version: String,
}

impl Settings {
    fn of(values: BTreeMap<String, String>) -> Self {
        let (meaning, mistakes) = review(Some(&values));
        let bytes: Vec<u8> =
            values.iter().flat_map(|(key, value)| [key, "\0", value, "\0"].concat().into_bytes()).collect();
        Self { values, meaning, mistakes, version: version(&bytes) }
    }
}

/// Either of the two.
#[derive(Clone)]
pub(super) enum Platform {
    Directories(Directories),
    Cluster(Box<Cluster>),
}

impl Platform {
    /// The namespaces that have settings.
    pub(super) fn namespaces(&self) -> io::Result<BTreeSet<String>> {
        match self {
            Self::Directories(own) => own.namespaces(),
            Self::Cluster(own) => own.namespaces(),
        }
    }

    /// The settings of a namespace; one without any has the defaults.
    pub(super) fn settings(&self, namespace: &str) -> io::Result<Settings> {
        match self {
            Self::Directories(own) => own.settings(namespace),
            Self::Cluster(own) => own.settings(namespace),
        }
    }

    /// Sets keys of a namespace that is as it was at `expected`, and gives the settings that this makes. Blocks the thread.
    pub(super) fn set(
        &self,
        namespace: &str,
        expected: &str,
        changes: &[(&str, &str)],
    ) -> Result<Settings, WriteError> {
        match self {
            Self::Directories(own) => own.set(namespace, expected, changes),
            Self::Cluster(own) => own.set(namespace, expected, changes),
        }
    }

    /// All documents as they are now.
    pub(super) fn documents(&self) -> io::Result<Documents> {
        match self {
            Self::Directories(own) => own.documents(),
            Self::Cluster(own) => own.documents(),
        }
    }

    /// What the documents would be with `text` in its place; nothing is written.
    pub(super) fn draft(&self, at: &At, text: &str) -> Result<Draft, WriteError> {
        self.documents()?.draft(at, text)
    }

    /// Writes a draft, if what it replaces is as it was at `expected`. Blocks the thread.
    pub(super) fn save(&self, at: &At, expected: &str, text: &str) -> Result<Draft, WriteError> {
        match self {
            Self::Directories(own) => own.save(at, expected, text),
            Self::Cluster(own) => own.save(at, expected, text),
        }
    }

    /// Why what is shown may be old, or not all; nothing while all is well.
    pub(super) fn troubles(&self) -> Vec<String> {
        match self {
            Self::Directories(_) => Vec::new(),
            Self::Cluster(own) => own.troubles(),
        }
    }
}

/// Which documents are meant.
#[derive(Debug, Clone)]
pub(super) enum At {
    /// One that is there.
    Existing { namespace: String, kind: Kind, name: String },
    /// Those that the text itself names: each in the place of the one of its name, or else in a new file.
    Named,
}

/// Documents that are right, and not in force.
pub(super) struct Draft {
    pub(super) snapshot: Snapshot,
    /// Of what it replaces.
    pub(super) version: String,
    changed: Vec<String>,
    documents: Documents,
}

pub(super) fn version(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// RFC 1123, as Kubernetes has it; above all, nothing that leads out of a directory.
pub(super) fn is_namespace(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&text.len()) && text.chars().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests;
