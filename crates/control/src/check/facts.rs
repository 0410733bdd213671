//! What is known of a cluster: objects as the API has them, and what pods say of themselves.
//!
//! Deliberately absent: how it is fetched, and any opinion.

use std::collections::BTreeMap;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::DynamicObject;

use super::scrape::Samples;

/// What was asked for, or why there is no answer.
pub type Asked<T> = Result<T, String>;

/// The API server.
#[derive(Debug)]
pub struct Cluster {
    /// Its version, major and minor, and as it says it.
    pub version: Asked<(u32, u32, String)>,
    /// Its clock less this machine's, in seconds.
    pub offset: Option<i64>,
}

/// A right that somebody has or has not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    /// Whose: a service account of the system's namespace, or the caller if empty.
    pub account: &'static str,
    /// What with.
    pub verb: &'static str,
    /// The API group; empty for the core.
    pub group: &'static str,
    /// Plural; `RESOURCE/SUBRESOURCE`.
    pub resource: &'static str,
    /// Where; none for the whole cluster.
    pub namespace: Option<String>,
    /// Which one; empty for all.
    pub name: &'static str,
    /// Whether it should be there.
    pub wanted: bool,
}

/// What a pod of ours says of itself.
#[derive(Debug, Default)]
pub struct Probe {
    /// The answer of /readyz: whether it is ready, and its words.
    pub ready: Option<Asked<(bool, String)>>,
    /// The answer of /metrics.
    pub metrics: Option<Asked<Samples>>,
    /// The pod's clock less this machine's, in seconds.
    pub offset: Option<i64>,
}

impl Probe {
    /// Its metrics, if they could be read.
    pub(super) fn samples(&self) -> Option<&Samples> {
        self.metrics.as_ref()?.as_ref().ok()
    }

    /// The version that runs there, as it says itself.
    pub(super) fn version(&self) -> Option<&str> {
        let mut builds = self.samples()?.labelled("sidegate_build_info");
        builds.find_map(|labels| labels.get("version")).map(String::as_str)
    }
}

/// By namespace and name.
pub type Probes = BTreeMap<(String, String), Probe>;

/// What there is before an installation.
#[derive(Debug)]
pub struct Preflight {
    /// The API server.
    pub cluster: Cluster,
    /// What the caller may do.
    pub rights: Vec<(Right, Asked<bool>)>,
    /// Definitions of our group.
    pub definitions: Asked<Vec<CustomResourceDefinition>>,
    /// The system's namespace, if it is there already.
    pub namespace: Asked<Option<Namespace>>,
}

/// What there is of an installation, and of what it protects.
pub struct Facts {
    /// The version of this program.
    pub version: &'static str,
    /// Seconds since the epoch, by this machine.
    pub now: i64,
    /// The system's namespace.
    pub system: String,
    /// Services that were asked for, as NAMESPACE/NAME; none: all.
    pub wanted: Vec<String>,
    /// Whether a sidecar would take a configuration; else why not.
    pub validate: fn(&str) -> Result<(), String>,
    /// The API server.
    pub cluster: Cluster,
    /// Definitions of our group.
    pub definitions: Asked<Vec<CustomResourceDefinition>>,
    /// The same, as this version would have them.
    pub expected: Vec<CustomResourceDefinition>,
    /// What the system's service accounts may do.
    pub rights: Vec<(Right, Asked<bool>)>,
    /// The issuer's and the injector's Deployment, by name.
    pub deployments: Asked<Vec<Deployment>>,
    /// The pods of the system's namespace.
    pub system_pods: Asked<Vec<Pod>>,
    /// What sidecars trust.
    pub trust_bundle: Asked<Option<ConfigMap>>,
    /// The webhook.
    pub webhook: Asked<Option<MutatingWebhookConfiguration>>,
    /// The webhook's certificate.
    pub webhook_secret: Asked<Option<Secret>>,
    /// Endpoints of the system's namespace.
    pub endpoints: Asked<Vec<EndpointSlice>>,
    /// AccessRoles and AccessGrants.
    pub documents: Asked<Vec<DynamicObject>>,
    /// All ConfigMaps `auth-settings`.
    pub settings: Asked<Vec<ConfigMap>>,
    /// Namespaces.
    pub namespaces: Asked<Vec<Namespace>>,
    /// Pods outside the system's namespace.
    pub pods: Asked<Vec<Pod>>,
    /// Services outside it.
    pub services: Asked<Vec<Service>>,
    /// NetworkPolicies outside it.
    pub policies: Asked<Vec<NetworkPolicy>>,
    /// What pods say of themselves.
    pub probes: Probes,
}

impl Facts {
    /// What a pod says of itself.
    pub(super) fn probe(&self, pod: &Pod) -> Option<&Probe> {
        let metadata = &pod.metadata;
        self.probes.get(&(metadata.namespace.clone()?, metadata.name.clone()?))
    }
}
