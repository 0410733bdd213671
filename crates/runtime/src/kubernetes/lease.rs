//! Which of several replicas leads, by a Lease (the rules of client-go's leader election): whoever holds it renews it; who sees
//! it unrenewed for its whole duration, by a clock of its own, takes it.
//!
//! Two may believe to lead for a moment, when one was stopped and goes on: whatever a leader writes must be guarded by the
//! version of what it read. Deliberately absent: giving the Lease back, which would save its successor some seconds.

use std::convert::Infallible;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease as Object, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{ApiError, in_time};

/// client-go's own figures: 15 s, renewed at a third of that.
const DURATION: Duration = Duration::from_secs(15);
const RENEW: Duration = Duration::from_secs(5);
/// Who could not renew for so long stops leading: well before another takes over.
const GIVE_UP: Duration = Duration::from_secs(10);

/// Whether this replica leads now. Clones share it.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<bool>);

impl Leadership {
    /// Whether this replica leads now.
    #[must_use]
    pub fn leads(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns when this replica leads. Cancel safe.
    pub async fn won(&mut self) {
        if self.0.wait_for(|leads| *leads).await.is_err() {
            // Nobody stands for election any more.
            std::future::pending::<()>().await;
        }
    }
}

/// A Lease that replicas stand for. It must exist: who installs makes it.
pub struct Lease {
    api: Api<Object>,
    name: String,
    identity: String,
    leads: watch::Sender<bool>,
    /// The last state that was seen, and when it was seen to be new.
    seen: Option<(LeaseSpec, Instant)>,
    renewed: Option<Instant>,
    failing: bool,
}

impl Lease {
    /// `identity` must be another one for each replica: the name of the pod.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str, identity: String) -> (Self, Leadership) {
        let (leads, receiver) = watch::channel(false);
        let api = Api::namespaced(client, namespace);
        let lease = Self { api, name: name.to_owned(), identity, leads, seen: None, renewed: None, failing: false };
        (lease, Leadership(receiver))
    }

    /// Stands for election, for ever. Cancel safe: it stops renewing.
    pub async fn stand(mut self) -> Infallible {
        loop {
            self.round().await;
            tokio::time::sleep(RENEW).await;
        }
    }

    async fn round(&mut self) {
        match self.try_to_lead().await {
            Ok(leads) => {
                self.renewed = leads.then(Instant::now);
                self.failing = false;
                self.say(leads);
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%error, lease = self.name, "the lease cannot be held; nobody rotates keys or writes statuses from here");
                }
                if self.renewed.is_none_or(|renewed| renewed.elapsed() > GIVE_UP) {
                    self.say(false);
                }
            }
        }
    }

    fn say(&self, leads: bool) {
        self.leads.send_if_modified(|current| {
            let changed = *current != leads;
            if changed {
                tracing::info!(lease = self.name, identity = self.identity, leads, "leadership");
            }
            *current = leads;
            changed
        });
    }

    async fn try_to_lead(&mut self) -> Result<bool, ApiError> {
        let mut object = in_time(self.api.get(&self.name)).await?;
        let spec = object.spec.take().unwrap_or_default();
        if !self.may_take(&spec) {
            return Ok(false);
        }
        let next = self.next(&spec);
        object.spec = Some(next.clone());
        match in_time(self.api.replace(&self.name, &PostParams::default(), &object)).await {
            Ok(_) => {
                self.seen = Some((next, Instant::now()));
                Ok(true)
            }
            // Somebody else was quicker.
            Err(ApiError::Conflict) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Our own, free, or unrenewed for its duration as this clock saw it: clocks of other machines mean nothing.
    fn may_take(&mut self, spec: &LeaseSpec) -> bool {
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if holder.is_empty() || holder == self.identity {
            return true;
        }
        let since = match &self.seen {
            Some((seen, since)) if seen == spec => *since,
            _ => Instant::now(),
        };
        self.seen = Some((spec.clone(), since));
        since.elapsed() > duration(spec)
    }

    fn next(&self, spec: &LeaseSpec) -> LeaseSpec {
        let own = spec.holder_identity.as_deref() == Some(self.identity.as_str());
        let now = Some(MicroTime(Timestamp::now()));
        let transitions = spec.lease_transitions.unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if own { spec.acquire_time.clone() } else { now.clone() },
            lease_transitions: Some(if own { transitions } else { transitions.saturating_add(1) }),
            renew_time: now,
            ..LeaseSpec::default()
        }
    }
}

fn duration(spec: &LeaseSpec) -> Duration {
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    seconds.map_or(DURATION, Duration::from_secs)
}
