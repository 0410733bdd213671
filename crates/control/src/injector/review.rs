//! One question of the API server, and the answer to it (admission.k8s.io/v1).
//!
//! Deliberately absent: side effects, so that a dry run is like any other; the clock, and the cluster.

use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, Operation};
use serde_json::Value;

use crate::inject::{self, Asks, Defaults, Surroundings};

/// The API server cuts warnings off beyond this.
const WARNING_MAX: usize = 256;

/// Values of a review at most, told by what stands between them. The largest pods have some thousands, while a text of
/// megabytes can have so many that they take a hundred times its memory.
const VALUES_MAX: usize = 100_000;

/// An answer.
pub(super) struct Answer {
    /// JSON.
    pub(super) body: Vec<u8>,
    /// For metrics.
    pub(super) result: &'static str,
    /// For the log: namespace and name, as far as there is one yet.
    pub(super) pod: String,
    /// Why not.
    pub(super) refusal: Option<String>,
}

/// What becomes of a pod.
enum Verdict {
    /// It stays as it is.
    Untouched,
    Changed(json_patch::Patch, Vec<String>),
    Refused(String),
}

/// Answers a review. `issuer_ca` is `None` as long as the issuer has not said which authorities to trust.
///
/// # Errors
/// When it is no review.
pub(super) fn answer(body: &[u8], issuer_ca: Option<&str>, defaults: &Defaults) -> Result<Answer, String> {
    if body.iter().filter(|byte| b"{[,:".contains(byte)).count() > VALUES_MAX {
        return Err(format!("no pod has {VALUES_MAX} values"));
    }
    let not_one = |error| format!("this is no AdmissionReview: {error}");
    let mut raw: Value = serde_json::from_slice(body).map_err(not_one)?;
    // The object as it came: what we do not know of must not get lost on the way.
    let object = &raw.pointer_mut("/request/object").map(Value::take).unwrap_or_default();
    let review: AdmissionReview<DynamicObject> = serde_json::from_value(raw).map_err(not_one)?;
    let request: AdmissionRequest<DynamicObject> =
        review.try_into().map_err(|_| "the AdmissionReview has no request")?;
    let verdict = verdict(&request, object, issuer_ca, defaults);
    let response = AdmissionResponse::from(&request);
    let (result, refusal, response) = match verdict {
        Verdict::Untouched => ("untouched", None, response),
        Verdict::Changed(patch, warnings) => {
            let mut response = response.with_patch(patch).map_err(|error| error.to_string())?;
            response.warnings =
                Some(warnings.into_iter().map(shortened).collect()).filter(|all: &Vec<_>| !all.is_empty());
            ("injected", None, response)
        }
        Verdict::Refused(why) => ("refused", Some(why.clone()), response.deny(format!("sidegate: {why}"))),
    };
    let body = serde_json::to_vec(&response.into_review()).map_err(|error| error.to_string())?;
    Ok(Answer { body, result, pod: described(&request, object), refusal })
}

fn verdict(
    request: &AdmissionRequest<DynamicObject>,
    pod: &Value,
    issuer_ca: Option<&str>,
    defaults: &Defaults,
) -> Verdict {
    let is_new_pod =
        request.kind.group.is_empty() && request.kind.kind == "Pod" && request.operation == Operation::Create;
    // One that was injected before it came here keeps what its author chose; so does one that we are shown again.
    if !is_new_pod || inject::is_injected(pod) || inject::asks(pod) != Asks::Sidecar {
        return Verdict::Untouched;
    }
    let Some(issuer_ca) = issuer_ca else {
        return Verdict::Refused(
            "the issuer has not said yet which authorities to trust (ConfigMap sidegate-trust-bundle): is it up? See `kubectl get \
             pods` in Sidegate's namespace; this pod is tried again if something looks after it"
                .to_owned(),
        );
    };
    // The object itself has no namespace yet when something makes it by its template.
    let Some(namespace) = request.namespace.as_deref().filter(|namespace| !namespace.is_empty()) else {
        return Verdict::Refused("the request names no namespace".to_owned());
    };
    match inject::inject(pod, &Surroundings { namespace, issuer_ca, defaults }) {
        Ok(injected) => Verdict::Changed(json_patch::diff(pod, &injected.template), injected.warnings),
        Err(error) => Verdict::Refused(error.to_string()),
    }
}

fn described(request: &AdmissionRequest<DynamicObject>, pod: &Value) -> String {
    let generated = pod.pointer("/metadata/generateName").and_then(Value::as_str);
    let name = Some(request.name.as_str()).filter(|name| !name.is_empty()).or(generated);
    format!("{}/{}", request.namespace.as_deref().unwrap_or_default(), name.unwrap_or_default())
}

fn shortened(warning: String) -> String {
    let warning = format!("sidegate: {warning}");
    if warning.len() <= WARNING_MAX { warning } else { warning.chars().take(WARNING_MAX / 2).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const CA: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

    fn pod(annotations: Value) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"generateName": "app-7d9c-", "annotations": annotations, "labels": {"app": "app"}},
            "spec": {"serviceAccountName": "app", "containers": [{"name": "app", "image": "app:1", "unheardOf": 1}]},
        })
    }

    fn ask(pod: &Value, changes: Value, issuer_ca: Option<&str>) -> Value {
        let mut request = json!({
            "uid": "0c9a8d74", "operation": "CREATE", "namespace": "shop", "userInfo": {}, "dryRun": true,
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "object": pod,
        });
        request.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request});
        let answer = answer(review.to_string().as_bytes(), issuer_ca, &Defaults::default()).unwrap();
        let review: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(
            (&review["apiVersion"], &review["kind"]),
            (&json!("admission.k8s.io/v1"), &json!("AdmissionReview"))
        );
        assert_eq!(review["response"]["uid"], "0c9a8d74");
        review["response"].clone()
    }

    fn patched(pod: &Value, response: &Value) -> Value {
        use base64::Engine as _;
        let patch = match &response["patch"] {
            Value::String(text) => base64::engine::general_purpose::STANDARD.decode(text).unwrap(),
            bytes => serde_json::from_value(bytes.clone()).unwrap(),
        };
        let mut pod = pod.clone();
        let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
        json_patch::patch(&mut pod, &patch).unwrap();
        pod
    }

    #[test]
    fn a_pod_that_asks_gets_the_sidecar_of_its_namespace() {
        let pod = pod(json!({"sidegate.dev/outbound": "postgres 6432 to db/db"}));
        let response = ask(&pod, json!({}), Some(CA));
        assert_eq!((&response["allowed"], &response["patchType"]), (&json!(true), &json!("JSONPatch")));
        let after = patched(&pod, &response);
        assert!(
            after["metadata"]["annotations"][inject::SIDECAR_CONFIG].as_str().unwrap().contains("service: shop/app")
        );
        assert_eq!(after["spec"]["containers"], pod["spec"]["containers"]);
        assert_eq!(ask(&after, json!({}), Some(CA))["patch"], Value::Null, "once is enough");
    }

    #[test]
    fn a_pod_that_does_not_ask_is_let_through_whatever_else_is_wrong() {
        for annotations in [json!({}), json!({"sidegate.dev/inject": "disabled", "sidegate.dev/x": "y"})] {
            let response = ask(&pod(annotations), json!({}), None);
            assert_eq!((&response["allowed"], &response["patch"]), (&json!(true), &Value::Null));
        }
        let asking = pod(json!({"sidegate.dev/outbound": "postgres 6432 to db/db"}));
        assert_eq!(ask(&asking, json!({"operation": "UPDATE"}), None)["allowed"], true);
    }

    #[test]
    fn a_pod_that_asks_in_vain_is_refused_with_the_reason() {
        let asking = |text: &str| pod(json!({"sidegate.dev/outbound": text}));
        for (pod, changes, issuer_ca, reason) in [
            (asking("postgres 6432 to db/db"), json!({}), None, "sidegate-trust-bundle"),
            (asking("postgres"), json!({}), Some(CA), "write `postgres PORT"),
            (asking("postgres 6432 to db/db"), json!({"namespace": null}), Some(CA), "no namespace"),
        ] {
            let response = ask(&pod, changes, issuer_ca);
            assert_eq!(response["allowed"], false);
            assert!(response["status"]["message"].as_str().unwrap().contains(reason), "{response}");
        }
    }

    #[test]
    fn what_is_no_review_is_an_error() {
        for body in ["", "{}", "[]", r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#] {
            assert!(answer(body.as_bytes(), Some(CA), &Defaults::default()).is_err(), "{body}");
        }
        let swollen = format!("[{}0]", "{\"\":0},".repeat(VALUES_MAX / 2));
        assert!(
            answer(swollen.as_bytes(), Some(CA), &Defaults::default()).is_err_and(|why| why.contains("no pod has"))
        );
    }
}
