//! Subject tokens: the projected service-account tokens of Kubernetes, as the issuer is shown them.
//!
//! Deliberately absent: `TokenReview` (it asks the API server whether the pod still exists; I/O), and the legacy tokens
//! of Secrets, which never expire and are refused for it.

use serde::Deserialize;
use serde_json::Value;

use crate::access::{text, time};
use crate::error::TokenError;
use crate::json;
use crate::jwks::KeySet;
use crate::jws::{self, Kind, UnverifiedToken};
use crate::names::Subject;
use crate::time::{LEEWAY_SECONDS, UnixTime};

/// What the issuer expects of a subject token.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The cluster's issuer, exactly.
    pub issuer: &'a str,
    /// The audience that tokens for us are projected with.
    pub audience: &'a str,
}

/// A subject token that was verified. Only [`verify`] makes one; the token's text is not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectToken {
    subject: Subject,
    expires_at: UnixTime,
    pod: Option<Pod>,
}

/// The pod that a token is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its unique id: another pod of the same name has another.
    pub uid: String,
}

/// What Kubernetes adds. Members that are not listed (node, warnafter, secret) do not concern us.
#[derive(Deserialize)]
struct KubernetesClaims {
    namespace: String,
    serviceaccount: ServiceAccount,
    pod: Option<Pod>,
}

#[derive(Deserialize)]
struct ServiceAccount {
    name: String,
}

impl SubjectToken {
    /// Whom the token speaks for.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// When its life ends.
    #[must_use]
    pub fn expires_at(&self) -> UnixTime {
        self.expires_at
    }

    /// The pod it is bound to, if it is bound to one.
    #[must_use]
    pub fn pod(&self) -> Option<&Pod> {
        self.pod.as_ref()
    }
}

/// Verifies a subject token.
///
/// # Errors
/// For whatever reason the token is not to be believed; `UnknownKey` asks for fresher keys.
pub fn verify(
    token: &UnverifiedToken,
    keys: &KeySet,
    expected: &Expected<'_>,
    now: UnixTime,
) -> Result<SubjectToken, TokenError> {
    let claims = jws::verified_claims(token, keys, Kind::Subject)?;
    if text(&claims, "iss")? != expected.issuer {
        return Err(TokenError::WrongIssuer);
    }
    if !audiences(&claims)?.contains(&expected.audience) {
        return Err(TokenError::WrongAudience);
    }
    let expires_at = check_times(&claims, now)?;
    let subject: Subject = text(&claims, "sub")?.parse().map_err(|_| TokenError::Claim("sub"))?;
    let pod = bound_pod(&claims, &subject)?;
    Ok(SubjectToken { subject, expires_at, pod })
}

fn audiences(claims: &Value) -> Result<Vec<&str>, TokenError> {
    let mistyped = TokenError::Claim("aud");
    match claims.get("aud") {
        Some(Value::String(audience)) => Ok(vec![audience]),
        Some(Value::Array(list)) => list.iter().map(|item| item.as_str().ok_or(mistyped.clone())).collect(),
        _ => Err(mistyped),
    }
}

fn check_times(claims: &Value, now: UnixTime) -> Result<UnixTime, TokenError> {
    let expires_at = time(claims, "exp")?;
    if now >= expires_at.plus(LEEWAY_SECONDS) {
        return Err(TokenError::Expired);
    }
    for name in ["nbf", "iat"] {
        if claims.get(name).is_some() && now.plus(LEEWAY_SECONDS) < time(claims, name)? {
            return Err(TokenError::NotYetValid);
        }
    }
    Ok(expires_at)
}

/// The claims of Kubernetes must say of whom the token is just what `sub` says.
fn bound_pod(claims: &Value, subject: &Subject) -> Result<Option<Pod>, TokenError> {
    let mistyped = TokenError::Claim("kubernetes.io");
    let value = claims.get("kubernetes.io").ok_or(mistyped.clone())?;
    // `"pod": null` is no way of saying that there is none.
    if value.get("pod").is_some_and(|pod| !pod.is_object()) {
        return Err(mistyped);
    }
    let bound: KubernetesClaims = json::typed(value).ok_or(mistyped.clone())?;
    let agrees = bound.namespace == subject.namespace && bound.serviceaccount.name == subject.service_account;
    if agrees { Ok(bound.pod) } else { Err(mistyped) }
}

#[cfg(test)]
mod tests;
