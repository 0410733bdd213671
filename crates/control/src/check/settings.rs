//! Each namespace's `auth-settings`, read as the sidecars read it.

use runtime::settings::{Verify, review};

use super::Findings;
use super::facts::Facts;
use super::objects::namespace_of;

pub(super) fn check(facts: &Facts, findings: &mut Findings) {
    let Some(all) = findings.asked("settings.understood", "", &facts.settings) else { return };
    for found in all {
        let namespace = namespace_of(&found.metadata);
        let (_, mistakes) = review(found.data.as_ref());
        match mistakes.is_empty() {
            true => findings.ok("settings.understood", namespace),
            false => {
                let remedy = format!("kubectl edit configmap -n {namespace} auth-settings");
                findings.failed("settings.understood", namespace, mistakes.join("\n"), remedy);
            }
        }
    }
    for found in all {
        let namespace = namespace_of(&found.metadata);
        let (settings, _) = review(found.data.as_ref());
        let message = match (settings.verify, settings.sign) {
            (Verify::Enforce, true) => {
                findings.ok("settings.enforcing", namespace);
                continue;
            }
            (Verify::Off, _) => "verification is off: whoever reaches these databases and services gets in",
            (Verify::Observe, _) => "verification only observes: nothing is denied",
            (Verify::Enforce, false) => "signing is off: callers that enforce refuse these pods",
        };
        let remedy = format!(
            "when you are done: kubectl patch configmap -n {namespace} auth-settings --type merge -p \
             '{{\"data\":{{\"VERIFY_AUTH_ENABLED\":\"true\",\"SIGN_AUTH_ENABLED\":\"true\"}}}}'"
        );
        findings.warning("settings.enforcing", namespace, message, remedy);
    }
}
