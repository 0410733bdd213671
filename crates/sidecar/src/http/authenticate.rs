//! Who calls: the bearer token of a request (RFC 6750 §2.1), and what is said to those without a good one (§3).
//!
//! Deliberately absent: tokens in a form or in the URL (§2.2, §2.3), which end in logs.

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use runtime::settings::Settings;

use super::problem::{Kind, Problem};
use crate::link::Peer;
use crate::verify::{Credential, Failure, Verifier};

/// Why a request has no credential.
#[derive(Debug)]
pub(super) enum Unauthenticated {
    /// It shows no token.
    NoToken,
    /// It shows several, or something that cannot be a token.
    Malformed,
    /// It shows one that is not believed.
    Failure(Failure),
}

/// Verifies a request's token. Cancel safe.
pub(super) async fn authenticate(
    headers: &HeaderMap,
    peer: Option<&Peer>,
    verifier: &Verifier,
    settings: &Settings,
) -> Result<Arc<Credential>, Unauthenticated> {
    let token = bearer(headers)?;
    verifier.verify(settings, token, peer).await.map_err(Unauthenticated::Failure)
}

fn bearer(headers: &HeaderMap) -> Result<&str, Unauthenticated> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Unauthenticated::NoToken)?;
    // Two of them may be read by two readers as two callers.
    if values.next().is_some() {
        return Err(Unauthenticated::Malformed);
    }
    let (scheme, rest) = value.to_str().unwrap_or_default().split_once(' ').unwrap_or_default();
    let token = rest.trim();
    match scheme.eq_ignore_ascii_case("bearer") {
        true if token.is_empty() || token.contains([' ', ',']) => Err(Unauthenticated::Malformed),
        true => Ok(token),
        // Another scheme's credentials are not for us.
        false => Err(Unauthenticated::NoToken),
    }
}

impl Unauthenticated {
    /// A bounded label for metrics.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Unauthenticated::NoToken => "no_token",
            Unauthenticated::Malformed => "malformed",
            Unauthenticated::Failure(failure) => failure.label(),
        }
    }

    /// What the client is told.
    pub(super) fn problem(&self, realm: &str) -> Problem {
        let challenge = challenge(realm);
        match self {
            Unauthenticated::NoToken => Problem::new(Kind::Unauthorized, "sidegate: no token")
                .detail("This service is entered with an access token, and none was shown.")
                .hint("Send the request through the sidecar of your own service, or add `Authorization: Bearer …`.")
                .challenge(challenge),
            Unauthenticated::Malformed => {
                Problem::new(Kind::BadRequest, "sidegate: the Authorization header is malformed")
                    .hint("Send one header `Authorization: Bearer …` with one token.")
                    .challenge(challenge + ", error=\"invalid_request\"")
            }
            // That nobody can be verified now says nothing of the token.
            Unauthenticated::Failure(failure @ Failure::NoKeys) => {
                let (message, detail, hint) = failure.words();
                Problem::new(Kind::Unavailable, message).detail(detail).hint(hint)
            }
            Unauthenticated::Failure(failure @ Failure::Token(_)) => {
                let (message, detail, hint) = failure.words();
                let challenge = invalid_token(realm, &detail);
                Problem::new(Kind::Unauthorized, message).detail(detail).hint(hint).challenge(challenge)
            }
        }
        .code("28000")
    }
}

/// The challenge to those who show no token (RFC 6750 §3).
pub(super) fn challenge(realm: &str) -> String {
    format!("Bearer realm=\"{realm}\"")
}

/// The challenge to those whose token is none, or none any more (RFC 6750 §3.1).
pub(super) fn invalid_token(realm: &str, why: &str) -> String {
    format!("Bearer realm=\"{realm}\", error=\"invalid_token\", error_description=\"{}\"", quotable(why))
}

/// The challenge that goes with a denial (RFC 6750 §3.1).
pub(super) fn insufficient_scope(realm: &str, why: &str) -> String {
    format!("Bearer realm=\"{realm}\", error=\"insufficient_scope\", error_description=\"{}\"", quotable(why))
}

/// Only the characters that an `error_description` may have, and not many: messages quote what a client sent.
fn quotable(text: &str) -> String {
    const SHOWN: usize = 200;
    text.chars().take(SHOWN).map(|c| if matches!(c, ' '..='~') && c != '"' && c != '\\' { c } else { '\'' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(values: &[&str]) -> Result<String, &'static str> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, value.parse().unwrap());
        }
        bearer(&headers).map(ToOwned::to_owned).map_err(|error| error.label())
    }

    #[test]
    fn one_bearer_token_and_nothing_else() {
        assert_eq!(shown(&["Bearer a.b.c"]), Ok("a.b.c".to_owned()));
        assert_eq!(shown(&["bearer  a.b.c"]), Ok("a.b.c".to_owned()));
        assert_eq!(shown(&[]), Err("no_token"));
        assert_eq!(shown(&["Basic dTpw"]), Err("no_token"));
        assert_eq!(shown(&["Bearer"]), Err("no_token"));
        assert_eq!(shown(&["Bearer "]), Err("malformed"));
        assert_eq!(shown(&["Bearer a, Bearer b"]), Err("malformed"));
        assert_eq!(shown(&["Bearer a", "Bearer b"]), Err("malformed"));
    }
}
