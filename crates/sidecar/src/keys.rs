//! The issuer's public keys, cached: fetched at the start, as often as the issuer wants, and when a token names one not
//! known.
//!
//! No request waits for the issuer while its token's key is known. An issuer that is away, or talks nonsense, changes
//! nothing but the age. Deliberately absent: `identity::jwks::RefreshPlan`. Its pauses are whole seconds of a clock that
//! may be set; here logins wait.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use identity::jwks::KeySet;
use runtime::discovery;
use runtime::http_client::HttpClient;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

mod fetch;
mod metrics;
mod outage;

use fetch::fetch;
pub(crate) use metrics::KeyMetrics;
use outage::Outage;

/// Time between two looks at the issuer's keys, unless the issuer wants it otherwise.
const PERIOD: Duration = Duration::from_secs(60);

/// What the issuer may want: not so rarely that a key withdrawn stays for long, nor all the time.
const PERIOD_MIN: Duration = Duration::from_secs(1);

/// Time from the beginning of a fetch to that of the next one that unknown keys, or a failure, may cause: garbage must
/// not become a load on the issuer, and no login can wait for long.
const INTERVAL: Duration = Duration::from_secs(2);

/// How long a login waits for a fetch that its unknown key caused: until one that has begun without it has ended, for
/// the interval, and for an issuer that is not quick.
const REFRESH_WAIT: Duration = Duration::from_secs(5);

/// A handle on the cached keys.
#[derive(Clone)]
pub(crate) struct Keys {
    state: watch::Receiver<State>,
    wanted: Arc<Notify>,
}

/// A key set, the same one for as long as the issuer publishes the same.
pub(crate) struct Fetched {
    pub(crate) keys: KeySet,
    document: Bytes,
}

#[derive(Default)]
struct State {
    known: Option<Arc<Fetched>>,
    /// When the last fetch that succeeded did.
    at: Option<Instant>,
    /// Fetches that have begun, and ended: whoever waits can tell one that began after it asked.
    begun: u64,
    ended: u64,
}

impl Keys {
    /// Starts the fetching task, which lives as long as the runtime it is called on.
    pub(crate) fn start(client: HttpClient, issuer: &str, metrics: KeyMetrics) -> Keys {
        let (sender, state) = watch::channel(State::default());
        let wanted = Arc::new(Notify::new());
        let fetching = Fetching { client, sender, outage: Outage::of(issuer), metrics };
        tokio::spawn(fetching.for_ever(issuer.to_owned(), wanted.clone()));
        Keys { state, wanted }
    }

    /// The keys as known now; none before the issuer was reached for the first time.
    pub(crate) fn known(&self) -> Option<Arc<Fetched>> {
        self.state.borrow().known.clone()
    }

    /// Waits until the issuer was reached for the first time. Cancel safe.
    pub(crate) async fn first(&self) {
        let mut state = self.state.clone();
        // An error would mean that the fetching task is gone, and with it the runtime.
        let _ = state.wait_for(|state| state.known.is_some()).await;
    }

    /// Age of the keys in seconds.
    pub(crate) fn age(&self) -> Option<f64> {
        self.state.borrow().at.map(|at| at.elapsed().as_secs_f64())
    }

    /// Has the issuer asked again, and waits a while for the end of a fetch that began after this call: an earlier one
    /// may have missed what was published since. Cancel safe.
    pub(crate) async fn refresh(&self) {
        let mut state = self.state.clone();
        let begun = state.borrow().begun;
        self.wanted.notify_one();
        // Running out of time is no error here: the caller looks at what is known, and denies.
        let _ = tokio::time::timeout(REFRESH_WAIT, state.wait_for(|state| state.ended > begun)).await;
    }
}

struct Fetching {
    client: HttpClient,
    sender: watch::Sender<State>,
    outage: Outage,
    metrics: KeyMetrics,
}

impl Fetching {
    async fn for_ever(mut self, issuer: String, wanted: Arc<Notify>) {
        let document = format!("{issuer}{}", discovery::PATH);
        while !self.sender.is_closed() {
            let began = Instant::now();
            let due = began + self.once(&document, &issuer).await;
            let asked = async {
                tokio::time::sleep_until(began + INTERVAL).await;
                wanted.notified().await;
            };
            let _ = tokio::time::timeout_at(due, asked).await;
        }
    }

    /// One fetch; gives the time from its beginning to that of the next.
    async fn once(&mut self, document: &str, issuer: &str) -> Duration {
        self.sender.send_modify(|state| state.begun += 1);
        let result = fetch(&self.client, document, issuer).await;
        self.metrics.fetched(result.as_ref().map_or_else(|failure| failure.label, |_| "ok"));
        match result {
            Ok(answer) => {
                self.outage.over();
                self.outage.clocks(answer.skew);
                self.metrics.skewed(answer.skew);
                self.sender.send_modify(|state| state.succeeded(answer.fetched));
                period(answer.max_age)
            }
            Err(failure) => {
                self.outage.failed(&failure);
                self.sender.send_modify(|state| state.ended = state.begun);
                INTERVAL
            }
        }
    }
}

/// How long a key set is good that its issuer says is good for so long.
fn period(max_age: Option<Duration>) -> Duration {
    max_age.unwrap_or(PERIOD).clamp(PERIOD_MIN, PERIOD)
}

impl State {
    fn succeeded(&mut self, fetched: Fetched) {
        (self.at, self.ended) = (Some(Instant::now()), self.begun);
        // The same keys are the same set, so that what was verified with them need not be verified again.
        if self.known.as_ref().is_none_or(|known| known.document != fetched.document) {
            self.known = Some(Arc::new(fetched));
        }
    }
}

#[cfg(test)]
mod tests;
