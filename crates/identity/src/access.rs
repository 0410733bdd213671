//! Access tokens (RFC 9068) with the granted roles inside (RFC 9396): what the issuer writes and the sidecar believes.
//!
//! A token is the whole authority of the one who shows it, so everything in `authorization_details` must be understood:
//! a field that is not makes the token unusable, never wider. Deliberately absent: signing (`control`), what a role may
//! do (`policy`), and the link that a token comes over: whose certificate was shown there is an argument.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::certificate::Thumbprint;
use crate::error::TokenError;
use crate::json;
use crate::jwks::KeySet;
use crate::jws::{self, Kind, UnverifiedToken};
use crate::names::{ServiceName, Subject};
use crate::time::{LEEWAY_SECONDS, UnixTime};

/// The `type` of a granted PostgreSQL role.
pub const POSTGRESQL: &str = "sidegate_postgresql";
/// The `type` of a granted HTTP role.
pub const HTTP: &str = "sidegate_http";
/// `jti` goes into logs; no issuer of ours writes more than 36 bytes.
const MAX_ID_LENGTH: usize = 128;
/// As long as PostgreSQL's own names: a role is asked for as the startup `user`.
const MAX_ROLE_LENGTH: usize = 63;

/// The claims of an access token, as its issuer writes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The issuer.
    pub iss: String,
    /// Who calls.
    pub sub: Subject,
    /// The one service that the token is for.
    pub aud: ServiceName,
    /// The end of its life.
    pub exp: UnixTime,
    /// When it was issued.
    pub iat: UnixTime,
    /// The beginning of its life.
    pub nbf: UnixTime,
    /// Its own name, for logs.
    pub jti: String,
    /// The OAuth client: the subject again, since it acts for itself.
    pub client_id: String,
    /// The names of the granted roles, separated by spaces.
    pub scope: String,
    /// The granted roles.
    pub authorization_details: Vec<AuthorizationDetail>,
    /// The service that acts, when the subject is an end user (RFC 8693 §4.1).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub act: Option<Actor>,
    /// What it is bound to; none: whoever holds it may show it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cnf: Option<Confirmation>,
}

/// The key that the one who shows a token must hold (RFC 7800), named by its certificate (RFC 8705 §3.1). Another way
/// of naming it, or a second one, makes the token unusable, as nobody here would check it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirmation {
    /// The client certificate of the link.
    #[serde(rename = "x5t#S256")]
    pub x5t_s256: Thumbprint,
}

/// Who acts for the subject. Further members, a chain of earlier actors among them, are informational.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The acting party.
    pub sub: String,
}

/// One granted role, by what it opens. A type that is none of these makes the token unusable.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum AuthorizationDetail {
    /// `POSTGRESQL`
    #[serde(rename = "sidegate_postgresql")]
    Postgresql(PostgresqlDetail),
    /// `HTTP`
    #[serde(rename = "sidegate_http")]
    Http(HttpDetail),
}

impl AuthorizationDetail {
    /// The role's name. A role that opens both PostgreSQL and HTTP is two details of one name.
    #[must_use]
    pub fn role(&self) -> &str {
        match self {
            Self::Postgresql(detail) => &detail.role,
            Self::Http(detail) => &detail.role,
        }
    }

    /// `POSTGRESQL` or `HTTP`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Postgresql(_) => POSTGRESQL,
            Self::Http(_) => HTTP,
        }
    }
}

/// What a role opens of PostgreSQL.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresqlDetail {
    /// The role's name.
    pub role: String,
    /// The database login that a session with this role runs as; built-in roles leave it to the sidecar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The databases it opens; empty means any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub database: Vec<String>,
    /// What it allows; built-in roles have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
}

/// One rule of a role for PostgreSQL: these actions on those objects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What may be done.
    pub actions: Vec<String>,
    /// With which tables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<String>,
    /// With which functions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub functions: Vec<String>,
}

/// What a role opens of HTTP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpDetail {
    /// The role's name.
    pub role: String,
    /// What it allows.
    pub rules: Vec<HttpRule>,
}

/// One rule of a role for HTTP: these methods on those paths.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpRule {
    /// Upper-case methods.
    pub methods: Vec<String>,
    /// Paths in normal form; one that ends with `*` stands for all that begin so.
    pub paths: Vec<String>,
}

/// What a verifier expects of a token.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The issuer, exactly.
    pub issuer: &'a str,
    /// The verifier's own service.
    pub audience: &'a ServiceName,
    /// Tokens issued earlier are refused (`TOKENS_NOT_BEFORE`).
    pub not_before: Option<UnixTime>,
    /// The client certificate that the token is shown over; a bound token is good over this one alone.
    pub certificate: Option<Thumbprint>,
}

/// A token that was verified. Only [`verify`] makes one; the token's text is not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessToken {
    claims: Claims,
}

/// Verifies an access token. Whether it is still valid later is for the caller to ask `expires_at`.
///
/// # Errors
/// For whatever reason the token is not to be believed; `UnknownKey` asks for fresher keys.
pub fn verify(
    token: &UnverifiedToken,
    keys: &KeySet,
    expected: &Expected<'_>,
    now: UnixTime,
) -> Result<AccessToken, TokenError> {
    let value = jws::verified_claims(token, keys, Kind::Access)?;
    let claims = read(&value)?;
    if claims.iss != expected.issuer {
        return Err(TokenError::WrongIssuer);
    }
    if claims.aud != *expected.audience {
        return Err(TokenError::WrongAudience);
    }
    check_use(&claims, expected.not_before, expected.certificate, now)?;
    check_details(&claims.authorization_details)?;
    Ok(AccessToken { claims })
}

impl AccessToken {
    /// Whether the token may still be believed, as [`verify`] would say: for those who keep it.
    ///
    /// # Errors
    /// It has expired, was issued before what is accepted now, or is bound to another certificate than the one it is
    /// shown over.
    pub fn still_valid(
        &self,
        not_before: Option<UnixTime>,
        certificate: Option<Thumbprint>,
        now: UnixTime,
    ) -> Result<(), TokenError> {
        check_use(&self.claims, not_before, certificate, now)
    }

    /// Who calls.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.claims.sub
    }

    /// The client certificate that it is bound to.
    #[must_use]
    pub fn confirmation(&self) -> Option<Thumbprint> {
        self.claims.cnf.map(|confirmation| confirmation.x5t_s256)
    }

    /// Who issued the token.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.claims.iss
    }

    /// The service it is for.
    #[must_use]
    pub fn audience(&self) -> &ServiceName {
        &self.claims.aud
    }

    /// The token's own name (`jti`), for logs.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.claims.jti
    }

    /// When it was issued.
    #[must_use]
    pub fn issued_at(&self) -> UnixTime {
        self.claims.iat
    }

    /// When its life ends. Verifiers with other clocks may still take it for `LEEWAY_SECONDS` longer.
    #[must_use]
    pub fn expires_at(&self) -> UnixTime {
        self.claims.exp
    }

    /// The granted roles.
    #[must_use]
    pub fn details(&self) -> &[AuthorizationDetail] {
        &self.claims.authorization_details
    }

    /// The service that acts, when the subject is an end user.
    #[must_use]
    pub fn actor(&self) -> Option<&str> {
        self.claims.act.as_ref().map(|actor| actor.sub.as_str())
    }
}

/// Reads every claim with its exact type: one that is mistyped is an error of its own name, never "absent".
fn read(value: &Value) -> Result<Claims, TokenError> {
    Ok(Claims {
        iss: text(value, "iss")?,
        sub: text(value, "sub")?.parse().map_err(|_| TokenError::Claim("sub"))?,
        aud: audience(value)?,
        exp: time(value, "exp")?,
        iat: time(value, "iat")?,
        nbf: if value.get("nbf").is_some() { time(value, "nbf")? } else { time(value, "iat")? },
        jti: identifier(value)?,
        client_id: text(value, "client_id")?,
        scope: if value.get("scope").is_some() { text(value, "scope")? } else { String::new() },
        authorization_details: details(value)?,
        act: if value.get("act").is_some() { Some(member(value, "act")?) } else { None },
        cnf: value.get("cnf").map(confirmation).transpose()?,
    })
}

/// Exactly one audience. A token for several services would let each of them call the others in the subject's name.
fn audience(value: &Value) -> Result<ServiceName, TokenError> {
    let name = match value.get("aud") {
        Some(Value::String(name)) => name,
        Some(Value::Array(names)) => match names.as_slice() {
            [Value::String(name)] => name,
            _ => return Err(TokenError::WrongAudience),
        },
        _ => return Err(TokenError::Claim("aud")),
    };
    name.parse().map_err(|_| TokenError::WrongAudience)
}

/// An object and nothing else: serde would take a list of a struct's members for the struct, too.
fn confirmation(value: &Value) -> Result<Confirmation, TokenError> {
    Some(value).filter(|value| value.is_object()).and_then(json::typed).ok_or(TokenError::Claim("cnf"))
}

fn identifier(value: &Value) -> Result<String, TokenError> {
    let id = text(value, "jti")?;
    let sound = !id.is_empty() && id.len() <= MAX_ID_LENGTH && id.bytes().all(|byte| byte.is_ascii_graphic());
    if sound { Ok(id) } else { Err(TokenError::Claim("jti")) }
}

pub(crate) fn text(value: &Value, name: &'static str) -> Result<String, TokenError> {
    member(value, name)
}

/// Whole seconds since the epoch. RFC 7519 would allow fractions; nobody writes them, and a number that must be
/// rounded is one that two readers can round differently.
pub(crate) fn time(value: &Value, name: &'static str) -> Result<UnixTime, TokenError> {
    let seconds = value.get(name).and_then(Value::as_i64).ok_or(TokenError::Claim(name))?;
    if seconds < 0 { Err(TokenError::Claim(name)) } else { Ok(UnixTime(seconds)) }
}

fn member<T: serde::de::DeserializeOwned>(value: &Value, name: &'static str) -> Result<T, TokenError> {
    value.get(name).and_then(json::typed).ok_or(TokenError::Claim(name))
}

/// The granted roles. serde would also take a list of a struct's members for the struct; no issuer writes that, and what
/// another reader may make of it nobody knows.
fn details(value: &Value) -> Result<Vec<AuthorizationDetail>, TokenError> {
    let name = "authorization_details";
    let objects = |list: &Value| list.as_array().is_some_and(|items| items.iter().all(Value::is_object));
    let details = value.get(name).filter(|details| objects(details)).ok_or(TokenError::Claim(name))?;
    let mut rules = details.as_array().into_iter().flatten().filter_map(|detail| detail.get("rules"));
    if rules.all(objects) { member(value, name) } else { Err(TokenError::Claim(name)) }
}

/// What can change between two uses of one token.
fn check_use(
    claims: &Claims,
    not_before: Option<UnixTime>,
    certificate: Option<Thumbprint>,
    now: UnixTime,
) -> Result<(), TokenError> {
    check_times(claims, not_before, now)?;
    match claims.cnf {
        Some(confirmation) if certificate != Some(confirmation.x5t_s256) => Err(TokenError::Binding),
        _ => Ok(()),
    }
}

fn check_times(claims: &Claims, not_before: Option<UnixTime>, now: UnixTime) -> Result<(), TokenError> {
    if claims.exp < claims.iat || claims.exp < claims.nbf {
        return Err(TokenError::Claim("exp"));
    }
    if now >= claims.exp.plus(LEEWAY_SECONDS) {
        return Err(TokenError::Expired);
    }
    if now.plus(LEEWAY_SECONDS) < claims.nbf || now.plus(LEEWAY_SECONDS) < claims.iat {
        return Err(TokenError::NotYetValid);
    }
    match not_before {
        Some(earliest) if claims.iat < earliest => Err(TokenError::TooOld),
        _ => Ok(()),
    }
}

/// Shapes only; what the words in the rules mean, `policy` decides, and refuses those that it does not know.
fn check_details(details: &[AuthorizationDetail]) -> Result<(), TokenError> {
    let mut seen = HashSet::new();
    let sound = details.iter().all(|detail| {
        let named = !detail.role().is_empty() && detail.role().len() <= MAX_ROLE_LENGTH;
        let login = match detail {
            AuthorizationDetail::Postgresql(PostgresqlDetail { user: Some(user), .. }) => {
                !user.is_empty() && !user.contains('\0')
            }
            _ => true,
        };
        // Two grants under one name could be told apart by nobody who asks for the role by its name.
        named && login && seen.insert((detail.kind(), detail.role()))
    });
    if sound { Ok(()) } else { Err(TokenError::Claim("authorization_details")) }
}

#[cfg(test)]
mod tests;
