//! What issuer and injector have in common: a Deployment whose pods Pod Security `restricted` takes, a Service, a
//! disruption budget and a NetworkPolicy.

use serde_json::{Value, json};

use super::{Options, labels, metadata, selector};

/// Not root; the image's own.
const USER: u32 = 65_532;
const PORT: u16 = 8443;
const ADMIN_PORT: u16 = 9901;
/// Drain and a margin.
const GRACE_SECONDS: u32 = 40;

/// A component that runs.
pub(super) struct Component {
    /// `issuer` or `injector`: its subcommand, the stem of its configuration file, and what its labels say.
    pub(super) component: &'static str,
    /// Its name wherever it needs one.
    pub(super) name: &'static str,
    /// Its configuration, in YAML.
    pub(super) configuration: String,
    /// The memory that it may take. What it asks for is a quarter.
    pub(super) memory_mebibytes: u32,
}

/// All but its rights and what is its own.
pub(super) fn manifests(options: &Options, of: &Component) -> Vec<Value> {
    vec![
        service_account(options, of),
        configuration(options, of),
        service(options, of),
        deployment(options, of),
        disruption_budget(options, of),
        network_policy(options, of),
    ]
}

fn service_account(options: &Options, of: &Component) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": metadata(options, of.component, of.name),
        "automountServiceAccountToken": false,
    })
}

fn configuration(options: &Options, of: &Component) -> Value {
    let mut data = serde_json::Map::new();
    data.insert(format!("{}.yaml", of.component), of.configuration.clone().into());
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": metadata(options, of.component, of.name),
        "data": data,
    })
}

fn service(options: &Options, of: &Component) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": metadata(options, of.component, of.name),
        "spec": {
            "selector": selector(of.component),
            "ports": [{"name": "https", "port": 443, "targetPort": "https", "protocol": "TCP", "appProtocol": "https"}],
        },
    })
}

fn deployment(options: &Options, of: &Component) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": metadata(options, of.component, of.name),
        "spec": {
            "replicas": options.replicas,
            "selector": {"matchLabels": selector(of.component)},
            // One more before one less: there is always somebody to ask.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {"labels": labels(of.component), "annotations": annotations(of)},
                "spec": pod(options, of),
            },
        },
    })
}

/// The configuration stands here a second time, so that a change of it is a change of the pods and rolls them.
fn annotations(of: &Component) -> Value {
    json!({
        "prometheus.io/scrape": "true",
        "prometheus.io/port": ADMIN_PORT.to_string(),
        "prometheus.io/path": "/metrics",
        "sidegate.dev/configuration": of.configuration,
    })
}

fn pod(options: &Options, of: &Component) -> Value {
    json!({
        "serviceAccountName": of.name,
        "automountServiceAccountToken": true,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        // If there is but one node, both run there.
        "topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector(of.component)},
        }],
        "containers": [container(options, of)],
        "volumes": [{"name": "configuration", "configMap": {"name": of.name}}],
    })
}

fn container(options: &Options, of: &Component) -> Value {
    let (component, memory) = (of.component, of.memory_mebibytes);
    json!({
        "name": component,
        "image": options.image,
        "imagePullPolicy": "IfNotPresent",
        // Long enough for its Service to have forgotten it.
        "args": [component, "--config", format!("/etc/sidegate/{component}.yaml"), "--drain-delay", "5"],
        "ports": [
            {"name": "https", "containerPort": PORT, "protocol": "TCP"},
            {"name": "admin", "containerPort": ADMIN_PORT, "protocol": "TCP"},
        ],
        "startupProbe": {"httpGet": {"path": "/healthz", "port": "admin"}, "periodSeconds": 1, "failureThreshold": 60},
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "admin"}, "periodSeconds": 10, "failureThreshold": 3},
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "admin"}, "periodSeconds": 2, "failureThreshold": 2},
        "resources": {
            "requests": {"cpu": "10m", "memory": format!("{}Mi", memory / 4)},
            "limits": {"memory": format!("{memory}Mi")},
        },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "configuration", "mountPath": "/etc/sidegate", "readOnly": true}],
    })
}

/// At most one is away at a time. (A least number of them would keep a node with the only one from ever being drained.)
fn disruption_budget(options: &Options, of: &Component) -> Value {
    json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": metadata(options, of.component, of.name),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector(of.component)}},
    })
}

/// Its two ports and no others, for anyone: sidecars are in all namespaces, and the API server calls from no pod at all.
fn network_policy(options: &Options, of: &Component) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": metadata(options, of.component, of.name),
        "spec": {
            "podSelector": {"matchLabels": selector(of.component)},
            "policyTypes": ["Ingress"],
            "ingress": [{"ports": [{"port": "https", "protocol": "TCP"}, {"port": "admin", "protocol": "TCP"}]}],
        },
    })
}
