//! What the issuer counts. Deliberately absent: labels that a caller could choose.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::ring::{Dated, Ring};
use super::stored_ring::counts;

/// From a cached key set (tens of microseconds) to one that had to be fetched (seconds).
const SECONDS: [f64; 10] = [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.01, 0.05, 0.25, 1.0, 5.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ResultLabel {
    pub(crate) result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct StateLabel {
    pub(crate) state: &'static str,
}

/// Handles to the metrics; clones share them.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) exchanges: Family<ResultLabel, Counter>,
    pub(crate) duration: Histogram,
    pub(crate) signed: Counter,
    pub(crate) jwks_age: Gauge,
    pub(crate) jwks_fetches: Family<ResultLabel, Counter>,
    pub(crate) documents_rejected: Counter,
    pub(crate) documents_valid: Gauge,
    pub(crate) signing_keys: RingMetrics,
    pub(crate) authorities: RingMetrics,
    certificates: Family<ResultLabel, Counter>,
}

/// What is shown of a ring of keys.
#[derive(Clone)]
pub(crate) struct RingMetrics {
    count: Family<StateLabel, Gauge>,
    age: Gauge,
    well: Gauge,
}

impl RingMetrics {
    /// `one` and `many` are what the keys are called.
    fn register(registry: &runtime::metrics::Metrics, one: &str, many: &str) -> Self {
        let gauge = |name: &str, help: &str| registry.register(name, help, Gauge::default());
        Self {
            count: registry.register(
                many,
                "How many are published, by what they are for: next, active, old",
                Family::default(),
            ),
            age: gauge(&format!("{one}_age_seconds"), "Age of the one that signs; beyond its period, rotation fails"),
            well: gauge(&format!("{many}_valid"), "1 while what is stored is in force and rotates, 0 while not"),
        }
    }

    pub(crate) fn show<E: Dated>(&self, ring: &Ring<E>, now: i64, well: bool) {
        for (state, count) in counts(ring, now) {
            self.count.get_or_create(&StateLabel { state }).set(count);
        }
        self.age.set(now.saturating_sub(ring.active(now).created_at()).max(0));
        self.well.set(well.into());
    }
}

impl Metrics {
    pub(crate) fn register(registry: &runtime::metrics::Metrics) -> Self {
        let histogram = Histogram::new(SECONDS);
        Self {
            exchanges: registry.register("token_exchange", "Requests for a token by result", Family::default()),
            duration: registry.register("token_exchange_duration_seconds", "Time to answer one", histogram),
            signed: registry.register("tokens_signed", "Access tokens signed", Counter::default()),
            jwks_age: registry.register("jwks_age_seconds", "Age of the cluster's key set", Gauge::default()),
            jwks_fetches: registry.register("jwks_fetch", "Fetches of the cluster's keys by result", Family::default()),
            documents_rejected: registry.register(
                "documents_rejected",
                "Changes of the documents that were not taken over because they are broken",
                Counter::default(),
            ),
            documents_valid: registry.register(
                "documents_valid",
                "1 while the documents as they lie there are in force, 0 while earlier ones are",
                Gauge::default(),
            ),
            signing_keys: RingMetrics::register(registry, "signing_key", "signing_keys"),
            authorities: RingMetrics::register(registry, "authority", "authorities"),
            certificates: registry.register(
                "certificates_signed",
                "Requests for a certificate by result",
                Family::default(),
            ),
        }
    }

    pub(crate) fn count(&self, result: &'static str) {
        self.exchanges.get_or_create(&ResultLabel { result }).inc();
    }

    pub(crate) fn certificate(&self, result: &'static str) {
        self.certificates.get_or_create(&ResultLabel { result }).inc();
    }

    pub(crate) fn fetched(&self, result: &'static str) {
        self.jwks_fetches.get_or_create(&ResultLabel { result }).inc();
    }
}
