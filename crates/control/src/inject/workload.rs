//! Where the pod template is in the objects that have one.
//!
//! Deliberately absent: custom resources of operators; whoever makes pods of them is met by the webhook.

use serde_json::Value;

use super::PREFIX;

/// The path to the template.
fn path(object: &Value) -> Option<&'static str> {
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
    match (text("apiVersion"), text("kind")) {
        ("v1", "Pod") => Some(""),
        ("apps/v1", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet")
        | ("batch/v1", "Job")
        | ("v1", "ReplicationController") => Some("/spec/template"),
        ("batch/v1", "CronJob") => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

/// The pod template of an object; of a pod, itself.
#[must_use]
pub fn template(object: &Value) -> Option<&Value> {
    object.pointer(path(object)?)
}

/// The same, to be replaced.
pub fn template_mut(object: &mut Value) -> Option<&mut Value> {
    let path = path(object)?;
    object.pointer_mut(path)
}

/// Annotations of ours on an object whose pods they do not reach: on a Deployment instead of its template.
#[must_use]
pub fn asks_outside_template(object: &Value) -> Vec<String> {
    if path(object).is_none_or(str::is_empty) {
        return Vec::new();
    }
    let annotations = object.pointer("/metadata/annotations").and_then(Value::as_object);
    let ours = annotations.into_iter().flat_map(|all| all.keys()).filter(|name| name.starts_with(PREFIX));
    ours.cloned().collect()
}
