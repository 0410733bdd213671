//! One token exchange with the issuer (RFC 8693 §2), from the requesting side.
//!
//! Deliberately absent: when to do one, which is `tokens`'.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use identity::ServiceName;
use identity::certificate::Thumbprint;
use runtime::http_client::{Answer, HttpClient};
use runtime::secret::Secret;
use serde::Deserialize;

use crate::audit::Metrics;

/// A token with less life than this is not used for anything new.
const MARGIN: Duration = Duration::from_secs(2);

/// Why there is no token.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("the issuer refused a token for {audience}: {code}: {description}")]
    Refused { audience: String, code: String, description: String },
    #[error("no token for {audience}: {why}")]
    Unavailable { audience: String, why: String },
}

impl TokenError {
    /// Whether the issuer says that nothing is granted (RFC 8693 §2.2.2), and not merely that it cannot answer.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, TokenError::Refused { code, .. } if code == "invalid_target")
    }

    /// Whether the issuer is away, or not ready yet, so that there may be a token a moment later.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            TokenError::Refused { code, .. } => matches!(code.as_str(), "temporarily_unavailable" | "server_error"),
            TokenError::Unavailable { .. } => true,
        }
    }
}

/// What an exchange needs.
pub(crate) struct Exchange {
    pub(crate) client: HttpClient,
    pub(crate) issuer: String,
    pub(crate) subject_token_file: PathBuf,
    pub(crate) audience: ServiceName,
    pub(crate) metrics: Metrics,
}

/// A token that was obtained.
pub(crate) struct Token {
    text: Secret,
    obtained: Instant,
    /// By the issuer's clock, in seconds since the epoch.
    issued_at: i64,
    life: Duration,
}

impl Token {
    pub(crate) fn text(&self) -> &Secret {
        &self.text
    }

    /// How long it is good for, from when it was obtained.
    pub(crate) fn life(&self) -> Duration {
        self.life
    }

    /// When it was obtained.
    pub(crate) fn obtained(&self) -> Instant {
        self.obtained
    }

    /// Whether it was issued before `not_before`, in seconds since the epoch, and is void.
    pub(crate) fn is_void(&self, not_before: Option<i64>) -> bool {
        not_before.is_some_and(|time| self.issued_at < time)
    }

    /// Whether it was issued in a later second than the other.
    pub(crate) fn is_later_than(&self, other: &Token) -> bool {
        self.issued_at > other.issued_at
    }

    /// Whether it may be used for something new.
    pub(crate) fn is_usable(&self, not_before: Option<i64>) -> bool {
        self.obtained.elapsed() + MARGIN < self.life && !self.is_void(not_before)
    }
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: u64,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
    #[serde(default)]
    error_description: String,
}

impl Exchange {
    /// One exchange, counted. The token is bound to a certificate, if there is one. Cancel safe.
    pub(crate) async fn run(&self, certificate: Option<Thumbprint>) -> Result<Token, TokenError> {
        let started = Instant::now();
        let result = self.request(certificate).await;
        self.metrics.exchanged(result.is_ok(), started.elapsed());
        result
    }

    async fn request(&self, certificate: Option<Thumbprint>) -> Result<Token, TokenError> {
        let file = &self.subject_token_file;
        let subject = tokio::fs::read_to_string(file)
            .await
            .map_err(|error| self.unavailable(format!("cannot read the subject token {}: {error}", file.display())))?;
        let (now, obtained) = (runtime::clock::now(), Instant::now());
        let form = self.form(subject.trim(), certificate);
        let answer = self.client.post_form(&format!("{}/token", self.issuer), form).await;
        let Answer { status, body, .. } = answer.map_err(|error| self.unavailable(error.to_string()))?;
        if status != 200 {
            return Err(self.refused(status, &body));
        }
        let granted: Granted = serde_json::from_slice(&body)
            .map_err(|_| self.unavailable("the issuer's answer is no token response (RFC 8693 §2.2.1)".to_owned()))?;
        let life = Duration::from_secs(granted.expires_in);
        let issued_at = issued_at(&granted.access_token).unwrap_or(now);
        Ok(Token { text: Secret::new(granted.access_token), obtained, issued_at, life })
    }

    fn refused(&self, status: u16, body: &[u8]) -> TokenError {
        match serde_json::from_slice::<Refusal>(body) {
            Ok(Refusal { error: code, error_description: description }) => {
                TokenError::Refused { audience: self.audience.to_string(), code, description }
            }
            Err(_) => self.unavailable(format!("the issuer answered with status {status}")),
        }
    }

    fn unavailable(&self, why: String) -> TokenError {
        TokenError::Unavailable { audience: self.audience.to_string(), why }
    }

    fn form(&self, subject_token: &str, certificate: Option<Thumbprint>) -> String {
        let audience = self.audience.to_string();
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", identity::exchange::GRANT_TYPE)
            .append_pair("subject_token_type", identity::exchange::TOKEN_TYPE_JWT)
            .append_pair("subject_token", subject_token)
            .append_pair("audience", &audience);
        if let Some(thumbprint) = certificate {
            // RFC 9201 §3.1 with the JSON of RFC 7800 and the confirmation of RFC 8705.
            form.append_pair("req_cnf", &format!(r#"{{"x5t#S256":"{thumbprint}"}}"#));
        }
        form.finish()
    }
}

/// When a token says that it was issued: only to know whether it is worth showing, as the other side verifies it. The
/// issuer's clock and this machine's may differ.
fn issued_at(token: &str) -> Option<i64> {
    #[derive(Deserialize)]
    struct Claims {
        iat: i64,
    }
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<Claims>(&payload).ok().map(|claims| claims.iat)
}
