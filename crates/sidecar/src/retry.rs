//! Trying again: how long, how often, and after which failures.
//!
//! A pod that restarts is away for a moment: whoever wants to get in waits, and never learns of it. Deliberately absent: a
//! second try of anything that was refused for a reason of right, which waiting does not change, and of anything that may
//! have been done.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

/// The first waiting time, and the longest: what comes back is used within a second, and hundreds who wait are no load.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(1);

/// The SQLSTATEs of a server that is starting or stopping, and of a sidecar whose server is not to be reached.
const PASSING_STATES: [&[u8]; 5] = [b"57P01", b"57P02", b"57P03", b"08001", b"08006"];

/// When something is tried again.
pub(crate) struct Retry {
    until: Instant,
    pause: Duration,
}

impl Retry {
    /// For that long; not at all, if that is zero.
    pub(crate) fn within(limit: Duration) -> Retry {
        Retry { until: Instant::now() + limit, pause: FIRST }
    }

    /// Waits until the next try; whether there is to be one. Cancel safe.
    pub(crate) async fn again(&mut self) -> bool {
        let Some(pause) = self.next_pause(Instant::now(), random()) else { return false };
        tokio::time::sleep(pause).await;
        true
    }

    /// `random` is from 0 to 1.
    fn next_pause(&mut self, now: Instant, random: f64) -> Option<Duration> {
        // Up to half of it at random, so that those who were thrown out together do not come back together.
        let pause = self.pause.mul_f64(1.0 - random / 2.0);
        self.pause = (self.pause * 2).min(LONGEST);
        // The last try is at the very end: whoever was told to wait so long waits so long.
        let left = self.until.saturating_duration_since(now);
        (!left.is_zero()).then(|| pause.min(left))
    }
}

/// Whether a connection that failed may come about a moment later, and nothing was said against it.
pub(crate) fn may_pass(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, PermissionDenied, Unsupported};
    match error.kind() {
        PermissionDenied | InvalidInput | Unsupported => false,
        InvalidData => error.get_ref().and_then(|inner| inner.downcast_ref()).is_some_and(has_no_certificate_yet),
        _ => true,
    }
}

/// What a listener says that has just begun and waits for its first certificate.
fn has_no_certificate_yet(error: &rustls::Error) -> bool {
    matches!(error, rustls::Error::AlertReceived(rustls::AlertDescription::AccessDenied))
}

/// The same of a login that was refused with this SQLSTATE.
pub(crate) fn may_pass_by_itself(state: Option<&[u8]>) -> bool {
    state.is_some_and(|state| PASSING_STATES.contains(&state))
}

/// From 0 to 1.
pub(crate) fn random() -> f64 {
    let mut byte = [0; 1];
    // Without randomness there is no jitter, which is no reason not to go on.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    f64::from(byte[0]) / f64::from(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_in_time_and_is_neither_hasty_nor_slow() {
        let limit = Duration::from_secs(15);
        for random in [0.0, 0.5, 1.0] {
            let started = Instant::now();
            let mut retry = Retry { until: started + limit, pause: FIRST };
            let (mut waited, mut tries) = (Duration::ZERO, 1);
            while let Some(pause) = retry.next_pause(started + waited, random) {
                waited += pause;
                tries += 1;
            }
            assert_eq!(waited, limit);
            assert!((15..=34).contains(&tries), "{tries}");
        }
    }

    #[tokio::test]
    async fn no_time_is_no_second_try() {
        assert!(!Retry::within(Duration::ZERO).again().await);
    }

    #[test]
    fn what_is_refused_stays_refused() {
        let error = |kind: io::ErrorKind| io::Error::from(kind);
        for kind in [io::ErrorKind::ConnectionRefused, io::ErrorKind::NotFound, io::ErrorKind::UnexpectedEof] {
            assert!(may_pass(&error(kind)), "{kind}");
        }
        let tls = |error: rustls::Error| io::Error::new(io::ErrorKind::InvalidData, error);
        assert!(may_pass(&tls(rustls::Error::AlertReceived(rustls::AlertDescription::AccessDenied))));
        let bad = rustls::CertificateError::UnknownIssuer;
        for refused in [rustls::Error::InvalidCertificate(bad), rustls::Error::General("no".to_owned())] {
            assert!(!may_pass(&tls(refused)));
        }
        assert!(!may_pass(&tls(rustls::Error::AlertReceived(rustls::AlertDescription::UnknownCA))));
        assert!(!may_pass(&error(io::ErrorKind::PermissionDenied)));
        for (state, passing) in [("57P03", true), ("28000", false), ("42501", false), ("3D000", false), ("", false)] {
            assert_eq!(may_pass_by_itself(Some(state.as_bytes())), passing, "{state}");
        }
    }
}
