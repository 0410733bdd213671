//! Ways to a database from outside its pod: Services, the network as a whole, and other pods with the same data.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;

use super::Findings;
use super::bypass::{Guarded, volumes};
use super::facts::Facts;
use super::objects::{declares, is_alive, name_of, namespace_of, postgres_of, selects, target_port};

/// The sidecar's metrics and health, which are no way to the database.
const ADMIN_PORT: u16 = 9901;

/// Every Service that selects the pod, port by port.
pub(super) fn services(guarded: &Guarded<'_>, facts: &Facts, findings: &mut Findings) {
    let id = "bypass.service";
    let Some(all) = findings.asked(id, &guarded.name, &facts.services) else { return };
    let mut well = true;
    for service in all.iter().filter(|service| leads_to(service, guarded.pod)) {
        let spec = service.spec.as_ref();
        for port in spec.into_iter().flat_map(|spec| spec.ports.iter().flatten()) {
            let target = target_port(guarded.pod, port.target_port.as_ref(), port.port);
            if let Some(why) = target.and_then(|target| past_the_sidecar(guarded, target)) {
                let message = format!("Service {} port {} {why}", service.name_any(), port.port);
                let ports: Vec<_> = guarded.wiring.ports().iter().map(ToString::to_string).collect();
                let remedy = format!("let its targetPort be the sidecar's: {}", ports.join(", "));
                findings.failed(id, &guarded.name, message, remedy);
                well = false;
            }
        }
        if spec.and_then(|spec| spec.type_.as_deref()).is_some_and(|kind| matches!(kind, "NodePort" | "LoadBalancer")) {
            let message = format!("Service {} opens it to the world outside the cluster", service.name_any());
            let remedy = "let it be a ClusterIP, unless callers outside have tokens of their own (sidegate token)";
            findings.warning(id, &guarded.name, message, remedy);
            well = false;
        }
    }
    if well {
        findings.ok(id, &guarded.name);
    }
}

fn leads_to(service: &Service, pod: &Pod) -> bool {
    let selector =
        service.spec.as_ref().and_then(|spec| spec.selector.as_ref()).filter(|selector| !selector.is_empty());
    service.metadata.namespace == pod.metadata.namespace
        && selector.is_some_and(|selector| selector.iter().all(|(name, value)| pod.labels().get(name) == Some(value)))
}

/// Why a port is not the sidecar's; none if it is, or leads nowhere near the database.
fn past_the_sidecar(guarded: &Guarded<'_>, target: u16) -> Option<String> {
    let sidecars = guarded.wiring.ports();
    if sidecars.contains(&target) || target == ADMIN_PORT || sidecars.is_empty() {
        return None;
    }
    let postgres = postgres_of(guarded.pod)?;
    let owner = declares(guarded.pod, target);
    let is_open = guarded.foreign.as_ref().is_some_and(|foreign| foreign.iter().any(|(port, _)| *port == target));
    match owner {
        Some(owner) if owner.name == postgres.name => {
            Some(format!("leads to port {target} of PostgreSQL's own container"))
        }
        Some(_) => None,
        None if is_open => {
            Some(format!("leads to port {target}, which is not the sidecar's, and somebody listens there"))
        }
        None => None,
    }
}

/// Without one, whoever has a route to the pod reaches what in it listens now and what will listen one day.
pub(super) fn policy(guarded: &Guarded<'_>, facts: &Facts, findings: &mut Findings) {
    let id = "bypass.network-policy";
    let Some(all) = findings.asked(id, &guarded.name, &facts.policies) else { return };
    let limits =
        all.iter().filter(|policy| policy.metadata.namespace == guarded.pod.metadata.namespace).any(|policy| {
            let spec = policy.spec.as_ref();
            // Ingress is what a policy is about if it does not say.
            let ingress = spec.is_some_and(|spec| {
                spec.policy_types.as_ref().is_none_or(|types| types.iter().any(|kind| kind == "Ingress"))
            });
            let selector = spec.and_then(|spec| spec.pod_selector.as_ref());
            // A selector that is left out is an empty one here: it means all pods.
            ingress && (selector.is_none() || selects(selector, guarded.pod.labels()))
        });
    if limits {
        return findings.ok(id, &guarded.name);
    }
    let message = "none selects it: every pod of the cluster reaches every port that is open in it";
    findings.warning(
        id,
        &guarded.name,
        message,
        format!("apply (and see that the cluster's network enforces policies):\n{}", suggestion(guarded)),
    );
}

/// A policy that lets callers reach the sidecar's ports, and Prometheus and `sidegate check` its metrics.
fn suggestion(guarded: &Guarded<'_>) -> String {
    /// Labels that a controller gives each pod or revision: selected by them, the next pod would be open.
    const PASSING: [&str; 5] = [
        "pod-template-hash",
        "controller-revision-hash",
        "statefulset.kubernetes.io/pod-name",
        "apps.kubernetes.io/pod-index",
        "sidegate.dev/injected",
    ];
    let labels = guarded.pod.labels().iter().filter(|(name, _)| !PASSING.contains(&name.as_str()));
    let labels: Vec<_> = labels.map(|(name, value)| format!("{name}: {value:?}")).collect();
    let name = postgres_of(guarded.pod).map_or("database", |postgres| postgres.name.as_str());
    let ports = guarded.wiring.ports().into_iter().chain([ADMIN_PORT]);
    let ports: Vec<_> = ports.map(|port| format!("{{protocol: TCP, port: {port}}}")).collect();
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {{name: sidegate-{name}, namespace: {}}}\n\
         spec:\n  podSelector: {{matchLabels: {{{}}}}}\n  policyTypes: [Ingress]\n  ingress:\n  - ports: [{}]",
        namespace_of(&guarded.pod.metadata),
        labels.join(", "),
        ports.join(", ")
    )
}

/// Pods that mount the same claims as PostgreSQL, and so have its files.
pub(super) fn data(guarded: &Guarded<'_>, facts: &Facts, findings: &mut Findings) {
    let id = "bypass.data";
    let (claims, Ok(pods)) = (claims_of_postgres(guarded.pod), &facts.pods) else { return };
    let same_namespace = |pod: &&Pod| pod.metadata.namespace == guarded.pod.metadata.namespace;
    let others = pods
        .iter()
        .filter(same_namespace)
        .filter(|pod| pod.metadata.name != guarded.pod.metadata.name && is_alive(pod));
    let sharing: Vec<_> = others
        .filter(|pod| volumes(pod).any(|volume| claim(volume).is_some_and(|name| claims.contains(name))))
        .map(|pod| name_of(&pod.metadata))
        .collect();
    if sharing.is_empty() {
        return findings.ok(id, &guarded.name);
    }
    let message = format!("{} mounts the same volume: it reads the data without asking anybody", sharing.join(", "));
    findings.warning(id, &guarded.name, message, "take the volume out of it, unless it is a backup that must have it");
}

fn claims_of_postgres(pod: &Pod) -> BTreeSet<&str> {
    let mounted: BTreeSet<_> = postgres_of(pod)
        .into_iter()
        .flat_map(|postgres| postgres.volume_mounts.iter().flatten())
        .map(|mount| mount.name.as_str())
        .collect();
    volumes(pod).filter(|volume| mounted.contains(volume.name.as_str())).filter_map(claim).collect()
}

fn claim(volume: &k8s_openapi::api::core::v1::Volume) -> Option<&str> {
    Some(volume.persistent_volume_claim.as_ref()?.claim_name.as_str())
}
