//! The issuer: that it runs, in all replicas and in one version, has keys, and knows the cluster's.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::Findings;
use super::cluster::SKEW_MAX;
use super::facts::{Facts, Probe};
use super::objects::{image_version, is_alive, name_of};
use super::scrape::Samples;

pub(super) const NAME: &str = "sidegate-issuer";
/// The label that tells the system's components apart.
const COMPONENT: &str = "app.kubernetes.io/component";
/// The API server's keys are fetched every few minutes; beyond this, they are not.
const CLUSTER_KEYS_AGE_MAX: i64 = 3600;

pub(super) fn check(facts: &Facts, findings: &mut Findings) {
    deployment(facts, NAME, ["issuer.deployment", "issuer.version"], findings);
    if let Some(pods) = findings.asked("issuer.ready", NAME, &facts.system_pods) {
        let pods: Vec<_> = pods.iter().filter(|pod| is_of(pod, "issuer") && is_alive(pod)).collect();
        let probed: Vec<_> = pods.iter().map(|pod| (name_of(&pod.metadata), facts.probe(pod))).collect();
        for (pod, probe) in &probed {
            ready("issuer.ready", pod, *probe, findings);
        }
        for (id, look) in LOOKS {
            for (pod, probe) in &probed {
                measured(id, pod, *probe, look, findings);
            }
        }
        for (pod, probe) in &probed {
            clock("issuer.clock", pod, *probe, facts, findings);
        }
    }
    trust_bundle(facts, findings);
}

type Look = fn(&Samples) -> Result<(), String>;

/// What an issuer says of itself.
const LOOKS: [(&str, Look); 3] =
    [("issuer.keys", keys), ("issuer.cluster-keys", cluster_keys), ("issuer.documents", documents)];

fn keys(samples: &Samples) -> Result<(), String> {
    for ring in ["signing_keys", "authorities"] {
        let all = format!("sidegate_{ring}");
        let active = samples.labelled(&all).any(|labels| labels.get("state").is_some_and(|state| state == "active"));
        if samples.whole(&format!("sidegate_{ring}_valid")) == Some(0) {
            return Err(format!("the {ring} in the Secret are not in force, or do not rotate"));
        }
        if ring == "signing_keys" && !active {
            return Err("there is no key that signs: no token is given out".to_owned());
        }
    }
    Ok(())
}

fn cluster_keys(samples: &Samples) -> Result<(), String> {
    match samples.whole("sidegate_jwks_age_seconds") {
        Some(age) if age > CLUSTER_KEYS_AGE_MAX => Err(format!("they were fetched {age} s ago, and not since")),
        Some(_) => Ok(()),
        None => Err("there are none: discovery of the API server's keys does not work".to_owned()),
    }
}

fn documents(samples: &Samples) -> Result<(), String> {
    match samples.whole("sidegate_documents_valid") {
        Some(0) => Err("not all that is in the cluster is in force: document.accepted names which".to_owned()),
        _ => Ok(()),
    }
}

fn measured(id: &'static str, pod: &str, probe: Option<&Probe>, look: Look, findings: &mut Findings) {
    let Some(Ok(samples)) = probe.and_then(|probe| probe.metrics.as_ref()) else {
        let why = probe.and_then(|probe| probe.metrics.as_ref()).and_then(|metrics| metrics.as_ref().err());
        return findings.unknown(id, pod, why.map_or("its metrics were not read", String::as_str));
    };
    match look(samples) {
        Ok(()) => findings.ok(id, pod),
        Err(why) => findings.failed(id, pod, why, logs(pod)),
    }
}

/// Where the reason is said.
pub(super) fn logs(pod: &str) -> String {
    let (namespace, name) = pod.split_once('/').unwrap_or(("", pod));
    format!("read why: kubectl logs -n {namespace} {name}")
}

pub(super) fn ready(id: &'static str, pod: &str, probe: Option<&Probe>, findings: &mut Findings) {
    match probe.and_then(|probe| probe.ready.as_ref()) {
        Some(Ok((true, _))) => findings.ok(id, pod),
        Some(Ok((false, words))) => findings.failed(id, pod, format!("it says: {}", words.trim()), logs(pod)),
        Some(Err(why)) => findings.unknown(id, pod, why),
        None => findings.unknown(id, pod, "it was not asked"),
    }
}

/// By the Date of the pod's answers, against the API server's.
pub(super) fn clock(id: &'static str, pod: &str, probe: Option<&Probe>, facts: &Facts, findings: &mut Findings) {
    let reference = facts.cluster.offset.unwrap_or(0);
    let Some(offset) = probe.and_then(|probe| probe.offset) else { return };
    let skew = offset.saturating_sub(reference);
    if skew.abs() <= SKEW_MAX {
        return findings.ok(id, pod);
    }
    let message =
        format!("its clock is {skew} s off the API server's: fresh tokens are refused, or ended ones are not");
    findings.failed(id, pod, message, "let NTP set the clock of its node");
}

pub(super) fn is_of(pod: &Pod, component: &str) -> bool {
    pod.labels().get(COMPONENT).is_some_and(|found| found == component)
        && pod.labels().get("app.kubernetes.io/name").is_none_or(|name| name == "sidegate")
}

/// A Deployment's replicas and version, under these two ids.
pub(super) fn deployment(facts: &Facts, name: &str, [available, version]: [&'static str; 2], findings: &mut Findings) {
    let Some(all) = findings.asked(available, name, &facts.deployments) else { return };
    let Some(found) = all.iter().find(|deployment| deployment.metadata.name.as_deref() == Some(name)) else {
        let remedy = "sidegate install | kubectl apply -f -";
        return findings.failed(available, name, format!("there is none in namespace {}", facts.system), remedy);
    };
    match has_replicas(found) {
        Ok(replicas) if replicas < 2 => {
            let remedy = format!("kubectl scale -n {} deployment {name} --replicas 2", facts.system);
            findings.warning(available, name, "there is one replica: its restart is an outage", remedy);
        }
        Ok(_) => findings.ok(available, name),
        Err(why) => {
            let remedy = format!("kubectl describe -n {} deployment {name}", facts.system);
            findings.failed(available, name, why, remedy);
        }
    }
    let spec = found.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let image = spec.and_then(|spec| spec.containers.first()).and_then(image_version);
    let component = name.strip_prefix("sidegate-").unwrap_or(name);
    let pods = facts.system_pods.iter().flatten().filter(|pod| is_of(pod, component) && is_alive(pod));
    let mut said: BTreeSet<_> = pods.filter_map(|pod| facts.probe(pod)?.version()).collect();
    if said.is_empty() {
        said.extend(image);
    }
    let others: Vec<_> = said.into_iter().filter(|said| *said != facts.version).collect();
    if others.is_empty() {
        return findings.ok(version, name);
    }
    let message = format!("there is {}, this program is {}", others.join(" and "), facts.version);
    findings.warning(
        version,
        name,
        message,
        "install the version that you check with, or check with the one installed",
    );
}

fn has_replicas(deployment: &Deployment) -> Result<i32, String> {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let status = deployment.status.as_ref();
    let count = |of: fn(&k8s_openapi::api::apps::v1::DeploymentStatus) -> Option<i32>| status.and_then(of).unwrap_or(0);
    let (ready, updated) = (count(|status| status.ready_replicas), count(|status| status.updated_replicas));
    match (ready >= wanted, updated >= wanted) {
        (true, true) => Ok(wanted),
        (false, _) => Err(format!("{ready} of {wanted} replicas are ready")),
        (true, false) => Err(format!("{updated} of {wanted} replicas are of the newest revision")),
    }
}

fn trust_bundle(facts: &Facts, findings: &mut Findings) {
    let (id, name) = ("issuer.trust-bundle", "sidegate-trust-bundle");
    let Some(found) = findings.asked(id, name, &facts.trust_bundle) else { return };
    let pem = found.as_ref().and_then(|found| found.data.as_ref()?.get("ca.pem"));
    match pem.filter(|pem| pem.contains("-----BEGIN CERTIFICATE-----")) {
        Some(_) => findings.ok(id, name),
        None => {
            let remedy = format!("the issuer fills it: kubectl logs -n {} deployment/{NAME}", facts.system);
            findings.failed(id, name, "there is no certificate under ca.pem: no pod can be injected", remedy);
        }
    }
}
