//! The wall clock, asked in one place. The pure crates take `now` as an argument; this is where it comes from.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since the epoch. A clock set before 1970 reads as a negative number, never as an error or a panic.
#[must_use]
pub fn now() -> i64 {
    let seconds = |d: std::time::Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => seconds(since),
        Err(before) => -seconds(before.duration()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn is_after_this_was_written() {
        assert!(super::now() > 1_700_000_000);
    }
}
