//! Ending in good order, in two steps: first it is said that no new traffic is welcome, while what comes all the same is
//! served, as whoever sends it learns of that late; then everyone who listens is told to stop, everyone who still works
//! holds a guard, and the end waits for the guards, up to a deadline.
//!
//! Absent on purpose: signals (the binary decides what starts a drain) and the killing of what does not end.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// The side that starts the drain and waits for its end.
#[derive(Debug)]
pub struct Drain(Arc<Shared>);

/// The side that is told. Clone it freely: clones do not hold up the end, only [`Guard`]s do.
#[derive(Debug, Clone)]
pub struct DrainWatch(Arc<Shared>);

/// Work in progress. The drain ends when the last one is dropped.
#[derive(Debug)]
pub struct Guard(#[allow(dead_code, reason = "held for its drop")] watch::Receiver<()>);

/// How many guards were still held at the deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} sessions were still open at the end of the drain")]
pub struct StillOpen(pub usize);

/// How far the end has come. It never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Serving,
    Leaving,
    Draining,
}

#[derive(Debug)]
struct Shared {
    stage: watch::Sender<Stage>,
    /// Its receivers are the guards: the channel counts them and wakes us when there is none left.
    open: watch::Sender<()>,
}

impl Drain {
    /// A drain and the handle to give to servers.
    #[must_use]
    #[allow(clippy::new_ret_no_self, reason = "a pair, as with channels")]
    pub fn new() -> (Self, DrainWatch) {
        let shared = Arc::new(Shared { stage: watch::Sender::new(Stage::Serving), open: watch::Sender::new(()) });
        (Self(shared.clone()), DrainWatch(shared))
    }

    /// Says that no new traffic is welcome any more. What comes is served until [`Drain::start`].
    pub fn leave(&self) {
        self.0.advance(Stage::Leaving);
    }

    /// Tells everyone to stop. A second call changes nothing.
    pub fn start(&self) {
        self.0.advance(Stage::Draining);
    }

    /// Another handle for a server.
    #[must_use]
    pub fn watch(&self) -> DrainWatch {
        DrainWatch(self.0.clone())
    }

    /// Waits until no guard is held, at most `deadline`. Cancel safe.
    pub async fn finished(&self, deadline: Duration) -> Result<(), StillOpen> {
        let all_gone = tokio::time::timeout(deadline, self.0.open.closed()).await;
        all_gone.map_err(|_| StillOpen(self.0.open.receiver_count()))
    }
}

impl Shared {
    fn advance(&self, to: Stage) {
        self.stage.send_if_modified(|stage| {
            let is_further = *stage < to;
            *stage = to.max(*stage);
            is_further
        });
    }
}

impl DrainWatch {
    /// Ends when the drain starts; at once if it has started. Cancel safe, and owns what it needs: pin it once outside
    /// of a loop.
    pub fn draining(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut receiver = self.0.stage.subscribe();
        let keep = self.0.clone();
        async move {
            // The sender lives in `keep`, so this cannot fail.
            let _ = receiver.wait_for(|stage| *stage == Stage::Draining).await;
            drop(keep);
        }
    }

    /// Ends when the drain has gone on for that long: for what has not begun yet and can be given a moment only. Cancel
    /// safe.
    pub fn draining_for(&self, moment: Duration) -> impl Future<Output = ()> + Send + use<> {
        let draining = self.draining();
        async move {
            draining.await;
            tokio::time::sleep(moment).await;
        }
    }

    /// Whether the drain has started.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        *self.0.stage.borrow() == Stage::Draining
    }

    /// Whether new traffic is not welcome any more.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        *self.0.stage.borrow() >= Stage::Leaving
    }

    /// Work that the end shall wait for.
    #[must_use]
    pub fn guard(&self) -> Guard {
        Guard(self.0.open.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_for_guards_and_not_for_watches() {
        let (drain, watch) = Drain::new();
        let guard = watch.guard();
        let told = watch.draining();
        assert!(!watch.is_draining());
        drain.start();
        told.await;
        watch.draining().await;
        assert_eq!(drain.finished(Duration::from_millis(10)).await, Err(StillOpen(1)));
        drop(guard);
        assert_eq!(drain.finished(Duration::from_secs(5)).await, Ok(()));
    }

    #[tokio::test]
    async fn leaving_stops_nobody_and_is_not_taken_back() {
        let (drain, watch) = Drain::new();
        assert!(!watch.is_leaving());
        drain.leave();
        assert!(watch.is_leaving() && !watch.is_draining());
        drain.start();
        drain.leave();
        assert!(watch.is_leaving() && watch.is_draining());
    }

    #[tokio::test]
    async fn a_guard_dropped_while_waiting_ends_the_wait() {
        let (drain, watch) = Drain::new();
        let guard = watch.guard();
        drain.start();
        let (end, ()) = tokio::join!(drain.finished(Duration::from_secs(30)), async move {
            tokio::task::yield_now().await;
            drop(guard);
        });
        assert_eq!(end, Ok(()));
    }
}
