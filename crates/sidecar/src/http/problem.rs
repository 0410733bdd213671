//! What went wrong, as HTTP says it: `application/problem+json` (RFC 9457), and the challenge of RFC 6750.
//!
//! The members `message`, `code`, `detail`, `hint` and those behind them are named as PostgreSQL's drivers name the
//! fields of an error. Deliberately absent: who decides what a client may see; whoever makes a [`Problem`] has.

use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use wire::ErrorFields;

use super::{Body, full};

/// Where the kinds of problems are described.
const TYPES: &str = "https://sidegate.dev/problems/";

/// Seconds after which a client that found no room may try again.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// The kinds of problems. Their names are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No token, or one that is not believed.
    Unauthorized,
    /// Not allowed.
    Denied,
    /// A request that makes no sense.
    BadRequest,
    /// PostgreSQL refused the statement.
    Sql,
    /// No such place.
    NotFound,
    /// A method that the place does not know.
    MethodNotAllowed,
    /// A request that does not arrive.
    Slow,
    /// More than is taken.
    TooLarge,
    /// The service behind, or the other sidecar, is not there or broke off.
    Upstream,
    /// The service behind took too long.
    Timeout,
    /// No room, or not ready yet: later it may work.
    Unavailable,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Unauthorized => "unauthorized",
            Kind::Denied => "denied",
            Kind::BadRequest => "bad-request",
            Kind::Sql => "sql",
            Kind::NotFound => "not-found",
            Kind::MethodNotAllowed => "method-not-allowed",
            Kind::Slow => "slow",
            Kind::TooLarge => "too-large",
            Kind::Upstream => "upstream",
            Kind::Timeout => "timeout",
            Kind::Unavailable => "unavailable",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Kind::Unauthorized => "A valid access token is needed",
            Kind::Denied => "Not allowed",
            Kind::BadRequest => "The request is not understood",
            Kind::Sql => "The statement failed",
            Kind::NotFound => "There is nothing here",
            Kind::MethodNotAllowed => "The method does not work here",
            Kind::Slow => "The request took too long to arrive",
            Kind::TooLarge => "Too large",
            Kind::Upstream => "The service cannot be reached",
            Kind::Timeout => "The service did not answer in time",
            Kind::Unavailable => "Not now",
        }
    }

    pub(crate) fn status(self) -> StatusCode {
        match self {
            Kind::Unauthorized => StatusCode::UNAUTHORIZED,
            Kind::Denied => StatusCode::FORBIDDEN,
            Kind::BadRequest | Kind::Sql => StatusCode::BAD_REQUEST,
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Kind::Slow => StatusCode::REQUEST_TIMEOUT,
            Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Kind::Upstream => StatusCode::BAD_GATEWAY,
            Kind::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// What went wrong, why, and what to do.
#[derive(Debug)]
pub(crate) struct Problem {
    kind: Kind,
    challenge: Option<String>,
    members: Box<Members>,
}

/// A problem (RFC 9457). Of one that PostgreSQL reports, the members beside are the other fields of its error.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct Members {
    /// The kind of problem, a URI.
    r#type: String,
    /// The kind of problem, for people.
    title: &'static str,
    /// The status of the answer.
    status: u16,
    /// What happened.
    message: String,
    /// SQLSTATE.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    /// The decision's id, as the decision log has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    decision_id: Option<String>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

impl Problem {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Problem {
        let members = Members {
            r#type: format!("{TYPES}{}", kind.name()),
            title: kind.title(),
            status: kind.status().as_u16(),
            message: message.into(),
            code: None,
            detail: None,
            hint: None,
            decision_id: None,
            more: Map::new(),
        };
        Problem { kind, challenge: None, members: Box::new(members) }
    }

    /// From an error's fields.
    pub(crate) fn of_fields(kind: Kind, fields: ErrorFields) -> Problem {
        let mut problem = Problem::new(kind, fields.message).code(fields.code);
        problem.members.detail = fields.detail;
        problem.members.hint = fields.hint;
        problem
    }

    /// The SQLSTATE.
    pub(crate) fn sqlstate(&self) -> Option<&str> {
        self.members.code.as_deref()
    }

    /// A member that only some problems have.
    pub(crate) fn insert(&mut self, name: &str, value: Value) {
        self.members.more.insert(name.to_owned(), value);
    }

    pub(crate) fn code(mut self, code: impl Into<String>) -> Problem {
        self.members.code = Some(code.into());
        self
    }

    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Problem {
        self.members.detail = Some(detail.into());
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Problem {
        self.members.hint = Some(hint.into());
        self
    }

    pub(crate) fn decision(mut self, id: impl Into<String>) -> Problem {
        self.members.decision_id = Some(id.into());
        self
    }

    /// The value of `WWW-Authenticate`, from `authenticate`.
    pub(crate) fn challenge(mut self, challenge: String) -> Problem {
        self.challenge = Some(challenge);
        self
    }

    /// The answer.
    pub(crate) fn response(self) -> Response<Body> {
        // Strings and numbers cannot fail to be written to memory.
        let mut response = Response::new(full(serde_json::to_vec(&self.members).unwrap_or_default()));
        *response.status_mut() = self.kind.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(challenge) = self.challenge.and_then(|challenge| HeaderValue::try_from(challenge).ok()) {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if self.kind == Kind::Unavailable {
            headers.insert(RETRY_AFTER, RETRY_SECONDS);
        }
        response
    }
}
