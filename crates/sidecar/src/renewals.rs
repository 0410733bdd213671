//! What an open session is to be shown: each new token for its link, soon after it was obtained, and at once when the
//! one that was shown is void.
//!
//! Deliberately absent: how it is shown, which is `pg`'s.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Instant;

use runtime::settings::Settings;
use tokio::sync::watch;

use crate::exchange::{Token, TokenError};
use crate::tokens::{Last, TokenSource};

/// Sessions show a new token within this part of its life, each at a moment of its own: thousands at once would hold up
/// everybody's statements.
const SPREAD: f64 = 1.0 / 60.0;

/// The tokens that one session is to be shown.
pub(crate) struct Renewals {
    source: Arc<TokenSource>,
    results: watch::Receiver<Last>,
    settings: watch::Receiver<Arc<Settings>>,
    shown: Arc<Token>,
    /// The other side waits for a token. What it says of times is not gone by: it judges what it is shown.
    is_urgent: bool,
    /// This session's place among all, from 0 to 1.
    place: f64,
    withdrawn: bool,
}

/// What is to be done now.
enum Step {
    Show(Arc<Token>),
    SayWithdrawn,
    Wait(Option<Instant>),
}

impl Renewals {
    /// Follows `source`, of which `shown` was used to log in.
    pub(crate) fn new(
        source: Arc<TokenSource>,
        shown: Arc<Token>,
        settings: watch::Receiver<Arc<Settings>>,
    ) -> Renewals {
        let results = source.results();
        // Each of these hashers is seeded anew.
        let place = RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64;
        Renewals { source, results, settings, shown, is_urgent: false, place, withdrawn: false }
    }

    /// The other side asks for a fresh token.
    pub(crate) fn want(&mut self) {
        self.is_urgent = true;
        self.source.want();
    }

    /// Waits for what is to be shown next; `None`: that nothing is granted any more. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Arc<Token>> {
        loop {
            let settings = self.settings.borrow_and_update().clone();
            let last = self.results.borrow_and_update().clone();
            let due = match self.step(&last, &settings) {
                Step::Show(token) => {
                    self.shown = token.clone();
                    self.is_urgent = false;
                    return Some(token);
                }
                Step::SayWithdrawn => return None,
                Step::Wait(due) => due,
            };
            // A sender that is gone would make a loop of this: neither goes before the process does.
            tokio::select! {
                Ok(()) = self.results.changed() => {}
                Ok(()) = self.settings.changed() => {}
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {}
                else => std::future::pending().await,
            }
        }
    }

    fn step(&mut self, last: &Last, settings: &Settings) -> Step {
        if !settings.sign {
            return Step::Wait(None);
        }
        let not_before = settings.tokens_not_before;
        let is_void = self.shown.is_void(not_before);
        match &last.token {
            Some(token) if !Arc::ptr_eq(token, &self.shown) && token.is_usable(not_before) => {
                self.withdrawn = false;
                let due = token.obtained() + token.life().mul_f64(SPREAD * self.place);
                if is_void || self.is_urgent || due <= Instant::now() {
                    Step::Show(token.clone())
                } else {
                    Step::Wait(Some(due))
                }
            }
            None if !self.withdrawn && last.error.as_ref().is_some_and(TokenError::is_final) => {
                self.withdrawn = true;
                Step::SayWithdrawn
            }
            _ => {
                if is_void {
                    self.source.want();
                }
                Step::Wait(None)
            }
        }
    }
}
