//! What the log says of the issuer's keys and clock: when it turns bad, and when it is good again, not each time.

use tokio::time::Instant;

use super::fetch::Failure;

/// Clocks may differ by as much as verification overlooks; beyond, good tokens are refused.
const SKEW_LIMIT: u64 = identity::LEEWAY_SECONDS.unsigned_abs();

pub(super) struct Outage {
    issuer: String,
    since: Option<Instant>,
    known: bool,
    skewed: bool,
}

impl Outage {
    pub(super) fn of(issuer: &str) -> Self {
        Outage { issuer: issuer.to_owned(), since: None, known: false, skewed: false }
    }

    pub(super) fn failed(&mut self, failure: &Failure) {
        if self.since.is_some() {
            return;
        }
        self.since = Some(Instant::now());
        let (issuer, Failure { what: error, advice: todo, .. }) = (&self.issuer, failure);
        if self.known {
            tracing::warn!(issuer, error, todo, "cannot fetch the issuer's keys; those known stay in use");
        } else {
            tracing::warn!(issuer, error, todo, "cannot fetch the issuer's keys; until they are known nobody gets in");
        }
    }

    pub(super) fn over(&mut self) {
        if let Some(since) = self.since.take() {
            let seconds = since.elapsed().as_secs();
            tracing::info!(issuer = self.issuer, seconds, "the issuer's keys can be fetched again");
        } else if !self.known {
            tracing::info!(issuer = self.issuer, "the issuer's keys are known");
        }
        self.known = true;
    }

    /// `seconds`: by how much this machine's clock is ahead of the issuer's, if that is known.
    pub(super) fn clocks(&mut self, seconds: Option<i64>) {
        let Some(seconds) = seconds else { return };
        let skewed = seconds.unsigned_abs() > SKEW_LIMIT;
        if skewed && !self.skewed {
            let todo = "set the clock that is wrong, this machine's or the issuer's, by NTP";
            let which = if seconds > 0 { "ahead of" } else { "behind" };
            let by = seconds.unsigned_abs();
            let issuer = &self.issuer;
            tracing::warn!(
                issuer,
                seconds,
                todo,
                "this machine's clock is {by} s {which} the issuer's; beyond 30 s good tokens are refused"
            );
        } else if !skewed && self.skewed {
            tracing::info!(issuer = self.issuer, "this machine's clock and the issuer's agree again");
        }
        self.skewed = skewed;
    }
}
