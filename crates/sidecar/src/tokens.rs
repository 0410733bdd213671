//! The tokens that outbound listeners attach: obtained from the issuer, cached, renewed well ahead of their end.
//!
//! One task a target does all exchanges, so that there is never more than one in flight; connections only read what it
//! left. Deliberately absent: any look into the token. It is the issuer's word to the other side.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use identity::ServiceName;
use runtime::http_client::{Answer, HttpClient};
use runtime::secret::Secret;
use serde::Deserialize;
use tokio::sync::{Notify, watch};

use crate::audit::Metrics;

/// Age at which a token is replaced, as a part of its life. Early, so that an issuer may be away for nearly a token's
/// whole life before anybody notices.
const RENEW_AT: f64 = 0.075;

/// Shortest time between two exchanges that succeed.
const RENEW_MIN: Duration = Duration::from_secs(1);

/// Waiting times between tries that fail, the last one for ever: recovery is to be quick, and one request every few
/// seconds is no load.
const BACKOFF: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];

/// A token with less life than this is not used for a new login.
const MARGIN: Duration = Duration::from_secs(2);

/// How long a new connection waits for a token when there is none.
const WAIT: Duration = Duration::from_secs(6);

/// Why there is no token.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("the issuer refused a token for {audience}: {code}: {description}")]
    Refused { audience: String, code: String, description: String },
    #[error("no token for {audience}: {why}")]
    Unavailable { audience: String, why: String },
}

struct Token {
    text: Secret,
    obtained: Instant,
    /// Seconds since the epoch, by this machine's clock, before the exchange began.
    issued_after: i64,
    life: Duration,
}

impl Token {
    fn usable(&self, not_before: Option<i64>) -> bool {
        self.obtained.elapsed() + MARGIN < self.life && not_before.is_none_or(|time| self.issued_after >= time)
    }
}

#[derive(Default, Clone)]
struct Last {
    token: Option<Arc<Token>>,
    error: Option<TokenError>,
    /// Counts finished tries, so that a waiter can tell a new result from an old one.
    tries: u64,
}

/// The tokens for one target. Clones share them.
#[derive(Clone)]
pub(crate) struct TokenSource {
    last: watch::Receiver<Last>,
    wanted: Arc<Notify>,
    audience: ServiceName,
}

/// What an exchange needs.
pub(crate) struct Exchange {
    pub(crate) client: HttpClient,
    pub(crate) issuer: String,
    pub(crate) subject_token_file: PathBuf,
    pub(crate) audience: ServiceName,
    pub(crate) metrics: Metrics,
}

impl TokenSource {
    /// Starts the exchanging task, which lives as long as the runtime it is called on.
    pub(crate) fn start(exchange: Exchange) -> TokenSource {
        let (sender, last) = watch::channel(Last::default());
        let wanted = Arc::new(Notify::new());
        let audience = exchange.audience.clone();
        tokio::spawn(renew_for_ever(exchange, sender, wanted.clone()));
        TokenSource { last, wanted, audience }
    }

    /// A token that is still good, waiting a while for one if need be. `not_before`: tokens from before are dropped
    /// (`TOKENS_NOT_BEFORE`). Cancel safe.
    pub(crate) async fn token(&self, not_before: Option<i64>) -> Result<Secret, TokenError> {
        let found = tokio::time::timeout(WAIT, self.wait(not_before)).await;
        let slow = || self.unavailable("the issuer has not answered");
        found.unwrap_or_else(|_| Err(self.last.borrow().error.clone().unwrap_or_else(slow)))
    }

    async fn wait(&self, not_before: Option<i64>) -> Result<Secret, TokenError> {
        let mut last = self.last.clone();
        let mut tries_left = 2;
        loop {
            let seen = last.borrow_and_update().clone();
            if let Some(token) = seen.token.filter(|token| token.usable(not_before)) {
                return Ok(token.text.clone());
            }
            // The try that was under way when this one came may have begun too early to help; the next has not.
            let refused = matches!(seen.error, Some(TokenError::Refused { .. }));
            if tries_left == 0 || refused && tries_left == 1 {
                let void = || self.unavailable("tokens from before TOKENS_NOT_BEFORE are void");
                return Err(seen.error.unwrap_or_else(void));
            }
            tries_left -= 1;
            self.wanted.notify_one();
            // An error would mean that the exchanging task is gone, and with it the runtime.
            let _ = last.wait_for(|now| now.tries > seen.tries).await;
        }
    }

    fn unavailable(&self, why: &str) -> TokenError {
        TokenError::Unavailable { audience: self.audience.to_string(), why: why.to_owned() }
    }
}

async fn renew_for_ever(exchange: Exchange, sender: watch::Sender<Last>, wanted: Arc<Notify>) {
    let mut failures = 0usize;
    while !sender.is_closed() {
        let started = Instant::now();
        let result = exchange.run().await;
        exchange.metrics.exchanged(result.is_ok(), started.elapsed());
        let pause = match &result {
            Ok(token) => token.life.mul_f64(RENEW_AT).max(RENEW_MIN),
            Err(_) => BACKOFF.get(failures).or(BACKOFF.last()).copied().unwrap_or(RENEW_MIN),
        };
        if let Err(error) = &result
            && failures == 0
        {
            tracing::warn!(%error, "no new token");
        }
        failures = if result.is_ok() { 0 } else { failures + 1 };
        sender.send_modify(|last| {
            last.tries += 1;
            match result {
                Ok(token) => *last = Last { token: Some(Arc::new(token)), error: None, tries: last.tries },
                // The token at hand stays good until its own end.
                Err(error) => last.error = Some(error),
            }
        });
        // Impatient clients must not turn one try after another into a flood.
        let least = if failures == 0 { RENEW_MIN } else { pause };
        tokio::time::sleep(least).await;
        if failures == 0 {
            let _ = tokio::time::timeout(pause.saturating_sub(least), wanted.notified()).await;
        }
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
    /// One token exchange (RFC 8693 §2).
    async fn run(&self) -> Result<Token, TokenError> {
        let unavailable = |why: String| TokenError::Unavailable { audience: self.audience.to_string(), why };
        let file = &self.subject_token_file;
        let subject = tokio::fs::read_to_string(file)
            .await
            .map_err(|error| unavailable(format!("cannot read the subject token {}: {error}", file.display())))?;
        let issued_after = runtime::clock::now();
        let obtained = Instant::now();
        let answer = self.client.post_form(&format!("{}/token", self.issuer), self.form(subject.trim())).await;
        let Answer { status, body } = answer.map_err(|error| unavailable(error.to_string()))?;
        if status == 200 {
            let granted: Granted = serde_json::from_slice(&body)
                .map_err(|_| unavailable("the issuer's answer is no token response (RFC 8693 §2.2.1)".to_owned()))?;
            let life = Duration::from_secs(granted.expires_in);
            return Ok(Token { text: Secret::new(granted.access_token), obtained, issued_after, life });
        }
        match serde_json::from_slice::<Refusal>(&body) {
            Ok(refusal) => Err(TokenError::Refused {
                audience: self.audience.to_string(),
                code: refusal.error,
                description: refusal.error_description,
            }),
            Err(_) => Err(unavailable(format!("the issuer answered with status {status}"))),
        }
    }

    fn form(&self, subject_token: &str) -> String {
        let fields = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
            ("subject_token", subject_token),
            ("audience", &self.audience.to_string()),
        ];
        form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
    }
}
