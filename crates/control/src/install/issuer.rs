//! The issuer: its rights, the objects that it fills, and what runs it.

use serde_json::{Value, json};

use super::pods::{self, Component, Run};
use super::rights::{in_cluster, in_namespace, named};
use super::{Options, metadata};
use crate::crds::GROUP;

const COMPONENT: &str = "issuer";
pub(super) const NAME: &str = "sidegate-issuer";
const KEYS: &str = "sidegate-issuer-keys";
pub(super) const TRUST_BUNDLE: &str = "sidegate-trust-bundle";
/// Room for thousands of roles and grants; idle it takes a tenth.
const MEMORY_MEBIBYTES: u32 = 128;

pub(super) fn manifests(options: &Options) -> Vec<Value> {
    let mut all = Vec::from(in_cluster(options, COMPONENT, NAME, cluster_rules()));
    all.extend(in_namespace(options, COMPONENT, NAME, namespace_rules()));
    all.extend(to_fill(options));
    all.extend(pods::manifests(
        options,
        &Component {
            component: COMPONENT,
            name: NAME,
            configuration: configuration(options),
            memory_mebibytes: MEMORY_MEBIBYTES,
            run: Run::Asked,
        },
    ));
    all
}

/// The URL of the issuer: what tokens bear as `iss`.
pub(super) fn url(options: &Options) -> String {
    format!("https://{NAME}.{}.svc", options.namespace)
}

fn cluster_rules() -> Value {
    json!([
        {"apiGroups": [GROUP], "resources": ["accessroles", "accessgrants"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [GROUP], "resources": ["accessroles/status", "accessgrants/status"], "verbs": ["patch"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
        {"nonResourceURLs": ["/.well-known/openid-configuration", "/openid/v1/jwks"], "verbs": ["get"]},
    ])
}

fn namespace_rules() -> Value {
    json!([
        named("", "secrets", KEYS, &["get", "list", "watch", "update"]),
        named("coordination.k8s.io", "leases", NAME, &["get", "update"]),
        named("", "configmaps", TRUST_BUNDLE, &["get", "update"]),
    ])
}

/// Empty: the issuer has no right to make them, only to write these.
fn to_fill(options: &Options) -> [Value; 3] {
    [
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata(options, COMPONENT, KEYS), "type": "Opaque"}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(options, COMPONENT, TRUST_BUNDLE)}),
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata(options, COMPONENT, NAME),
        }),
    ]
}

fn configuration(options: &Options) -> String {
    let (url, Options { namespace, trust_domain, .. }) = (url(options), options);
    format!(
        "url: {url}\n\
         listen: \"[::]:8443\"\n\
         admin: {{listen: \"[::]:9901\"}}\n\
         kubernetes:\n  \
           namespace: {namespace}\n  \
           secret: {KEYS}\n  \
           lease: {NAME}\n  \
           trust_bundle: {TRUST_BUNDLE}\n\
         tls: {{from: root}}\n\
         subject_tokens: {{from: kubernetes}}\n\
         certificates:\n  \
           trust_domain: {trust_domain}\n"
    )
}
