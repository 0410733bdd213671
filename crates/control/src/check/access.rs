//! What the system's service accounts may do: all that they need, and nothing that would hurt.
//!
//! Asked of the API server, so that what other roles and bindings add is seen, too.

use std::fmt;

use super::Findings;
use super::facts::{Asked, Right};

const ISSUER: &str = "sidegate-issuer";
const INJECTOR: &str = "sidegate-injector";
const CONSOLE: &str = "sidegate-console";
/// What `sidegate install` prints, by group and resource.
const INSTALLED: [(&str, &str, bool); 15] = [
    ("", "namespaces", false),
    ("apiextensions.k8s.io", "customresourcedefinitions", false),
    ("rbac.authorization.k8s.io", "clusterroles", false),
    ("rbac.authorization.k8s.io", "clusterrolebindings", false),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", false),
    ("", "serviceaccounts", true),
    ("", "configmaps", true),
    ("", "secrets", true),
    ("", "services", true),
    ("coordination.k8s.io", "leases", true),
    ("apps", "deployments", true),
    ("policy", "poddisruptionbudgets", true),
    ("networking.k8s.io", "networkpolicies", true),
    ("rbac.authorization.k8s.io", "roles", true),
    ("rbac.authorization.k8s.io", "rolebindings", true),
];

/// What the system's service accounts need, and what they must not have.
pub(super) fn rights(system: &str) -> Vec<Right> {
    let mut rights = Vec::new();
    for resource in ["accessroles", "accessgrants"] {
        rights.extend(["list", "watch"].map(|verb| wide(ISSUER, verb, "sidegate.dev", resource, true)));
    }
    for resource in ["accessroles/status", "accessgrants/status"] {
        rights.push(wide(ISSUER, "patch", "sidegate.dev", resource, true));
    }
    rights.push(wide(ISSUER, "create", "authentication.k8s.io", "tokenreviews", true));
    rights.extend(["get", "patch"].map(|verb| Right {
        name: INJECTOR,
        ..wide(INJECTOR, verb, "admissionregistration.k8s.io", "mutatingwebhookconfigurations", true)
    }));
    let own = [
        (ISSUER, "get", "", "secrets", "sidegate-issuer-keys"),
        (ISSUER, "update", "", "secrets", "sidegate-issuer-keys"),
        (ISSUER, "update", "coordination.k8s.io", "leases", "sidegate-issuer"),
        (ISSUER, "update", "", "configmaps", "sidegate-trust-bundle"),
        (INJECTOR, "update", "", "secrets", "sidegate-injector-tls"),
        (INJECTOR, "get", "", "configmaps", "sidegate-trust-bundle"),
    ];
    rights.extend(own.map(|(account, verb, group, resource, name)| Right {
        name,
        namespace: Some(system.to_owned()),
        ..wide(account, verb, group, resource, true)
    }));
    for account in [ISSUER, INJECTOR, CONSOLE] {
        rights.extend(harmful().map(|(verb, group, resource)| wide(account, verb, group, resource, false)));
        let others = ["get", "list"]
            .map(|verb| Right { namespace: Some(system.to_owned()), ..wide(account, verb, "", "secrets", false) });
        rights.extend(others);
    }
    rights
}

/// What nobody needs who signs tokens, edits pods or shows pages: other Secrets, other identities, other rights, or the documents that
/// say what is allowed.
fn harmful() -> [(&'static str, &'static str, &'static str); 10] {
    [
        ("get", "", "secrets"),
        ("list", "", "secrets"),
        ("create", "", "pods"),
        ("create", "", "pods/exec"),
        ("create", "", "serviceaccounts/token"),
        ("impersonate", "", "users"),
        ("create", "rbac.authorization.k8s.io", "clusterrolebindings"),
        ("escalate", "rbac.authorization.k8s.io", "clusterroles"),
        ("create", "sidegate.dev", "accessgrants"),
        ("update", "sidegate.dev", "accessroles"),
    ]
}

/// What the caller needs to install.
pub(super) fn rights_to_install(system: &str) -> Vec<Right> {
    let each = |(group, resource, namespaced): (&'static str, &'static str, bool)| {
        // What `kubectl apply` does.
        ["get", "create", "patch"].map(|verb| Right {
            namespace: namespaced.then(|| system.to_owned()),
            ..wide("", verb, group, resource, true)
        })
    };
    INSTALLED.into_iter().flat_map(each).collect()
}

fn wide(account: &'static str, verb: &'static str, group: &'static str, resource: &'static str, wanted: bool) -> Right {
    Right { account, verb, group, resource, namespace: None, name: "", wanted }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        if !self.name.is_empty() {
            write!(f, " {}", self.name)?;
        }
        match &self.namespace {
            Some(namespace) => write!(f, " in namespace {namespace}"),
            None => write!(f, " in the whole cluster"),
        }
    }
}

pub(super) fn check(rights: &[(Right, Asked<bool>)], findings: &mut Findings) {
    for (id, wanted) in [("rbac.enough", true), ("rbac.least", false)] {
        for account in [ISSUER, INJECTOR, CONSOLE] {
            let of = rights.iter().filter(|(right, _)| right.account == account && right.wanted == wanted);
            let wrong: Vec<_> = of.clone().filter(|(_, may)| *may == Ok(!wanted)).map(|(right, _)| right).collect();
            match of.clone().find_map(|(_, may)| may.as_ref().err()) {
                Some(why) => findings.unknown(id, account, why),
                None if wrong.is_empty() && of.clone().next().is_some() => findings.ok(id, account),
                None => {}
            }
            for right in wrong {
                tell(id, account, right, findings);
            }
        }
    }
}

fn tell(id: &'static str, account: &str, right: &Right, findings: &mut Findings) {
    if right.wanted {
        let remedy = "apply what this version prints: sidegate install | kubectl apply -f -";
        return findings.failed(id, account, format!("it may not {right}"), remedy);
    }
    let remedy = format!(
        "find what gives it: kubectl get clusterrolebindings,rolebindings -A -o wide | grep -E '{account}|system:serviceaccounts'"
    );
    findings.failed(id, account, format!("it may {right}, and needs no such right"), remedy);
}
