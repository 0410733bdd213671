//! When to fetch a key set again: a state machine without I/O, so that issuer (the cluster's keys) and sidecar (the
//! issuer's) follow one rule. The last known keys go on serving whatever happens; they are the caller's to keep.
//!
//! Deliberately absent: the fetching, the clock, and any jitter (callers that are many may add their own to `due_at`).

use crate::time::UnixTime;

/// How old a key set may grow before it is fetched again although nothing asked for a new key.
/// Keys are published ahead of their first use by more than this, so a rotation is seen in time.
pub const MAX_AGE_SECONDS: i64 = 300;
/// An unknown `kid` fetches at most this often: tokens with made-up names must not turn us into a hammer.
pub const UNKNOWN_KEY_INTERVAL_SECONDS: i64 = 2;
/// The first pause after a failed fetch; it doubles with each further failure.
pub const FIRST_BACK_OFF_SECONDS: i64 = 1;
/// Failures never push the next try further out: recovery within 5 s of the source's is promised.
/// A plan is asked once a second, and a try takes its time, so the pause is the smaller part of them.
pub const MAX_BACK_OFF_SECONDS: i64 = 3;

/// A file is read again this often, asked for or not: it costs next to nothing.
pub const FILE_INTERVAL_SECONDS: i64 = 1;

/// When to fetch a key set. Tell it what happened; ask it whether, or when, to fetch.
#[derive(Debug, Clone)]
pub struct RefreshPlan {
    last_success: Option<UnixTime>,
    last_attempt: Option<UnixTime>,
    failures: u32,
    wanted: bool,
    max_age: i64,
    unknown_key_interval: i64,
}

impl RefreshPlan {
    /// A plan for a key set that comes over the network. It wants a fetch at once.
    #[must_use]
    pub fn new() -> Self {
        Self::with_intervals(MAX_AGE_SECONDS, UNKNOWN_KEY_INTERVAL_SECONDS)
    }

    /// A plan for a key set in a file.
    #[must_use]
    pub fn of_file() -> Self {
        Self::with_intervals(FILE_INTERVAL_SECONDS, FILE_INTERVAL_SECONDS)
    }

    fn with_intervals(max_age: i64, unknown_key_interval: i64) -> Self {
        Self { last_success: None, last_attempt: None, failures: 0, wanted: false, max_age, unknown_key_interval }
    }

    /// A token named a key that the set does not hold: fetch soon, but not more often than the limit allows.
    pub fn unknown_key(&mut self) {
        self.wanted = true;
    }

    /// A fetch brought a key set.
    pub fn succeeded(&mut self, now: UnixTime) {
        *self = Self { last_success: Some(now), last_attempt: Some(now), failures: 0, wanted: false, ..*self };
    }

    /// A fetch failed, or brought what is no key set.
    pub fn failed(&mut self, now: UnixTime) {
        self.last_attempt = Some(now);
        self.failures = self.failures.saturating_add(1);
    }

    /// Whether to fetch now.
    #[must_use]
    pub fn is_due(&self, now: UnixTime) -> bool {
        // A clock that was set back would otherwise silence the plan until it has caught up.
        let set_back = self.last_attempt.is_some_and(|last| last > now);
        set_back || now >= self.due_at()
    }

    /// When to fetch next, should nothing happen in between. Long past when nothing was ever fetched.
    #[must_use]
    pub fn due_at(&self) -> UnixTime {
        let Some(last) = self.last_attempt else { return UnixTime(i64::MIN) };
        if self.failures > 0 {
            return last.plus(self.back_off());
        }
        last.plus(if self.wanted { self.unknown_key_interval } else { self.max_age })
    }

    /// How many seconds ago the last fetch succeeded; `None` before the first one.
    #[must_use]
    pub fn age(&self, now: UnixTime) -> Option<i64> {
        self.last_success.map(|last| now.since(last).max(0))
    }

    /// How many fetches failed since the last one that did not.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    fn back_off(&self) -> i64 {
        let doublings = self.failures.saturating_sub(1).min(16);
        (FIRST_BACK_OFF_SECONDS << doublings).min(MAX_BACK_OFF_SECONDS)
    }
}

impl Default for RefreshPlan {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_000_000);

    fn fetched() -> RefreshPlan {
        let mut plan = RefreshPlan::new();
        plan.succeeded(NOW);
        plan
    }

    #[test]
    fn a_new_plan_wants_a_fetch_at_once() {
        assert!(RefreshPlan::new().is_due(NOW));
        assert_eq!(RefreshPlan::new().age(NOW), None);
    }

    #[test]
    fn a_set_is_fetched_again_when_it_is_old() {
        let plan = fetched();
        assert!(!plan.is_due(NOW.plus(MAX_AGE_SECONDS - 1)));
        assert!(plan.is_due(NOW.plus(MAX_AGE_SECONDS)));
        assert_eq!(plan.age(NOW.plus(7)), Some(7));
    }

    #[test]
    fn unknown_keys_fetch_soon_but_not_often() {
        let mut plan = fetched();
        plan.unknown_key();
        assert!(!plan.is_due(NOW.plus(UNKNOWN_KEY_INTERVAL_SECONDS - 1)));
        assert!(plan.is_due(NOW.plus(UNKNOWN_KEY_INTERVAL_SECONDS)));
        plan.succeeded(NOW.plus(UNKNOWN_KEY_INTERVAL_SECONDS));
        assert!(!plan.is_due(NOW.plus(2 * UNKNOWN_KEY_INTERVAL_SECONDS)));
    }

    #[test]
    fn failures_back_off_up_to_a_limit() {
        let mut plan = fetched();
        for pause in [1, 2, 3, 3, 3] {
            plan.failed(NOW);
            plan.unknown_key();
            assert!(!plan.is_due(NOW.plus(pause - 1)));
            assert!(plan.is_due(NOW.plus(pause)));
        }
        assert_eq!(plan.age(NOW.plus(9)), Some(9));
    }

    #[test]
    fn a_clock_set_back_does_not_silence_the_plan() {
        assert!(fetched().is_due(NOW.plus(-3600)));
    }
}
