//! One exchange: who asks, what is granted, a signed token or a refusal; each is logged and counted.
//!
//! Deliberately absent: HTTP (`routes`) and the rules themselves (`identity::exchange`).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use identity::access::{AuthorizationDetail, Claims};
use identity::exchange::{ErrorCode, OAuthError, Request, Response, narrow, scope_of};
use identity::subject::{self, SubjectToken};
use identity::{MAX_TOKEN_LENGTH, ServiceName, Subject, TokenError, UnixTime, UnverifiedToken};

use super::certificates::Certificates;
use super::cluster_keys::ClusterKeys;
use super::config::Config;
use super::grants::Grants;
use super::keys::SigningKeys;
use super::metrics::Metrics;
use super::ring_file::keep_ring;

/// Everything that an answer depends on.
pub(crate) struct Exchange {
    pub(crate) config: Config,
    pub(crate) signing: Arc<SigningKeys>,
    pub(crate) grants: Grants,
    pub(crate) cluster: ClusterKeys,
    pub(crate) certificates: Option<Certificates>,
    pub(crate) metrics: Metrics,
}

impl Exchange {
    /// Follows what the answers depend on, for ever.
    pub(crate) async fn follow(&self) -> Infallible {
        tokio::select! {
            never = self.grants.keep_up() => never,
            never = self.cluster.keep_up() => never,
            never = self.keep_certificates() => never,
            never = keep_ring(self.signing.clone(), self.metrics.signing_keys.clone()) => never,
        }
    }

    async fn keep_certificates(&self) -> Infallible {
        match &self.certificates {
            Some(certificates) => certificates.keep_up().await,
            None => std::future::pending().await,
        }
    }

    /// Answers a request's form.
    pub(crate) async fn answer(&self, form: &[(String, String)]) -> Result<Response, OAuthError> {
        let begun = Instant::now();
        let answer = self.decide(form).await;
        self.metrics.duration.observe(begun.elapsed().as_secs_f64());
        answer
    }

    /// Counts and logs a request that was refused before there was a form.
    pub(crate) fn refused(&self, error: &OAuthError) {
        self.metrics.count(error.code.label());
        tracing::info!(result = error.code.label(), reason = %error, "token exchange");
    }

    async fn decide(&self, form: &[(String, String)]) -> Result<Response, OAuthError> {
        let request = Request::from_form(form).inspect_err(|error| self.refused(error))?;
        let caller = self.caller(&request.subject_token).await.map_err(|error| error.of_exchange()).inspect_err(|error| {
            self.metrics.count(error.code.label());
            tracing::info!(audience = %request.audience, result = error.code.label(), reason = %error, "token exchange");
        })?;
        let subject = caller.subject();
        let pod = caller.pod().map(|pod| pod.name.as_str());
        let issued = self.issue(&request, subject);
        let audience = &request.audience;
        match &issued {
            Ok((response, jti)) => {
                self.metrics.count("ok");
                tracing::info!(%subject, %audience, pod, roles = %response.scope, result = "ok", %jti, "token exchange");
            }
            Err(error) => {
                self.metrics.count(error.code.label());
                tracing::info!(%subject, %audience, pod, result = error.code.label(), reason = %error, "token exchange");
            }
        }
        issued.map(|(response, _)| response)
    }

    /// Verifies the subject token, with fresher keys if it names one that is not known.
    pub(crate) async fn caller(&self, token: &UnverifiedToken) -> Result<SubjectToken, CallerError> {
        let tokens = &self.config.subject_tokens;
        let expected = subject::Expected { issuer: &tokens.issuer, audience: &tokens.audience };
        let verify = |keys: &_| subject::verify(token, keys, &expected, now());
        let keys = self.cluster.current().ok_or(CallerError::KeysUnknown)?;
        let mut result = verify(&*keys);
        if let Err(TokenError::UnknownKey { kid }) = &result {
            let keys = self.cluster.for_unknown_key(kid).await.ok_or(CallerError::KeysUnknown)?;
            result = verify(&*keys);
        }
        result.map_err(CallerError::Token)
    }

    fn issue(&self, request: &Request, subject: &Subject) -> Result<(Response, String), OAuthError> {
        let granted = self.grants.granted(subject, &request.audience);
        let details = narrow(request, subject, granted)?;
        let claims = Claims { cnf: request.confirmation, ..self.claims(subject, &request.audience, details)? };
        let (jti, scope) = (claims.jti.clone(), claims.scope.clone());
        let token =
            self.signing.sign(&claims, claims.iat.0).map_err(|_| server_error("the token could not be signed"))?;
        // No verifier would read it; a clear refusal here is better than a riddle there.
        if token.len() > MAX_TOKEN_LENGTH {
            return Err(server_error(
                "the granted roles do not fit into a token: narrow them with scope, or shorten their rules",
            ));
        }
        self.metrics.signed.inc();
        Ok((Response::new(token, self.config.ttl, scope), jti))
    }

    fn claims(
        &self,
        subject: &Subject,
        audience: &ServiceName,
        details: Vec<AuthorizationDetail>,
    ) -> Result<Claims, OAuthError> {
        let now = now();
        Ok(Claims {
            iss: self.config.url.clone(),
            sub: subject.clone(),
            aud: audience.clone(),
            exp: now.plus(self.config.ttl),
            iat: now,
            nbf: now,
            jti: random_id()?,
            client_id: subject.to_string(),
            scope: scope_of(&details),
            authorization_details: details,
            act: None,
            cnf: None,
        })
    }
}

/// Why it is not known who asks.
pub(crate) enum CallerError {
    /// No token could be checked now.
    KeysUnknown,
    /// This one is not believed.
    Token(TokenError),
}

impl CallerError {
    fn of_exchange(&self) -> OAuthError {
        match self {
            Self::KeysUnknown => {
                OAuthError::new(ErrorCode::TemporarilyUnavailable, "the cluster's keys are not known yet; try again")
            }
            Self::Token(error) => OAuthError::subject_token(error),
        }
    }
}

fn server_error(description: &str) -> OAuthError {
    OAuthError::new(ErrorCode::ServerError, description)
}

fn random_id() -> Result<String, OAuthError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| server_error("the system gives no randomness"))?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid().to_string())
}

fn now() -> UnixTime {
    UnixTime(runtime::clock::now())
}
