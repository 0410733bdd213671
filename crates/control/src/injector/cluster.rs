//! What the injector stands on in the cluster: the authority of its certificate in a Secret that its replicas share, that
//! authority in the webhook's configuration, and the issuer's authorities, which pods are told.
//!
//! Each replica signs itself a certificate with the shared authority; no key of one leaves its memory. A new authority is in
//! the webhook's configuration before anything is signed with it, and an old one until the last such certificate has ended.
//! Deliberately absent: the making of these objects, which `sidegate install` does, so that nobody here may.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};
use runtime::admin::Readiness;
use runtime::kubernetes::{ApiError, Client, Seen, SharedSecret, follow_one, in_time};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::config::{Config, Kubernetes};
use super::{CERTIFICATE, InjectorError, Never, blocking};
use crate::inject;
use crate::issuer::shared::{Authorities, OwnTls, SecretStore, Timing, Tls};

/// The key of the Secret.
const KEY: &str = "authorities.json";
/// The key of the ConfigMap.
const BUNDLE_KEY: &str = "ca.pem";
/// A year. A new authority has an hour to reach every API server, which takes seconds; certificates live a day.
const TIMING: Timing = Timing { period: 365 * 24 * 3600, lead: 3600, life: 24 * 3600 };
/// How often the webhook's configuration is compared with what it should be: somebody may have applied an older one.
const TICK: Duration = Duration::from_secs(5);

pub(super) struct Cluster {
    names: Kubernetes,
    authorities: Arc<Authorities>,
    webhooks: Api<MutatingWebhookConfiguration>,
    trust_bundle: watch::Receiver<Seen<ConfigMap>>,
}

impl Cluster {
    /// Reads all of it, and makes the first authority where there is none.
    pub(super) async fn open(config: &Config) -> Result<(Arc<Self>, OwnTls), InjectorError> {
        let names = config.kubernetes.clone();
        let client = runtime::kubernetes::client().await?;
        let authorities = authorities(client.clone(), &names).await?;
        let own = Tls::Root { names: own_names(&names) };
        let tls = OwnTls::new(&own, None, Some(authorities.clone()))?;
        let bundles: Api<ConfigMap> = Api::namespaced(client.clone(), &names.namespace);
        let trust_bundle = follow_one(bundles, &names.trust_bundle, "the issuer's authorities");
        let webhooks = Api::all(client);
        Ok((Arc::new(Self { names, authorities, webhooks, trust_bundle }), tls))
    }

    /// The issuer's authorities, in PEM; `None` until it has named any.
    pub(super) fn issuer_ca(&self) -> Option<String> {
        let objects = self.trust_bundle.borrow().objects.clone()?;
        let bundle = objects.values().next()?.data.as_ref()?.get(BUNDLE_KEY)?.clone();
        inject::check_ca(&bundle).is_ok().then_some(bundle)
    }

    /// Follows and rotates the authority, and keeps the webhook's configuration right, for ever.
    pub(super) async fn keep_up(&self, readiness: &Readiness) -> Never {
        let mut said = None;
        loop {
            let done = self.round().await.map_err(|error| error.to_string());
            match &done {
                // Once ready, what the API server was told stays true while it cannot be asked.
                Ok(()) => readiness.set(CERTIFICATE, true),
                Err(error) if said.as_ref() != Some(error) => {
                    tracing::error!(%error, webhook = self.names.webhook, "the API server cannot be told of our certificate");
                }
                Err(_) => {}
            }
            said = done.err();
            tokio::time::sleep(TICK).await;
        }
    }

    async fn round(&self) -> Result<(), ApiError> {
        let authorities = self.authorities.clone();
        // What goes wrong is said there; what was known stays in use.
        let _ = tokio::task::spawn_blocking(move || authorities.tick(runtime::clock::now())).await;
        let (bundle, _) = self.authorities.bundle(runtime::clock::now());
        let object = in_time(self.webhooks.get(&self.names.webhook)).await?;
        let Some(patch) = patch(&serde_json::to_value(&object).unwrap_or_default(), &bundle) else { return Ok(()) };
        let patch = Patch::<Value>::Json(patch);
        in_time(self.webhooks.patch(&self.names.webhook, &PatchParams::default(), &patch)).await?;
        tracing::info!(webhook = self.names.webhook, "the API server knows our authorities");
        Ok(())
    }
}

async fn authorities(client: Client, names: &Kubernetes) -> Result<Arc<Authorities>, InjectorError> {
    let secret = SharedSecret::open(client, &names.namespace, &names.secret).await?;
    // Writers are kept apart by the version of what they read, so each may rotate what is due.
    let store = SecretStore { secret, key: KEY, leadership: None, runtime: tokio::runtime::Handle::current() };
    blocking(move || Authorities::authorities(Box::new(store), TIMING)).await.map(Arc::new)
}

/// What the API server calls the Service.
fn own_names(names: &Kubernetes) -> Vec<String> {
    vec![format!("{}.{}.svc", names.service, names.namespace)]
}

/// What makes every webhook of the configuration trust these authorities; `None` if all do. Each place is tested before it is
/// written, so that a change by somebody else in between is not taken for ours.
fn patch(object: &Value, bundle: &str) -> Option<json_patch::Patch> {
    let wanted = STANDARD.encode(bundle);
    let webhooks = object.get("webhooks").and_then(Value::as_array)?;
    let mut operations = Vec::new();
    for (index, webhook) in webhooks.iter().enumerate() {
        if webhook.pointer("/clientConfig/caBundle").and_then(Value::as_str) != Some(&wanted) {
            let path = format!("/webhooks/{index}");
            operations.push(json!({"op": "test", "path": format!("{path}/name"), "value": webhook.get("name")}));
            operations.push(json!({"op": "add", "path": format!("{path}/clientConfig/caBundle"), "value": wanted}));
        }
    }
    if operations.is_empty() { None } else { serde_json::from_value(Value::Array(operations)).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wrong_is_patched() {
        let mut object = json!({"webhooks": [
            {"name": "a", "clientConfig": {"service": {"name": "x"}}},
            {"name": "b", "clientConfig": {"caBundle": STANDARD.encode("new")}},
            {"name": "c", "clientConfig": {"caBundle": STANDARD.encode("old")}},
        ]});
        let first = patch(&object, "new").unwrap();
        assert_eq!(first.0.len(), 4);
        json_patch::patch(&mut object, &first).unwrap();
        assert!(
            object["webhooks"]
                .as_array()
                .unwrap()
                .iter()
                .all(|webhook| webhook["clientConfig"]["caBundle"] == STANDARD.encode("new"))
        );
        assert_eq!(patch(&object, "new"), None);
        object["webhooks"][0]["name"] = json!("z");
        assert!(json_patch::patch(&mut object, &first).is_err(), "another webhook has moved there");
    }

    #[test]
    fn the_certificate_is_for_the_service() {
        let config = Config::parse("{}", Some("sidegate-system".to_owned())).unwrap();
        assert_eq!(own_names(&config.kubernetes), ["sidegate-injector.sidegate-system.svc"]);
    }
}
