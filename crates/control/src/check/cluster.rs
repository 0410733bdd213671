//! The cluster itself: its version and clock, and the definitions of our resources.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use super::Findings;
use super::facts::{Asked, Cluster};

/// The first version with native sidecars by default.
const MINIMUM: (u32, u32) = (1, 29);
/// Tokens are believed for minutes, and leeway is a minute: beyond half of it, somebody's next second is too much.
pub(super) const SKEW_MAX: i64 = 30;
/// The version of the resources that this program speaks.
pub(super) const RESOURCES_VERSION: &str = "v1alpha1";
/// Names of the definitions.
const DEFINITIONS: [&str; 2] = ["accessroles.sidegate.dev", "accessgrants.sidegate.dev"];
const APPLY: &str = "sidegate install | kubectl apply -f -";

pub(super) fn check(cluster: &Cluster, findings: &mut Findings) {
    match &cluster.version {
        Err(why) => findings.unknown("cluster.reachable", "", why),
        Ok((major, minor, version)) => {
            findings.ok("cluster.reachable", "");
            if (*major, *minor) >= MINIMUM {
                findings.ok("cluster.version", version);
            } else {
                let message =
                    format!("it is {version}: it would start the sidecar as an init container and wait for its end");
                findings.failed("cluster.version", "", message, "upgrade the cluster to 1.29 or newer");
            }
        }
    }
    let Some(offset) = cluster.offset else { return };
    if offset.abs() <= SKEW_MAX {
        return findings.ok("cluster.clock", "");
    }
    let message = format!("the API server's clock is {offset} s off this machine's");
    findings.warning(
        "cluster.clock",
        "",
        message,
        "let NTP set both clocks; the other checks of clocks compare with this one",
    );
}

pub(super) fn check_definitions(
    there: &Asked<Vec<CustomResourceDefinition>>,
    expected: &[CustomResourceDefinition],
    findings: &mut Findings,
) {
    let Some(there) = findings.asked("crd.exists", "", there) else { return };
    let found = DEFINITIONS.map(|name| (name, there.iter().find(|crd| crd.metadata.name.as_deref() == Some(name))));
    for (name, found) in found {
        match found {
            Some(_) => findings.ok("crd.exists", name),
            None => findings.failed("crd.exists", name, "there is no such definition", APPLY),
        }
    }
    for (name, found) in found {
        let Some(found) = found else { continue };
        match is_established(found) {
            Ok(()) => findings.ok("crd.established", name),
            Err(why) => findings.failed("crd.established", name, why, format!("kubectl describe crd {name}")),
        }
    }
    for (name, found) in found {
        let wanted = expected.iter().find(|crd| crd.metadata.name.as_deref() == Some(name));
        if let Some(found) = found {
            check_schema(name, found, wanted, findings);
        }
    }
}

fn is_established(crd: &CustomResourceDefinition) -> Result<(), String> {
    let conditions: Vec<_> = crd.status.iter().flat_map(|status| status.conditions.iter().flatten()).collect();
    let of = |kind: &str| conditions.iter().find(|condition| condition.type_ == kind);
    match of("Established") {
        Some(condition) if condition.status == "True" => Ok(()),
        _ => {
            let refused = of("NamesAccepted").filter(|condition| condition.status != "True").or(of("Established"));
            Err(refused
                .and_then(|condition| condition.message.clone())
                .unwrap_or_else(|| "it is not served yet".to_owned()))
        }
    }
}

fn check_schema(
    name: &str,
    found: &CustomResourceDefinition,
    wanted: Option<&CustomResourceDefinition>,
    findings: &mut Findings,
) {
    let of = |crd: &CustomResourceDefinition| {
        let version = crd.spec.versions.iter().find(|version| version.name == RESOURCES_VERSION && version.served);
        version.map(|version| version.schema.clone())
    };
    match (of(found), wanted.map(of)) {
        (None, _) => {
            let message = format!("it does not serve {RESOURCES_VERSION}");
            findings.failed("crd.schema", name, message, APPLY);
        }
        (Some(found), Some(Some(wanted))) if found != wanted => {
            let message = "its schema is another version's: fields of this one may be dropped unseen, or refused";
            findings.failed("crd.schema", name, message, APPLY);
        }
        _ => findings.ok("crd.schema", name),
    }
}
