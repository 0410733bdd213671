//! What objects of the API say, where they say it in a roundabout way: names, selectors, ports, containers of a pod.
//!
//! Deliberately absent: any finding.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use serde::Deserialize;

/// The sidecar's container.
pub(super) const CONTAINER: &str = "sidegate";
/// The sidecar's configuration, as it was injected.
const CONFIGURATION: &str = "sidegate.dev/sidecar-config";
/// What an injection changed.
const INJECTED: &str = "sidegate.dev/injected";
/// Which container is PostgreSQL, where it was said.
const POSTGRES_CONTAINER: &str = "sidegate.dev/postgres-container";

/// `NAMESPACE/NAME`.
pub(super) fn name_of(metadata: &ObjectMeta) -> String {
    let name = metadata.name.as_deref().unwrap_or_default();
    match &metadata.namespace {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}

pub(super) fn namespace_of(metadata: &ObjectMeta) -> &str {
    metadata.namespace.as_deref().unwrap_or_default()
}

/// Whether it runs, or will.
pub(crate) fn is_alive(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    pod.metadata.deletion_timestamp.is_none() && !matches!(phase, "Succeeded" | "Failed")
}

/// All containers of a pod: those of its start, too, as a native sidecar is one of them.
pub(super) fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.iter();
    spec.flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers))
}

/// Those that go on running.
pub(super) fn lasting_containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let native: fn(&&Container) -> bool = |container| container.restart_policy.as_deref() == Some("Always");
    let spec = pod.spec.iter();
    spec.flat_map(move |spec| spec.init_containers.iter().flatten().filter(native).chain(&spec.containers))
}

pub(super) fn sidecar_of(pod: &Pod) -> Option<&Container> {
    containers(pod).find(|container| container.name == CONTAINER)
}

pub(super) fn status_of<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let lists = [&status.init_container_statuses, &status.container_statuses];
    lists.into_iter().flatten().flatten().find(|status| status.name == container)
}

pub(super) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The version in an image's name; none where it is called otherwise, `latest`, `1` or by its digest.
pub(super) fn image_version(container: &Container) -> Option<&str> {
    let image = container.image.as_deref()?.split('@').next()?;
    let (_, tag) = image.rsplit('/').next()?.split_once(':')?;
    let version = tag.trim_start_matches('v');
    let is_version = version.starts_with(|first: char| first.is_ascii_digit()) && version.matches('.').count() >= 2;
    is_version.then_some(version)
}

/// What a check needs of a sidecar's configuration. It is read loosely here; the sidecar's own reader is `Facts::validate`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Wiring {
    #[serde(default)]
    pub(crate) service: String,
    #[serde(default)]
    pub(super) inbound: Vec<Inbound>,
    pub(super) settings: Option<serde::de::IgnoredAny>,
    pub(super) certificates: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Inbound {
    #[serde(default)]
    pub(super) protocol: String,
    #[serde(default)]
    pub(super) listen: String,
    #[serde(default)]
    pub(super) upstream: String,
}

impl Inbound {
    fn leads_to_a_database(&self) -> bool {
        matches!(self.protocol.as_str(), "postgres" | "query")
    }

    fn port(&self) -> Option<u16> {
        self.listen.rsplit_once(':')?.1.parse().ok()
    }
}

impl Wiring {
    pub(super) fn has_database(&self) -> bool {
        self.databases().next().is_some()
    }

    pub(super) fn databases(&self) -> impl Iterator<Item = &Inbound> {
        self.inbound.iter().filter(|inbound| inbound.leads_to_a_database())
    }

    /// The ports on which the sidecar is reached.
    pub(super) fn ports(&self) -> BTreeSet<u16> {
        self.inbound.iter().filter_map(Inbound::port).collect()
    }
}

/// The text of a sidecar's configuration.
pub(super) fn configuration(pod: &Pod) -> Option<&str> {
    pod.annotations().get(CONFIGURATION).map(String::as_str)
}

/// The same, read; none if there is none or it is no YAML.
pub(crate) fn wiring(pod: &Pod) -> Option<Wiring> {
    serde_saphyr::from_str(configuration(pod)?).ok()
}

/// The container that is PostgreSQL: as the injection found it, or else the one that looks like it.
pub(super) fn postgres_of(pod: &Pod) -> Option<&Container> {
    #[derive(Deserialize)]
    struct Record {
        postgres: Option<Named>,
    }
    #[derive(Deserialize)]
    struct Named {
        container: String,
    }
    let annotations = pod.annotations();
    let record: Option<Record> = annotations.get(INJECTED).and_then(|text| serde_json::from_str(text).ok());
    let named = record.and_then(|record| record.postgres).map(|postgres| postgres.container);
    let named = named.or_else(|| annotations.get(POSTGRES_CONTAINER).cloned());
    let others: Vec<_> = lasting_containers(pod).filter(|container| container.name != CONTAINER).collect();
    let found = match (&named, others.as_slice()) {
        (Some(named), others) => others.iter().find(|container| container.name == *named),
        (None, [only]) => Some(only),
        (None, others) => others.iter().find(|c| c.image.as_deref().is_some_and(|image| image.contains("postgres"))),
    };
    found.copied()
}

/// Whether a selector means an object with these labels. One that is missing means none, an empty one all.
pub(super) fn selects(selector: Option<&LabelSelector>, labels: &BTreeMap<String, String>) -> bool {
    let Some(selector) = selector else { return false };
    let equal = selector.match_labels.iter().flatten().all(|(name, value)| labels.get(name) == Some(value));
    let expressions = selector.match_expressions.iter().flatten();
    equal
        && expressions.into_iter().all(|wanted| {
            let value = labels.get(&wanted.key);
            let listed = value.is_some_and(|value| wanted.values.iter().flatten().any(|known| known == value));
            match wanted.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

/// The port of a pod that a Service's port leads to.
pub(super) fn target_port(pod: &Pod, target: Option<&IntOrString>, port: i32) -> Option<u16> {
    match target {
        None => u16::try_from(port).ok(),
        Some(IntOrString::Int(number)) => u16::try_from(*number).ok(),
        Some(IntOrString::String(name)) => {
            let ports = lasting_containers(pod).flat_map(|container| container.ports.iter().flatten());
            let named = ports.into_iter().find(|port| port.name.as_deref() == Some(name))?;
            u16::try_from(named.container_port).ok()
        }
    }
}

/// The first container that declares a port.
pub(super) fn declares(pod: &Pod, port: u16) -> Option<&Container> {
    let has = |container: &&Container| {
        container.ports.iter().flatten().any(|declared| declared.container_port == i32::from(port))
    };
    lasting_containers(pod).find(has)
}
