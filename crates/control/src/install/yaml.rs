//! Manifests as YAML. Each goes through its type, so that what Kubernetes has no field for cannot be written, and fields come
//! in the order of people who write them.

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::DynamicObject;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A manifest that cannot be written. It is our mistake: a test holds that there is none.
#[derive(Debug, thiserror::Error)]
pub enum YamlError {
    /// It does not fit its type.
    #[error("{0} is no manifest of its kind: {1}")]
    Shape(String, serde_json::Error),
    /// It cannot be YAML.
    #[error("{0} cannot be written as YAML: {1}")]
    Write(String, String),
    /// Its type has no field for something in it.
    #[error("{0} has a field that its kind does not know")]
    Lossy(String),
}

/// All of them, one document each.
pub(super) fn documents(manifests: &[Value]) -> Result<String, YamlError> {
    manifests.iter().map(|manifest| Ok(format!("---\n{}", document(manifest)?))).collect()
}

fn document(manifest: &Value) -> Result<String, YamlError> {
    match manifest.get("kind").and_then(Value::as_str).unwrap_or_default() {
        "Namespace" => typed::<Namespace>(manifest),
        "CustomResourceDefinition" => typed::<CustomResourceDefinition>(manifest),
        "ClusterRole" => typed::<ClusterRole>(manifest),
        "ClusterRoleBinding" => typed::<ClusterRoleBinding>(manifest),
        "Role" => typed::<Role>(manifest),
        "RoleBinding" => typed::<RoleBinding>(manifest),
        "ServiceAccount" => typed::<ServiceAccount>(manifest),
        "Secret" => typed::<Secret>(manifest),
        "ConfigMap" => typed::<ConfigMap>(manifest),
        "Lease" => typed::<Lease>(manifest),
        "Service" => typed::<Service>(manifest),
        "Deployment" => typed::<Deployment>(manifest),
        "PodDisruptionBudget" => typed::<PodDisruptionBudget>(manifest),
        "NetworkPolicy" => typed::<NetworkPolicy>(manifest),
        "MutatingWebhookConfiguration" => typed::<MutatingWebhookConfiguration>(manifest),
        _ => typed::<DynamicObject>(manifest),
    }
}

fn typed<T: DeserializeOwned + Serialize>(manifest: &Value) -> Result<String, YamlError> {
    let word = |path| manifest.pointer(path).and_then(Value::as_str).unwrap_or("?");
    let name = || format!("{} {}", word("/kind"), word("/metadata/name"));
    let typed: T = serde_json::from_value(manifest.clone()).map_err(|error| YamlError::Shape(name(), error))?;
    let again = serde_json::to_value(&typed).map_err(|error| YamlError::Shape(name(), error))?;
    if again != *manifest {
        return Err(YamlError::Lossy(name()));
    }
    serde_saphyr::to_string(&typed).map_err(|error| YamlError::Write(name(), error.to_string()))
}
