//! Documents as texts: what an edit makes of them, and what is wrong with that.
//!
//! Deliberately absent: where they are kept.

use std::collections::HashMap;

use policy::documents::{DocumentError, Place, parse};
use policy::snapshot::{Snapshot, Source};

use super::parts::only_parts;
use super::{At, Draft, Kind, Part, WriteError, is_namespace, parts, version};

/// All documents.
#[derive(Debug, Clone)]
pub(in crate::console) struct Documents {
    pub(super) sources: Vec<Source>,
    /// Each source is in force or not by itself.
    stand_alone: bool,
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
    /// Files, which count together or not at all.
    pub(super) fn of_files(sources: Vec<Source>) -> Self {
        Self { sources, stand_alone: false }
    }

    /// Objects of a cluster, each of which stands for itself: one that is broken is somebody else's.
    pub(super) fn of_objects(sources: Vec<Source>) -> Self {
        Self { sources, stand_alone: true }
    }

    /// What is in force, as far as the console can tell; none, if the issuer would take nothing of it.
    pub(in crate::console) fn in_force(&self) -> Option<Snapshot> {
        match self.stand_alone {
            true => Some(self.assemble(|_| false).0),
            false => Snapshot::compile(&self.sources).ok(),
        }
    }

    /// What the issuer complains of.
    pub(in crate::console) fn errors(&self) -> Vec<DocumentError> {
        match self.stand_alone {
            true => self.assemble(|_| true).1,
            false => Snapshot::compile(&self.sources).err().unwrap_or_default(),
        }
    }

    /// All that is right, and what is wrong with those that are `looked_at`.
    fn assemble(&self, looked_at: impl Fn(&str) -> bool) -> (Snapshot, Vec<DocumentError>) {
        let (mut right, mut errors, mut grants) = (Vec::new(), Vec::new(), HashMap::new());
        for source in &self.sources {
            let (documents, wrong) = parse(source);
            if looked_at(&source.path) {
                errors.extend(wrong);
                for part in parts(source).into_iter().filter(|part| part.kind == Kind::Grant) {
                    let line = part.start_line + 1;
                    grants.insert(
                        (part.namespace, part.name),
                        Place { path: source.path.as_str().into(), line, column: 1 },
                    );
                }
            }
            right.extend(documents);
        }
        let (snapshot, unresolved) = Snapshot::assemble(right);
        for one in unresolved {
            if let Some(place) = grants.get(&(one.namespace, one.grant)) {
                errors.push(DocumentError { place: place.clone(), what: one.what });
            }
        }
        (snapshot, errors)
    }

    fn compile(&self, changed: &[String]) -> Result<Snapshot, Vec<DocumentError>> {
        if !self.stand_alone {
            return Snapshot::compile(&self.sources);
        }
        let (snapshot, errors) = self.assemble(|path| changed.iter().any(|changed| changed == path));
        if errors.is_empty() { Ok(snapshot) } else { Err(errors) }
    }

    /// What the documents would be with `text` in its place; nothing is written. Errors are told of all documents that count together;
    /// where they are of the one that is edited, they have its lines.
    pub(super) fn draft(mut self, at: &At, text: &str) -> Result<Draft, WriteError> {
        let version = self.version_at(at, text);
        let put = self.put(at, text)?;
        let snapshot = self.compile(&put.changed).map_err(|errors| {
            let own = |mut error: DocumentError| {
                if put.changed.first().is_some_and(|path| **path == *error.place.path) && error.place.line > put.lines {
                    error.place.line -= put.lines;
                }
                error
            };
            WriteError::Documents(errors.into_iter().map(own).collect())
        })?;
        Ok(Draft { snapshot, version, changed: put.changed, documents: self })
    }

    /// Every document, in the order of the files.
    pub(in crate::console) fn parts(&self) -> Vec<Part> {
        self.sources.iter().flat_map(parts).collect()
    }

    /// A document by its kind and name.
    pub(in crate::console) fn part(&self, namespace: &str, kind: Kind, name: &str) -> Option<Part> {
        self.parts().into_iter().find(|part| part.is(namespace, kind, name))
    }

    /// Of what would be replaced; of nothing where there is nothing.
    pub(super) fn version_at(&self, at: &At, text: &str) -> String {
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
