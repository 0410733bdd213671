//! A file of several YAML documents as its parts, so that one can be edited while all others stay byte for byte.
//!
//! Deliberately absent: what documents mean. Only kind, namespace and name are looked at, as far as they can be read.

use kube::api::ApiResource;
use policy::snapshot::Source;
use serde::Deserialize;

use super::version;
use crate::crds;

/// What a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::console) enum Kind {
    /// WHAT may be done.
    Role,
    /// WHO may.
    Grant,
}

impl Kind {
    /// As it is called in documents.
    pub(in crate::console) fn name(self) -> &'static str {
        match self {
            Self::Role => "AccessRole",
            Self::Grant => "AccessGrant",
        }
    }

    /// As the API server names it.
    pub(in crate::console) fn resource(self) -> ApiResource {
        match self {
            Self::Role => crds::resource(self.name(), "accessroles"),
            Self::Grant => crds::resource(self.name(), "accessgrants"),
        }
    }

    pub(in crate::console) fn of(name: &str) -> Option<Self> {
        [Self::Role, Self::Grant].into_iter().find(|kind| kind.name() == name)
    }
}

/// One document of a file.
#[derive(Debug, Clone)]
pub(in crate::console) struct Part {
    pub(in crate::console) kind: Kind,
    pub(in crate::console) namespace: String,
    pub(in crate::console) name: String,
    /// Its text, without the line that divides it from the one before.
    pub(in crate::console) text: String,
    pub(in crate::console) version: String,
    /// Lines of the file before it.
    pub(in crate::console) start_line: u64,
    start: usize,
}

#[derive(Deserialize)]
struct Head {
    kind: String,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    namespace: String,
    name: String,
}

impl Part {
    pub(super) fn is(&self, namespace: &str, kind: Kind, name: &str) -> bool {
        self.namespace == namespace && self.kind == kind && self.name == name
    }

    /// The whole file with another text in this one's place. With none, the divider before it goes, too.
    pub(super) fn replaced(&self, file: &str, text: &str) -> String {
        let end = self.start + self.text.len();
        let (before, after) = (file.get(..self.start).unwrap_or_default(), file.get(end..).unwrap_or_default());
        if !text.is_empty() {
            return [before, text, after].concat();
        }
        match before.strip_suffix('\n').and_then(|before| before.rfind('\n').or((!before.is_empty()).then_some(0))) {
            // The divider is the last line before it.
            Some(line) => [before.get(..if line == 0 { 0 } else { line + 1 }).unwrap_or_default(), after].concat(),
            None => after.strip_prefix("---\n").unwrap_or(after).to_owned(),
        }
    }
}

/// The documents of a file that can be told apart; those that cannot are left to the compiler to complain of.
pub(in crate::console) fn parts(source: &Source) -> Vec<Part> {
    pieces(&source.text).into_iter().filter_map(|piece| part(&source.text, &piece)).collect()
}

/// The documents of a text, if it has nothing else but comments; else none.
pub(super) fn only_parts(text: &str) -> Vec<Part> {
    let is_blank = |piece: &Piece| {
        let lines = text.get(piece.start..piece.end).unwrap_or_default().lines().map(str::trim);
        lines.into_iter().all(|line| line.is_empty() || line.starts_with('#'))
    };
    let pieces = pieces(text).into_iter().filter(|piece| !is_blank(piece));
    pieces.map(|piece| part(text, &piece)).collect::<Option<_>>().unwrap_or_default()
}

/// What is between two dividers.
struct Piece {
    start: usize,
    end: usize,
    start_line: u64,
}

fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let (mut start, mut at, mut lines, mut start_line) = (0, 0, 0, 0);
    for line in text.split_inclusive('\n') {
        lines += 1;
        if is_divider(line) {
            pieces.push(Piece { start, end: at, start_line });
            (start, start_line) = (at + line.len(), lines);
        }
        at += line.len();
    }
    pieces.push(Piece { start, end: at, start_line });
    pieces
}

/// `---` alone, or with a comment; a document that begins on the same line is not cut here.
fn is_divider(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| rest.trim().is_empty() || rest.trim_start().starts_with('#'))
}

fn part(text: &str, piece: &Piece) -> Option<Part> {
    let own = text.get(piece.start..piece.end)?;
    let Head { kind, metadata } = serde_saphyr::from_str(own).ok()?;
    Some(Part {
        kind: Kind::of(&kind)?,
        namespace: metadata.namespace,
        name: metadata.name,
        version: version(own.as_bytes()),
        text: own.to_owned(),
        start_line: piece.start_line,
        start: piece.start,
    })
}
