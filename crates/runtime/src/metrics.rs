//! The registry of metrics, and its text. Names begin with `sidegate_`, but for those that every process has.
//!
//! Absent on purpose: the metrics themselves. Each crate defines and registers its own. Never use SQL text or
//! anything else that a user chooses as a label: every new value is a series that lives as long as the process.

use std::sync::Arc;

use parking_lot::RwLock;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};

mod format;
mod process;

pub use format::Format;

/// The process's metrics; clones share them.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<RwLock<Registry>>);

impl Metrics {
    /// A registry with nothing but the version in it.
    #[must_use]
    pub fn new() -> Self {
        let metrics = Self(Arc::new(RwLock::new(Registry::with_prefix("sidegate"))));
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        metrics.0.write().register("build", "What runs here", Info::new(version));
        metrics
    }

    /// Adds a metric and gives it back, to be kept by whoever counts. The name goes without the prefix `sidegate_`
    /// and, for counters, without the suffix `_total`: both are added when it is written.
    pub fn register<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        self.0.write().register(name, help, metric.clone());
        metric
    }

    /// Adds what is looked at when the metrics are read. Names go without the prefix `sidegate_` here, too.
    pub fn register_collector(&self, collector: impl Collector) {
        self.0.write().register_collector(Box::new(collector));
    }

    /// All metrics as text.
    #[must_use]
    pub fn encode(&self, format: Format) -> String {
        let text = self.open_metrics();
        match format {
            Format::OpenMetrics => text,
            Format::Text => format::to_text(&text),
        }
    }

    fn open_metrics(&self) -> String {
        let mut text = String::new();
        let mut of_process = Registry::default();
        of_process.register_collector(Box::new(process::Process));
        let encoded = encode_registry(&mut text, &self.0.read())
            .and_then(|()| encode_registry(&mut text, &of_process))
            .and_then(|()| encode_eof(&mut text));
        if encoded.is_err() {
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
        let text = metrics.encode(Format::OpenMetrics);
        assert!(text.contains("sidegate_tokens_signed_total 1\n"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn a_process_says_what_it_takes() {
        let text = Metrics::new().encode(Format::Text);
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        assert!(value("process_resident_memory_bytes ").is_some_and(|bytes| bytes > 1e6), "{text}");
        assert!(
            value("process_open_fds ").is_some_and(|files| files > 2.0)
                && value("process_cpu_seconds_total ").is_some()
        );
    }
}
