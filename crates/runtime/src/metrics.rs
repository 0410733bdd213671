//! The registry of metrics, in OpenMetrics text. Names begin with `sidegate_`.
//!
//! Absent on purpose: the metrics themselves. Each crate defines and registers its own. Never use SQL text or
//! anything else that a user chooses as a label: every new value is a series that lives as long as the process.

use std::sync::Arc;

use parking_lot::RwLock;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::{Metric, Registry};

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The process's metrics; clones share them.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<RwLock<Registry>>);

impl Metrics {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(RwLock::new(Registry::with_prefix("sidegate"))))
    }

    /// Adds a metric and gives it back, to be kept by whoever counts. The name goes without the prefix `sidegate_`
    /// and, for counters, without the suffix `_total`: both are added when it is written.
    pub fn register<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        self.0.write().register(name, help, metric.clone());
        metric
    }

    /// All metrics as OpenMetrics text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        if encode(&mut text, &self.0.read()).is_err() {
            // Writing to a String does not fail; a collector of ours might. An empty page would look like health.
            tracing::error!("the metrics cannot be encoded");
            text.clear();
        }
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;

    #[test]
    fn prefixes_names_and_ends_with_eof() {
        let metrics = Metrics::new();
        let counter: Counter = metrics.register("tokens_signed", "Tokens attached", Counter::default());
        counter.inc();
        let text = metrics.encode();
        assert!(text.contains("sidegate_tokens_signed_total 1\n"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}
