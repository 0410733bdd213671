//! What is counted of the issuer's keys. Deliberately absent: their age, which is taken where it is shown.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

/// Handles to the metrics; clones share them.
#[derive(Clone, Default)]
pub(crate) struct KeyMetrics {
    fetches: Family<ResultLabel, Counter>,
    skew: Gauge,
}

impl KeyMetrics {
    pub(crate) fn register(&self, registry: &runtime::metrics::Metrics) {
        registry.register("jwks_fetch", "Fetches of the issuer's keys, by result", self.fetches.clone());
        registry.register(
            "clock_skew_seconds",
            "This machine's clock less the issuer's, as of the last fetch of its keys",
            self.skew.clone(),
        );
    }

    pub(super) fn fetched(&self, result: &'static str) {
        self.fetches.get_or_create(&ResultLabel { result }).inc();
    }

    pub(super) fn skewed(&self, seconds: Option<i64>) {
        if let Some(seconds) = seconds {
            self.skew.set(seconds);
        }
    }

    #[cfg(test)]
    pub(super) fn count(&self, result: &'static str) -> u64 {
        self.fetches.get_or_create(&ResultLabel { result }).get()
    }

    #[cfg(test)]
    pub(super) fn skew(&self) -> i64 {
        self.skew.get()
    }
}
