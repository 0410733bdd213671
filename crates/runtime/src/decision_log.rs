//! The decision log: one JSON object a line, from a bounded queue, written by a thread of its own so that a slow disk
//! or pipe never stalls a session by surprise. What happens when the queue is full is chosen: lose and count, or wait.
//! What was lost is said in the log itself, too, where it is missing.
//!
//! Absent on purpose: what a decision holds (the sidecar's).

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use prometheus_client::metrics::counter::Counter;
use serde::Serialize;
use tokio::sync::Notify;

pub mod chain;
mod file;
mod recent;
pub mod verify;
mod writer;

use file::RotatingFile;
use recent::Recent;
use writer::{Sink, Writer};

/// What happens to a record when the queue is full, and to a line that cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFull {
    /// It is lost and counted: service goes on.
    #[default]
    Drop,
    /// Whoever is to decide waits: nothing goes on unrecorded.
    Block,
}

/// Where lines go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Destination {
    /// To standard output.
    #[default]
    Stdout,
    /// To a file, which is appended to.
    File {
        /// The file that is written now; older ones have `.1`, `.2` … behind their names.
        path: PathBuf,
        /// When another one is begun; `None`: never.
        rotation: Option<Rotation>,
    },
    /// Nowhere: only the last ones are kept, in memory.
    Nowhere,
}

/// When a file of the log is put aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes that it may have.
    pub size: u64,
    /// How many older ones are kept, besides.
    pub keep: u32,
}

/// How a log is kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// Records that may wait for the writer.
    pub capacity: usize,
    /// What happens to one more.
    pub on_full: OnFull,
    /// Whether each line seals all those before it ([`chain`]).
    pub chained: bool,
    /// How many of the last ones are kept in memory, and as many of the last denials.
    pub recent: usize,
}

/// What can be recorded.
pub trait Entry: Serialize + Send + Sync + 'static {
    /// The line that says that `count` records are missing before it.
    fn lost(count: u64) -> Self;

    /// Whether it is the one of that id.
    fn has_id(&self, id: &str) -> bool;

    /// About how many bytes of memory it holds on to.
    fn weight(&self) -> usize;

    /// Whether something was, or would have been, denied. Denials are kept in memory by themselves, so that thousands of
    /// others a second do not push out what somebody will look for.
    fn is_denial(&self) -> bool {
        false
    }
}

/// Bytes that the records which wait may hold, however few they are: what callers send decides how much a record holds.
const WAITING_BYTES: usize = 16 << 20;

/// Why a log cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Standard output is closed, or there is no thread to be had.
    #[error("the decision log cannot be started: {0}")]
    Io(#[from] io::Error),
    /// The file cannot be used.
    #[error("the decision log {path}: {why}")]
    File {
        /// Its path.
        path: PathBuf,
        /// Why, and what to do.
        why: String,
    },
}

/// The handle to record decisions with; clones share the queue. When the last one is dropped, the thread writes what
/// is left and ends.
#[derive(Debug)]
pub struct DecisionLog<T>(Arc<Handle<T>>);

impl<T> Clone for DecisionLog<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

#[derive(Debug)]
struct Handle<T>(Arc<Queue<T>>);

struct Queue<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
    drained: Condvar,
    /// Wakes the tasks that wait for room.
    room: Notify,
    /// Filled by the writer, so that recording does not pay for it.
    recent: Mutex<Recent<T>>,
    options: Options,
    lost: Counter,
}

struct State<T> {
    entries: VecDeque<T>,
    /// What they hold.
    bytes: usize,
    /// Records taken by the writer and not yet written.
    writing: usize,
    /// Records lost that the log does not say yet.
    unsaid: u64,
    /// Nothing can be written now, and nothing may be lost.
    stuck: bool,
    /// Somebody waits for the end of the queue.
    flushing: bool,
    closed: bool,
}

impl<T> State<T> {
    /// Records being written take room, too: what is in memory is what would be lost.
    fn is_full(&self, capacity: usize) -> bool {
        self.entries.len() + self.writing >= capacity || self.bytes >= WAITING_BYTES
    }

    /// Whether the writer should not wait for more to write at once.
    fn is_urgent(&self, capacity: usize) -> bool {
        let is_half_full = self.entries.len() + self.writing >= capacity.div_ceil(2) || self.bytes >= WAITING_BYTES / 2;
        self.flushing || self.closed || is_half_full
    }
}

impl<T: Entry> DecisionLog<T> {
    /// A log to `destination`.
    ///
    /// # Errors
    /// A destination that cannot be written to.
    pub fn start(destination: &Destination, options: Options) -> Result<Self, LogError> {
        match destination {
            Destination::Nowhere => Self::spawn(None::<std::fs::File>, chain::Head::default(), options),
            Destination::Stdout => {
                // The bare descriptor: the standard library's own buffer would keep torn lines after an error.
                let file = std::fs::File::from(io::stdout().as_fd().try_clone_to_owned()?);
                Self::spawn(Some(file), chain::Head::default(), options)
            }
            Destination::File { path, rotation } => {
                let mut file = RotatingFile::open(path, *rotation)?;
                if options.chained {
                    file.begin_chain()?;
                }
                let head = file.head();
                Self::spawn(Some(file), head, options)
            }
        }
    }

    fn spawn(sink: Option<impl Sink>, head: chain::Head, options: Options) -> Result<Self, LogError> {
        let queue = Arc::new(Queue {
            state: Mutex::new(State {
                entries: VecDeque::new(),
                bytes: 0,
                writing: 0,
                unsaid: 0,
                stuck: false,
                flushing: false,
                closed: false,
            }),
            filled: Condvar::new(),
            drained: Condvar::new(),
            room: Notify::new(),
            recent: Mutex::new(Recent::new(options.recent)),
            options: Options { capacity: options.capacity.max(1), ..options },
            lost: Counter::default(),
        });
        let writer = Writer::new(queue.clone(), sink, head);
        std::thread::Builder::new().name("decision-log".into()).spawn(move || writer.run())?;
        Ok(Self(Arc::new(Handle(queue))))
    }

    /// Records a decision; it never waits. With [`OnFull::Drop`] a record for which there is no room is lost and counted. With
    /// [`OnFull::Block`] it is taken all the same: whoever is about to decide waits for [`DecisionLog::room`] first, so that no more
    /// are taken beyond it than decisions were under way.
    pub fn record(&self, record: T) {
        let queue = &self.0.0;
        let capacity = queue.options.capacity;
        let mut state = queue.state.lock();
        if queue.options.on_full == OnFull::Drop && state.is_full(capacity) {
            state.unsaid += 1;
            drop(state);
            queue.lost.inc();
            return;
        }
        state.bytes += record.weight();
        state.entries.push_back(record);
        // A writer that sleeps for lack of work is woken by the first record, one that gathers by the last but many.
        let wake = state.entries.len() == 1 || state.is_urgent(capacity);
        drop(state);
        if wake {
            queue.filled.notify_one();
        }
    }

    /// Whether something may be decided: with [`OnFull::Drop`] always; else while lines are written, and a record would
    /// not have to wait.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let queue = &self.0.0;
        if queue.options.on_full == OnFull::Drop {
            return true;
        }
        let state = queue.state.lock();
        !state.stuck && !state.is_full(queue.options.capacity)
    }

    /// Waits until [`DecisionLog::has_room`]. Cancel safe.
    pub async fn room(&self) {
        loop {
            let notified = self.0.0.room.notified();
            tokio::pin!(notified);
            // Registered before looking, so that room made in between is not missed.
            notified.as_mut().enable();
            if self.has_room() {
                return;
            }
            notified.await;
        }
    }

    /// The last `limit` of the records kept in memory that are `wanted`, oldest first. What was recorded a moment ago may not
    /// be among them yet.
    #[must_use]
    pub fn recent(&self, limit: usize, wanted: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
        let recent = self.0.0.recent.lock();
        recent.last(limit, wanted)
    }

    /// Records as lines; that may take a while for many.
    #[must_use]
    pub fn lines(records: &[Arc<T>]) -> Vec<u8> {
        let mut lines = Vec::new();
        for record in records {
            let start = lines.len();
            match serde_json::to_writer(&mut lines, &**record) {
                Ok(()) => lines.push(b'\n'),
                Err(_) => lines.truncate(start),
            }
        }
        lines
    }

    /// Waits until everything recorded is written, at most `deadline`; blocks the thread. For the end of a process.
    #[must_use]
    pub fn flush(&self, deadline: Duration) -> bool {
        let queue = &self.0.0;
        let until = Instant::now() + deadline;
        let mut state = queue.state.lock();
        state.flushing = true;
        queue.filled.notify_one();
        while !state.entries.is_empty() || state.writing > 0 {
            if queue.drained.wait_until(&mut state, until).timed_out() {
                return false;
            }
        }
        state.flushing = false;
        true
    }
}

impl<T> DecisionLog<T> {
    /// Records lost so far, as a counter to register (`decision_log_lost`).
    #[must_use]
    pub fn lost(&self) -> Counter {
        self.0.0.lost.clone()
    }
}

impl<T> Drop for Handle<T> {
    fn drop(&mut self) {
        self.0.state.lock().closed = true;
        self.0.filled.notify_one();
    }
}

impl<T> std::fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let waiting = self.state.lock().entries.len();
        f.debug_struct("Queue").field("waiting", &waiting).field("options", &self.options).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
