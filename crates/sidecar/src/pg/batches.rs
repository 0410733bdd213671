//! The requests of a native session: what the client sends up to a `Sync` (or one `Query`), timed until the server's
//! `ReadyForQuery`, and traced where traces are wanted.
//!
//! Deliberately absent: which answer belongs to which message within a batch, which `wire::session` knows.

use std::collections::VecDeque;
use std::time::Instant;

use prometheus_client::metrics::histogram::Histogram;
use wire::session::ClientMessage;

use crate::traces::{SessionTraces, Traced};

/// Batches under way that are timed, in one session. A client that pipelines more of them loses nothing but the times
/// of those beyond.
const TIMED_LIMIT: usize = 1024;

/// The batches of a session that the server has not answered whole.
pub(super) struct Batches {
    unanswered: VecDeque<Batch>,
    durations: Histogram,
    traces: Option<SessionTraces>,
}

struct Batch {
    started: Instant,
    traced: Option<Traced>,
    /// It is complete: the next message begins another.
    closed: bool,
}

impl Batches {
    pub(super) fn new(durations: Histogram, traces: Option<SessionTraces>) -> Batches {
        Batches { unanswered: VecDeque::new(), durations, traces }
    }

    /// A message is to be ruled on: the span of the batch that it is of, if there is one. May be told again of the same
    /// message.
    pub(super) fn begin(&mut self, message: &ClientMessage<'_>) -> Option<Traced> {
        use ClientMessage::{CopyEnd, Other, Terminate};
        if matches!(message, Other { .. } | CopyEnd { .. } | Terminate { .. }) {
            return None;
        }
        if self.unanswered.back().is_none_or(|last| last.closed) {
            if self.unanswered.len() >= TIMED_LIMIT {
                return None;
            }
            let started = Instant::now();
            let traced = self.traces.as_ref().and_then(|traces| traces.begin(text_of(message), started));
            self.unanswered.push_back(Batch { started, traced, closed: false });
        }
        self.unanswered.back()?.traced.clone()
    }

    /// The message goes to the server, as it is or as a denial.
    pub(super) fn sent(&mut self, message: &ClientMessage<'_>) {
        if let Some(last) = self.unanswered.back_mut() {
            last.closed |= closes(message);
        }
    }

    /// The client is told of an error.
    pub(super) fn failed(&self, sqlstate: &str) {
        if let Some(traced) = self.unanswered.front().and_then(|batch| batch.traced.as_ref()) {
            traced.failed(sqlstate);
        }
    }

    /// The application has given itself a name.
    pub(super) fn named(&mut self, name: &[u8]) {
        if let Some(traces) = &mut self.traces {
            traces.renamed(name);
        }
    }

    /// The server has answered a batch. `all`: it owes nothing more.
    pub(super) fn ready(&mut self, all: bool) {
        if let Some(batch) = self.unanswered.pop_front() {
            self.durations.observe(batch.started.elapsed().as_secs_f64());
            self.end(&batch);
        }
        // A `Sync` inside a copy has no answer of its own.
        if all {
            self.unanswered.clear();
        }
    }
}

impl Batches {
    fn end(&self, batch: &Batch) {
        if let (Some(traces), Some(traced)) = (&self.traces, &batch.traced) {
            traced.end(&traces.tracer);
        }
    }
}

impl Drop for Batches {
    /// What is under way when a session ends has ended, too.
    fn drop(&mut self) {
        for batch in std::mem::take(&mut self.unanswered) {
            self.end(&batch);
        }
    }
}

fn text_of<'a>(message: &ClientMessage<'a>) -> Option<&'a [u8]> {
    match message {
        ClientMessage::Text { text, .. } => Some(text),
        _ => None,
    }
}

/// Whether a message is answered by a `ReadyForQuery`.
fn closes(message: &ClientMessage<'_>) -> bool {
    use wire::session::TextKind::Query;
    match message {
        ClientMessage::Text { kind, .. } | ClientMessage::TextTooLong { kind, .. } => *kind == Query,
        ClientMessage::FunctionCall { .. } | ClientMessage::Sync { .. } => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::session::TextKind;

    const SYNC: ClientMessage<'_> = ClientMessage::Sync { total: 5 };
    const EXECUTE: ClientMessage<'_> = ClientMessage::Execute { portal: b"", total: 10 };
    const QUERY: ClientMessage<'_> = ClientMessage::Text { kind: TextKind::Query, name: b"", text: b"", total: 6 };

    fn send(batches: &mut Batches, message: &ClientMessage<'_>) {
        // Told twice where a text is analysed aside.
        assert!(batches.begin(message).is_none() && batches.begin(message).is_none(), "nothing is traced");
        batches.sent(message);
    }

    fn counted(batches: &Batches) -> u64 {
        use prometheus_client::encoding::text::encode;
        let mut registry = prometheus_client::registry::Registry::default();
        registry.register("d", "d", batches.durations.clone());
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text.lines().find_map(|line| line.strip_prefix("d_count ")?.parse().ok()).unwrap()
    }

    #[test]
    fn each_answer_ends_one_batch_however_they_are_pipelined() {
        let mut batches = Batches::new(Histogram::new([1.0]), None);
        for message in [&EXECUTE, &EXECUTE, &SYNC, &QUERY, &EXECUTE, &SYNC] {
            send(&mut batches, message);
        }
        assert_eq!(batches.unanswered.len(), 3);
        batches.ready(false);
        batches.ready(false);
        batches.ready(true);
        batches.ready(true);
        assert_eq!((batches.unanswered.len(), counted(&batches)), (0, 3));
    }

    #[test]
    fn what_the_server_never_answers_does_not_pile_up() {
        let mut batches = Batches::new(Histogram::new([1.0]), None);
        send(&mut batches, &EXECUTE);
        for _ in 0..10_000 {
            send(&mut batches, &SYNC);
        }
        assert_eq!(batches.unanswered.len(), TIMED_LIMIT);
        batches.ready(true);
        assert_eq!((batches.unanswered.len(), counted(&batches)), (0, 1));
    }
}
