//! What must be there before an installation: the caller's rights, and nothing in the way.

use std::collections::BTreeSet;

use kube::ResourceExt;

use super::Findings;
use super::cluster::RESOURCES_VERSION;
use super::facts::{Asked, Preflight, Right};

/// The label by which a namespace says what pods it lets in.
const ENFORCE: &str = "pod-security.kubernetes.io/enforce";

pub(super) fn check(facts: &Preflight, findings: &mut Findings) {
    rights(&facts.rights, findings);
    if let Some(definitions) = findings.asked("pre.crds", "", &facts.definitions) {
        let stored = definitions.iter().filter(|crd| {
            let stored = crd.status.iter().flat_map(|status| status.stored_versions.iter().flatten());
            stored.into_iter().any(|version| version != RESOURCES_VERSION)
        });
        let names: Vec<_> = stored.map(ResourceExt::name_any).collect();
        if names.is_empty() {
            findings.ok("pre.crds", "");
        }
        for name in names {
            let message = format!("objects are stored in a version that is not {RESOURCES_VERSION}");
            let remedy = format!("kubectl get {name} -A -o yaml, keep what you need, then kubectl delete crd {name}");
            findings.failed("pre.crds", &name, message, remedy);
        }
    }
    if let Some(namespace) = findings.asked("pre.pod-security", "", &facts.namespace) {
        let level = namespace.as_ref().and_then(|namespace| namespace.labels().get(ENFORCE).cloned());
        // Our pods satisfy the strictest level, so that none keeps them out; a word that is no level keeps out all.
        match level.as_deref() {
            None | Some("privileged" | "baseline" | "restricted") => findings.ok("pre.pod-security", ""),
            Some(other) => {
                let message = format!("{ENFORCE} is {other:?}, which is no level");
                findings.failed("pre.pod-security", "", message, "set it to restricted, which our pods satisfy");
            }
        }
    }
}

/// One line if the caller may do all; else what they may not.
fn rights(rights: &[(Right, Asked<bool>)], findings: &mut Findings) {
    let missing: Vec<_> = rights.iter().filter(|(_, may)| *may == Ok(false)).map(|(right, _)| right).collect();
    let unknown: BTreeSet<_> = rights.iter().filter_map(|(_, may)| may.as_ref().err()).collect();
    if missing.is_empty() && unknown.is_empty() {
        findings.ok("pre.may-install", "");
    }
    if !missing.is_empty() {
        let lines: Vec<_> = missing.iter().map(|right| format!("you may not {right}")).collect();
        findings.failed("pre.may-install", "", lines.join("\n"), "let somebody with the role cluster-admin install");
    }
    for why in unknown {
        findings.unknown("pre.may-install", "", why);
    }
}
