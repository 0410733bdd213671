//! The rules of token exchange (RFC 8693): what a request must say, what of the grants it gets, how a refusal reads.
//!
//! Deliberately absent: HTTP, verification of the subject token (`subject`), delegation (`actor_token` is refused).

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use serde::Serialize;

use crate::access::{AuthorizationDetail, Confirmation};
use crate::error::TokenError;
use crate::json;
use crate::jws::UnverifiedToken;
use crate::names::{ServiceName, Subject};

/// The grant type of token exchange.
pub const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// The type of a token that is some JWT; what subject tokens are.
pub const TOKEN_TYPE_JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
/// The type of an access token; what is issued.
pub const TOKEN_TYPE_ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// A request for a token, well-formed but not yet believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The token that shows who asks.
    pub subject_token: UnverifiedToken,
    /// The service it wants to call.
    pub audience: ServiceName,
    /// The roles it wants; `None` wants all that are granted.
    pub scope: Option<BTreeSet<String>>,
    /// The certificate that the token shall be bound to. Whoever may have a token may bind it: that only narrows it.
    pub confirmation: Option<Confirmation>,
}

/// The answer to a request that is granted (RFC 8693 §2.2.1). `Debug` does not show the token.
#[derive(Clone, Serialize)]
pub struct Response {
    /// The access token.
    pub access_token: String,
    /// Always `TOKEN_TYPE_ACCESS_TOKEN`.
    pub issued_token_type: &'static str,
    /// Always `Bearer`.
    pub token_type: &'static str,
    /// Its life in seconds.
    pub expires_in: i64,
    /// The roles it holds.
    pub scope: String,
}

impl Response {
    /// Wraps a token that was issued.
    #[must_use]
    pub fn new(access_token: String, expires_in: i64, scope: String) -> Self {
        Self { access_token, issued_token_type: TOKEN_TYPE_ACCESS_TOKEN, token_type: "Bearer", expires_in, scope }
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Response")
            .field("expires_in", &self.expires_in)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

/// A refusal (RFC 6749 §5.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{description}")]
pub struct OAuthError {
    /// What kind of refusal.
    #[serde(rename = "error")]
    pub code: ErrorCode,
    /// What to do about it, in ASCII as RFC 6749 wants it.
    #[serde(rename = "error_description")]
    pub description: String,
}

/// The kinds of refusal, as RFC 6749 §5.2 and RFC 8693 §2.2.2 name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request is malformed, or its subject token is not to be believed.
    InvalidRequest,
    /// The subject may have no token for that audience.
    InvalidTarget,
    /// A role was asked for that is not granted.
    InvalidScope,
    /// Not a token exchange.
    UnsupportedGrantType,
    /// The issuer cannot answer now; ask again.
    TemporarilyUnavailable,
    /// The issuer failed.
    ServerError,
}

impl ErrorCode {
    /// The code as it is written on the wire; also a bounded metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidTarget => "invalid_target",
            Self::InvalidScope => "invalid_scope",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::TemporarilyUnavailable => "temporarily_unavailable",
            Self::ServerError => "server_error",
        }
    }
}

impl OAuthError {
    /// A refusal of that kind.
    pub fn new(code: ErrorCode, description: impl Into<String>) -> Self {
        Self { code, description: description.into() }
    }

    /// The HTTP status that goes with it: 400, except that a failing issuer is not the client's fault.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self.code {
            ErrorCode::TemporarilyUnavailable => 503,
            ErrorCode::ServerError => 500,
            _ => 400,
        }
    }

    /// The refusal of a subject token that is not believed (RFC 8693 §2.2.2).
    #[must_use]
    pub fn subject_token(error: &TokenError) -> Self {
        invalid_request(format!("subject_token: {error}"))
    }
}

impl Request {
    /// Reads the form parameters of a request.
    ///
    /// # Errors
    /// When one is missing, given twice, or not understood.
    pub fn from_form(parameters: &[(String, String)]) -> Result<Self, OAuthError> {
        let form = Form::read(parameters)?;
        check_grant_type(&form)?;
        check_unsupported(&form)?;
        check_token_types(&form)?;
        Ok(Self {
            subject_token: UnverifiedToken::new(form.required("subject_token")?),
            audience: audience(&form)?,
            scope: form.get("scope").map(scope).transpose()?,
            confirmation: form.get("req_cnf").map(confirmation).transpose()?,
        })
    }
}

/// What of the granted roles the request gets: all, or those that it names (down-scoping).
///
/// # Errors
/// `invalid_target` when nothing is granted: the same words whether the service exists or not, so that nobody can ask
/// which do. `invalid_scope` when a role is named that is not granted.
pub fn narrow(
    request: &Request,
    subject: &Subject,
    granted: Vec<AuthorizationDetail>,
) -> Result<Vec<AuthorizationDetail>, OAuthError> {
    let audience = &request.audience;
    if granted.is_empty() {
        let description = format!("no AccessGrant gives {subject} a role on {audience}");
        return Err(OAuthError::new(ErrorCode::InvalidTarget, description));
    }
    let Some(scope) = &request.scope else { return Ok(granted) };
    if !scope.iter().all(|wanted| granted.iter().any(|detail| detail.role() == wanted)) {
        let roles = scope_of(&granted);
        let description = format!("scope: {subject} is granted these roles on {audience}, and no others: {roles}");
        return Err(OAuthError::new(ErrorCode::InvalidScope, description));
    }
    Ok(granted.into_iter().filter(|detail| scope.contains(detail.role())).collect())
}

/// The names of the roles as a `scope`: each once, though it opens both PostgreSQL and HTTP, separated by spaces.
#[must_use]
pub fn scope_of(details: &[AuthorizationDetail]) -> String {
    let names: BTreeSet<&str> = details.iter().map(AuthorizationDetail::role).collect();
    names.into_iter().collect::<Vec<_>>().join(" ")
}

/// The parameters by name. One without a value counts as absent and one that is not known is ignored (RFC 6749 §3.2).
struct Form<'a>(HashMap<&'a str, &'a str>);

/// Parameters that token exchange knows; given twice, one of two readers might take the other.
const KNOWN: [&str; 10] = [
    "grant_type",
    "resource",
    "audience",
    "scope",
    "requested_token_type",
    "subject_token",
    "subject_token_type",
    "actor_token",
    "actor_token_type",
    "req_cnf",
];

impl<'a> Form<'a> {
    fn read(parameters: &'a [(String, String)]) -> Result<Self, OAuthError> {
        let mut form = HashMap::new();
        for (name, value) in parameters {
            let known = KNOWN.iter().find(|known| *known == name);
            let Some(known) = known else { continue };
            if form.insert(*known, value.as_str()).is_some() {
                return Err(given_twice(known));
            }
        }
        form.retain(|_, value| !value.is_empty());
        Ok(Self(form))
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).copied()
    }

    fn required(&self, name: &str) -> Result<&'a str, OAuthError> {
        self.get(name).ok_or_else(|| invalid_request(format!("{name} is missing")))
    }
}

/// RFC 8693 §2.1 allows several audiences, and §2.2.2 `invalid_target` where one token for all of them is not issued.
fn given_twice(name: &str) -> OAuthError {
    match name {
        "audience" | "resource" => OAuthError::new(ErrorCode::InvalidTarget, "a token is for one audience: give one"),
        _ => invalid_request(format!("{name} is given more than once")),
    }
}

fn check_grant_type(form: &Form<'_>) -> Result<(), OAuthError> {
    if form.required("grant_type")? == GRANT_TYPE {
        return Ok(());
    }
    Err(OAuthError::new(ErrorCode::UnsupportedGrantType, format!("the grant_type is {GRANT_TYPE}")))
}

fn check_unsupported(form: &Form<'_>) -> Result<(), OAuthError> {
    if form.get("actor_token").is_some() || form.get("actor_token_type").is_some() {
        return Err(invalid_request("actor_token is not supported here"));
    }
    if form.get("resource").is_some() {
        let description = "resource is not supported here: name the service as audience=namespace/service";
        return Err(OAuthError::new(ErrorCode::InvalidTarget, description));
    }
    Ok(())
}

fn check_token_types(form: &Form<'_>) -> Result<(), OAuthError> {
    if form.required("subject_token_type")? != TOKEN_TYPE_JWT {
        return Err(invalid_request(format!("subject_token_type must be {TOKEN_TYPE_JWT}")));
    }
    match form.get("requested_token_type") {
        None | Some(TOKEN_TYPE_ACCESS_TOKEN) => Ok(()),
        Some(_) => Err(invalid_request(format!("requested_token_type must be {TOKEN_TYPE_ACCESS_TOKEN}"))),
    }
}

fn audience(form: &Form<'_>) -> Result<ServiceName, OAuthError> {
    let text = form.required("audience")?;
    text.parse().map_err(|error| OAuthError::new(ErrorCode::InvalidTarget, format!("audience: {error}")))
}

/// RFC 6749 §3.3: tokens of visible ASCII without quote and backslash, one space between them.
fn scope(text: &str) -> Result<BTreeSet<String>, OAuthError> {
    let visible = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    let sound = text.split(' ').all(|role| !role.is_empty() && role.bytes().all(visible));
    if !sound {
        let description = "scope is a list of role names with one space between them";
        return Err(OAuthError::new(ErrorCode::InvalidScope, description));
    }
    Ok(text.split(' ').map(str::to_owned).collect())
}

/// A confirmation as RFC 7800 writes it, of the one kind that is checked here.
fn confirmation(text: &str) -> Result<Confirmation, OAuthError> {
    let value = json::parse(text.as_bytes()).ok().filter(serde_json::Value::is_object);
    value.as_ref().and_then(json::typed).ok_or_else(|| {
        let expected =
            "{'x5t#S256': the SHA-256 of a certificate, in base64url without padding} as JSON, and nothing else";
        invalid_request(format!("req_cnf must be {expected}"))
    })
}

fn invalid_request(description: impl Into<String>) -> OAuthError {
    OAuthError::new(ErrorCode::InvalidRequest, description)
}

#[cfg(test)]
mod tests;
