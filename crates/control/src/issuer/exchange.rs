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

use runtime::kubernetes::Client;

use super::certificates::Certificates;
use super::cluster_keys::ClusterKeys;
use super::config::Config;
use super::fetch::Trusted;
use super::grants::Grants;
use super::keys::SigningKeys;
use super::metrics::Metrics;
use super::stored_ring::keep_ring;
use super::token_review::{self, Reviewed};

/// Everything that an answer depends on.
pub(crate) struct Exchange {
    pub(crate) config: Config,
    pub(crate) signing: Arc<SigningKeys>,
    pub(crate) grants: Grants,
    pub(crate) cluster: ClusterKeys,
    pub(crate) certificates: Option<Certificates>,
    /// Asked about each subject token, where that is configured.
    pub(crate) reviewer: Option<Client>,
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
        let audience = &self.config.subject_tokens.audience;
        let verify = |trusted: &Trusted| {
            let expected = subject::Expected { issuer: &trusted.issuer, audience };
            subject::verify(token, &trusted.keys, &expected, now())
        };
        let trusted = self.cluster.current().ok_or(CallerError::KeysUnknown)?;
        let mut result = verify(&trusted);
        if let Err(TokenError::UnknownKey { kid }) = &result {
            let trusted = self.cluster.for_unknown_key(kid).await.ok_or(CallerError::KeysUnknown)?;
            result = verify(&trusted);
        }
        let caller = result.map_err(CallerError::Token)?;
        self.review(token, &caller).await?;
        Ok(caller)
    }

    /// Whether the API server knows the token still, where it is to be asked.
    async fn review(&self, token: &UnverifiedToken, caller: &SubjectToken) -> Result<(), CallerError> {
        let Some(client) = &self.reviewer else { return Ok(()) };
        match token_review::review(client, token, &self.config.subject_tokens.audience, caller).await {
            Ok(Reviewed::Good) => Ok(()),
            Ok(Reviewed::Bad(reason)) => {
                tracing::info!(subject = %caller.subject(), reason, "the API server does not know a token any more");
                Err(CallerError::Revoked)
            }
            Err(error) => {
                tracing::warn!(%error, "a token cannot be reviewed");
                Err(CallerError::NotReviewed)
            }
        }
    }

    fn issue(&self, request: &Request, subject: &Subject) -> Result<(Response, String), OAuthError> {
        // "None" would end open sessions; "not known yet" makes the sidecar ask again.
        let unknown = || OAuthError::new(ErrorCode::TemporarilyUnavailable, "the grants are not known yet; try again");
        let granted = self.grants.granted(subject, &request.audience).ok_or_else(unknown)?;
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
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallerError {
    /// No token could be checked now.
    #[error("the cluster's keys are not known yet; try again")]
    KeysUnknown,
    /// This one is not believed.
    #[error(transparent)]
    Token(TokenError),
    /// Its pod or service account is gone.
    #[error("the cluster's API server does not accept this token any more")]
    Revoked,
    /// The API server was to be asked, and did not answer.
    #[error("the cluster's API server could not be asked about this token; try again")]
    NotReviewed,
}

impl CallerError {
    fn of_exchange(&self) -> OAuthError {
        let code = match self {
            Self::Token(error) => return OAuthError::subject_token(error),
            Self::KeysUnknown | Self::NotReviewed => ErrorCode::TemporarilyUnavailable,
            Self::Revoked => ErrorCode::InvalidRequest,
        };
        OAuthError::new(code, format!("subject_token: {self}"))
    }

    /// Whether it may be otherwise in a moment.
    pub(crate) fn is_temporary(&self) -> bool {
        matches!(self, Self::KeysUnknown | Self::NotReviewed)
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
