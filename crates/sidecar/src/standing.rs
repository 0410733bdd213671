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
    /// It is here only because nothing was enforced.
    tolerated: bool,
}

impl Standing {
    pub(crate) fn new(credential: Option<Arc<Credential>>, tolerated: bool) -> Standing {
        let expires_at = credential.as_ref().map(|credential| end_of_life(&credential.token));
        Standing { credential, expires_at, tolerated }
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
        let Some(Credential { token, .. }) = self.credential.as_deref().filter(|_| !self.tolerated) else {
            let message = "sidegate: verification is enforced now, and would have refused this session";
            return ended(message, "Show a token.");
        };
        if settings.tokens_not_before.is_some_and(|time| token.issued_at().0 < time) {
            return ended("sidegate: the session's token was revoked", "Reconnect with a newer token.");
        }
        if self.expires_at.is_some_and(|time| time <= runtime::clock::now()) {
            return ended("sidegate: the session's token has expired", "Reconnect.");
        }
        None
    }
}

/// When what began with `token` ends, in seconds since the epoch. What was let in within the leeway for clocks that
/// differ has the rest of it.
fn end_of_life(token: &AccessToken) -> i64 {
    let expires_at = token.expires_at().0;
    if expires_at > runtime::clock::now() { expires_at } else { expires_at.saturating_add(LEEWAY_SECONDS) }
}
