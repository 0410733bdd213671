//! A Secret that several replicas share: read from memory, followed as it changes, written only over the state that was read.
//!
//! It must exist: who installs makes it, empty, so that nobody needs the right to create Secrets. Deliberately absent: what
//! is in it.

use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret as Object;
use kube::api::PostParams;
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{ApiError, Seen, follow_one, in_time};
use crate::secret::Secret;

/// Why a shared Secret cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the Secret {namespace}/{name}: {error}")]
pub struct SecretError {
    namespace: String,
    name: String,
    #[source]
    error: ApiError,
}

/// What came of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is written.
    Done,
    /// Somebody else wrote first; what they wrote is what is read from now on.
    Conflict,
}

/// A Secret, by its name.
pub struct SharedSecret {
    api: Api<Object>,
    namespace: String,
    name: String,
    /// The newest that was seen, in answers or in the watch.
    latest: Mutex<Object>,
    seen: watch::Receiver<Seen<Object>>,
}

impl SharedSecret {
    /// Reads it, and begins to follow it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn open(client: Client, namespace: &str, name: &str) -> Result<Arc<Self>, SecretError> {
        let api: Api<Object> = Api::namespaced(client, namespace);
        let failed = |error| SecretError { namespace: namespace.to_owned(), name: name.to_owned(), error };
        let latest = in_time(api.get(name)).await.map_err(failed)?;
        let seen = follow_one(api.clone(), name, "the Secret's changes");
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Ok(Arc::new(Self { api, namespace, name, latest: Mutex::new(latest), seen }))
    }

    /// What it is called in messages.
    #[must_use]
    pub fn place(&self) -> String {
        format!("Secret {}/{}", self.namespace, self.name)
    }

    /// The text under a key; none if there is none, or no text.
    #[must_use]
    pub fn read(&self, key: &str) -> Option<Secret> {
        self.take_over_seen();
        let latest = self.latest.lock();
        let text = latest.data.as_ref()?.get(key)?.0.clone();
        String::from_utf8(text).ok().filter(|text| !text.is_empty()).map(Secret::new)
    }

    /// Writes the text under a key, if nobody has changed the Secret since it was last read here. Not cancel safe: it may have
    /// been written or not.
    ///
    /// # Errors
    /// When the API server does not do it.
    pub async fn put(&self, key: &str, text: &[u8]) -> Result<Put, SecretError> {
        let mut changed = self.latest.lock().clone();
        changed.data.get_or_insert_default().insert(key.to_owned(), ByteString(text.to_vec()));
        // The version of what was read goes along: the API server refuses if it has a newer one.
        match in_time(self.api.replace(&self.name, &PostParams::default(), &changed)).await {
            Ok(written) => {
                self.take_over(written);
                Ok(Put::Done)
            }
            Err(ApiError::Conflict) => {
                self.refresh().await?;
                Ok(Put::Conflict)
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Reads it anew.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn refresh(&self) -> Result<(), SecretError> {
        let object = in_time(self.api.get(&self.name)).await.map_err(|error| self.failed(error))?;
        self.take_over(object);
        Ok(())
    }

    fn take_over_seen(&self) {
        let key = (self.namespace.clone(), self.name.clone());
        // Deleted under us: what it held stays in use, and a write will say what is wrong.
        let seen = self.seen.borrow().objects.as_ref().and_then(|objects| objects.get(&key).cloned());
        if let Some(object) = seen {
            self.take_over(object.as_ref().clone());
        }
    }

    /// The watch may tell of an older state than an answer did.
    fn take_over(&self, object: Object) {
        let mut latest = self.latest.lock();
        if version(&object) >= version(&latest) || object.metadata.uid != latest.metadata.uid {
            *latest = object;
        }
    }

    fn failed(&self, error: ApiError) -> SecretError {
        SecretError { namespace: self.namespace.clone(), name: self.name.clone(), error }
    }
}

/// Versions of one object are numbers that grow (KEP-5504 says so since 1.35; every etcd-backed server did it before).
fn version(object: &Object) -> u64 {
    object.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}
