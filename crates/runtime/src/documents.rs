//! Follows the YAML and JSON documents below a directory.
//!
//! Only complete readings are passed on: if a file cannot be read, the last complete reading stays, loudly, so that an
//! unreadable file never looks like a deleted one. Absent on purpose: what the documents say (`policy`'s).

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::RecursiveMode;
use tokio::sync::watch;

use crate::{follow, secret};

/// The largest document file. A cluster's etcd takes 1.5 MiB an object; a file of roles is far below.
const MAX_FILE: u64 = 4 * 1024 * 1024;
/// More files than anyone keeps by hand; the cap ends a walk over a directory given by mistake.
const MAX_FILES: usize = 10_000;
/// Directories below directories; the cap ends a walk around a circle of links.
const MAX_DEPTH: usize = 16;

/// A file's text. The path is relative to the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Relative to the directory that is followed.
    pub path: String,
    /// The whole text.
    pub text: String,
}

/// The documents cannot be read; all reasons at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the documents in {directory} cannot be read: {}", reasons.join("; "))]
pub struct DocumentsError {
    directory: String,
    reasons: Vec<String>,
}

/// Reads all `*.yaml`, `*.yml` and `*.json` files below `directory`, sorted by path, and follows them. Names that begin
/// with a dot are left out: editors' leftovers, and the directories behind a mounted ConfigMap's links. What cannot be
/// read at the start is an error. The following ends when all receivers are gone.
pub fn watch(directory: PathBuf) -> Result<watch::Receiver<Arc<Vec<File>>>, DocumentsError> {
    let (sender, receiver) = watch::channel(Arc::new(read(&directory)?));
    let root = directory.clone();
    let mut last_error = None;
    let look = move || {
        match read(&root) {
            Ok(files) => {
                if last_error.take().is_some() {
                    tracing::info!(directory = %root.display(), "the documents can be read again");
                }
                publish(&sender, files);
            }
            Err(error) => {
                if last_error.as_ref() != Some(&error) {
                    tracing::error!(%error, "the last documents that could be read stay in force");
                }
                last_error = Some(error);
            }
        }
        if sender.is_closed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let failed = |e: io::Error| DocumentsError { directory: shown(&directory), reasons: vec![e.to_string()] };
    follow::follow("documents", directory.clone(), RecursiveMode::Recursive, look).map_err(failed)?;
    Ok(receiver)
}

fn publish(sender: &watch::Sender<Arc<Vec<File>>>, files: Vec<File>) {
    sender.send_if_modified(|current| {
        let changed = **current != files;
        if changed {
            *current = Arc::new(files);
        }
        changed
    });
}

/// Reads all documents once.
pub fn read(directory: &Path) -> Result<Vec<File>, DocumentsError> {
    let mut walk = Walk { root: directory, files: Vec::new(), reasons: Vec::new() };
    walk.directory(directory, 0);
    let Walk { mut files, reasons, .. } = walk;
    if !reasons.is_empty() {
        return Err(DocumentsError { directory: shown(directory), reasons });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

struct Walk<'a> {
    root: &'a Path,
    files: Vec<File>,
    reasons: Vec<String>,
}

impl Walk<'_> {
    fn directory(&mut self, path: &Path, depth: usize) {
        if depth > MAX_DEPTH {
            return self.reasons.push(format!("{} is deeper than {MAX_DEPTH} directories", path.display()));
        }
        let entries = match fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
            Ok(entries) => entries,
            Err(error) => return self.reasons.push(format!("{}: {error}", path.display())),
        };
        for entry in entries {
            if !entry.file_name().as_encoded_bytes().starts_with(b".") {
                self.entry(&entry.path(), depth);
            }
        }
    }

    fn entry(&mut self, path: &Path, depth: usize) {
        let document = path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => self.directory(path, depth + 1),
            Ok(metadata) if metadata.is_file() && document => self.file(path),
            Err(error) if document => self.reasons.push(format!("{}: {error}", path.display())),
            _ => {}
        }
    }

    fn file(&mut self, path: &Path) {
        if self.files.len() >= MAX_FILES {
            // Said once, with the file that was one too many.
            if self.reasons.is_empty() {
                self.reasons.push(format!("more than {MAX_FILES} files, {} among them", path.display()));
            }
            return;
        }
        let relative = shown(path.strip_prefix(self.root).unwrap_or(path));
        match secret::read_text(path, MAX_FILE) {
            Ok(text) => self.files.push(File { path: relative, text }),
            Err(error) => self.reasons.push(error.to_string()),
        }
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests;
