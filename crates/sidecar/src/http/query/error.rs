//! PostgreSQL's errors as HTTP says them.

use serde_json::Value;
use wire::error::field_of;

use super::super::problem::{Kind, Problem};
use super::session::Over;
use crate::login::Refusal;
use crate::pg::authenticate::LoginError;

/// The fields of an error that node-postgres names, besides those that a problem has already.
const FIELDS: [(u8, &str); 13] = [
    (b'V', "severity"),
    (b'P', "position"),
    (b'p', "internalPosition"),
    (b'q', "internalQuery"),
    (b'W', "where"),
    (b's', "schema"),
    (b't', "table"),
    (b'c', "column"),
    (b'd', "dataType"),
    (b'n', "constraint"),
    (b'F', "file"),
    (b'L', "line"),
    (b'R', "routine"),
];

/// An `ErrorResponse`, whole.
pub(super) fn of_response(body: &[u8]) -> Problem {
    let field = |tag| field_of(body, tag).map(|text| String::from_utf8_lossy(text).into_owned());
    let code = field(b'C').unwrap_or_default();
    // A protocol violation that leaves the session alive is a request's: too few parameters, for example.
    let kind = match kind(&code) {
        Kind::Upstream if field(b'V').as_deref() == Some("ERROR") => Kind::Sql,
        kind => kind,
    };
    let mut problem = Problem::new(kind, field(b'M').unwrap_or_default()).code(code);
    problem = field(b'D').into_iter().fold(problem, Problem::detail);
    problem = field(b'H').into_iter().fold(problem, Problem::hint);
    for (tag, name) in FIELDS {
        if let Some(text) = field(tag) {
            problem.insert(name, Value::String(text));
        }
    }
    problem
}

/// What kind of problem an SQLSTATE is.
fn kind(code: &str) -> Kind {
    match (code, code.get(..2).unwrap_or_default()) {
        ("42501", _) | (_, "28") => Kind::Denied,
        // Shutting down, starting up, no room.
        ("57P01" | "57P02" | "57P03", _) | (_, "53") => Kind::Unavailable,
        (_, "08") => Kind::Upstream,
        _ => Kind::Sql,
    }
}

/// Why there is no session.
pub(super) fn of_login(error: LoginError) -> Problem {
    match error {
        LoginError::Refused(Refusal { fields, .. }) => Problem::of_fields(kind(fields.code), *fields),
        LoginError::Upstream(body) => of_response(&body),
        LoginError::Link(error) => {
            Problem::new(Kind::Upstream, "sidegate: PostgreSQL broke off").code("08006").detail(error.to_string())
        }
    }
}

/// Why a session ended amid a request.
pub(super) fn of_session(over: &Over) -> Problem {
    match over {
        Over::RowTooLong => Problem::new(Kind::Sql, "sidegate: a row of the result is too long")
            .code("54000")
            .hint("Use the native protocol for values this large."),
        Over::UnsafeSetting(_) => Problem::new(Kind::Sql, "sidegate: the session ended").code("57P01"),
        Over::Closed | Over::Io(_) | Over::Wire(_) => {
            Problem::new(Kind::Upstream, "sidegate: PostgreSQL broke off").code("08006")
        }
    }
    .detail(over.to_string())
}
