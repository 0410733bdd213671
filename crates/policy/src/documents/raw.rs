//! The documents as they are written: every field optional that a better error than serde's is made for, and with its
//! place. One shape serves both kinds, since enums that are told apart by a field lose the places.
//!
//! Absent on purpose: meaning. `check` knows which fields a kind has.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_saphyr::{DuplicateKeyPolicy, Location, Options, Spanned};

use super::{DocumentError, Place};

pub(super) type Text = Spanned<String>;

/// A document of either kind.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) api_version: Option<Text>,
    pub(super) kind: Option<Text>,
    pub(super) metadata: Option<Metadata>,
    pub(super) spec: Option<Spanned<Spec>>,
    /// What a cluster adds; it is no policy.
    #[serde(rename = "status")]
    _status: Option<IgnoredAny>,
}

/// The name, and what else a cluster keeps here. The fields are listed one by one so that a slip of the pen in
/// `namespace` is not taken for another of them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Metadata {
    pub(super) namespace: Option<Text>,
    pub(super) name: Option<Text>,
    #[serde(rename = "labels")]
    _labels: Option<IgnoredAny>,
    #[serde(rename = "annotations")]
    _annotations: Option<IgnoredAny>,
    #[serde(rename = "uid")]
    _uid: Option<IgnoredAny>,
    #[serde(rename = "resourceVersion")]
    _resource_version: Option<IgnoredAny>,
    #[serde(rename = "generation")]
    _generation: Option<IgnoredAny>,
    #[serde(rename = "creationTimestamp")]
    _creation_timestamp: Option<IgnoredAny>,
    #[serde(rename = "deletionTimestamp")]
    _deletion_timestamp: Option<IgnoredAny>,
    #[serde(rename = "deletionGracePeriodSeconds")]
    _deletion_grace_period: Option<IgnoredAny>,
    #[serde(rename = "managedFields")]
    _managed_fields: Option<IgnoredAny>,
    #[serde(rename = "ownerReferences")]
    _owner_references: Option<IgnoredAny>,
    #[serde(rename = "finalizers")]
    _finalizers: Option<IgnoredAny>,
    #[serde(rename = "selfLink")]
    _self_link: Option<IgnoredAny>,
}

/// The fields of both kinds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Spec {
    pub(super) service: Option<Text>,
    pub(super) postgres: Option<Spanned<Postgres>>,
    pub(super) http: Option<Spanned<Http>>,
    pub(super) subjects: Option<Spanned<Vec<Spanned<Subject>>>>,
    pub(super) roles: Option<Spanned<Vec<Text>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Postgres {
    pub(super) user: Option<Text>,
    #[serde(default)]
    pub(super) database: Vec<Text>,
    #[serde(default)]
    pub(super) rules: Vec<Spanned<Rule>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    #[serde(default)]
    pub(super) actions: Vec<Text>,
    #[serde(default)]
    pub(super) tables: Vec<Text>,
    #[serde(default)]
    pub(super) functions: Vec<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Http {
    #[serde(default)]
    pub(super) rules: Vec<Spanned<HttpRule>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HttpRule {
    #[serde(default)]
    pub(super) methods: Vec<Text>,
    #[serde(default)]
    pub(super) paths: Vec<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Subject {
    pub(super) service_account: Option<Text>,
    pub(super) namespace: Option<Text>,
}

/// Only the kind, to say the most important thing first about a document that is something else altogether.
#[derive(Debug, Deserialize)]
struct Header {
    kind: Option<Text>,
}

/// Reads the documents of a text, going on behind one that does not fit. A text that is no YAML ends there.
pub(super) fn read<'a>(path: &'a Arc<str>, text: &'a str) -> Vec<Result<Raw, DocumentError>> {
    let mut bytes = text.as_bytes();
    let documents = serde_saphyr::read_with_options::<_, Raw>(&mut bytes, options());
    documents.enumerate().map(|(index, raw)| raw.map_err(|error| explain(path, text, index, &error))).collect()
}

fn explain(path: &Arc<str>, text: &str, index: usize, error: &serde_saphyr::Error) -> DocumentError {
    let mut bytes = text.as_bytes();
    let header = serde_saphyr::read_with_options::<_, Header>(&mut bytes, options()).nth(index);
    let kind = header.and_then(Result::ok).and_then(|header| header.kind);
    if let Some(error) = kind.and_then(|kind| super::check::unknown_kind(path, &kind)) {
        return error;
    }
    let place = place(path, error.location().unwrap_or(Location::UNKNOWN));
    DocumentError { place, what: words(error) }
}

/// The library's words end with the place, which stands at the beginning already.
fn words(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    match error.location() {
        Some(at) => text.replace(&format!(" at line {}, column {}", at.line(), at.column()), ""),
        None => text,
    }
}

pub(super) fn place(path: &Arc<str>, location: Location) -> Place {
    Place { path: path.clone(), line: location.line(), column: location.column() }
}

fn options() -> Options {
    serde_saphyr::options! { with_snippet: false, duplicate_keys: DuplicateKeyPolicy::Error }
}
