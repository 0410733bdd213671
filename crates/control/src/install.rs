//! The manifests of an installation, for `kubectl apply` and for the Helm chart: one source for both.
//!
//! What issuer and injector write at run time (keys, certificates, the Lease, the webhook's authority) is made empty and
//! without the field that they write, so that applying the manifests again takes nothing away.
//! Deliberately absent: limits on egress, since no NetworkPolicy can name the API server in a way that holds in every cluster;
//! a way to the console from outside, which is for each cluster to choose.

use serde_json::{Value, json};

mod chart;
mod console;
mod injector;
mod issuer;
mod monitors;
mod pods;
mod rights;
mod yaml;

pub use chart::chart;
pub use yaml::YamlError;

/// Where everything goes unless it is said otherwise.
pub const NAMESPACE: &str = "sidegate-system";
/// Two, so that one may be away: a node drained, a version rolled out.
pub const REPLICAS: i32 = 2;
/// The ConfigMap of a service's settings.
const SETTINGS: &str = "auth-settings";

/// What may be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The namespace of issuer and injector.
    pub namespace: String,
    /// The image of issuer, injector and, by default, sidecars.
    pub image: String,
    /// How many issuers, and how many injectors.
    pub replicas: i32,
    /// The trust domain of the workloads' certificates.
    pub trust_domain: String,
    /// Who may watch settings through the API.
    pub settings: SettingsReaders,
    /// Whether there is a console, and with whose rights it changes settings.
    pub console: Console,
    /// Whether to add PodMonitors: a cluster without their CRD (the Prometheus operator's) refuses them.
    pub pod_monitors: bool,
}

/// Which service accounts may read and watch the ConfigMap `auth-settings` of namespaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingsReaders {
    /// All, everywhere: it holds three switches and no secret.
    Cluster,
    /// All those of these namespaces, each in its own.
    Namespaces(Vec<String>),
    /// None: sidecars see the mounted directory alone, and changes reach them within a minute or two.
    Nobody,
}

/// The console, and whose rights it goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Console {
    /// There is none.
    Absent,
    /// All is done with the rights of whoever signed in.
    SignedIn,
    /// Settings are read and changed with its own account's, the rest with those of whoever signed in.
    OwnAccount,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            namespace: NAMESPACE.to_owned(),
            image: concat!("sidegate:", env!("CARGO_PKG_VERSION")).to_owned(),
            replicas: REPLICAS,
            trust_domain: "cluster.local".to_owned(),
            settings: SettingsReaders::Cluster,
            console: Console::Absent,
            pod_monitors: false,
        }
    }
}

/// The CustomResourceDefinitions alone, as YAML.
///
/// # Errors
/// A manifest that is none for Kubernetes; a test holds that there is no such.
pub fn definitions() -> Result<String, YamlError> {
    yaml::documents(&crate::crds::raw())
}

/// All manifests as YAML, in an order in which they can be applied.
///
/// # Errors
/// A manifest that is none for Kubernetes; a test holds that there is no such.
pub fn manifests(options: &Options) -> Result<String, YamlError> {
    yaml::documents(&all(options))
}

fn all(options: &Options) -> Vec<Value> {
    let mut all = vec![namespace(options)];
    all.extend(crate::crds::raw());
    all.extend(installed(options));
    all
}

/// What a chart has in its templates: all but the namespace, which Helm makes, and the CRDs, which have a place of their own.
fn installed(options: &Options) -> Vec<Value> {
    let mut all = rights::settings(&options.settings);
    all.extend(issuer::manifests(options));
    all.extend(injector::manifests(options));
    all.extend(console::manifests(options));
    if options.pod_monitors {
        all.extend(monitors::manifests(options));
    }
    all
}

fn namespace(options: &Options) -> Value {
    let mut labels = labels("namespace");
    if let Some(labels) = labels.as_object_mut() {
        for mode in ["enforce", "audit", "warn"] {
            labels.insert(format!("pod-security.kubernetes.io/{mode}"), "restricted".into());
        }
    }
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": options.namespace, "labels": labels}})
}

/// The labels of all that belongs to a component.
pub(crate) fn labels(component: &str) -> Value {
    json!({
        "app.kubernetes.io/name": "sidegate",
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/part-of": "sidegate",
        "app.kubernetes.io/managed-by": "sidegate-install",
    })
}

/// What finds the pods of a component: what never changes about them, for a Deployment's selector never may.
fn selector(component: &str) -> Value {
    json!({"app.kubernetes.io/name": "sidegate", "app.kubernetes.io/component": component})
}

fn metadata(options: &Options, component: &str, name: &str) -> Value {
    json!({"name": name, "namespace": options.namespace, "labels": labels(component)})
}

/// The metadata of what lies in no namespace.
fn metadata_of_cluster(component: &str, name: &str) -> Value {
    json!({"name": name, "labels": labels(component)})
}

#[cfg(test)]
mod tests;
