//! Where settings and documents are kept: directories, which sidecars and issuer follow by themselves.
//!
//! Everything read has a version, the digest of its bytes; everything written says which version it replaces, and is refused if
//! there is another by now: two people never overwrite each other without noticing. Deliberately absent: who may do it (`session`),
//! and what sidecars make of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use policy::documents::DocumentError;
use policy::snapshot::{Snapshot, Source};
use runtime::documents::DocumentsError;
use runtime::settings::review;
use runtime::{documents, secret};

mod parts;

pub(super) use parts::{Kind, Part, parts};

use parts::only_parts;

/// The keys that a person can set, in the order in which pages show them.
pub(super) const SIGN: &str = "SIGN_AUTH_ENABLED";
pub(super) const VERIFY: &str = "VERIFY_AUTH_ENABLED";
pub(super) const NOT_BEFORE: &str = "TOKENS_NOT_BEFORE";
const KEYS: [&str; 3] = [SIGN, VERIFY, NOT_BEFORE];

/// A value is a word or a time.
const MAX_VALUE: u64 = 4096;

/// Whoever writes holds this file's lock, in the directory that is written to.
const LOCK: &str = ".console.lock";

/// Why something is not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// Somebody else was there first.
    #[error("it has changed since you looked at it")]
    Conflict,
    /// It would not be understood; nothing is changed.
    #[error("it is not right")]
    Documents(Vec<DocumentError>),
    /// The record of changes takes nothing now.
    #[error("it cannot be recorded")]
    Unrecorded,
    /// It is done, and the record of changes does not have it.
    #[error("it is done, and could not be recorded")]
    DoneUnrecorded,
    /// There is no such thing.
    #[error("there is none")]
    Missing,
    /// A file cannot be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The documents cannot be read.
    #[error(transparent)]
    Unreadable(#[from] DocumentsError),
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

/// All documents.
#[derive(Debug, Clone)]
pub(super) struct Documents {
    pub(super) sources: Vec<Source>,
}

/// Directories of this machine.
#[derive(Debug, Clone)]
pub(super) struct Platform {
    settings: PathBuf,
    documents: PathBuf,
}

impl Platform {
    pub(super) fn new(settings: PathBuf, documents: PathBuf) -> Self {
        Self { settings, documents }
    }

    /// The namespaces that have settings.
    pub(super) fn namespaces(&self) -> io::Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(&self.settings)? {
            let entry = entry?;
            if entry.path().is_dir()
                && let Some(name) = entry.file_name().to_str().filter(|name| is_namespace(name))
            {
                names.insert(name.to_owned());
            }
        }
        Ok(names)
    }

    /// The settings of a namespace; one without any has the defaults.
    pub(super) fn settings(&self, namespace: &str) -> io::Result<Settings> {
        let directory = self.directory(namespace)?;
        let mut values = BTreeMap::new();
        for key in KEYS {
            match secret::read_text(&directory.join(key), MAX_VALUE) {
                Ok(text) => _ = values.insert(key.to_owned(), text.trim().to_owned()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let (meaning, mistakes) = review(Some(&values));
        let bytes: Vec<u8> =
            values.iter().flat_map(|(key, value)| [key, "\0", value, "\0"].concat().into_bytes()).collect();
        Ok(Settings { values, meaning, mistakes, version: version(&bytes) })
    }

    /// Sets keys of a namespace that is as it was at `expected`, and gives the settings that this makes.
    pub(super) fn set(
        &self,
        namespace: &str,
        expected: &str,
        changes: &[(&str, &str)],
    ) -> Result<Settings, WriteError> {
        let directory = self.directory(namespace)?;
        fs::create_dir_all(&directory)?;
        let _lock = lock(&directory)?;
        if self.settings(namespace)?.version != expected {
            return Err(WriteError::Conflict);
        }
        for (key, value) in changes {
            secret::write_public(&directory.join(key), format!("{value}\n").as_bytes())?;
        }
        Ok(self.settings(namespace)?)
    }

    /// All documents as they are now.
    pub(super) fn documents(&self) -> Result<Documents, DocumentsError> {
        let files = documents::read(&self.documents)?;
        let sources = files.into_iter().map(|file| Source { path: file.path, text: file.text }).collect();
        Ok(Documents { sources })
    }

    /// What the documents would be with `text` in its place; nothing is written. Errors are told of all documents; where they
    /// are of the one that is edited, they have its lines.
    pub(super) fn draft(&self, at: &At, text: &str) -> Result<Draft, WriteError> {
        let mut documents = self.documents()?;
        let version = documents.version_at(at, text);
        let put = documents.put(at, text)?;
        let snapshot = Snapshot::compile(&documents.sources).map_err(|errors| {
            let own = |mut error: DocumentError| {
                if put.changed.first().is_some_and(|path| **path == *error.place.path) && error.place.line > put.lines {
                    error.place.line -= put.lines;
                }
                error
            };
            WriteError::Documents(errors.into_iter().map(own).collect())
        })?;
        Ok(Draft { snapshot, version, changed: put.changed, documents })
    }

    /// Writes a draft, if what it replaces is as it was at `expected`.
    pub(super) fn save(&self, at: &At, expected: &str, text: &str) -> Result<Draft, WriteError> {
        let _lock = lock(&self.documents)?;
        if self.documents()?.version_at(at, text) != expected {
            return Err(WriteError::Conflict);
        }
        let draft = self.draft(at, text)?;
        for source in draft.documents.sources.iter().filter(|source| draft.changed.contains(&source.path)) {
            let file = self.documents.join(&source.path);
            if source.text.trim().is_empty() {
                fs::remove_file(&file)?;
            } else {
                secret::write_public(&file, source.text.as_bytes())?;
            }
        }
        Ok(draft)
    }

    fn directory(&self, namespace: &str) -> io::Result<PathBuf> {
        match is_namespace(namespace) {
            true => Ok(self.settings.join(namespace)),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "this is no name of a namespace")),
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

/// Where a text has come to stand.
#[derive(Default)]
struct Put {
    /// The paths of the files that are others now.
    changed: Vec<String>,
    /// Lines before it in the first of them.
    lines: u64,
}

impl Documents {
    /// What is in force, as far as the console can tell; errors are what the issuer complains of.
    pub(super) fn compile(&self) -> Result<Snapshot, Vec<DocumentError>> {
        Snapshot::compile(&self.sources)
    }

    /// Every document, in the order of the files.
    pub(super) fn parts(&self) -> Vec<Part> {
        self.sources.iter().flat_map(parts).collect()
    }

    /// A document by its kind and name.
    pub(super) fn part(&self, namespace: &str, kind: Kind, name: &str) -> Option<Part> {
        self.parts().into_iter().find(|part| part.is(namespace, kind, name))
    }

    /// Of what would be replaced; of nothing where there is nothing.
    fn version_at(&self, at: &At, text: &str) -> String {
        let replaced: String = match at {
            At::Existing { namespace, kind, name } => {
                self.part(namespace, *kind, name).map(|part| part.text).unwrap_or_default()
            }
            At::Named => only_parts(text)
                .iter()
                .filter_map(|part| self.part(&part.namespace, part.kind, &part.name))
                .map(|part| part.text)
                .collect(),
        };
        version(replaced.as_bytes())
    }

    /// Puts a text in its place; all other bytes stay as they are.
    fn put(&mut self, at: &At, text: &str) -> Result<Put, WriteError> {
        let text = if text.is_empty() || text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") };
        match at {
            At::Existing { namespace, kind, name } => {
                let put = self.replace(namespace, *kind, name, &text).ok_or(WriteError::Missing)?;
                Ok(put)
            }
            At::Named => Ok(self.put_named(&text)),
        }
    }

    fn replace(&mut self, namespace: &str, kind: Kind, name: &str, text: &str) -> Option<Put> {
        self.sources.iter_mut().find_map(|source| {
            let part = parts(source).into_iter().find(|part| part.is(namespace, kind, name))?;
            source.text = part.replaced(&source.text, text);
            Some(Put { changed: vec![source.path.clone()], lines: part.start_line })
        })
    }

    fn put_named(&mut self, text: &str) -> Put {
        let mut all = Put::default();
        let mut new: Vec<String> = Vec::new();
        for part in only_parts(text) {
            match self.replace(&part.namespace, part.kind, &part.name, &part.text) {
                Some(put) => all.changed.extend(put.changed),
                None => new.push(part.text),
            }
        }
        // What cannot be told apart is left as it is for the compiler to complain of.
        let new = if all.changed.is_empty() { text.to_owned() } else { new.join("---\n") };
        if !new.is_empty() {
            let path = self.free_path(&new);
            self.sources.push(Source { path: path.clone(), text: new });
            all.changed.insert(0, path);
        }
        all
    }

    /// A file's name by the first document that it has, which no file has yet.
    fn free_path(&self, text: &str) -> String {
        let plain = |part: &&Part| is_namespace(&part.namespace) && is_namespace(&part.name);
        let found = only_parts(text);
        let stem = found
            .first()
            .filter(plain)
            .map_or_else(|| "document".to_owned(), |part| format!("{}-{}", part.namespace, part.name));
        let numbered = |number: u64| if number == 1 { format!("{stem}.yaml") } else { format!("{stem}-{number}.yaml") };
        let is_free = |path: &String| !self.sources.iter().any(|source| source.path == *path);
        (1..).map(numbered).find(is_free).unwrap_or(stem.clone())
    }
}

/// Held until it is dropped; another console on the same directory waits a moment.
fn lock(directory: &Path) -> io::Result<File> {
    let file = File::options().create(true).append(true).open(directory.join(LOCK))?;
    file.lock()?;
    Ok(file)
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
