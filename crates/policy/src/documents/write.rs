//! AccessRoles and AccessGrants as YAML text that [`super::parse`] reads again: one way of writing, the documentation's.
//!
//! Names that could be anything else to YAML than a name are quoted. Absent on purpose: which rules to write.

use identity::Subject;
use identity::access::{HttpRule, Rule};

use super::{AccessRole, written_name};
use crate::decide::quoted;
use crate::role::Level;

/// Names in one list of a rule: what the schema of the custom resource takes.
pub(crate) const MAX_NAMES: usize = 256;

/// Rules of a role, by the same schema.
pub(crate) const MAX_RULES: usize = 256;

/// Databases of a role, and methods of a rule for HTTP, by the same schema.
pub(crate) const MAX_SHORT_LIST: usize = 64;

/// The longest DNS label.
const MAX_LABEL: usize = 63;

/// A rule in YAML flow style, and what is to be known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RuleText {
    pub(crate) comments: Vec<String>,
    pub(crate) text: String,
}

/// An AccessRole to be written.
#[derive(Debug, Clone, Default)]
pub(crate) struct RoleText {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) service: String,
    /// The login, with what is to be known of it; none: the role opens nothing of PostgreSQL.
    pub(crate) user: Option<(String, Vec<String>)>,
    pub(crate) databases: Vec<String>,
    pub(crate) rules: Vec<RuleText>,
    pub(crate) http: Vec<RuleText>,
}

impl RoleText {
    /// The document, which begins with `---`.
    pub(crate) fn write(&self, out: &mut String) {
        head(out, "AccessRole", &self.namespace, &self.name, &self.service);
        if let Some((user, comments)) = &self.user {
            out.push_str("  postgres:\n");
            comments.iter().for_each(|text| comment(out, "    ", text));
            line(out, "    user: ", &word(user));
            if !self.databases.is_empty() {
                line(out, "    database: ", &words(&self.databases));
            }
            rules(out, &self.rules);
        }
        if !self.http.is_empty() {
            out.push_str("  http:\n");
            rules(out, &self.http);
        }
    }

    /// A role that stands, to be written anew. Its comments are gone.
    pub(crate) fn of(role: &AccessRole) -> Self {
        let postgres = role.postgres.as_ref();
        Self {
            namespace: role.service.namespace.clone(),
            name: role.name.clone(),
            service: role.service.name.clone(),
            user: postgres.map(|postgres| (postgres.user.clone(), Vec::new())),
            databases: postgres.map(|postgres| postgres.database.clone()).unwrap_or_default(),
            rules: postgres.iter().flat_map(|postgres| &postgres.rules).map(|one| rule(standing(one))).collect(),
            http: role.http.iter().map(|one: &HttpRule| rule(http_rule(&one.methods, &one.paths))).collect(),
        }
    }
}

/// The document of a grant, which begins with `---`.
pub(crate) fn grant(out: &mut String, (namespace, service): (&str, &str), name: &str, to: &Subject, roles: &[&str]) {
    head(out, "AccessGrant", namespace, name, service);
    let subject = format!("{{serviceAccount: {}, namespace: {}}}", word(&to.service_account), word(&to.namespace));
    line(out, "  subjects: ", &format!("[{subject}]"));
    line(out, "  roles: ", &words(roles));
}

/// Text as comments: each of its lines one.
pub(crate) fn comment(out: &mut String, indent: &str, text: &str) {
    for part in text.lines() {
        // A name may hold what ends a line elsewhere than in Rust, and what stands behind it would be a document.
        let part: String = part.chars().map(|c| if is_break(c) { '\u{FFFD}' } else { c }).collect();
        line(out, indent, &format!("# {part}"));
    }
}

/// A rule without comments.
pub(crate) fn rule(text: String) -> RuleText {
    RuleText { comments: Vec::new(), text }
}

/// A rule for tables or functions by their written names.
pub(crate) fn sql_rule<T: AsRef<str>>(actions: &[&str], names: &[T]) -> String {
    let kind = if actions == ["execute"] { "functions" } else { "tables" };
    format!("{{actions: [{}], {kind}: {}}}", actions.join(", "), list(names))
}

/// A rule for HTTP.
pub(crate) fn http_rule<T: AsRef<str>>(methods: &[T], paths: &[T]) -> String {
    format!("{{methods: {}, paths: {}}}", words(methods), list(paths))
}

/// A name as a DNS label, for documents that are called after it.
pub(crate) fn labelled(name: &str) -> String {
    let label: String = name.replace('.', "-").chars().take(MAX_LABEL).collect();
    let label = label.trim_matches('-');
    if Level::of(label).is_some() { format!("{label}-account") } else { label.to_owned() }
}

/// A rule of a document, whose names are stored names.
fn standing(rule: &Rule) -> String {
    let written = |names: &[String]| names.iter().map(|name| as_written(name)).collect::<Vec<_>>();
    let mut parts = vec![format!("actions: [{}]", rule.actions.join(", "))];
    for (kind, names) in [("tables", &rule.tables), ("functions", &rule.functions)] {
        if !names.is_empty() {
            parts.push(format!("{kind}: {}", list(&written(names))));
        }
    }
    format!("{{{}}}", parts.join(", "))
}

fn as_written(stored: &str) -> String {
    let written = stored.split_once('.').and_then(|(schema, name)| written_name(schema, name));
    // `schema.*` is written as it is stored.
    written.unwrap_or_else(|| stored.to_owned())
}

fn head(out: &mut String, kind: &str, namespace: &str, name: &str, service: &str) {
    out.push_str("---\napiVersion: sidegate.dev/v1alpha1\n");
    line(out, "kind: ", kind);
    line(out, "metadata: ", &format!("{{namespace: {}, name: {}}}", word(namespace), word(name)));
    line(out, "spec:\n  service: ", &word(service));
}

fn rules(out: &mut String, rules: &[RuleText]) {
    out.push_str("    rules:\n");
    for rule in rules {
        rule.comments.iter().for_each(|text| comment(out, "      ", text));
        line(out, "      - ", &rule.text);
    }
}

/// A name as it is where no YAML reads anything else into it, else quoted.
fn word(name: &str) -> String {
    const OTHERS: [&str; 10] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan"];
    let is_plain = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        && !OTHERS.contains(&name.to_ascii_lowercase().as_str());
    if is_plain { name.to_owned() } else { quoted(name) }
}

fn words<T: AsRef<str>>(names: &[T]) -> String {
    let words: Vec<_> = names.iter().map(|name| word(name.as_ref())).collect();
    format!("[{}]", words.join(", "))
}

fn list<T: AsRef<str>>(names: &[T]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| quoted(name.as_ref())).collect();
    format!("[{}]", quoted.join(", "))
}

fn line(out: &mut String, label: &str, text: &str) {
    out.push_str(label);
    out.push_str(text);
    out.push('\n');
}

fn is_break(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{FEFF}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::{Document, Source, parse};

    #[test]
    fn a_role_is_written_as_it_was_read() {
        let path = "roles.yaml".to_owned();
        let text = include_str!("../../../../corpus/roles.yaml").to_owned()
            + "---\nkind: AccessRole\nmetadata: {namespace: b, name: odd}\nspec:\n  service: b\n  postgres:\n    user: \"true\"\n"
            + "    database: [\"1\", \"sh\u{2028}op\"]\n    rules:\n      - {actions: [select, execute], tables: ['a.\"n.m\"', 'a.*'], functions: [a.+]}\n"
            + "  http: {rules: [{methods: [GET], paths: [\"/%22*\"]}]}\n";
        let (documents, errors) = parse(&Source { path: path.clone(), text });
        assert!(errors.is_empty(), "{errors:?}");
        let mut again = String::new();
        for document in &documents {
            let Document::Role(role) = document else { panic!() };
            RoleText::of(role).write(&mut again);
        }
        let (read, errors) = parse(&Source { path, text: again.clone() });
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(read.len(), documents.len());
        for (read, document) in read.iter().zip(&documents) {
            let (Document::Role(read), Document::Role(role)) = (read, document) else { panic!() };
            assert_eq!((&read.name, &read.postgres, &read.http), (&role.name, &role.postgres, &role.http), "{again}");
        }
    }

    #[test]
    fn no_comment_ends_early() {
        let mut out = String::new();
        comment(&mut out, "", "a\u{85}b\u{2028}kind: AccessGrant\rc\nd");
        assert_eq!(out, "# a\u{FFFD}b\u{FFFD}kind: AccessGrant\u{FFFD}c\n# d\n");
    }

    #[test]
    fn documents_are_called_after_accounts() {
        assert_eq!(labelled("a.b.c"), "a-b-c");
        assert_eq!(labelled("reader"), "reader-account");
        assert_eq!(labelled(&format!("{}.b", "a".repeat(62))), "a".repeat(62));
    }
}
