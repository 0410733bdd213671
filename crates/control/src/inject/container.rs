//! The container, as a native sidecar (an init container that is kept up), and its volumes. It satisfies the Pod Security
//! Standard `restricted` whatever the pod around it does.
//!
//! Deliberately absent: environment variables, rights on the API, and probes that depend on what is behind the sidecar.

use serde_json::{Map, Value, json};

use super::annotations::Wish;
use super::postgres::{SOCKET_DIRECTORY, Socket};
use super::record::{Before, Record};
use super::{ADMIN_PORT, CONTAINER, ISSUER_CA, SIDECAR_CONFIG, containers, list_of, name_of};

const DIRECTORY: &str = "/var/run/sidegate";
pub(super) const CA_FILE: &str = "/var/run/sidegate/ca.pem";
pub(super) const TOKEN_FILE: &str = "/var/run/sidegate/token";
pub(super) const SETTINGS_DIRECTORY: &str = "/etc/sidegate/auth-settings";
const CONFIGURATION_FILE: &str = "/var/run/sidegate/sidecar.yaml";
/// The ConfigMap of a service's settings.
const SETTINGS: &str = "auth-settings";
const SETTINGS_VOLUME: &str = "sidegate-auth-settings";
/// Every volume of ours is called so, or begins so.
const VOLUMES: &str = "sidegate-";
/// An hour, in seconds: what Kubernetes gives by default, and renews at 80 %.
const TOKEN_LIFE: u32 = 3600;
/// The image's user.
const USER: u32 = 65532;
/// A second apart, half a minute: a sidecar is up in a tenth of a second, on a node under load in a few.
const STARTUP_ATTEMPTS: u32 = 30;
/// Kubernetes allows names of ports this long.
const PORT_NAME_MAX: usize = 15;
/// Ports below it need a privilege, unless the node says otherwise (containerd 2 does).
const FIRST_UNPRIVILEGED: u16 = 1024;

/// Whether there is room for it.
pub(super) fn check(template: &Value, wish: &Wish, errors: &mut Vec<String>, warnings: &mut Vec<String>) {
    let Some(spec) = template.get("spec").and_then(Value::as_object) else { return };
    for list in ["containers", "initContainers"] {
        if names(spec, list).any(|name| name == CONTAINER) {
            errors.push(format!("spec.{list}: one is called {CONTAINER}, as the sidecar is; rename it"));
        }
    }
    for name in names(spec, "volumes").filter(|name| *name == CONTAINER || name.starts_with(VOLUMES)) {
        errors.push(format!("spec.volumes: {name} is a name of the sidecar's; rename it"));
    }
    let ours = wish.inbound_ports().into_iter().map(|(port, _)| port).chain(wish.outbound_ports()).chain([ADMIN_PORT]);
    for port in ours {
        if port < FIRST_UNPRIVILEGED {
            warnings
                .push(format!("port {port} is below {FIRST_UNPRIVILEGED}: not every node lets the sidecar have it"));
        }
        for container in containers(spec).filter(|container| declares(container, port) && !is_postgres_port(wish, port))
        {
            warnings.push(format!(
                "container {} names port {port}, where the sidecar listens now: it must not listen there itself",
                name_of(container)
            ));
        }
    }
}

/// PostgreSQL gives its port up; its declaration may stay.
fn is_postgres_port(wish: &Wish, port: u16) -> bool {
    wish.inbound_ports().contains(&(port, "postgres"))
}

/// Puts it in, first: what starts before it would find no way out.
pub(super) fn add(template: &mut Value, wish: &Wish, issuer_url: &str, socket: Option<&Socket>, record: &mut Record) {
    let Some(spec) = template.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let sidecar = container(spec, wish, socket);
    record.init_containers = Before::of(spec.get("initContainers"));
    if let Some(list) = list_of(spec, "initContainers") {
        list.insert(0, sidecar);
    }
    record.volumes = Before::of(spec.get("volumes"));
    if let Some(list) = list_of(spec, "volumes") {
        list.extend(volumes(issuer_url));
        list.extend(socket.and_then(Socket::own_volume));
    }
}

fn container(spec: &Map<String, Value>, wish: &Wish, socket: Option<&Socket>) -> Value {
    let mut args = vec!["sidecar", "--config", CONFIGURATION_FILE];
    args.extend(wish.log_level.as_deref().into_iter().flat_map(|level| ["--log", level]));
    let mut mounts = vec![
        json!({"name": CONTAINER, "mountPath": DIRECTORY, "readOnly": true}),
        json!({"name": SETTINGS_VOLUME, "mountPath": SETTINGS_DIRECTORY, "readOnly": true}),
    ];
    // To connect to a socket, it need not be written to.
    mounts
        .extend(socket.map(|socket| json!({"name": socket.volume(), "mountPath": SOCKET_DIRECTORY, "readOnly": true})));
    json!({
        "name": CONTAINER,
        "image": wish.image,
        "args": args,
        "restartPolicy": "Always",
        "ports": ports(spec, wish),
        "startupProbe": {"httpGet": {"path": "/healthz", "port": ADMIN_PORT}, "periodSeconds": 1, "failureThreshold": STARTUP_ATTEMPTS},
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": ADMIN_PORT}, "periodSeconds": 10, "failureThreshold": 3},
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": ADMIN_PORT}, "periodSeconds": 2, "failureThreshold": 2},
        "resources": resources(wish),
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false,
            "privileged": false,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": mounts,
    })
}

/// Ports that no other container declares: Services and probes may go by the names that are there.
fn ports(spec: &Map<String, Value>, wish: &Wish) -> Vec<Value> {
    let listeners = wish.inbound_ports().into_iter();
    let undeclared = listeners.filter(|(port, _)| !containers(spec).any(|container| declares(container, *port)));
    let named = undeclared.map(|(port, protocol)| (port, port_name(protocol, port)));
    let admin = (ADMIN_PORT, "sidegate-admin".to_owned());
    named.chain([admin]).map(|(port, name)| json!({"name": name, "containerPort": port, "protocol": "TCP"})).collect()
}

/// Unique in the container, as ports are.
fn port_name(protocol: &str, port: u16) -> String {
    let name = format!("{protocol}-{port}");
    if name.len() > PORT_NAME_MAX { format!("sg-{port}") } else { name }
}

fn declares(container: &Value, port: u16) -> bool {
    let ports = container.get("ports").and_then(Value::as_array).into_iter().flatten();
    let tcp = |declared: &&Value| declared.get("protocol").and_then(Value::as_str).unwrap_or("TCP") == "TCP";
    let mut numbers = ports.filter(tcp).filter_map(|declared| declared.get("containerPort").and_then(Value::as_u64));
    numbers.any(|number| number == u64::from(port))
}

fn resources(wish: &Wish) -> Value {
    let asked = &wish.resources;
    let mut limits = Map::new();
    limits.insert("memory".to_owned(), json!(asked.memory_limit));
    if let Some(cpu) = &asked.cpu_limit {
        limits.insert("cpu".to_owned(), json!(cpu));
    }
    json!({"requests": {"cpu": asked.cpu_request, "memory": asked.memory_request}, "limits": limits})
}

/// The token's audience is the issuer, so that nobody else will take it.
fn volumes(issuer_url: &str) -> [Value; 2] {
    let annotation = |path: &str, name: &str| {
        let field = format!("metadata.annotations['{name}']");
        json!({"downwardAPI": {"items": [{"path": path, "fieldRef": {"fieldPath": field}}]}})
    };
    let token =
        json!({"serviceAccountToken": {"path": "token", "audience": issuer_url, "expirationSeconds": TOKEN_LIFE}});
    let sources = [token, annotation("sidecar.yaml", SIDECAR_CONFIG), annotation("ca.pem", ISSUER_CA)];
    [
        json!({"name": CONTAINER, "projected": {"sources": sources}}),
        json!({"name": SETTINGS_VOLUME, "configMap": {"name": SETTINGS, "optional": true}}),
    ]
}

fn names<'a>(spec: &'a Map<String, Value>, list: &str) -> impl Iterator<Item = &'a str> {
    spec.get(list).and_then(Value::as_array).into_iter().flatten().map(name_of)
}
