//! Follows objects of a kind: a list, then a watch, again and again, with growing pauses while that fails.
//!
//! Only complete lists are shown, so that an object which was not listed yet never looks like a deleted one. What was
//! shown stays while the API server is away. Deliberately absent: writing.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use backon::ExponentialBuilder;
use futures_util::StreamExt;
use kube::runtime::utils::ResetTimerBackoff;
use kube::runtime::watcher::{self, Event, ExponentialBackoff};
use kube::runtime::{WatchStreamExt, watcher as watch_stream};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

/// Pauses between tries. Quick at first, since an API server that restarts is back in seconds; then apart and scattered, since
/// thousands may be asking.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A server that served for so long is well again: the next failure starts with the first pause.
const WELL_AFTER: Duration = Duration::from_secs(60);

/// In seconds: how long a watch lasts before it is begun anew. A connection that died in silence is noticed after that.
const WATCH: u32 = 60;
/// For those of whom there may be as many as pods.
const WATCH_OF_MANY: u32 = 240;

/// Objects by namespace and name.
pub type Objects<K> = BTreeMap<(String, String), Arc<K>>;

/// What is known of the objects.
#[derive(Debug)]
pub struct Seen<K> {
    /// All of them, as of the last that was heard; `None` before there was a complete list.
    pub objects: Option<Arc<Objects<K>>>,
    /// Why nothing newer is heard; `None` while all is well.
    pub trouble: Option<Trouble>,
}

/// Why objects cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Trouble {
    /// The API server says that we may not.
    #[error("not allowed: {0}")]
    Forbidden(String),
    /// The API server does not know the kind.
    #[error("unknown to the API server: {0}")]
    Unknown(String),
    /// Everything else.
    #[error("{0}")]
    Unreachable(String),
}

impl<K> Clone for Seen<K> {
    fn clone(&self) -> Self {
        Self { objects: self.objects.clone(), trouble: self.trouble.clone() }
    }
}

/// Follows all objects of the kind that the API handle reaches, until all receivers are gone. `what` is what the log calls them.
pub fn follow<K>(api: Api<K>, what: &'static str) -> watch::Receiver<Seen<K>>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    start(api, watcher::Config::default().timeout(WATCH), what)
}

/// Follows the one object of this name; that there is none is no trouble.
pub fn follow_one<K>(api: Api<K>, name: &str, what: &'static str) -> watch::Receiver<Seen<K>>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    // Rights that are limited to a name hold for a list and a watch which select it so.
    let config = watcher::Config::default().fields(&format!("metadata.name={name}")).timeout(WATCH_OF_MANY);
    start(api, config, what)
}

/// Follows those that have a label, whatever its value.
pub fn follow_labelled<K>(api: Api<K>, label: &str, what: &'static str) -> watch::Receiver<Seen<K>>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    start(api, watcher::Config::default().labels(label).timeout(WATCH), what)
}

fn start<K>(api: Api<K>, config: watcher::Config, what: &'static str) -> watch::Receiver<Seen<K>>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let (sender, receiver) = watch::channel(Seen { objects: None, trouble: None });
    tokio::spawn(async move {
        let follower = Follower { sender: sender.clone(), what, listed: None };
        tokio::select! {
            () = follower.run(api, config) => {}
            () = sender.closed() => {}
        }
    });
    receiver
}

struct Follower<K> {
    sender: watch::Sender<Seen<K>>,
    what: &'static str,
    /// The list under way.
    listed: Option<Objects<K>>,
}

impl<K> Follower<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    async fn run(mut self, api: Api<K>, config: watcher::Config) {
        let pauses = ExponentialBuilder::default().with_min_delay(FIRST_PAUSE).with_max_delay(LONGEST_PAUSE);
        let pauses = ExponentialBackoff::from(pauses.with_jitter().without_max_times());
        let pauses = ResetTimerBackoff::new(pauses, WELL_AFTER);
        let mut events = std::pin::pin!(watch_stream(api, config).backoff(pauses));
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => self.event(event),
                Err(error) => self.trouble(&error),
            }
        }
    }

    fn event(&mut self, event: Event<K>) {
        match event {
            Event::Init => self.listed = Some(Objects::new()),
            Event::InitApply(object) => {
                let _ = self.listed.get_or_insert_default().insert(key(&object), Arc::new(object));
            }
            Event::InitDone => {
                let listed = Arc::new(self.listed.take().unwrap_or_default());
                self.show(|seen| seen.objects = Some(listed));
            }
            Event::Apply(object) => self.change(|objects| {
                objects.insert(key(&object), Arc::new(object));
            }),
            Event::Delete(object) => self.change(|objects| {
                objects.remove(&key(&object));
            }),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Objects<K>)) {
        self.show(|seen| change(Arc::make_mut(seen.objects.get_or_insert_default())));
    }

    /// Whatever is heard means that all is well.
    fn show(&self, change: impl FnOnce(&mut Seen<K>)) {
        self.sender.send_modify(|seen| {
            if seen.trouble.take().is_some() {
                tracing::info!("{} are followed again", self.what);
            }
            change(seen);
        });
    }

    fn trouble(&self, error: &watcher::Error) {
        let trouble = trouble(error);
        self.sender.send_if_modified(|seen| {
            // Once, not at every try.
            let new = seen.trouble.as_ref().map(std::mem::discriminant) != Some(std::mem::discriminant(&trouble));
            if new {
                tracing::warn!(error = %trouble, known = seen.objects.is_some(), "{} cannot be followed; what is known stays in use", self.what);
                seen.trouble = Some(trouble);
            }
            new
        });
    }
}

fn key<K: Resource>(object: &K) -> (String, String) {
    (object.meta().namespace.clone().unwrap_or_default(), object.meta().name.clone().unwrap_or_default())
}

fn trouble(error: &watcher::Error) -> Trouble {
    let code = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => Some((status.code, status.message.clone())),
        watcher::Error::WatchError(status) => Some((status.code, status.message.clone())),
        _ => None,
    };
    match code {
        Some((401 | 403, message)) => Trouble::Forbidden(message),
        Some((404, message)) => Trouble::Unknown(message),
        _ => Trouble::Unreachable(chain(error)),
    }
}

/// An error with its causes: the outermost alone says only what was tried.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
