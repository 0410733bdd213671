//! Pods as sidecars.
//!
//! Deliberately absent: asking them.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::check::objects::{is_alive, wiring};
use crate::console::config::Sidecar;

/// Those that are alive and say whose they are, by name.
pub(super) fn sidecars(pods: &[Arc<Pod>]) -> Vec<Sidecar> {
    let mut all: Vec<Sidecar> = pods.iter().filter(|pod| is_alive(pod)).filter_map(|pod| sidecar(pod)).collect();
    all.sort_by(|a, b| a.admin.cmp(&b.admin));
    all
}

fn sidecar(pod: &Pod) -> Option<Sidecar> {
    let service = wiring(pod)?.service.parse().ok()?;
    let (namespace, name) = (pod.metadata.namespace.as_ref()?, pod.metadata.name.clone()?);
    Some(Sidecar { service, admin: format!("{namespace}/{name}"), pod: name, decision_log: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_that_say_whose_they_are_are_sidecars() {
        let pod = |name: &str, configuration: &str, phase: &str| {
            let value = json!({
                "metadata": {"namespace": "b", "name": name, "annotations": {"sidegate.dev/sidecar-config": configuration}},
                "status": {"phase": phase},
            });
            Arc::new(serde_json::from_value::<Pod>(value).unwrap())
        };
        let found = sidecars(&[
            pod("two", "service: b/orders", "Running"),
            pod("one", "service: b/orders", "Pending"),
            pod("odd", "service: 7 8", "Running"),
            pod("gone", "service: b/orders", "Succeeded"),
        ]);
        let found: Vec<_> = found.iter().map(|one| (one.admin.as_str(), one.service.to_string())).collect();
        assert_eq!(found, [("b/one", "b/orders".to_owned()), ("b/two", "b/orders".to_owned())]);
    }
}
