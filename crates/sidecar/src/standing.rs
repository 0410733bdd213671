//! Whether what was let in may go on: asked again whenever the settings change, a token's life ends, or a statement is
//! about to begin.
//!
//! Deliberately absent: when that is asked, which is for those who serve.

use std::sync::Arc;
use std::time::Duration;

use identity::LEEWAY_SECONDS;
use identity::access::AccessToken;
use runtime::settings::{Settings, Verify};
use wire::ErrorFields;

use crate::verify::Credential;

/// What lets a session or a long request go on.
pub(crate) struct Standing {
    credential: Option<Arc<Credential>>,
    /// Seconds since the epoch.
    expires_at: Option<i64>,
    /// Seconds that it may go on after its token's end.
    grace: i64,
    /// It is here only because nothing was enforced.
    tolerated: bool,
    /// What it goes by was taken back, and nothing better has come.
    withdrawn: bool,
}

impl Standing {
    pub(crate) fn new(credential: Option<Arc<Credential>>, tolerated: bool) -> Standing {
        let mut standing = Standing { credential: None, expires_at: None, grace: 0, tolerated, withdrawn: false };
        if let Some(credential) = credential {
            standing.renew(credential);
        }
        standing
    }

    /// The same, with some time to go on after the token's end.
    pub(crate) fn with_grace(self, grace: Duration) -> Standing {
        let grace = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let expires_at = self.expires_at.map(|time| time.saturating_add(grace));
        Standing { grace, expires_at, ..self }
    }

    /// The same for what has an end of its own that is known: it may go on to that, if nothing is taken back.
    pub(crate) fn without_expiry(self) -> Standing {
        Standing { expires_at: None, ..self }
    }

    /// Whether it ends by itself.
    pub(crate) fn expires(&self) -> bool {
        self.expires_at.is_some()
    }

    /// The time until it does; zero if it has, or does not.
    pub(crate) fn life_left(&self) -> Duration {
        let left = self.expires_at.map_or(0, |time| time.saturating_sub(runtime::clock::now()));
        Duration::from_secs(u64::try_from(left).unwrap_or(0))
    }

    /// What it goes by.
    pub(crate) fn token(&self) -> Option<&AccessToken> {
        self.credential.as_deref().map(|credential| &credential.token)
    }

    /// It goes by a fresh token from now on.
    pub(crate) fn renew(&mut self, credential: Arc<Credential>) {
        self.expires_at = Some(self.end_of_life(&credential.token));
        self.credential = Some(credential);
        self.withdrawn = false;
    }

    /// Its rights were taken back. A fresh token can bring them again.
    pub(crate) fn withdraw(&mut self) {
        self.withdrawn = true;
    }

    /// It has done what it could only do because nothing was enforced.
    pub(crate) fn is_tolerated_from_now_on(&mut self) {
        self.tolerated = true;
    }

    /// Why it may not go on under these settings; `None` if it may.
    pub(crate) fn ended(&self, settings: &Settings) -> Option<ErrorFields> {
        if settings.verify != Verify::Enforce {
            return None;
        }
        let ended = |message: &str, hint: &str| Some(ErrorFields::fatal("57P01", message).hint(hint));
        if self.tolerated && self.credential.is_some() && !self.withdrawn {
            let message =
                "sidegate: verification is enforced now, and this session did what it may not do while it was not";
            return ended(message, "Reconnect: what it holds of that, such as locks, ends with it.");
        }
        if self.credential.is_none() || self.tolerated || self.withdrawn {
            let message = "sidegate: verification is enforced now, and would have refused this session";
            return ended(message, "Show a token.");
        }
        if self.revoked(settings).is_some() {
            return ended("sidegate: the session's token was revoked", "Reconnect with a newer token.");
        }
        if self.has_expired() {
            return ended("sidegate: the session's token has expired", "Reconnect.");
        }
        None
    }

    /// Whether its time is over, whatever the settings.
    pub(crate) fn has_expired(&self) -> bool {
        self.expires_at.is_some_and(|time| time <= runtime::clock::now())
    }

    /// When its token is void because a newer one is asked for: since when one must have been issued, in seconds since
    /// the epoch.
    pub(crate) fn revoked(&self, settings: &Settings) -> Option<i64> {
        let token = self.token().filter(|_| settings.verify == Verify::Enforce && !self.tolerated)?;
        settings.tokens_not_before.filter(|time| token.issued_at().0 < *time)
    }

    /// When what goes by `token` ends, in seconds since the epoch. What was let in within the leeway for clocks that
    /// differ has the rest of it.
    fn end_of_life(&self, token: &AccessToken) -> i64 {
        let expires_at = token.expires_at().0;
        let leeway = if expires_at > runtime::clock::now() { 0 } else { LEEWAY_SECONDS };
        expires_at.saturating_add(leeway).saturating_add(self.grace)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::Issuer;

    async fn standing(claims: serde_json::Value) -> Standing {
        let issuer = Issuer::start().await;
        let verified = issuer.verifier().await.verify(&Settings::default(), &issuer.token(&claims), None).await;
        Standing::new(Some(verified.ok().unwrap()), false)
    }

    fn words(standing: &Standing, settings: &Settings) -> String {
        standing.ended(settings).map(|fields| fields.message).unwrap_or_default()
    }

    #[tokio::test]
    async fn it_ends_with_its_token_or_a_grace_later_where_something_is_enforced() {
        let now = runtime::clock::now();
        let enforced = Settings::default();
        let observed = Settings { verify: Verify::Observe, ..Settings::default() };
        // Let in within the leeway for clocks, it has the rest of that.
        let late = standing(json!({"iat": now - 60, "nbf": now - 60, "exp": now - 5})).await;
        assert!(late.life_left() > Duration::from_secs(20) && words(&late, &enforced).is_empty());
        let mut over = late.with_grace(Duration::from_secs(60));
        assert!(over.life_left() > Duration::from_secs(80) && !over.has_expired());
        over.expires_at = Some(now - 1);
        assert!(words(&over, &enforced).contains("expired") && words(&over, &observed).is_empty());
    }

    #[tokio::test]
    async fn what_was_revoked_or_withdrawn_ends_until_a_fresh_token_comes() {
        let now = runtime::clock::now();
        let mut old = standing(json!({"iat": now - 60, "nbf": now - 60})).await;
        let refreshed = Settings { tokens_not_before: Some(now - 30), ..Settings::default() };
        assert_eq!(old.revoked(&refreshed), Some(now - 30));
        assert!(words(&old, &refreshed).contains("revoked"));
        let fresh = standing(json!({"iat": now, "nbf": now})).await;
        old.withdraw();
        assert!(words(&old, &Settings::default()).contains("would have refused"));
        old.renew(fresh.credential.clone().unwrap());
        assert!(words(&old, &refreshed).is_empty() && old.revoked(&refreshed).is_none());
    }
}
