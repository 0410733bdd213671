//! AccessRoles and AccessGrants: what the issuer says of each in its status.

use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::Value;

use super::Findings;
use super::facts::Facts;
use super::objects::namespace_of;

pub(super) fn check(facts: &Facts, findings: &mut Findings) {
    let Some(documents) = findings.asked("document.accepted", "", &facts.documents) else { return };
    for (id, kind) in [("document.accepted", "Accepted"), ("document.programmed", "Programmed")] {
        for document in documents {
            condition(id, kind, document, findings);
        }
    }
}

fn condition(id: &'static str, kind: &str, document: &DynamicObject, findings: &mut Findings) {
    let what = document.types.as_ref().map_or("document", |types| types.kind.as_str());
    let (namespace, name) = (namespace_of(&document.metadata), document.name_any());
    let subject = format!("{what} {namespace}/{name}");
    let read = format!("kubectl describe -n {namespace} {} {name}", what.to_ascii_lowercase());
    let status = document.data.get("status");
    let conditions = status.and_then(|status| status.get("conditions")).and_then(Value::as_array);
    let text =
        |condition: &Value, field: &str| condition.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let Some(found) = conditions.into_iter().flatten().find(|condition| text(condition, "type") == kind) else {
        let remedy = "the issuer writes it within seconds; if not, see the checks of the issuer";
        return findings.warning(id, &subject, "the issuer has not looked at it", remedy);
    };
    let seen = found.get("observedGeneration").or_else(|| status?.get("observedGeneration")).and_then(Value::as_i64);
    if text(found, "status") != "True" {
        let message = format!("{}: {}", text(found, "reason"), text(found, "message"));
        return findings.failed(
            id,
            &subject,
            message,
            format!("correct it; until then what it last said when it was right is in force. {read}"),
        );
    }
    if seen.is_some_and(|seen| Some(seen) != document.metadata.generation) {
        return findings.warning(id, &subject, "its last change has not been looked at", read);
    }
    findings.ok(id, &subject);
}
