//! What all components have in common: a Deployment whose pods Pod Security `restricted` takes, and a NetworkPolicy; and what
//! is asked by others has besides: a Service and a disruption budget.

use serde_json::{Value, json};

use super::{Options, labels, metadata, selector};

/// Not root; the image's own.
const USER: u32 = 65_532;
const PORT: u16 = 8443;
const ADMIN_PORT: u16 = 9901;
/// Drain and a margin.
const GRACE_SECONDS: u32 = 40;
/// What a component that runs once writes to.
pub(super) const STATE: &str = "/var/lib/sidegate";
/// A pod that writes more is replaced, and does not fill its node.
const STATE_LIMIT: &str = "256Mi";

/// A component that runs.
pub(super) struct Component {
    /// `issuer`, `injector` or `console`: its subcommand, the stem of its configuration file, and what its labels say.
    pub(super) component: &'static str,
    /// Its name wherever it needs one.
    pub(super) name: &'static str,
    /// Its configuration, in YAML.
    pub(super) configuration: String,
    /// The memory that it may take. What it asks for is a quarter.
    pub(super) memory_mebibytes: u32,
    /// How it runs.
    pub(super) run: Run,
}

/// How a component runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    /// As often as is wanted, for others to ask over HTTPS, with a token for the API server.
    Asked,
    /// Once, as what it knows is in its memory and its own directory; nobody asks it but those who forward a port.
    Once {
        /// Whether it has a token for the API server.
        token: bool,
    },
}

/// All but its rights and what is its own.
pub(super) fn manifests(options: &Options, of: &Component) -> Vec<Value> {
    let mut all = vec![service_account(options, of), configuration(options, of)];
    if of.run == Run::Asked {
        all.extend([service(options, of), disruption_budget(options, of)]);
    }
    all.extend([deployment(options, of), network_policy(options, of)]);
    all
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
    let (replicas, strategy) = match of.run {
        // One more before one less: there is always somebody to ask.
        Run::Asked => {
            (options.replicas, json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}))
        }
        Run::Once { .. } => (1, json!({"type": "Recreate"})),
    };
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": metadata(options, of.component, of.name),
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": selector(of.component)},
            "strategy": strategy,
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
        "automountServiceAccountToken": of.run != Run::Once { token: false },
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
        "volumes": volumes(of),
    })
}

/// Who runs once has a directory of its own, and the authorities of the API server even without a token.
fn volumes(of: &Component) -> Value {
    match of.run {
        Run::Asked => json!([{"name": "configuration", "configMap": {"name": of.name}}]),
        Run::Once { .. } => json!([
            {"name": "configuration", "projected": {"sources": [
                {"configMap": {"name": of.name}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "cluster/ca.crt"}]}},
            ]}},
            {"name": "state", "emptyDir": {"sizeLimit": STATE_LIMIT}},
        ]),
    }
}

fn mounts(of: &Component) -> Value {
    let configuration = json!({"name": "configuration", "mountPath": "/etc/sidegate", "readOnly": true});
    match of.run {
        Run::Asked => json!([configuration]),
        Run::Once { .. } => json!([configuration, {"name": "state", "mountPath": STATE}]),
    }
}

fn arguments(of: &Component) -> Vec<String> {
    let mut all = vec![of.component.to_owned(), "--config".to_owned(), format!("/etc/sidegate/{}.yaml", of.component)];
    if of.run == Run::Asked {
        // Long enough for its Service to have forgotten it.
        all.extend(["--drain-delay", "5"].map(str::to_owned));
    }
    all
}

/// Named in containers, and let through by the NetworkPolicy.
fn ports(of: &Component) -> Vec<(&'static str, u16)> {
    match of.run {
        Run::Asked => vec![("https", PORT), ("admin", ADMIN_PORT)],
        Run::Once { .. } => vec![("admin", ADMIN_PORT)],
    }
}

fn container(options: &Options, of: &Component) -> Value {
    let memory = of.memory_mebibytes;
    let port = |(name, port): (&str, u16)| json!({"name": name, "containerPort": port, "protocol": "TCP"});
    json!({
        "name": of.component,
        "image": options.image,
        "imagePullPolicy": "IfNotPresent",
        "args": arguments(of),
        "ports": ports(of).into_iter().map(port).collect::<Vec<_>>(),
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
        "volumeMounts": mounts(of),
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

/// Its ports and no others, for anyone: sidecars are in all namespaces, and the API server calls from no pod at all.
fn network_policy(options: &Options, of: &Component) -> Value {
    let ports: Vec<_> = ports(of).iter().map(|(name, _)| json!({"port": name, "protocol": "TCP"})).collect();
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": metadata(options, of.component, of.name),
        "spec": {
            "podSelector": {"matchLabels": selector(of.component)},
            "policyTypes": ["Ingress"],
            "ingress": [{"ports": ports}],
        },
    })
}
