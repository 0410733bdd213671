//! Points in time as tokens write them. Deliberately absent: a clock; the caller has one.

use serde::{Deserialize, Serialize};

/// How far the clocks of issuer and verifier may differ (DESIGN: at most 30 s). Wider would lengthen the life of every
/// token; narrower fails on machines whose NTP has just started.
pub const LEEWAY_SECONDS: i64 = 30;

/// Seconds since the epoch, by the caller's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixTime(pub i64);

impl UnixTime {
    /// The time `seconds` later (or earlier); a sum out of range stops at the end of time instead of wrapping round.
    #[must_use]
    pub fn plus(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds))
    }

    /// Seconds from `earlier` to this; negative when `earlier` is in fact later.
    #[must_use]
    pub fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}
