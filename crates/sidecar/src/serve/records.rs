//! What a sidecar leaves behind of its work, decisions and spans: started with it, and finished after it.
//!
//! Deliberately absent: what a decision or a span says, which are `audit`'s and `traces`'.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use runtime::decision_log::{DecisionLog, LogError, OnFull, Options};
use runtime::traces::Tracer;

use crate::audit::Entry;
use crate::config::Config;

/// Records that wait for a slow reader of the decision log: a second's worth under load.
const DECISION_QUEUE: usize = 16_384;

/// The same where none may be lost: so many decisions, at most, are not written yet when the process dies.
const SAFE_DECISION_QUEUE: usize = 256;

/// What is left of a sidecar when it has served: decisions that are not written yet, and spans that are not sent.
pub struct Decisions(pub(super) DecisionLog<Entry>, pub(super) Option<Tracer>);

impl Decisions {
    /// Waits until all are written, at most `deadline`; blocks the thread. Whether they are.
    #[must_use]
    pub fn flush(&self, deadline: Duration) -> bool {
        self.0.flush(deadline)
    }

    /// Waits until all spans are sent, at most `deadline`. Cancel safe.
    pub async fn send_spans(&self, deadline: Duration) {
        if let Some(tracer) = &self.1 {
            tracer.flush(deadline).await;
        }
    }
}

pub(super) fn start_log(config: &Config) -> Result<DecisionLog<Entry>, LogError> {
    let wanted = &config.decision_log;
    let capacity = match wanted.on_full {
        OnFull::Drop => DECISION_QUEUE,
        OnFull::Block => SAFE_DECISION_QUEUE,
    };
    let options = Options { capacity, on_full: wanted.on_full, chained: wanted.chain, recent: wanted.recent };
    let log = DecisionLog::start(&wanted.destination, options)?;
    log.record(Entry::started(config.service.to_string()));
    Ok(log)
}

/// Traces are an extra: where they cannot be sent, all else goes on.
pub(super) fn start_traces(config: &Config, lost: Counter) -> Option<Tracer> {
    let mut options = config.traces.clone()?;
    let own = [("service.name", &config.service.name), ("service.namespace", &config.service.namespace)];
    for (name, value) in own {
        if options.resource.iter().all(|(known, _)| known != name) {
            options.describe(name, value.clone());
        }
    }
    tracing::info!(endpoint = options.endpoint, "traces");
    Tracer::start(options, lost).inspect_err(|error| tracing::warn!(%error, "there are no traces")).ok()
}
