//! A token as it comes in: compact JWS (RFC 7515), taken apart strictly, its signature checked with a key of ours.
//!
//! The header is used to find the key and to refuse, never to choose an algorithm: that is bound to the key.
//! Deliberately absent: `jku`, `x5u` and embedded `jwk` as sources of keys (ignored, as RFC 8725 §3.10 advises), JWE,
//! and detached or unencoded payloads (`crit` is refused, whatever it names).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

use crate::error::TokenError;
use crate::json;
use crate::jwks::{KeySet, MAX_KID_LENGTH};

/// Larger tokens are refused unread. Ours are below 4 KiB; the room is for grants with many rules.
pub const MAX_TOKEN_LENGTH: usize = 16 * 1024;

/// A token of which nothing is known yet. Its text is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct UnverifiedToken(String);

impl UnverifiedToken {
    /// Wraps what a peer sent.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for sending it on to the one it is meant for. Not for logs.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for UnverifiedToken {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for UnverifiedToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "UnverifiedToken({} bytes)", self.0.len())
    }
}

/// What the header may say that concerns us. Unknown members are ignored, as RFC 7515 §4 demands.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
}

/// The kinds of token that are told apart by `typ`, so that one is never taken for the other (RFC 8725 §3.11).
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// RFC 9068: `at+jwt` is demanded.
    Access,
    /// Kubernetes writes no `typ`; `JWT` is what others write.
    Subject,
}

/// Takes the token apart and checks type, algorithm and signature. The claims it returns are the signer's own words;
/// whether they suffice is for the caller.
pub(crate) fn verified_claims(token: &UnverifiedToken, keys: &KeySet, kind: Kind) -> Result<Value, TokenError> {
    let parts = split(token.expose())?;
    let header = read_header(&decode(parts.header)?)?;
    check_type(header.typ.as_deref(), kind)?;
    let kid = header.kid.ok_or(TokenError::Malformed("its header names no key"))?;
    if kid.len() > MAX_KID_LENGTH {
        return Err(TokenError::Malformed("its key's name is too long"));
    }
    let payload = decode(parts.payload)?;
    let signature = decode(parts.signature)?;
    let Some(key) = keys.get(&kid) else { return Err(TokenError::UnknownKey { kid }) };
    if !key.accepts(&header.alg) {
        return Err(TokenError::Algorithm);
    }
    if signature.is_empty() || !key.verifies(parts.signed, parts.signature) {
        return Err(TokenError::Signature);
    }
    let claims = json::parse(&payload).map_err(|_| TokenError::Malformed("its claims are not strict JSON"))?;
    if claims.is_object() { Ok(claims) } else { Err(TokenError::Malformed("its claims are no JSON object")) }
}

struct Parts<'a> {
    header: &'a str,
    payload: &'a str,
    signature: &'a str,
    /// Header and payload with the dot between them: what the signature covers.
    signed: &'a str,
}

fn split(text: &str) -> Result<Parts<'_>, TokenError> {
    if text.len() > MAX_TOKEN_LENGTH {
        return Err(TokenError::Malformed("it is too long"));
    }
    let segments = TokenError::Malformed("it does not have three segments");
    let (signed, signature) = text.rsplit_once('.').ok_or(segments.clone())?;
    let (header, payload) = signed.split_once('.').ok_or(segments.clone())?;
    if payload.contains('.') {
        return Err(segments);
    }
    Ok(Parts { header, payload, signature, signed })
}

/// Strict: no padding, no whitespace, no other alphabet, and no bits set behind the last byte.
fn decode(segment: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(segment).map_err(|_| TokenError::Malformed("a segment is not base64url"))
}

fn read_header(bytes: &[u8]) -> Result<Header, TokenError> {
    let malformed = TokenError::Malformed("its header is not understood");
    let value = json::parse(bytes).map_err(|_| malformed.clone())?;
    let members = value.as_object().ok_or(malformed.clone())?;
    // `kid` and `typ` may be absent, but not null: an optional field of serde would take one for the other.
    let mistyped = ["kid", "typ"].iter().any(|name| members.get(*name).is_some_and(|member| !member.is_string()));
    // Nothing that `crit` could name is implemented, and RFC 7515 §4.1.11 then wants the token refused.
    if mistyped || members.contains_key("crit") || members.contains_key("b64") {
        return Err(malformed);
    }
    json::typed(&value).ok_or(malformed)
}

fn check_type(typ: Option<&str>, kind: Kind) -> Result<(), TokenError> {
    let is = |wanted: &str| typ.is_some_and(|typ| typ.eq_ignore_ascii_case(wanted));
    let right = match kind {
        Kind::Access => is("at+jwt") || is("application/at+jwt"),
        Kind::Subject => typ.is_none() || is("jwt"),
    };
    if right { Ok(()) } else { Err(TokenError::WrongType) }
}
