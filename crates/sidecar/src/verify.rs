//! Who calls: a token's text becomes a [`Credential`], with the issuer's cached keys and without asking anyone.
//!
//! A token that was verified is remembered for as long as the keys are the same ones, so that requests of one caller
//! pay for a signature once; its times, and over whose certificate it is shown, are looked at every time. Deliberately absent: how a token is shown, which is
//! `pg`'s and `http`'s, and what a role may do.

use std::sync::{Arc, OnceLock, Weak};

use identity::access::{AccessToken, AuthorizationDetail, Expected};
use identity::certificate::SpiffeId;
use identity::{ServiceName, UnixTime, UnverifiedToken};
use policy::http::HttpRole;
use policy::{Role, RoleError};
use quick_cache::sync::Cache;
use runtime::settings::Settings;

use crate::audit::Metrics;
use crate::keys::{Fetched, Keys};
use crate::link::Peer;

/// Tokens that are remembered. A caller has one or two at a time; more callers than this pay for signatures.
const REMEMBERED: usize = 4096;

/// What the caller is told of a token that is none, or none any more; by these words the caller's sidecar knows it.
pub(crate) const TOKEN_REFUSED: &str = "sidegate: the token was refused";

/// A verified token and the roles that it carries, compiled once.
pub(crate) struct Credential {
    /// The token.
    pub(crate) token: AccessToken,
    postgres: OnceLock<Result<Vec<Arc<Role>>, RoleError>>,
    http: OnceLock<Result<Vec<HttpRole>, RoleError>>,
}

impl Credential {
    fn new(token: AccessToken) -> Credential {
        Credential { token, postgres: OnceLock::new(), http: OnceLock::new() }
    }

    /// The roles for PostgreSQL.
    ///
    /// # Errors
    /// One that is not understood here makes the whole token unusable.
    pub(crate) fn postgres_roles(&self) -> Result<&[Arc<Role>], &RoleError> {
        let compile = || {
            let details = self.token.details().iter().filter_map(|detail| match detail {
                AuthorizationDetail::Postgresql(detail) => Some(detail),
                AuthorizationDetail::Http(_) => None,
            });
            details.map(|detail| Role::from_detail(detail).map(Arc::new)).collect()
        };
        self.postgres.get_or_init(compile).as_deref()
    }

    /// The roles for HTTP.
    ///
    /// # Errors
    /// One that is not understood here makes the whole token unusable.
    pub(crate) fn http_roles(&self) -> Result<&[HttpRole], &RoleError> {
        let compile = || {
            let details = self.token.details().iter().filter_map(|detail| match detail {
                AuthorizationDetail::Http(detail) => Some(detail),
                AuthorizationDetail::Postgresql(_) => None,
            });
            details.map(HttpRole::from_detail).collect()
        };
        self.http.get_or_init(compile).as_deref()
    }
}

/// Why a token is not to be believed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The issuer was not reached yet.
    NoKeys,
    /// The token itself.
    Token(identity::TokenError),
}

impl Failure {
    /// A bounded label for metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Failure::NoKeys => "no_keys",
            Failure::Token(error) => error.label(),
        }
    }

    /// What happened, why, and what to do.
    pub(crate) fn words(&self) -> (&'static str, String, &'static str) {
        match self {
            Failure::NoKeys => (
                "sidegate: the token cannot be verified",
                "The issuer's keys are not known here yet.".to_owned(),
                "The issuer must be within reach of this service's sidecar once; then try again.",
            ),
            Failure::Token(error) => {
                (TOKEN_REFUSED, error.to_string(), "Obtain a token for this service from its issuer.")
            }
        }
    }
}

/// Verifies tokens for one service.
#[derive(Clone)]
pub(crate) struct Verifier {
    service: ServiceName,
    issuer: Arc<str>,
    keys: Keys,
    metrics: Metrics,
    known: Arc<Cache<[u8; 32], Known>>,
}

#[derive(Clone)]
struct Known {
    /// The keys that it was verified with: with others it is verified anew, as its own may be gone.
    keys: Weak<Fetched>,
    credential: Arc<Credential>,
}

impl Verifier {
    pub(crate) fn new(service: ServiceName, issuer: &str, keys: Keys, metrics: Metrics) -> Verifier {
        Verifier { service, issuer: issuer.into(), keys, metrics, known: Arc::new(Cache::new(REMEMBERED)) }
    }

    /// The identifier of the issuer whose tokens are believed.
    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Verifies a token that `peer` shows, asking for fresher keys if it names one that is not known. Cancel safe.
    pub(crate) async fn verify(
        &self,
        settings: &Settings,
        text: &str,
        peer: Option<&Peer>,
    ) -> Result<Arc<Credential>, Failure> {
        let mut result = self.verify_once(settings, text, peer);
        if matches!(&result, Err(Failure::NoKeys | Failure::Token(identity::TokenError::UnknownKey { .. }))) {
            self.keys.refresh().await;
            result = self.verify_once(settings, text, peer);
        }
        self.metrics.verified(result.as_ref().map_or_else(Failure::label, |_| "ok"));
        result
    }

    fn verify_once(&self, settings: &Settings, text: &str, peer: Option<&Peer>) -> Result<Arc<Credential>, Failure> {
        let fetched = self.keys.known().ok_or(Failure::NoKeys)?;
        let now = UnixTime(runtime::clock::now());
        let not_before = settings.tokens_not_before.map(UnixTime);
        let certificate = peer.map(|peer| peer.thumbprint);
        let name = digest(text);
        if let Some(known) = self.known.get(&name).filter(|known| known.keys.as_ptr() == Arc::as_ptr(&fetched)) {
            known.credential.token.still_valid(not_before, certificate, now).map_err(Failure::Token)?;
            names_its_subject(&known.credential.token, peer).map_err(Failure::Token)?;
            return Ok(known.credential);
        }
        let expected = Expected { issuer: &self.issuer, audience: &self.service, not_before, certificate };
        let token = UnverifiedToken::new(text.to_owned());
        let token = identity::access::verify(&token, &fetched.keys, &expected, now).map_err(Failure::Token)?;
        names_its_subject(&token, peer).map_err(Failure::Token)?;
        let credential = Arc::new(Credential::new(token));
        self.known.insert(name, Known { keys: Arc::downgrade(&fetched), credential: credential.clone() });
        Ok(credential)
    }
}

/// A bound token is its subject's own: a certificate that names another workload cannot be the one its issuer meant.
fn names_its_subject(token: &AccessToken, peer: Option<&Peer>) -> Result<(), identity::TokenError> {
    let other = |id: &SpiffeId| id.subject() != *token.subject();
    match token.confirmation() {
        Some(_) if peer.and_then(|peer| peer.spiffe.as_ref()).is_some_and(other) => Err(identity::TokenError::Binding),
        _ => Ok(()),
    }
}

/// A token's name in the cache; the text itself is not kept.
fn digest(text: &str) -> [u8; 32] {
    let mut name = [0; 32];
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    name.copy_from_slice(digest.as_ref());
    name
}

#[cfg(test)]
mod tests;
