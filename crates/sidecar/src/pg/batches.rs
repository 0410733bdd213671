//! The requests of a native session: what the client sends up to a `Sync` (or one `Query`), timed until the server's
//! `ReadyForQuery`.
//!
//! Deliberately absent: which answer belongs to which message within a batch, which `wire::session` knows.

use std::collections::VecDeque;
use std::time::Instant;

use prometheus_client::metrics::histogram::Histogram;
use wire::session::ClientMessage;

/// Batches under way that are timed, in one session. A client that pipelines more of them loses nothing but the times
/// of those beyond.
const TIMED_LIMIT: usize = 1024;

/// The batches of a session that the server has not answered whole.
pub(super) struct Batches {
    unanswered: VecDeque<Batch>,
    durations: Histogram,
}

struct Batch {
    started: Instant,
    /// It is complete: the next message begins another.
    closed: bool,
}

impl Batches {
    pub(super) fn new(durations: Histogram) -> Batches {
        Batches { unanswered: VecDeque::new(), durations }
    }

    /// A message goes to the server, as it is or as a denial.
    pub(super) fn sent(&mut self, message: &ClientMessage<'_>) {
        use ClientMessage::{CopyEnd, Other, Terminate};
        if matches!(message, Other { .. } | CopyEnd { .. } | Terminate { .. }) {
            return;
        }
        if self.unanswered.back().is_none_or(|last| last.closed) && self.unanswered.len() < TIMED_LIMIT {
            self.unanswered.push_back(Batch { started: Instant::now(), closed: false });
        }
        if let Some(last) = self.unanswered.back_mut() {
            last.closed |= closes(message);
        }
    }

    /// The server has answered a batch. `all`: it owes nothing more.
    pub(super) fn ready(&mut self, all: bool) {
        if let Some(batch) = self.unanswered.pop_front() {
            self.durations.observe(batch.started.elapsed().as_secs_f64());
        }
        // A `Sync` inside a copy has no answer of its own.
        if all {
            self.unanswered.clear();
        }
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
        let mut batches = Batches::new(Histogram::new([1.0]));
        for message in [&EXECUTE, &EXECUTE, &SYNC, &QUERY, &EXECUTE, &SYNC] {
            batches.sent(message);
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
        let mut batches = Batches::new(Histogram::new([1.0]));
        batches.sent(&EXECUTE);
        for _ in 0..10_000 {
            batches.sent(&SYNC);
        }
        assert_eq!(batches.unanswered.len(), TIMED_LIMIT);
        batches.ready(true);
        assert_eq!((batches.unanswered.len(), counted(&batches)), (0, 1));
    }
}
