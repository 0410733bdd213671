//! What is written becomes what is meant. Errors are collected, not thrown: someone who mends a document wants to hear
//! everything that is wrong with it.

use std::sync::Arc;

use identity::access::{HttpRule, Rule};
use identity::{ServiceName, Subject};
use serde_saphyr::Spanned;

use super::raw::{self, Raw, Text, place};
use super::{AccessGrant, AccessRole, Document, DocumentError, Place, PostgresAccess, stored_name};
use crate::facts::Action;
use crate::http::{Pattern, is_method};
use crate::role::Level;

const ROLE: &str = "AccessRole";
const GRANT: &str = "AccessGrant";
const API_VERSION: &str = "sidegate.dev/v1alpha1";
/// PostgreSQL cuts longer names off, and a cut login is another login.
const MAX_IDENTIFIER: usize = 63;

/// One document, or all that is wrong with it.
pub(super) fn document(path: &Arc<str>, raw: Raw) -> Result<Document, Vec<DocumentError>> {
    let mut check = Check { path, errors: Vec::new() };
    let document = check.document(raw);
    match document {
        Some(document) if check.errors.is_empty() => Ok(document),
        _ => Err(check.errors),
    }
}

/// The error for a kind that is none of ours.
pub(super) fn unknown_kind(path: &Arc<str>, kind: &Text) -> Option<DocumentError> {
    if kind.value == ROLE || kind.value == GRANT {
        return None;
    }
    let what = format!("unknown kind `{}`: this directory takes {ROLE} and {GRANT}", kind.value);
    Some(DocumentError { place: place(path, kind.referenced), what })
}

struct Check<'a> {
    path: &'a Arc<str>,
    errors: Vec<DocumentError>,
}

/// What both kinds have.
struct Common {
    name: String,
    service: ServiceName,
    place: Place,
}

impl Check<'_> {
    fn document(&mut self, raw: Raw) -> Option<Document> {
        let Some(kind) = &raw.kind else {
            let at = raw.spec.as_ref().map(|s| place(self.path, s.referenced));
            return self.fail(at, format!("the kind is missing: write `kind: {ROLE}` or `kind: {GRANT}`"));
        };
        if let Some(error) = unknown_kind(self.path, kind) {
            self.errors.push(error);
            return None;
        }
        self.api_version(raw.api_version.as_ref());
        let at = place(self.path, kind.referenced);
        let Some(Spanned { value: mut spec, .. }) = raw.spec else {
            return self.fail(Some(at), "`spec` is missing".to_owned());
        };
        let common = self.common(&at, raw.metadata, spec.service.take());
        if kind.value == ROLE { self.role(common, at, spec) } else { self.grant(common, at, spec) }
    }

    fn api_version(&mut self, version: Option<&Text>) {
        if let Some(version) = version.filter(|v| v.value != API_VERSION) {
            self.note(
                version,
                format!("unknown apiVersion `{}`: write `{API_VERSION}` or leave it out", version.value),
            );
        }
    }

    fn common(&mut self, at: &Place, metadata: Option<raw::Metadata>, service: Option<Text>) -> Option<Common> {
        let (namespace, name) = metadata.map_or((None, None), |m| (m.namespace, m.name));
        let namespace = self.required(at, namespace, "metadata.namespace", "the namespace of the service");
        let name = self.required(at, name, "metadata.name", "a name of its own");
        let service = self.required(at, service, "spec.service", "the name of the service it opens");
        let (namespace, name, service) = (namespace?, name?, service?);
        let label = self.label("metadata.namespace", &namespace) & self.label("metadata.name", &name);
        if let Some((_, bare)) = service.value.split_once('/') {
            let right = format!(
                "a document lives in the namespace of the service it opens: write `service: {bare}` \
                 and put the document into that service's namespace (it is in `{}`)",
                namespace.value
            );
            return self.at(&service, format!("`{}` is no service's bare name; {right}", service.value));
        }
        if !(self.label("spec.service", &service) && label) {
            return None;
        }
        let service = ServiceName::new(&namespace.value, &service.value).ok()?;
        Some(Common { name: name.value, service, place: at.clone() })
    }

    fn role(&mut self, common: Option<Common>, at: Place, spec: raw::Spec) -> Option<Document> {
        let raw::Spec { postgres, http, subjects, roles, .. } = spec;
        self.foreign(subjects.map(|s| s.referenced), "subjects", ROLE, GRANT);
        self.foreign(roles.map(|r| r.referenced), "roles", ROLE, GRANT);
        if let Some(common) = common.as_ref().filter(|c| Level::ALL.iter().any(|l| l.name() == c.name)) {
            let what = format!("`{}` is a built-in role and cannot be defined anew: choose another name", common.name);
            self.errors.push(DocumentError { place: common.place.clone(), what });
        }
        if postgres.is_none() && http.is_none() {
            let what = "the role opens nothing: add `postgres:` or `http:` with `rules:`".to_owned();
            return self.fail(Some(at), what);
        }
        let postgres = postgres.map(|p| self.postgres(p));
        let http = http.map_or_else(Vec::new, |h| self.http(h));
        let Common { name, service, place } = common?;
        Some(Document::Role(AccessRole { name, service, postgres: postgres.flatten(), http, place }))
    }

    fn postgres(&mut self, postgres: Spanned<raw::Postgres>) -> Option<PostgresAccess> {
        let at = place(self.path, postgres.referenced);
        let raw::Postgres { user, database, rules } = postgres.value;
        let user = self.required(&at, user, "postgres.user", "the database login that sessions of this role run as");
        for name in user.iter().chain(&database) {
            self.identifier(name);
        }
        if rules.is_empty() {
            self.note_at(at, format!("`postgres` has no rules and opens nothing: {RULE_EXAMPLE}"));
        }
        let rules = rules.into_iter().map(|rule| self.rule(rule)).collect();
        Some(PostgresAccess { user: user?.value, database: values(database), rules })
    }

    fn rule(&mut self, rule: Spanned<raw::Rule>) -> Rule {
        let raw::Rule { actions, tables, functions } = &rule.value;
        let known: Vec<Action> = actions.iter().filter_map(|word| self.action(word)).collect();
        let execute = known.contains(&Action::Execute);
        let on_tables = known.iter().any(|a| *a != Action::Execute);
        let understood = known.len() == actions.len();
        if actions.is_empty() {
            self.note(&rule, format!("the rule has no actions: {RULE_EXAMPLE}"));
        }
        if understood && !actions.is_empty() && on_tables == tables.is_empty() {
            self.note(&rule, if on_tables { TABLES_MISSING } else { TABLES_IDLE }.to_owned());
        }
        if understood && !actions.is_empty() && execute == functions.is_empty() {
            self.note(&rule, if execute { FUNCTIONS_MISSING } else { FUNCTIONS_IDLE }.to_owned());
        }
        let [tables, functions] = [tables, functions].map(|names| names.iter().filter_map(|n| self.name(n)).collect());
        Rule { actions: values(rule.value.actions), tables, functions }
    }

    fn action(&mut self, word: &Text) -> Option<Action> {
        let action = Action::of_rule(&word.value);
        if action.is_none() {
            self.note(word, format!("unknown action `{}`: {ACTIONS}", word.value));
        }
        action
    }

    fn name(&mut self, name: &Text) -> Option<String> {
        match stored_name(&name.value) {
            Ok(stored) => Some(stored),
            Err(what) => self.at(name, what),
        }
    }

    fn http(&mut self, http: Spanned<raw::Http>) -> Vec<HttpRule> {
        if http.value.rules.is_empty() {
            self.note(&http, format!("`http` has no rules and opens nothing: {HTTP_EXAMPLE}"));
        }
        http.value.rules.into_iter().map(|rule| self.http_rule(rule)).collect()
    }

    fn http_rule(&mut self, rule: Spanned<raw::HttpRule>) -> HttpRule {
        if rule.value.methods.is_empty() || rule.value.paths.is_empty() {
            self.note(&rule, format!("the rule needs both methods and paths: {HTTP_EXAMPLE}"));
        }
        for method in &rule.value.methods {
            if !is_method(&method.value) {
                let what = format!("`{}` is no method: write it in upper case, like GET or POST", method.value);
                self.note(method, what);
            }
        }
        for path in &rule.value.paths {
            if let Err(error) = Pattern::parse(&path.value) {
                self.note(path, error.to_string());
            }
        }
        HttpRule { methods: values(rule.value.methods), paths: values(rule.value.paths) }
    }

    fn grant(&mut self, common: Option<Common>, at: Place, spec: raw::Spec) -> Option<Document> {
        let raw::Spec { postgres, http, subjects, roles, .. } = spec;
        self.foreign(postgres.map(|p| p.referenced), "postgres", GRANT, ROLE);
        self.foreign(http.map(|h| h.referenced), "http", GRANT, ROLE);
        let subjects = subjects.map(|s| s.value).unwrap_or_default();
        let roles = roles.map(|r| r.value).unwrap_or_default();
        if subjects.is_empty() {
            let what = format!("the grant has no subjects: {SUBJECTS_EXAMPLE}");
            self.note_at(at.clone(), what);
        }
        if roles.is_empty() {
            let what = "the grant has no roles: add `roles: [reader]`, or the name of an AccessRole".to_owned();
            self.note_at(at, what);
        }
        let subjects = subjects.into_iter().filter_map(|s| self.subject(s)).collect();
        let roles = roles.into_iter().map(|r| (r.value, place(self.path, r.referenced))).collect();
        let Common { name, service, place } = common?;
        Some(Document::Grant(AccessGrant { name, service, subjects, roles, place }))
    }

    fn subject(&mut self, subject: Spanned<raw::Subject>) -> Option<Subject> {
        let at = place(self.path, subject.referenced);
        let raw::Subject { service_account, namespace } = subject.value;
        let (Some(account), Some(namespace)) = (service_account, namespace) else {
            return self.fail(Some(at), format!("a subject needs serviceAccount and namespace: {SUBJECTS_EXAMPLE}"));
        };
        match Subject::new(&namespace.value, &account.value) {
            Ok(subject) => Some(subject),
            Err(error) => {
                let what = format!("`{}` in `{}` is no service account: {error}", account.value, namespace.value);
                self.at(&account, what)
            }
        }
    }

    fn identifier(&mut self, name: &Text) {
        if !is_identifier(&name.value) {
            let what = format!("{:?} is no name in PostgreSQL: it has 1 to {MAX_IDENTIFIER} bytes", name.value);
            self.note(name, what);
        }
    }

    fn label(&mut self, field: &str, text: &Text) -> bool {
        let checked = ServiceName::new(&text.value, &text.value);
        if let Err(error) = &checked {
            self.note(text, format!("{field} is `{}`: {error}", text.value));
        }
        checked.is_ok()
    }

    fn foreign(&mut self, at: Option<serde_saphyr::Location>, field: &str, kind: &str, other: &str) {
        if let Some(at) = at {
            let what = format!("`{field}` is a field of {other}, not of {kind}: write a document of kind {other}");
            self.note_at(place(self.path, at), what);
        }
    }

    fn required(&mut self, at: &Place, text: Option<Text>, field: &str, meaning: &str) -> Option<Text> {
        if text.is_none() {
            self.note_at(at.clone(), format!("`{field}` is missing: {meaning}"));
        }
        text
    }

    fn at<T, V>(&mut self, spanned: &Spanned<V>, what: String) -> Option<T> {
        self.fail(Some(place(self.path, spanned.referenced)), what)
    }

    fn note<V>(&mut self, spanned: &Spanned<V>, what: String) {
        self.note_at(place(self.path, spanned.referenced), what);
    }

    fn note_at(&mut self, place: Place, what: String) {
        self.errors.push(DocumentError { place, what });
    }

    fn fail<T>(&mut self, at: Option<Place>, what: String) -> Option<T> {
        let place = at.unwrap_or_else(|| place(self.path, serde_saphyr::Location::UNKNOWN));
        self.errors.push(DocumentError { place, what });
        None
    }
}

/// Whether PostgreSQL could have a login or a database of that name.
#[must_use]
pub fn is_identifier(name: &str) -> bool {
    (1..=MAX_IDENTIFIER).contains(&name.len()) && !name.contains(char::is_control)
}

const ACTIONS: &str = "want select, insert, update, delete, merge or truncate (of tables), or execute (of functions)";
const RULE_EXAMPLE: &str = "add one like `{actions: [select], tables: [\"public.orders\"]}`";
const HTTP_EXAMPLE: &str = "add one like `{methods: [GET], paths: [\"/api/v1/query*\"]}`";
const SUBJECTS_EXAMPLE: &str = "write `subjects: [{serviceAccount: service-a, namespace: service-a}]`";
const TABLES_MISSING: &str = "the rule's actions need `tables`, like `tables: [\"public.orders\"]`";
const TABLES_IDLE: &str = "`tables` need an action other than execute: add one, like select, or remove them";
const FUNCTIONS_MISSING: &str = "execute needs `functions`, like `functions: [\"public.place_order\"]`";
const FUNCTIONS_IDLE: &str = "`functions` need the action execute: add it, or remove them";

fn values(texts: Vec<Text>) -> Vec<String> {
    texts.into_iter().map(|t| t.value).collect()
}
