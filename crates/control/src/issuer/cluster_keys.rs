//! The cluster's public keys, as fresh as `identity`'s plan wants them; the last known ones serve until then.
//!
//! Deliberately absent: the rule when to refresh (`identity::jwks::RefreshPlan`) and the fetching itself (`fetch`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use identity::UnixTime;
use identity::jwks::RefreshPlan;
use parking_lot::RwLock;
use runtime::admin::Readiness;
use runtime::kubernetes::Client;
use tokio::sync::Mutex;

use super::config::SubjectTokens;
use super::fetch::{FetchError, Fetcher, Trusted};
use super::metrics::Metrics;

/// How often the plan is asked. Not slept until `due_at`, because the clock may be set while we sleep.
const TICK: Duration = Duration::from_secs(1);
/// The readiness condition.
const READY: &str = "the cluster's keys";

/// The keys and what keeps them fresh.
pub(crate) struct ClusterKeys {
    fetcher: Fetcher,
    keys: RwLock<Option<Arc<Trusted>>>,
    /// Held while fetching, so that a hundred requests with an unknown key cause one fetch.
    plan: Mutex<RefreshPlan>,
    /// Fetches that have begun.
    begun: AtomicU64,
    metrics: Metrics,
    readiness: Readiness,
}

impl ClusterKeys {
    /// `cluster` is needed for the API server's own keys.
    pub(crate) fn new(
        config: &SubjectTokens,
        cluster: Option<Client>,
        metrics: Metrics,
        readiness: Readiness,
    ) -> Result<Self, FetchError> {
        let fetcher = Fetcher::new(config, cluster)?;
        let plan = if fetcher.is_local() { RefreshPlan::of_file() } else { RefreshPlan::new() };
        readiness.set(READY, false);
        Ok(Self {
            fetcher,
            keys: RwLock::new(None),
            plan: Mutex::new(plan),
            begun: AtomicU64::new(0),
            metrics,
            readiness,
        })
    }

    /// The last known keys; `None` before the first were had.
    pub(crate) fn current(&self) -> Option<Arc<Trusted>> {
        self.keys.read().clone()
    }

    /// A token named a key that is not known: the keys after a refresh, if the plan allows one now. Waits for two
    /// fetches at most, the one under way and the next.
    pub(crate) async fn for_unknown_key(&self, kid: &str) -> Option<Arc<Trusted>> {
        let begun = self.begun.load(Ordering::SeqCst);
        let mut plan = self.plan.lock().await;
        let known = self.current().is_some_and(|trusted| trusted.keys.contains(kid));
        // One that began since this was asked has ended, as the plan was to be had: no other would know better.
        let asked_since = self.begun.load(Ordering::SeqCst) > begun;
        if !known && !asked_since {
            plan.unknown_key();
            self.refresh_if_due(&mut plan).await;
        }
        self.current()
    }

    /// Keeps the keys fresh, for ever.
    pub(crate) async fn keep_up(&self) -> std::convert::Infallible {
        loop {
            let mut plan = self.plan.lock().await;
            self.refresh_if_due(&mut plan).await;
            let age = plan.age(now()).unwrap_or(0);
            drop(plan);
            self.metrics.jwks_age.set(age);
            tokio::time::sleep(TICK).await;
        }
    }

    async fn refresh_if_due(&self, plan: &mut RefreshPlan) {
        if !plan.is_due(now()) {
            return;
        }
        // A try that hung counts from its beginning: it has been waited for already.
        let began = now();
        self.begun.fetch_add(1, Ordering::SeqCst);
        let result = self.fetcher.fetch().await;
        self.metrics.fetched(result.as_ref().map_or_else(FetchError::label, |_| "ok"));
        match result {
            Ok(keys) => {
                let known = self.keys.write().replace(Arc::new(keys)).is_some();
                if !known || plan.failures() > 0 {
                    tracing::info!("the cluster's keys were fetched");
                }
                plan.succeeded(now());
                self.readiness.set(READY, true);
            }
            Err(error) => {
                // Once, not every few seconds for as long as the source is away.
                if plan.failures() == 0 {
                    let todo = error.advice();
                    tracing::error!(%error, todo, "the cluster's keys cannot be fetched; until they can, the last known ones stay in use");
                }
                plan.failed(began);
            }
        }
    }
}

fn now() -> UnixTime {
    UnixTime(runtime::clock::now())
}
