//! Every sidecar: that it is where it is asked for, runs, is of this version, and does what it is told.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use runtime::settings::{Verify, review};

use super::Findings;
use super::facts::{Facts, Probe};
use super::issuer::{clock, ready};
use super::objects::{
    CONTAINER, Wiring, configuration, image_version, is_alive, is_ready, name_of, namespace_of, sidecar_of, status_of,
    wiring,
};
use super::scrape::Samples;

/// Renewed at two thirds of an hour, a certificate never has less than this left while renewing works.
const CERTIFICATE_LEFT_MIN: i64 = 300;
/// Where a namespace's pods get sidecars.
const INJECT: &str = "sidegate.dev/inject";
const PREFIX: &str = "sidegate.dev/";
/// A mounted ConfigMap reaches a pod so late with the kubelet's defaults.
const SETTINGS_TAKE: &str =
    "a mounted ConfigMap takes up to 90 s; ask again, or look at the pod's volume auth-settings";

/// A pod with a sidecar, and what is known of it.
struct Watched<'a> {
    pod: &'a Pod,
    name: String,
    samples: Option<&'a Samples>,
    wiring: Option<Wiring>,
}

pub(super) fn check(facts: &Facts, findings: &mut Findings) {
    let Some(pods) = findings.asked("sidecar.missing", "", &facts.pods) else { return };
    let alive: Vec<_> = pods.iter().filter(|pod| is_alive(pod)).collect();
    missing(&alive, facts, findings);
    let watched: Vec<_> =
        alive.into_iter().filter(|pod| sidecar_of(pod).is_some()).map(|pod| watch(pod, facts)).collect();
    for service in facts.wanted.iter().filter(|service| !watched.iter().any(|pod| pod.serves(service))) {
        let remedy =
            "name it as sidegate.dev/service does (NAMESPACE/NAME), and see that its pods are injected and run";
        findings.failed("sidecar.missing", service, "no pod with a sidecar belongs to this service", remedy);
    }
    let checks: [fn(&Watched<'_>, &Facts, &mut Findings); 7] =
        [is_running, restarts, version, config, obeys, certificate, has_right_clock];
    // By check, not by pod: what is well takes one line.
    for check in checks {
        watched.iter().for_each(|pod| check(pod, facts, findings));
    }
}

impl Watched<'_> {
    fn serves(&self, service: &str) -> bool {
        self.wiring.as_ref().is_some_and(|wiring| wiring.service == service)
    }
}

fn watch<'a>(pod: &'a Pod, facts: &'a Facts) -> Watched<'a> {
    let samples = facts.probe(pod).and_then(Probe::samples);
    Watched { pod, name: name_of(&pod.metadata), samples, wiring: wiring(pod) }
}

/// Pods that ask for a sidecar and were made when nobody gave them one.
fn missing(pods: &[&Pod], facts: &Facts, findings: &mut Findings) {
    let labelled: BTreeMap<_, _> = match &facts.namespaces {
        Err(_) => BTreeMap::new(),
        Ok(all) => {
            all.iter().map(|namespace| (namespace.name_any(), namespace.labels().get(INJECT).cloned())).collect()
        }
    };
    for pod in pods {
        let asks = pod.annotations().keys().any(|name| name.starts_with(PREFIX));
        // The webhook heeds the label, what injects heeds the annotation.
        let said = [pod.annotations().get(INJECT), pod.labels().get(INJECT)];
        let declines = said.into_iter().flatten().any(|value| value == "disabled");
        if !asks || declines {
            continue;
        }
        let name = name_of(&pod.metadata);
        if sidecar_of(pod).is_some() {
            findings.ok("sidecar.missing", &name);
            continue;
        }
        let namespace = namespace_of(&pod.metadata);
        let enabled = labelled.get(namespace).is_some_and(|label| label.as_deref() == Some("enabled"));
        let (message, remedy) = if enabled {
            let remedy = format!(
                "make it anew: kubectl rollout restart -n {namespace} its Deployment, StatefulSet or DaemonSet"
            );
            ("it was made before the namespace was labelled, or while the injector was away", remedy)
        } else {
            let remedy = format!(
                "kubectl label namespace {namespace} {INJECT}=enabled, and make the pod anew; or sidegate inject"
            );
            ("it asks for a sidecar by its annotations, but its namespace is not labelled", remedy)
        };
        findings.failed("sidecar.missing", &name, message, remedy);
    }
}

fn is_running(watched: &Watched<'_>, facts: &Facts, findings: &mut Findings) {
    let is_up = status_of(watched.pod, CONTAINER).is_some_and(|status| status.ready) && is_ready(watched.pod);
    match facts.probe(watched.pod) {
        Some(probe) if probe.ready.is_some() => ready("sidecar.ready", &watched.name, Some(probe), findings),
        _ if is_up => findings.ok("sidecar.ready", &watched.name),
        _ => {
            let remedy =
                format!("kubectl describe pod -n {} {}", namespace_of(&watched.pod.metadata), watched.pod.name_any());
            findings.failed("sidecar.ready", &watched.name, "the pod is not ready", remedy);
        }
    }
}

fn restarts(watched: &Watched<'_>, _: &Facts, findings: &mut Findings) {
    let Some(status) = status_of(watched.pod, CONTAINER).filter(|status| status.restart_count > 0) else {
        return findings.ok("sidecar.restarts", &watched.name);
    };
    let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let why = last
        .map(|end| format!("; the last time: {} (exit code {})", end.reason.as_deref().unwrap_or("?"), end.exit_code));
    let message = format!("it was restarted {} times{}", status.restart_count, why.unwrap_or_default());
    let remedy = format!(
        "kubectl logs -n {} {} -c {CONTAINER} --previous",
        namespace_of(&watched.pod.metadata),
        watched.pod.name_any()
    );
    findings.warning("sidecar.restarts", &watched.name, message, remedy);
}

/// As it says itself, or else by its image's name.
fn version(watched: &Watched<'_>, facts: &Facts, findings: &mut Findings) {
    let said = facts.probe(watched.pod).and_then(Probe::version);
    let version = said.or_else(|| image_version(sidecar_of(watched.pod)?));
    match version {
        None => {
            let remedy = "let its admin listener be [::]:9901, or name its image by version";
            findings.warning("sidecar.version", &watched.name, "neither its metrics nor its image say it", remedy);
        }
        Some(version) if version != facts.version => {
            let message = format!("it is {version}, this program {}", facts.version);
            findings.warning(
                "sidecar.version",
                &watched.name,
                message,
                "make the pod anew, so that it is injected anew",
            );
        }
        Some(_) => findings.ok("sidecar.version", &watched.name),
    }
}

fn config(watched: &Watched<'_>, facts: &Facts, findings: &mut Findings) {
    let Some(text) = configuration(watched.pod) else {
        let message = "it was not injected, so that its configuration cannot be read from here";
        return findings.warning(
            "sidecar.config",
            &watched.name,
            message,
            "check it where it is: sidegate sidecar --check --config FILE",
        );
    };
    match (facts.validate)(text) {
        Ok(()) => findings.ok("sidecar.config", &watched.name),
        Err(why) => {
            findings.failed("sidecar.config", &watched.name, why, "correct the pod's annotations, and make it anew")
        }
    }
}

/// Whether what it enforces is what its namespace's settings say.
fn obeys(watched: &Watched<'_>, facts: &Facts, findings: &mut Findings) {
    let Ok(all) = &facts.settings else { return };
    let Some(enforcing) = watched.samples.and_then(|samples| samples.whole("sidegate_enforcing")) else {
        return findings.unknown("sidecar.settings", &watched.name, "its metrics could not be read");
    };
    let namespace =
        watched.wiring.as_ref().and_then(|wiring| wiring.service.split_once('/')).map(|(namespace, _)| namespace);
    let namespace = namespace.unwrap_or(namespace_of(&watched.pod.metadata));
    let there = all.iter().find(|settings| namespace_of(&settings.metadata) == namespace);
    let data = there.and_then(|settings| settings.data.as_ref());
    let has_settings = watched.wiring.as_ref().is_none_or(|wiring| wiring.settings.is_some());
    let wanted = !has_settings || review(data).0.verify == Verify::Enforce;
    if wanted == (enforcing == 1) {
        return findings.ok("sidecar.settings", &watched.name);
    }
    let message = format!(
        "it {} while auth-settings of namespace {namespace} says otherwise",
        if enforcing == 1 { "enforces" } else { "does not enforce" }
    );
    findings.warning("sidecar.settings", &watched.name, message, SETTINGS_TAKE);
}

fn certificate(watched: &Watched<'_>, _: &Facts, findings: &mut Findings) {
    if watched.wiring.as_ref().is_some_and(|wiring| wiring.certificates.is_none()) {
        return;
    }
    match watched.samples.map(|samples| samples.whole("sidegate_certificate_expiry_seconds")) {
        None => findings.unknown("sidecar.certificate", &watched.name, "its metrics could not be read"),
        Some(Some(left)) if left < CERTIFICATE_LEFT_MIN => {
            let message = format!("it has {left} s left and was not renewed");
            findings.failed(
                "sidecar.certificate",
                &watched.name,
                message,
                "see the checks of the issuer, and the sidecar's log",
            );
        }
        Some(_) => findings.ok("sidecar.certificate", &watched.name),
    }
}

fn has_right_clock(watched: &Watched<'_>, facts: &Facts, findings: &mut Findings) {
    clock("sidecar.clock", &watched.name, facts.probe(watched.pod), facts, findings);
}
