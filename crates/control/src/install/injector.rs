//! The injector: its rights, the objects that it fills, what runs it, and the webhook by which the API server asks it.

use serde_json::{Value, json};

use super::issuer::{self, TRUST_BUNDLE};
use super::pods::{self, Component, Run};
use super::rights::{in_cluster, in_namespace, named};
use super::{Options, metadata, metadata_of_cluster};

const COMPONENT: &str = "injector";
pub(super) const NAME: &str = "sidegate-injector";
const CERTIFICATE: &str = "sidegate-injector-tls";
const INJECT: &str = "sidegate.dev/inject";
/// Idle it takes a tenth; the rest is for bodies that were made to take much.
const MEMORY_MEBIBYTES: u32 = 128;
/// The API server waits so long for an answer at most; ours takes milliseconds.
const WEBHOOK_TIMEOUT_SECONDS: u32 = 10;

pub(super) fn manifests(options: &Options) -> Vec<Value> {
    let mut all = Vec::from(in_cluster(options, COMPONENT, NAME, cluster_rules()));
    all.extend(in_namespace(options, COMPONENT, NAME, namespace_rules()));
    all.push(certificate(options));
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
    all.push(webhook(options));
    all
}

/// It writes the authority of its certificate into the webhook's configuration, and nothing else there.
fn cluster_rules() -> Value {
    json!([named("admissionregistration.k8s.io", "mutatingwebhookconfigurations", NAME, &["get", "patch"])])
}

fn namespace_rules() -> Value {
    json!([
        named("", "secrets", CERTIFICATE, &["get", "list", "watch", "update"]),
        named("", "configmaps", TRUST_BUNDLE, &["get", "list", "watch"]),
    ])
}

/// Not of type `kubernetes.io/tls`, which may not be empty.
fn certificate(options: &Options) -> Value {
    let metadata = metadata(options, COMPONENT, CERTIFICATE);
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque"})
}

fn configuration(options: &Options) -> String {
    let (url, Options { namespace, image, trust_domain, .. }) = (issuer::url(options), options);
    format!(
        "listen: \"[::]:8443\"\n\
         admin: {{listen: \"[::]:9901\"}}\n\
         kubernetes:\n  \
           namespace: {namespace}\n  \
           secret: {CERTIFICATE}\n  \
           webhook: {NAME}\n  \
           service: {NAME}\n  \
           trust_bundle: {TRUST_BUNDLE}\n\
         defaults:\n  \
           image: {image}\n  \
           issuer_url: {url}\n  \
           trust_domain: {trust_domain}\n"
    )
}

/// A pod that should have a sidecar and gets none would be open, so no answer is a refusal; but our own pods, and the
/// cluster's, must start without us. `caBundle` is left out: the injector fills it in, and applying this again keeps it.
fn webhook(options: &Options) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": metadata_of_cluster(COMPONENT, NAME),
        "webhooks": [{
            "name": "inject.sidegate.dev",
            "clientConfig": {
                "service": {"name": NAME, "namespace": options.namespace, "path": "/mutate", "port": 443},
            },
            "rules": [{
                "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"],
                "scope": "Namespaced",
            }],
            "namespaceSelector": {
                "matchLabels": {INJECT: "enabled"},
                "matchExpressions": [{
                    "key": "kubernetes.io/metadata.name", "operator": "NotIn",
                    "values": [options.namespace, "kube-system"],
                }],
            },
            "objectSelector": {"matchExpressions": [{"key": INJECT, "operator": "NotIn", "values": ["disabled"]}]},
            "failurePolicy": "Fail",
            "matchPolicy": "Equivalent",
            "sideEffects": "None",
            "reinvocationPolicy": "IfNeeded",
            "timeoutSeconds": WEBHOOK_TIMEOUT_SECONDS,
            "admissionReviewVersions": ["v1"],
        }],
    })
}
