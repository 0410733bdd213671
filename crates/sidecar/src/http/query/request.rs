//! A request of `POST /query`: its statements, and what its header fields and query ask for.
//!
//! Deliberately absent: any look into the SQL.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::problem::{Kind, Problem};
use crate::analysis::TEXT_LIMIT;

/// The longest body, in bytes: a text of the longest kind, written in escapes, and its parameters.
const BODY_LIMIT: usize = 4 * TEXT_LIMIT;

/// Statements of one batch.
const STATEMENT_LIMIT: usize = 10_000;

/// The protocol counts parameters in 16 bits.
const PARAMETER_LIMIT: usize = 65_535;

/// Arrays of parameters are nested no deeper than PostgreSQL's (`MAXDIM`).
const ARRAY_DEPTH: usize = 6;

/// One statement and its parameters, each as PostgreSQL reads a value's text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) text: String,
    pub(super) parameters: Vec<Option<String>>,
    /// Rows as arrays, where this statement says so by itself.
    pub(super) array_mode: Option<bool>,
}

/// What a request asks for besides its statements.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) role: Option<String>,
    pub(super) database: Option<String>,
    /// Rows as arrays of values, not as objects.
    pub(super) array_mode: bool,
    /// Values as PostgreSQL writes them, not as JSON's own kinds.
    pub(super) raw_text: bool,
    /// How to begin the transaction of a batch; `None`: one statement alone.
    pub(super) begin: Option<String>,
}

impl Asked {
    pub(super) fn is_batch(&self) -> bool {
        self.begin.is_some()
    }
}

/// Reads a request. Not cancel safe.
pub(super) async fn read(headers: &HeaderMap, uri: &Uri, body: Incoming) -> Result<(Asked, Vec<Statement>), Problem> {
    let mut asked = asked(headers, uri)?;
    let body = Limited::new(body, BODY_LIMIT).collect().await.map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            Problem::new(Kind::TooLarge, format!("sidegate: the request is longer than {BODY_LIMIT} bytes"))
        } else {
            Problem::new(Kind::BadRequest, "sidegate: the request broke off").detail(error.to_string())
        }
    })?;
    let (statements, is_batch) = statements(&body.to_bytes())?;
    asked.begin = if is_batch { Some(begin(headers)?) } else { None };
    Ok((asked, statements))
}

fn malformed(why: impl std::fmt::Display) -> Problem {
    Problem::new(Kind::BadRequest, "sidegate: the request is malformed").detail(why.to_string()).hint(
        "Send JSON: {\"query\": \"select $1::int\", \"params\": [1]}, or an array of such objects as one transaction.",
    )
}

/// One statement, as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStatement<'a> {
    #[serde(alias = "sql")]
    query: String,
    #[serde(default, borrow)]
    params: Vec<&'a RawValue>,
    #[serde(default, rename = "arrayMode")]
    array_mode: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBatch<'a> {
    #[serde(borrow)]
    queries: Vec<&'a RawValue>,
}

/// Only the names of the members, to tell a batch from a statement.
#[derive(Deserialize)]
struct Shape {
    queries: Option<serde::de::IgnoredAny>,
}

/// The statements of a body, and whether they are a batch.
fn statements(body: &Bytes) -> Result<(Vec<Statement>, bool), Problem> {
    let text = std::str::from_utf8(body).map_err(|_| malformed("It is not UTF-8."))?;
    let (raw, is_batch) = match text.trim_start().as_bytes().first() {
        Some(b'[') => (serde_json::from_str::<Vec<&RawValue>>(text).map_err(malformed)?, true),
        Some(b'{') if serde_json::from_str::<Shape>(text).map_err(malformed)?.queries.is_some() => {
            (serde_json::from_str::<RawBatch<'_>>(text).map_err(malformed)?.queries, true)
        }
        _ => (vec![serde_json::from_str::<&RawValue>(text).map_err(malformed)?], false),
    };
    if raw.len() > STATEMENT_LIMIT {
        return Err(Problem::new(Kind::TooLarge, format!("sidegate: more than {STATEMENT_LIMIT} statements")));
    }
    let statements = raw.into_iter().map(statement).collect::<Result<_, _>>()?;
    Ok((statements, is_batch))
}

fn statement(raw: &RawValue) -> Result<Statement, Problem> {
    // Serde would read a struct from an array, too.
    if !raw.get().starts_with('{') {
        return Err(malformed("A statement is a JSON object."));
    }
    let raw: RawStatement<'_> = serde_json::from_str(raw.get()).map_err(malformed)?;
    if raw.params.len() > PARAMETER_LIMIT {
        return Err(Problem::new(Kind::TooLarge, format!("sidegate: more than {PARAMETER_LIMIT} parameters")));
    }
    let parameters = raw.params.into_iter().map(parameter).collect::<Result<_, _>>()?;
    Ok(Statement { text: raw.query, parameters, array_mode: raw.array_mode })
}

/// A parameter as PostgreSQL reads it: numbers digit by digit as they were sent, arrays as its array literals, objects
/// as JSON.
fn parameter(raw: &RawValue) -> Result<Option<String>, Problem> {
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b'"') => serde_json::from_str(text).map(Some).map_err(malformed),
        Some(b'[') => {
            let mut literal = String::with_capacity(text.len());
            array(&mut literal, text, ARRAY_DEPTH)?;
            Ok(Some(literal))
        }
        _ => Ok(Some(text.to_owned())),
    }
}

fn array(out: &mut String, text: &str, depth: usize) -> Result<(), Problem> {
    let elements: Vec<&RawValue> = serde_json::from_str(text).map_err(malformed)?;
    let Some(below) = depth.checked_sub(1) else {
        return Err(malformed("A parameter's arrays are nested deeper than PostgreSQL's."));
    };
    out.push('{');
    for (index, element) in elements.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        let text = element.get();
        match text.as_bytes().first() {
            Some(b'n') => out.push_str("NULL"),
            Some(b'[') => array(out, text, below)?,
            Some(b'"') => quoted(out, &serde_json::from_str::<Cow<'_, str>>(text).map_err(malformed)?),
            Some(b'{') => quoted(out, text),
            _ => out.push_str(text),
        }
    }
    out.push('}');
    Ok(())
}

fn quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

fn asked(headers: &HeaderMap, uri: &Uri) -> Result<Asked, Problem> {
    let mut asked = Asked {
        array_mode: flag(headers, "neon-array-mode")?.unwrap_or_default(),
        raw_text: flag(headers, "neon-raw-text-output")?.unwrap_or_default(),
        ..Asked::default()
    };
    if let Some(text) = only(headers, "neon-connection-string")? {
        (asked.role, asked.database) = connection_string(text)?;
    }
    for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        let known = match &*name {
            "role" => &mut asked.role,
            "database" => &mut asked.database,
            _ => {
                return Err(malformed(format!(
                    "The URL's parameter {name:?} is not known; there are role and database."
                )));
            }
        };
        if value.contains(['\0', '\u{fffd}']) {
            return Err(malformed(format!("The {name} has characters that no name has.")));
        }
        if known.as_deref().is_some_and(|other| other != value) {
            return Err(malformed(format!("The {name} is given twice, and differently.")));
        }
        *known = Some(value.into_owned());
    }
    Ok(asked)
}

/// Role and database of a connection string. What it says of host, port and password is for others.
fn connection_string(text: &str) -> Result<(Option<String>, Option<String>), Problem> {
    let bad = || malformed("Neon-Connection-String is not like postgresql://role@host/database.");
    let rest = text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://")).ok_or_else(bad)?;
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let role = authority.rsplit_once('@').map(|(user, _)| user.split(':').next().unwrap_or_default());
    let part = |text: &str| decoded(text).ok_or_else(bad);
    let role = role.filter(|role| !role.is_empty()).map(part).transpose()?;
    let database = Some(path).filter(|path| !path.is_empty()).map(part).transpose()?;
    Ok((role, database))
}

/// Percent-decodes. `+` is itself here, unlike in a form.
fn decoded(text: &str) -> Option<String> {
    let pair = format!("v={}", text.replace('+', "%2B").replace('&', "%26"));
    let (_, value) = form_urlencoded::parse(pair.as_bytes()).next()?;
    let value = value.into_owned();
    (!value.contains(['\0', '\u{fffd}'])).then_some(value)
}

/// How the transaction of a batch begins.
fn begin(headers: &HeaderMap) -> Result<String, Problem> {
    let mut begin = "BEGIN".to_owned();
    if let Some(level) = only(headers, "neon-batch-isolation-level")? {
        begin += match level {
            "ReadUncommitted" => " ISOLATION LEVEL READ UNCOMMITTED",
            "ReadCommitted" => " ISOLATION LEVEL READ COMMITTED",
            "RepeatableRead" => " ISOLATION LEVEL REPEATABLE READ",
            "Serializable" => " ISOLATION LEVEL SERIALIZABLE",
            _ => {
                return Err(malformed(
                    "Neon-Batch-Isolation-Level is ReadUncommitted, ReadCommitted, RepeatableRead or Serializable.",
                ));
            }
        };
    }
    if let Some(read_only) = flag(headers, "neon-batch-read-only")? {
        begin += if read_only { " READ ONLY" } else { " READ WRITE" };
    }
    if let Some(deferrable) = flag(headers, "neon-batch-deferrable")? {
        begin += if deferrable { " DEFERRABLE" } else { " NOT DEFERRABLE" };
    }
    Ok(begin)
}

fn flag(headers: &HeaderMap, name: &str) -> Result<Option<bool>, Problem> {
    match only(headers, name)? {
        None => Ok(None),
        Some(text) if text.eq_ignore_ascii_case("true") => Ok(Some(true)),
        Some(text) if text.eq_ignore_ascii_case("false") => Ok(Some(false)),
        Some(_) => Err(malformed(format!("{name} is true or false."))),
    }
}

fn only<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(malformed(format!("{name} is there twice.")));
    }
    value.map(|value| value.to_str().map_err(|_| malformed(format!("{name} is not ASCII.")))).transpose()
}

#[cfg(test)]
mod tests;
