//! HTTP requests: a method and a path in, a verdict out.
//!
//! A request is allowed if any of the subject's roles has a rule with its method and its path; there is nothing that
//! takes away. The path is [`Path`], the normal form, and what is decided on is what is forwarded. Only [`decide`] makes
//! a [`Permit`]. Deliberately absent: hosts, queries, headers and bodies, of which no rule speaks.
//!
//! A pattern is a path, or the beginning of paths followed by `*`. Beginnings stay safe with parameters
//! (`/a;x=1/b`), which some services cut off from the `;` to the end of the segment: a pattern has no `;`, so all that
//! can be cut off lies behind the part that was compared, and what is left still begins with it. The one cut that could
//! lead out, `..;x`, is refused by [`Path::normalize`].

use std::fmt;

use identity::access::{HttpDetail, HttpRule};

mod path;

pub use path::{MAX_PATH_LENGTH, Path, PathError};

use crate::role::{Level, RoleError};

/// Methods have no longest name; messages do.
const MAX_SHOWN_METHOD: usize = 32;

/// Whether a word can be the method of a rule. Methods are case-sensitive (RFC 9110 §9.1), and those that exist are in
/// upper case.
#[must_use]
pub fn is_method(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// A path of a rule: one path, or all that begin so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    path: Path,
    is_beginning: bool,
}

/// What is wrong with a pattern, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is no path at all.
    #[error("`{0}` is no path: it begins with `/`, has no query, and a `*` only at its end, like `/api/v1/query*`")]
    NoPath(String),
    /// It has a `;`.
    #[error("`{0}` has parameters of a path (`;`), which services read in different ways: leave them out of rules")]
    Parameters(String),
    /// It cannot be brought to normal form.
    #[error("`{0}` can match nothing: {1}")]
    Refused(String, PathError),
    /// It is not in normal form.
    #[error("`{0}` is not in the normal form that paths are compared in: write `{1}`")]
    NotNormal(String, String),
}

impl Pattern {
    /// Reads a pattern. It must be in normal form, so that whoever reads a rule sees what it matches.
    ///
    /// # Errors
    /// With what would be right.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let (fixed, star) = text.strip_suffix('*').map_or((text, ""), |fixed| (fixed, "*"));
        if !fixed.starts_with('/') || fixed.contains(['*', '?', '#']) {
            return Err(PatternError::NoPath(text.to_owned()));
        }
        if fixed.contains(';') {
            return Err(PatternError::Parameters(text.to_owned()));
        }
        let path = Path::normalize(fixed).map_err(|error| PatternError::Refused(text.to_owned(), error))?;
        if path.as_str() != fixed {
            return Err(PatternError::NotNormal(text.to_owned(), format!("{path}{star}")));
        }
        Ok(Self { path, is_beginning: !star.is_empty() })
    }

    fn matches(&self, path: &Path) -> bool {
        if self.is_beginning { path.as_str().starts_with(self.path.as_str()) } else { *path == self.path }
    }
}

/// A role as a request holds it: a name, and what it may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRole {
    name: Box<str>,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    methods: Vec<String>,
    paths: Vec<Pattern>,
}

impl HttpRole {
    /// The role that a detail of type `sidegate_http` grants.
    ///
    /// # Errors
    /// No name, the name of a built-in role (those are for PostgreSQL), a rule that is not understood.
    pub fn from_detail(detail: &HttpDetail) -> Result<Self, RoleError> {
        if detail.role.is_empty() {
            return Err(RoleError::NoName);
        }
        if Level::of(&detail.role).is_some() {
            return Err(RoleError::BuiltInWithRules(detail.role.clone()));
        }
        let rules = detail.rules.iter().map(understand).collect::<Result<_, _>>()?;
        Ok(Self { name: detail.role.as_str().into(), rules })
    }

    /// The role's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The place of the first rule that opens the request.
    fn opening_rule(&self, method: &str, path: &Path) -> Option<usize> {
        self.rules.iter().position(|rule| {
            rule.methods.iter().any(|known| known == method) && rule.paths.iter().any(|pattern| pattern.matches(path))
        })
    }
}

fn understand(rule: &HttpRule) -> Result<Rule, RoleError> {
    if rule.methods.is_empty() || rule.paths.is_empty() {
        return Err(RoleError::Empty("it needs both methods and paths"));
    }
    if let Some(word) = rule.methods.iter().find(|word| !is_method(word)) {
        return Err(RoleError::Method(word.clone()));
    }
    let paths = rule.paths.iter().map(|text| Pattern::parse(text)).collect::<Result<_, _>>()?;
    Ok(Rule { methods: rule.methods.clone(), paths })
}

/// Proof that a request was allowed, and by which role. Nothing outside this module can make one.
#[derive(Debug)]
pub struct Permit<'a> {
    role: &'a str,
    rule: usize,
}

impl<'a> Permit<'a> {
    /// The name of the role that allows it.
    #[must_use]
    pub fn role(&self) -> &'a str {
        self.role
    }

    /// The rule that allows it, by its place in the role, counted from 0, as in `metrics-reader.rules[0]`.
    #[must_use]
    pub fn rule(&self) -> String {
        format!("{}.rules[{}]", self.role, self.rule)
    }
}

/// What was decided.
#[derive(Debug)]
pub enum HttpVerdict<'a> {
    /// It may be forwarded.
    Allow(Permit<'a>),
    /// It may not.
    Deny(HttpDenial),
}

/// Why a request may not be forwarded, in words for the client, the log and the metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpDenial {
    message: String,
    hint: String,
    reason: &'static str,
    action: &'static str,
    rule: Option<String>,
}

impl HttpDenial {
    /// `sidegate: <role> may not <METHOD> <path>`; several roles are listed.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What would allow it.
    #[must_use]
    pub fn hint(&self) -> &str {
        &self.hint
    }

    /// A bounded label for metrics: `no_rule`, or `no_role` if the subject has none for HTTP at all.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.reason
    }

    /// The method as a bounded label for metrics: `get`, `post`, …, or `other`.
    #[must_use]
    pub fn action(&self) -> &'static str {
        self.action
    }

    /// The rule that an AccessRole would need under `http`, in YAML flow style, where one can be written.
    #[must_use]
    pub fn rule(&self) -> Option<String> {
        self.rule.clone()
    }
}

/// Holds a request against all roles of its subject: one that allows it is enough.
#[must_use]
pub fn decide<'a>(roles: &'a [HttpRole], method: &str, path: &Path) -> HttpVerdict<'a> {
    let opening = |role: &'a HttpRole| Some(Permit { role: role.name(), rule: role.opening_rule(method, path)? });
    match roles.iter().find_map(opening) {
        Some(permit) => HttpVerdict::Allow(permit),
        None => HttpVerdict::Deny(denial(roles, method, path)),
    }
}

/// The method as a bounded label for metrics.
#[must_use]
pub fn method_label(method: &str) -> &'static str {
    match method {
        "GET" => "get",
        "HEAD" => "head",
        "POST" => "post",
        "PUT" => "put",
        "PATCH" => "patch",
        "DELETE" => "delete",
        "OPTIONS" => "options",
        "TRACE" => "trace",
        "CONNECT" => "connect",
        _ => "other",
    }
}

fn denial(roles: &[HttpRole], method: &str, path: &Path) -> HttpDenial {
    let rule = rule_for(method, path);
    let names: Vec<&str> = roles.iter().map(HttpRole::name).collect();
    let (message, reason) = match names.as_slice() {
        [] => ("sidegate: no role for HTTP is granted".to_owned(), "no_role"),
        names => (format!("sidegate: {} may not {} {path}", names.join(", "), Shown(method)), "no_rule"),
    };
    let hint = match (&rule, roles) {
        (None, _) => "no rule can be written for it: methods are in upper case".to_owned(),
        (Some(rule), []) => format!("an AccessGrant must give a role whose http rules have {rule}"),
        (Some(rule), _) => format!("add {rule} to the http rules of the AccessRole"),
    };
    HttpDenial { message, hint, reason, action: method_label(method), rule }
}

/// The narrowest rule that would open the request. A `*` or `;` in a path cannot be written in a pattern, so there the
/// pattern ends.
fn rule_for(method: &str, path: &Path) -> Option<String> {
    let text = path.as_str();
    let pattern = match text.find(['*', ';']) {
        Some(end) => format!("{}*", text.get(..end)?),
        None => text.to_owned(),
    };
    let can_be_written = is_method(method) && Pattern::parse(&pattern).is_ok();
    // A normal form has neither quotes nor backslashes, so the quotes here are safe.
    can_be_written.then(|| format!("{{methods: [{method}], paths: [\"{pattern}\"]}}"))
}

/// A caller's method, fit for a message.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut characters = self.0.chars().take(MAX_SHOWN_METHOD);
        characters.try_for_each(|c| write!(f, "{}", if c.is_ascii_graphic() { c } else { '?' }))
    }
}

#[cfg(test)]
mod tests;
