//! Settings from the ConfigMap itself, watched through the cluster's API: a change counts within a second.
//!
//! Needs the right to get, list and watch this one ConfigMap, by name. Absent on purpose: what the values mean.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use tokio::time::Instant;

use super::{Followed, NOT_BEFORE, Place, SIGN, VERIFY, Value};
use crate::kubernetes::{Seen, Trouble, follow_one};

/// An API that says nothing for so long may be out of our reach only, while people and the kubelet reach it: then the
/// mounted directory counts, which the kubelet renews within a minute or so, until the API is heard again.
const PATIENCE: Duration = Duration::from_secs(150);

/// The ConfigMap's name, in the namespace of its service.
const NAME: &str = "auth-settings";

/// A ConfigMap `auth-settings`, and how to get at it.
#[derive(Clone)]
pub struct ConfigMapRef {
    /// The API.
    pub client: Client,
    /// Its namespace.
    pub namespace: String,
}

impl fmt::Display for ConfigMapRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConfigMap {}/{NAME}", self.namespace)
    }
}

/// Listens to the API, until nobody wants to know any more.
pub(super) async fn follow(config_map: ConfigMapRef, followed: Arc<Followed>) {
    let api: Api<ConfigMap> = Api::namespaced(config_map.client.clone(), &config_map.namespace);
    let mut seen = follow_one(api, NAME, "the settings in the cluster");
    let closed = followed.sender.closed();
    tokio::pin!(closed);
    let mut silent_since: Option<Instant> = None;
    loop {
        let patience = silent_since.map(|since| tokio::time::sleep_until(since + PATIENCE));
        tokio::select! {
            () = &mut closed => return,
            changed = seen.changed() => if changed.is_err() { return },
            () = async { if let Some(sleep) = patience { sleep.await } }, if silent_since.is_some() => {
                silent_since = None;
                followed.api_is_silent(&config_map);
                continue;
            }
        }
        let now = seen.borrow_and_update().clone();
        silent_since = now.trouble.as_ref().map(|_| silent_since.unwrap_or_else(Instant::now));
        hear(&now, &config_map, &followed);
    }
}

fn hear(seen: &Seen<ConfigMap>, config_map: &ConfigMapRef, followed: &Followed) {
    match (&seen.trouble, &seen.objects) {
        (Some(Trouble::Forbidden(_)), _) => followed.api_refuses(),
        // What was heard last stays; nobody can have changed what the API server does not serve.
        (Some(_), _) | (None, None) => {}
        (None, Some(objects)) => {
            let object = objects.get(&(config_map.namespace.clone(), NAME.to_owned()));
            followed.heard(values(object.map(AsRef::as_ref)), &Place::ConfigMap(config_map));
        }
    }
}

fn values(object: Option<&ConfigMap>) -> [Value; 3] {
    let data = object.and_then(|object| object.data.as_ref());
    [SIGN, VERIFY, NOT_BEFORE].map(|key| match data.and_then(|data| data.get(key)) {
        Some(text) => Value::Text(text.trim().to_owned()),
        None => Value::Missing,
    })
}
