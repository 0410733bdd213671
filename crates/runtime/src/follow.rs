//! Follows a directory whose content changes under us: Kubernetes' swap of the `..data` link, editors that rename,
//! plain writes, the directory missing, deleted, or made anew.
//!
//! Events (inotify) make it quick, polling makes it certain: whatever an event source misses is seen at the next look.
//! Absent on purpose: what the content means; a look reads it afresh and decides whether anything changed.

use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

/// The slowest that a change is seen where events do not work (some network and overlay file systems).
const POLL: Duration = Duration::from_secs(1);
/// While there is no directory to get events from, looking is all we have; a change shall still count within 250 ms.
const POLL_UNWATCHED: Duration = Duration::from_millis(100);
/// A change is often several events (truncate, write, close): look when they have ceased for this long …
const SETTLE: Duration = Duration::from_millis(15);
/// … but do not let a directory that never rests keep us from looking.
const SETTLE_LIMIT: Duration = Duration::from_millis(100);

/// Starts a thread that calls `look` once at the beginning, after every change, and now and then, until it breaks.
pub(crate) fn follow(
    name: &str,
    directory: PathBuf,
    depth: RecursiveMode,
    look: impl FnMut() -> ControlFlow<()> + Send + 'static,
) -> io::Result<()> {
    let run = move || Follower::new(directory, depth).run(look);
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map(|_| ())
}

enum Signal {
    Changed,
    /// The directory itself was moved or deleted: what we watch is not what stands at the path any more.
    Lost,
}

struct Follower {
    directory: PathBuf,
    depth: RecursiveMode,
    signals: Receiver<Signal>,
    watcher: Option<RecommendedWatcher>,
    armed: Option<Identity>,
}

/// What stands at a path. The time of birth is in it because inode numbers are used again.
#[derive(Debug, PartialEq, Eq)]
struct Identity(u64, u64, Option<SystemTime>);

impl Follower {
    fn new(directory: PathBuf, depth: RecursiveMode) -> Self {
        let (sender, signals) = channel();
        let watcher = events(directory.clone(), sender);
        if let Err(error) = &watcher {
            tracing::warn!(%error, directory = %directory.display(), "no events for this directory, looking often instead");
        }
        Self { directory, depth, signals, watcher: watcher.ok(), armed: None }
    }

    fn run(mut self, mut look: impl FnMut() -> ControlFlow<()>) {
        loop {
            // Armed before the look: a change after the look then has its event, one before it is seen by it.
            self.arm();
            if look().is_break() {
                return;
            }
            self.wait();
        }
    }

    fn arm(&mut self) {
        let now = identity(&self.directory);
        if now == self.armed {
            return;
        }
        let Some(watcher) = &mut self.watcher else { return };
        if self.armed.take().is_some() {
            let _ = watcher.unwatch(&self.directory);
        }
        if now.is_some() && watcher.watch(&self.directory, self.depth).is_ok() {
            self.armed = now;
        }
    }

    fn wait(&mut self) {
        let poll = if self.armed.is_some() { POLL } else { POLL_UNWATCHED };
        match self.signals.recv_timeout(poll) {
            Ok(signal) => self.settle(signal),
            Err(RecvTimeoutError::Timeout) => {}
            // The watcher could not be made, so nobody will ever send.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(poll),
        }
    }

    fn settle(&mut self, first: Signal) {
        let begin = Instant::now();
        let mut next = Some(first);
        while let Some(signal) = next {
            if matches!(signal, Signal::Lost) {
                // Forgetting the identity makes the next `arm` watch anew even if the inode number is the old one.
                self.forget();
            }
            let enough = begin.elapsed() >= SETTLE_LIMIT;
            next = if enough { None } else { self.signals.recv_timeout(SETTLE).ok() };
        }
    }

    fn forget(&mut self) {
        if let (Some(watcher), true) = (&mut self.watcher, self.armed.take().is_some()) {
            let _ = watcher.unwatch(&self.directory);
        }
    }
}

fn identity(path: &Path) -> Option<Identity> {
    let metadata = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_dir)?;
    Some(Identity(metadata.dev(), metadata.ino(), metadata.created().ok()))
}

fn events(directory: PathBuf, sender: Sender<Signal>) -> notify::Result<RecommendedWatcher> {
    notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // An error (a queue that overflowed) means that something may have been missed: look.
        let signal = event.map_or(Some(Signal::Changed), |event| weigh(&directory, &event));
        if let Some(signal) = signal {
            // Nobody listens any more when the follower has ended; so will this watcher.
            let _ = sender.send(signal);
        }
    })
}

fn weigh(directory: &Path, event: &notify::Event) -> Option<Signal> {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Signal::Changed),
        // Our own reading opens and closes files; to wake for that would never end.
        EventKind::Access(_) => None,
        EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) if event.paths.iter().any(|p| p == directory) => {
            Some(Signal::Lost)
        }
        _ => Some(Signal::Changed),
    }
}
