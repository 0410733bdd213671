//! Who may do what in the API, and no more. The table in docs/KUBERNETES.md says why.

use serde_json::{Value, json};

use super::{Options, SETTINGS, SettingsReaders, labels, metadata, metadata_of_cluster};

const API: &str = "rbac.authorization.k8s.io";
const VERSION: &str = "rbac.authorization.k8s.io/v1";
const SETTINGS_READER: &str = "sidegate-auth-settings";

/// A `ClusterRole` and its binding to a service account of ours.
pub(super) fn in_cluster(options: &Options, component: &str, name: &str, rules: Value) -> [Value; 2] {
    [
        json!({
            "apiVersion": VERSION, "kind": "ClusterRole",
            "metadata": metadata_of_cluster(component, name), "rules": rules,
        }),
        json!({
            "apiVersion": VERSION, "kind": "ClusterRoleBinding",
            "metadata": metadata_of_cluster(component, name),
            "roleRef": {"apiGroup": API, "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": options.namespace}],
        }),
    ]
}

/// A `Role` in our namespace and its binding to a service account of ours.
pub(super) fn in_namespace(options: &Options, component: &str, name: &str, rules: Value) -> [Value; 2] {
    [
        json!({
            "apiVersion": VERSION, "kind": "Role", "metadata": metadata(options, component, name), "rules": rules,
        }),
        json!({
            "apiVersion": VERSION, "kind": "RoleBinding", "metadata": metadata(options, component, name),
            "roleRef": {"apiGroup": API, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": options.namespace}],
        }),
    ]
}

/// A rule about objects that are named.
pub(super) fn named(group: &str, resource: &str, name: &str, verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": [resource], "resourceNames": [name], "verbs": verbs})
}

/// Sidecars that watch their settings through the API: the one ConfigMap, by name.
pub(super) fn settings(readers: &SettingsReaders) -> Vec<Value> {
    match readers {
        SettingsReaders::Nobody => Vec::new(),
        SettingsReaders::Namespaces(namespaces) => namespaces.iter().flat_map(|n| settings_of_namespace(n)).collect(),
        SettingsReaders::Cluster => vec![
            json!({
                "apiVersion": VERSION, "kind": "ClusterRole",
                "metadata": metadata_of_cluster("sidecar", SETTINGS_READER), "rules": settings_rules(),
            }),
            json!({
                "apiVersion": VERSION, "kind": "ClusterRoleBinding",
                "metadata": metadata_of_cluster("sidecar", SETTINGS_READER),
                "roleRef": {"apiGroup": API, "kind": "ClusterRole", "name": SETTINGS_READER},
                "subjects": [group("system:serviceaccounts")],
            }),
        ],
    }
}

pub(super) fn settings_of_namespace(namespace: &str) -> [Value; 2] {
    let metadata = json!({"name": SETTINGS_READER, "namespace": namespace, "labels": labels("sidecar")});
    [
        json!({"apiVersion": VERSION, "kind": "Role", "metadata": metadata, "rules": settings_rules()}),
        json!({
            "apiVersion": VERSION, "kind": "RoleBinding", "metadata": metadata,
            "roleRef": {"apiGroup": API, "kind": "Role", "name": SETTINGS_READER},
            "subjects": [group(&format!("system:serviceaccounts:{namespace}"))],
        }),
    ]
}

/// A watch begins with a list, which the API server allows by name where it asks for that name alone.
fn settings_rules() -> Value {
    json!([named("", "configmaps", SETTINGS, &["get", "list", "watch"])])
}

fn group(name: &str) -> Value {
    json!({"apiGroup": API, "kind": "Group", "name": name})
}
