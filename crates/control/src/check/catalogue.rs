//! Every check: its id, which stays, and what is said when it is well.
//!
//! Deliberately absent: what each means and what to do, which is in docs/KUBERNETES.md (a test holds the two together).

/// Areas, in the order of a report.
const AREAS: [(&str, &str); 10] = [
    ("cluster", "kubernetes-api"),
    ("pre", "before-install"),
    ("crd", "custom-resources"),
    ("rbac", "rights"),
    ("issuer", "issuer"),
    ("injector", "injector"),
    ("document", "access-documents"),
    ("settings", "auth-settings"),
    ("sidecar", "sidecars"),
    ("bypass", "nobody-gets-round-the-sidecar"),
];

/// Every check's id and title.
pub(super) const CHECKS: [(&str, &str); 47] = [
    ("cluster.reachable", "the API server answers"),
    ("cluster.version", "the cluster has native sidecars (1.29 or newer)"),
    ("cluster.clock", "this machine and the API server agree on the time"),
    ("pre.may-install", "you may create what `sidegate install` prints"),
    ("pre.crds", "no custom resources of another version are in the way"),
    ("pre.pod-security", "Pod Security admission lets our pods in"),
    ("crd.exists", "the custom resources are defined"),
    ("crd.established", "the API server serves them"),
    ("crd.schema", "their schema is this version's"),
    ("rbac.enough", "the system's service accounts may do what they need to"),
    ("rbac.least", "the system's service accounts may not do more"),
    ("issuer.deployment", "the issuer's Deployment is available, with all replicas"),
    ("issuer.version", "the issuer is of this version"),
    ("issuer.ready", "the issuer is ready"),
    ("issuer.keys", "the issuer has signing keys and authorities in force"),
    ("issuer.cluster-keys", "the issuer knows the keys of the cluster's service accounts"),
    ("issuer.documents", "the issuer has AccessRoles and AccessGrants in force"),
    ("issuer.clock", "the issuer's clock is right"),
    ("issuer.trust-bundle", "the sidecars' trust bundle is filled"),
    ("injector.deployment", "the injector's Deployment is available, with all replicas"),
    ("injector.version", "the injector is of this version"),
    ("injector.webhook", "the webhook is registered"),
    ("injector.ca", "the webhook's caBundle vouches for its certificate"),
    ("injector.certificate", "the webhook's certificate is good for a while"),
    ("injector.endpoints", "the webhook's Service has ready endpoints"),
    ("injector.failure-policy", "no pod gets past the webhook while it is away"),
    ("document.accepted", "AccessRoles and AccessGrants are understood"),
    ("document.programmed", "AccessRoles and AccessGrants are in force"),
    ("settings.understood", "settings are understood"),
    ("settings.enforcing", "settings sign and verify"),
    ("sidecar.missing", "pods that ask for a sidecar have one"),
    ("sidecar.ready", "sidecars are ready"),
    ("sidecar.restarts", "sidecars were not restarted"),
    ("sidecar.version", "sidecars are of this version"),
    ("sidecar.config", "sidecars' configurations are valid"),
    ("sidecar.settings", "sidecars do what the settings say"),
    ("sidecar.certificate", "sidecars' certificates are good for a while"),
    ("sidecar.clock", "sidecars' clocks are right"),
    ("bypass.listen-addresses", "PostgreSQL is told to listen on no TCP port"),
    ("bypass.listeners", "nothing but the sidecar listens in the pod's network (measured)"),
    ("bypass.service", "Services lead to the sidecar"),
    ("bypass.network-policy", "a NetworkPolicy limits who reaches the pod"),
    ("bypass.host-network", "the pod has a network of its own"),
    ("bypass.process-namespace", "no other container sees PostgreSQL's processes"),
    ("bypass.socket", "nobody else has the directory of PostgreSQL's socket"),
    ("bypass.data", "no other pod has PostgreSQL's data"),
    ("bypass.debug", "no debug container is in the pod"),
];

/// The heading of an area.
pub(super) fn area_title(area: &str) -> &str {
    AREAS.iter().find(|(id, _)| *id == area).map_or(area, |(_, title)| *title)
}

/// What a check says when it is well.
pub(super) fn title(id: &str) -> &str {
    CHECKS.iter().find(|(known, _)| *known == id).map_or(id, |(_, title)| *title)
}
