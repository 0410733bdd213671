//! The issuer's public keys, cached: fetched at the start, now and then, and when a token names one not known.
//!
//! No request waits for the issuer while its token's key is known. An issuer that is away changes nothing but the age.
//! Deliberately absent: `identity::jwks::RefreshPlan`. Its pauses are whole seconds of a clock that may be set, up to four
//! of them; here logins wait, so a try follows a failed one after two at most.

use std::sync::Arc;
use std::time::Duration;

use identity::jwks::KeySet;
use parking_lot::Mutex;
use runtime::discovery;
use runtime::http_client::HttpClient;
use tokio::sync::{Notify, watch};

/// Time between two looks at the issuer's keys, well below any rotation's overlap.
const PERIOD: Duration = Duration::from_secs(60);

/// Time between two tries while the issuer does not answer.
const RETRY: Duration = Duration::from_secs(2);

/// Time between two fetches that unknown key ids may cause: garbage must not become a load on the issuer.
const UNKNOWN_KEY_INTERVAL: Duration = Duration::from_secs(5);

/// How long a login waits for a fetch that its unknown key id caused.
const UNKNOWN_KEY_WAIT: Duration = Duration::from_secs(2);

/// A handle on the cached keys.
#[derive(Clone)]
pub(crate) struct Keys {
    known: watch::Receiver<Option<Arc<Fetched>>>,
    wanted: Arc<Notify>,
    asked: Arc<Mutex<Option<tokio::time::Instant>>>,
}

/// A key set and when it came.
pub(crate) struct Fetched {
    pub(crate) keys: KeySet,
    at: tokio::time::Instant,
}

impl Keys {
    /// Starts the fetching task, which lives as long as the runtime it is called on.
    pub(crate) fn start(client: HttpClient, issuer: &str) -> Keys {
        let (sender, known) = watch::channel(None);
        let wanted = Arc::new(Notify::new());
        tokio::spawn(fetch_for_ever(client, issuer.to_owned(), sender, wanted.clone()));
        Keys { known, wanted, asked: Arc::default() }
    }

    /// The keys as known now; none before the issuer was reached for the first time.
    pub(crate) fn known(&self) -> Option<Arc<Fetched>> {
        self.known.borrow().clone()
    }

    /// Waits until the issuer was reached for the first time. Cancel safe.
    pub(crate) async fn first(&self) {
        let mut known = self.known.clone();
        // An error would mean that the fetching task is gone, and with it the runtime.
        let _ = known.wait_for(Option::is_some).await;
    }

    /// Age of the keys in seconds.
    pub(crate) fn age(&self) -> Option<f64> {
        self.known().map(|fetched| fetched.at.elapsed().as_secs_f64())
    }

    /// Asks the issuer again, unless that was done a while ago and answered, and waits a little for the answer. Cancel
    /// safe.
    pub(crate) async fn refresh(&self) {
        let mut known = self.known.clone();
        known.mark_unchanged();
        {
            let mut asked = self.asked.lock();
            match *asked {
                // Somebody's question is still out, and its answer is good for all.
                Some(at) if at.elapsed() < UNKNOWN_KEY_WAIT => {}
                Some(at) if at.elapsed() < UNKNOWN_KEY_INTERVAL => return,
                _ => {
                    *asked = Some(tokio::time::Instant::now());
                    self.wanted.notify_one();
                }
            }
        }
        // Running out of time is no error here: the caller looks at what is known, and denies.
        let _ = tokio::time::timeout(UNKNOWN_KEY_WAIT, known.changed()).await;
    }
}

async fn fetch_for_ever(
    client: HttpClient,
    issuer: String,
    sender: watch::Sender<Option<Arc<Fetched>>>,
    wanted: Arc<Notify>,
) {
    let mut failing = false;
    while !sender.is_closed() {
        let pause = match fetch(&client, &issuer).await {
            Ok(keys) => {
                if failing || sender.borrow().is_none() {
                    tracing::info!(issuer, "the issuer's keys are known");
                }
                failing = false;
                sender.send_replace(Some(Arc::new(Fetched { keys, at: tokio::time::Instant::now() })));
                PERIOD
            }
            Err(error) => {
                if !failing {
                    tracing::warn!(error, "cannot fetch the issuer's keys; those known stay in use");
                }
                failing = true;
                RETRY
            }
        };
        let _ = tokio::time::timeout(pause, wanted.notified()).await;
    }
}

/// The document is read each time, for the keys may move. Without it nothing is fetched, and the known keys stay.
async fn fetch(client: &HttpClient, issuer: &str) -> Result<KeySet, String> {
    let document = format!("{issuer}{}", discovery::PATH);
    let url = discovery::jwks_uri(client, &document, issuer).await.map_err(|error| error.to_string())?;
    let keys = client.document(&url).await.map_err(|error| error.to_string())?;
    KeySet::parse(&keys).map_err(|error| format!("{url}: {error}"))
}

#[cfg(test)]
mod tests;
