//! The tokens for one target, bound to one certificate of this pod's: obtained, cached, renewed well ahead of their end.
//!
//! One task does all exchanges, so that there is never more than one in flight; connections only read what it left.
//! Deliberately absent: which certificate (`signer`), and what a token says. It is the issuer's word to the other side.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::certificates::Identity;
use crate::exchange::{Exchange, Token, TokenError};

/// Age at which a token is replaced, as a part of its life. Early, so that an issuer may be away for nearly a token's
/// whole life before anybody notices.
const RENEW_AT: f64 = 0.075;

/// Shortest time between two exchanges that succeed.
const RENEW_MIN: Duration = Duration::from_secs(1);

/// After so many exchanges in a row that were asked for, they are further apart: what is asked for does not help.
const ASKED_MAX: u32 = 30;
const RENEW_WHEN_ASKED: Duration = Duration::from_secs(10);

/// Waiting times between tries that fail, the last one for ever: recovery is to be quick, and one request every few
/// seconds is no load.
const BACKOFF: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];

/// How long a new connection waits for a token when there is none.
pub(crate) const WAIT: Duration = Duration::from_secs(6);

/// How often something is tried again with a newer token: the first may be from before tokens were refreshed, and the
/// second from the second in which they were.
pub(crate) const RETRIES: usize = 3;

/// What the last exchanges brought.
#[derive(Default, Clone)]
pub(crate) struct Last {
    /// The newest token, until the issuer says that nothing is granted.
    pub(crate) token: Option<Arc<Token>>,
    /// Why the last try failed, if it did.
    pub(crate) error: Option<TokenError>,
    /// Counts finished tries, so that a waiter can tell a new result from an old one.
    tries: u64,
}

/// The tokens for one target, for links that are made with one certificate.
pub(crate) struct TokenSource {
    identity: Option<Arc<Identity>>,
    last: watch::Receiver<Last>,
    wanted: Arc<Notify>,
    exchange: Arc<Exchange>,
}

impl TokenSource {
    /// Starts the exchanging task, which ends with this and whoever follows it.
    pub(crate) fn start(exchange: Arc<Exchange>, identity: Option<Arc<Identity>>) -> TokenSource {
        let (sender, last) = watch::channel(Last::default());
        let wanted = Arc::new(Notify::new());
        tokio::spawn(renew_for_ever(exchange.clone(), identity.clone(), sender, wanted.clone()));
        TokenSource { identity, last, wanted, exchange }
    }

    /// The certificate that links must be made with on which these tokens are shown.
    pub(crate) fn identity(&self) -> Option<&Arc<Identity>> {
        self.identity.as_ref()
    }

    /// The results of exchanges as they come.
    pub(crate) fn results(&self) -> watch::Receiver<Last> {
        self.last.clone()
    }

    /// Asks for a token ahead of time.
    pub(crate) fn want(&self) {
        self.wanted.notify_one();
    }

    /// Waits until the first exchange is done, for better or worse. Cancel safe.
    pub(crate) async fn first(&self) {
        // An error would mean that the exchanging task is gone, and with it the runtime.
        let _ = self.last.clone().wait_for(|last| last.token.is_some()).await;
    }

    /// A token that is still good, waiting a while for one if need be. `not_before`: tokens from before are dropped
    /// (`TOKENS_NOT_BEFORE`). Cancel safe.
    pub(crate) async fn token(&self, not_before: Option<i64>) -> Result<Arc<Token>, TokenError> {
        let found = tokio::time::timeout(WAIT, self.wait(not_before)).await;
        let slow = || self.unavailable("the issuer has not answered");
        found.unwrap_or_else(|_| Err(self.last.borrow().error.clone().unwrap_or_else(slow)))
    }

    /// A token of a later second than `refused`, which the other side does not take any more. Cancel safe.
    pub(crate) async fn newer(&self, refused: &Arc<Token>) -> Option<Arc<Token>> {
        let mut last = self.last.clone();
        let wait = async {
            loop {
                let token = last.borrow_and_update().token.clone();
                if let Some(token) = token.filter(|token| token.is_later_than(refused)) {
                    return Some(token);
                }
                if last.borrow().error.as_ref().is_some_and(TokenError::is_final) {
                    return None;
                }
                self.want();
                last.changed().await.ok()?;
            }
        };
        tokio::time::timeout(WAIT, wait).await.ok().flatten()
    }

    async fn wait(&self, not_before: Option<i64>) -> Result<Arc<Token>, TokenError> {
        let mut last = self.last.clone();
        let mut tries_left = 2;
        loop {
            let seen = last.borrow_and_update().clone();
            if let Some(token) = seen.token.filter(|token| token.is_usable(not_before)) {
                return Ok(token);
            }
            // The try that was under way when this one came may have begun too early to help; the next has not.
            let refused = matches!(seen.error, Some(TokenError::Refused { .. }));
            if tries_left == 0 || refused && tries_left == 1 {
                let void = || self.unavailable("tokens from before TOKENS_NOT_BEFORE are void");
                return Err(seen.error.unwrap_or_else(void));
            }
            tries_left -= 1;
            self.want();
            let _ = last.wait_for(|now| now.tries > seen.tries).await;
        }
    }

    fn unavailable(&self, why: &str) -> TokenError {
        TokenError::Unavailable { audience: self.exchange.audience.to_string(), why: why.to_owned() }
    }
}

async fn renew_for_ever(
    exchange: Arc<Exchange>,
    identity: Option<Arc<Identity>>,
    sender: watch::Sender<Last>,
    wanted: Arc<Notify>,
) {
    let certificate = identity.map(|identity| identity.thumbprint);
    let mut failures = 0usize;
    let mut asked = 0u32;
    while !sender.is_closed() {
        let result = exchange.run(certificate).await;
        let pause = match &result {
            Ok(token) => token.life().mul_f64(RENEW_AT).max(RENEW_MIN),
            Err(_) => BACKOFF.get(failures).or(BACKOFF.last()).copied().unwrap_or(RENEW_MIN),
        };
        if let Err(error) = &result
            && failures == 0
        {
            tracing::warn!(%error, "no new token");
        }
        failures = if result.is_ok() { 0 } else { failures + 1 };
        sender.send_modify(|last| last.note(result));
        // Impatient clients must not turn one try after another into a flood.
        let least = match failures {
            0 if asked > ASKED_MAX => RENEW_WHEN_ASKED.min(pause),
            0 => RENEW_MIN,
            _ => pause,
        };
        tokio::time::sleep(least).await;
        if failures == 0 {
            let woken = async {
                tokio::select! {
                    () = wanted.notified() => {}
                    () = sender.closed() => {}
                }
            };
            let was_asked = tokio::time::timeout(pause.saturating_sub(least), woken).await.is_ok();
            asked = if was_asked { asked.saturating_add(1) } else { 0 };
        }
    }
}

impl Last {
    fn note(&mut self, result: Result<Token, TokenError>) {
        self.tries += 1;
        match result {
            Ok(token) => (self.token, self.error) = (Some(Arc::new(token)), None),
            Err(error) => {
                // Else the token at hand stays good until its own end.
                if error.is_final() {
                    self.token = None;
                }
                self.error = Some(error);
            }
        }
    }
}
