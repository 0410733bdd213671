//! Facts, from the API: lists, reviews of rights, and through the API server's proxy what pods say of themselves.
//!
//! It reads and asks, and changes nothing: an access review is a question. What may not be read, or is not there, is a fact
//! like any other. Deliberately absent: any opinion.

use std::fmt;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DynamicObject, ListParams};
use kube::{Api, Client, Resource};
use runtime::clock;
use runtime::kubernetes::{ApiError, in_time};
use serde::de::DeserializeOwned;

use super::facts::{Asked, Facts, Preflight};
use super::objects::{sidecar_of, wiring};
use super::{access, injector};
use crate::crds;

mod probes;
mod rights;
mod server;

/// Objects in one answer: a list of many thousand pods is not to be one.
const PAGE: u32 = 500;
const KINDS: [(&str, &str); 2] = [("AccessRole", "accessroles"), ("AccessGrant", "accessgrants")];

/// What is to be checked.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The system's namespace.
    pub system: String,
    /// Services, as NAMESPACE and name; none: all.
    pub services: Vec<(String, String)>,
}

/// The API server gave no answer to the first question.
#[derive(Debug, thiserror::Error)]
#[error("the API server cannot be asked: {0}; look at KUBECONFIG, and whether kubectl version answers")]
pub struct FetchError(String);

/// What is there before an installation.
///
/// # Errors
/// When there is no API server.
pub async fn fetch_preflight(client: &Client, system: &str) -> Result<Preflight, FetchError> {
    let cluster = server::cluster(client).await?;
    Ok(Preflight {
        cluster,
        rights: rights::own(client, access::rights_to_install(system)).await,
        definitions: definitions(client).await,
        namespace: optional(Api::all(client.clone()), system).await,
    })
}

/// What is there of an installation, and of what it protects.
///
/// # Errors
/// When there is no API server.
pub async fn fetch(
    client: &Client,
    scope: &Scope,
    validate: fn(&str) -> Result<(), String>,
) -> Result<Facts, FetchError> {
    let cluster = server::cluster(client).await?;
    let system = scope.system.as_str();
    let of_system = || ListParams::default();
    let mut facts = Facts {
        version: env!("CARGO_PKG_VERSION"),
        now: clock::now(),
        system: system.to_owned(),
        wanted: scope.services.iter().map(|(namespace, name)| format!("{namespace}/{name}")).collect(),
        validate,
        cluster,
        definitions: definitions(client).await,
        // A test of theirs holds that they can be made; without them only names are compared.
        expected: crate::crds::definitions().unwrap_or_default(),
        rights: rights::of_accounts(client, system, access::rights(system)).await,
        deployments: list(Api::namespaced(client.clone(), system), of_system()).await,
        system_pods: list(Api::namespaced(client.clone(), system), of_system()).await,
        trust_bundle: optional(Api::namespaced(client.clone(), system), "sidegate-trust-bundle").await,
        webhook: optional(Api::all(client.clone()), injector::NAME).await,
        webhook_secret: optional(Api::namespaced(client.clone(), system), "sidegate-injector-tls").await,
        endpoints: list(Api::namespaced(client.clone(), system), of_system()).await,
        documents: documents(client, scope).await,
        settings: settings(client, scope).await,
        namespaces: list(Api::all(client.clone()), of_system()).await,
        pods: everywhere(client, scope, of_system()).await,
        services: everywhere(client, scope, of_system()).await,
        policies: everywhere(client, scope, of_system()).await,
        probes: super::facts::Probes::new(),
    };
    narrow(&mut facts);
    facts.probes = probes::all(client, &facts).await;
    Ok(facts)
}

async fn definitions(client: &Client) -> Asked<Vec<CustomResourceDefinition>> {
    let all: Vec<CustomResourceDefinition> = list(Api::all(client.clone()), ListParams::default()).await?;
    Ok(all.into_iter().filter(|crd| crd.spec.group == crds::GROUP).collect())
}

async fn documents(client: &Client, scope: &Scope) -> Asked<Vec<DynamicObject>> {
    let mut all = Vec::new();
    for (kind, plural) in KINDS {
        let resource = crds::resource(kind, plural);
        for namespace in namespaces(scope) {
            let api = match namespace {
                Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
                None => Api::all_with(client.clone(), &resource),
            };
            all.extend(list(api, ListParams::default()).await?);
        }
    }
    Ok(all)
}

async fn settings(client: &Client, scope: &Scope) -> Asked<Vec<ConfigMap>> {
    everywhere(client, scope, ListParams::default().fields("metadata.name=auth-settings")).await
}

/// The namespaces that are asked about; `None` is all of them at once.
fn namespaces(scope: &Scope) -> Vec<Option<&str>> {
    let mut named: Vec<_> = scope.services.iter().map(|(namespace, _)| Some(namespace.as_str())).collect();
    named.sort_unstable();
    named.dedup();
    if named.is_empty() { vec![None] } else { named }
}

async fn everywhere<K>(client: &Client, scope: &Scope, wanted: ListParams) -> Asked<Vec<K>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug,
{
    let mut all = Vec::new();
    for namespace in namespaces(scope) {
        let api = match namespace {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        };
        all.extend(list(api, wanted.clone()).await?);
    }
    Ok(all)
}

/// All of a list, page by page.
async fn list<K: Clone + DeserializeOwned + fmt::Debug>(api: Api<K>, wanted: ListParams) -> Asked<Vec<K>> {
    let mut all = Vec::new();
    let mut wanted = wanted.limit(PAGE);
    loop {
        let page = in_time(api.list(&wanted)).await.map_err(|error| error.to_string())?;
        all.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => wanted.continue_token = Some(token),
            None => return Ok(all),
        }
    }
}

/// An object that need not be there.
async fn optional<K: Clone + DeserializeOwned + fmt::Debug>(api: Api<K>, name: &str) -> Asked<Option<K>> {
    match in_time(api.get(name)).await {
        Ok(found) => Ok(Some(found)),
        Err(ApiError::NotFound(_)) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Of pods with a sidecar, only those of the services that were asked for; and the system's pods are no one's service.
fn narrow(facts: &mut Facts) {
    let Ok(pods) = &mut facts.pods else { return };
    let system = facts.system.as_str();
    let is_wanted = |pod: &Pod| match wiring(pod) {
        Some(wiring) => facts.wanted.contains(&wiring.service),
        None => sidecar_of(pod).is_none(),
    };
    pods.retain(|pod| pod.metadata.namespace.as_deref() != Some(system));
    if !facts.wanted.is_empty() {
        pods.retain(is_wanted);
    }
}
