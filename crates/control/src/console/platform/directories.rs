//! Directories of this machine, which sidecars and issuer follow by themselves. Whoever writes holds a lock in the directory.
//!
//! Deliberately absent: what an edit makes of the documents (`documents`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use policy::snapshot::Source;
use runtime::{documents, secret};

use super::{At, Documents, Draft, KEYS, MAX_VALUE, Settings, WriteError, is_namespace};

/// Whoever writes holds this file's lock, in the directory that is written to.
const LOCK: &str = ".console.lock";

/// Settings and documents as files.
#[derive(Debug, Clone)]
pub(in crate::console) struct Directories {
    settings: PathBuf,
    documents: PathBuf,
}

impl Directories {
    pub(in crate::console) fn new(settings: PathBuf, documents: PathBuf) -> Self {
        Self { settings, documents }
    }

    /// The namespaces that have settings.
    pub(in crate::console) fn namespaces(&self) -> io::Result<BTreeSet<String>> {
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
    pub(in crate::console) fn settings(&self, namespace: &str) -> io::Result<Settings> {
        let directory = self.directory(namespace)?;
        let mut values = BTreeMap::new();
        for key in KEYS {
            match secret::read_text(&directory.join(key), MAX_VALUE) {
                Ok(text) => _ = values.insert(key.to_owned(), text.trim().to_owned()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Settings::of(values))
    }

    /// Sets keys of a namespace that is as it was at `expected`, and gives the settings that this makes.
    pub(in crate::console) fn set(
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
    pub(in crate::console) fn documents(&self) -> io::Result<Documents> {
        let files = documents::read(&self.documents).map_err(io::Error::other)?;
        let sources = files.into_iter().map(|file| Source { path: file.path, text: file.text }).collect();
        Ok(Documents::of_files(sources))
    }

    /// Writes a draft, if what it replaces is as it was at `expected`.
    pub(in crate::console) fn save(&self, at: &At, expected: &str, text: &str) -> Result<Draft, WriteError> {
        let _lock = lock(&self.documents)?;
        if self.documents()?.version_at(at, text) != expected {
            return Err(WriteError::Conflict);
        }
        let draft = self.documents()?.draft(at, text)?;
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

/// Held until it is dropped; another console on the same directory waits a moment.
fn lock(directory: &Path) -> io::Result<File> {
    let file = File::options().create(true).append(true).open(directory.join(LOCK))?;
    file.lock()?;
    Ok(file)
}
