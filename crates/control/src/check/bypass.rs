//! Proof that nobody gets round the sidecar: every way to PostgreSQL that is not the sidecar's is looked for.
//!
//! What is measured (ports that are open, by the sidecar itself) counts for more than what is written (arguments). Services
//! and other pods are `routes`. Deliberately absent: whoever may exec into the pod; that is a right of the API, to be given
//! or not.

use k8s_openapi::api::core::v1::{Container, Pod, Volume};
use kube::ResourceExt;

use super::facts::{Facts, Probe};
use super::objects::{
    CONTAINER, Wiring, declares, is_alive, lasting_containers, name_of, namespace_of, postgres_of, sidecar_of, wiring,
};
use super::{Findings, routes};

/// Ports on which PostgreSQL and its poolers listen by custom.
const POSTGRES_PORTS: [std::ops::RangeInclusive<u16>; 2] = [5432..=5439, 6432..=6439];
/// Where PostgreSQL makes its socket.
const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/run/postgresql"];
const SCRAPED: &str = "let the sidecar be of this version, with `admin: {listen: \"[::]:9901\"}`, and ask again";

/// A pod whose database a sidecar protects.
pub(super) struct Guarded<'a> {
    pub(super) pod: &'a Pod,
    pub(super) name: String,
    pub(super) wiring: Wiring,
    /// Ports on which somebody else listens, and whether other pods can reach them; none if nobody measured.
    pub(super) foreign: Option<Vec<(u16, bool)>>,
}

pub(super) fn check(facts: &Facts, findings: &mut Findings) {
    let Ok(pods) = &facts.pods else { return findings.unknown("bypass.listeners", "", "the pods could not be listed") };
    let with_sidecar = pods.iter().filter(|pod| is_alive(pod) && sidecar_of(pod).is_some());
    let guarded: Vec<_> = with_sidecar.filter_map(|pod| guard(pod, facts)).collect();
    let checks: [fn(&Guarded<'_>, &Facts, &mut Findings); 9] = [
        listen_addresses,
        listeners,
        routes::services,
        routes::policy,
        host_network,
        process_namespace,
        socket,
        routes::data,
        debug,
    ];
    for check in checks {
        guarded.iter().for_each(|pod| check(pod, facts, findings));
    }
}

/// By its configuration, or by what it measures: a sidecar looks for foreign listeners only before a database.
fn guard<'a>(pod: &'a Pod, facts: &Facts) -> Option<Guarded<'a>> {
    let samples = facts.probe(pod).and_then(Probe::samples);
    let measured = samples.filter(|samples| samples.value("sidegate_foreign_listener_ports").is_some());
    let port = |labels: &std::collections::BTreeMap<String, String>| {
        let reach = labels.get("reach").is_none_or(|reach| reach != "loopback");
        Some((labels.get("port")?.parse().ok()?, reach))
    };
    let foreign = measured.map(|samples| samples.labelled("sidegate_foreign_listeners").filter_map(port).collect());
    let wiring = wiring(pod);
    let is_guarded = wiring.as_ref().map_or(foreign.is_some(), Wiring::has_database);
    let wiring = wiring.unwrap_or_default();
    is_guarded.then(|| Guarded { pod, name: name_of(&pod.metadata), wiring, foreign })
}

/// What its arguments say, and its upstream: the sidecar goes by the socket only.
fn listen_addresses(guarded: &Guarded<'_>, _: &Facts, findings: &mut Findings) {
    let id = "bypass.listen-addresses";
    let by_tcp = guarded.wiring.databases().find(|inbound| !inbound.upstream.starts_with("unix:"));
    if let Some(inbound) = by_tcp {
        let message = format!("the sidecar itself reaches PostgreSQL by TCP, at {}: so do others", inbound.upstream);
        let remedy = "let upstream be unix:/var/run/postgresql/.s.PGSQL.5432, and PostgreSQL's listen_addresses empty";
        return findings.failed(id, &guarded.name, message, remedy);
    }
    let Some(postgres) = postgres_of(guarded.pod) else {
        let remedy = "name it in the annotation sidegate.dev/postgres-container";
        return findings.warning(id, &guarded.name, "no container looks like PostgreSQL", remedy);
    };
    match listen_setting(postgres) {
        Some("") => findings.ok(id, &guarded.name),
        Some(addresses) => {
            let message = format!("container {} has listen_addresses = '{addresses}'", postgres.name);
            findings.failed(id, &guarded.name, message, "take it out: sidegate inject adds -c listen_addresses=");
        }
        // It may be in its configuration file: what is measured decides.
        None if guarded.foreign.is_some() => findings.ok(id, &guarded.name),
        None => {
            let message = format!("container {} has no -c listen_addresses= among its arguments", postgres.name);
            findings.warning(id, &guarded.name, message, "add it, or set it in postgresql.conf and let it be measured");
        }
    }
}

/// The last word counts, as PostgreSQL has it.
fn listen_setting(container: &Container) -> Option<&str> {
    let words: Vec<_> = container.command.iter().chain(&container.args).flatten().collect();
    let mut values = words.iter().filter_map(|word| {
        let setting = word.trim_start_matches("--").trim_start_matches("-c").trim_start();
        let (name, value) = setting.split_once('=')?;
        (name.trim().replace('-', "_") == "listen_addresses").then(|| value.trim().trim_matches('\''))
    });
    let mut short = words.windows(2).filter_map(|pair| match pair {
        [option, value] if *option == "-h" => Some(value.as_str()),
        _ => None,
    });
    values.next_back().or_else(|| short.next_back())
}

/// What the sidecar sees in its network namespace.
fn listeners(guarded: &Guarded<'_>, _: &Facts, findings: &mut Findings) {
    let id = "bypass.listeners";
    let Some(foreign) = &guarded.foreign else {
        return findings.unknown(id, &guarded.name, &format!("the sidecar did not say who listens: {SCRAPED}"));
    };
    let mut well = true;
    for (port, by_network) in foreign {
        let from = if *by_network {
            "every pod that reaches this one"
        } else {
            "the containers of this pod, and kubectl port-forward"
        };
        let owner = declares(guarded.pod, *port);
        let postgres = postgres_of(guarded.pod);
        let is_postgres = POSTGRES_PORTS.iter().any(|range| range.contains(port))
            || owner.is_some_and(|owner| postgres.is_some_and(|postgres| postgres.name == owner.name));
        if is_postgres {
            let message = format!("port {port} is open to {from}, and PostgreSQL's by its number or declaration");
            let remedy = "set listen_addresses = '' (and move poolers before the sidecar), then make the pod anew";
            findings.failed(id, &guarded.name, message, remedy);
            well = false;
        } else if owner.is_none() {
            let message =
                format!("port {port} is open to {from}, and no container declares it: it may lead to the database");
            let remedy = "find who listens, and declare the port in its container if it leads nowhere near the data";
            findings.warning(id, &guarded.name, message, remedy);
            well = false;
        }
    }
    if well {
        findings.ok(id, &guarded.name);
    }
}

fn host_network(guarded: &Guarded<'_>, _: &Facts, findings: &mut Findings) {
    let id = "bypass.host-network";
    if guarded.pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true) {
        let message = "hostNetwork: its ports are the node's, for every process there";
        return findings.failed(id, &guarded.name, message, "take hostNetwork out of the pod's template");
    }
    let ports = lasting_containers(guarded.pod).flat_map(|container| container.ports.iter().flatten());
    let sidecars = guarded.wiring.ports();
    let open = |port: i32| u16::try_from(port).is_ok_and(|port| !sidecars.contains(&port));
    match ports.into_iter().find(|port| port.host_port.is_some() && open(port.container_port)) {
        None => findings.ok(id, &guarded.name),
        Some(port) => {
            let message = format!("port {} is opened on the node, and is not the sidecar's", port.container_port);
            findings.warning(id, &guarded.name, message, "take its hostPort out of the pod's template");
        }
    }
}

fn process_namespace(guarded: &Guarded<'_>, _: &Facts, findings: &mut Findings) {
    let id = "bypass.process-namespace";
    let spec = guarded.pod.spec.as_ref();
    if spec.and_then(|spec| spec.share_process_namespace) != Some(true)
        && spec.and_then(|spec| spec.host_pid) != Some(true)
    {
        return findings.ok(id, &guarded.name);
    }
    let message =
        "processes are shared: another container of the same user reaches PostgreSQL's files and socket by /proc";
    findings.warning(id, &guarded.name, message, "take shareProcessNamespace (and hostPID) out of the pod's template");
}

/// The volumes that PostgreSQL's socket may be in: what it has mounted there, and what the sidecar's upstream is below.
fn socket(guarded: &Guarded<'_>, _: &Facts, findings: &mut Findings) {
    let id = "bypass.socket";
    let Some(postgres) = postgres_of(guarded.pod) else { return };
    let below = |path: &str| {
        guarded.wiring.databases().any(|inbound| {
            inbound.upstream.strip_prefix("unix:").is_some_and(|socket| socket.starts_with(&format!("{path}/")))
        })
    };
    let mounted = postgres.volume_mounts.iter().flatten();
    let sockets: Vec<_> = mounted
        .filter(|mount| {
            let path = mount.mount_path.trim_end_matches('/');
            SOCKET_DIRECTORIES.contains(&path) || below(path)
        })
        .map(|mount| mount.name.as_str())
        .collect();
    let mounts = |container: &&Container| {
        let own = container.name == CONTAINER || container.name == postgres.name;
        !own && container.volume_mounts.iter().flatten().any(|mount| sockets.contains(&mount.name.as_str()))
    };
    let others: Vec<_> =
        lasting_containers(guarded.pod).filter(mounts).map(|container| container.name.as_str()).collect();
    let on_node =
        volumes(guarded.pod).any(|volume| volume.host_path.is_some() && sockets.contains(&volume.name.as_str()));
    if on_node {
        let message = "it is a hostPath: every process of the node that may, connects past the sidecar";
        findings.failed(id, &guarded.name, message, "let it be an emptyDir, as sidegate inject makes one");
    } else if others.is_empty() {
        findings.ok(id, &guarded.name);
    } else {
        let message = format!("container {} has it, too: it connects past the sidecar", others.join(", "));
        let remedy =
            "take the mount out; or, if it must (a backup, an exporter), know that PostgreSQL's GRANTs alone limit it";
        findings.warning(id, &guarded.name, message, remedy);
    }
}

pub(super) fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten())
}

fn debug(guarded: &Guarded<'_>, _: &Facts, findings: &mut Findings) {
    let spec = guarded.pod.spec.as_ref();
    if spec.and_then(|spec| spec.ephemeral_containers.as_ref()).is_none_or(Vec::is_empty) {
        return findings.ok("bypass.debug", &guarded.name);
    }
    let message = "somebody put a debug container in: it is in the pod's network, beside PostgreSQL";
    let remedy = format!(
        "when it is no longer needed, make the pod anew: kubectl delete pod -n {} {}",
        namespace_of(&guarded.pod.metadata),
        guarded.pod.name_any()
    );
    findings.warning("bypass.debug", &guarded.name, message, remedy);
}
