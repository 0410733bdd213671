//! The log's writer: takes records off the queue, many at a time, makes lines of them and writes those.
//!
//! A line is written whole or counted as lost. Absent on purpose: what a line says.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::chain::{self, Head};
use super::{Entry, OnFull, Queue};

/// Pause between attempts to write when no line may be lost.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Lines are written together up to about this size; more would only add latency.
const BATCH: usize = 64 * 1024;

/// How long the writer waits for more records before it writes the first: waking up for each of them would cost a busy
/// session more than its decisions do. What a process that is killed hard may not have written is from this time.
const GATHERING: Duration = Duration::from_millis(20);

/// Where lines go.
pub(super) trait Sink: Write + Send + 'static {
    /// Called ahead of a batch of so many bytes, between two lines.
    ///
    /// # Errors
    /// What keeps it from taking them.
    fn prepare(&mut self, _bytes: usize) -> io::Result<()> {
        Ok(())
    }

    /// Takes back the last so many bytes, a part of a line; `false` if it cannot.
    fn take_back(&mut self, _bytes: usize) -> bool {
        false
    }
}

/// Standard output.
impl Sink for std::fs::File {}

/// A line in the batch.
struct Line {
    /// Where it ends.
    end: usize,
    /// The digest up to it.
    head: Head,
    /// Records that are lost with it, and were not before.
    records: u64,
    /// Losses that it says.
    says: u64,
}

pub(super) struct Writer<T, S> {
    queue: Arc<Queue<T>>,
    sink: Option<S>,
    /// Of the last line written.
    head: Head,
    batch: Vec<u8>,
    lines: Vec<Line>,
    /// Whether the last attempt failed: said once, not for each line.
    broken: bool,
    /// The last thing written is a part of a line.
    torn: bool,
}

impl<T: Entry, S: Sink> Writer<T, S> {
    pub(super) fn new(queue: Arc<Queue<T>>, sink: Option<S>, head: Head) -> Self {
        Self { queue, sink, head, batch: Vec::new(), lines: Vec::new(), broken: false, torn: false }
    }

    /// Writes until nobody can record any more and all is written.
    pub(super) fn run(mut self) {
        while self.wait() {
            self.fill();
            self.deliver();
            self.batch.clear();
            self.lines.clear();
            let mut state = self.queue.state.lock();
            (state.writing, state.stuck) = (0, false);
            drop(state);
            self.queue.room.notify_waiters();
            self.queue.drained.notify_all();
        }
    }

    /// Waits for records, and a moment for more of them. `false`: there will be none.
    fn wait(&self) -> bool {
        let (filled, capacity) = (&self.queue.filled, self.queue.options.capacity);
        let mut state = self.queue.state.lock();
        while state.entries.is_empty() {
            if state.closed {
                return false;
            }
            filled.wait(&mut state);
        }
        let until = Instant::now() + GATHERING;
        while !state.is_urgent(capacity) && !filled.wait_until(&mut state, until).timed_out() {}
        true
    }

    /// Makes lines of what waits, up to a batch.
    fn fill(&mut self) {
        if self.torn {
            self.batch.push(b'\n');
            // Once it is written, the next line stands by itself, whatever becomes of it.
            self.lines.push(Line { end: self.batch.len(), head: self.head, records: 0, says: 0 });
        }
        let unsaid = std::mem::take(&mut self.queue.state.lock().unsaid);
        if unsaid > 0 {
            self.line(&T::lost(unsaid), 0, unsaid);
        }
        while self.batch.len() < BATCH {
            let Some(entry) = self.take() else { break };
            self.line(&entry, 1, 0);
            self.keep(entry);
        }
    }

    fn take(&self) -> Option<T> {
        let mut state = self.queue.state.lock();
        let entry = state.entries.pop_front()?;
        state.bytes = state.bytes.saturating_sub(entry.weight());
        state.writing += 1;
        Some(entry)
    }

    fn keep(&self, entry: T) {
        self.queue.recent.lock().keep(entry);
    }

    fn line(&mut self, entry: &T, records: u64, says: u64) {
        if self.sink.is_none() {
            return;
        }
        let start = self.batch.len();
        if let Err(error) = serde_json::to_writer(&mut self.batch, entry) {
            // A record that does not serialise is a defect of ours; the others must not suffer from it.
            self.batch.truncate(start);
            self.lose(records, says);
            return tracing::error!(%error, "a decision could not be written as JSON");
        }
        let mut head = self.lines.last().map_or(self.head, |line| line.head);
        if self.queue.options.chained {
            head = chain::seal(head, &mut self.batch, start);
        }
        self.batch.push(b'\n');
        self.lines.push(Line { end: self.batch.len(), head, records, says });
    }

    fn lose(&self, records: u64, says: u64) {
        self.queue.lost.inc_by(records);
        self.queue.state.lock().unsaid += records + says;
    }

    /// Writes the batch, or loses what of it cannot be written.
    fn deliver(&mut self) {
        let Some(sink) = &mut self.sink else { return };
        let mut written = 0;
        loop {
            match write_some(sink, &self.batch, &mut written) {
                Ok(()) => break,
                Err(error) => {
                    let on_full = self.queue.options.on_full;
                    if !std::mem::replace(&mut self.broken, true) {
                        tracing::error!(%error, ?on_full, "the decision log cannot be written");
                    }
                    if on_full == OnFull::Drop {
                        return self.give_up(written);
                    }
                    self.queue.state.lock().stuck = true;
                    std::thread::sleep(RETRY_PAUSE);
                }
            }
        }
        self.torn = false;
        self.head = self.lines.last().map_or(self.head, |line| line.head);
        if std::mem::take(&mut self.broken) {
            tracing::info!(lost = self.queue.lost.get(), "the decision log is written again");
        }
    }

    /// Keeps what lines were written whole, and counts the others.
    fn give_up(&mut self, written: usize) {
        let whole = self.lines.iter().take_while(|line| line.end <= written).count();
        let last = whole.checked_sub(1).and_then(|last| self.lines.get(last));
        let end = last.map_or(0, |line| line.end);
        self.torn &= end == 0;
        self.head = last.map_or(self.head, |line| line.head);
        let lost = self.lines.get(whole..).unwrap_or_default();
        let (records, says) = lost.iter().fold((0, 0), |(r, s), line| (r + line.records, s + line.says));
        self.lose(records, says);
        if written > end {
            self.torn |= !self.sink.as_mut().is_some_and(|sink| sink.take_back(written - end));
        }
    }
}

/// Writes on from where the last attempt stopped, so that no line is written twice or torn.
fn write_some(sink: &mut impl Sink, batch: &[u8], written: &mut usize) -> io::Result<()> {
    if *written == 0 {
        sink.prepare(batch.len())?;
    }
    while let Some(rest) = batch.get(*written..).filter(|rest| !rest.is_empty()) {
        match sink.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => *written += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    sink.flush()
}
