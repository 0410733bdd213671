//! How a server's life ends: from the first SIGTERM or SIGINT, in two steps, and at once with the second.
//!
//! Deliberately absent: what a server does about it (`runtime::drain`, and whoever watches it).

use std::io;
use std::time::Duration;

use runtime::drain::Drain;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What tells a server to end.
pub struct Signals([Signal; 2]);

/// How it was told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Once: there is time to finish.
    Once,
    /// Twice: there is none.
    Twice,
}

impl Signals {
    /// From now on signals are taken note of and end nothing by themselves.
    pub fn new() -> io::Result<Self> {
        Ok(Self([signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?]))
    }

    /// The next of them. Cancel safe.
    pub async fn received(&mut self) {
        let [terminate, interrupt] = &mut self.0;
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    }

    /// Waits for the first, says that no traffic is welcome any more, gives everybody `delay` to hear of it, and starts the
    /// drain. A second one meanwhile cuts that short.
    pub async fn start(&mut self, drain: &Drain, delay: Duration) -> Told {
        self.received().await;
        tracing::info!(delay = delay.as_secs(), "told to end; no new traffic is welcome");
        drain.leave();
        if tokio::time::timeout(delay, self.received()).await.is_ok() {
            return Told::Twice;
        }
        drain.start();
        Told::Once
    }

    /// As [`Signals::start`], and then gives what is under way `limit` to finish: a client that keeps a request open must not
    /// keep the process. A second signal cuts that short.
    pub async fn end(&mut self, drain: &Drain, delay: Duration, limit: Duration) {
        if self.start(drain, delay).await == Told::Once {
            let _ = tokio::time::timeout(limit, self.received()).await;
        }
    }
}

/// What tells a program in a terminal to end: Ctrl-C, `kill`, a closed terminal.
pub struct EndSignals([Signal; 3]);

impl EndSignals {
    /// From now on signals are taken note of and end nothing by themselves.
    pub fn new() -> io::Result<Self> {
        Ok(Self([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?]))
    }

    /// The next of them. Cancel safe.
    pub async fn received(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
