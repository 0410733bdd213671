//! The decision log: one JSON object a line, from a bounded queue, written by a thread of its own so that a slow disk
//! or pipe never stalls a session by surprise. What happens when the queue is full is chosen: lose and count, or wait.
//!
//! Absent on purpose: what a decision holds (the sidecar's), files and rotation (the platform's).

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use prometheus_client::metrics::counter::Counter;
use serde::Serialize;
use tokio::sync::Notify;

/// Pause between attempts to write when no line may be lost.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Lines are written together up to about this size; more would only add latency.
const BATCH: usize = 64 * 1024;

/// What happens to a record when the queue is full, and to a line that cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFull {
    /// It is lost and counted: service goes on.
    #[default]
    Drop,
    /// Whoever decides waits: nothing goes on unrecorded.
    Block,
}

/// The handle to record decisions with; clones share the queue. When the last one is dropped, the thread writes what
/// is left and ends.
#[derive(Debug, Clone)]
pub struct DecisionLog(Arc<Handle>);

#[derive(Debug)]
struct Handle(Arc<Queue>);

/// A record on its way: it is serialised on the writer's thread.
type Entry = Box<dyn FnOnce(&mut Vec<u8>) -> serde_json::Result<()> + Send>;

struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    drained: Condvar,
    /// Wakes the tasks that wait for room.
    room: Notify,
    capacity: usize,
    on_full: OnFull,
    lost: Counter,
}

#[derive(Default)]
struct State {
    entries: VecDeque<Entry>,
    /// Records taken by the writer and not yet written.
    writing: usize,
    closed: bool,
}

impl State {
    /// Records being written take room, too: what is in memory is what would be lost.
    fn is_full(&self, capacity: usize) -> bool {
        self.entries.len() + self.writing >= capacity
    }
}

impl DecisionLog {
    /// A log to standard output with room for `capacity` records.
    pub fn stdout(capacity: usize, on_full: OnFull) -> io::Result<Self> {
        // The bare descriptor: the standard library's own buffer would keep torn lines after an error.
        let file = std::fs::File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Self::to(file, capacity, on_full)
    }

    /// A log to any writer.
    pub fn to(writer: impl Write + Send + 'static, capacity: usize, on_full: OnFull) -> io::Result<Self> {
        let queue = Arc::new(Queue {
            state: Mutex::default(),
            filled: Condvar::new(),
            drained: Condvar::new(),
            room: Notify::new(),
            capacity: capacity.max(1),
            on_full,
            lost: Counter::default(),
        });
        let own = queue.clone();
        std::thread::Builder::new().name("decision-log".into()).spawn(move || run(&own, writer))?;
        Ok(Self(Arc::new(Handle(queue))))
    }

    /// Records a decision. With [`OnFull::Drop`] it never waits. With [`OnFull::Block`] it blocks the thread while the
    /// queue is full: await [`DecisionLog::room`] first, so that this stays the rare case.
    pub fn record<T: Serialize + Send + 'static>(&self, record: T) {
        let queue = &self.0.0;
        let mut state = queue.state.lock();
        while state.is_full(queue.capacity) {
            if queue.on_full == OnFull::Drop {
                drop(state);
                queue.lost.inc();
                return;
            }
            queue.drained.wait(&mut state);
        }
        state.entries.push_back(Box::new(move |out| serde_json::to_writer(out, &record)));
        drop(state);
        queue.filled.notify_one();
    }

    /// With [`OnFull::Block`], waits until the queue has room; otherwise ends at once. Cancel safe.
    pub async fn room(&self) {
        let queue = &self.0.0;
        if queue.on_full == OnFull::Drop {
            return;
        }
        loop {
            let notified = queue.room.notified();
            tokio::pin!(notified);
            // Registered before looking, so that room made in between is not missed.
            notified.as_mut().enable();
            if !queue.state.lock().is_full(queue.capacity) {
                return;
            }
            notified.await;
        }
    }

    /// Records lost so far, as a counter to register (`decision_log_lost`).
    #[must_use]
    pub fn lost(&self) -> Counter {
        self.0.0.lost.clone()
    }

    /// Waits until everything recorded is written, at most `deadline`; blocks the thread. For the end of a process.
    #[must_use]
    pub fn flush(&self, deadline: Duration) -> bool {
        let queue = &self.0.0;
        let until = Instant::now() + deadline;
        let mut state = queue.state.lock();
        while !state.entries.is_empty() || state.writing > 0 {
            if queue.drained.wait_until(&mut state, until).timed_out() {
                return false;
            }
        }
        true
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.state.lock().closed = true;
        self.0.filled.notify_one();
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Queue").field("waiting", &state.entries.len()).field("on_full", &self.on_full).finish()
    }
}

/// The writer's thread: takes records until the queue is empty or the batch is large, writes the batch, flushes.
fn run(queue: &Queue, mut writer: impl Write) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut broken = false;
    while let Some(records) = collect(queue, &mut batch) {
        let written = deliver(queue, &mut writer, &batch, &mut broken);
        if !written {
            queue.lost.inc_by(records as u64);
        }
        batch.clear();
        queue.state.lock().writing = 0;
        queue.room.notify_waiters();
        queue.drained.notify_all();
    }
}

/// Waits for records and serialises them into `batch`. `None` when nobody can record any more and all is written.
fn collect(queue: &Queue, batch: &mut Vec<u8>) -> Option<usize> {
    let mut state = queue.state.lock();
    while state.entries.is_empty() {
        if state.closed {
            return None;
        }
        queue.filled.wait(&mut state);
    }
    drop(state);
    let mut records = 0;
    while batch.len() < BATCH {
        let Some(entry) = take(queue) else { break };
        let start = batch.len();
        match entry(batch) {
            Ok(()) => batch.push(b'\n'),
            Err(error) => {
                // A record that does not serialise is a defect of ours; the others must not suffer from it.
                batch.truncate(start);
                queue.lost.inc();
                tracing::error!(%error, "a decision could not be written as JSON");
                continue;
            }
        }
        records += 1;
    }
    Some(records)
}

fn take(queue: &Queue) -> Option<Entry> {
    let mut state = queue.state.lock();
    let entry = state.entries.pop_front()?;
    state.writing += 1;
    Some(entry)
}

/// Writes all of `batch`; `false` if it was given up. `broken` is whether the last attempt failed: said once, not for
/// each line.
fn deliver(queue: &Queue, writer: &mut impl Write, batch: &[u8], broken: &mut bool) -> bool {
    let mut rest = batch;
    loop {
        match write_some(writer, &mut rest) {
            Ok(()) => {
                if std::mem::take(broken) {
                    tracing::info!(lost = queue.lost.get(), "the decision log is written again");
                }
                return true;
            }
            Err(error) => {
                if !std::mem::replace(broken, true) {
                    tracing::error!(%error, on_full = ?queue.on_full, "the decision log cannot be written");
                }
                if queue.on_full == OnFull::Drop {
                    return false;
                }
                std::thread::sleep(RETRY_PAUSE);
            }
        }
    }
}

/// Writes on from where the last attempt stopped, so that no line is written twice or torn.
fn write_some(writer: &mut impl Write, rest: &mut &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        match writer.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => *rest = rest.get(n..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    writer.flush()
}

#[cfg(test)]
mod tests;
