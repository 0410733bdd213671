//! What is recorded of every decision: a line in the decision log, and the counters that Prometheus reads.
//!
//! Deliberately absent: SQL text, parameter values and anything else that a client chose, in labels or in lines. The
//! objects that a statement names are in the log, as that is what a decision is about.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use policy::record::RecordedVerdict;
use policy::{Fact, Role};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use runtime::decision_log::DecisionLog;
use runtime::settings::Verify;
use runtime::traces::Tracer;

use crate::analysis::Analysis;
use crate::keys::KeyMetrics;

mod entry;

pub(crate) use entry::Entry;

/// The labels of `sidegate_decisions_total`. All values come from short fixed lists, but `service`, which is ours.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct DecisionLabels {
    service: Arc<str>,
    mode: &'static str,
    decision: &'static str,
    reason: &'static str,
    action: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ProtocolLabel {
    protocol: &'static str,
}

/// The sidecar's metrics.
#[derive(Clone)]
pub(crate) struct Metrics {
    decisions: Family<DecisionLabels, Counter>,
    authorize: Histogram,
    requests: Family<ProtocolLabel, Histogram>,
    tokens_verified: Family<ResultLabel, Counter>,
    renewals: Family<ResultLabel, Counter>,
    exchanges: Family<ResultLabel, Counter>,
    exchange_duration: Histogram,
    pub(crate) tokens_signed: Counter,
    pub(crate) sessions: Gauge,
    pub(crate) settings_generation: Gauge,
    pub(crate) enforcing: Gauge,
    pub(crate) jwks_age: Gauge<f64, AtomicU64>,
    pub(crate) keys: KeyMetrics,
}

impl Metrics {
    pub(crate) fn register(registry: &runtime::metrics::Metrics) -> Metrics {
        let metrics = Metrics {
            decisions: Family::default(),
            // 250 ns to 4 ms.
            authorize: Histogram::new(exponential_buckets(250e-9, 4.0, 8)),
            // 0.5 ms to 16 s.
            requests: Family::new_with_constructor(|| Histogram::new(exponential_buckets(5e-4, 2.0, 16))),
            tokens_verified: Family::default(),
            renewals: Family::default(),
            exchanges: Family::default(),
            // 1 ms to 8 s.
            exchange_duration: Histogram::new(exponential_buckets(1e-3, 2.0, 14)),
            tokens_signed: Counter::default(),
            sessions: Gauge::default(),
            settings_generation: Gauge::default(),
            enforcing: Gauge::default(),
            jwks_age: Gauge::default(),
            keys: KeyMetrics::default(),
        };
        registry.register("decisions", "Decisions on logins, statements and requests", metrics.decisions.clone());
        registry.register(
            "authorize_duration_seconds",
            "Time to decide on a login, a statement or a request",
            metrics.authorize.clone(),
        );
        registry.register(
            "request_duration_seconds",
            "Time from a request to the head of its answer; of a batch of PostgreSQL's protocol, to its end",
            metrics.requests.clone(),
        );
        registry.register("tokens_verified", "Access tokens looked at, by result", metrics.tokens_verified.clone());
        registry.register(
            "session_renewals",
            "Fresh tokens brought to open sessions, by result",
            metrics.renewals.clone(),
        );
        registry.register("token_exchange", "Token exchanges asked for, by result", metrics.exchanges.clone());
        registry.register(
            "token_exchange_duration_seconds",
            "Time of a token exchange",
            metrics.exchange_duration.clone(),
        );
        registry.register("tokens_signed", "Tokens attached to logins and requests", metrics.tokens_signed.clone());
        registry.register("sessions", "Sessions open now", metrics.sessions.clone());
        registry.register("settings_generation", "Changes of settings seen", metrics.settings_generation.clone());
        registry.register("enforcing", "1 while verification enforces", metrics.enforcing.clone());
        metrics
    }

    /// What only a sidecar that verifies shows: elsewhere, zeros would look like an alarm.
    pub(crate) fn register_verifying(&self, registry: &runtime::metrics::Metrics) {
        // Unknown until there are keys, which no age would tell.
        self.jwks_age.set(f64::NAN);
        registry.register("jwks_age_seconds", "Age of the issuer's keys", self.jwks_age.clone());
        self.keys.register(registry);
    }

    pub(crate) fn requested(&self, protocol: &'static str, took: Duration) {
        self.requests.get_or_create(&ProtocolLabel { protocol }).observe(took.as_secs_f64());
    }

    /// The times of one protocol's requests, for whoever has many of them to note.
    pub(crate) fn durations(&self, protocol: &'static str) -> Histogram {
        self.requests.get_or_create_owned(&ProtocolLabel { protocol })
    }

    pub(crate) fn verified(&self, result: &'static str) {
        self.tokens_verified.get_or_create(&ResultLabel { result }).inc();
    }

    pub(crate) fn renewed(&self, result: &'static str) {
        self.renewals.get_or_create(&ResultLabel { result }).inc();
    }

    pub(crate) fn exchanged(&self, ok: bool, took: Duration) {
        let result = if ok { "ok" } else { "error" };
        self.exchanges.get_or_create(&ResultLabel { result }).inc();
        self.exchange_duration.observe(took.as_secs_f64());
    }
}

/// Who a session belongs to, as every one of its records says.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) subject: Option<String>,
    pub(crate) act: Option<String>,
    pub(crate) service: Arc<str>,
    pub(crate) role: Option<String>,
    /// PostgreSQL's login.
    pub(crate) user: Option<String>,
    /// `None`: what is called is no database.
    pub(crate) database: Option<String>,
}

/// What was decided.
pub(crate) struct Decision<'a> {
    pub(crate) id: &'a str,
    pub(crate) allowed: bool,
    pub(crate) mode: Verify,
    /// `connect`, or the first action that decided.
    pub(crate) action: &'static str,
    pub(crate) reason: &'static str,
    /// What allowed a request, or the rule that would allow it. Of an allowed statement it is found when the record is
    /// written.
    pub(crate) rule: Option<String>,
    /// The role that a statement was decided by.
    pub(crate) role: Option<&'a Arc<Role>>,
    pub(crate) needs: Needs,
    pub(crate) started: Instant,
}

/// What a decision is about. Cheap to make: it is put into words when the record is written.
#[derive(Clone)]
pub(crate) enum Needs {
    /// A login.
    Login,
    /// What cannot be told.
    Unknown,
    /// What a text needs, if that is understood.
    Text(Arc<Analysis>),
    /// The same of a text that needs much, as far as a line shows it.
    Many(Box<entry::Many>),
    /// What a message without a text needs.
    Fact(&'static Fact),
    /// An HTTP request: its method, and its path in normal form if it has one.
    Request { method: String, path: Option<String> },
}

/// Where decisions go.
#[derive(Clone)]
pub(crate) struct Audit {
    pub(crate) metrics: Metrics,
    pub(crate) log: DecisionLog<Entry>,
    /// Where traces are wanted.
    pub(crate) tracer: Option<Tracer>,
}

impl Audit {
    pub(crate) fn record(&self, caller: &Arc<Caller>, decision: Decision<'_>) {
        let took = decision.started.elapsed();
        let verdict = if decision.allowed { RecordedVerdict::Allow } else { RecordedVerdict::Deny };
        let mode = mode_label(decision.mode);
        self.metrics.authorize.observe(took.as_secs_f64());
        let labels = DecisionLabels {
            service: caller.service.clone(),
            mode,
            decision: if decision.allowed { "allow" } else { "deny" },
            reason: decision.reason,
            action: decision.action,
        };
        self.metrics.decisions.get_or_create(&labels).inc();
        self.log.record(Entry::decided(entry::Decided {
            at: std::time::SystemTime::now(),
            id: decision.id.to_owned(),
            caller: caller.clone(),
            role: decision.role.cloned(),
            action: decision.action,
            needs: decision.needs.bounded(decision.role.map(AsRef::as_ref), decision.allowed),
            verdict,
            rule: decision.rule,
            reason: decision.reason,
            mode,
            took,
        }));
    }
}

/// A new decision id: random, so that none can be foreseen or met twice.
pub(crate) fn new_decision_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

pub(crate) fn mode_label(mode: Verify) -> &'static str {
    match mode {
        Verify::Enforce => "enforce",
        Verify::Observe => "observe",
        Verify::Off => "off",
    }
}
