//! Writes into the objects' `status` what `objects` says of them: the conditions `Accepted` (it is understood) and
//! `Programmed` (what it says is in force), as Kubernetes' API conventions have conditions.
//!
//! Only the leader writes, and only what is not there already. Deliberately absent: events; conditions stay to be read.

use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use runtime::kubernetes::{ApiError, Client, in_time};
use serde_json::{Value, json};

use super::objects::{Judged, Verdict};

/// Who wrote it, in the objects' `managedFields`.
const MANAGER: &str = "sidegate-issuer";
/// The API server takes 32 KiB; nobody reads so much.
const MAX_MESSAGE: usize = 4096;

/// A condition, without its time.
struct Condition {
    kind: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
}

/// Writes what is not there yet. An object that is gone meanwhile needs no status.
pub(crate) async fn write(client: &Client, judged: &[Judged]) {
    for object in judged {
        let Some(status) = wanted(object) else { continue };
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &object.namespace, &object.kind.resource());
        let patch = Patch::Merge(json!({ "status": status }));
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        match in_time(api.patch_status(&object.name, &params, &patch)).await {
            Ok(_) | Err(ApiError::NotFound(_)) => {}
            Err(error) => {
                tracing::warn!(%error, namespace = object.namespace, name = object.name, "a status cannot be written");
            }
        }
    }
}

/// The status that an object should have; `None` if it has it.
fn wanted(object: &Judged) -> Option<Value> {
    let conditions = conditions(&object.verdict);
    let there = object.status.get("conditions").and_then(Value::as_array);
    let of_kind = |kind: &str| there?.iter().find(|there| there.get("type").and_then(Value::as_str) == Some(kind));
    let said = conditions
        .iter()
        .all(|condition| of_kind(condition.kind).is_some_and(|there| condition.is_said(there, object.generation)));
    if said && there.is_some_and(|there| there.len() == conditions.len()) {
        return None;
    }
    let conditions: Vec<Value> =
        conditions.iter().map(|condition| condition.json(of_kind(condition.kind), object.generation)).collect();
    Some(json!({"observedGeneration": object.generation, "conditions": conditions}))
}

fn conditions(verdict: &Verdict) -> [Condition; 2] {
    let condition = |kind, holds, reason, message: String| Condition { kind, holds, reason, message: cut(message) };
    match verdict {
        Verdict::InForce => [
            condition("Accepted", true, "Accepted", "understood".to_owned()),
            condition("Programmed", true, "Programmed", "in force".to_owned()),
        ],
        Verdict::Invalid { reasons, instead } => {
            let stays = match instead {
                Some(generation) => format!("generation {generation} stays in force until this is mended"),
                None => "opens nothing until this is mended".to_owned(),
            };
            [
                condition("Accepted", false, "Invalid", reasons.join("; ")),
                condition("Programmed", false, "Invalid", stays),
            ]
        }
        Verdict::RoleNotFound(reasons) => [
            condition("Accepted", false, "RoleNotFound", reasons.join("; ")),
            condition("Programmed", false, "RoleNotFound", "in force but for the roles that are not there".to_owned()),
        ],
    }
}

impl Condition {
    fn is_said(&self, there: &Value, generation: i64) -> bool {
        let text = |field: &str| there.get(field).and_then(Value::as_str);
        text("status") == Some(self.status())
            && text("reason") == Some(self.reason)
            && text("message") == Some(self.message.as_str())
            && there.get("observedGeneration").and_then(Value::as_i64) == Some(generation)
    }

    /// The time is that of the last change between true and false.
    fn json(&self, there: Option<&Value>, generation: i64) -> Value {
        let same = there.filter(|there| there.get("status").and_then(Value::as_str) == Some(self.status()));
        let since = same.and_then(|there| there.get("lastTransitionTime")?.as_str()).map(str::to_owned);
        let now = || Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        json!({
            "type": self.kind, "status": self.status(), "reason": self.reason, "message": self.message,
            "observedGeneration": generation, "lastTransitionTime": since.unwrap_or_else(now),
        })
    }

    fn status(&self) -> &'static str {
        if self.holds { "True" } else { "False" }
    }
}

fn cut(mut message: String) -> String {
    if message.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests;
